//! Contacts in the schema.

use async_graphql::{Context, InputObject, Object};

use super::model::ContactOrderField;
use super::{Contact, ContactById, LifecycleStage, RecordStatus, queries};
use crate::auth::Permission;
use crate::crm::companies::{Company, CompanyById, CompanyFilter};
use crate::crm::deals::{Deal, DealsByContact};
use crate::crm::interactions::{Interaction, InteractionsByContact};
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::connection::{Cursor, nested, paged};
use crate::graphql::detail::{Detail, DetailFilter};
use crate::graphql::filter::{DateTimeFilter, EnumFilter, IdFilter, IntFilter, StringFilter};
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, Connection, ContextExt, OrderDirection, PageArgs, Record};
use crate::identity::{User, UserById};

/// A person that your people are in touch with.
#[Object]
impl Contact {
    /// The contact's id, for example `contact_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Contact> {
        self.id
    }

    /// The contact's full name.
    async fn name(&self) -> &str {
        &self.name
    }

    /// The contact's e-mail address; as `j•••@acme.example` for who lacks `CONTACT_DETAILS_READ`.
    async fn email(&self) -> Option<&Detail> {
        self.email.as_ref()
    }

    /// The contact's telephone number; as `•••• 42` for who lacks `CONTACT_DETAILS_READ`.
    async fn phone(&self) -> Option<&Detail> {
        self.phone.as_ref()
    }

    /// What the contact does at the company, for example `Head of Purchasing`.
    async fn job_title(&self) -> Option<&str> {
        self.job_title.as_deref()
    }

    /// The company that the contact works at.
    async fn company(&self, ctx: &Context<'_>) -> Option<Result<Record<Company>>> {
        ctx.relation::<CompanyById>(self.company_id).await
    }

    /// How far the contact has come on the way to being a customer.
    async fn lifecycle_stage(&self) -> LifecycleStage {
        self.lifecycle_stage
    }

    /// Whether the contact is still worked with.
    async fn record_status(&self) -> RecordStatus {
        self.record_status
    }

    /// Where the contact came from, for example `Trade fair`.
    async fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// How promising the contact is, from 0 to 5.
    async fn rating(&self) -> Option<i32> {
        self.rating
    }

    /// What else there is to know about the contact.
    async fn notes(&self) -> Option<&str> {
        self.notes.as_deref()
    }

    /// The user who looks after the contact.
    async fn owner(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.owner_id).await
    }

    /// The deals with the contact, newest first.
    async fn deals(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Deal>> {
        nested::<DealsByContact>(ctx, self.id, PageArgs::new(first, after, last, before)).await
    }

    /// The interactions with the contact, latest first.
    async fn interactions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Interaction>> {
        nested::<InteractionsByContact>(ctx, self.id, PageArgs::new(first, after, last, before)).await
    }

    /// When the contact was added.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the contact was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Counts the changes of the contact. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// Which contacts to list. All conditions must hold. One that is null is none, as if left out.
#[derive(Debug, Clone, Default, InputObject)]
pub struct ContactFilter {
    /// By id.
    pub id: Option<IdFilter<Contact>>,
    /// By name.
    pub name: Option<StringFilter>,
    /// By e-mail address. Needs `CONTACT_DETAILS_READ`.
    pub email: Option<DetailFilter>,
    /// By job title.
    pub job_title: Option<StringFilter>,
    /// By the company that they work at.
    pub company_id: Option<IdFilter<Company>>,
    /// By what holds for the company that they work at. Contacts without a company do not match. Needs `COMPANIES_READ`.
    pub company: Option<CompanyFilter>,
    /// By how far they have come on the way to being a customer.
    pub lifecycle_stage: Option<EnumFilter<LifecycleStage>>,
    /// By whether they are still worked with.
    pub record_status: Option<EnumFilter<RecordStatus>>,
    /// By where they came from.
    pub source: Option<StringFilter>,
    /// By rating.
    pub rating: Option<IntFilter>,
    /// By the user who looks after them.
    pub owner_id: Option<IdFilter<User>>,
    /// By when they were added.
    pub created_at: Option<DateTimeFilter>,
    /// By when they were last changed.
    pub updated_at: Option<DateTimeFilter>,
    /// All of these hold too.
    pub and: Option<Vec<ContactFilter>>,
    /// At least one of these holds too.
    pub or: Option<Vec<ContactFilter>>,
    /// This does not hold.
    pub not: Option<Box<ContactFilter>>,
}

/// How to sort contacts.
#[derive(Debug, Clone, InputObject)]
pub struct ContactOrder {
    /// What to sort by.
    field: ContactOrderField,
    /// Which end comes first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

/// Contacts at the root of the schema.
#[derive(Default)]
pub struct ContactQuery;

#[Object]
impl ContactQuery {
    /// A contact by its id; null when there is none.
    async fn contact(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the contact.")] id: Id<Contact>,
    ) -> Option<Result<Record<Contact>>> {
        ctx.find::<ContactById>(Permission::ContactsRead, id).await
    }

    /// The tenant's contacts, newest first unless ordered otherwise. `search` finds a text anywhere in name, e-mail
    /// address or job title; for who lacks `CONTACT_DETAILS_READ`, in the name.
    #[graphql(guard = "Can(Permission::ContactsRead)")]
    #[expect(clippy::too_many_arguments, reason = "the schema's arguments")]
    async fn contacts(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A text to find, in upper or lower case.")] search: Option<String>,
        #[graphql(desc = "Which contacts to list; all of them when left out.")] filter: Option<
            Box<ContactFilter>,
        >,
        #[graphql(desc = "How to sort them.")] order_by: Option<ContactOrder>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Contact>> {
        let order = order_by.map_or((ContactOrderField::CreatedAt, OrderDirection::Desc), |by| {
            (by.field, by.direction)
        });
        let (args, viewer) = (PageArgs::new(first, after, last, before), ctx.viewer()?);
        paged(ctx, args, order, || {
            queries::listed(search.as_deref(), filter.as_deref().cloned(), &viewer.rights)
        })
        .await
    }
}
