//! All SQL about sessions.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Bool, Bytea, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::json;
use uuid::Uuid;

use super::model::{RefreshToken, Session, Standing, Ticket, Worth};
use crate::auth::{Origin, revocation};
use crate::crypto::Vault;
use crate::db::directory::{self, Revocation};
use crate::db::id::{Id, uuid_at};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::Result;
use crate::events::Work;
use crate::graphql;
use crate::identity::{self, SignedIn, User};

/// The moment by the database's clock, and what the tenant says about sessions.
#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Integer)]
    session_days: i32,
    #[diesel(sql_type = Integer)]
    idle_minutes: i32,
}

const NOW: &str = "SELECT clock_timestamp() AS now, session_days, idle_minutes FROM tenants WHERE id = ?";

impl Now {
    async fn of(tx: &Transaction) -> Result<Self> {
        let now = statement(NOW).bind::<SqlUuid, _>(tx.tenant());
        Ok(now.get_result(&mut tx.conn()).await?)
    }

    fn idle_at(&self) -> DateTime<Utc> {
        self.now + TimeDelta::minutes(i64::from(self.idle_minutes))
    }

    /// An id whose time is this moment.
    fn id(&self) -> Uuid {
        uuid_at(self.now)
    }
}

/// Begins a session of a user of the tenant, whom the transaction has locked or added, and records that it did. The session
/// knows whether a second factor was shown for it.
///
/// # Errors
/// When the database fails.
pub async fn start(
    work: &mut Work,
    user: Id<User>,
    origin: &Origin,
    by_second_factor: bool,
    at_most_until: Option<DateTime<Utc>>,
) -> Result<Ticket> {
    let now = Now::of(work).await?;
    let (session_id, refresh_token) = (now.id(), RefreshToken::generate());
    let expires_at = now.now + TimeDelta::days(i64::from(now.session_days));
    let expires_at = at_most_until.map_or(expires_at, |end| end.min(expires_at));
    let ends_at = now.idle_at().min(expires_at);
    // Their sessions that ended a while ago are cleared away on the occasion.
    statement(
        "WITH over AS (
            DELETE FROM sessions WHERE user_id = ? AND least(expires_at, ended_at) < now() - interval '1 day'
        )
        INSERT INTO sessions (id, user_id, family_hash, token_hash, created_at, last_used_at, expires_at, idle_at,
                              user_agent, address, by_second_factor)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<SqlUuid, _>(user)
    .bind::<SqlUuid, _>(session_id)
    .bind::<SqlUuid, _>(user)
    .bind::<Bytea, _>(refresh_token.family_hash().to_vec())
    .bind::<Bytea, _>(refresh_token.hash().to_vec())
    .bind::<Timestamptz, _>(now.now)
    .bind::<Timestamptz, _>(now.now)
    .bind::<Timestamptz, _>(expires_at)
    .bind::<Timestamptz, _>(now.idle_at())
    .bind::<Nullable<Text>, _>(origin.user_agent.clone())
    .bind::<Nullable<Text>, _>(address(origin))
    .bind::<Bool, _>(by_second_factor)
    .execute(&mut work.conn())
    .await?;
    work.record(
        Id::<Session>::from_uuid(session_id),
        "SIGNED_IN",
        &json!({ "userId": user }),
    )?;
    Ok(Ticket {
        session_id,
        token_id: now.id(),
        ends_at,
        refresh_token,
    })
}

fn address(origin: &Origin) -> Option<String> {
    origin.ip.map(|ip| ip.to_string())
}

/// What became of a refresh token.
pub(super) enum Refreshed {
    /// The session goes on.
    On(Box<SignedIn>),
    /// It does not.
    Refused,
    /// It has ended because of this.
    Ended(Revocation),
}

const STANDING: &str = "
    SELECT s.token_hash, s.previous_hash, s.last_used_at,
           s.ended_at IS NOT NULL OR t.mfa_required AND NOT s.by_second_factor AS ended,
           least(s.expires_at, s.created_at + make_interval(days => t.session_days)) AS expires_at,
           least(s.idle_at, s.last_used_at + make_interval(mins => t.idle_minutes)) AS idle_at
      FROM sessions s JOIN tenants t ON t.id = s.tenant_id
     WHERE s.id = ? FOR UPDATE OF s";

/// Takes a refresh token in: replaces it by its successor, and answers all that the next access token needs.
///
/// # Errors
/// When the database fails.
pub(super) async fn refresh(
    session: &graphql::Session,
    vault: &Vault,
    token: &RefreshToken,
) -> Result<Refreshed> {
    let Some(found) = directory::find_session(session.db(), &token.family_hash()).await? else {
        return Ok(Refreshed::Refused);
    };
    let tx = session.db().begin(found.tenant_id).await?;
    let user = Id::from_uuid(found.user_id);
    // The user first, as everybody does who locks both. Who changes them at this moment is waited for: the token that
    // is given has the new rights, or is made stale by the change.
    let Some((tenant, user, rights)) = identity::member(&tx, user).await? else {
        return Ok(Refreshed::Refused);
    };
    let standing = statement(STANDING).bind::<SqlUuid, _>(found.id);
    let mut conn = tx.conn();
    let standing = standing.load::<Standing>(&mut conn);
    // Sent right behind, and so answered once the session is locked.
    let (standing, now) = futures::join!(standing, Now::of(&tx));
    let (Some(standing), now) = (standing?.pop(), now?) else {
        return Ok(Refreshed::Refused);
    };
    let successor = standing.successor(token, vault);
    let idle_at = match standing.judge(token, &successor, now.now) {
        Worth::Successor => {
            replace(&tx, found.id, &successor, &now, session.origin()).await?;
            now.idle_at()
        }
        Worth::SameSuccessor => standing.idle_at,
        Worth::Nothing => return Ok(Refreshed::Refused),
        Worth::Reused => {
            let revocation = end(&tx, user.id, Which::One(found.id)).await?;
            let work = Work::on(tx, session.hub().clone(), Some(found.user_id));
            let mut work = work.coming_from(session.origin());
            work.record(
                Id::<Session>::from_uuid(found.id),
                "REFRESH_TOKEN_REUSED",
                &json!({}),
            )?;
            work.finish().await?;
            return Ok(Refreshed::Ended(revocation));
        }
    };
    tx.commit().await?;
    Ok(Refreshed::On(Box::new(SignedIn {
        tenant,
        user,
        rights,
        ticket: Ticket {
            session_id: found.id,
            token_id: now.id(),
            ends_at: idle_at.min(standing.expires_at),
            refresh_token: successor,
        },
        position: None,
    })))
}

/// Puts the successor in the place of the refresh token that was good.
async fn replace(
    tx: &Transaction,
    session: Uuid,
    successor: &RefreshToken,
    now: &Now,
    origin: &Origin,
) -> Result<()> {
    statement(
        "UPDATE sessions SET previous_hash = token_hash, token_hash = ?, last_used_at = ?, idle_at = ?,
                user_agent = ?, address = ? WHERE id = ?",
    )
    .bind::<Bytea, _>(successor.hash().to_vec())
    .bind::<Timestamptz, _>(now.now)
    .bind::<Timestamptz, _>(now.idle_at())
    .bind::<Nullable<Text>, _>(origin.user_agent.clone())
    .bind::<Nullable<Text>, _>(address(origin))
    .bind::<SqlUuid, _>(session)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Which of a user's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    One(Uuid),
    All,
    AllBut(Uuid),
}

/// Ends sessions of a user of the tenant, with the access tokens that they have. Whoever commits it lets this process
/// know ([`crate::auth::Revocations::take_in`]).
///
/// # Errors
/// When the database fails.
pub async fn end(tx: &Transaction, user: Id<User>, which: Which) -> Result<Revocation> {
    let (one, kept) = which.one_and_kept();
    // Before the moment of the revocation is taken: a refresh that holds a session is waited for, and its token is in.
    statement(
        "UPDATE sessions SET ended_at = clock_timestamp()
          WHERE user_id = ? AND ended_at IS NULL AND id = coalesce(?, id) AND id IS DISTINCT FROM ?",
    )
    .bind::<SqlUuid, _>(user)
    .bind::<Nullable<SqlUuid>, _>(one)
    .bind::<Nullable<SqlUuid>, _>(kept)
    .execute(&mut tx.conn())
    .await?;
    insert_revocation(tx, user, which).await
}

/// Makes access tokens stale: all that a user of the tenant has been given so far, or those of one session. The sessions go
/// on, and give new ones. Whoever commits it lets this process know ([`crate::auth::Revocations::take_in`]).
///
/// # Errors
/// When the database fails.
pub async fn revoke(tx: &Transaction, user: Id<User>, session: Option<Uuid>) -> Result<Revocation> {
    insert_revocation(tx, user, session.map_or(Which::All, Which::One)).await
}

/// What no token can be old enough for is cleared away here, tenant by tenant: nobody else may delete a tenant's rows.
async fn insert_revocation(tx: &Transaction, user: Id<User>, which: Which) -> Result<Revocation> {
    statement("DELETE FROM revocations WHERE revoked_at < now() - make_interval(secs => ?)")
        .bind::<Double, _>(revocation::KEPT.as_secs_f64())
        .execute(&mut tx.conn())
        .await?;
    let (one, kept) = which.one_and_kept();
    let revoked = statement(
        "INSERT INTO revocations (id, user_id, session_id, kept_session_id, revoked_at)
         VALUES (?, ?, ?, ?, clock_timestamp())
         RETURNING tenant_id, user_id, session_id, kept_session_id, revoked_at",
    )
    .bind::<SqlUuid, _>(Uuid::now_v7())
    .bind::<SqlUuid, _>(user)
    .bind::<Nullable<SqlUuid>, _>(one)
    .bind::<Nullable<SqlUuid>, _>(kept);
    Ok(revoked.get_result(&mut tx.conn()).await?)
}

impl Which {
    fn one_and_kept(self) -> (Option<Uuid>, Option<Uuid>) {
        match self {
            Self::One(session) => (Some(session), None),
            Self::All => (None, None),
            Self::AllBut(kept) => (None, Some(kept)),
        }
    }
}

/// Writes down whether the second factor of whose session this is was shown in it.
///
/// # Errors
/// When the database fails.
pub(in crate::identity) async fn set_by_second_factor(
    tx: &Transaction,
    session: Uuid,
    shown: bool,
) -> Result<()> {
    statement("UPDATE sessions SET by_second_factor = ? WHERE id = ?")
        .bind::<Bool, _>(shown)
        .bind::<SqlUuid, _>(session)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Sessions in one answer at most.
const MOST: i32 = 100;

/// Sessions of a user that go on, the last used first.
const LIVE: &str = "
    SELECT * FROM (
        SELECT s.id, s.created_at, s.last_used_at, s.user_agent, s.address,
               least(s.expires_at, s.created_at + make_interval(days => t.session_days)) AS expires_at,
               least(s.expires_at, s.created_at + make_interval(days => t.session_days),
                     s.idle_at, s.last_used_at + make_interval(mins => t.idle_minutes)) AS ends_at
          FROM sessions s JOIN tenants t ON t.id = s.tenant_id
         WHERE s.user_id = ? AND s.ended_at IS NULL AND s.id = coalesce(?, s.id)
    ) live WHERE ends_at > now() ORDER BY last_used_at DESC, id DESC LIMIT ?";

/// The sessions of a user that go on, the last used first.
///
/// # Errors
/// When the database fails.
pub(super) async fn live(conn: &AsyncPgConnection, user: Uuid) -> Result<Vec<Session>> {
    let live = statement(LIVE)
        .bind::<SqlUuid, _>(user)
        .bind::<Nullable<SqlUuid>, _>(None::<Uuid>)
        .bind::<Integer, _>(MOST);
    Ok(live.load(&mut &*conn).await?)
}

/// Whether a session is one of the user's that go on.
///
/// # Errors
/// When the database fails.
pub(super) async fn is_live(tx: &Transaction, user: Uuid, session: Uuid) -> Result<bool> {
    let live = statement(LIVE)
        .bind::<SqlUuid, _>(user)
        .bind::<Nullable<SqlUuid>, _>(Some(session))
        .bind::<Integer, _>(MOST);
    let found: Vec<Session> = live.load(&mut tx.conn()).await?;
    Ok(!found.is_empty())
}
