//! What a person is across tenants: the proof that an address is theirs, the tenants that they belong to, the rules for
//! their password.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::mailing::Purpose;
use super::{Account, Taken, as_directory, read, take_away_access, write};
use crate::db::Database;
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::Result;

/// An invitation as who has its link may see it, and what must be known to accept it.
#[derive(QueryableByName)]
pub struct Invited {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    #[diesel(sql_type = Text)]
    pub tenant_name: String,
    #[diesel(sql_type = SqlUuid)]
    pub invitation_id: Uuid,
    #[diesel(sql_type = Text)]
    pub email: String,
    /// As who invited them writes it.
    #[diesel(sql_type = Nullable<Text>)]
    pub name: Option<String>,
    /// The user of the tenant who invited them, unless they have left.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub inviter_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    pub inviter_name: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    pub expires_at: DateTime<Utc>,
    /// The account with this address, if any.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub account_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    pub password_hash: Option<String>,
    /// Whether that account has proved that the address is theirs.
    #[diesel(sql_type = Bool)]
    pub is_verified: bool,
}

async fn read_invited(
    conn: &AsyncPgConnection,
    tenant: Uuid,
    invitation: Uuid,
) -> diesel::QueryResult<Option<Invited>> {
    statement(
        "SELECT i.tenant_id, t.name AS tenant_name, i.id AS invitation_id, i.email, i.name, u.id AS inviter_id,
                u.name AS inviter_name, i.expires_at, a.id AS account_id, a.password_hash, a.email_verified_at IS NOT NULL AS is_verified
           FROM invitations i
           JOIN tenants t ON t.id = i.tenant_id
           LEFT JOIN users u ON u.tenant_id = i.tenant_id AND u.id = i.invited_by_id
           LEFT JOIN accounts a ON a.email = i.email
          WHERE i.tenant_id = ? AND i.id = ? AND i.expires_at > now()",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(invitation)
    .get_result(&mut &*conn)
    .await
    .optional()
}

/// An invitation that can still be accepted.
///
/// # Errors
/// When the database fails.
pub async fn invited(db: &Database, tenant: Uuid, invitation: Uuid) -> Result<Option<Invited>> {
    let found = read(db, async |conn| Ok(read_invited(conn, tenant, invitation).await?));
    found.await
}

/// What a link is about.
#[derive(QueryableByName)]
pub struct Link {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub account_id: Option<Uuid>,
    /// The address that it was mailed to.
    #[diesel(sql_type = Text)]
    pub email: String,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub invited_to: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub invitation_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Binary>)]
    pub sealed: Option<Vec<u8>>,
}

async fn read_link(
    conn: &AsyncPgConnection,
    purpose: Purpose,
    token_hash: &[u8; 32],
) -> diesel::QueryResult<Option<Link>> {
    statement(
        "SELECT account_id, email, invited_to, invitation_id, sealed FROM links
          WHERE token_hash = ? AND purpose = ? AND expires_at > now()",
    )
    .bind::<Binary, _>(&token_hash[..])
    .bind::<Text, _>(purpose)
    .get_result(&mut &*conn)
    .await
    .optional()
}

async fn take_link(
    conn: &AsyncPgConnection,
    purpose: Purpose,
    token_hash: &[u8; 32],
) -> diesel::QueryResult<Option<Link>> {
    statement(
        "DELETE FROM links WHERE token_hash = ? AND purpose = ? AND expires_at > now()
         RETURNING account_id, email, invited_to, invitation_id, sealed",
    )
    .bind::<Binary, _>(&token_hash[..])
    .bind::<Text, _>(purpose)
    .get_result(&mut &*conn)
    .await
    .optional()
}

/// Looks a link up without using it.
///
/// # Errors
/// When the database fails.
pub async fn link(db: &Database, purpose: Purpose, token_hash: &[u8; 32]) -> Result<Option<Link>> {
    let found = read(db, async |conn| Ok(read_link(conn, purpose, token_hash).await?));
    found.await
}

/// The invitation that a link leads to, when it can still be accepted.
///
/// # Errors
/// When the database fails.
pub async fn invited_by(db: &Database, token_hash: &[u8; 32]) -> Result<Option<Invited>> {
    let found = read(db, async |conn| {
        let link = read_link(conn, Purpose::Invitation, token_hash).await?;
        match link.and_then(|link| link.invited_to.zip(link.invitation_id)) {
            Some((tenant, invitation)) => Ok(read_invited(conn, tenant, invitation).await?),
            None => Ok(None),
        }
    });
    found.await
}

/// Uses a link, in the transaction that does what it is good for. Whoever comes second finds nothing.
///
/// # Errors
/// When the database fails.
pub async fn use_link(tx: &Transaction, purpose: Purpose, token_hash: &[u8; 32]) -> Result<Option<Link>> {
    let taken = as_directory(tx, async |conn| take_link(conn, purpose, token_hash).await);
    Ok(taken.await?)
}

/// Adds an account whose address was proved by a link. Answers whether the address was free.
///
/// # Errors
/// When the database fails.
pub async fn insert_verified_account(tx: &Transaction, account: &Account) -> Result<bool> {
    let inserted = as_directory(tx, async |conn| {
        let insert = statement(
            "INSERT INTO accounts (id, email, password_hash, created_at, email_verified_at) VALUES (?, ?, ?, ?, now())
             ON CONFLICT (email) DO NOTHING",
        )
        .bind::<SqlUuid, _>(account.id)
        .bind::<Text, _>(&account.email)
        .bind::<Text, _>(&account.password_hash)
        .bind::<Timestamptz, _>(account.created_at);
        insert.execute(&mut &*conn).await
    });
    Ok(inserted.await? == 1)
}

/// Who may know a password: it is compared by its hash, so that who read it earlier notices a change.
pub struct Known<'a> {
    pub account_id: Uuid,
    pub password_hash: &'a str,
}

/// Whether the account is there, still has this password, and a verified address; it then stays so to the end of the
/// transaction.
///
/// # Errors
/// When the database fails.
pub async fn is_still_verified(tx: &Transaction, known: &Known<'_>) -> Result<bool> {
    let found = as_directory(tx, async |conn| {
        let look = statement(
            "SELECT id FROM accounts WHERE id = ? AND password_hash = ? AND email_verified_at IS NOT NULL FOR SHARE",
        )
        .bind::<SqlUuid, _>(known.account_id)
        .bind::<Text, _>(known.password_hash);
        look.get_result::<super::Found>(&mut &*conn).await.optional()
    });
    Ok(found.await?.is_some())
}

/// Gives an account to who has proved that its address is theirs: with a new password, and without any session, API key or
/// link of who had it before. Answers what was taken, or nothing when the account is not as it was read.
///
/// # Errors
/// When the database fails.
pub async fn hand_over_account(
    tx: &Transaction,
    known: &Known<'_>,
    password_hash: &str,
) -> Result<Option<Taken>> {
    let handed_over = as_directory(tx, async |conn| {
        let update = statement(
            "UPDATE accounts SET password_hash = ?, password_is_initial = false, email_verified_at = now()
              WHERE id = ? AND password_hash = ? AND email_verified_at IS NULL",
        )
        .bind::<Text, _>(password_hash)
        .bind::<SqlUuid, _>(known.account_id)
        .bind::<Text, _>(known.password_hash);
        if update.execute(&mut &*conn).await? == 0 {
            return Ok(None);
        }
        forget_links(conn, known.account_id).await?;
        take_away_access(conn, known.account_id).await.map(Some)
    });
    Ok(handed_over.await?)
}

/// Voids the links for a new password that were mailed to an account. As the directory.
pub(super) async fn forget_resets(conn: &AsyncPgConnection, account: Uuid) -> diesel::QueryResult<usize> {
    statement("DELETE FROM links WHERE account_id = ? AND purpose = ?")
        .bind::<SqlUuid, _>(account)
        .bind::<Text, _>(Purpose::PasswordReset)
        .execute(&mut &*conn)
        .await
}

async fn forget_links(conn: &AsyncPgConnection, account: Uuid) -> diesel::QueryResult<usize> {
    statement("DELETE FROM links WHERE account_id = ?")
        .bind::<SqlUuid, _>(account)
        .execute(&mut &*conn)
        .await
}

/// Uses a link to give its account a new password. Whoever has read the mail has proved the address, too. All sessions
/// end, and all API keys and other links. Answers the account and what was taken; nothing when the link is not, or no
/// longer, valid.
///
/// # Errors
/// When the database fails.
pub async fn reset_password(
    db: &Database,
    token_hash: &[u8; 32],
    password_hash: &str,
) -> Result<Option<(Uuid, Taken)>> {
    let reset = write(db, async |conn| {
        let link = take_link(conn, Purpose::PasswordReset, token_hash).await?;
        let Some((account, email)) = link.and_then(|link| Some((link.account_id?, link.email))) else {
            return Ok(None);
        };
        let update = statement(
            "UPDATE accounts SET password_hash = ?, password_is_initial = false,
                    email_verified_at = coalesce(email_verified_at, now())
              WHERE id = ? AND email = ?",
        )
        .bind::<Text, _>(password_hash)
        .bind::<SqlUuid, _>(account)
        .bind::<Text, _>(&email);
        if update.execute(&mut &*conn).await? == 0 {
            return Ok(None);
        }
        forget_links(conn, account).await?;
        Ok(Some((account, take_away_access(conn, account).await?)))
    });
    reset.await
}

/// What became of a link that proves an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The address is verified.
    Yes,
    /// The link is not valid, or not for this account.
    NoLink,
    /// Somebody else chose the password and may know it: it has to be changed first.
    InitialPassword,
}

/// Uses a link to prove that the address of a user's account is theirs.
///
/// # Errors
/// When the database fails.
pub async fn verify_email(tx: &Transaction, user: Uuid, token_hash: &[u8; 32]) -> Result<Verified> {
    let verified = as_directory(tx, async |conn| {
        let Some(link) = take_link(conn, Purpose::EmailVerification, token_hash).await? else {
            return Ok(Verified::NoLink);
        };
        let account = statement(
            "UPDATE accounts SET email_verified_at = coalesce(email_verified_at, now())
              WHERE id = ? AND email = ? AND id = (SELECT account_id FROM users WHERE tenant_id = ? AND id = ?)
          RETURNING password_is_initial AS yes",
        )
        .bind::<Nullable<SqlUuid>, _>(link.account_id)
        .bind::<Text, _>(&link.email)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(user);
        // The caller gives the transaction up for every answer but yes, so that nothing is left of it.
        Ok(
            match account.get_result::<Answer>(&mut &*conn).await.optional()? {
                None => Verified::NoLink,
                Some(Answer { yes: true }) => Verified::InitialPassword,
                Some(Answer { yes: false }) => Verified::Yes,
            },
        )
    });
    Ok(verified.await?)
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

/// What a password must be for an account: the strictest decides of the tenants that it belongs to by its own will.
#[derive(Debug, Clone, QueryableByName)]
pub struct PasswordRules {
    /// Characters at least.
    #[diesel(sql_type = Integer)]
    pub min_length: i32,
    /// What others know of the person: names and addresses.
    #[diesel(sql_type = Array<Text>)]
    pub words: Vec<String>,
}

impl PasswordRules {
    /// What both ask for.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.min_length = self.min_length.max(other.min_length);
        self.words.extend(other.words);
        self
    }
}

/// The rules for the password of an account, when there is one.
///
/// # Errors
/// When the database fails.
pub async fn password_rules(db: &Database, account: Uuid) -> Result<Option<PasswordRules>> {
    let found = read(db, async |conn| {
        let rules = statement(
            "SELECT max(t.min_password_length) AS min_length,
                    array_agg(t.name) || array_agg(u.name) || array_agg(u.email) AS words
               FROM users u JOIN tenants t ON t.id = u.tenant_id
              WHERE u.account_id = ? AND u.is_active AND NOT u.awaits_verification
             HAVING count(*) > 0",
        )
        .bind::<SqlUuid, _>(account);
        Ok(rules.get_result(&mut &*conn).await.optional()?)
    });
    found.await
}

/// The rules for the password of who becomes a user of a tenant.
///
/// # Errors
/// When the database fails.
pub async fn password_rules_of_tenant(db: &Database, tenant: Uuid) -> Result<Option<PasswordRules>> {
    let found = read(db, async |conn| {
        let rules = statement(
            "SELECT min_password_length AS min_length, ARRAY[name] AS words FROM tenants WHERE id = ?",
        )
        .bind::<SqlUuid, _>(tenant);
        Ok(rules.get_result(&mut &*conn).await.optional()?)
    });
    found.await
}

/// A tenant that a person belongs to.
#[derive(Debug, Clone, QueryableByName)]
pub struct Place {
    #[diesel(sql_type = SqlUuid)]
    pub tenant_id: Uuid,
    #[diesel(sql_type = Text)]
    pub tenant_name: String,
    /// The person's user there.
    #[diesel(sql_type = SqlUuid)]
    pub user_id: Uuid,
    #[diesel(sql_type = Text)]
    pub role: String,
}

/// What somebody is beyond the tenant that they are a user of.
#[derive(Debug, Default)]
pub struct Person {
    /// Whether they have proved that their address is theirs.
    pub is_verified: bool,
    /// How many recovery codes are left to them.
    pub codes_left: i64,
    /// The tenants that they may enter, oldest first; the one that was asked about is always among them.
    pub places: Vec<Place>,
}

#[derive(QueryableByName)]
struct PlaceOf {
    #[diesel(embed)]
    place: Place,
    #[diesel(sql_type = Bool)]
    is_verified: bool,
    #[diesel(sql_type = BigInt)]
    codes_left: i64,
}

/// The person that a tenant's user is, by one statement: whoever asks may hold another connection meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn person(db: &Database, tenant: Uuid, user: Uuid) -> Result<Person> {
    let found: Result<Vec<PlaceOf>> = read(db, async |conn| {
        let places = statement(
            "SELECT u.tenant_id, t.name AS tenant_name, u.id AS user_id, u.role,
                    a.email_verified_at IS NOT NULL AS is_verified,
                    (SELECT count(*) FROM recovery_codes c WHERE c.account_id = own.account_id) AS codes_left
               FROM users own
               JOIN users u ON u.account_id = own.account_id
               JOIN tenants t ON t.id = u.tenant_id
               LEFT JOIN accounts a ON a.id = u.account_id
              WHERE own.tenant_id = ? AND own.id = ?
                AND (u.tenant_id = own.tenant_id
                     OR u.is_active AND (NOT u.awaits_verification OR a.email_verified_at IS NOT NULL))
              ORDER BY u.created_at, u.tenant_id",
        )
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(user);
        Ok(places.load(&mut &*conn).await?)
    })
    .await;
    // The account is the same in all of them.
    Ok(found?.into_iter().fold(Person::default(), |mut person, row| {
        person.is_verified = row.is_verified;
        person.codes_left = row.codes_left;
        person.places.push(row.place);
        person
    }))
}

/// Whether somebody else than this user is an admin of the tenant who can sign in: active, and not waiting to prove an
/// address. Reliable when changes of users come one after the other.
///
/// # Errors
/// When the database fails.
pub async fn another_admin(tx: &Transaction, than: Uuid) -> Result<bool> {
    let found = as_directory(tx, async |conn| {
        statement(
            "SELECT EXISTS (
                SELECT FROM users u LEFT JOIN accounts a ON a.id = u.account_id
                 WHERE u.tenant_id = ? AND u.id <> ? AND u.role = 'ADMIN' AND u.is_active
                   AND (NOT u.awaits_verification OR a.email_verified_at IS NOT NULL)
             ) AS yes",
        )
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(than)
        .get_result::<Answer>(&mut &*conn)
        .await
    });
    Ok(found.await?.yes)
}

/// The users that an account has, by tenant.
///
/// # Errors
/// When the database fails.
pub async fn users_of(db: &Database, account: Uuid) -> Result<Vec<super::Membership>> {
    use crate::db::schema::users;
    let found = read(db, async |conn| {
        let users = users::table
            .filter(users::account_id.eq(account))
            .order(users::tenant_id)
            .select((users::tenant_id, users::id));
        Ok(users.load(&mut &*conn).await?)
    });
    found.await
}

/// The users of an account whose tenants it concerns when somebody could not sign in with it: those that it belongs to by its
/// own will, and the one that it was about.
///
/// # Errors
/// When the database fails.
pub async fn concerned(db: &Database, account: Uuid, tenant: Option<Uuid>) -> Result<Vec<super::Membership>> {
    use crate::db::schema::users;
    let found = read(db, async |conn| {
        let concerned = users::awaits_verification
            .eq(false)
            .or(users::tenant_id.nullable().is_not_distinct_from(tenant));
        let users = users::table
            .filter(users::account_id.eq(account).and(concerned))
            .order(users::tenant_id)
            .select((users::tenant_id, users::id));
        Ok(users.load(&mut &*conn).await?)
    });
    found.await
}

/// An account's address, and whether it is verified.
#[derive(Debug, Clone, QueryableByName)]
pub struct Address {
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    #[diesel(sql_type = Text)]
    pub email: String,
    #[diesel(sql_type = Bool)]
    pub is_verified: bool,
}

/// The address of the account of a tenant's user.
///
/// # Errors
/// When the database fails.
pub async fn address_of(db: &Database, tenant: Uuid, user: Uuid) -> Result<Option<Address>> {
    let found = read(db, async |conn| {
        let address = statement(
            "SELECT a.id AS account_id, a.email, a.email_verified_at IS NOT NULL AS is_verified
               FROM accounts a JOIN users u ON u.account_id = a.id WHERE u.tenant_id = ? AND u.id = ?",
        )
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(user);
        Ok(address.get_result(&mut &*conn).await.optional()?)
    });
    found.await
}

/// The account with an address, in lower case, and whether that is verified.
///
/// # Errors
/// When the database fails.
pub async fn account_at(db: &Database, email: &str) -> Result<Option<(Account, bool)>> {
    use crate::db::schema::accounts;
    let found = read(db, async |conn| {
        let account = accounts::table
            .filter(accounts::email.eq(email))
            .select((Account::as_select(), accounts::email_verified_at.is_not_null()));
        Ok(account.first(&mut &*conn).await.optional()?)
    });
    found.await
}

/// The account with an address, in lower case.
///
/// # Errors
/// When the database fails.
pub async fn address(db: &Database, email: &str) -> Result<Option<Address>> {
    let found = read(db, async |conn| {
        let address = statement(
            "SELECT id AS account_id, email, email_verified_at IS NOT NULL AS is_verified FROM accounts WHERE email = ?",
        )
        .bind::<Text, _>(email);
        Ok(address.get_result(&mut &*conn).await.optional()?)
    });
    found.await
}
