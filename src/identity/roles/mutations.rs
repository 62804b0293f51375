//! Changing a tenant's own roles.

use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};

use super::types::RecordScopesInput;
use super::{CustomRole, queries};
use crate::auth::{Permission, Reach, Revocations, Rights, Role, Viewer};
use crate::db::id::Id;
use crate::db::session::Transaction;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::input::{Check, Patch};
use crate::graphql::{Can, ContextExt, Outcome, Shown, mutate, mutate_unless_done};

/// A role to be added.
#[derive(Debug, InputObject)]
pub struct CreateRoleInput {
    /// The name; 200 characters at most. No other role of the tenant has it.
    name: String,
    /// What the role is for; 20,000 characters at most.
    description: Option<String>,
    /// What the role permits: nothing that you may not do yourself.
    permissions: Vec<Permission>,
    /// Whose records the role reaches: no more than you reach yourself.
    scopes: Option<RecordScopesInput>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Changes of a role. What is left out stays as it is; null takes a value away that may be missing.
#[derive(Debug, InputObject)]
pub struct UpdateRoleInput {
    /// The role to change.
    role_id: Id<CustomRole>,
    /// The name; 200 characters at most. No other role of the tenant has it.
    name: MaybeUndefined<String>,
    /// What the role is for; 20,000 characters at most.
    description: MaybeUndefined<String>,
    /// Everything that the role permits from now on: nothing that you may not do yourself.
    permissions: MaybeUndefined<Vec<Permission>>,
    /// Whose records the role reaches: no more than you reach yourself.
    scopes: MaybeUndefined<RecordScopesInput>,
    /// The version that you know. When the role has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A role to be deleted.
#[derive(Debug, InputObject)]
pub struct DeleteRoleInput {
    /// The role to delete.
    role_id: Id<CustomRole>,
    /// The version that you know. When the role has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `createRole`.
#[derive(SimpleObject)]
pub struct CreateRolePayload {
    /// The new role; null when there are `userErrors`.
    role: Option<Shown<queries::CustomRoleById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updateRole`.
#[derive(SimpleObject)]
pub struct UpdateRolePayload {
    /// The role as it is now; null when there are `userErrors`.
    role: Option<Shown<queries::CustomRoleById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deleteRole`.
#[derive(SimpleObject)]
pub struct DeleteRolePayload {
    /// The id of the role that is no more; null when there are `userErrors`.
    deleted_role_id: Option<Id<CustomRole>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Refuses to give or to take rights that the viewer does not have: nobody can make anybody, or any key, more powerful
/// than they are, nor meddle with who is. Only an admin makes an admin.
///
/// # Errors
/// As a user error on `field`, which names the permissions that are missing.
pub fn check_grant(viewer: &Viewer, rights: &Rights, field: &str) -> Result<()> {
    check_gift(&viewer.rights, rights, field)
}

/// As [`check_grant`], for who has these rights of their `own`.
///
/// # Errors
/// As [`check_grant`].
pub(in crate::identity) fn check_gift(own: &Rights, rights: &Rights, field: &str) -> Result<()> {
    let refused = |message: String| Err(Error::invalid(field, ProblemCode::NotAllowed, message));
    if rights.role == Role::Admin && own.role != Role::Admin {
        return refused("Only an admin can do this with an admin.".to_owned());
    }
    let missing = rights.permissions().without(own.permissions());
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(Permission::name).collect();
        return refused(format!(
            "You do not have these permissions yourself: {}.",
            names.join(", ")
        ));
    }
    if !rights.are_within(own) {
        return refused("Your own rights do not reach as many records.".to_owned());
    }
    Ok(())
}

/// The role that is to be given to a user, if any is, by a viewer who may.
///
/// # Errors
/// As user errors on `role` and `customRoleId`.
pub(in crate::identity) async fn assigned(
    tx: &Transaction,
    viewer: &Viewer,
    role: Option<Role>,
    custom: Option<Id<CustomRole>>,
) -> Result<Option<(Role, Option<Id<CustomRole>>)>> {
    match (role, custom) {
        (None, None) => Ok(None),
        (Some(Role::Custom), None) => {
            let message = "Say which of the tenant's own roles.";
            Err(Error::invalid("customRoleId", ProblemCode::Required, message))
        }
        (Some(Role::Custom) | None, Some(id)) => {
            let role = queries::find(tx, id, "customRoleId").await?;
            check_grant(viewer, &role.rights(), "customRoleId")?;
            Ok(Some((Role::Custom, Some(id))))
        }
        (Some(_), Some(_)) => {
            let message = "Give either a role or a role of the tenant's own, not both.";
            Err(Error::invalid("customRoleId", ProblemCode::NotAllowed, message))
        }
        (Some(role), None) => {
            check_grant(viewer, &Rights::of(role), "role")?;
            Ok(Some((role, None)))
        }
    }
}

/// When a new user is to be given none.
pub(in crate::identity) fn unassigned() -> Error {
    Error::invalid("role", ProblemCode::Required, "Say what the user may do.")
}

fn names(permissions: Vec<Permission>) -> Vec<String> {
    // In the order of the policy, each once.
    let permissions: crate::auth::Permissions = permissions.into_iter().collect();
    permissions
        .iter()
        .map(|permission| permission.name().to_owned())
        .collect()
}

/// Mutations of the tenant's own roles.
#[derive(Default)]
pub struct RoleMutation;

#[Object]
impl RoleMutation {
    /// Adds a role of the tenant's own. Give it to users with `updateUser` and `customRoleId`.
    #[graphql(guard = "Can(Permission::RolesWrite)")]
    async fn create_role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to add.")] input: CreateRoleInput,
    ) -> Result<CreateRolePayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let (role, outcome) = mutate(ctx, "createRole", key, async |work| {
            let mut check = Check::default();
            let role = CustomRole {
                id: Id::generate(),
                name: check.line("name", &input.name),
                description: check.optional_text("description", input.description),
                permissions: names(input.permissions),
                scopes: input.scopes.unwrap_or_default().over(Reach::ALL.into()),
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            check.done()?;
            check_role(viewer, &role)?;
            queries::insert(work, &role).await?;
            work.record(role.id, "CREATED", &role)?;
            Ok(Arc::new(role))
        })
        .await?;
        Ok(CreateRolePayload {
            role: role.map(Shown),
            outcome,
        })
    }

    /// Changes a role. Access tokens of all who have it end with that; the next ones, which a client gets by refreshing or
    /// signing in, carry the new rights. Refused with `NOT_ALLOWED` when the role permits, or is to permit, what you may
    /// not do yourself.
    #[graphql(guard = "Can(Permission::RolesWrite)")]
    async fn update_role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateRoleInput,
    ) -> Result<UpdateRolePayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let mut revoked = Vec::new();
        let (role, outcome) = mutate_unless_done(ctx, "updateRole", key, async |work| {
            let mut role = queries::find_for_update(work, input.role_id).await?;
            let before = role.clone();
            let (mut check, mut patch) = (Check::default(), Patch::default());
            let name = check.given_line("name", input.name);
            patch.set("name", &mut role.name, name);
            let description = check.patch("description", input.description, Check::optional_text);
            patch.set_or_clear("description", &mut role.description, description);
            patch.set(
                "permissions",
                &mut role.permissions,
                check.given("permissions", input.permissions).map(names),
            );
            let scopes = check
                .given("scopes", input.scopes)
                .map(|scopes| scopes.over(before.scopes));
            patch.set("scopes", &mut role.scopes, scopes);
            patch.expect_version(input.expected_version, role.version)?;
            check.done()?;
            check_grant(viewer, &before.rights(), "roleId")?;
            check_role(viewer, &role)?;
            if !patch.is_empty() {
                role.version += 1;
                role.updated_at = work.now();
                queries::update(work, &role).await?;
                work.record(role.id, "UPDATED", &patch.change(&role))?;
            }
            if role.rights() != before.rights() {
                revoked = queries::make_tokens_stale(work, role.id).await?;
            }
            Ok(Arc::new(role))
        })
        .await?;
        ctx.data_unchecked::<Arc<Revocations>>().take_in(&revoked);
        Ok(UpdateRolePayload {
            role: role.map(Shown),
            outcome,
        })
    }

    /// Deletes a role. Refused with `IN_USE` while somebody has it.
    #[graphql(guard = "Can(Permission::RolesWrite)")]
    async fn delete_role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to delete.")] input: DeleteRoleInput,
    ) -> Result<DeleteRolePayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let (deleted_role_id, outcome) = mutate(ctx, "deleteRole", key, async |work| {
            let role = queries::find_for_update(work, input.role_id).await?;
            Patch::default().expect_version(input.expected_version, role.version)?;
            check_grant(viewer, &role.rights(), "roleId")?;
            queries::delete(work, role.id).await?;
            work.record(role.id, "DELETED", &role)?;
            Ok(role.id)
        })
        .await?;
        Ok(DeleteRolePayload {
            deleted_role_id,
            outcome,
        })
    }
}

/// Refuses a role that would permit more than the viewer may, or reach further.
fn check_role(viewer: &Viewer, role: &CustomRole) -> Result<()> {
    let reaches = role.scopes.reach().is_within(viewer.rights.reach());
    check_grant(
        viewer,
        &role.rights(),
        if reaches { "permissions" } else { "scopes" },
    )
}
