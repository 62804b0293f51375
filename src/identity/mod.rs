//! Tenants, the users in them, and signing in: a feature of the same anatomy as an entity of the CRM.

pub mod api_keys;
pub mod invitations;
mod model;
mod mutations;
mod queries;
mod types;

pub use model::{SignedIn, Tenant, User};
pub use mutations::{IdentityMutation, SignInPayload};
pub use queries::{
    NewTenant, TenantById, UserById, currency, insert_tenant, insert_user, new_session, own_tenant, revoke,
    rights_of,
};
pub use types::{IdentityQuery, currency_or_tenants};

use mutations::{revocations, rules_for};
