//! All SQL about pipelines and stages.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::model::{DEFAULT_STAGES, Pipeline, PipelineStage};
use super::types::PipelineFilter;
use crate::auth::Permission;
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::{pipeline_stages, pipelines, tenants};
use crate::db::select::{Predicate, by_ids};
use crate::db::session::Transaction;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::Batch;
use crate::graphql::filter::combine;

/// Loads pipelines by their ids.
pub struct PipelineById;

impl Batch for PipelineById {
    type Key = Id<Pipeline>;
    type Value = Arc<Pipeline>;
    const READ: Permission = Permission::PipelinesRead;

    async fn load(reader: Reader<'_>, keys: &[Id<Pipeline>]) -> Result<ByKey<Id<Pipeline>, Arc<Pipeline>>> {
        by_ids(reader, keys).await
    }
}

/// Loads stages by their ids.
pub struct StageById;

impl Batch for StageById {
    type Key = Id<PipelineStage>;
    type Value = Arc<PipelineStage>;
    const READ: Permission = Permission::PipelinesRead;

    async fn load(
        reader: Reader<'_>,
        keys: &[Id<PipelineStage>],
    ) -> Result<ByKey<Id<PipelineStage>, Arc<PipelineStage>>> {
        by_ids(reader, keys).await
    }
}

/// Loads all stages of pipelines, in order.
pub(super) struct StagesByPipeline;

impl Batch for StagesByPipeline {
    type Key = Id<Pipeline>;
    type Value = Arc<Vec<Arc<PipelineStage>>>;
    const READ: Permission = Permission::PipelinesRead;

    async fn load(conn: Reader<'_>, keys: &[Id<Pipeline>]) -> Result<ByKey<Id<Pipeline>, Self::Value>> {
        let found: Vec<PipelineStage> = pipeline_stages::table
            .filter(pipeline_stages::pipeline_id.eq_any(keys))
            .order((pipeline_stages::pipeline_id, pipeline_stages::position))
            .select(PipelineStage::as_select())
            .load(&mut &*conn)
            .await?;
        let mut stages: ByKey<Id<Pipeline>, Vec<Arc<PipelineStage>>> = ByKey::default();
        for stage in found {
            stages.entry(stage.pipeline_id).or_default().push(Arc::new(stage));
        }
        Ok(stages
            .into_iter()
            .map(|(pipeline, stages)| (pipeline, Arc::new(stages)))
            .collect())
    }
}

/// The condition that a filter stands for.
///
/// # Errors
/// [`Error::BadInput`] for values that no list can be filtered by.
pub(super) fn matching(filter: PipelineFilter) -> Result<Predicate> {
    let own = [
        filter.id.map(|id| id.on(pipelines::id)),
        filter.name.map(|name| name.on(pipelines::name)),
        filter
            .is_default
            .map(|default| Ok(Predicate::compare(pipelines::is_default, "=", default))),
        filter.created_at.map(|moment| moment.on(pipelines::created_at)),
        filter.updated_at.map(|moment| moment.on(pipelines::updated_at)),
    ];
    let own = own.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    combine(own, filter.and, filter.or, filter.not, matching)
}

/// Reads a stage.
///
/// # Errors
/// As a user error on `field` when there is no such stage.
pub async fn stage(tx: &Transaction, stage: Id<PipelineStage>, field: &str) -> Result<PipelineStage> {
    let found: Option<PipelineStage> = pipeline_stages::table
        .filter(pipeline_stages::id.eq(stage))
        .select(PipelineStage::as_select())
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| Error::invalid(field, ProblemCode::NotFound, "There is no such stage."))
}

/// The stage that a new deal begins in: the one that is asked for, or the first of the pipeline that is asked for, or
/// the first of the default pipeline.
///
/// # Errors
/// As a user error when there is none, or when the stage is another pipeline's.
pub async fn first_stage(
    tx: &Transaction,
    pipeline: Option<Id<Pipeline>>,
    stage_id: Option<Id<PipelineStage>>,
) -> Result<PipelineStage> {
    if let Some(id) = stage_id {
        let stage = stage(tx, id, "stageId").await?;
        if pipeline.is_some_and(|pipeline| pipeline != stage.pipeline_id) {
            let message = "The stage belongs to another pipeline.";
            return Err(Error::invalid("stageId", ProblemCode::NotAllowed, message));
        }
        return Ok(stage);
    }
    let stages = pipeline_stages::table
        .inner_join(
            pipelines::table.on(pipelines::id
                .eq(pipeline_stages::pipeline_id)
                .and(pipelines::tenant_id.eq(pipeline_stages::tenant_id))),
        )
        .select(PipelineStage::as_select())
        .order(pipeline_stages::position);
    let mut conn = tx.conn();
    let found: Option<PipelineStage> = match pipeline {
        Some(id) => stages
            .filter(pipelines::id.eq(id))
            .first(&mut conn)
            .await
            .optional()?,
        None => stages
            .filter(pipelines::is_default)
            .first(&mut conn)
            .await
            .optional()?,
    };
    found.ok_or_else(|| {
        Error::invalid(
            "pipelineId",
            ProblemCode::NotFound,
            "There is no such pipeline with stages.",
        )
    })
}

/// Reads a pipeline and locks it until the end of the transaction.
///
/// # Errors
/// As a user error on `field` when there is no such pipeline.
pub(super) async fn find_for_update(tx: &Transaction, id: Id<Pipeline>, field: &str) -> Result<Pipeline> {
    let found = pipelines::table
        .filter(pipelines::id.eq(id))
        .select(Pipeline::as_select())
        .for_update()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| Error::invalid(field, ProblemCode::NotFound, "There is no such pipeline."))
}

/// Reads a stage and locks it, and its pipeline, until the end of the transaction.
///
/// # Errors
/// As a user error on `field` when there is no such stage.
pub(super) async fn find_stage_for_update(
    tx: &Transaction,
    id: Id<PipelineStage>,
    field: &str,
) -> Result<PipelineStage> {
    // The pipeline first, by everybody: who changes the order of stages writes several of them, and two who had locked a
    // stage each would wait for one another.
    let pipeline = stage(tx, id, field).await?.pipeline_id;
    find_for_update(tx, pipeline, field).await?;
    let found = pipeline_stages::table
        .filter(pipeline_stages::id.eq(id))
        .select(PipelineStage::as_select())
        .for_update()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| Error::invalid(field, ProblemCode::NotFound, "There is no such stage."))
}

/// All stages of a pipeline, in order.
///
/// # Errors
/// When the database fails.
pub async fn stages_of(tx: &Transaction, pipeline: Id<Pipeline>) -> Result<Vec<PipelineStage>> {
    let stages = pipeline_stages::table
        .filter(pipeline_stages::pipeline_id.eq(pipeline))
        .order(pipeline_stages::position)
        .select(PipelineStage::as_select())
        .load(&mut tx.conn())
        .await?;
    Ok(stages)
}

/// Adds a pipeline and its stages.
///
/// # Errors
/// As user errors when a name is taken.
pub(super) async fn insert(tx: &Transaction, pipeline: &Pipeline, stages: &[PipelineStage]) -> Result<()> {
    let mut conn = tx.conn();
    diesel::insert_into(pipelines::table)
        .values(pipeline)
        .execute(&mut conn)
        .await?;
    diesel::insert_into(pipeline_stages::table)
        .values(stages)
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Makes the pipeline that a new tenant begins with.
///
/// # Errors
/// When the database fails.
pub async fn insert_default(tx: &Transaction, now: DateTime<Utc>) -> Result<(Pipeline, Vec<PipelineStage>)> {
    let pipeline = Pipeline {
        id: Id::generate(),
        name: "Sales".to_owned(),
        is_default: true,
        created_at: now,
        updated_at: now,
        version: 1,
    };
    let stages: Vec<_> = (1..)
        .zip(DEFAULT_STAGES)
        .map(|(position, (name, kind, win_probability))| PipelineStage {
            id: Id::generate(),
            pipeline_id: pipeline.id,
            name: name.to_owned(),
            position,
            kind,
            win_probability,
            rotting_after_days: (kind == super::StageKind::Open).then_some(30),
            created_at: now,
            updated_at: now,
            version: 1,
        })
        .collect();
    insert(tx, &pipeline, &stages).await?;
    Ok((pipeline, stages))
}

/// Writes a changed pipeline.
///
/// # Errors
/// As a user error when the name is taken.
pub(super) async fn update(tx: &Transaction, pipeline: &Pipeline) -> Result<()> {
    diesel::update(pipelines::table.filter(pipelines::id.eq(pipeline.id)))
        .set((
            pipelines::name.eq(&pipeline.name),
            pipelines::is_default.eq(pipeline.is_default),
            pipelines::updated_at.eq(pipeline.updated_at),
            pipelines::version.eq(pipeline.version),
        ))
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// The default pipeline, locked until the end of the transaction.
///
/// # Errors
/// When the database fails.
pub(super) async fn default_for_update(tx: &Transaction) -> Result<Option<Pipeline>> {
    let mut conn = tx.conn();
    // Whoever makes another pipeline the default holds the tenant, so that the one found here still is it when its row
    // has been waited for.
    tenants::table
        .filter(tenants::id.eq(tx.tenant()))
        .select(tenants::id)
        .for_no_key_update()
        .execute(&mut conn)
        .await?;
    let found = pipelines::table
        .filter(pipelines::is_default)
        .select(Pipeline::as_select())
        .for_update()
        .first(&mut conn)
        .await
        .optional()?;
    Ok(found)
}

/// Writes a changed stage.
///
/// # Errors
/// As a user error when the name is taken.
pub(super) async fn update_stage(tx: &Transaction, stage: &PipelineStage) -> Result<()> {
    use pipeline_stages::dsl;
    diesel::update(pipeline_stages::table.filter(dsl::id.eq(stage.id)))
        .set((
            dsl::name.eq(&stage.name),
            dsl::position.eq(stage.position),
            dsl::win_probability.eq(stage.win_probability),
            dsl::rotting_after_days.eq(stage.rotting_after_days),
            dsl::updated_at.eq(stage.updated_at),
            dsl::version.eq(stage.version),
        ))
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Adds a stage.
///
/// # Errors
/// As a user error when the name is taken.
pub(super) async fn insert_stage(tx: &Transaction, stage: &PipelineStage) -> Result<()> {
    diesel::insert_into(pipeline_stages::table)
        .values(stage)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Deletes a pipeline with its stages, when no deal is in it.
///
/// # Errors
/// As a user error when it has deals.
pub(super) async fn delete(tx: &Transaction, id: Id<Pipeline>) -> Result<()> {
    use crate::db::schema::deals;
    let mut conn = tx.conn();
    let used: bool = diesel::select(diesel::dsl::exists(
        deals::table.filter(deals::pipeline_id.eq(id)),
    ))
    .get_result(&mut conn)
    .await?;
    if used {
        let message = "The pipeline still has deals. Delete them first.";
        return Err(Error::invalid("pipelineId", ProblemCode::InUse, message));
    }
    diesel::delete(pipelines::table.filter(pipelines::id.eq(id)))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Deletes a stage that no deal is in or has ever been in.
///
/// # Errors
/// As a user error when a deal, or the history of one, refers to it.
pub(super) async fn delete_stage(tx: &Transaction, id: Id<PipelineStage>) -> Result<()> {
    use crate::db::schema::{deal_stage_changes as changes, deals};
    let mut conn = tx.conn();
    let (deals, history): (bool, bool) = diesel::select((
        diesel::dsl::exists(deals::table.filter(deals::stage_id.eq(id))),
        diesel::dsl::exists(
            changes::table.filter(changes::to_stage_id.eq(id).or(changes::from_stage_id.eq(id))),
        ),
    ))
    .get_result(&mut conn)
    .await?;
    if deals || history {
        let message = if deals {
            "Deals are still in this stage. Move them first."
        } else {
            "The history of deals refers to this stage."
        };
        return Err(Error::invalid("stageId", ProblemCode::InUse, message));
    }
    diesel::delete(pipeline_stages::table.filter(pipeline_stages::id.eq(id)))
        .execute(&mut conn)
        .await?;
    Ok(())
}
