//! Invitations: how a person becomes a user of a tenant by their own will, with an address that is proved to be theirs.

mod model;
mod mutations;
mod queries;
mod types;

pub use model::Invitation;
pub use mutations::InvitationMutation;
pub use queries::InvitationById;
pub use types::InvitationQuery;
