//! Changing deals.

use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};
use serde::{Deserialize, Serialize};

use super::{Deal, DealStageChange, DealStatus, queries};
use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::crm::contacts::Contact;
use crate::crm::pipelines::{self, Pipeline, PipelineStage, StageKind};
use crate::db::id::Id;
use crate::db::reach::Resource;
use crate::error::{ProblemCode, Result};
use crate::graphql::input::{Check, Patch};
use crate::graphql::scalar::{Date, Money, MoneyInput};
use crate::graphql::{Can, Outcome, Shown, mutate, reach};
use crate::identity::{self, User};

/// A deal to be added.
#[derive(Debug, InputObject)]
pub struct CreateDealInput {
    /// What the deal is about; 200 characters at most.
    name: String,
    /// What the deal is worth. Left out, it is zero in the tenant's currency.
    amount: Option<MoneyInput>,
    /// The pipeline that the deal goes through. Left out, it is the stage's, or else the default pipeline.
    pipeline_id: Option<Id<Pipeline>>,
    /// The stage that the deal begins in. Left out, it is the first of the pipeline.
    stage_id: Option<Id<PipelineStage>>,
    /// How likely the deal is to be won, in percent. Left out, it is that of the stage, as it must be where a stage closes
    /// the deal.
    win_probability: Option<i32>,
    /// The person that the deal is made with.
    contact_id: Option<Id<Contact>>,
    /// The company that the deal is made with.
    company_id: Option<Id<Company>>,
    /// The user who works on the deal. Left out, it is you; null for nobody.
    owner_id: MaybeUndefined<Id<User>>,
    /// The day on which the deal is expected to close.
    expected_close_date: Option<Date>,
    /// What is to be done next.
    next_step: Option<String>,
    /// What else there is to say about the deal.
    description: Option<String>,
    /// Why the deal was lost. Needed when it begins in a stage of kind LOST, and only then.
    lost_reason: Option<String>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Changes of a deal. What is left out stays as it is; null takes a value away that may be missing. To move the deal, use `moveDeal`.
#[derive(Debug, InputObject)]
pub struct UpdateDealInput {
    /// The deal to change.
    deal_id: Id<Deal>,
    /// What the deal is about; 200 characters at most.
    name: MaybeUndefined<String>,
    /// What the deal is worth.
    amount: MaybeUndefined<MoneyInput>,
    /// How likely the deal is to be won, in percent. Only an open deal can be given one.
    win_probability: MaybeUndefined<i32>,
    /// The person that the deal is made with.
    contact_id: MaybeUndefined<Id<Contact>>,
    /// The company that the deal is made with.
    company_id: MaybeUndefined<Id<Company>>,
    /// The user who works on the deal.
    owner_id: MaybeUndefined<Id<User>>,
    /// The day on which the deal is expected to close.
    expected_close_date: MaybeUndefined<Date>,
    /// What is to be done next.
    next_step: MaybeUndefined<String>,
    /// What else there is to say about the deal.
    description: MaybeUndefined<String>,
    /// The version that you know. When the deal has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A move of a deal to another stage.
#[derive(Debug, InputObject)]
pub struct MoveDealInput {
    /// The deal to move.
    deal_id: Id<Deal>,
    /// The stage to move it to; one of the deal's pipeline.
    stage_id: Id<PipelineStage>,
    /// Why the deal was lost. Needed when the stage is of kind LOST, and only then.
    lost_reason: Option<String>,
    /// The version that you know. When the deal has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A deal to be deleted.
#[derive(Debug, InputObject)]
pub struct DeleteDealInput {
    /// The deal to delete.
    deal_id: Id<Deal>,
    /// The version that you know. When the deal has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `createDeal`.
#[derive(SimpleObject)]
pub struct CreateDealPayload {
    /// The new deal; null when there are `userErrors`.
    deal: Option<Shown<queries::DealById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updateDeal`.
#[derive(SimpleObject)]
pub struct UpdateDealPayload {
    /// The deal as it is now; null when there are `userErrors`.
    deal: Option<Shown<queries::DealById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `moveDeal`.
#[derive(SimpleObject)]
pub struct MoveDealPayload {
    /// The deal in its new stage; null when there are `userErrors`.
    deal: Option<Shown<queries::DealById>>,
    /// The new entry of the deal's stage history; null when the deal was in that stage already, or when there are
    /// `userErrors`.
    stage_change: Option<Shown<queries::StageChangeById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deleteDeal`.
#[derive(SimpleObject)]
pub struct DeleteDealPayload {
    /// The id of the deal that is no more; null when there are `userErrors`.
    deleted_deal_id: Option<Id<Deal>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// What `moveDeal` did.
#[derive(Serialize, Deserialize)]
struct Moved {
    deal: Arc<Deal>,
    stage_change: Option<Arc<DealStageChange>>,
}

/// The reason of a loss, which a lost stage needs and no other may have.
fn lost_reason(check: &mut Check, kind: StageKind, given: Option<String>) -> Option<String> {
    let reason = check.optional_text("lostReason", given);
    match (kind, &reason) {
        (StageKind::Lost, None) => {
            check.problem("lostReason", ProblemCode::Required, "Say why the deal was lost.");
        }
        (StageKind::Open | StageKind::Won, Some(_)) => {
            check.problem(
                "lostReason",
                ProblemCode::NotAllowed,
                "Only a lost deal has a reason for it.",
            );
        }
        _ => {}
    }
    reason
}

/// Mutations of deals.
#[derive(Default)]
pub struct DealMutation;

#[Object]
impl DealMutation {
    /// Adds a deal.
    #[graphql(guard = "Can(Permission::DealsWrite)")]
    async fn create_deal(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to add.")] input: CreateDealInput,
    ) -> Result<CreateDealPayload> {
        let key = input.idempotency_key.clone();
        let (deal, outcome) = mutate(ctx, "createDeal", key, async |work| {
            let stage = pipelines::first_stage(work, input.pipeline_id, input.stage_id).await?;
            let mut check = Check::default();
            let (amount, currency_code) = match &input.amount {
                Some(money) => (
                    check.take(money.minor_units("amount")).unwrap_or(0),
                    money.currency_code,
                ),
                None => (0, identity::currency(work).await?),
            };
            let mut deal = Deal {
                id: Id::generate(),
                pipeline_id: stage.pipeline_id,
                stage_id: stage.id,
                name: check.line("name", &input.name),
                amount,
                currency_code,
                status: DealStatus::Open,
                win_probability: stage.win_probability,
                contact_id: input.contact_id,
                company_id: input.company_id,
                owner_id: match input.owner_id {
                    MaybeUndefined::Undefined => work.actor_id().map(Id::from_uuid),
                    MaybeUndefined::Null => None,
                    MaybeUndefined::Value(owner) => Some(owner),
                },
                expected_close_date: check.day("expectedCloseDate", input.expected_close_date),
                stage_entered_at: work.now(),
                closed_at: None,
                lost_reason: None,
                next_step: check.optional_text("nextStep", input.next_step),
                description: check.optional_text("description", input.description),
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            let reason = lost_reason(&mut check, stage.kind, input.lost_reason);
            deal.enter(&stage, reason, work.now());
            check.range("winProbability", input.win_probability, 0..=100);
            if stage.kind != StageKind::Open && input.win_probability.is_some() {
                let message = "In a stage that closes the deal, its probability is settled.";
                check.problem("winProbability", ProblemCode::NotAllowed, message);
            } else if stage.kind == StageKind::Open {
                deal.win_probability = input.win_probability.unwrap_or(stage.win_probability);
            }
            check.done()?;
            let first = deal.first_entry(work.actor_id().map(Id::from_uuid));
            let references = [
                ("contactId", Resource::Contacts, deal.contact_id.map(Id::uuid)),
                ("companyId", Resource::Companies, deal.company_id.map(Id::uuid)),
            ];
            reach::check_references(work, &references).await?;
            queries::insert(work, &deal, &first).await?;
            work.record(deal.id, "CREATED", &deal)?;
            Ok(Arc::new(deal))
        })
        .await?;
        Ok(CreateDealPayload {
            deal: deal.map(Shown),
            outcome,
        })
    }

    /// Changes a deal, but for its stage.
    #[graphql(guard = "Can(Permission::DealsWrite)")]
    async fn update_deal(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateDealInput,
    ) -> Result<UpdateDealPayload> {
        let key = input.idempotency_key.clone();
        let (deal, outcome) = mutate(ctx, "updateDeal", key, async |work| {
            let mut deal = queries::find_for_update(work, input.deal_id, "dealId").await?;
            let (mut check, mut patch) = (Check::default(), Patch::default());
            patch.set("name", &mut deal.name, check.given_line("name", input.name));
            if let Some(money) = check.given("amount", input.amount) {
                let mut current = Money::from_minor(deal.amount, deal.currency_code);
                if let Some(units) = check.take(money.minor_units("amount")) {
                    let new = Money::from_minor(units, money.currency_code);
                    patch.set("amount", &mut current, Some(new));
                    (deal.amount, deal.currency_code) = (units, money.currency_code);
                }
            }
            let win_probability = check.given("winProbability", input.win_probability);
            check.range("winProbability", win_probability, 0..=100);
            if deal.status != DealStatus::Open && win_probability.is_some() {
                let message = "The deal is closed, its probability is settled.";
                check.problem("winProbability", ProblemCode::NotAllowed, message);
            }
            patch.set("winProbability", &mut deal.win_probability, win_probability);
            let references = [
                (
                    "contactId",
                    Resource::Contacts,
                    input.contact_id.value().map(|id| id.uuid()),
                ),
                (
                    "companyId",
                    Resource::Companies,
                    input.company_id.value().map(|id| id.uuid()),
                ),
            ];
            patch.set_or_clear("contactId", &mut deal.contact_id, input.contact_id);
            patch.set_or_clear("companyId", &mut deal.company_id, input.company_id);
            patch.set_or_clear("ownerId", &mut deal.owner_id, input.owner_id);
            let day = check.patch("expectedCloseDate", input.expected_close_date, Check::day);
            patch.set_or_clear("expectedCloseDate", &mut deal.expected_close_date, day);
            let next_step = check.patch("nextStep", input.next_step, Check::optional_text);
            patch.set_or_clear("nextStep", &mut deal.next_step, next_step);
            let description = check.patch("description", input.description, Check::optional_text);
            patch.set_or_clear("description", &mut deal.description, description);
            patch.expect_version(input.expected_version, deal.version)?;
            check.done()?;
            if !patch.is_empty() {
                deal.version += 1;
                deal.updated_at = work.now();
                reach::check_references(work, &references).await?;
                queries::update(work, &deal).await?;
                work.record(deal.id, "UPDATED", &patch.change(&deal))?;
            }
            Ok(Arc::new(deal))
        })
        .await?;
        Ok(UpdateDealPayload {
            deal: deal.map(Shown),
            outcome,
        })
    }

    /// Moves a deal to another stage of its pipeline. Entering a stage of kind WON or LOST closes the deal, leaving it
    /// reopens the deal; the time spent in the stage it leaves is kept in `stageHistory`. Moving a deal to the stage
    /// that it is in changes nothing.
    #[graphql(guard = "Can(Permission::DealsWrite)")]
    async fn move_deal(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which deal to move, and where to.")] input: MoveDealInput,
    ) -> Result<MoveDealPayload> {
        let key = input.idempotency_key.clone();
        let (moved, outcome) = mutate(ctx, "moveDeal", key, async |work| {
            let (mut deal, stage) = futures::try_join!(
                queries::find_for_update(work, input.deal_id, "dealId"),
                pipelines::stage(work, input.stage_id, "stageId"),
            )?;
            if stage.pipeline_id != deal.pipeline_id {
                let message = "The stage belongs to another pipeline than the deal.";
                return Err(crate::error::Error::invalid(
                    "stageId",
                    ProblemCode::NotAllowed,
                    message,
                ));
            }
            let mut patch = Patch::default();
            patch.set("stageId", &mut deal.stage_id.clone(), Some(stage.id));
            patch.expect_version(input.expected_version, deal.version)?;
            if deal.stage_id == stage.id {
                return Ok(Moved {
                    deal: Arc::new(deal),
                    stage_change: None,
                });
            }
            let mut check = Check::default();
            let reason = lost_reason(&mut check, stage.kind, input.lost_reason);
            check.done()?;
            let change = queries::move_to_stage(work, &mut deal, &stage, reason).await?;
            Ok(Moved {
                deal: Arc::new(deal),
                stage_change: Some(Arc::new(change)),
            })
        })
        .await?;
        let (deal, stage_change) = moved.map(|moved| (moved.deal, moved.stage_change)).unzip();
        Ok(MoveDealPayload {
            deal: deal.map(Shown),
            stage_change: stage_change.flatten().map(Shown),
            outcome,
        })
    }

    /// Deletes a deal with its stage history. Refused with `IN_USE` while interactions refer to it.
    #[graphql(guard = "Can(Permission::DealsDelete)")]
    async fn delete_deal(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to delete.")] input: DeleteDealInput,
    ) -> Result<DeleteDealPayload> {
        let key = input.idempotency_key.clone();
        let (deleted_deal_id, outcome) = mutate(ctx, "deleteDeal", key, async |work| {
            let deal = queries::find_for_update(work, input.deal_id, "dealId").await?;
            Patch::default().expect_version(input.expected_version, deal.version)?;
            queries::delete(work, deal.id).await?;
            work.record(deal.id, "DELETED", &deal)?;
            Ok(deal.id)
        })
        .await?;
        Ok(DeleteDealPayload {
            deleted_deal_id,
            outcome,
        })
    }
}
