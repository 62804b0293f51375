//! Permissions of root fields.

use async_graphql::{Context, Guard};

use super::ContextExt;
use crate::auth::Permission;

/// Lets a viewer with this permission pass: `#[graphql(guard = "Can(Permission::DealsRead)")]`.
pub struct Can(pub Permission);

impl Guard for Can {
    async fn check(&self, ctx: &Context<'_>) -> async_graphql::Result<()> {
        Ok(ctx.viewer().and_then(|viewer| viewer.require(self.0))?)
    }
}
