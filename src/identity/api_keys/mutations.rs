//! Making and revoking API keys.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use chrono::TimeDelta;

use super::{ApiKey, queries};
use crate::auth::{Permission, Permissions, Revocations, api_key};
use crate::crypto::token_hash;
use crate::db::id::Id;
use crate::error::{ProblemCode, Result};
use crate::graphql::input::Check;
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, ContextExt, InPerson, Outcome, mutate, mutate_unless_done};
use crate::identity;

/// Days that a key lives when nothing else is said, and at most.
const DAYS: (i64, i64) = (90, 366);

/// An API key to be made.
#[derive(Debug, InputObject)]
pub struct CreateApiKeyInput {
    /// What it is for, for example `Newsletter export`.
    name: String,
    /// What it permits: the fewest that will do. You can give no permission that you do not have, and the key never has
    /// one that you have lost.
    permissions: Vec<Permission>,
    /// When it ends: 90 days from now when left out, 366 days from now at most.
    expires_at: Option<DateTime>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once, but
    /// for the secret, which only the first answer tells. It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// An API key to be revoked.
#[derive(Debug, InputObject)]
pub struct RevokeApiKeyInput {
    /// The key to revoke.
    api_key_id: Id<ApiKey>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `createApiKey`.
#[derive(SimpleObject)]
pub struct CreateApiKeyPayload {
    /// The new key; null when there are `userErrors`.
    api_key: Option<Arc<ApiKey>>,
    /// The key itself, for the program that will use it. Keep it now: it is told this once and kept nowhere. Null when
    /// there are `userErrors`, and when a retry is answered.
    secret: Option<String>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `revokeApiKey`.
#[derive(SimpleObject)]
pub struct RevokeApiKeyPayload {
    /// The id of the key that is no more; null when there are `userErrors`.
    revoked_api_key_id: Option<Id<ApiKey>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of API keys.
#[derive(Default)]
pub struct ApiKeyMutation;

#[Object]
impl ApiKeyMutation {
    /// Makes a key with which another program acts on your behalf. The key ends with its time, when it is revoked, and
    /// when you are deactivated or removed.
    #[graphql(guard = "Can(Permission::ApiKeysWrite).and(InPerson)")]
    async fn create_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The key to make.")] input: CreateApiKeyInput,
    ) -> Result<CreateApiKeyPayload> {
        let viewer = ctx.viewer()?;
        let mut made = None;
        let (api_key, outcome) = mutate(ctx, "createApiKey", input.idempotency_key.clone(), async |work| {
            let mut check = Check::default();
            let name = check.line("name", &input.name);
            let wanted: Permissions = input.permissions.iter().copied().collect();
            if wanted.is_empty() {
                let message = "Give the key one permission at least.";
                check.problem("permissions", ProblemCode::Required, message);
            }
            let lacking: Vec<_> = wanted
                .without(viewer.rights.permissions())
                .iter()
                .map(Permission::name)
                .collect();
            if !lacking.is_empty() {
                let message = format!(
                    "You do not have these permissions yourself: {}.",
                    lacking.join(", ")
                );
                check.problem("permissions", ProblemCode::NotAllowed, message);
            }
            let now = work.now();
            let expires_at = check.moment("expiresAt", input.expires_at);
            let expires_at = expires_at.unwrap_or_else(|| now + TimeDelta::days(DAYS.0));
            if expires_at <= now || expires_at > now + TimeDelta::days(DAYS.1) {
                let message = format!("A key ends within {} days, and not before it begins.", DAYS.1);
                check.problem("expiresAt", ProblemCode::OutOfRange, message);
            }
            check.done()?;
            let secret = api_key::generate();
            let key = ApiKey {
                id: Id::generate(),
                name,
                prefix: api_key::prefix(&secret).to_owned(),
                user_id: Id::from_uuid(viewer.user_id),
                scope: wanted.to_scope(),
                created_at: now,
                expires_at,
                last_used_at: None,
            };
            queries::insert(work, &key, token_hash(&secret)).await?;
            work.record(key.id, "CREATED", &key)?;
            made = Some(secret);
            Ok(Arc::new(key))
        })
        .await?;
        let secret = made.filter(|secret| {
            // What a race undid must not be told.
            let kept = api_key.as_ref().map(|key| key.prefix.as_str());
            kept == Some(api_key::prefix(secret))
        });
        Ok(CreateApiKeyPayload {
            api_key,
            secret,
            outcome,
        })
    }

    /// Revokes a key. It is refused from now on, and sockets that were opened with it are closed with the code 4403.
    #[graphql(guard = "Can(Permission::ApiKeysWrite).and(InPerson)")]
    async fn revoke_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The key to revoke.")] input: RevokeApiKeyInput,
    ) -> Result<RevokeApiKeyPayload> {
        let mut revoked = Vec::new();
        let key = input.idempotency_key.clone();
        let (revoked_api_key_id, outcome) = mutate_unless_done(ctx, "revokeApiKey", key, async |work| {
            let key = queries::delete(work, input.api_key_id).await?;
            work.record(key.id, "DELETED", &key)?;
            revoked.push(identity::revoke(work, key.user_id, Some(key.id.uuid())).await?);
            Ok(key.id)
        })
        .await?;
        ctx.data_unchecked::<Arc<Revocations>>().take_in(&revoked);
        Ok(RevokeApiKeyPayload {
            revoked_api_key_id,
            outcome,
        })
    }
}
