//! Proving that an address is one's own, and coming back in with it when the password is forgotten.

mod mutations;

pub use mutations::RecoveryMutation;
pub(super) use mutations::{no_link, tell_tenants};
