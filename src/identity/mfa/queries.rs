//! All SQL about pending sign-ins, and about who has a second factor in a tenant. Second factors themselves belong to no
//! tenant: see [`directory::factors`](crate::db::directory::factors).

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Binary, Bool, Integer, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::super::User;
use super::model::{Pending, TRIES};
use crate::auth::Permission;
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::{pending_sign_ins, users};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::Result;
use crate::graphql::Batch;

/// Tells of users whether they have signed in here with a second factor, and have it still.
pub struct SecondFactorOfUser;

impl Batch for SecondFactorOfUser {
    const READ: Permission = Permission::UsersRead;
    type Key = Id<User>;
    type Value = bool;

    async fn load(conn: Reader<'_>, keys: &[Id<User>]) -> Result<ByKey<Id<User>, bool>> {
        let found: Vec<(Id<User>, bool)> = users::table
            .filter(users::id.eq_any(keys))
            .select((users::id, users::has_second_factor))
            .load(&mut &*conn)
            .await?;
        Ok(found.into_iter().collect())
    }
}

/// Keeps who has shown the first factor. What is out of date goes.
///
/// # Errors
/// When the database fails.
pub(super) async fn insert(
    tx: &Transaction,
    hash: &[u8; 32],
    user: Uuid,
    password_state: &[u8; 32],
    enrols: bool,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    statement("DELETE FROM pending_sign_ins WHERE expires_at < now()")
        .execute(&mut tx.conn())
        .await?;
    statement(
        "INSERT INTO pending_sign_ins (hash, user_id, password_state, enrols, expires_at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind::<Binary, _>(&hash[..])
    .bind::<SqlUuid, _>(user)
    .bind::<Binary, _>(&password_state[..])
    .bind::<Bool, _>(enrols)
    .bind::<Timestamptz, _>(expires_at)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Looks a pending sign-in up that is still good, and locks it: of those who come with it at the same time, one comes
/// after the other.
///
/// # Errors
/// When the database fails.
pub(super) async fn find(tx: &Transaction, hash: &[u8; 32]) -> Result<Option<Pending>> {
    let found = pending_sign_ins::table
        .filter(
            pending_sign_ins::hash
                .eq(&hash[..])
                .and(pending_sign_ins::tries.lt(TRIES))
                .and(pending_sign_ins::expires_at.gt(diesel::dsl::now)),
        )
        .select(Pending::as_select())
        .for_update();
    Ok(found.first(&mut tx.conn()).await.optional()?)
}

/// Counts a wrong code. Answers whether more may be tried.
///
/// # Errors
/// When the database fails.
pub(super) async fn count_try(tx: &Transaction, hash: &[u8; 32]) -> Result<bool> {
    let count = statement("UPDATE pending_sign_ins SET tries = tries + 1 WHERE hash = ? AND tries < ?")
        .bind::<Binary, _>(&hash[..])
        .bind::<Integer, _>(TRIES - 1);
    if count.execute(&mut tx.conn()).await? == 1 {
        return Ok(true);
    }
    remove(tx, hash).await?;
    Ok(false)
}

/// Removes a pending sign-in.
///
/// # Errors
/// When the database fails.
pub(super) async fn remove(tx: &Transaction, hash: &[u8; 32]) -> Result<()> {
    statement("DELETE FROM pending_sign_ins WHERE hash = ?")
        .bind::<Binary, _>(&hash[..])
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Whether a user has shown a second factor here, and has it still.
///
/// # Errors
/// When the database fails.
pub(super) async fn is_marked(tx: &Transaction, user: Id<User>) -> Result<bool> {
    let marked = users::table
        .filter(users::id.eq(user))
        .select(users::has_second_factor);
    Ok(marked.first(&mut tx.conn()).await.optional()?.unwrap_or(false))
}

/// Takes it up that the trail does not tell yet of a second factor that an operator took away. Answers whether that is so:
/// then it is to be noted in this transaction.
///
/// # Errors
/// When the database fails.
pub(super) async fn take_untold_reset(tx: &Transaction, user: Uuid) -> Result<bool> {
    let take = statement(
        "UPDATE users SET second_factor_reset_at = NULL WHERE id = ? AND second_factor_reset_at IS NOT NULL",
    )
    .bind::<SqlUuid, _>(user);
    Ok(take.execute(&mut tx.conn()).await? == 1)
}

/// Writes down that a user has a second factor.
///
/// # Errors
/// When the database fails.
pub(super) async fn mark(tx: &Transaction, user: Uuid) -> Result<()> {
    statement("UPDATE users SET has_second_factor = true WHERE id = ? AND NOT has_second_factor")
        .bind::<SqlUuid, _>(user)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}
