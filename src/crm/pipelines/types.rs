//! Pipelines and stages in the schema.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object};

use super::model::PipelineOrderField;
use super::queries::StagesByPipeline;
use super::{Pipeline, PipelineById, PipelineStage, StageById, StageKind, queries};
use crate::auth::Permission;
use crate::crm::deals::{Deal, DealsByStage, StageTotals};
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::connection::{Cursor, nested, paged};
use crate::graphql::filter::{DateTimeFilter, IdFilter, StringFilter};
use crate::graphql::scalar::{CurrencyCode, DateTime, Money};
use crate::graphql::{Can, Connection, ContextExt, Eager, EagerList, OrderDirection, PageArgs, Record};
use crate::identity;

/// A way that deals go, from the first contact to won or lost.
#[Object]
impl Pipeline {
    /// The pipeline's id, for example `pipeline_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Pipeline> {
        self.id
    }

    /// The pipeline's name.
    async fn name(&self) -> &str {
        &self.name
    }

    /// Whether new deals go into this pipeline when nothing else is said.
    async fn is_default(&self) -> bool {
        self.is_default
    }

    /// The pipeline's stages, first to last. With their deals this is the board.
    async fn stages(&self, ctx: &Context<'_>) -> Result<EagerList<Vec<Arc<PipelineStage>>>> {
        let stages = ctx.load::<StagesByPipeline>(self.id).await?;
        Ok(EagerList(
            stages.map(|stages| stages.to_vec()).unwrap_or_default(),
        ))
    }

    /// When the pipeline was added.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the pipeline was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Counts the changes of the pipeline. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// A step of a pipeline.
#[Object]
impl PipelineStage {
    /// The stage's id, for example `stage_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<PipelineStage> {
        self.id
    }

    /// The stage's name.
    async fn name(&self) -> &str {
        &self.name
    }

    /// The stage's place in its pipeline, counted from 1.
    async fn position(&self) -> i32 {
        self.position
    }

    /// What it means for a deal to be in this stage.
    async fn kind(&self) -> StageKind {
        self.kind
    }

    /// How likely a deal in this stage is to be won, in percent. A deal takes it over when it enters the stage.
    async fn win_probability(&self) -> i32 {
        self.win_probability
    }

    /// Days after which a deal that has not left this stage counts as rotting.
    async fn rotting_after_days(&self) -> Option<i32> {
        self.rotting_after_days
    }

    /// The pipeline that the stage belongs to.
    async fn pipeline(&self, ctx: &Context<'_>) -> Option<Result<Record<Pipeline>>> {
        ctx.relation::<PipelineById>(self.pipeline_id).await
    }

    /// The number of deals in this stage, in all currencies.
    async fn deal_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let totals = ctx.load::<StageTotals>(self.id).await?.unwrap_or_default();
        Ok(i32::try_from(totals.deal_count()).unwrap_or(i32::MAX))
    }

    /// The amounts of this stage's deals, added up. Amounts of different currencies are never added: this is the sum of
    /// the deals in the given currency, by default the tenant's.
    async fn total_amount(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The currency of the deals to add up; the tenant's when left out.")]
        currency_code: Option<CurrencyCode>,
    ) -> Result<Eager<Money>> {
        let totals = ctx.load::<StageTotals>(self.id);
        let (currency, totals) =
            futures::try_join!(identity::currency_or_tenants(ctx, currency_code), totals)?;
        Ok(Eager(totals.unwrap_or_default().amount(currency)))
    }

    /// The amounts of this stage's deals, each times its own win probability, added up. As with `totalAmount`, of the
    /// deals in the given currency, by default the tenant's.
    async fn weighted_amount(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The currency of the deals to add up; the tenant's when left out.")]
        currency_code: Option<CurrencyCode>,
    ) -> Result<Eager<Money>> {
        let totals = ctx.load::<StageTotals>(self.id);
        let (currency, totals) =
            futures::try_join!(identity::currency_or_tenants(ctx, currency_code), totals)?;
        Ok(Eager(totals.unwrap_or_default().weighted(currency)))
    }

    /// The currencies that deals in this stage have, for `totalAmount` and `weightedAmount`.
    async fn currencies(&self, ctx: &Context<'_>) -> Result<Vec<CurrencyCode>> {
        Ok(ctx
            .load::<StageTotals>(self.id)
            .await?
            .unwrap_or_default()
            .currencies())
    }

    /// The deals in this stage, newest first.
    async fn deals(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Deal>> {
        nested::<DealsByStage>(ctx, self.id, PageArgs::new(first, after, last, before)).await
    }

    /// When the stage was added.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the stage was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Counts the changes of the stage. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// Which pipelines to list. All conditions must hold. One that is null is none, as if left out.
#[derive(Debug, Clone, Default, InputObject)]
pub struct PipelineFilter {
    /// By id.
    pub id: Option<IdFilter<Pipeline>>,
    /// By name.
    pub name: Option<StringFilter>,
    /// By whether it is the one that deals are put into when none is given.
    pub is_default: Option<bool>,
    /// By when they were added.
    pub created_at: Option<DateTimeFilter>,
    /// By when they were last changed.
    pub updated_at: Option<DateTimeFilter>,
    /// All of these hold too.
    pub and: Option<Vec<PipelineFilter>>,
    /// At least one of these holds too.
    pub or: Option<Vec<PipelineFilter>>,
    /// This does not hold.
    pub not: Option<Box<PipelineFilter>>,
}

/// How to sort pipelines.
#[derive(Debug, Clone, InputObject)]
pub struct PipelineOrder {
    /// What to sort by.
    field: PipelineOrderField,
    /// Which end comes first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

/// Pipelines at the root of the schema.
#[derive(Default)]
pub struct PipelineQuery;

#[Object]
impl PipelineQuery {
    /// A pipeline by its id; null when there is none.
    async fn pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the pipeline.")] id: Id<Pipeline>,
    ) -> Option<Result<Record<Pipeline>>> {
        ctx.find::<PipelineById>(Permission::PipelinesRead, id).await
    }

    /// A stage by its id; null when there is none.
    async fn pipeline_stage(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the stage.")] id: Id<PipelineStage>,
    ) -> Option<Result<Record<PipelineStage>>> {
        ctx.find::<StageById>(Permission::PipelinesRead, id).await
    }

    /// The tenant's pipelines, oldest first unless ordered otherwise.
    #[graphql(guard = "Can(Permission::PipelinesRead)")]
    #[expect(clippy::too_many_arguments, reason = "the schema's arguments")]
    async fn pipelines(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which pipelines to list; all of them when left out.")] filter: Option<
            PipelineFilter,
        >,
        #[graphql(desc = "How to sort them.")] order_by: Option<PipelineOrder>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Pipeline>> {
        let order = order_by.map_or((PipelineOrderField::CreatedAt, OrderDirection::Asc), |by| {
            (by.field, by.direction)
        });
        let args = PageArgs::new(first, after, last, before);
        paged(ctx, args, order, || {
            queries::matching(filter.clone().unwrap_or_default())
        })
        .await
    }
}
