//! Access tokens of our own making. Thousands of sign-ins would mostly measure how long passwords take to hash.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use dealstream::app;
use dealstream::auth::token::{Grant, Tokens};
use dealstream::auth::{Rights, Role};
use dealstream::config::Config;
use dealstream::db::Database;
use uuid::Uuid;

use crate::Result;

/// For how long a token is good: longer than any run.
const LIFETIME: TimeDelta = TimeDelta::hours(4);

/// What the server's tokens are signed with.
pub struct Signer(Tokens);

impl Signer {
    /// With the server's own key, which its root secret opens.
    pub async fn open(secret: &str, database_url: &str) -> Result<Self> {
        let config = Config {
            jwt_secret: Some(secret.to_owned().into()),
            ..Config::defaults()
        };
        let db = Database::new(database_url, 2, Duration::from_secs(10))?;
        let keys = app::keys(&config, &db, &Arc::new(app::vault(&config)?));
        keys.look().await.map_err(|error| error.message())?;
        Ok(Self(Tokens::new(
            Arc::new(keys),
            &config.jwt_issuer,
            &config.jwt_audience,
            LIFETIME,
        )))
    }

    /// A token for the admin of a tenant, from a session of its own.
    pub fn admin(&self, tenant: Uuid, user: Uuid) -> Result<String> {
        let grant = Grant {
            tenant_id: tenant,
            user_id: user,
            session_id: Uuid::now_v7(),
            token_id: Uuid::now_v7(),
            rights: Arc::new(Rights::of(Role::Admin)),
            ends_at: None,
        };
        let (token, _) = self.0.issue(grant, Utc::now()).map_err(|error| error.message())?;
        Ok(token)
    }
}
