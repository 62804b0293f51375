//! Invitations in the schema.

use async_graphql::{Context, Object, SimpleObject};
use chrono::Utc;

use super::model::{Invitation, InvitationOrderField};
use crate::auth::{Permission, Role};
use crate::crypto;
use crate::db::directory::people::{self, Invited};
use crate::db::id::Id;
use crate::db::select::Predicate;
use crate::error::Result;
use crate::graphql::connection::{Cursor, paged};
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, Connection, ContextExt, OrderDirection, PageArgs, Record};
use crate::identity::{CustomRole, CustomRoleById, User, UserById};

/// A person who has been invited and has not accepted yet.
#[Object]
impl Invitation {
    /// The invitation's id, for example `invitation_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Invitation> {
        self.id
    }

    /// The address that the invitation was mailed to.
    async fn email(&self) -> &str {
        &self.email
    }

    /// The name of the person, as who invited them wrote it.
    async fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What the person may do once they have accepted.
    async fn role(&self) -> Role {
        self.role
    }

    /// The role of the tenant's own that the person gets, if it is one.
    async fn custom_role(&self, ctx: &Context<'_>) -> Option<Result<Record<CustomRole>>> {
        ctx.relation::<CustomRoleById>(self.custom_role_id).await
    }

    /// Who invited the person; null when they have left.
    async fn invited_by(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.invited_by_id).await
    }

    /// When the person was invited.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the invitation ends. It can be sent again.
    async fn expires_at(&self) -> DateTime {
        self.expires_at.into()
    }

    /// Whether the invitation has ended.
    async fn is_expired(&self) -> bool {
        self.expires_at <= Utc::now()
    }
}

/// An invitation as who has its link sees it.
#[derive(SimpleObject)]
pub struct InvitationPreview {
    /// The name of the tenant.
    tenant_name: String,
    /// Who invites; null when they have left.
    inviter_name: Option<String>,
    /// The address that is invited.
    email: String,
    /// The name, as who invited wrote it.
    name: Option<String>,
    /// When the invitation ends.
    expires_at: DateTime,
    /// Whether accepting sets a new password. Otherwise there is an account already, and its password is asked for.
    must_set_password: bool,
}

impl From<Invited> for InvitationPreview {
    fn from(invited: Invited) -> Self {
        Self {
            must_set_password: !invited.is_verified,
            tenant_name: invited.tenant_name,
            inviter_name: invited.inviter_name,
            email: invited.email,
            name: invited.name,
            expires_at: invited.expires_at.into(),
        }
    }
}

/// Invitations at the root of the schema.
#[derive(Default)]
pub struct InvitationQuery;

#[Object]
impl InvitationQuery {
    /// The invitation that a mailed link leads to; null when the link is not valid, or no longer. Needs no access token.
    async fn invitation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What stands behind the `#` of the link.")] token: String,
    ) -> Option<Result<InvitationPreview>> {
        let _turn = ctx.session().aside().await;
        let token = crypto::token_hash(&token);
        let found = Box::pin(people::invited_by(ctx.session().db(), &token)).await;
        found.map(|found| found.map(InvitationPreview::from)).transpose()
    }

    /// Those who have been invited into the tenant and have not accepted yet, the latest first.
    #[graphql(guard = "Can(Permission::UsersWrite)")]
    async fn invitations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Invitation>> {
        let order = (InvitationOrderField::CreatedAt, OrderDirection::Desc);
        let args = PageArgs::new(first, after, last, before);
        paged(ctx, args, order, || Ok(Predicate::all([]))).await
    }
}
