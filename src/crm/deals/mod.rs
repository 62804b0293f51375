//! Deals: sales opportunities on their way through a pipeline, and the history of that way.

mod model;
mod mutations;
mod queries;
mod subscriptions;
mod types;

pub use model::{Deal, DealStageChange, DealStatus, StageMove};
pub use mutations::DealMutation;
pub use queries::{
    DealById, DealsByCompany, DealsByContact, DealsByStage, StageChangeById, StageTotals, Totals, insert,
    insert_all, insert_all_stage_changes, matching, move_to_stage,
};
pub use subscriptions::DealSubscription;
pub use types::{DealFilter, DealQuery};
