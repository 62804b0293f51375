//! What must be looked up before a tenant is known, or of all tenants at once: accounts by e-mail, the tenants that an
//! account belongs to, whose session a refresh token is of, which sessions have been revoked, and where histories stand.
//!
//! This runs as a role of its own. What it may do stands in the migrations, as grants and policies for it, and is as
//! little as what is here, in [`signing_keys`](super::signing_keys) and in [`sealed`](super::sealed) needs: of what a tenant
//! keeps it sees who belongs there, how they may sign in, where the history stands, and its keys as they are sealed, and no
//! record of its customers.

pub mod factors;
pub mod identities;
pub mod mailing;
pub mod people;

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Bytea, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use super::schema::{accounts, api_keys, users};
use super::session::Transaction;
use super::statement::statement;
use super::{Connection, DIRECTORY_ROLE, Database};
use crate::error::Result;

/// What a person signs in with.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
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
    /// The account's user there.
    pub user_id: Uuid,
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
    /// The one session that goes on.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub kept_session_id: Option<Uuid>,
    /// By the database's clock, as are the beginnings of sessions.
    #[diesel(sql_type = Timestamptz)]
    pub revoked_at: DateTime<Utc>,
}

/// What somebody no longer has who had an account.
#[derive(Debug, Default)]
pub struct Taken {
    pub api_keys: Vec<RemovedKey>,
    pub revoked: Vec<Revocation>,
}

/// An API key that is no more.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct RemovedKey {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
}

/// A session that a refresh token belongs to.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct FoundSession {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub user_id: Uuid,
}

/// Looks an account up by its e-mail address, in lower case, with the tenants that it may enter, oldest first. Whoever
/// has not proved that the address is theirs enters no tenant but those that made the account, or were made with it.
///
/// # Errors
/// When the database fails.
pub async fn find_account(db: &Database, email: &str) -> Result<Option<(Account, Vec<Membership>)>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        // One statement, whether the address is known or not.
        let rows: Vec<(Account, Option<Membership>)> = accounts::table
            .left_join(users::table.on(admitted()))
            .filter(accounts::email.eq(email))
            .order((users::created_at, users::tenant_id))
            .select((Account::as_select(), (users::tenant_id, users::id).nullable()))
            .load(&mut &*conn)
            .await?;
        let (mut accounts, memberships): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let memberships = memberships.into_iter().flatten().collect();
        Ok(accounts.pop().map(|account| (account, memberships)))
    });
    found.await
}

/// Which users an account may enter a tenant as.
#[diesel::dsl::auto_type]
fn admitted() -> _ {
    let proved = users::awaits_verification
        .eq(false)
        .or(accounts::email_verified_at.is_not_null());
    users::account_id
        .eq(accounts::id)
        .and(users::is_active)
        .and(proved)
}

/// The revocations of all tenants that are younger than `age` by the database's clock.
///
/// # Errors
/// When the database fails.
pub async fn revocations(db: &Database, age: Duration) -> Result<Vec<Revocation>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        let young = statement(
            "SELECT tenant_id, user_id, session_id, kept_session_id, revoked_at FROM revocations
              WHERE revoked_at > now() - make_interval(secs => ?)",
        )
        .bind::<Double, _>(age.as_secs_f64());
        Ok(young.load(&mut &*conn).await?)
    });
    found.await
}

/// Looks up the session whose refresh tokens have a part with this hash in common. Whether it goes on is not told.
///
/// # Errors
/// When the database fails.
pub async fn find_session(db: &Database, family_hash: &[u8; 32]) -> Result<Option<FoundSession>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        let found = statement("SELECT tenant_id, id, user_id FROM sessions WHERE family_hash = ?")
            .bind::<Bytea, _>(family_hash.to_vec());
        Ok(found.load(&mut &*conn).await?.pop())
    });
    found.await
}

/// What a session gives to another that comes from it.
#[derive(Debug, QueryableByName)]
pub struct Source {
    #[diesel(sql_type = Timestamptz)]
    pub expires_at: DateTime<Utc>,
    #[diesel(sql_type = Bool)]
    pub by_second_factor: bool,
}

/// Looks up a session of an account in any tenant, unless it has ended; it then does not end before the transaction does.
///
/// # Errors
/// When the database fails.
pub async fn session_that_goes_on(
    tx: &Transaction,
    account: Uuid,
    tenant: Uuid,
    session: Uuid,
) -> Result<Option<Source>> {
    let found = as_directory(tx, async |conn| {
        let look = statement(
            "SELECT s.expires_at, s.by_second_factor
               FROM sessions s JOIN users u ON u.tenant_id = s.tenant_id AND u.id = s.user_id
              WHERE u.account_id = ? AND s.tenant_id = ? AND s.id = ? AND s.ended_at IS NULL AND s.expires_at > now()
                FOR SHARE OF s",
        )
        .bind::<SqlUuid, _>(account)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(session);
        look.get_result(&mut &*conn).await.optional()
    });
    Ok(found.await?)
}

/// Adds an account, in the transaction that makes its first tenant.
///
/// # Errors
/// As a user error on `email` when the address has an account already.
pub async fn insert_account(tx: &Transaction, account: &Account) -> Result<()> {
    let inserted = as_directory(tx, async |conn| {
        let insert = diesel::insert_into(accounts::table).values(account);
        insert.execute(&mut &*conn).await
    });
    inserted.await?;
    Ok(())
}

/// Adds an account with a first password in the transaction that gives it a user; when the address has one already,
/// nothing about that is changed. Answers the id of the account there is. Which of the two happened cannot be told from here.
///
/// # Errors
/// When the database fails.
pub async fn account_for(tx: &Transaction, account: &Account) -> Result<Uuid> {
    // The update that changes nothing answers the row and locks it, so that it is not removed meanwhile.
    let there = as_directory(tx, async |conn| {
        let insert = statement(
            "INSERT INTO accounts (id, email, password_hash, created_at, password_is_initial) VALUES (?, ?, ?, ?, true)
             ON CONFLICT (email) DO UPDATE SET password_hash = accounts.password_hash RETURNING id",
        )
        .bind::<SqlUuid, _>(account.id)
        .bind::<Text, _>(&account.email)
        .bind::<Text, _>(&account.password_hash)
        .bind::<Timestamptz, _>(account.created_at);
        insert.get_result::<Found>(&mut &*conn).await
    });
    Ok(there.await?.id)
}

/// Looks up the account of a tenant's user.
///
/// # Errors
/// When the database fails.
pub async fn account_of(db: &Database, tenant: Uuid, user: Uuid) -> Result<Option<Account>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        let account = accounts::table
            .inner_join(users::table.on(users::account_id.eq(accounts::id)))
            .filter(users::tenant_id.eq(tenant).and(users::id.eq(user)))
            .select(Account::as_select());
        Ok(account.first(&mut &*conn).await.optional()?)
    });
    found.await
}

/// Whether the account's password is still the one that was read; it then stays so to the end of the transaction.
///
/// # Errors
/// When the database fails.
pub async fn still_has_password(tx: &Transaction, account: &Account) -> Result<bool> {
    let found = as_directory(tx, async |conn| {
        let hash = accounts::table.find(account.id).select(accounts::password_hash);
        hash.for_share().first::<String>(&mut &*conn).await.optional()
    });
    Ok(found.await?.is_some_and(|hash| hash == account.password_hash))
}

/// Changes an account's password, voids the links for a new one, and ends its sessions in every tenant but one. Answers what was revoked, or nothing
/// when the password is no longer the one that was read.
///
/// # Errors
/// When the database fails.
pub async fn change_password(
    tx: &Transaction,
    account: &Account,
    password_hash: &str,
    kept_session: Uuid,
) -> Result<Option<Vec<Revocation>>> {
    let changed = as_directory(tx, async |conn| {
        let update = statement("UPDATE accounts SET password_hash = ?, password_is_initial = false WHERE id = ? AND password_hash = ?")
            .bind::<Text, _>(password_hash)
            .bind::<SqlUuid, _>(account.id)
            .bind::<Text, _>(&account.password_hash);
        if update.execute(&mut &*conn).await? == 0 {
            return Ok(None);
        }
        people::forget_resets(conn, account.id).await?;
        end_sessions(conn, account.id, Some(kept_session)).await.map(Some)
    });
    Ok(changed.await?)
}

/// Ends the sessions of an account in every tenant, but for one that is kept, with the access tokens that they have.
/// Answers what was revoked. As the directory.
async fn end_sessions(
    conn: &AsyncPgConnection,
    account: Uuid,
    kept: Option<Uuid>,
) -> diesel::QueryResult<Vec<Revocation>> {
    // Before the moment of the revocation is taken: a refresh that holds a session is waited for, and its token is in.
    statement(
        "UPDATE sessions s SET ended_at = clock_timestamp() FROM users u
          WHERE u.account_id = ? AND s.tenant_id = u.tenant_id AND s.user_id = u.id
            AND s.ended_at IS NULL AND s.id IS DISTINCT FROM ?",
    )
    .bind::<SqlUuid, _>(account)
    .bind::<Nullable<SqlUuid>, _>(kept)
    .execute(&mut &*conn)
    .await?;
    let revoke = statement(
        "INSERT INTO revocations (tenant_id, id, user_id, kept_session_id, revoked_at)
         SELECT tenant_id, gen_random_uuid(), id, ?, clock_timestamp() FROM users WHERE account_id = ?
         RETURNING tenant_id, user_id, session_id, kept_session_id, revoked_at",
    )
    .bind::<Nullable<SqlUuid>, _>(kept)
    .bind::<SqlUuid, _>(account);
    revoke.load(&mut &*conn).await
}

/// Ends everything by which somebody acts as an account in any tenant, or could: sessions with their access tokens, API keys,
/// and that other providers know them. For when whoever had the account until now may have been somebody else. As the directory.
async fn take_away_access(conn: &AsyncPgConnection, account: Uuid) -> diesel::QueryResult<Taken> {
    let api_keys = statement(
        "DELETE FROM api_keys k USING users u
          WHERE u.account_id = ? AND k.tenant_id = u.tenant_id AND k.user_id = u.id
         RETURNING k.tenant_id, k.id",
    )
    .bind::<SqlUuid, _>(account)
    .load(&mut &*conn)
    .await?;
    for known in [
        "DELETE FROM provider_proofs WHERE account_id = ?",
        "DELETE FROM linked_identities WHERE account_id = ?",
    ] {
        let forget = statement(known).bind::<SqlUuid, _>(account);
        forget.execute(&mut &*conn).await?;
    }
    Ok(Taken {
        api_keys,
        // Access tokens and sockets of the keys end by this, too.
        revoked: end_sessions(conn, account, None).await?,
    })
}

/// Removes an account that has no user in any tenant any more.
///
/// # Errors
/// When the database fails.
pub async fn remove_account_without_users(tx: &Transaction, id: Uuid) -> Result<()> {
    let removed = as_directory(tx, async |conn| {
        // Locked first: who adds a user to the account at this moment is waited for, and then seen.
        let locked = accounts::table.find(id).select(accounts::id).for_update();
        locked.first::<Uuid>(&mut &*conn).await.optional()?;
        let remove = statement(
            "DELETE FROM accounts WHERE id = ? AND NOT EXISTS (SELECT FROM users WHERE account_id = ?)",
        )
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(id);
        remove.execute(&mut &*conn).await
    });
    removed.await?;
    Ok(())
}

/// Runs `work` as the directory's role within a tenant's transaction; no statement of somebody else may be on its way
/// meanwhile. A statement that fails voids the transaction, so the role need not be given back then.
async fn as_directory<T>(
    tx: &Transaction,
    work: impl AsyncFnOnce(&AsyncPgConnection) -> diesel::QueryResult<T>,
) -> diesel::QueryResult<T> {
    let mut conn = tx.conn();
    conn.batch_execute(&format!("SET LOCAL ROLE {DIRECTORY_ROLE}"))
        .await?;
    let done = work(conn).await?;
    conn.batch_execute(&format!("SET LOCAL ROLE {}", tx.sight().role()))
        .await?;
    Ok(done)
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
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

/// How much a tenant's history keeps.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct Kept {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    #[diesel(sql_type = BigInt)]
    pub events: i64,
}

/// The histories of all tenants, in the order of the tenants' ids.
///
/// # Errors
/// When the database fails.
pub async fn histories(db: &Database) -> Result<Vec<Kept>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        let all = "SELECT tenant_id, position - trimmed AS events FROM histories ORDER BY tenant_id";
        Ok(statement(all).load(&mut &*conn).await?)
    });
    found.await
}

/// The tenant of an API key, and its id there, by the key's hash.
///
/// # Errors
/// When the database fails.
pub async fn find_api_key(db: &Database, hash: &[u8]) -> Result<Option<(Uuid, Uuid)>> {
    read(db, async |conn| {
        let key = api_keys::table
            .filter(api_keys::hash.eq(hash))
            .select((api_keys::tenant_id, api_keys::id));
        Ok(key.first(&mut &*conn).await.optional()?)
    })
    .await
}

/// The head of a tenant's audit trail.
#[derive(Debug, Clone, QueryableByName)]
pub struct AuditHead {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    /// How many entries there are.
    #[diesel(sql_type = BigInt)]
    pub sequence: i64,
    /// The hash of the last.
    #[diesel(sql_type = Bytea)]
    pub hash: Vec<u8>,
}

/// The heads of all tenants' audit trails that have begun, in the order of the tenants' ids.
///
/// # Errors
/// When the database fails.
pub async fn audit_heads(db: &Database) -> Result<Vec<AuditHead>> {
    let mut conn = db.connection().await?;
    let found = conn_transaction(&mut conn, async |conn| {
        let all = "SELECT tenant_id, audit_sequence AS sequence, audit_hash AS hash FROM histories
                    WHERE audit_sequence > 0 ORDER BY tenant_id";
        Ok(statement(all).load(&mut &*conn).await?)
    });
    found.await
}

/// Runs `work` in a read-only transaction of the directory's role.
pub(super) async fn conn_transaction<T>(
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

/// Runs `work` in a transaction of the directory's role that may write; it is undone when `work` fails.
pub(super) async fn writing_transaction<T>(
    connection: &mut Connection,
    work: impl AsyncFnOnce(&AsyncPgConnection) -> Result<T>,
) -> Result<T> {
    use diesel_async::{AnsiTransactionManager, TransactionManager};
    let begin = format!("BEGIN; SET LOCAL ROLE {DIRECTORY_ROLE}");
    AnsiTransactionManager::begin_transaction_sql(&mut **connection, &begin).await?;
    let done = work(connection).await;
    match done {
        Ok(_) => AnsiTransactionManager::commit_transaction(&mut **connection).await?,
        Err(_) => AnsiTransactionManager::rollback_transaction(&mut **connection).await?,
    }
    done
}

/// As [`conn_transaction`], on a connection of its own.
async fn read<T>(db: &Database, work: impl AsyncFnOnce(&AsyncPgConnection) -> Result<T>) -> Result<T> {
    let mut connection = db.connection().await?;
    conn_transaction(&mut connection, work).await
}

/// As [`writing_transaction`], on a connection of its own.
async fn write<T>(db: &Database, work: impl AsyncFnOnce(&AsyncPgConnection) -> Result<T>) -> Result<T> {
    let mut connection = db.connection().await?;
    writing_transaction(&mut connection, work).await
}
