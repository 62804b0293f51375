//! All SQL about invitations that a tenant runs. What who follows a link may see is in `db::directory::people`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::model::Invitation;
use crate::auth::Permission;
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::{invitations, users};
use crate::db::select::by_ids;
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::Batch;
use crate::identity::User;

/// Loads invitations by their ids.
pub struct InvitationById;

impl Batch for InvitationById {
    type Key = Id<Invitation>;
    type Value = Arc<Invitation>;
    const READ: Permission = Permission::UsersWrite;

    async fn load(
        reader: Reader<'_>,
        keys: &[Id<Invitation>],
    ) -> Result<ByKey<Id<Invitation>, Arc<Invitation>>> {
        by_ids(reader, keys).await
    }
}

/// Whether the tenant has a user with this address.
///
/// # Errors
/// When the database fails.
pub(super) async fn is_user(tx: &Transaction, email: &str) -> Result<bool> {
    let there = diesel::dsl::exists(users::table.filter(users::email.eq(email)));
    Ok(diesel::select(there).get_result(&mut tx.conn()).await?)
}

/// Adds an invitation.
///
/// # Errors
/// As a user error on `email` when the address is invited already.
pub(super) async fn insert(tx: &Transaction, invitation: &Invitation) -> Result<()> {
    diesel::insert_into(invitations::table)
        .values(invitation)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

fn not_found() -> Error {
    Error::invalid(
        "invitationId",
        ProblemCode::NotFound,
        "There is no such invitation.",
    )
}

/// Lets an invitation be somebody's who sends it again, and end at another moment; answers it.
///
/// # Errors
/// As a user error when there is none.
pub(super) async fn renew(
    tx: &Transaction,
    id: Id<Invitation>,
    inviter: Id<User>,
    until: DateTime<Utc>,
) -> Result<Invitation> {
    let renew = statement("UPDATE invitations SET invited_by_id = ?, expires_at = ? WHERE id = ?")
        .bind::<SqlUuid, _>(inviter)
        .bind::<Timestamptz, _>(until)
        .bind::<SqlUuid, _>(id);
    if renew.execute(&mut tx.conn()).await? == 0 {
        return Err(not_found());
    }
    let found = invitations::table
        .filter(invitations::id.eq(id))
        .select(Invitation::as_select());
    Ok(found.first(&mut tx.conn()).await?)
}

/// Removes an invitation, and answers it.
///
/// # Errors
/// As a user error when there is none.
pub(super) async fn remove(tx: &Transaction, id: Id<Invitation>) -> Result<Invitation> {
    let removed = diesel::delete(invitations::table.filter(invitations::id.eq(id)))
        .returning(Invitation::as_returning())
        .get_result(&mut tx.conn())
        .await
        .optional()?;
    removed.ok_or_else(not_found)
}

/// Removes an invitation that has not ended, for who accepts it. Whoever comes second finds nothing.
///
/// # Errors
/// When the database fails.
pub(super) async fn take(tx: &Transaction, id: Id<Invitation>) -> Result<Option<Invitation>> {
    let open = invitations::id
        .eq(id)
        .and(invitations::expires_at.gt(diesel::dsl::now));
    let taken = diesel::delete(invitations::table.filter(open))
        .returning(Invitation::as_returning())
        .get_result(&mut tx.conn())
        .await
        .optional()?;
    Ok(taken)
}
