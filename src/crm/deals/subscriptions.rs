//! Following deals as they move.

use std::sync::Arc;

use async_graphql::{Context, Enum, Object, SimpleObject, Subscription, Union};
use futures::{Stream, StreamExt};

use super::{Deal, DealById, StageMove};
use crate::auth::Permission;
use crate::crm::pipelines::{Pipeline, PipelineStage, StageById};
use crate::db::id::{Id, Kind};
use crate::error::{Error, Result};
use crate::events::feed::{Reason, Signal};
use crate::events::{Event, Position};
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, ContextExt};
use crate::identity::{User, UserById};

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

/// Everything that happened before has been sent; what follows is live.
#[derive(SimpleObject)]
pub struct UpToDate {
    /// How far the stream has come. Pass it as `after` to go on from here, whatever happens to the connection.
    position: String,
}

/// The stream cannot go on from the position that was asked for, and ends. Read the data anew, with
/// `viewer { position }` in the same query, and subscribe after that position.
#[derive(SimpleObject)]
pub struct MustRefetch {
    /// Why the stream cannot go on.
    reason: MustRefetchReason,
}

/// Why a stream cannot go on from a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Reason")]
pub enum MustRefetchReason {
    /// Events after the position are no longer kept.
    HistoryTrimmed,
    /// The position belongs to another history: of another tenant, or from before a restored backup.
    HistoryReplaced,
    /// The position lies in the future.
    PositionUnknown,
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

    /// The deal as it is now; null when it has been deleted meanwhile.
    async fn deal(&self, ctx: &Context<'_>) -> Option<Result<Arc<Deal>>> {
        ctx.relation::<DealById>(self.deal_id).await
    }

    /// The stage that the deal left.
    #[graphql(name = "fromStage")]
    async fn stage_left(&self, ctx: &Context<'_>) -> Option<Result<Arc<PipelineStage>>> {
        ctx.relation::<StageById>(self.moved.from_stage_id).await
    }

    /// The stage that the deal entered.
    async fn to_stage(&self, ctx: &Context<'_>) -> Option<Result<Arc<PipelineStage>>> {
        ctx.relation::<StageById>(self.moved.to_stage_id).await
    }

    /// The user who moved the deal; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Arc<User>>> {
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
    /// Sends every change of a deal's stage the moment it is committed, each once and in order. With `after`, a position
    /// from a mutation, from `viewer { position }` or from this stream, it first sends what happened since; `UpToDate`
    /// tells when that is done. Without it, the stream begins now, with `UpToDate`.
    #[graphql(guard = "Can(Permission::DealsRead)")]
    async fn deal_stage_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only deals of this pipeline.")] pipeline_id: Option<Id<Pipeline>>,
        #[graphql(desc = "Only this deal.")] deal_id: Option<Id<Deal>>,
        #[graphql(desc = "Send first what happened after this position.")] after: Option<String>,
    ) -> Result<impl Stream<Item = DealStageChangedFrame> + use<>> {
        let session = ctx.session();
        let after = after.map(|after| after.parse::<Position>()).transpose();
        let after =
            after.map_err(|_| Error::BadInput("after is not a position of this server.".to_owned()))?;
        let signals = session.hub().follow(session.viewer()?.tenant_id, after);
        Ok(signals.filter_map(move |signal| std::future::ready(frame(signal, pipeline_id, deal_id))))
    }
}

fn frame(
    signal: Signal,
    pipeline: Option<Id<Pipeline>>,
    deal: Option<Id<Deal>>,
) -> Option<DealStageChangedFrame> {
    match signal {
        Signal::Event { epoch, event } => {
            let event = DealStageChangedEvent::read(epoch, &event)?;
            let wanted = pipeline.is_none_or(|id| id == event.moved.pipeline_id)
                && deal.is_none_or(|id| id == event.deal_id);
            wanted.then_some(DealStageChangedFrame::Event(event))
        }
        Signal::UpToDate(position) => Some(DealStageChangedFrame::UpToDate(UpToDate {
            position: position.to_string(),
        })),
        Signal::MustRefetch(reason) => Some(DealStageChangedFrame::MustRefetch(MustRefetch {
            reason: reason.into(),
        })),
    }
}

impl DealStageChangedEvent {
    /// Reads a stage change from the history; other events are none of ours.
    fn read(epoch: i64, event: &Event) -> Option<Self> {
        if event.entity != Deal::PREFIX || event.kind != "STAGE_CHANGED" {
            return None;
        }
        let moved = serde_json::from_value(event.change.clone())
            .inspect_err(|error| tracing::error!(%error, "an event in the history cannot be read"))
            .ok()?;
        Some(Self {
            position: Position {
                epoch,
                position: event.position,
            },
            deal_id: Id::from_uuid(event.record_id),
            moved,
            changed_by_id: event.actor_id.map(Id::from_uuid),
            occurred_at: event.occurred_at,
        })
    }
}
