//! Roles of a tenant's own: which permissions, and whose records they reach.

mod model;
mod mutations;
mod queries;
mod types;

pub(in crate::identity) use mutations::{assigned, check_gift, unassigned};
pub(in crate::identity) use queries::rights_in;

pub use model::{CustomRole, RoleScopes};
pub use mutations::{RoleMutation, check_grant};
pub use queries::{CustomRoleById, rights_of};
pub use types::{RecordScope, RecordScopes, RoleQuery};
