//! Following contacts as they change.

use async_graphql::{Context, Object, Subscription, Union};

use super::{Contact, ContactById};
use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::change::{Change, ChangeKind, follow, is_of, refers_to};
use crate::graphql::stream::{Frames, MustRefetch, UpToDate};
use crate::graphql::{Can, ContextExt, Record};
use crate::identity::{User, UserById};

/// What `contactChanged` sends: a change, a deletion, or a word about the stream itself.
#[derive(Union)]
pub enum ContactChangedFrame {
    Changed(ContactChangedEvent),
    Deleted(ContactDeletedEvent),
    UpToDate(UpToDate),
    MustRefetch(MustRefetch),
}

impl From<Change> for ContactChangedFrame {
    fn from(change: Change) -> Self {
        if change.is_deletion() {
            Self::Deleted(ContactDeletedEvent(change))
        } else {
            Self::Changed(ContactChangedEvent(change))
        }
    }
}

/// A contact was added or changed.
pub struct ContactChangedEvent(Change);

/// A contact was added or changed.
#[Object]
impl ContactChangedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0
    }

    /// What was done: `CREATED` or `UPDATED`.
    async fn kind(&self) -> ChangeKind {
        self.0.kind()
    }

    /// The id of the contact.
    async fn contact_id(&self) -> Id<Contact> {
        self.0.id()
    }

    /// The contact as it is now, or was some seconds ago; null when it was gone, or out of your reach.
    async fn contact(&self, ctx: &Context<'_>) -> Option<Result<Record<Contact>>> {
        ctx.relation::<ContactById>(self.0.id()).await
    }

    /// The user who made the change; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.actor()).await
    }
}

/// A contact was deleted.
pub struct ContactDeletedEvent(Change);

/// A contact was deleted.
#[Object]
impl ContactDeletedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0
    }

    /// The id of the contact that is no more.
    async fn contact_id(&self) -> Id<Contact> {
        self.0.id()
    }

    /// The user who deleted the contact; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.actor()).await
    }
}

/// Subscriptions to contacts.
#[derive(Default)]
pub struct ContactSubscription;

#[Subscription]
impl ContactSubscription {
    /// Sends every change of a contact the moment it is committed, each once and in order: a new contact, new values, a
    /// deletion. With `after`, a position from a mutation, from `viewer { position }` or from this stream, it first sends
    /// what happened since; `UpToDate` tells when that is done. Without it, the stream begins now, with `UpToDate`.
    #[graphql(guard = "Can(Permission::ContactsRead)")]
    async fn contact_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only this contact.")] contact_id: Option<Id<Contact>>,
        #[graphql(
            desc = "Only contacts of this company. The change by which a contact goes from one company to another is sent \
                    to those who follow either."
        )]
        company_id: Option<Id<Company>>,
        #[graphql(
            desc = "Only contacts of this owner. The change by which a contact goes from one owner to another is sent to \
                    those who follow either."
        )]
        owner_id: Option<Id<User>>,
        #[graphql(desc = "Send first what happened after this position.")] after: Option<String>,
    ) -> Result<Frames<ContactChangedFrame>> {
        follow::<Contact, _>(ctx, after.as_deref(), move |position, event| {
            let wanted = is_of(event, contact_id)
                && refers_to(event, "companyId", company_id)
                && refers_to(event, "ownerId", owner_id);
            wanted.then(|| Change::new::<Contact>(position, event).into())
        })
    }
}
