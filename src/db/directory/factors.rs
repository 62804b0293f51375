//! Second factors, which belong to accounts and so to no tenant.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{Account, Membership, Revocation, as_directory, write};
use crate::db::Database;
use crate::db::schema::{accounts, users};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::Result;

/// A second factor, locked to the end of the transaction.
#[derive(Debug, QueryableByName)]
pub struct Factor {
    /// As it is sealed.
    #[diesel(sql_type = Binary)]
    pub secret: Vec<u8>,
    #[diesel(sql_type = Bool)]
    pub is_confirmed: bool,
    /// Seconds to wait before the next code is looked at, after too many wrong ones.
    #[diesel(sql_type = Integer)]
    pub wait: i32,
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct Told {
    #[diesel(sql_type = Bool)]
    is_so: bool,
}

/// The account of a user of the transaction's tenant.
///
/// # Errors
/// When the database fails.
pub async fn account_within(tx: &Transaction, user: Uuid) -> Result<Option<Account>> {
    let tenant = tx.tenant();
    let found = as_directory(tx, async |conn| {
        let account = accounts::table
            .inner_join(users::table.on(users::account_id.eq(accounts::id)))
            .filter(users::tenant_id.eq(tenant).and(users::id.eq(user)))
            .select(Account::as_select());
        account.first(&mut &*conn).await.optional()
    });
    Ok(found.await?)
}

/// Keeps a new secret that is still to be confirmed, in place of one that never was. Answers whether it did: a confirmed
/// one stays.
///
/// # Errors
/// When the database fails.
pub async fn begin(tx: &Transaction, account: Uuid, secret: &[u8], now: DateTime<Utc>) -> Result<bool> {
    let kept = as_directory(tx, async |conn| {
        let insert = statement(
            "INSERT INTO second_factors (account_id, secret, created_at) VALUES (?, ?, ?)
             ON CONFLICT (account_id) DO UPDATE SET secret = excluded.secret, created_at = excluded.created_at
              WHERE second_factors.confirmed_at IS NULL",
        )
        .bind::<SqlUuid, _>(account)
        .bind::<Binary, _>(secret)
        .bind::<Timestamptz, _>(now);
        insert.execute(&mut &*conn).await
    });
    Ok(kept.await? == 1)
}

/// Reads a second factor and locks it: of codes that come at the same time, one is looked at after the other.
///
/// After five wrong codes each further one is made to wait, a minute at first and twice as long each time, a day at most:
/// who goes on guessing has some fifteen tries on the first day, and one a day from then on.
///
/// # Errors
/// When the database fails.
pub async fn lock(tx: &Transaction, account: Uuid) -> Result<Option<Factor>> {
    let found = as_directory(tx, async |conn| {
        let factor = statement(
            "SELECT secret, confirmed_at IS NOT NULL AS is_confirmed,
                    CASE WHEN failures < 5 THEN 0 ELSE greatest(0, ceil(extract(epoch FROM
                        failed_at + least(interval '1 day', interval '1 minute' * 2 ^ least(failures - 5, 20))
                        - clock_timestamp())))::integer END AS wait
               FROM second_factors WHERE account_id = ? FOR UPDATE",
        )
        .bind::<SqlUuid, _>(account);
        factor.get_result(&mut &*conn).await.optional()
    });
    Ok(found.await?)
}

/// Confirms a second factor with the code of a step, and keeps its first recovery codes.
///
/// # Errors
/// When the database fails.
pub async fn confirm(
    tx: &Transaction,
    account: Uuid,
    step: i64,
    codes: &[[u8; 32]],
    now: DateTime<Utc>,
) -> Result<()> {
    let confirmed = as_directory(tx, async |conn| {
        let confirm = statement(
            "UPDATE second_factors SET confirmed_at = ?, last_step = ?, failures = 0 WHERE account_id = ?",
        )
        .bind::<Timestamptz, _>(now)
        .bind::<BigInt, _>(step)
        .bind::<SqlUuid, _>(account);
        confirm.execute(&mut &*conn).await
    });
    confirmed.await?;
    replace_codes(tx, account, codes).await
}

/// Takes the code of a step, unless one of this step or a later one has been taken before.
///
/// # Errors
/// When the database fails.
pub async fn take_step(tx: &Transaction, account: Uuid, step: i64) -> Result<bool> {
    let taken = as_directory(tx, async |conn| {
        let take = statement(
            "UPDATE second_factors SET last_step = ?, failures = 0 WHERE account_id = ? AND last_step < ?",
        )
        .bind::<BigInt, _>(step)
        .bind::<SqlUuid, _>(account)
        .bind::<BigInt, _>(step);
        take.execute(&mut &*conn).await
    });
    Ok(taken.await? == 1)
}

/// Takes a recovery code; answers how many are left, or nothing when it is none, or none any more.
///
/// # Errors
/// When the database fails.
pub async fn take_recovery_code(tx: &Transaction, account: Uuid, hash: &[u8; 32]) -> Result<Option<i64>> {
    let left = as_directory(tx, async |conn| {
        let take = statement("DELETE FROM recovery_codes WHERE account_id = ? AND hash = ?")
            .bind::<SqlUuid, _>(account)
            .bind::<Binary, _>(&hash[..]);
        if take.execute(&mut &*conn).await? == 0 {
            return Ok(None);
        }
        let left = statement("SELECT count(*) AS count FROM recovery_codes WHERE account_id = ?")
            .bind::<SqlUuid, _>(account);
        let left: Counted = left.get_result(&mut &*conn).await?;
        Ok(Some(left.count))
    });
    Ok(left.await?)
}

/// Counts a wrong code.
///
/// # Errors
/// When the database fails.
pub async fn count_failure(tx: &Transaction, account: Uuid) -> Result<()> {
    let counted = as_directory(tx, async |conn| {
        let count = statement(
            "UPDATE second_factors SET failures = failures + 1, failed_at = clock_timestamp() WHERE account_id = ?",
        )
        .bind::<SqlUuid, _>(account);
        count.execute(&mut &*conn).await
    });
    counted.await?;
    Ok(())
}

/// Puts new recovery codes in the place of all older ones.
///
/// # Errors
/// When the database fails.
pub async fn replace_codes(tx: &Transaction, account: Uuid, hashes: &[[u8; 32]]) -> Result<()> {
    let replaced = as_directory(tx, async |conn| {
        let remove = statement("DELETE FROM recovery_codes WHERE account_id = ?").bind::<SqlUuid, _>(account);
        remove.execute(&mut &*conn).await?;
        let insert = statement("INSERT INTO recovery_codes (account_id, hash) SELECT ?, unnest(?)")
            .bind::<SqlUuid, _>(account)
            .bind::<Array<Binary>, _>(hashes.iter().map(|hash| &hash[..]).collect::<Vec<_>>());
        insert.execute(&mut &*conn).await
    });
    replaced.await?;
    Ok(())
}

/// Whether a tenant wants a second factor to which the account belongs by its own will, or the transaction's, where it is
/// active. Who was added by somebody else's will alone is asked for one there, and is free of it everywhere else.
///
/// # Errors
/// When the database fails.
pub async fn is_required_somewhere(tx: &Transaction, account: Uuid) -> Result<bool> {
    let tenant = tx.tenant();
    let required = as_directory(tx, async |conn| {
        let ask = statement(
            "SELECT EXISTS (SELECT FROM users JOIN tenants ON tenants.id = users.tenant_id
                             WHERE users.account_id = ? AND users.is_active AND tenants.mfa_required
                               AND (NOT users.awaits_verification OR users.tenant_id = ?)) AS is_so",
        )
        .bind::<SqlUuid, _>(account)
        .bind::<SqlUuid, _>(tenant);
        ask.get_result::<Told>(&mut &*conn).await
    });
    Ok(required.await?.is_so)
}

/// Whether the account belongs by its own will to another tenant than the transaction's, active or not. It then stays so,
/// either way, to the end of the transaction.
///
/// # Errors
/// When the database fails.
pub async fn is_elsewhere(tx: &Transaction, account: Uuid) -> Result<bool> {
    let tenant = tx.tenant();
    let found = as_directory(tx, async |conn| {
        // Whoever adds a user to the account locks it too.
        let locked = accounts::table.find(account).select(accounts::id).for_update();
        locked.first::<Uuid>(&mut &*conn).await.optional()?;
        let elsewhere = users::table.filter(
            users::account_id
                .eq(account)
                .and(users::tenant_id.ne(tenant))
                .and(users::awaits_verification.eq(false)),
        );
        diesel::select(diesel::dsl::exists(elsewhere))
            .get_result(&mut &*conn)
            .await
    });
    Ok(found.await?)
}

/// Locks an account before its second factor becomes one that is needed: whoever begins a session of it at this moment,
/// in whichever tenant, is waited for, and whoever comes later sees the second factor.
///
/// # Errors
/// When the database fails.
pub async fn lock_account(tx: &Transaction, account: Uuid) -> Result<()> {
    let locked = as_directory(tx, async |conn| {
        let account = accounts::table.find(account).select(accounts::id);
        account.for_no_key_update().execute(&mut &*conn).await
    });
    locked.await?;
    Ok(())
}

/// Whether the address of the account has been proved.
///
/// # Errors
/// When the database fails.
pub async fn is_proved(tx: &Transaction, account: Uuid) -> Result<bool> {
    told(
        tx,
        "SELECT EXISTS (SELECT FROM accounts WHERE id = ? AND email_verified_at IS NOT NULL) AS is_so",
        account,
    )
    .await
}

/// Whether the account has a second factor that it has confirmed.
///
/// # Errors
/// When the database fails.
pub async fn has_factor(tx: &Transaction, account: Uuid) -> Result<bool> {
    told(
        tx,
        "SELECT EXISTS (SELECT FROM second_factors WHERE account_id = ? AND confirmed_at IS NOT NULL) AS is_so",
        account,
    )
    .await
}

async fn told(tx: &Transaction, question: &'static str, account: Uuid) -> Result<bool> {
    let answered = as_directory(tx, async |conn| {
        let ask = statement(question).bind::<SqlUuid, _>(account);
        ask.get_result::<Told>(&mut &*conn).await
    });
    Ok(answered.await?.is_so)
}

/// Takes an account's second factor and its recovery codes away. Answers whether there was a confirmed one.
///
/// # Errors
/// When the database fails.
pub async fn remove(tx: &Transaction, account: Uuid) -> Result<bool> {
    let removed = as_directory(tx, async |conn| take_away(conn, account).await);
    Ok(removed.await?)
}

async fn take_away(conn: &AsyncPgConnection, account: Uuid) -> diesel::QueryResult<bool> {
    let remove = statement("DELETE FROM second_factors WHERE account_id = ? AND confirmed_at IS NOT NULL")
        .bind::<SqlUuid, _>(account);
    let removed = remove.execute(&mut &*conn).await?;
    let unmark =
        statement("UPDATE users SET has_second_factor = false WHERE account_id = ? AND has_second_factor")
            .bind::<SqlUuid, _>(account);
    unmark.execute(&mut &*conn).await?;
    Ok(removed == 1)
}

/// What came of taking a second factor away.
#[derive(Debug)]
pub struct Reset {
    /// Whether it was taken away now, and not before.
    pub is_new: bool,
    /// The users of the account whose tenants are still to be told.
    pub untold: Vec<Membership>,
}

/// Takes the second factor away of who signs in with an address, in lower case, ends their sessions in every tenant, and
/// writes down that these are to be told. When some are still to be told of the last time, nothing is taken away, unless
/// it is to be taken away `again`: what was set up since then goes too, and who has not been told is told once of both.
/// Answers nothing when there is no such account, or nobody to be told and no second factor.
///
/// # Errors
/// When the database fails.
pub async fn reset(db: &Database, email: &str, again: bool) -> Result<Option<Reset>> {
    let reset = write(db, async |conn| {
        let account = accounts::table
            .filter(accounts::email.eq(email))
            .select(accounts::id)
            .for_update();
        let Some(account) = account.first::<Uuid>(&mut &*conn).await.optional()? else {
            return Ok(None);
        };
        let untold = users_untold(conn, account).await?;
        let is_new = (again || untold.is_empty()) && take_away(conn, account).await?;
        if !is_new {
            return Ok((!untold.is_empty()).then_some(Reset { is_new, untold }));
        }
        super::end_sessions(conn, account, None).await?;
        let mark =
            statement("UPDATE users SET second_factor_reset_at = clock_timestamp() WHERE account_id = ?")
                .bind::<SqlUuid, _>(account);
        mark.execute(&mut &*conn).await?;
        Ok(Some(Reset {
            is_new,
            untold: users_untold(conn, account).await?,
        }))
    });
    reset.await
}

async fn users_untold(conn: &AsyncPgConnection, account: Uuid) -> diesel::QueryResult<Vec<Membership>> {
    let users = users::table
        .filter(
            users::account_id
                .eq(account)
                .and(users::second_factor_reset_at.is_not_null()),
        )
        .order(users::tenant_id)
        .select((users::tenant_id, users::id));
    users.load(&mut &*conn).await
}

/// Ends an account's sessions in every tenant, but for one.
///
/// # Errors
/// When the database fails.
pub async fn end_sessions(tx: &Transaction, account: Uuid, kept: Option<Uuid>) -> Result<Vec<Revocation>> {
    let ended = as_directory(tx, async |conn| super::end_sessions(conn, account, kept).await);
    Ok(ended.await?)
}

const END_WITHOUT: &str = "
    UPDATE sessions s SET ended_at = clock_timestamp() FROM users u
     WHERE u.tenant_id = ? AND s.tenant_id = u.tenant_id AND s.user_id = u.id AND s.ended_at IS NULL AND NOT EXISTS (
           SELECT FROM second_factors f WHERE f.account_id = u.account_id AND f.confirmed_at IS NOT NULL)";

const REVOKE_WITHOUT: &str = "
    INSERT INTO revocations (tenant_id, id, user_id, revoked_at)
    SELECT tenant_id, gen_random_uuid(), id, clock_timestamp() FROM users
     WHERE tenant_id = ? AND NOT EXISTS (
           SELECT FROM second_factors f WHERE f.account_id = users.account_id AND f.confirmed_at IS NOT NULL)
    RETURNING tenant_id, user_id, session_id, kept_session_id, revoked_at";

/// Ends the sessions in the transaction's tenant of all who have no second factor.
///
/// # Errors
/// When the database fails.
pub async fn end_sessions_without_factor(tx: &Transaction) -> Result<Vec<Revocation>> {
    let tenant = tx.tenant();
    let ended = as_directory(tx, async |conn| {
        let end = statement(END_WITHOUT).bind::<SqlUuid, _>(tenant);
        end.execute(&mut &*conn).await?;
        let revoke = statement(REVOKE_WITHOUT).bind::<SqlUuid, _>(tenant);
        revoke.load(&mut &*conn).await
    });
    Ok(ended.await?)
}
