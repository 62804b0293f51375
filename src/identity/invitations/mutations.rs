//! Inviting, and accepting an invitation.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;

use super::model::Invitation;
use super::queries;
use crate::auth::{self, Limiter, Permission, Policy, Role, password};
use crate::crypto;
use crate::db::directory::mailing::{self, Purpose};
use crate::db::directory::people::{self, Invited, Known};
use crate::db::directory::{self, Account, Membership, Taken, factors};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::events::Work;
use crate::graphql::input::Check;
use crate::graphql::{Can, ContextExt, Outcome, mutate_unless_done};
use crate::identity::mfa::{self, Admitted, By};
use crate::identity::recovery::{no_link, tell_tenants};
use crate::identity::roles;
use crate::identity::{self, CustomRole, SignInPayload, User, check_grant, revocations, rules_for};
use crate::mail::{Letter, Mail};

/// Days that an invitation can be accepted unless said otherwise.
const DAYS: i32 = 7;

/// A person to be invited.
#[derive(Debug, InputObject)]
pub struct InviteUserInput {
    /// The address that the invitation is mailed to.
    email: String,
    /// The name of the person; they can change it when they accept.
    name: Option<String>,
    /// What they may do once they have accepted: a role, no more powerful than your own, or else a `customRoleId`.
    role: Option<Role>,
    /// The role of the tenant's own that they get once they have accepted.
    custom_role_id: Option<Id<CustomRole>>,
    /// Days that the invitation can be accepted, 1 to 30; 7 when left out.
    expires_in_days: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// An invitation to be sent again.
#[derive(Debug, InputObject)]
pub struct ResendInvitationInput {
    /// The invitation.
    invitation_id: Id<Invitation>,
    /// Days from now that the invitation can be accepted, 1 to 30; 7 when left out.
    expires_in_days: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// An invitation to be revoked.
#[derive(Debug, InputObject)]
pub struct RevokeInvitationInput {
    /// The invitation.
    invitation_id: Id<Invitation>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Who accepts which invitation.
#[derive(Debug, InputObject)]
pub struct AcceptInvitationInput {
    /// What stands behind the `#` of the link that was mailed to you.
    #[graphql(secret)]
    token: String,
    /// Your name in the tenant; the one in the invitation when left out.
    name: Option<String>,
    /// The password that you want, when `mustSetPassword` of the invitation says so; the password of your account
    /// otherwise. It may be left out by who is signed in with this account already.
    #[graphql(secret)]
    password: Option<String>,
}

/// The answer to `inviteUser`.
#[derive(SimpleObject)]
pub struct InviteUserPayload {
    /// The invitation, which is on its way; null when there are `userErrors`.
    invitation: Option<Arc<Invitation>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `resendInvitation`.
#[derive(SimpleObject)]
pub struct ResendInvitationPayload {
    /// The invitation, which is on its way again; null when there are `userErrors`.
    invitation: Option<Arc<Invitation>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `revokeInvitation`.
#[derive(SimpleObject)]
pub struct RevokeInvitationPayload {
    /// The id of the invitation that is no more; null when there are `userErrors`.
    revoked_invitation_id: Option<Id<Invitation>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of invitations.
#[derive(Default)]
pub struct InvitationMutation;

#[Object]
impl InvitationMutation {
    /// Invites a person into the tenant: they get a link by mail, with which they become a user. The answer says nothing
    /// about whether they use Dealstream already. You can give no role that may do more than you; when you may no longer
    /// give the role by the time that it is accepted, the invitation is void until somebody who may sends it again.
    #[graphql(guard = "Can(Permission::UsersWrite)")]
    async fn invite_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whom to invite.")] input: InviteUserInput,
    ) -> Result<InviteUserPayload> {
        let (viewer, mail) = (ctx.viewer()?, mail(ctx));
        let key = input.idempotency_key.clone();
        count(ctx, viewer).await?;
        let (invitation, outcome) = mutate_unless_done(ctx, "inviteUser", key, async |work| {
            let mut check = Check::default();
            let email = check.email("email", input.email);
            if !email.is_empty() && !Mail::can_reach(&email) {
                check.problem(
                    "email",
                    ProblemCode::Invalid,
                    "No mail can be sent to this address.",
                );
            }
            let name = check.optional_line("name", input.name);
            let days = check_days(&mut check, input.expires_in_days);
            check.done()?;
            mail.require()?;
            let assigned = roles::assigned(work, viewer, input.role, input.custom_role_id).await?;
            let (role, custom_role_id) = assigned.ok_or_else(roles::unassigned)?;
            if queries::is_user(work, &email).await? {
                let message = "This is the address of a user already.";
                return Err(Error::invalid("email", ProblemCode::Duplicate, message));
            }
            let invitation = Invitation {
                id: Id::generate(),
                email,
                name,
                role,
                custom_role_id,
                invited_by_id: Some(Id::from_uuid(viewer.user_id)),
                created_at: work.now(),
                expires_at: work.now() + days,
            };
            queries::insert(work, &invitation).await?;
            work.record(invitation.id, "CREATED", &invitation)?;
            mail.post_with(work, &letter(work, &invitation)).await?;
            Ok(Arc::new(invitation))
        })
        .await?;
        mail.hurry();
        Ok(InviteUserPayload { invitation, outcome })
    }

    /// Sends an invitation again, with a new link, in your name. Earlier links are void from now on.
    #[graphql(guard = "Can(Permission::UsersWrite)")]
    async fn resend_invitation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which invitation to send again.")] input: ResendInvitationInput,
    ) -> Result<ResendInvitationPayload> {
        let (viewer, mail) = (ctx.viewer()?, mail(ctx));
        let key = input.idempotency_key.clone();
        count(ctx, viewer).await?;
        let (invitation, outcome) = mutate_unless_done(ctx, "resendInvitation", key, async |work| {
            let mut check = Check::default();
            let days = check_days(&mut check, input.expires_in_days);
            check.done()?;
            mail.require()?;
            let until = work.now() + days;
            let inviter = Id::from_uuid(viewer.user_id);
            let invitation = queries::renew(work, input.invitation_id, inviter, until).await?;
            let rights = roles::rights_in(work, invitation.role, invitation.custom_role_id).await?;
            check_grant(viewer, &rights, "invitationId")?;
            mailing::forget_links_of(work, invitation.id.uuid()).await?;
            work.record(invitation.id, "SENT_AGAIN", &invitation)?;
            mail.post_with(work, &letter(work, &invitation)).await?;
            Ok(Arc::new(invitation))
        })
        .await?;
        mail.hurry();
        Ok(ResendInvitationPayload { invitation, outcome })
    }

    /// Revokes an invitation. Its link is void from now on.
    #[graphql(guard = "Can(Permission::UsersWrite)")]
    async fn revoke_invitation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which invitation to revoke.")] input: RevokeInvitationInput,
    ) -> Result<RevokeInvitationPayload> {
        let key = input.idempotency_key.clone();
        let (revoked_invitation_id, outcome) =
            mutate_unless_done(ctx, "revokeInvitation", key, async |work| {
                let invitation = queries::remove(work, input.invitation_id).await?;
                mailing::forget_links_of(work, invitation.id.uuid()).await?;
                work.record(invitation.id, "REVOKED", &invitation)?;
                Ok(invitation.id)
            })
            .await?;
        Ok(RevokeInvitationPayload {
            revoked_invitation_id,
            outcome,
        })
    }

    /// Accepts an invitation and signs in to the tenant. Whoever has no account yet, or has never proved that its address
    /// is theirs, sets a password: that voids the account's earlier password, all its sessions and its API keys. Whoever has
    /// a verified account gives its password, or is signed in with it. A link can be used once.
    async fn accept_invitation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who accepts which invitation.")] input: AcceptInvitationInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, accept(ctx, input).await)
    }
}

fn mail<'a>(ctx: &Context<'a>) -> &'a Arc<Mail> {
    ctx.data_unchecked::<Arc<Mail>>()
}

/// Counts an invitation of the tenant: mail that others pay for with their patience.
async fn count(ctx: &Context<'_>, viewer: &auth::Viewer) -> Result<()> {
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    let tenant = viewer.tenant_id.to_string();
    limiter.take(Policy::Invitation, &tenant, 1).await
}

fn letter(work: &Work, invitation: &Invitation) -> Letter {
    Letter::Invitation {
        tenant_id: work.tenant(),
        invitation_id: invitation.id.uuid(),
    }
}

fn check_days(check: &mut Check, days: Option<i32>) -> TimeDelta {
    check.range("expiresInDays", days, 1..=30);
    TimeDelta::days(i64::from(days.unwrap_or(DAYS).clamp(1, 30)))
}

/// How who accepts has proved to be who they are.
enum Proof {
    /// They know the password of the account with this address, which was verified before.
    Account,
    /// They read the mail that was sent to the address; here is the hash of the password that they want.
    Mail(String),
}

async fn accept(ctx: &Context<'_>, input: AcceptInvitationInput) -> Result<Admitted> {
    let db = ctx.session().db();
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    limiter
        .take_from(Policy::MailedToken, ctx.session().origin(), 1)
        .await?;
    let token_hash = crypto::token_hash(&input.token);
    let invited = people::invited_by(db, &token_hash).await?.ok_or_else(no_link)?;
    let mut check = Check::default();
    let name = check
        .optional_line("name", input.name)
        .or_else(|| invited.name.clone());
    let name = check.line("name", name.as_deref().unwrap_or_default());
    check.done()?;
    // Hashing takes long; no transaction waits for it.
    let (proof, by) = prove(ctx, &invited, input.password, &name).await?;
    // The account's other tenants, to be told of a new password.
    let elsewhere = match (&proof, invited.account_id) {
        (Proof::Mail(_), Some(account)) => people::users_of(db, account).await?,
        _ => Vec::new(),
    };

    let user_id = Id::generate();
    let tx = db.begin(invited.tenant_id).await?;
    let work = Work::on(tx, ctx.session().hub().clone(), Some(user_id.uuid()));
    let mut work = work.coming_from(ctx.session().origin());
    // Before the invitation is taken, as whoever changes the inviter locks both in this order.
    let inviter = invited.inviter_id.map(Id::from_uuid);
    let given_by = match inviter {
        Some(inviter) => identity::member(&work, inviter).await?,
        None => None,
    };
    // Whoever accepts at the same time waits here, and finds nothing then.
    let invitation = queries::take(&work, Id::from_uuid(invited.invitation_id)).await?;
    let invitation = invitation.ok_or_else(no_link)?;
    let rights = roles::rights_in(&work, invitation.role, invitation.custom_role_id).await?;
    // An invitation gives what its inviter may give now, and not what they might when they sent it.
    let may_give = |(_, _, own): (_, _, auth::Rights)| {
        own.require(Permission::UsersWrite)?;
        roles::check_gift(&own, &rights, "token")
    };
    given_by
        .filter(|_| invitation.invited_by_id == inviter)
        .and_then(|member| may_give(member).ok())
        .ok_or_else(no_link)?;
    people::use_link(&work, Purpose::Invitation, &token_hash)
        .await?
        .ok_or_else(no_link)?;
    mailing::forget_links_of(&work, invitation.id.uuid()).await?;
    let (account, taken) = settle_account(&work, &invited, proof).await?;
    let user = User {
        id: user_id,
        name,
        email: invitation.email.clone(),
        role: invitation.role,
        custom_role_id: invitation.custom_role_id,
        is_active: true,
        created_at: work.now(),
        updated_at: work.now(),
        version: 1,
    };
    identity::insert_user(&work, &user, account).await?;
    work.record(invitation.id, "ACCEPTED", &json!({ "userId": user.id }))?;
    work.record(user.id, "CREATED", &user)?;
    let membership = Membership {
        tenant_id: work.tenant(),
        user_id: user.id.uuid(),
    };
    let account = factors::account_within(&work, membership.user_id).await?;
    work.finish().await?;
    revocations(ctx).take_in(&taken.revoked);
    tell_tenants(ctx, elsewhere, &taken).await;
    let account = account.ok_or(Error::Unavailable)?;
    let admitted = mfa::admit(ctx, &account, &membership, by).await?;
    admitted.ok_or(Error::Unavailable)
}

/// Checks that who accepts is who is invited: the link alone proves it where no account relies on its password yet.
async fn prove(
    ctx: &Context<'_>,
    invited: &Invited,
    given: Option<String>,
    name: &str,
) -> Result<(Proof, By)> {
    let db = ctx.session().db();
    let missing = || Error::invalid("password", ProblemCode::Required, "password must not be empty.");
    if !invited.is_verified {
        let given = given.ok_or_else(missing)?;
        let rules = match invited.account_id {
            Some(account) => people::password_rules(db, account).await?,
            None => None,
        };
        let of_tenant = people::password_rules_of_tenant(db, invited.tenant_id).await?;
        let rules = rules
            .into_iter()
            .chain(of_tenant)
            .reduce(people::PasswordRules::and);
        let mut check = Check::default();
        check.new_password("password", &given, &rules_for(rules, &[name, &invited.email]));
        check.done()?;
        return Ok((Proof::Mail(password::hash(given).await?), By::FirstFactor));
    }
    if let Some(viewer) = ctx.viewer().ok().filter(|viewer| viewer.in_person().is_ok()) {
        let own = directory::account_of(db, viewer.tenant_id, viewer.user_id).await?;
        if own.is_some_and(|own| Some(own.id) == invited.account_id) {
            return Ok((Proof::Account, By::session_of(viewer)));
        }
    }
    let given = given.ok_or_else(missing)?;
    // Who guesses passwords is held up here as when signing in.
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    let origin = ctx.session().origin();
    let attempt = limiter
        .attempt(
            Policy::SignInNetwork,
            origin,
            Policy::SignInAccount,
            &invited.email,
        )
        .await?;
    let wrong = || {
        let message = "This is not the password of the account with this address.";
        Error::invalid("password", ProblemCode::Invalid, message)
    };
    let verified = password::verify(given, invited.password_hash.clone()).await;
    let proved = verified.and_then(|right| right.then_some(()).ok_or_else(wrong));
    attempt.settle(proved).await?;
    Ok((Proof::Account, By::FirstFactor))
}

/// Makes the account be as it was proved; answers it, and what whoever had it until now has no longer.
async fn settle_account(work: &Work, invited: &Invited, proof: Proof) -> Result<(Uuid, Taken)> {
    // What has changed since it was read was changed by somebody else at this moment; to try again is all there is.
    let known =
        invited
            .account_id
            .zip(invited.password_hash.as_deref())
            .map(|(account_id, password_hash)| Known {
                account_id,
                password_hash,
            });
    match (known, proof) {
        (Some(known), Proof::Account) => {
            let still = people::is_still_verified(work, &known).await?;
            still
                .then_some((known.account_id, Taken::default()))
                .ok_or(Error::Unavailable)
        }
        (Some(known), Proof::Mail(password_hash)) => {
            let taken = people::hand_over_account(work, &known, &password_hash).await?;
            Ok((known.account_id, taken.ok_or(Error::Unavailable)?))
        }
        (None, Proof::Mail(password_hash)) => {
            let account = Account {
                id: Uuid::now_v7(),
                email: invited.email.clone(),
                password_hash,
                created_at: work.now(),
            };
            let free = people::insert_verified_account(work, &account).await?;
            free.then_some((account.id, Taken::default()))
                .ok_or(Error::Unavailable)
        }
        (None, Proof::Account) => Err(Error::Unavailable),
    }
}
