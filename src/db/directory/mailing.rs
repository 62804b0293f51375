//! Mail that is on its way, and the links that were mailed. Both belong to no tenant, and no tenant's role sees them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{as_directory, write};
use crate::db::Database;
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::db::text_enum::text_enum;
use crate::error::Result;

/// A mail that is to be sent now.
#[derive(QueryableByName)]
pub struct Claimed {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Binary)]
    pub sealed: Vec<u8>,
    /// This time included.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// Seconds since it was written.
    #[diesel(sql_type = Double)]
    pub age: f64,
}

const POST: &str = "INSERT INTO mails (id, sealed) VALUES (?, ?)";

/// Writes down what is to be mailed, in the transaction that is the reason for it.
///
/// # Errors
/// When the database fails.
pub async fn post_with(tx: &Transaction, id: Uuid, sealed: &[u8]) -> Result<()> {
    let posted = as_directory(tx, async |conn| {
        let insert = statement(POST).bind::<SqlUuid, _>(id).bind::<Binary, _>(sealed);
        insert.execute(&mut &*conn).await
    });
    posted.await?;
    Ok(())
}

/// Writes down what is to be mailed.
///
/// # Errors
/// When the database fails.
pub async fn post(db: &Database, id: Uuid, sealed: &[u8]) -> Result<()> {
    let posted = write(db, async |conn| {
        let insert = statement(POST).bind::<SqlUuid, _>(id).bind::<Binary, _>(sealed);
        Ok(insert.execute(&mut &*conn).await?)
    });
    posted.await?;
    Ok(())
}

/// Takes mails whose time has come, so many at most; no other instance takes them meanwhile. Links that have expired are
/// forgotten on the way.
///
/// # Errors
/// When the database fails.
pub async fn claim(db: &Database, most: i64, lasts: Duration) -> Result<Vec<Claimed>> {
    let claimed = write(db, async |conn| {
        let claim = statement(
            "UPDATE mails SET attempts = attempts + 1, due_at = now() + make_interval(secs => ?)
              WHERE id IN (SELECT id FROM mails WHERE due_at <= now() ORDER BY due_at LIMIT ? FOR UPDATE SKIP LOCKED)
          RETURNING id, sealed, attempts, extract(epoch FROM now() - created_at)::float8 AS age",
        )
        .bind::<Double, _>(lasts.as_secs_f64())
        .bind::<BigInt, _>(most);
        let claimed: Vec<Claimed> = claim.load(&mut &*conn).await?;
        let forget = statement("DELETE FROM links WHERE expires_at < now()");
        forget.execute(&mut &*conn).await?;
        Ok(claimed)
    });
    claimed.await
}

/// Removes a mail that was sent, or never will be.
///
/// # Errors
/// When the database fails.
pub async fn done(db: &Database, id: Uuid) -> Result<()> {
    let removed = write(db, async |conn| {
        let remove = statement("DELETE FROM mails WHERE id = ?").bind::<SqlUuid, _>(id);
        Ok(remove.execute(&mut &*conn).await?)
    });
    removed.await?;
    Ok(())
}

/// Lets a mail be tried again later.
///
/// # Errors
/// When the database fails.
pub async fn again(db: &Database, id: Uuid, after: Duration) -> Result<()> {
    let put_off = write(db, async |conn| {
        let put_off = statement("UPDATE mails SET due_at = now() + make_interval(secs => ?) WHERE id = ?")
            .bind::<Double, _>(after.as_secs_f64())
            .bind::<SqlUuid, _>(id);
        Ok(put_off.execute(&mut &*conn).await?)
    });
    put_off.await?;
    Ok(())
}

text_enum! {
    /// What a mailed link is good for.
    pub enum Purpose {
        Invitation = "INVITATION",
        PasswordReset = "PASSWORD_RESET",
        EmailVerification = "EMAIL_VERIFICATION",
        SignUp = "SIGN_UP",
    }
}

/// A link that is mailed.
pub struct NewLink<'a> {
    pub token_hash: [u8; 32],
    pub purpose: Purpose,
    pub account_id: Option<Uuid>,
    pub email: &'a str,
    /// The tenant and the invitation there.
    pub invitation: Option<(Uuid, Uuid)>,
    /// What belongs to it and only this server reads.
    pub sealed: Option<Vec<u8>>,
    pub expires_at: DateTime<Utc>,
}

/// Keeps a link, to be known again.
///
/// # Errors
/// When the database fails.
pub async fn insert_link(db: &Database, link: &NewLink<'_>) -> Result<()> {
    let (tenant, invitation) = link.invitation.unzip();
    let inserted = write(db, async |conn| {
        let insert = statement(
            "INSERT INTO links (token_hash, purpose, account_id, email, invited_to, invitation_id, sealed, expires_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind::<Binary, _>(&link.token_hash[..])
        .bind::<Text, _>(link.purpose)
        .bind::<Nullable<SqlUuid>, _>(link.account_id)
        .bind::<Text, _>(link.email)
        .bind::<Nullable<SqlUuid>, _>(tenant)
        .bind::<Nullable<SqlUuid>, _>(invitation)
        .bind::<Nullable<Binary>, _>(link.sealed.as_deref())
        .bind::<Timestamptz, _>(link.expires_at);
        Ok(insert.execute(&mut &*conn).await?)
    });
    inserted.await?;
    Ok(())
}

/// Forgets a link that did not reach anybody.
///
/// # Errors
/// When the database fails.
pub async fn forget_link(db: &Database, token_hash: &[u8; 32]) -> Result<()> {
    let forgotten = write(db, async |conn| {
        let forget = statement("DELETE FROM links WHERE token_hash = ?").bind::<Binary, _>(&token_hash[..]);
        Ok(forget.execute(&mut &*conn).await?)
    });
    forgotten.await?;
    Ok(())
}

/// Voids all links of an invitation.
///
/// # Errors
/// When the database fails.
pub async fn forget_links_of(tx: &Transaction, invitation: Uuid) -> Result<()> {
    let forgotten = as_directory(tx, async |conn| {
        let forget = statement("DELETE FROM links WHERE invited_to = ? AND invitation_id = ?")
            .bind::<SqlUuid, _>(tx.tenant())
            .bind::<SqlUuid, _>(invitation);
        forget.execute(&mut &*conn).await
    });
    forgotten.await?;
    Ok(())
}
