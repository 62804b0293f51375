//! Following deals as they change, and as they move.

use async_graphql::{Context, Object, Subscription, Union};

use super::model::STAGE_CHANGED;
use super::{Deal, DealById, StageMove};
use crate::auth::Permission;
use crate::crm::pipelines::{Pipeline, PipelineStage, StageById};
use crate::db::id::Id;
use crate::error::Result;
use crate::events::{Event, Position};
use crate::graphql::change::{Change, ChangeKind, follow, is_of, refers_to};
use crate::graphql::scalar::DateTime;
use crate::graphql::stream::{Frames, MustRefetch, UpToDate};
use crate::graphql::{Can, ContextExt, Record};
use crate::identity::{User, UserById};

/// What `dealChanged` sends: a change, a deletion, or a word about the stream itself.
#[derive(Union)]
pub enum DealChangedFrame {
    Changed(DealChangedEvent),
    Deleted(DealDeletedEvent),
    UpToDate(UpToDate),
    MustRefetch(MustRefetch),
}

impl From<Change> for DealChangedFrame {
    fn from(change: Change) -> Self {
        if change.is_deletion() {
            Self::Deleted(DealDeletedEvent(change))
        } else {
            Self::Changed(DealChangedEvent(change))
        }
    }
}

/// A deal was added, changed or moved.
pub struct DealChangedEvent(Change);

/// A deal was added, changed or moved to another stage.
#[Object]
impl DealChangedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0
    }

    /// What was done: `CREATED`, `UPDATED` or `STAGE_CHANGED`. A move tells the change of `stageId`; what follows from
    /// the stage, such as `status` and `winProbability`, is in `deal`.
    async fn kind(&self) -> ChangeKind {
        self.0.kind()
    }

    /// The id of the deal.
    async fn deal_id(&self) -> Id<Deal> {
        self.0.id()
    }

    /// The deal as it is now, or was some seconds ago; null when it was gone, or out of your reach.
    async fn deal(&self, ctx: &Context<'_>) -> Option<Result<Record<Deal>>> {
        ctx.relation::<DealById>(self.0.id()).await
    }

    /// The user who made the change; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.actor()).await
    }
}

/// A deal was deleted.
pub struct DealDeletedEvent(Change);

/// A deal was deleted, with its stage history.
#[Object]
impl DealDeletedEvent {
    #[graphql(flatten)]
    async fn change(&self) -> &Change {
        &self.0
    }

    /// The id of the deal that is no more.
    async fn deal_id(&self) -> Id<Deal> {
        self.0.id()
    }

    /// The user who deleted the deal; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.0.actor()).await
    }
}

/// What `dealStageChanged` sends: a change, or a word about the stream itself.
#[derive(Union)]
pub enum DealStageChangedFrame {
    Event(DealStageChangedEvent),
    UpToDate(UpToDate),
    MustRefetch(MustRefetch),
}

/// A deal has moved from one stage to another.
pub struct DealStageChangedEvent {
    position: Position,
    deal_id: Id<Deal>,
    moved: StageMove,
    changed_by_id: Option<Id<User>>,
    occurred_at: chrono::DateTime<chrono::Utc>,
}

/// A deal has moved from one stage to another.
#[Object]
impl DealStageChangedEvent {
    /// The position of this change in the tenant's history. Pass it as `after` to go on from here.
    async fn position(&self) -> String {
        self.position.to_string()
    }

    /// The id of the deal that moved.
    async fn deal_id(&self) -> Id<Deal> {
        self.deal_id
    }

    /// The deal as it is now, or was some seconds ago; null when it was gone, or out of your reach.
    async fn deal(&self, ctx: &Context<'_>) -> Option<Result<Record<Deal>>> {
        ctx.relation::<DealById>(self.deal_id).await
    }

    /// The stage that the deal left.
    #[graphql(name = "fromStage")]
    async fn stage_left(&self, ctx: &Context<'_>) -> Option<Result<Record<PipelineStage>>> {
        ctx.relation::<StageById>(self.moved.from_stage_id).await
    }

    /// The stage that the deal entered.
    async fn to_stage(&self, ctx: &Context<'_>) -> Option<Result<Record<PipelineStage>>> {
        ctx.relation::<StageById>(self.moved.to_stage_id).await
    }

    /// The user who moved the deal; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.changed_by_id).await
    }

    /// When the deal moved.
    async fn occurred_at(&self) -> DateTime {
        self.occurred_at.into()
    }
}

/// Subscriptions to deals.
#[derive(Default)]
pub struct DealSubscription;

#[Subscription]
impl DealSubscription {
    /// Sends every change of a deal the moment it is committed, each once and in order: a new deal, new values, a move
    /// to another stage, a deletion. With `after`, a position from a mutation, from `viewer { position }` or from this
    /// stream, it first sends what happened since; `UpToDate` tells when that is done. Without it, the stream begins
    /// now, with `UpToDate`. A client that shows deals puts `deal` in the place of what it has when it hears of a
    /// `DealChangedEvent`, and removes `dealId` when it hears of a `DealDeletedEvent`.
    #[graphql(guard = "Can(Permission::DealsRead)")]
    async fn deal_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only deals of this pipeline.")] pipeline_id: Option<Id<Pipeline>>,
        #[graphql(desc = "Only this deal.")] deal_id: Option<Id<Deal>>,
        #[graphql(
            desc = "Only deals of this owner. The change by which a deal goes from one owner to another is sent to those \
                    who follow either."
        )]
        owner_id: Option<Id<User>>,
        #[graphql(desc = "Send first what happened after this position.")] after: Option<String>,
    ) -> Result<Frames<DealChangedFrame>> {
        follow::<Deal, _>(ctx, after.as_deref(), move |position, event| {
            let wanted = is_of(event, deal_id)
                && refers_to(event, "pipelineId", pipeline_id)
                && refers_to(event, "ownerId", owner_id);
            wanted.then(|| Change::new::<Deal>(position, event).into())
        })
    }

    /// Sends every change of a deal's stage the moment it is committed, each once and in order. With `after`, a position
    /// from a mutation, from `viewer { position }` or from this stream, it first sends what happened since; `UpToDate`
    /// tells when that is done. Without it, the stream begins now, with `UpToDate`.
    #[graphql(guard = "Can(Permission::DealsRead)")]
    async fn deal_stage_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only deals of this pipeline.")] pipeline_id: Option<Id<Pipeline>>,
        #[graphql(desc = "Only this deal.")] deal_id: Option<Id<Deal>>,
        #[graphql(desc = "Only deals that this user owned when they moved.")] owner_id: Option<Id<User>>,
        #[graphql(desc = "Send first what happened after this position.")] after: Option<String>,
    ) -> Result<Frames<DealStageChangedFrame>> {
        follow::<Deal, _>(ctx, after.as_deref(), move |position, event| {
            let wanted = event.kind == STAGE_CHANGED
                && is_of(event, deal_id)
                && refers_to(event, "pipelineId", pipeline_id)
                && refers_to(event, "ownerId", owner_id);
            let event = wanted.then(|| DealStageChangedEvent::read(position, event));
            event.flatten().map(DealStageChangedFrame::Event)
        })
    }
}

impl DealStageChangedEvent {
    /// Reads a stage change from the history.
    fn read(position: Position, event: &Event) -> Option<Self> {
        let moved = serde_json::from_value(event.change.clone())
            .inspect_err(|error| tracing::error!(%error, "an event in the history cannot be read"))
            .ok()?;
        Some(Self {
            position,
            deal_id: Id::from_uuid(event.record_id),
            moved,
            changed_by_id: event.actor_id.map(Id::from_uuid),
            occurred_at: event.occurred_at,
        })
    }
}
