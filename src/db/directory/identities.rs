//! By which other providers people are known, and who is on the way to one or back. It belongs to accounts, and so to no
//! tenant.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Binary, Bool, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{Account, Membership, admitted, as_directory, read, write};
use crate::db::Database;
use crate::db::schema::{accounts, users};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::Result;

/// Somebody who has been sent to a provider and is expected back.
#[derive(Debug, Clone, QueryableByName)]
pub struct Visit {
    #[diesel(sql_type = Binary)]
    pub browser_hash: Vec<u8>,
    #[diesel(sql_type = Text)]
    pub provider: String,
    #[diesel(sql_type = Binary)]
    pub sealed: Vec<u8>,
    #[diesel(sql_type = Binary)]
    pub challenge: Vec<u8>,
    #[diesel(sql_type = Text)]
    pub return_to: String,
}

/// By whom else the person of an account is known, or is to be.
#[derive(Debug, Clone, QueryableByName)]
pub struct Identity {
    #[diesel(sql_type = Text)]
    pub provider: String,
    /// Whose name for them it is: an issuer, or of the trusted one also for which audience.
    #[diesel(sql_type = Text)]
    pub issuer: String,
    /// Their lasting name there.
    #[diesel(sql_type = Text)]
    pub subject: String,
    /// The address of the account.
    #[diesel(sql_type = Text)]
    pub email: String,
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
}

/// Somebody whom a provider knows, and whom we have recognised by that.
#[derive(Debug, Clone, QueryableByName)]
pub struct Proof {
    #[diesel(sql_type = Binary)]
    pub challenge: Vec<u8>,
    #[diesel(embed)]
    pub identity: Identity,
    #[diesel(sql_type = Binary)]
    pub password_state: Vec<u8>,
}

/// Whose an identity is.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct Known {
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    pub last_used_at: DateTime<Utc>,
}

/// By whom else a person is known.
#[derive(Debug, Clone, QueryableByName)]
pub struct LinkedIdentity {
    #[diesel(sql_type = Text)]
    pub provider: String,
    #[diesel(sql_type = Text)]
    pub email: String,
    #[diesel(sql_type = Timestamptz)]
    pub linked_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub last_used_at: DateTime<Utc>,
}

/// Writes down who is sent to a provider. Who did not come back in time is forgotten on the occasion.
///
/// # Errors
/// When the database fails.
pub async fn expect(
    db: &Database,
    state_hash: &[u8; 32],
    visit: &Visit,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    let written = write(db, async |conn| {
        let late = statement("DELETE FROM provider_visits WHERE expires_at < now()");
        late.execute(&mut &*conn).await?;
        let insert = statement(
            "INSERT INTO provider_visits (state_hash, browser_hash, provider, sealed, challenge, return_to, expires_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind::<Binary, _>(&state_hash[..])
        .bind::<Binary, _>(&visit.browser_hash[..])
        .bind::<Text, _>(&visit.provider)
        .bind::<Binary, _>(&visit.sealed[..])
        .bind::<Binary, _>(&visit.challenge[..])
        .bind::<Text, _>(&visit.return_to)
        .bind::<Timestamptz, _>(expires_at);
        Ok(insert.execute(&mut &*conn).await?)
    });
    written.await?;
    Ok(())
}

/// Takes who has come back, whatever becomes of it: a state is good once.
///
/// # Errors
/// When the database fails.
pub async fn take_visit(db: &Database, state_hash: &[u8; 32]) -> Result<Option<Visit>> {
    let taken = write(db, async |conn| {
        let take = statement(
            "DELETE FROM provider_visits WHERE state_hash = ? AND expires_at > now()
             RETURNING browser_hash, provider, sealed, challenge, return_to",
        )
        .bind::<Binary, _>(&state_hash[..]);
        Ok(take.get_result(&mut &*conn).await.optional()?)
    });
    taken.await
}

/// The account of a linked identity.
///
/// # Errors
/// When the database fails.
pub async fn linked_to(db: &Database, issuer: &str, subject: &str) -> Result<Option<Known>> {
    let found = read(db, async |conn| {
        let linked = statement(
            "SELECT account_id, last_used_at FROM linked_identities WHERE issuer = ? AND subject = ?",
        )
        .bind::<Text, _>(issuer)
        .bind::<Text, _>(subject);
        Ok(linked.get_result(&mut &*conn).await.optional()?)
    });
    found.await
}

/// An account that somebody might have whom an issuer tells of.
#[derive(Debug, QueryableByName)]
pub struct Candidate {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Whether its person has proved to us, too, that the address is theirs.
    #[diesel(sql_type = Bool)]
    pub is_verified: bool,
    /// Whether it has an identity of this issuer already.
    #[diesel(sql_type = Bool)]
    pub is_linked: bool,
}

/// The account with an address, in lower case, as it stands with an issuer.
///
/// # Errors
/// When the database fails.
pub async fn candidate(db: &Database, email: &str, issuer: &str) -> Result<Option<Candidate>> {
    let found = read(db, async |conn| {
        let account = statement(
            "SELECT id, email_verified_at IS NOT NULL AS is_verified, EXISTS (
                    SELECT FROM linked_identities l WHERE l.account_id = accounts.id AND l.issuer = ?) AS is_linked
               FROM accounts WHERE email = ?",
        )
        .bind::<Text, _>(issuer)
        .bind::<Text, _>(email);
        Ok(account.get_result(&mut &*conn).await.optional()?)
    });
    found.await
}

/// An account with the tenants that it may enter, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn account(db: &Database, id: Uuid) -> Result<Option<(Account, Vec<Membership>)>> {
    let found = read(db, async |conn| {
        let rows: Vec<(Account, Option<Membership>)> = accounts::table
            .left_join(users::table.on(admitted()))
            .filter(accounts::id.eq(id))
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

/// Writes down who was recognised.
///
/// # Errors
/// When the database fails.
pub async fn insert_proof(
    db: &Database,
    code_hash: &[u8; 32],
    proof: &Proof,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    let written = write(db, async |conn| {
        let late = statement("DELETE FROM provider_proofs WHERE expires_at < now()");
        late.execute(&mut &*conn).await?;
        let insert = statement(
            "INSERT INTO provider_proofs (code_hash, challenge, provider, issuer, subject, email, account_id,
                                          password_state, expires_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind::<Binary, _>(&code_hash[..])
        .bind::<Binary, _>(&proof.challenge[..])
        .bind::<Text, _>(&proof.identity.provider)
        .bind::<Text, _>(&proof.identity.issuer)
        .bind::<Text, _>(&proof.identity.subject)
        .bind::<Text, _>(&proof.identity.email)
        .bind::<SqlUuid, _>(proof.identity.account_id)
        .bind::<Binary, _>(&proof.password_state[..])
        .bind::<Timestamptz, _>(expires_at);
        Ok(insert.execute(&mut &*conn).await?)
    });
    written.await?;
    Ok(())
}

/// Takes a proof, whatever becomes of it: a code is good once.
///
/// # Errors
/// When the database fails.
pub async fn take_proof(db: &Database, code_hash: &[u8; 32]) -> Result<Option<Proof>> {
    let taken = write(db, async |conn| {
        let take = statement(
            "DELETE FROM provider_proofs WHERE code_hash = ? AND expires_at > now()
             RETURNING challenge, provider, issuer, subject, email, account_id, password_state",
        )
        .bind::<Binary, _>(&code_hash[..]);
        Ok(take.get_result(&mut &*conn).await.optional()?)
    });
    taken.await
}

/// What became of linking an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// It is new.
    Now,
    /// It was linked to this account before.
    Before,
    /// It is another account's, the account has another one of this issuer, or is not as it was.
    Refused,
}

#[derive(QueryableByName)]
struct Fits {
    #[diesel(sql_type = Bool)]
    fits: bool,
}

/// Whether an identity is linked to its account, or could be.
///
/// # Errors
/// When the database fails.
pub async fn fits(db: &Database, proof: &Proof) -> Result<bool> {
    let fits = read(db, async |conn| {
        let look = statement(
            "SELECT EXISTS (SELECT FROM linked_identities l WHERE l.issuer = p.issuer AND l.subject = p.subject
                               AND l.account_id = p.account_id)
                 OR NOT EXISTS (SELECT FROM linked_identities l WHERE l.issuer = p.issuer
                               AND (l.subject = p.subject OR l.account_id = p.account_id))
                AND EXISTS (SELECT FROM accounts a WHERE a.id = p.account_id AND a.email = p.email
                               AND a.email_verified_at IS NOT NULL) AS fits
               FROM (SELECT ?, ?, ?, ?) AS p (issuer, subject, account_id, email)",
        )
        .bind::<Text, _>(&proof.identity.issuer)
        .bind::<Text, _>(&proof.identity.subject)
        .bind::<SqlUuid, _>(proof.identity.account_id)
        .bind::<Text, _>(&proof.identity.email);
        Ok(look.get_result::<Fits>(&mut &*conn).await?.fits)
    });
    fits.await
}

/// What must be so for an account to be linked to an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sureness {
    /// Its person must have proved to us that the address is theirs.
    BothSides,
    /// It is enough that it has the address: whoever tells of it is trusted with that.
    TheirSide,
}

/// Links an identity to its account, or writes down that it was used again. The address of an account that is linked anew
/// must be that of the identity still, as sure as it has to be, and the account have the password that it was read with.
///
/// # Errors
/// When the database fails.
pub async fn link(
    db: &Database,
    identity: &Identity,
    account: &Account,
    sureness: Sureness,
    now: DateTime<Utc>,
) -> Result<Linked> {
    let linked = write(db, async |conn| {
        if used(conn, identity, now).await? {
            return Ok(Linked::Before);
        }
        let insert = statement(
            "INSERT INTO linked_identities (issuer, subject, account_id, provider, email, linked_at, last_used_at)
             SELECT ?, ?, id, ?, ?, ?, ? FROM accounts
              WHERE id = ? AND password_hash = ? AND email = ? AND (email_verified_at IS NOT NULL OR ?)
             ON CONFLICT DO NOTHING",
        )
        .bind::<Text, _>(&identity.issuer)
        .bind::<Text, _>(&identity.subject)
        .bind::<Text, _>(&identity.provider)
        .bind::<Text, _>(&identity.email)
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(now)
        .bind::<SqlUuid, _>(identity.account_id)
        .bind::<Text, _>(&account.password_hash)
        .bind::<Text, _>(&identity.email)
        .bind::<Bool, _>(sureness == Sureness::TheirSide);
        if insert.execute(&mut &*conn).await? == 1 {
            return Ok(Linked::Now);
        }
        // Somebody else may have done the same a moment ago.
        Ok(match used(conn, identity, now).await? {
            true => Linked::Before,
            false => Linked::Refused,
        })
    });
    linked.await
}

/// Writes down that an identity was used again. Answers whether it is linked to its account still; it is not linked anew.
///
/// # Errors
/// When the database fails.
pub async fn use_again(db: &Database, identity: &Identity, now: DateTime<Utc>) -> Result<bool> {
    write(db, async |conn| Ok(used(conn, identity, now).await?)).await
}

async fn used(
    conn: &AsyncPgConnection,
    identity: &Identity,
    now: DateTime<Utc>,
) -> diesel::QueryResult<bool> {
    let used = statement(
        "UPDATE linked_identities SET last_used_at = ? WHERE issuer = ? AND subject = ? AND account_id = ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(&identity.issuer)
    .bind::<Text, _>(&identity.subject)
    .bind::<SqlUuid, _>(identity.account_id);
    Ok(used.execute(&mut &*conn).await? == 1)
}

/// By whom else the account of a tenant's user is known, in the order in which they were linked.
///
/// # Errors
/// When the database fails.
pub async fn of_user(db: &Database, tenant: Uuid, user: Uuid) -> Result<Vec<LinkedIdentity>> {
    let found = read(db, async |conn| {
        let linked = statement(
            "SELECT l.provider, l.email, l.linked_at, l.last_used_at
               FROM linked_identities l JOIN users u ON u.account_id = l.account_id
              WHERE u.tenant_id = ? AND u.id = ? ORDER BY l.linked_at, l.issuer, l.subject LIMIT 100",
        )
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(user);
        Ok(linked.load(&mut &*conn).await?)
    });
    found.await
}

/// Whether a provider knows an account's person.
///
/// # Errors
/// When the database fails.
pub async fn is_known_to(db: &Database, account: Uuid, provider: &str) -> Result<bool> {
    let known = read(db, async |conn| {
        let look = statement(
            "SELECT EXISTS (SELECT FROM linked_identities WHERE account_id = ? AND provider = ?) AS fits",
        )
        .bind::<SqlUuid, _>(account)
        .bind::<Text, _>(provider);
        Ok(look.get_result::<Fits>(&mut &*conn).await?.fits)
    });
    known.await
}

/// Forgets that a provider knows an account's person, with whoever is on the way back from it or has still to show a second
/// factor. Answers how many identities were linked.
///
/// # Errors
/// When the database fails.
pub async fn unlink(tx: &Transaction, account: Uuid, provider: &str) -> Result<usize> {
    let unlinked = as_directory(tx, async |conn| {
        let pending = statement(
            "DELETE FROM pending_sign_ins p USING users u
              WHERE u.account_id = ? AND p.tenant_id = u.tenant_id AND p.user_id = u.id",
        )
        .bind::<SqlUuid, _>(account);
        pending.execute(&mut &*conn).await?;
        let proofs = statement("DELETE FROM provider_proofs WHERE account_id = ? AND provider = ?")
            .bind::<SqlUuid, _>(account)
            .bind::<Text, _>(provider);
        proofs.execute(&mut &*conn).await?;
        let unlink = statement("DELETE FROM linked_identities WHERE account_id = ? AND provider = ?")
            .bind::<SqlUuid, _>(account)
            .bind::<Text, _>(provider);
        unlink.execute(&mut &*conn).await
    });
    Ok(unlinked.await?)
}
