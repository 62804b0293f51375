//! Changing pipelines and stages.

use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};

use super::{Pipeline, PipelineStage, StageKind, queries};
use crate::auth::Permission;
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::events::Work;
use crate::graphql::input::{Check, Patch};
use crate::graphql::{Can, Outcome, Shown, mutate};

/// Stages of one pipeline at most.
const MAX_STAGES: usize = 50;

/// A stage of a pipeline to be added.
#[derive(Debug, InputObject)]
pub struct StageInput {
    /// The name; no other stage of the pipeline has it.
    name: String,
    /// What it means for a deal to be in this stage.
    #[graphql(default_with = "StageKind::Open")]
    kind: StageKind,
    /// How likely a deal in this stage is to be won, in percent. Always 100 for WON and 0 for LOST.
    win_probability: Option<i32>,
    /// Days after which a deal that has not left this stage counts as rotting.
    rotting_after_days: Option<i32>,
}

/// A pipeline to be added.
#[derive(Debug, InputObject)]
pub struct CreatePipelineInput {
    /// The name; no other pipeline has it.
    name: String,
    /// The stages, first to last. Left out, the pipeline gets the six usual ones, from Prospect to Closed Lost.
    stages: Option<Vec<StageInput>>,
    /// Whether new deals go into this pipeline when nothing else is said, instead of the one until now.
    #[graphql(default)]
    is_default: bool,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Changes of a pipeline. What is left out stays as it is.
#[derive(Debug, InputObject)]
pub struct UpdatePipelineInput {
    /// The pipeline to change.
    pipeline_id: Id<Pipeline>,
    /// The name; no other pipeline has it.
    name: MaybeUndefined<String>,
    /// True makes this the pipeline that new deals go into when nothing else is said.
    is_default: MaybeUndefined<bool>,
    /// The version that you know. When the pipeline has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A pipeline to be deleted.
#[derive(Debug, InputObject)]
pub struct DeletePipelineInput {
    /// The pipeline to delete.
    pipeline_id: Id<Pipeline>,
    /// The version that you know. When the pipeline has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A stage to be added to a pipeline, as its last one.
#[derive(Debug, InputObject)]
pub struct CreatePipelineStageInput {
    /// The pipeline that gets the stage.
    pipeline_id: Id<Pipeline>,
    /// The name; no other stage of the pipeline has it.
    name: String,
    /// What it means for a deal to be in this stage.
    #[graphql(default_with = "StageKind::Open")]
    kind: StageKind,
    /// How likely a deal in this stage is to be won, in percent. Always 100 for WON and 0 for LOST.
    win_probability: Option<i32>,
    /// Days after which a deal that has not left this stage counts as rotting.
    rotting_after_days: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Changes of a stage. What is left out stays as it is. The kind of a stage never changes: deals were closed by it.
#[derive(Debug, InputObject)]
pub struct UpdatePipelineStageInput {
    /// The stage to change.
    stage_id: Id<PipelineStage>,
    /// The name; no other stage of the pipeline has it.
    name: MaybeUndefined<String>,
    /// The new place in the pipeline, counted from 1; the others make room.
    position: MaybeUndefined<i32>,
    /// How likely a deal that enters this stage is to be won, in percent. Deals that are in it keep theirs.
    win_probability: MaybeUndefined<i32>,
    /// Days after which a deal that has not left this stage counts as rotting; null for never.
    rotting_after_days: MaybeUndefined<i32>,
    /// The version that you know. When the stage has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A stage to be deleted.
#[derive(Debug, InputObject)]
pub struct DeletePipelineStageInput {
    /// The stage to delete.
    stage_id: Id<PipelineStage>,
    /// The version that you know. When the stage has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `createPipeline`.
#[derive(SimpleObject)]
pub struct CreatePipelinePayload {
    /// The new pipeline; null when there are `userErrors`.
    pipeline: Option<Shown<queries::PipelineById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updatePipeline`.
#[derive(SimpleObject)]
pub struct UpdatePipelinePayload {
    /// The pipeline as it is now; null when there are `userErrors`.
    pipeline: Option<Shown<queries::PipelineById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deletePipeline`.
#[derive(SimpleObject)]
pub struct DeletePipelinePayload {
    /// The id of the pipeline that is no more; null when there are `userErrors`.
    deleted_pipeline_id: Option<Id<Pipeline>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `createPipelineStage`.
#[derive(SimpleObject)]
pub struct CreatePipelineStagePayload {
    /// The new stage; null when there are `userErrors`.
    stage: Option<Shown<queries::StageById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updatePipelineStage`.
#[derive(SimpleObject)]
pub struct UpdatePipelineStagePayload {
    /// The stage as it is now; null when there are `userErrors`.
    stage: Option<Shown<queries::StageById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deletePipelineStage`.
#[derive(SimpleObject)]
pub struct DeletePipelineStagePayload {
    /// The id of the stage that is no more; null when there are `userErrors`.
    deleted_stage_id: Option<Id<PipelineStage>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The win probability of a stage, which its kind decides where it can.
fn win_probability(check: &mut Check, field: &str, kind: StageKind, given: Option<i32>) -> i32 {
    check.range(field, given, 0..=100);
    match kind {
        StageKind::Won => 100,
        StageKind::Lost => 0,
        StageKind::Open => given.unwrap_or(0),
    }
}

/// Takes the default away from the pipeline that has it, so that another can become it.
async fn clear_default(work: &mut Work) -> Result<()> {
    if let Some(mut pipeline) = queries::default_for_update(work).await? {
        let mut patch = Patch::default();
        patch.set("isDefault", &mut pipeline.is_default, Some(false));
        pipeline.version += 1;
        pipeline.updated_at = work.now();
        queries::update(work, &pipeline).await?;
        work.record(pipeline.id, "UPDATED", &patch.change(&pipeline))?;
    }
    Ok(())
}

/// Numbers the stages of a pipeline from 1 on, in their order; the one that the caller writes is left to it.
async fn number(
    work: &mut Work,
    stages: Vec<PipelineStage>,
    written: Option<Id<PipelineStage>>,
) -> Result<()> {
    for (position, mut stage) in (1..).zip(stages) {
        if Some(stage.id) == written || stage.position == position {
            continue;
        }
        let mut patch = Patch::default();
        patch.set("position", &mut stage.position, Some(position));
        stage.version += 1;
        stage.updated_at = work.now();
        queries::update_stage(work, &stage).await?;
        work.record(stage.id, "UPDATED", &patch.change(&stage))?;
    }
    Ok(())
}

/// Mutations of pipelines and their stages.
#[derive(Default)]
pub struct PipelineMutation;

#[Object]
impl PipelineMutation {
    /// Adds a pipeline with its stages.
    #[graphql(guard = "Can(Permission::PipelinesWrite)")]
    async fn create_pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to add.")] input: CreatePipelineInput,
    ) -> Result<CreatePipelinePayload> {
        let key = input.idempotency_key.clone();
        let (pipeline, outcome) = mutate(ctx, "createPipeline", key, async |work| {
            let mut check = Check::default();
            let pipeline = Pipeline {
                id: Id::generate(),
                name: check.line("name", &input.name),
                is_default: input.is_default,
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            let usual = || {
                super::DEFAULT_STAGES.map(|(name, kind, probability)| StageInput {
                    name: name.to_owned(),
                    kind,
                    win_probability: Some(probability),
                    rotting_after_days: None,
                })
            };
            let inputs = input.stages.unwrap_or_else(|| usual().into());
            if inputs.is_empty() || inputs.len() > MAX_STAGES {
                let message = format!("A pipeline has between 1 and {MAX_STAGES} stages.");
                check.problem("stages", ProblemCode::OutOfRange, message);
            }
            let mut stages: Vec<PipelineStage> = Vec::with_capacity(inputs.len());
            for (index, stage) in inputs.into_iter().take(MAX_STAGES).enumerate() {
                let field = |name: &str| format!("stages.{index}.{name}");
                check.range(&field("rottingAfterDays"), stage.rotting_after_days, 1..=3650);
                let name = check.line(&field("name"), &stage.name);
                if stages.iter().any(|other| other.name == name) {
                    let message = "Another stage of the pipeline has this name.";
                    check.problem(&field("name"), ProblemCode::Duplicate, message);
                }
                stages.push(PipelineStage {
                    id: Id::generate(),
                    pipeline_id: pipeline.id,
                    name,
                    position: index as i32 + 1,
                    kind: stage.kind,
                    win_probability: win_probability(
                        &mut check,
                        &field("winProbability"),
                        stage.kind,
                        stage.win_probability,
                    ),
                    rotting_after_days: stage.rotting_after_days,
                    created_at: work.now(),
                    updated_at: work.now(),
                    version: 1,
                });
            }
            check.done()?;
            if pipeline.is_default {
                clear_default(work).await?;
            }
            queries::insert(work, &pipeline, &stages).await?;
            work.record(pipeline.id, "CREATED", &pipeline)?;
            for stage in &stages {
                work.record(stage.id, "CREATED", stage)?;
            }
            Ok(Arc::new(pipeline))
        })
        .await?;
        Ok(CreatePipelinePayload {
            pipeline: pipeline.map(Shown),
            outcome,
        })
    }

    /// Changes a pipeline.
    #[graphql(guard = "Can(Permission::PipelinesWrite)")]
    async fn update_pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdatePipelineInput,
    ) -> Result<UpdatePipelinePayload> {
        let key = input.idempotency_key.clone();
        let (pipeline, outcome) = mutate(ctx, "updatePipeline", key, async |work| {
            let mut pipeline = queries::find_for_update(work, input.pipeline_id, "pipelineId").await?;
            let (mut check, mut patch) = (Check::default(), Patch::default());
            patch.set("name", &mut pipeline.name, check.given_line("name", input.name));
            let is_default = check.given("isDefault", input.is_default);
            if pipeline.is_default && is_default == Some(false) {
                let message = "A tenant always has a default pipeline: make another one the default instead.";
                check.problem("isDefault", ProblemCode::NotAllowed, message);
            }
            let becomes_default = !pipeline.is_default && is_default == Some(true);
            patch.set("isDefault", &mut pipeline.is_default, is_default);
            patch.expect_version(input.expected_version, pipeline.version)?;
            check.done()?;
            if !patch.is_empty() {
                pipeline.version += 1;
                pipeline.updated_at = work.now();
                if becomes_default {
                    clear_default(work).await?;
                }
                queries::update(work, &pipeline).await?;
                work.record(pipeline.id, "UPDATED", &patch.change(&pipeline))?;
            }
            Ok(Arc::new(pipeline))
        })
        .await?;
        Ok(UpdatePipelinePayload {
            pipeline: pipeline.map(Shown),
            outcome,
        })
    }

    /// Deletes a pipeline with its stages. Refused with `IN_USE` while it has deals, and for the default pipeline.
    #[graphql(guard = "Can(Permission::PipelinesWrite)")]
    async fn delete_pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to delete.")] input: DeletePipelineInput,
    ) -> Result<DeletePipelinePayload> {
        let key = input.idempotency_key.clone();
        let (deleted_pipeline_id, outcome) = mutate(ctx, "deletePipeline", key, async |work| {
            let pipeline = queries::find_for_update(work, input.pipeline_id, "pipelineId").await?;
            Patch::default().expect_version(input.expected_version, pipeline.version)?;
            let mut check = Check::default();
            if pipeline.is_default {
                let message = "This is the default pipeline: make another one the default first.";
                check.problem("pipelineId", ProblemCode::InUse, message);
            }
            check.done()?;
            let stages = queries::stages_of(work, pipeline.id).await?;
            queries::delete(work, pipeline.id).await?;
            for stage in &stages {
                work.record(stage.id, "DELETED", stage)?;
            }
            work.record(pipeline.id, "DELETED", &pipeline)?;
            Ok(pipeline.id)
        })
        .await?;
        Ok(DeletePipelinePayload {
            deleted_pipeline_id,
            outcome,
        })
    }

    /// Adds a stage to a pipeline, as its last one.
    #[graphql(guard = "Can(Permission::PipelinesWrite)")]
    async fn create_pipeline_stage(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to add.")] input: CreatePipelineStageInput,
    ) -> Result<CreatePipelineStagePayload> {
        let key = input.idempotency_key.clone();
        let (stage, outcome) = mutate(ctx, "createPipelineStage", key, async |work| {
            let pipeline = queries::find_for_update(work, input.pipeline_id, "pipelineId").await?;
            let stages = queries::stages_of(work, pipeline.id).await?;
            let mut check = Check::default();
            if stages.len() >= MAX_STAGES {
                check.problem(
                    "pipelineId",
                    ProblemCode::OutOfRange,
                    format!("A pipeline has {MAX_STAGES} stages at most."),
                );
            }
            check.range("rottingAfterDays", input.rotting_after_days, 1..=3650);
            let stage = PipelineStage {
                id: Id::generate(),
                pipeline_id: pipeline.id,
                name: check.line("name", &input.name),
                position: stages.last().map_or(1, |last| last.position + 1),
                kind: input.kind,
                win_probability: win_probability(
                    &mut check,
                    "winProbability",
                    input.kind,
                    input.win_probability,
                ),
                rotting_after_days: input.rotting_after_days,
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            check.done()?;
            queries::insert_stage(work, &stage).await?;
            work.record(stage.id, "CREATED", &stage)?;
            Ok(Arc::new(stage))
        })
        .await?;
        Ok(CreatePipelineStagePayload {
            stage: stage.map(Shown),
            outcome,
        })
    }

    /// Changes a stage, or its place in the pipeline.
    #[graphql(guard = "Can(Permission::PipelinesWrite)")]
    async fn update_pipeline_stage(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdatePipelineStageInput,
    ) -> Result<UpdatePipelineStagePayload> {
        let key = input.idempotency_key.clone();
        let (stage, outcome) = mutate(ctx, "updatePipelineStage", key, async |work| {
            let mut stage = queries::find_stage_for_update(work, input.stage_id, "stageId").await?;
            let mut stages = queries::stages_of(work, stage.pipeline_id).await?;
            let (mut check, mut patch) = (Check::default(), Patch::default());
            patch.set("name", &mut stage.name, check.given_line("name", input.name));
            let probability = check.given("winProbability", input.win_probability);
            let probability = probability
                .map(|given| win_probability(&mut check, "winProbability", stage.kind, Some(given)));
            patch.set("winProbability", &mut stage.win_probability, probability);
            check.range(
                "rottingAfterDays",
                input.rotting_after_days.value().copied(),
                1..=3650,
            );
            patch.set_or_clear(
                "rottingAfterDays",
                &mut stage.rotting_after_days,
                input.rotting_after_days,
            );
            let position = check.given("position", input.position);
            check.range("position", position, 1..=stages.len() as i32);
            patch.set("position", &mut stage.position, position);
            patch.expect_version(input.expected_version, stage.version)?;
            check.done()?;
            if patch.is_empty() {
                return Ok(Arc::new(stage));
            }
            stage.version += 1;
            stage.updated_at = work.now();
            stages.retain(|other| other.id != stage.id);
            let place = usize::try_from(stage.position - 1).unwrap_or_default();
            stages.insert(place.min(stages.len()), stage.clone());
            number(work, stages, Some(stage.id)).await?;
            queries::update_stage(work, &stage).await?;
            work.record(stage.id, "UPDATED", &patch.change(&stage))?;
            Ok(Arc::new(stage))
        })
        .await?;
        Ok(UpdatePipelineStagePayload {
            stage: stage.map(Shown),
            outcome,
        })
    }

    /// Deletes a stage; those after it move up. Refused with `IN_USE` when a deal is in it or the history of one refers
    /// to it, and with `NOT_ALLOWED` for the only stage of a pipeline.
    #[graphql(guard = "Can(Permission::PipelinesWrite)")]
    async fn delete_pipeline_stage(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to delete.")] input: DeletePipelineStageInput,
    ) -> Result<DeletePipelineStagePayload> {
        let key = input.idempotency_key.clone();
        let (deleted_stage_id, outcome) = mutate(ctx, "deletePipelineStage", key, async |work| {
            let stage = queries::find_stage_for_update(work, input.stage_id, "stageId").await?;
            Patch::default().expect_version(input.expected_version, stage.version)?;
            let mut stages = queries::stages_of(work, stage.pipeline_id).await?;
            stages.retain(|other| other.id != stage.id);
            if stages.is_empty() {
                let message = "A pipeline has at least one stage. Delete the pipeline instead.";
                return Err(Error::invalid("stageId", ProblemCode::NotAllowed, message));
            }
            queries::delete_stage(work, stage.id).await?;
            work.record(stage.id, "DELETED", &stage)?;
            number(work, stages, None).await?;
            Ok(stage.id)
        })
        .await?;
        Ok(DeletePipelineStagePayload {
            deleted_stage_id,
            outcome,
        })
    }
}
