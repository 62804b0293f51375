//! Sessions: from signing in to signing out, with refresh tokens that are good once.
//!
//! An access token lives for minutes and is checked without the database; the session behind it is asked for the next.
//! Each refresh replaces the refresh token. Who sends a replaced one again within a moment has lost the answer and gets
//! the same successor; who sends it later has it from somebody else, or somebody else has it from them, and the session
//! ends for both.

mod model;
mod mutations;
mod queries;
mod types;

pub use model::{Session, Ticket};
pub use mutations::{RefreshSessionInput, SessionMutation};
pub(super) use queries::set_by_second_factor;
pub use queries::{Which, end, revoke, start};
pub use types::SessionQuery;
