//! All SQL about API keys.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::define_sql_function;
use diesel::prelude::*;
use diesel::sql_types::Uuid as SqlUuid;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::ApiKey;
use crate::auth::{Means, Viewer};
use crate::db::id::{Id, uuid_at};
use crate::db::schema::api_keys;
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::db::{Database, directory};
use crate::error::{Error, ProblemCode, Result};
use crate::identity;

define_sql_function!(fn clock_timestamp() -> Timestamptz);

/// For whom the key of this hash acts, with no more rights than it was given and its user has; nothing when there is no
/// such key, when it has expired, or when its user is not active. That it was used is written down to the minute.
///
/// # Errors
/// When the database fails.
pub async fn holder(db: &Database, hash: &[u8]) -> Result<Option<Viewer>> {
    let Some((tenant_id, id)) = directory::find_api_key(db, hash).await? else {
        return Ok(None);
    };
    let tx = db.begin(tenant_id).await?;
    let mut conn = tx.conn();
    let key: Option<ApiKey> = api_keys::table
        .filter(api_keys::id.eq(id).and(api_keys::expires_at.gt(diesel::dsl::now)))
        .select(ApiKey::as_select())
        .first(&mut conn)
        .await
        .optional()?;
    let Some(key) = key else { return Ok(None) };
    // Whoever changes the user at this moment is waited for: the moment of the rights is later than that change.
    let Some((_, _, rights)) = identity::member(&tx, key.user_id).await? else {
        return Ok(None);
    };
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    statement(
        "UPDATE api_keys SET last_used_at = date_trunc('minute', now())
          WHERE id = ? AND last_used_at IS DISTINCT FROM date_trunc('minute', now())",
    )
    .bind::<SqlUuid, _>(id)
    .execute(&mut conn)
    .await?;
    tx.commit().await?;
    Ok(Some(Viewer {
        tenant_id,
        user_id: key.user_id.uuid(),
        session_id: id,
        token_id: uuid_at(now),
        means: Means::ApiKey,
        rights: Arc::new(rights.only(key.granted())),
        expires_at: key.expires_at,
    }))
}

/// Keys of a tenant at most.
pub(super) const MAX_KEYS: i64 = 200;

/// All keys of the tenant, the newest first.
///
/// # Errors
/// When the database fails.
pub(super) async fn all(conn: &AsyncPgConnection) -> Result<Vec<ApiKey>> {
    let keys = api_keys::table
        .order(api_keys::id.desc())
        .select(ApiKey::as_select());
    Ok(keys.load(&mut &*conn).await?)
}

/// Adds a key, of which the hash is kept.
///
/// # Errors
/// As a user error when the tenant has many keys already.
pub(super) async fn insert(tx: &Transaction, key: &ApiKey, hash: [u8; 32]) -> Result<()> {
    let mut conn = tx.conn();
    let count: i64 = api_keys::table.count().get_result(&mut conn).await?;
    if count >= MAX_KEYS {
        let message = format!("A tenant has {MAX_KEYS} API keys at most. Revoke those that nobody uses.");
        return Err(Error::invalid("", ProblemCode::OutOfRange, message));
    }
    diesel::insert_into(api_keys::table)
        .values((key, api_keys::hash.eq(hash.to_vec())))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Removes a key; answers it.
///
/// # Errors
/// As a user error on `apiKeyId` when there is no such key.
pub(super) async fn delete(tx: &Transaction, id: Id<ApiKey>) -> Result<ApiKey> {
    let deleted = diesel::delete(api_keys::table.filter(api_keys::id.eq(id)))
        .returning(ApiKey::as_returning())
        .get_result(&mut tx.conn())
        .await
        .optional()?;
    deleted.ok_or_else(|| Error::invalid("apiKeyId", ProblemCode::NotFound, "There is no such API key."))
}
