//! Who is asking: passwords, access tokens, roles and what they permit.

pub mod password;
pub mod permission;
pub mod token;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use permission::{Permission, Role};

use crate::error::{Error, Result};

/// The person on whose behalf a request runs, as the access token tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    pub tenant_id: Uuid,
    pub user_id: Uuid,
    pub role: Role,
    /// When the access token ends, and with it every stream that it opened.
    pub expires_at: DateTime<Utc>,
}

impl Viewer {
    /// Refuses what the viewer's role does not permit.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the name of the missing permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.role.permits(permission) {
            Ok(())
        } else {
            Err(Error::Forbidden(permission.name()))
        }
    }
}
