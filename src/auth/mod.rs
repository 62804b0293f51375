//! Who is asking: passwords, other providers, access tokens with their keys and their revocation, API keys, tokens of a
//! trusted issuer, roles and what they permit.

pub mod api_key;
mod believed;
pub mod external;
mod jwks;
pub mod keys;
pub mod origin;
mod outbound;
pub mod password;
pub mod permission;
pub mod provider;
mod published;
pub mod refusal;
pub mod revocation;
pub mod rights;
pub mod strength;
pub mod throttle;
pub mod token;
pub mod totp;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use origin::Origin;
pub use permission::{Permission, Role};
pub use revocation::Revocations;
pub use rights::{Permissions, Reach, Resource, Rights, Scope};
pub use throttle::{Limiter, Policy};

use crate::db::reach::Sight;
use crate::error::{Error, Result};

/// The person on whose behalf a request runs, as the access token tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    pub tenant_id: Uuid,
    pub user_id: Uuid,
    /// From signing in on: a UUIDv7, whose time is the beginning of the session by the database's clock.
    pub session_id: Uuid,
    /// Of the access token: a UUIDv7, whose time is that of its rights by the database's clock. What changes them later
    /// makes the token stale.
    pub token_id: Uuid,
    /// How they prove who they are.
    pub means: Means,
    /// What they may do, as it was when the token was issued.
    pub rights: Arc<Rights>,
    /// When the access token ends, and with it every stream that it opened.
    pub expires_at: DateTime<Utc>,
}

/// How somebody proves who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// By an access token, after signing in.
    Session,
    /// By an API key: a program that acts for a user.
    ApiKey,
    /// By a token of the issuer that the operator trusts: a person who has signed in elsewhere.
    External,
}

impl Viewer {
    /// Refuses what concerns one's own account and sessions to whoever has no session here: to programs, and to people who
    /// have signed in elsewhere. What another issuer says opens the records of a tenant, and no account.
    ///
    /// # Errors
    /// [`Error::InPerson`].
    pub fn in_person(&self) -> Result<()> {
        match self.means {
            Means::Session => Ok(()),
            Means::ApiKey | Means::External => Err(Error::InPerson),
        }
    }

    /// What the viewer may see of the tenant.
    pub fn sight(&self) -> Sight {
        Sight::of(self.tenant_id, self.user_id, self.rights.reach())
    }

    /// Refuses what the viewer's rights do not permit.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the name of the missing permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        self.rights.require(permission)
    }
}
