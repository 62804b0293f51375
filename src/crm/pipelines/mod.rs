//! Pipelines and their stages: the way that deals go.

mod model;
mod mutations;
mod queries;
mod types;

pub use model::{DEFAULT_STAGES, Pipeline, PipelineStage, StageKind};
pub use mutations::PipelineMutation;
pub use queries::{PipelineById, StageById, first_stage, insert_default, stage, stages_of};
pub use types::PipelineQuery;
