//! The keys that sign access tokens: of no tenant, and for the directory's role alone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bytea, Double, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::Database;
use super::directory::{conn_transaction, writing_transaction};
use super::statement::statement;
use crate::error::Result;

/// Key of the advisory lock that lets one instance at a time add a key: "keys" in ASCII.
const LOCK: i64 = 0x6b65_7973;

/// A key as it is kept.
#[derive(Debug, Clone, QueryableByName)]
pub struct SigningKey {
    #[diesel(sql_type = Text)]
    pub kid: String,
    #[diesel(sql_type = Text)]
    pub algorithm: String,
    /// The private part.
    #[diesel(sql_type = Bytea)]
    pub sealed: Vec<u8>,
    /// When it was published.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// When it begins to sign in the place of the one before.
    #[diesel(sql_type = Timestamptz)]
    pub signs_from: DateTime<Utc>,
}

/// A key to be added.
pub struct NewKey {
    pub kid: String,
    pub algorithm: &'static str,
    pub sealed: Vec<u8>,
    /// How long it is published before it signs.
    pub ahead: Duration,
}

/// What becomes of the keys that are there when one is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They go when they have been replaced for so long.
    KeptFor(Duration),
    /// They go at once.
    Removed,
}

async fn load(conn: &AsyncPgConnection) -> Result<Vec<SigningKey>> {
    let all =
        "SELECT kid, algorithm, sealed, created_at, signs_from FROM signing_keys ORDER BY signs_from, kid";
    Ok(statement(all).load(&mut &*conn).await?)
}

/// All keys, in the order in which they sign.
///
/// # Errors
/// When the database fails.
pub async fn all(db: &Database) -> Result<Vec<SigningKey>> {
    let mut conn = db.connection().await?;
    conn_transaction(&mut conn, load).await
}

/// Adds a key, unless those that are there by then say that none is wanted. Instances that want to at the same time do so
/// one after the other. Answers whether it was added.
///
/// # Errors
/// When the database fails.
pub async fn add(
    db: &Database,
    new: &NewKey,
    others: Others,
    wanted: impl FnOnce(&[SigningKey]) -> bool,
) -> Result<bool> {
    let mut conn = db.connection().await?;
    let added = writing_transaction(&mut conn, async |conn| {
        statement("SELECT pg_advisory_xact_lock(?)")
            .bind::<BigInt, _>(LOCK)
            .execute(&mut &*conn)
            .await?;
        if !wanted(&load(conn).await?) {
            return Ok(false);
        }
        // Those that have been replaced for longer than the time; without one, all of them.
        let kept = match others {
            Others::KeptFor(time) => Some(time.as_secs_f64()),
            Others::Removed => None,
        };
        statement(
            "DELETE FROM signing_keys k USING (SELECT ?::double precision AS secs) kept
              WHERE kept.secs IS NULL
                 OR EXISTS (SELECT FROM signing_keys n WHERE n.signs_from > k.signs_from
                               AND n.signs_from < clock_timestamp() - make_interval(secs => kept.secs))",
        )
        .bind::<Nullable<Double>, _>(kept)
        .execute(&mut &*conn)
        .await?;
        statement(
            "INSERT INTO signing_keys (kid, algorithm, sealed, created_at, signs_from)
             SELECT ?, ?, ?, now.at, now.at + make_interval(secs => ?) FROM (SELECT clock_timestamp() AS at) now",
        )
        .bind::<Text, _>(&new.kid)
        .bind::<Text, _>(new.algorithm)
        .bind::<Bytea, _>(&new.sealed)
        .bind::<Double, _>(new.ahead.as_secs_f64())
        .execute(&mut &*conn)
        .await?;
        Ok(true)
    });
    added.await
}

/// Replaces the sealed form of a key by another of the same key, unless somebody else has done so meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn reseal(db: &Database, key: &SigningKey, sealed: &[u8]) -> Result<()> {
    let mut conn = db.connection().await?;
    let resealed = writing_transaction(&mut conn, async |conn| {
        statement("UPDATE signing_keys SET sealed = ? WHERE kid = ? AND sealed = ?")
            .bind::<Bytea, _>(sealed)
            .bind::<Text, _>(&key.kid)
            .bind::<Bytea, _>(&key.sealed)
            .execute(&mut &*conn)
            .await?;
        Ok(())
    });
    resealed.await
}
