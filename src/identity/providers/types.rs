//! Other providers in the schema.

use std::sync::Arc;

use async_graphql::{Context, Object, SimpleObject};

use crate::auth::provider::Providers;
use crate::db::directory::identities;
use crate::error::Result;
use crate::graphql::scalar::DateTime;
use crate::graphql::{ContextExt, InPerson};

/// A provider by which people can sign in.
#[derive(Debug, SimpleObject)]
pub struct SignInProvider {
    /// Its name: `google`, `github` or `oidc`.
    name: String,
    /// What people call it, for the button.
    label: String,
    /// Where your page sends the browser, with two parameters: `return_to`, one of the pages that the server's operator has
    /// allowed, and `challenge`, the SHA-256 of a random verifier of 43 to 128 letters in base64url (as in RFC 7636). Your
    /// page keeps the verifier. The browser comes back to it with `#code=…`, which `completeProviderSignIn` takes, or with
    /// `#error=…`: `denied`, `failed`, `unverified_email` or `unknown_user`.
    url: String,
}

/// That another provider knows you.
#[derive(Debug, SimpleObject)]
pub struct LinkedIdentity {
    /// The provider's name, for example `google`; `trusted-issuer` is the service that signs people in for this server.
    provider: String,
    /// The address by which you were found when it was linked.
    email: String,
    /// When it was linked.
    linked_at: DateTime,
    /// When you last signed in with it; of the trusted issuer, to the hour.
    last_used_at: DateTime,
}

/// Other providers at the root of the schema.
#[derive(Default)]
pub struct ProviderQuery;

#[Object]
impl ProviderQuery {
    /// The providers by which people can sign in to this server. It needs no access token.
    async fn sign_in_providers(&self, ctx: &Context<'_>) -> Vec<SignInProvider> {
        let providers = ctx.data_unchecked::<Arc<Providers>>().list().iter();
        let shown = providers.map(|provider| SignInProvider {
            name: provider.name.to_owned(),
            label: provider.label.clone(),
            url: provider.url.clone(),
        });
        shown.collect()
    }

    /// The providers that know you, in the order in which they were linked.
    #[graphql(guard = "InPerson")]
    async fn linked_identities(&self, ctx: &Context<'_>) -> Result<Vec<LinkedIdentity>> {
        let viewer = ctx.viewer()?;
        let _turn = ctx.session().aside().await;
        let linked = identities::of_user(ctx.session().db(), viewer.tenant_id, viewer.user_id);
        let linked = Box::pin(linked).await?;
        let shown = linked.into_iter().map(|identity| LinkedIdentity {
            provider: identity.provider,
            email: identity.email,
            linked_at: identity.linked_at.into(),
            last_used_at: identity.last_used_at.into(),
        });
        Ok(shown.collect())
    }
}
