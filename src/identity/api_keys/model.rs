//! API keys as they are kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use crate::auth::Permissions;
use crate::db::id::{Id, Kind};
use crate::db::schema::api_keys;
use crate::identity::User;

/// A key with which another program acts for a user. The key itself is known to that program alone.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = api_keys)]
pub struct ApiKey {
    pub id: Id<ApiKey>,
    pub name: String,
    /// The beginning of the key.
    pub prefix: String,
    pub user_id: Id<User>,
    /// The names of the permissions, with spaces between them.
    pub scope: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    /// To the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// The permissions that it is for.
    pub fn granted(&self) -> Permissions {
        Permissions::from_scope(&self.scope)
    }
}

impl Kind for ApiKey {
    const PREFIX: &'static str = "api_key";
}
