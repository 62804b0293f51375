//! Teams: who sees whose records, for roles that reach a team's.

mod model;
mod mutations;
mod queries;
mod types;

pub use model::{Team, TeamMember};
pub use mutations::TeamMutation;
pub use queries::{TeamById, TeamsByUser};
pub use types::TeamQuery;
