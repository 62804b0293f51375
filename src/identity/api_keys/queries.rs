//! All SQL about API keys.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::ApiKey;
use crate::db::id::Id;
use crate::db::schema::api_keys;
use crate::db::session::Transaction;
use crate::error::{Error, ProblemCode, Result};

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
