//! The tenants that one person belongs to: going from one to another, and leaving.

mod mutations;
mod types;

pub use mutations::MembershipMutation;
pub use types::{Membership, memberships};
