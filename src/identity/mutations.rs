//! Signing in and out, the tenant's users and settings.

use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};
use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use super::mfa::{self, Admitted, By, PendingSignIn};
use super::queries;
use super::refusals::Refusals;
use super::roles::{self, CustomRole, check_grant, rights_of};
use super::sessions::{self, Session, Which};
use super::types::Viewer;
use super::{SignedIn, Tenant, User};
use crate::auth::refusal::{Reason, Refused};
use crate::auth::strength::Rules;
use crate::auth::token::{Grant, Tokens};
use crate::auth::{self, Limiter, Permission, Policy, Revocations, Role, password};
use crate::db::directory::people::{self, PasswordRules};
use crate::db::directory::{self, Account, Membership, Revocation};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::events::Work;
use crate::graphql::input::{Check, Patch};
use crate::graphql::scalar::{CurrencyCode, DateTime};
use crate::graphql::{Can, ContextExt, InPerson, Outcome, Shown, mutate_unless_done};

/// Who signs in.
#[derive(Debug, InputObject)]
pub struct SignInInput {
    /// The address that you signed up with.
    email: String,
    /// Your password.
    #[graphql(secret)]
    password: String,
    /// The tenant to sign in to, when you belong to several; the first you joined when left out.
    tenant_id: Option<Id<Tenant>>,
}

/// Changes of the tenant's settings. What is left out stays as it is.
#[derive(Debug, InputObject)]
pub struct UpdateTenantInput {
    /// The name.
    name: MaybeUndefined<String>,
    /// The currency of sums, and of amounts for which none is given. Existing deals keep theirs.
    currency_code: MaybeUndefined<CurrencyCode>,
    /// The time zone, by its name in the IANA time zone database, for example `Europe/Berlin`.
    time_zone: MaybeUndefined<String>,
    /// Characters that passwords have at least, 10 to 128. It holds from the next time that somebody sets one; for who
    /// belongs to several tenants the strictest decides.
    min_password_length: MaybeUndefined<i32>,
    /// Whether everybody needs a second factor to get in. When it is switched on, the sessions end of all who have none:
    /// they set one up when they sign in again. Set one up for yourself first.
    mfa_required: MaybeUndefined<bool>,
    /// Days after which everybody has to sign in again, 1 to 90. What is shorter than before holds for open sessions too.
    session_days: MaybeUndefined<i32>,
    /// Minutes without a refresh after which a session ends, 1 to 43,200. What is shorter than before holds for open
    /// sessions too.
    idle_minutes: MaybeUndefined<i32>,
    /// The version that you know. When the tenant has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A person to be added to the tenant.
#[derive(Debug, InputObject)]
pub struct CreateUserInput {
    /// The name; 200 characters at most.
    name: String,
    /// The address that they will sign in with.
    email: String,
    /// A first password for them to sign in with and then to change: 10 characters at least, 1,024 bytes at most. Whoever
    /// signs in with this address already, because they belong to another tenant, keeps the password that they have.
    #[graphql(secret)]
    password: String,
    /// What they may do: a role, no more powerful than your own, or else a `customRoleId`.
    role: Option<Role>,
    /// The role of the tenant's own that they get.
    custom_role_id: Option<Id<CustomRole>>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once. It
    /// is remembered for seven days. The password is not compared.
    idempotency_key: Option<String>,
}

/// Changes of a user. What is left out stays as it is.
#[derive(Debug, InputObject)]
pub struct UpdateUserInput {
    /// The user to change.
    user_id: Id<User>,
    /// The name; 200 characters at most.
    name: MaybeUndefined<String>,
    /// What the user may do: a role, no more powerful than your own, or else a `customRoleId`. Null is as if left out.
    role: Option<Role>,
    /// The role of the tenant's own that the user gets. Null is as if left out.
    custom_role_id: Option<Id<CustomRole>>,
    /// Whether the user may sign in to this tenant.
    is_active: MaybeUndefined<bool>,
    /// The version that you know. When the user has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A user to be removed from the tenant.
#[derive(Debug, InputObject)]
pub struct DeleteUserInput {
    /// The user to remove.
    user_id: Id<User>,
    /// The version that you know. When the user has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A new password for yourself.
#[derive(Debug, InputObject)]
pub struct ChangePasswordInput {
    /// The password that you have.
    #[graphql(secret)]
    current_password: String,
    /// The password that you want: 10 characters at least, 1,024 bytes at most.
    #[graphql(secret)]
    new_password: String,
    /// A text of your choice that makes a retry safe: the same key is answered the same, and done once. It is remembered
    /// for seven days. The passwords are not compared.
    idempotency_key: Option<String>,
}

/// The answer to `signUp`, `signIn` and `refreshSession`.
#[derive(SimpleObject)]
pub struct SignInPayload {
    /// The access token. Send it as `Authorization: Bearer …` with every request. Null when there are `userErrors`.
    access_token: Option<String>,
    /// When the access token ends.
    expires_at: Option<DateTime>,
    /// What `refreshSession` takes for the next access token, once. Keep it as safe as a password. Null when there are
    /// `userErrors`.
    refresh_token: Option<String>,
    /// When the session ends unless it is refreshed before.
    refresh_expires_at: Option<DateTime>,
    /// Whether a link was mailed that has to be followed first: then there is no access token yet.
    must_confirm: bool,
    /// You, in the tenant that you have signed in to.
    viewer: Option<Viewer>,
    /// What is still needed, when the first factor was right and a second one has to be shown or set up. There is no
    /// access token then.
    second_factor: Option<PendingSignIn>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `createUser`.
#[derive(SimpleObject)]
pub struct CreateUserPayload {
    /// The new user; null when there are `userErrors`.
    user: Option<Shown<queries::UserById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updateUser`.
#[derive(SimpleObject)]
pub struct UpdateUserPayload {
    /// The user as it is now; null when there are `userErrors`.
    user: Option<Shown<queries::UserById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deleteUser`.
#[derive(SimpleObject)]
pub struct DeleteUserPayload {
    /// The id of the user that is no more; null when there are `userErrors`.
    deleted_user_id: Option<Id<User>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `changePassword`.
#[derive(SimpleObject)]
pub struct ChangePasswordPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updateTenant`.
#[derive(SimpleObject)]
pub struct UpdateTenantPayload {
    /// The tenant as it is now; null when there are `userErrors`.
    tenant: Option<Arc<Tenant>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of tenants, and signing in.
#[derive(Default)]
pub struct IdentityMutation;

#[Object]
impl IdentityMutation {
    /// Signs in. The answer to an unknown address and to a wrong password is the same.
    async fn sign_in(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who signs in.")] input: SignInInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, sign_in(ctx, input).await)
    }

    /// Changes your password, in every tenant that you belong to. All your other sessions end; this one goes on.
    #[graphql(guard = "InPerson")]
    async fn change_password(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The password that you have, and the one that you want.")]
        input: ChangePasswordInput,
    ) -> Result<ChangePasswordPayload> {
        let viewer = ctx.viewer()?;
        let key = input.idempotency_key.clone();
        // Hashing takes long; no transaction waits for it.
        let checked = check_passwords(ctx, viewer, input).await;
        let mut revoked = Vec::new();
        let (_, outcome) = mutate_unless_done(ctx, "changePassword", key, async |work| {
            let (account, new) = checked?;
            let ended = directory::change_password(work, &account, &new, viewer.session_id).await?;
            revoked = ended.ok_or_else(wrong_password)?;
            let session = Id::<Session>::from_uuid(viewer.session_id);
            work.record(session, "PASSWORD_CHANGED", &json!({}))
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(ChangePasswordPayload { outcome })
    }

    /// Adds a person to the tenant, who can sign in from now on with the address and the password that you give. Whoever
    /// has this address and belongs to another tenant already becomes a user of this one too: they sign in with the
    /// password that they have, and choose the tenant by `tenantId`, once they have proved that the address is theirs. The
    /// answer is the same in both cases. `inviteUser` lets people choose their own password, and proves the address.
    #[graphql(guard = "Can(Permission::UsersWrite)")]
    async fn create_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whom to add.")] input: CreateUserInput,
    ) -> Result<CreateUserPayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let (role, custom_role_id) = (input.role, input.custom_role_id);
        let checked = check_new_user(ctx, input).await;
        let (user, outcome) = mutate_unless_done(ctx, "createUser", key, async |work| {
            let (name, email, password_hash) = checked?;
            let assigned = roles::assigned(work, viewer, role, custom_role_id).await?;
            let (role, custom_role_id) = assigned.ok_or_else(roles::unassigned)?;
            let account = Account {
                id: Uuid::now_v7(),
                email,
                password_hash,
                created_at: work.now(),
            };
            let user = User {
                id: Id::generate(),
                name,
                email: account.email.clone(),
                role,
                custom_role_id,
                is_active: true,
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            let there = directory::account_for(work, &account).await?;
            queries::insert_user(work, &user, there).await?;
            queries::await_verification(work, &user, account.id).await?;
            work.record(user.id, "CREATED", &user)?;
            Ok(Arc::new(user))
        })
        .await?;
        Ok(CreateUserPayload {
            user: user.map(Shown),
            outcome,
        })
    }

    /// Changes a user. With another role, the access tokens that they have end at once, and refreshing their session gives
    /// them one with the new rights. When deactivated, the user is signed out everywhere. The last active admin can be
    /// neither deactivated nor given another role.
    #[graphql(guard = "Can(Permission::UsersWrite)")]
    async fn update_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateUserInput,
    ) -> Result<UpdateUserPayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let mut revoked = Vec::new();
        let (user, outcome) = mutate_unless_done(ctx, "updateUser", key, async |work| {
            let mut user = queries::user_for_update(work, input.user_id).await?;
            let before = user.clone();
            let (mut check, mut patch) = (Check::default(), Patch::default());
            patch.set("name", &mut user.name, check.given_line("name", input.name));
            let assigned = roles::assigned(work, viewer, input.role, input.custom_role_id).await?;
            let (role, custom_role_id) = assigned.unzip();
            patch.set("role", &mut user.role, role);
            patch.set("customRoleId", &mut user.custom_role_id, custom_role_id);
            patch.set(
                "isActive",
                &mut user.is_active,
                check.given("isActive", input.is_active),
            );
            patch.expect_version(input.expected_version, user.version)?;
            if is_admin(&before) && !is_admin(&user) && !people::another_admin(work, user.id.uuid()).await? {
                let field = if user.is_active { "role" } else { "isActive" };
                check.problem(field, ProblemCode::NotAllowed, LAST_ADMIN);
            }
            check.done()?;
            check_grant(viewer, &rights_of(work, &before).await?, "userId")?;
            if !patch.is_empty() {
                user.version += 1;
                user.updated_at = work.now();
                queries::update_user(work, &user).await?;
                work.record(user.id, "UPDATED", &patch.change(&user))?;
            }
            if before.is_active && !user.is_active {
                revoked.push(sessions::end(work, user.id, Which::All).await?);
            } else if (user.role, user.custom_role_id) != (before.role, before.custom_role_id) {
                revoked.push(sessions::revoke(work, user.id, None).await?);
            }
            Ok(Arc::new(user))
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(UpdateUserPayload {
            user: user.map(Shown),
            outcome,
        })
    }

    /// Removes a user from the tenant. Refused with `IN_USE` when records refer to the user, as their owner or because
    /// they made or moved them: deactivate the user then. The last active admin cannot be removed. Whoever belongs to
    /// no tenant any more can no longer sign in at all, and their password is forgotten.
    #[graphql(guard = "Can(Permission::UsersWrite)")]
    async fn delete_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whom to remove.")] input: DeleteUserInput,
    ) -> Result<DeleteUserPayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let mut revoked = Vec::new();
        let (deleted_user_id, outcome) = mutate_unless_done(ctx, "deleteUser", key, async |work| {
            let user = queries::user_for_update(work, input.user_id).await?;
            Patch::default().expect_version(input.expected_version, user.version)?;
            check_grant(viewer, &rights_of(work, &user).await?, "userId")?;
            if is_admin(&user) && !people::another_admin(work, user.id.uuid()).await? {
                return Err(Error::invalid("userId", ProblemCode::NotAllowed, LAST_ADMIN));
            }
            queries::delete_user(work, user.id).await?;
            work.record(user.id, "DELETED", &user)?;
            // Their sessions have gone with them.
            revoked.push(sessions::revoke(work, user.id, None).await?);
            Ok(user.id)
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(DeleteUserPayload {
            deleted_user_id,
            outcome,
        })
    }

    /// Changes the tenant's settings.
    #[graphql(guard = "Can(Permission::TenantWrite)")]
    async fn update_tenant(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateTenantInput,
    ) -> Result<UpdateTenantPayload> {
        let key = input.idempotency_key.clone();
        let mut revoked = Vec::new();
        let (tenant, outcome) = mutate_unless_done(ctx, "updateTenant", key, async |work| {
            let mut tenant = queries::tenant_for_update(work).await?;
            let was_required = tenant.mfa_required;
            let (mut check, mut patch) = (Check::default(), Patch::default());
            patch.set("name", &mut tenant.name, check.given_line("name", input.name));
            patch.set(
                "currencyCode",
                &mut tenant.currency_code,
                check.given("currencyCode", input.currency_code),
            );
            let time_zone = check
                .given("timeZone", input.time_zone)
                .map(|zone| check.line("timeZone", &zone));
            let min_password_length = check.given("minPasswordLength", input.min_password_length);
            let session_days = check.given("sessionDays", input.session_days);
            let idle_minutes = check.given("idleMinutes", input.idle_minutes);
            check.range("minPasswordLength", min_password_length, 10..=128);
            check.range("sessionDays", session_days, 1..=90);
            check.range("idleMinutes", idle_minutes, 1..=43_200);
            if let Some(zone) = &time_zone
                && !queries::is_time_zone(work, zone).await?
            {
                let message = "This is not the name of a time zone, such as Europe/Berlin.";
                check.problem("timeZone", ProblemCode::Invalid, message);
            }
            patch.set("timeZone", &mut tenant.time_zone, time_zone);
            patch.set(
                "minPasswordLength",
                &mut tenant.min_password_length,
                min_password_length,
            );
            patch.set(
                "mfaRequired",
                &mut tenant.mfa_required,
                check.given("mfaRequired", input.mfa_required),
            );
            patch.set("sessionDays", &mut tenant.session_days, session_days);
            patch.set("idleMinutes", &mut tenant.idle_minutes, idle_minutes);
            patch.expect_version(input.expected_version, tenant.version)?;
            check.done()?;
            if tenant.mfa_required && !was_required {
                revoked = mfa::require_of_all(work).await?;
            }
            if !patch.is_empty() {
                tenant.version += 1;
                tenant.updated_at = work.now();
                queries::update_tenant(work, &tenant).await?;
                work.record(tenant.id, "UPDATED", &patch.change(&tenant))?;
            }
            Ok(Arc::new(tenant))
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(UpdateTenantPayload { tenant, outcome })
    }
}

impl SignInPayload {
    /// The answer to who has to follow a link first.
    ///
    /// # Errors
    /// None.
    pub fn to_be_confirmed(ctx: &Context<'_>) -> Result<Self> {
        // Nothing is wrong, and nobody is signed in.
        let nobody = Self::of(ctx, Err::<Admitted, _>(Error::Invalid(Vec::new())))?;
        Ok(Self {
            must_confirm: true,
            ..nobody
        })
    }

    /// The answer to who has proved, or failed to prove, to be a user of a tenant; the token is issued here.
    ///
    /// # Errors
    /// Passes on what is not a person's to mend.
    pub fn of(ctx: &Context<'_>, proved: Result<impl Into<Admitted>>) -> Result<Self> {
        let (proved, outcome) = Outcome::of(proved)?;
        let payload = Self {
            access_token: None,
            expires_at: None,
            refresh_token: None,
            refresh_expires_at: None,
            must_confirm: false,
            viewer: None,
            second_factor: None,
            outcome,
        };
        let signed_in = match proved.map(Into::into) {
            None => return Ok(payload),
            Some(Admitted::Pending(pending)) => {
                let second_factor = Some(pending);
                return Ok(Self {
                    second_factor,
                    ..payload
                });
            }
            Some(Admitted::SignedIn(signed_in)) => signed_in,
        };
        // Who they are may have changed by what let them in.
        ctx.session().finish();
        let tokens = ctx.data_unchecked::<Arc<Tokens>>();
        let SignedIn {
            tenant,
            user,
            rights,
            ticket,
            position,
        } = *signed_in;
        let grant = Grant {
            tenant_id: tenant.id.uuid(),
            user_id: user.id.uuid(),
            session_id: ticket.session_id,
            token_id: ticket.token_id,
            rights: Arc::new(rights),
            ends_at: Some(ticket.ends_at),
        };
        let (token, viewer) = tokens.issue(grant, Utc::now())?;
        Ok(Self {
            access_token: Some(token),
            expires_at: Some(viewer.expires_at.into()),
            refresh_token: Some(ticket.refresh_token.expose().to_owned()),
            refresh_expires_at: Some(ticket.ends_at.into()),
            must_confirm: false,
            viewer: Some(Viewer::signed_in(viewer, Arc::new(tenant), Arc::new(user))),
            outcome: payload.outcome.with_position(position),
            second_factor: None,
        })
    }
}

const LAST_ADMIN: &str = "This is the tenant's last active admin. Make somebody else an admin first.";

/// Who keeps the tenant from being locked out of its own settings.
fn is_admin(user: &User) -> bool {
    user.role == Role::Admin && user.is_active
}

/// Removes a user from the tenant by their own will, or deactivates them when records refer to them. Answers whether they
/// were kept, and the end of their sessions. Who does not see all records cannot tell whether any refers to them, and is
/// kept.
pub(super) async fn leave(work: &mut Work, viewer: &auth::Viewer) -> Result<(bool, Revocation)> {
    let user = Id::from_uuid(viewer.user_id);
    let mut user = queries::user_for_update(work, user).await?;
    if is_admin(&user) && !people::another_admin(work, user.id.uuid()).await? {
        return Err(Error::invalid("", ProblemCode::NotAllowed, LAST_ADMIN));
    }
    let kept = viewer.rights.reach().is_limited()
        || match queries::delete_user(work, user.id).await {
            Ok(()) => false,
            Err(Error::Invalid(_)) => true,
            Err(error) => return Err(error),
        };
    if kept {
        let mut patch = Patch::default();
        patch.set("isActive", &mut user.is_active, Some(false));
        user.version += 1;
        user.updated_at = work.now();
        queries::update_user(work, &user).await?;
        work.record(user.id, "UPDATED", &patch.change(&user))?;
        return Ok((kept, sessions::end(work, user.id, Which::All).await?));
    }
    work.record(user.id, "DELETED", &user)?;
    Ok((kept, sessions::revoke(work, user.id, None).await?))
}

/// What this process knows of ended sessions. What has just been committed is told to it at once.
pub(super) fn revocations<'a>(ctx: &Context<'a>) -> &'a Revocations {
    ctx.data_unchecked::<Arc<Revocations>>()
}

/// Checks a new user; answers name, e-mail address and the hash of the password.
async fn check_new_user(ctx: &Context<'_>, input: CreateUserInput) -> Result<(String, String, String)> {
    let (db, tenant) = (ctx.session().db(), ctx.viewer()?.tenant_id);
    let rules = people::password_rules_of_tenant(db, tenant).await?;
    let mut check = Check::default();
    let name = check.line("name", &input.name);
    let email = check.email("email", input.email);
    check.new_password("password", &input.password, &rules_for(rules, &[&name, &email]));
    check.done()?;
    // Hashing is dear, and those who sign in wait in the same line.
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    limiter.take(Policy::Invitation, &tenant.to_string(), 1).await?;
    Ok((name, email, password::hash(input.password).await?))
}

/// The rules for a password that somebody sets, of whom others know these names and addresses besides.
pub(super) fn rules_for(rules: Option<PasswordRules>, known: &[&str]) -> Rules {
    let min_length = rules.as_ref().map_or(0, |rules| rules.min_length);
    let words = rules.iter().flat_map(|rules| &rules.words).map(String::as_str);
    let known: Vec<&str> = words.chain(known.iter().copied()).collect();
    Rules::new(usize::try_from(min_length).unwrap_or_default(), &known)
}

fn wrong_password() -> Error {
    Error::invalid(
        "currentPassword",
        ProblemCode::Invalid,
        "This is not your current password.",
    )
}

/// Proves who changes their password; answers their account and the hash of the new password.
async fn check_passwords(
    ctx: &Context<'_>,
    viewer: &auth::Viewer,
    input: ChangePasswordInput,
) -> Result<(Account, String)> {
    let db = ctx.session().db();
    let account = directory::account_of(db, viewer.tenant_id, viewer.user_id).await?;
    let rules = match &account {
        Some(account) => people::password_rules(db, account.id).await?,
        None => None,
    };
    let mut check = Check::default();
    check.new_password("newPassword", &input.new_password, &rules_for(rules, &[]));
    check.done()?;
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let user = viewer.user_id.to_string();
    let email = account.as_ref().map_or(&user, |account| &account.email);
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    let origin = ctx.session().origin();
    // Who succeeds again and again keeps others waiting, too.
    limiter.take(Policy::PasswordReset, &user, 1).await?;
    let attempt = limiter
        .attempt(Policy::SignInNetwork, origin, Policy::SignInAccount, email)
        .await?;
    let proved = password::verify(input.current_password, hash).await;
    let account = proved.and_then(|proved| account.filter(|_| proved).ok_or_else(wrong_password));
    let account = attempt.settle(account).await?;
    Ok((account, password::hash(input.new_password).await?))
}

async fn sign_in(ctx: &Context<'_>, input: SignInInput) -> Result<Admitted> {
    let email = input.email.trim().to_lowercase();
    // Counted under the address as it was given, whether there is such an account or not: nothing can be told from it.
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    let origin = ctx.session().origin();
    let attempt = limiter
        .attempt(Policy::SignInNetwork, origin, Policy::SignInAccount, &email)
        .await?;
    attempt.settle(let_in(ctx, input, email).await).await
}

/// Where somebody comes to who may come in to these tenants: to the one that they want, or else to the first.
pub(super) fn choose(memberships: Vec<Membership>, wanted: Option<Uuid>) -> Option<Membership> {
    let is_meant = |membership: &Membership| wanted.is_none_or(|tenant| membership.tenant_id == tenant);
    memberships.into_iter().find(is_meant)
}

async fn let_in(ctx: &Context<'_>, input: SignInInput, email: String) -> Result<Admitted> {
    let refused = || Error::Unauthenticated("The e-mail address or the password is wrong.");
    // No address of ours is that long, and no text in PostgreSQL has a NUL.
    let findable = email.len() <= 1000 && !email.contains('\0');
    let db = ctx.session().db();
    let found = if findable {
        directory::find_account(db, &email).await?
    } else {
        None
    };
    let (account, memberships) = found.unzip();
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    // The password is checked in any case, so that an unknown address takes as long as a known one.
    let proved = password::verify(input.password, hash).await?;
    let tenant_id = input.tenant_id.map(|tenant| tenant.uuid());
    let origin = ctx.session().origin();
    let tell = |account: &Account, reason| {
        let (by, account_id) = ("password".to_owned(), account.id);
        let told = Refused {
            account_id,
            tenant_id,
            by,
            reason,
        };
        Refusals::of(ctx).tell(origin, told);
    };
    let Some(account) = account else {
        tracing::warn!(
            target: "security",
            ip = origin.ip.map(tracing::field::display), request = %origin.request_id, known = false,
            "a sign-in was refused"
        );
        return Err(refused());
    };
    if !proved {
        tell(&account, Reason::WrongPassword);
        return Err(refused());
    }
    let admitted = match choose(memberships.unwrap_or_default(), tenant_id) {
        Some(membership) => mfa::admit(ctx, &account, &membership, By::FirstFactor).await?,
        None => None,
    };
    admitted.ok_or_else(|| {
        tell(&account, Reason::NotAdmitted);
        refused()
    })
}
