//! All SQL about a tenant's own roles.

use std::sync::Arc;

use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::{Array, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::model::CustomRole;
use crate::auth::{Permission, Rights, Role};
use crate::db::asked::Reader;
use crate::db::directory::Revocation;
use crate::db::id::{ByKey, Id};
use crate::db::schema::{custom_roles, users};
use crate::db::select::by_ids;
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::Batch;
use crate::identity::User;

/// Loads roles by their ids.
pub struct CustomRoleById;

impl Batch for CustomRoleById {
    type Key = Id<CustomRole>;
    type Value = Arc<CustomRole>;
    const READ: Permission = Permission::UsersRead;

    async fn load(
        reader: Reader<'_>,
        keys: &[Id<CustomRole>],
    ) -> Result<ByKey<Id<CustomRole>, Arc<CustomRole>>> {
        by_ids(reader, keys).await
    }
}

/// What a user may do, for the token that they are given. A role of the tenant's own is kept as it is until the end of
/// the transaction: whoever changes it meanwhile makes the token stale.
///
/// # Errors
/// When the database fails.
pub async fn rights_of(tx: &Transaction, user: &User) -> Result<Rights> {
    rights_in(tx, user.role, user.custom_role_id).await
}

/// What a role permits, a built-in one or one of the tenant's own.
///
/// # Errors
/// When the database fails.
pub(in crate::identity) async fn rights_in(
    tx: &Transaction,
    role: Role,
    custom: Option<Id<CustomRole>>,
) -> Result<Rights> {
    let Some(id) = custom else {
        return Ok(Rights::of(role));
    };
    let role: CustomRole = custom_roles::table
        .filter(custom_roles::id.eq(id))
        .select(CustomRole::as_select())
        .for_share()
        .first(&mut tx.conn())
        .await?;
    Ok(role.rights())
}

/// Reads a role.
///
/// # Errors
/// As a user error on `field` when there is no such role.
pub(super) async fn find(tx: &Transaction, id: Id<CustomRole>, field: &str) -> Result<CustomRole> {
    let found = custom_roles::table
        .filter(custom_roles::id.eq(id))
        .select(CustomRole::as_select())
        .for_share()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| no_such_role(field))
}

/// Reads a role and locks it until the end of the transaction.
///
/// # Errors
/// As a user error on `roleId` when there is no such role.
pub(super) async fn find_for_update(tx: &Transaction, id: Id<CustomRole>) -> Result<CustomRole> {
    let found = custom_roles::table
        .filter(custom_roles::id.eq(id))
        .select(CustomRole::as_select())
        .for_update()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| no_such_role("roleId"))
}

fn no_such_role(field: &str) -> Error {
    Error::invalid(field, ProblemCode::NotFound, "There is no such role.")
}

/// Adds a role.
///
/// # Errors
/// As a user error when the name is taken.
pub(super) async fn insert(tx: &Transaction, role: &CustomRole) -> Result<()> {
    diesel::insert_into(custom_roles::table)
        .values(role)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Writes a changed role.
///
/// # Errors
/// As a user error when the name is taken.
pub(super) async fn update(tx: &Transaction, role: &CustomRole) -> Result<()> {
    statement(
        "UPDATE custom_roles SET name = ?, description = ?, permissions = ?, companies_scope = ?, contacts_scope = ?,
                deals_scope = ?, interactions_scope = ?, updated_at = ?, version = ?
          WHERE id = ?",
    )
    .bind::<Text, _>(&role.name)
    .bind::<Nullable<Text>, _>(&role.description)
    .bind::<Array<Text>, _>(&role.permissions)
    .bind::<Text, _>(role.scopes.companies)
    .bind::<Text, _>(role.scopes.contacts)
    .bind::<Text, _>(role.scopes.deals)
    .bind::<Text, _>(role.scopes.interactions)
    .bind::<Timestamptz, _>(role.updated_at)
    .bind::<Integer, _>(role.version)
    .bind::<SqlUuid, _>(role.id)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Deletes a role that nobody has.
///
/// # Errors
/// As a user error when somebody has it.
pub(super) async fn delete(tx: &Transaction, id: Id<CustomRole>) -> Result<()> {
    let mut conn = tx.conn();
    let used: bool = diesel::select(exists(users::table.filter(users::custom_role_id.eq(id))))
        .get_result(&mut conn)
        .await?;
    if used {
        let message = "Users still have this role. Give them another one first.";
        return Err(Error::invalid("roleId", ProblemCode::InUse, message));
    }
    diesel::delete(custom_roles::table.filter(custom_roles::id.eq(id)))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Makes the tokens of all who have a role stale. Whoever commits it lets this process know
/// ([`crate::auth::Revocations::take_in`]).
///
/// # Errors
/// When the database fails.
pub(super) async fn make_tokens_stale(tx: &Transaction, id: Id<CustomRole>) -> Result<Vec<Revocation>> {
    let revoked = statement(
        "INSERT INTO revocations (id, user_id, revoked_at)
         SELECT gen_random_uuid(), id, clock_timestamp() FROM users WHERE custom_role_id = ?
         RETURNING tenant_id, user_id, session_id, kept_session_id, revoked_at",
    )
    .bind::<SqlUuid, _>(id);
    Ok(revoked.load(&mut tx.conn()).await?)
}
