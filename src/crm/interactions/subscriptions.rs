//! Following interactions as they are logged.

use async_graphql::{Context, Object, Subscription, Union};

use super::{Interaction, InteractionById};
use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::crm::contacts::Contact;
use crate::crm::deals::Deal;
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::change::{Change, ChangeKind, follow, refers_to};
use crate::graphql::stream::{Frames, MustRefetch, UpToDate};
use crate::graphql::{Can, ContextExt, Record};
use crate::identity::{User, UserById};

/// What `interactionLogged` sends: an interaction, or a word about the stream itself.
#[derive(Union)]
pub enum InteractionLoggedFrame {
    Logged(InteractionLoggedEvent),
    UpToDate(UpToDate),
    MustRefetch(MustRefetch),
}

/// An interaction was recorded, planned or completed.
pub struct InteractionLoggedEvent(Change);

/// An interaction was recorded, planned or completed.
#[Object]
impl InteractionLoggedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0
    }

    /// What was done: `CREATED` when it was recorded or planned, `COMPLETED` when one that was still to come is done.
    async fn kind(&self) -> ChangeKind {
        self.0.kind()
    }

    /// The id of the interaction.
    async fn interaction_id(&self) -> Id<Interaction> {
        self.0.id()
    }

    /// The interaction as it is now, or was some seconds ago; null when it was gone, or out of your reach. Without a `completedAt`
    /// it is still to come.
    async fn interaction(&self, ctx: &Context<'_>) -> Option<Result<Record<Interaction>>> {
        ctx.relation::<InteractionById>(self.0.id()).await
    }

    /// The user who logged the interaction; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.actor()).await
    }
}

/// Subscriptions to interactions.
#[derive(Default)]
pub struct InteractionSubscription;

#[Subscription]
impl InteractionSubscription {
    /// Sends every interaction the moment it is recorded or planned, and again when a planned one is completed, by
    /// whichever mutation; each once and in order. Other changes of interactions, and deletions, are sent by
    /// `changes(types: [INTERACTION])`. With `after`, a position from a mutation, from `viewer { position }` or from this
    /// stream, it first sends what happened since; `UpToDate` tells when that is done. Without it, the stream begins
    /// now, with `UpToDate`.
    #[graphql(guard = "Can(Permission::InteractionsRead)")]
    async fn interaction_logged(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only interactions with this contact.")] contact_id: Option<Id<Contact>>,
        #[graphql(desc = "Only interactions with this company.")] company_id: Option<Id<Company>>,
        #[graphql(desc = "Only interactions about this deal.")] deal_id: Option<Id<Deal>>,
        #[graphql(desc = "Send first what happened after this position.")] after: Option<String>,
    ) -> Result<Frames<InteractionLoggedFrame>> {
        follow::<Interaction, _>(ctx, after.as_deref(), move |position, event| {
            let wanted = matches!(event.kind.as_str(), "CREATED" | "COMPLETED")
                && refers_to(event, "contactId", contact_id)
                && refers_to(event, "companyId", company_id)
                && refers_to(event, "dealId", deal_id);
            wanted.then(|| InteractionLoggedEvent(Change::new::<Interaction>(position, event)).into())
        })
    }
}
