//! What must be looked up before a tenant is known, or of all tenants at once: accounts by e-mail, the tenants that an
//! account belongs to, which sessions have been revoked, and where histories stand.
//!
//! This runs as a role of its own that can read accounts, memberships, tenant names, revocations and the counters of
//! histories, add accounts, and nothing else.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use super::schema::{accounts, tenants, users};
use super::session::Transaction;
use super::statement::statement;
use super::{Connection, DIRECTORY_ROLE, Database, RUNTIME_ROLE};
use crate::error::Result;

/// What a person signs in with.
#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = accounts)]
pub struct Account {
    pub id: Uuid,
    /// In lower case.
    pub email: String,
    /// In the PHC string format.
    pub password_hash: String,
    pub created_at: DateTime<Utc>,
}

/// An account's place in one tenant.
#[derive(Debug, Clone, Queryable)]
pub struct Membership {
    pub tenant_id: Uuid,
    pub tenant_name: String,
    pub role: String,
}

/// The end of sessions before their time.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Revocation {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub user_id: Uuid,
    /// The session that has ended; without it, all of the user's that had begun by then.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub session_id: Option<Uuid>,
    /// By the database's clock, as are the beginnings of sessions.
    #[diesel(sql_type = Timestamptz)]
    pub revoked_at: DateTime<Utc>,
}

/// Looks an account up by its e-mail address, in lower case, with the tenants where it is active, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn find_account(db: &Database, email: &str) -> Result<Option<(Account, Vec<Membership>)>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        let account: Option<Account> = accounts::table
            .filter(accounts::email.eq(email))
            .select(Account::as_select())
            .first(&mut &*conn)
            .await
            .optional()?;
        let Some(account) = account else { return Ok(None) };
        let memberships = users::table
            .inner_join(tenants::table.on(tenants::id.eq(users::tenant_id)))
            .filter(users::id.eq(account.id).and(users::is_active))
            .order((users::created_at, users::tenant_id))
            .select((users::tenant_id, tenants::name, users::role))
            .load(&mut &*conn)
            .await?;
        Ok(Some((account, memberships)))
    });
    found.await
}

/// The revocations of all tenants that are younger than `age` by the database's clock.
///
/// # Errors
/// When the database fails.
pub async fn revocations(db: &Database, age: Duration) -> Result<Vec<Revocation>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        let young = statement(
            "SELECT tenant_id, user_id, session_id, revoked_at FROM revocations
              WHERE revoked_at > now() - make_interval(secs => ?)",
        )
        .bind::<Double, _>(age.as_secs_f64());
        Ok(young.load(&mut &*conn).await?)
    });
    found.await
}

/// Adds an account, in the transaction that makes its first tenant.
///
/// # Errors
/// As a user error on `email` when the address has an account already.
pub async fn insert_account(tx: &Transaction, account: &Account) -> Result<()> {
    let mut conn = tx.conn();
    conn.batch_execute(&format!("SET LOCAL ROLE {DIRECTORY_ROLE}"))
        .await?;
    diesel::insert_into(accounts::table)
        .values(account)
        .execute(&mut conn)
        .await?;
    conn.batch_execute(&format!("SET LOCAL ROLE {RUNTIME_ROLE}"))
        .await?;
    Ok(())
}

/// Where a tenant's history stood when somebody last looked.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub tenant_id: Uuid,
    pub epoch: i64,
    pub position: i64,
}

const CHANGED: &str = "
    SELECT histories.tenant_id
      FROM unnest(?, ?, ?) AS seen (tenant_id, epoch, position)
      JOIN histories ON histories.tenant_id = seen.tenant_id
     WHERE (histories.epoch, histories.position) <> (seen.epoch, seen.position)";

#[derive(QueryableByName)]
struct Changed {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
}

/// Of these tenants, those whose history no longer stands where it was seen.
///
/// # Errors
/// When the database fails.
pub async fn changed_histories(db: &Database, seen: &[Seen]) -> Result<Vec<Uuid>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        let changed: Vec<Changed> = statement(CHANGED)
            .column::<SqlUuid, _, _>(seen, |seen| seen.tenant_id)
            .column::<BigInt, _, _>(seen, |seen| seen.epoch)
            .column::<BigInt, _, _>(seen, |seen| seen.position)
            .load(&mut &*conn)
            .await?;
        Ok(changed.into_iter().map(|changed| changed.tenant_id).collect())
    });
    found.await
}

/// Runs `work` in a read-only transaction of the directory's role.
async fn conn_transaction<T>(
    connection: &mut Connection,
    work: impl AsyncFnOnce(&AsyncPgConnection) -> Result<T>,
) -> Result<T> {
    use diesel_async::{AnsiTransactionManager, TransactionManager};
    let begin = format!("BEGIN READ ONLY; SET LOCAL ROLE {DIRECTORY_ROLE}");
    AnsiTransactionManager::begin_transaction_sql(&mut **connection, &begin).await?;
    let done = work(connection).await;
    AnsiTransactionManager::rollback_transaction(&mut **connection).await?;
    done
}
