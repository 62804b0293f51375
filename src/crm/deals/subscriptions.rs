//! Following deals as they move.

use std::sync::Arc;

use async_graphql::{Context, Object, Subscription, Union};

use super::{Deal, DealById, StageMove};
use crate::auth::Permission;
use crate::crm::pipelines::{Pipeline, PipelineStage, StageById};
use crate::db::id::{Id, Kind};
use crate::error::Result;
use crate::events::{Event, Position};
use crate::graphql::scalar::DateTime;
use crate::graphql::stream::{self, Frames, MustRefetch, UpToDate};
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
    ) -> Result<Frames<DealStageChangedFrame>> {
        stream::frames(ctx, after.as_deref(), move |position, event| {
            let event = DealStageChangedEvent::read(position, event)?;
            let wanted = pipeline_id.is_none_or(|id| id == event.moved.pipeline_id)
                && deal_id.is_none_or(|id| id == event.deal_id);
            wanted.then_some(DealStageChangedFrame::Event(event))
        })
    }
}

impl DealStageChangedEvent {
    /// Reads a stage change from the history; other events are none of ours.
    fn read(position: Position, event: &Event) -> Option<Self> {
        if event.entity != Deal::PREFIX || event.kind != "STAGE_CHANGED" {
            return None;
        }
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
