//! API keys in the schema.

use async_graphql::{Context, Object};

use super::{ApiKey, queries};
use crate::auth::Permission;
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, ContextExt, Record};
use crate::identity::{User, UserById};

/// A key with which another program uses this API on behalf of a user: it sends the key where people send their access
/// token, `Authorization: Bearer dsk_…`, with queries, mutations and subscriptions alike.
#[Object]
impl ApiKey {
    /// The key's id, for example `api_key_01h455vb4pex5vsknk084sn02q`.
    async fn id(&self) -> Id<ApiKey> {
        self.id
    }

    /// What the key is for.
    async fn name(&self) -> &str {
        &self.name
    }

    /// The beginning of the key, by which you know it again: `dsk_Zk3v…`. The whole of it was shown once.
    async fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The user on whose behalf the key acts; null when you may not see users.
    async fn user(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.find::<UserById>(Permission::UsersRead, self.user_id).await
    }

    /// What the key permits, as far as its user may do it too.
    async fn permissions(&self) -> Vec<Permission> {
        self.granted().iter().collect()
    }

    /// When the key was made.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the key ends.
    async fn expires_at(&self) -> DateTime {
        self.expires_at.into()
    }

    /// When the key was last used, to the minute; null when it never was.
    async fn last_used_at(&self) -> Option<DateTime> {
        self.last_used_at.map(Into::into)
    }
}

/// API keys at the root of the schema.
#[derive(Default)]
pub struct ApiKeyQuery;

#[Object]
impl ApiKeyQuery {
    /// The tenant's API keys, the newest first: at most 200, those that have expired included.
    #[graphql(guard = "Can(Permission::ApiKeysWrite)")]
    async fn api_keys(&self, ctx: &Context<'_>) -> Result<Vec<ApiKey>> {
        let reading = ctx.reading()?;
        queries::all(reading.conn().await?).await
    }
}
