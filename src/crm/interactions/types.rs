//! Interactions in the schema.

use async_graphql::{Context, InputObject, Object};

use super::model::InteractionOrderField;
use super::{Interaction, InteractionById, InteractionDirection, InteractionKind, queries};
use crate::auth::Permission;
use crate::crm::companies::{Company, CompanyById};
use crate::crm::contacts::{Contact, ContactById};
use crate::crm::deals::{Deal, DealById};
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::connection::{Cursor, paged};
use crate::graphql::filter::{DateTimeFilter, EnumFilter, IdFilter, StringFilter};
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, Connection, ContextExt, OrderDirection, PageArgs, Record};
use crate::identity::{User, UserById};

/// A call, an e-mail, a meeting, a chat or a note: something that happened, or is planned, with a contact, with a
/// company or about a deal.
#[Object]
impl Interaction {
    /// The interaction's id, for example `interaction_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Interaction> {
        self.id
    }

    /// What sort of interaction it is.
    async fn kind(&self) -> InteractionKind {
        self.kind
    }

    /// Who began the interaction.
    async fn direction(&self) -> Option<InteractionDirection> {
        self.direction
    }

    /// The means by which it took place, for example `Video conference`.
    async fn channel(&self) -> Option<&str> {
        self.channel.as_deref()
    }

    /// What it is about, in a line.
    async fn subject(&self) -> &str {
        &self.subject
    }

    /// What was said or written.
    async fn content(&self) -> Option<&str> {
        self.content.as_deref()
    }

    /// What came of it.
    async fn outcome(&self) -> Option<&str> {
        self.outcome.as_deref()
    }

    /// What is to be done next.
    async fn next_action(&self) -> Option<&str> {
        self.next_action.as_deref()
    }

    /// The time that the interaction was planned for.
    async fn scheduled_at(&self) -> Option<DateTime> {
        self.scheduled_at.map(Into::into)
    }

    /// When the interaction happened; while it is only planned, the planned time.
    async fn occurred_at(&self) -> DateTime {
        self.occurred_at.into()
    }

    /// When the interaction was completed; null while it is still to come.
    async fn completed_at(&self) -> Option<DateTime> {
        self.completed_at.map(Into::into)
    }

    /// The person that the interaction is with.
    async fn contact(&self, ctx: &Context<'_>) -> Option<Result<Record<Contact>>> {
        ctx.relation::<ContactById>(self.contact_id).await
    }

    /// The company that the interaction is with.
    async fn company(&self, ctx: &Context<'_>) -> Option<Result<Record<Company>>> {
        ctx.relation::<CompanyById>(self.company_id).await
    }

    /// The deal that the interaction is about.
    async fn deal(&self, ctx: &Context<'_>) -> Option<Result<Record<Deal>>> {
        ctx.relation::<DealById>(self.deal_id).await
    }

    /// The user who recorded the interaction.
    async fn created_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.created_by_id).await
    }

    /// When the interaction was added.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the interaction was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Counts the changes of the interaction. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// Which interactions to list. All conditions must hold. One that is null is none, as if left out.
#[derive(Debug, Clone, Default, InputObject)]
pub struct InteractionFilter {
    /// By id.
    pub id: Option<IdFilter<Interaction>>,
    /// By sort of interaction.
    pub kind: Option<EnumFilter<InteractionKind>>,
    /// By who began them. Interactions without a direction do not match.
    pub direction: Option<EnumFilter<InteractionDirection>>,
    /// By the person that they are with.
    pub contact_id: Option<IdFilter<Contact>>,
    /// By the company that they are with.
    pub company_id: Option<IdFilter<Company>>,
    /// By the deal that they are about.
    pub deal_id: Option<IdFilter<Deal>>,
    /// By the user who recorded them.
    pub created_by_id: Option<IdFilter<User>>,
    /// By subject.
    pub subject: Option<StringFilter>,
    /// By when they happened or, while they are only planned, the planned time.
    pub occurred_at: Option<DateTimeFilter>,
    /// By the time that they were planned for.
    pub scheduled_at: Option<DateTimeFilter>,
    /// By when they were completed.
    pub completed_at: Option<DateTimeFilter>,
    /// By whether they are completed (`true`) or still to come (`false`).
    pub is_completed: Option<bool>,
    /// All of these hold too.
    pub and: Option<Vec<InteractionFilter>>,
    /// At least one of these holds too.
    pub or: Option<Vec<InteractionFilter>>,
    /// This does not hold.
    pub not: Option<Box<InteractionFilter>>,
}

/// How to sort interactions.
#[derive(Debug, Clone, InputObject)]
pub struct InteractionOrder {
    /// What to sort by.
    field: InteractionOrderField,
    /// Which end comes first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

/// Interactions at the root of the schema.
#[derive(Default)]
pub struct InteractionQuery;

#[Object]
impl InteractionQuery {
    /// An interaction by its id; null when there is none.
    async fn interaction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the interaction.")] id: Id<Interaction>,
    ) -> Option<Result<Record<Interaction>>> {
        ctx.find::<InteractionById>(Permission::InteractionsRead, id)
            .await
    }

    /// The tenant's interactions, latest first unless ordered otherwise.
    #[graphql(guard = "Can(Permission::InteractionsRead)")]
    #[expect(clippy::too_many_arguments, reason = "the schema's arguments")]
    async fn interactions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which interactions to list; all of them when left out.")] filter: Option<
            Box<InteractionFilter>,
        >,
        #[graphql(desc = "How to sort them.")] order_by: Option<InteractionOrder>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Interaction>> {
        let order = order_by.map_or((InteractionOrderField::OccurredAt, OrderDirection::Desc), |by| {
            (by.field, by.direction)
        });
        let args = PageArgs::new(first, after, last, before);
        paged(ctx, args, order, || {
            queries::matching(filter.as_deref().cloned().unwrap_or_default())
        })
        .await
    }
}
