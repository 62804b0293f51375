//! The audit trail for those who look at it: reading it, proving that nobody has changed it, and the signed checkpoints
//! outside the database that the proof rests on. How entries are made and chained is told in [`crate::events::trail`].

pub mod checkpoints;
pub mod command;
mod model;
mod queries;
mod types;
pub mod verify;

pub use checkpoints::Checkpoints;
pub use model::AuditEvent;
pub use types::AuditQuery;
