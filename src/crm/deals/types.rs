//! Deals and their way through the stages in the schema.

use async_graphql::{Context, InputObject, Object};
use chrono::Utc;

use super::model::DealOrderField;
use super::queries::{self, StageHistory};
use super::{Deal, DealById, DealStageChange, DealStatus, StageChangeById};
use crate::auth::Permission;
use crate::crm::companies::{Company, CompanyById, CompanyFilter};
use crate::crm::contacts::{Contact, ContactById, ContactFilter};
use crate::crm::interactions::{Interaction, InteractionsByDeal};
use crate::crm::pipelines::{Pipeline, PipelineById, PipelineStage, StageById};
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::connection::{Cursor, nested, paged};
use crate::graphql::filter::{
    DateFilter, DateTimeFilter, EnumFilter, IdFilter, IntFilter, MoneyFilter, StringFilter,
};
use crate::graphql::scalar::{Date, DateTime, Money};
use crate::graphql::{Can, Connection, ContextExt, Eager, OrderDirection, PageArgs, Record};
use crate::identity::{User, UserById};

/// A sales opportunity on its way through a pipeline.
#[Object]
impl Deal {
    /// The deal's id, for example `deal_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Deal> {
        self.id
    }

    /// What the deal is about.
    async fn name(&self) -> &str {
        &self.name
    }

    /// What the deal is worth.
    async fn amount(&self) -> Eager<Money> {
        Eager(Money::from_minor(self.amount, self.currency_code))
    }

    /// The amount times the win probability, rounded to the currency's smallest unit.
    async fn weighted_amount(&self) -> Eager<Money> {
        let percent = i128::from(self.amount) * i128::from(self.win_probability);
        let units = i64::try_from((percent + 50) / 100).unwrap_or(i64::MAX);
        Eager(Money::from_minor(units, self.currency_code))
    }

    /// How the deal stands. It follows from the kind of the stage.
    async fn status(&self) -> DealStatus {
        self.status
    }

    /// How likely the deal is to be won, in percent: that of its stage, unless it was set for this deal.
    async fn win_probability(&self) -> i32 {
        self.win_probability
    }

    /// The stage that the deal is in.
    async fn stage(&self, ctx: &Context<'_>) -> Option<Result<Record<PipelineStage>>> {
        ctx.relation::<StageById>(self.stage_id).await
    }

    /// The pipeline that the deal goes through.
    async fn pipeline(&self, ctx: &Context<'_>) -> Option<Result<Record<Pipeline>>> {
        ctx.relation::<PipelineById>(self.pipeline_id).await
    }

    /// The person that the deal is made with.
    async fn contact(&self, ctx: &Context<'_>) -> Option<Result<Record<Contact>>> {
        ctx.relation::<ContactById>(self.contact_id).await
    }

    /// The company that the deal is made with.
    async fn company(&self, ctx: &Context<'_>) -> Option<Result<Record<Company>>> {
        ctx.relation::<CompanyById>(self.company_id).await
    }

    /// The user who works on the deal.
    async fn owner(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.owner_id).await
    }

    /// The day on which the deal is expected to close.
    async fn expected_close_date(&self) -> Option<Date> {
        self.expected_close_date.map(Into::into)
    }

    /// When the deal was won or lost; null while it is open.
    async fn closed_at(&self) -> Option<DateTime> {
        self.closed_at.map(Into::into)
    }

    /// Why the deal was lost.
    async fn lost_reason(&self) -> Option<&str> {
        self.lost_reason.as_deref()
    }

    /// What is to be done next.
    async fn next_step(&self) -> Option<&str> {
        self.next_step.as_deref()
    }

    /// What else there is to say about the deal.
    async fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Full days since the deal entered its stage.
    async fn days_in_stage(&self) -> i32 {
        days_since(self.stage_entered_at)
    }

    /// Whether the deal has been in its stage for longer than the stage allows. A closed deal never rots.
    async fn is_rotting(&self, ctx: &Context<'_>) -> Result<bool> {
        if self.status != DealStatus::Open {
            return Ok(false);
        }
        let stage = ctx.load::<StageById>(self.stage_id).await?;
        let limit = stage.and_then(|stage| stage.rotting_after_days);
        Ok(limit.is_some_and(|days| days_since(self.stage_entered_at) >= days))
    }

    /// The stages that the deal has gone through, latest first, with the time that it spent in each.
    async fn stage_history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<DealStageChange>> {
        nested::<StageHistory>(ctx, self.id, PageArgs::new(first, after, last, before)).await
    }

    /// The interactions about the deal, latest first.
    async fn interactions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Interaction>> {
        nested::<InteractionsByDeal>(ctx, self.id, PageArgs::new(first, after, last, before)).await
    }

    /// When the deal was added.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the deal was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Counts the changes of the deal. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

fn days_since(moment: chrono::DateTime<Utc>) -> i32 {
    i32::try_from((Utc::now() - moment).num_days().max(0)).unwrap_or(i32::MAX)
}

/// A deal's stay in a stage.
#[Object]
impl DealStageChange {
    /// The id of this entry, for example `stage_change_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<DealStageChange> {
        self.id
    }

    /// The deal.
    async fn deal(&self, ctx: &Context<'_>) -> Option<Result<Record<Deal>>> {
        ctx.relation::<DealById>(self.deal_id).await
    }

    /// The stage that the deal came from; null for the stage that it began in.
    #[graphql(name = "fromStage")]
    async fn stage_left(&self, ctx: &Context<'_>) -> Option<Result<Record<PipelineStage>>> {
        ctx.relation::<StageById>(self.from_stage_id).await
    }

    /// The stage that the deal entered.
    async fn to_stage(&self, ctx: &Context<'_>) -> Option<Result<Record<PipelineStage>>> {
        ctx.relation::<StageById>(self.to_stage_id).await
    }

    /// When the deal entered the stage.
    async fn entered_at(&self) -> DateTime {
        self.entered_at.into()
    }

    /// When the deal left the stage; null while it is there.
    async fn exited_at(&self) -> Option<DateTime> {
        self.exited_at.map(Into::into)
    }

    /// Whole seconds that the deal spent in the stage; null while it is there.
    async fn duration(&self) -> Option<i32> {
        let spent = self.exited_at? - self.entered_at;
        Some(i32::try_from(spent.num_seconds()).unwrap_or(i32::MAX))
    }

    /// The user who moved the deal; null when it was not a user.
    async fn changed_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.changed_by_id).await
    }

    /// Why the deal was lost, when this entry lost it.
    async fn lost_reason(&self) -> Option<&str> {
        self.lost_reason.as_deref()
    }
}

/// Which deals to list. All conditions must hold. One that is null is none, as if left out.
#[derive(Debug, Clone, Default, InputObject)]
pub struct DealFilter {
    /// By id.
    pub id: Option<IdFilter<Deal>>,
    /// By name.
    pub name: Option<StringFilter>,
    /// By how they stand.
    pub status: Option<EnumFilter<DealStatus>>,
    /// By pipeline.
    pub pipeline_id: Option<IdFilter<Pipeline>>,
    /// By stage.
    pub stage_id: Option<IdFilter<PipelineStage>>,
    /// By contact.
    pub contact_id: Option<IdFilter<Contact>>,
    /// By what is known of their contact. Needs `CONTACTS_READ`.
    pub contact: Option<Box<ContactFilter>>,
    /// By company.
    pub company_id: Option<IdFilter<Company>>,
    /// By what is known of their company. Needs `COMPANIES_READ`.
    pub company: Option<Box<CompanyFilter>>,
    /// By the user who works on them.
    pub owner_id: Option<IdFilter<User>>,
    /// By amount, in one currency.
    pub amount: Option<MoneyFilter>,
    /// By how likely they are to be won, in percent.
    pub win_probability: Option<IntFilter>,
    /// By the day on which they are expected to close.
    pub expected_close_date: Option<DateFilter>,
    /// By when they were won or lost.
    pub closed_at: Option<DateTimeFilter>,
    /// By when they were added.
    pub created_at: Option<DateTimeFilter>,
    /// By when they were last changed.
    pub updated_at: Option<DateTimeFilter>,
    /// All of these hold too.
    pub and: Option<Vec<DealFilter>>,
    /// At least one of these holds too.
    pub or: Option<Vec<DealFilter>>,
    /// This does not hold.
    pub not: Option<Box<DealFilter>>,
}

/// How to sort deals.
#[derive(Debug, Clone, InputObject)]
pub struct DealOrder {
    /// What to sort by.
    field: DealOrderField,
    /// Which end comes first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

/// Deals at the root of the schema.
#[derive(Default)]
pub struct DealQuery;

#[Object]
impl DealQuery {
    /// A deal by its id; null when there is none.
    async fn deal(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the deal.")] id: Id<Deal>,
    ) -> Option<Result<Record<Deal>>> {
        ctx.find::<DealById>(Permission::DealsRead, id).await
    }

    /// An entry of a deal's stage history by its id; null when there is none.
    async fn deal_stage_change(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the entry.")] id: Id<DealStageChange>,
    ) -> Option<Result<Record<DealStageChange>>> {
        ctx.find::<StageChangeById>(Permission::DealsRead, id).await
    }

    /// The tenant's deals, newest first unless ordered otherwise.
    #[graphql(guard = "Can(Permission::DealsRead)")]
    #[expect(clippy::too_many_arguments, reason = "the schema's arguments")]
    async fn deals(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which deals to list; all of them when left out.")] filter: Option<Box<DealFilter>>,
        #[graphql(desc = "How to sort them.")] order_by: Option<DealOrder>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Deal>> {
        let order = order_by.map_or((DealOrderField::CreatedAt, OrderDirection::Desc), |by| {
            (by.field, by.direction)
        });
        let (args, viewer) = (PageArgs::new(first, after, last, before), ctx.viewer()?);
        paged(ctx, args, order, || {
            queries::matching(filter.as_deref().cloned().unwrap_or_default(), &viewer.rights)
        })
        .await
    }
}
