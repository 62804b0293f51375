//! Permissions of root fields.

use async_graphql::{Context, Guard};

use super::ContextExt;
use crate::auth::{Permission, Viewer};

/// Lets a viewer with this permission pass: `#[graphql(guard = "Can(Permission::DealsRead)")]`.
pub struct Can(pub Permission);

impl Guard for Can {
    async fn check(&self, ctx: &Context<'_>) -> async_graphql::Result<()> {
        Ok(ctx.viewer().and_then(|viewer| viewer.require(self.0))?)
    }
}

/// Lets whoever has signed in pass, and no API key: `#[graphql(guard = "InPerson")]`.
pub struct InPerson;

impl Guard for InPerson {
    async fn check(&self, ctx: &Context<'_>) -> async_graphql::Result<()> {
        Ok(ctx.viewer().and_then(Viewer::in_person)?)
    }
}
