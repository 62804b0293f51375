//! All SQL about data keys.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bytea, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::Purpose;
use crate::db::schema::data_keys;
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::Result;

/// What keys are read from.
pub(super) type Conn = AsyncPgConnection;

/// A key as it is kept: sealed by the master key.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = data_keys)]
pub(super) struct DataKey {
    pub id: Uuid,
    pub is_current: bool,
    pub sealed: Vec<u8>,
}

/// Finds a key.
///
/// # Errors
/// When the database fails.
pub(super) async fn find(conn: &AsyncPgConnection, id: Uuid) -> Result<Option<DataKey>> {
    let found = data_keys::table
        .filter(data_keys::id.eq(id))
        .select(DataKey::as_select());
    Ok(found.first(&mut &*conn).await.optional()?)
}

/// Finds the keys that are used for a purpose, or have been.
///
/// # Errors
/// When the database fails.
pub(super) async fn all_of(conn: &AsyncPgConnection, purpose: Purpose) -> Result<Vec<DataKey>> {
    let found = data_keys::table
        .filter(data_keys::purpose.eq(purpose.as_str()))
        .select(DataKey::as_select());
    Ok(found.load(&mut &*conn).await?)
}

/// Finds the key that is used for a purpose at the moment. It stays the current one until the end of the transaction.
///
/// # Errors
/// When the database fails.
pub(super) async fn current_to_seal(tx: &Transaction, purpose: Purpose) -> Result<Option<DataKey>> {
    let found = data_keys::table
        .filter(data_keys::purpose.eq(purpose.as_str()).and(data_keys::is_current))
        .select(DataKey::as_select())
        .for_share();
    Ok(found.first(&mut tx.conn()).await.optional()?)
}

/// Reads all keys of the tenant.
///
/// # Errors
/// When the database fails.
pub(super) async fn all(conn: &AsyncPgConnection) -> Result<Vec<DataKey>> {
    let all = data_keys::table.order(data_keys::id).select(DataKey::as_select());
    Ok(all.load(&mut &*conn).await?)
}

/// Adds a key, unless there is a current one for the purpose.
///
/// # Errors
/// When the database fails.
pub(super) async fn insert(tx: &Transaction, id: Uuid, purpose: Purpose, sealed: &[u8]) -> Result<()> {
    let insert =
        "INSERT INTO data_keys (id, purpose, is_current, sealed, created_at) VALUES (?, ?, true, ?, now())
                  ON CONFLICT (tenant_id, purpose) WHERE is_current DO NOTHING";
    statement(insert)
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(purpose.as_str())
        .bind::<Bytea, _>(sealed)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Makes room for a new key for a purpose, if the current one was made before a moment, or whenever it was made. Answers
/// whether there was such a key.
///
/// # Errors
/// When the database fails.
pub(super) async fn retire(
    tx: &Transaction,
    purpose: Purpose,
    made_before: Option<DateTime<Utc>>,
) -> Result<bool> {
    let retire = statement(
        "UPDATE data_keys SET is_current = false
          WHERE purpose = ? AND is_current AND created_at < coalesce(?, 'infinity')",
    );
    let retired = retire
        .bind::<Text, _>(purpose.as_str())
        .bind::<Nullable<Timestamptz>, _>(made_before)
        .execute(&mut tx.conn())
        .await?;
    Ok(retired > 0)
}

/// Removes a key that is not current.
///
/// # Errors
/// When the database fails; as a user error while something is sealed under it.
pub(super) async fn forget(tx: &Transaction, id: Uuid) -> Result<()> {
    statement("DELETE FROM data_keys WHERE id = ? AND NOT is_current")
        .bind::<SqlUuid, _>(id)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}
