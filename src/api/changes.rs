//! Following records of every kind at once.

use async_graphql::{Context, Enum, ID, Object, Subscription, Union};

use super::{Node, find_node};
use crate::crm::companies::Company;
use crate::crm::contacts::Contact;
use crate::crm::deals::Deal;
use crate::crm::interactions::Interaction;
use crate::crm::pipelines::{Pipeline, PipelineStage};
use crate::db::id::{Kind, write_id};
use crate::error::{Error, Result};
use crate::events::{Event, Position};
use crate::graphql::change::{Change, ChangeKind, Followed, is_visible};
use crate::graphql::stream::{self, Frames, MustRefetch, UpToDate};
use crate::graphql::{ContextExt, Record, Session};
use crate::identity::{CustomRole, Team, Tenant, User, UserById};

/// The kinds of record that `changes` tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum RecordType {
    /// The tenant and its settings.
    Tenant,
    /// Users.
    User,
    /// Roles of the tenant's own.
    Role,
    /// Teams.
    Team,
    /// Companies.
    Company,
    /// Contacts.
    Contact,
    /// Pipelines.
    Pipeline,
    /// Stages of pipelines.
    PipelineStage,
    /// Deals. An entry of a deal's stage history comes as the change of its deal.
    Deal,
    /// Interactions.
    Interaction,
}

/// What `changes` sends: a change, a deletion, or a word about the stream itself.
#[derive(Union)]
pub enum ChangesFrame {
    Changed(RecordChangedEvent),
    Deleted(RecordDeletedEvent),
    UpToDate(UpToDate),
    MustRefetch(MustRefetch),
}

/// A change, with the kind of record that was changed and the written id of the record.
struct Told {
    ty: RecordType,
    id: String,
    change: Change,
}

impl From<Told> for ChangesFrame {
    fn from(told: Told) -> Self {
        if told.change.is_deletion() {
            Self::Deleted(RecordDeletedEvent(told))
        } else {
            Self::Changed(RecordChangedEvent(told))
        }
    }
}

/// A record was added or changed.
pub struct RecordChangedEvent(Told);

/// A record was added or changed.
#[Object]
impl RecordChangedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0.change
    }

    /// What was done.
    async fn kind(&self) -> ChangeKind {
        self.0.change.kind()
    }

    /// What kind of record it is.
    async fn record_type(&self) -> RecordType {
        self.0.ty
    }

    /// The id of the record.
    async fn record_id(&self) -> ID {
        ID(self.0.id.clone())
    }

    /// The record as it is now, or was some seconds ago; null when it was gone, or out of your reach.
    async fn record(&self, ctx: &Context<'_>) -> Option<Result<Node>> {
        find_node(ctx, &self.0.id).await
    }

    /// The user who made the change; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.change.actor()).await
    }
}

/// A record was deleted.
pub struct RecordDeletedEvent(Told);

/// A record was deleted.
#[Object]
impl RecordDeletedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0.change
    }

    /// What kind of record it was.
    async fn record_type(&self) -> RecordType {
        self.0.ty
    }

    /// The id of the record that is no more.
    async fn record_id(&self) -> ID {
        ID(self.0.id.clone())
    }

    /// The user who deleted the record; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.change.actor()).await
    }
}

/// Subscriptions to records of every kind.
#[derive(Default)]
pub struct ChangesSubscription;

#[Subscription]
impl ChangesSubscription {
    /// Sends every change of every record that you may read, the moment it is committed, each once and in order over all
    /// kinds: for clients that keep a copy. What your role may not read is left out. With `after`, a position from a
    /// mutation, from `viewer { position }` or from this stream, it first sends what happened since; `UpToDate` tells
    /// when that is done. Without it, the stream begins now, with `UpToDate`. To keep a copy, read the data with
    /// `viewer { position }` in the same query, follow `changes` after that position, put `record` in the place of what
    /// you have and remove what a `RecordDeletedEvent` names, and keep the position of the last frame to go on from. For
    /// example: `subscription { changes(types: [DEAL], after: "…") { ... on RecordChangedEvent { position recordId record {
    /// ... on Deal { name version } } } ... on RecordDeletedEvent { position recordId } ... on UpToDate { position }
    /// ... on MustRefetch { reason } } }`.
    async fn changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only records of these kinds; all kinds when left out, at least one otherwise.")]
        types: Option<Vec<RecordType>>,
        #[graphql(desc = "Send first what happened after this position.")] after: Option<String>,
    ) -> Result<Frames<ChangesFrame>> {
        let session = ctx.session().clone();
        session.viewer()?;
        if types.as_ref().is_some_and(Vec::is_empty) {
            let message = "types must name at least one kind of record. Leave it out for all kinds.";
            return Err(Error::BadInput(message.to_owned()));
        }
        stream::frames(ctx, after.as_deref(), move |position, event| {
            let (ty, is_visible, change) = followed(event)?;
            let wanted =
                types.as_ref().is_none_or(|types| types.contains(&ty)) && is_visible(&session, event);
            wanted.then(|| {
                let id = write_id(&event.entity, event.record_id);
                let change = change(position, event);
                Told { ty, id, change }.into()
            })
        })
    }
}

/// A kind of record: its name, whether the viewer may see an event of it, and what such an event tells.
type Following = (
    RecordType,
    fn(&Session, &Event) -> bool,
    fn(Position, &Event) -> Change,
);

/// How the record of an event is followed. Some things in the history are no records, and are told to nobody.
fn followed(event: &Event) -> Option<Following> {
    fn of<T: Followed>(ty: RecordType) -> Following {
        (ty, is_visible::<T>, Change::new::<T>)
    }
    Some(match event.entity.as_str() {
        Tenant::PREFIX => of::<Tenant>(RecordType::Tenant),
        User::PREFIX => of::<User>(RecordType::User),
        CustomRole::PREFIX => of::<CustomRole>(RecordType::Role),
        Team::PREFIX => of::<Team>(RecordType::Team),
        Company::PREFIX => of::<Company>(RecordType::Company),
        Contact::PREFIX => of::<Contact>(RecordType::Contact),
        Pipeline::PREFIX => of::<Pipeline>(RecordType::Pipeline),
        PipelineStage::PREFIX => of::<PipelineStage>(RecordType::PipelineStage),
        Deal::PREFIX => of::<Deal>(RecordType::Deal),
        Interaction::PREFIX => of::<Interaction>(RecordType::Interaction),
        _ => return None,
    })
}
