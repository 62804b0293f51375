//! Following companies as they change.

use async_graphql::{Context, Object, Subscription, Union};

use super::{Company, CompanyById};
use crate::auth::Permission;
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::change::{Change, ChangeKind, follow, is_of, refers_to};
use crate::graphql::stream::{Frames, MustRefetch, UpToDate};
use crate::graphql::{Can, ContextExt, Record};
use crate::identity::{User, UserById};

/// What `companyChanged` sends: a change, a deletion, or a word about the stream itself.
#[derive(Union)]
pub enum CompanyChangedFrame {
    Changed(CompanyChangedEvent),
    Deleted(CompanyDeletedEvent),
    UpToDate(UpToDate),
    MustRefetch(MustRefetch),
}

impl From<Change> for CompanyChangedFrame {
    fn from(change: Change) -> Self {
        if change.is_deletion() {
            Self::Deleted(CompanyDeletedEvent(change))
        } else {
            Self::Changed(CompanyChangedEvent(change))
        }
    }
}

/// A company was added or changed.
pub struct CompanyChangedEvent(Change);

/// A company was added or changed.
#[Object]
impl CompanyChangedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0
    }

    /// What was done: `CREATED` or `UPDATED`.
    async fn kind(&self) -> ChangeKind {
        self.0.kind()
    }

    /// The id of the company.
    async fn company_id(&self) -> Id<Company> {
        self.0.id()
    }

    /// The company as it is now, or was some seconds ago; null when it was gone, or out of your reach.
    async fn company(&self, ctx: &Context<'_>) -> Option<Result<Record<Company>>> {
        ctx.relation::<CompanyById>(self.0.id()).await
    }

    /// The user who made the change; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.actor()).await
    }
}

/// A company was deleted.
pub struct CompanyDeletedEvent(Change);

/// A company was deleted.
#[Object]
impl CompanyDeletedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0
    }

    /// The id of the company that is no more.
    async fn company_id(&self) -> Id<Company> {
        self.0.id()
    }

    /// The user who deleted the company; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.actor()).await
    }
}

/// Subscriptions to companies.
#[derive(Default)]
pub struct CompanySubscription;

#[Subscription]
impl CompanySubscription {
    /// Sends every change of a company the moment it is committed, each once and in order: a new company, new values, a
    /// deletion. With `after`, a position from a mutation, from `viewer { position }` or from this stream, it first sends
    /// what happened since; `UpToDate` tells when that is done. Without it, the stream begins now, with `UpToDate`.
    #[graphql(guard = "Can(Permission::CompaniesRead)")]
    async fn company_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only this company.")] company_id: Option<Id<Company>>,
        #[graphql(
            desc = "Only companies of this owner. The change by which a company goes from one owner to another is sent to \
                    those who follow either."
        )]
        owner_id: Option<Id<User>>,
        #[graphql(desc = "Send first what happened after this position.")] after: Option<String>,
    ) -> Result<Frames<CompanyChangedFrame>> {
        follow::<Company, _>(ctx, after.as_deref(), move |position, event| {
            let wanted = is_of(event, company_id) && refers_to(event, "ownerId", owner_id);
            wanted.then(|| Change::new::<Company>(position, event).into())
        })
    }
}
