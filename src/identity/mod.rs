//! Tenants, the users in them, and signing in: a feature of the same anatomy as an entity of the CRM.

pub mod api_keys;
pub mod external;
pub mod invitations;
pub mod memberships;
pub mod mfa;
mod model;
mod mutations;
pub mod providers;
mod queries;
pub mod recovery;
pub mod refusals;
pub mod roles;
pub mod sessions;
pub mod teams;
mod types;

pub use model::{SignedIn, Tenant, User};
pub use mutations::{IdentityMutation, SignInPayload};
pub use queries::{NewTenant, Owner, TenantById, UserById, currency, insert_tenant, insert_user, own_tenant};
pub use roles::{CustomRole, CustomRoleById, RoleMutation, RoleQuery, check_grant, rights_of};
pub use sessions::revoke;
pub use teams::{Team, TeamById, TeamMutation, TeamQuery};
pub use types::{IdentityQuery, currency_or_tenants};

use mutations::{choose, leave, revocations, rules_for};
use queries::{hold_tenant, member};
