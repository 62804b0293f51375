//! Signing in by way of other providers: Google, GitHub, and any that speaks OpenID Connect.
//!
//! ```text
//! page ──► GET /sign-in/google?return_to=…&challenge=…        Door::send: state, nonce and PKCE verifier are written down,
//!                                                             the browser gets a cookie and goes to the provider
//! provider ──► GET /sign-in/google/callback?code=…&state=…    Door::receive: the state once, from the same browser; the
//!                                                             code is exchanged, the person recognised
//! page ◄── return_to#code=…                                   no token is ever in an address
//! page ──► completeProviderSignIn(code, verifier)             the one gate, as after a password
//! ```
//!
//! The page keeps a verifier, whose SHA-256 is the challenge, so that a code out of somebody's history is good for nothing.
//! What a provider says about second factors is not asked: those that we know are needed all the same.
//!
//! A person is recognised by issuer and subject. The first time they are found by an address that the provider has verified
//! *and* that they have proved to us: otherwise whoever made an account with somebody else's address would wait in it for
//! its owner to come by another way.

mod door;
mod github;
mod openid;

use oauth2::url::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use door::{Answer, Door, Return};

use super::outbound::{Outbound, Unanswered, address};
use crate::config::Config;
use github::GitHub;
use openid::OpenId;

/// Why nobody could be recognised. For the log: nobody else is told more than that it failed.
#[derive(Debug, Error)]
pub enum Fault {
    /// The provider cannot be reached, or does not answer as it should.
    #[error("the provider is not available: {0}")]
    Unavailable(#[from] Unanswered),
    /// What came from the provider, or as if from it, is not to be believed.
    #[error("refused: {0}")]
    Refused(&'static str),
}

/// What only this server knows of somebody who is at a provider.
#[derive(Serialize, Deserialize)]
struct Secrets {
    /// In the ID token, so that it is one for this very visit.
    nonce: String,
    /// For the exchange of the code (RFC 7636), so that nobody puts another's code in its place.
    verifier: String,
}

/// Whom a provider has told us of.
struct Person {
    issuer: String,
    /// Their lasting name there.
    subject: String,
    /// In lower case, if the provider says that it is verified.
    email: Option<String>,
}

/// The client that we are for a provider.
struct Registration {
    client_id: String,
    client_secret: SecretString,
    redirect_uri: String,
}

/// A provider by which people sign in.
pub struct Provider {
    /// As it is named in addresses.
    pub name: &'static str,
    /// As people call it.
    pub label: String,
    /// Where a page sends people.
    pub url: String,
    kind: Kind,
}

enum Kind {
    OpenId(Box<OpenId>),
    GitHub(Box<GitHub>),
}

impl Provider {
    /// Where to send somebody.
    async fn way(&self, state: &str, secrets: &Secrets) -> Result<Url, Fault> {
        match &self.kind {
            Kind::OpenId(openid) => openid.way(state, secrets).await,
            Kind::GitHub(github) => github.way(state, secrets),
        }
    }

    /// Who has come back with a code.
    async fn recognise(&self, code: &str, issuer: Option<&str>, secrets: Secrets) -> Result<Person, Fault> {
        match &self.kind {
            Kind::OpenId(openid) => openid.recognise(code, issuer, secrets).await,
            Kind::GitHub(github) => github.recognise(code, secrets).await,
        }
    }
}

/// The providers of the settings.
#[derive(Default)]
pub struct Providers {
    list: Vec<Provider>,
    /// Where people may be sent back to.
    return_urls: Vec<String>,
    /// Whether browsers reach this server over TLS.
    is_secure: bool,
}

impl Providers {
    /// Those that are configured.
    ///
    /// # Errors
    /// A sentence for the operator, without any secret.
    pub fn new(config: &Config) -> Result<Self, String> {
        let settings = &config.providers;
        let pair = |name: &str, id: &Option<String>, secret: &Option<SecretString>| match (id, secret) {
            (None, None) => Ok(None),
            (Some(id), Some(secret)) if !id.is_empty() && !secret.expose_secret().is_empty() => {
                Ok(Some((id.clone(), secret.clone())))
            }
            _ => Err(format!(
                "{name}_CLIENT_ID and {name}_CLIENT_SECRET are given together or not at all."
            )),
        };
        let google = pair(
            "GOOGLE",
            &settings.google_client_id,
            &settings.google_client_secret,
        )?;
        let github = pair(
            "GITHUB",
            &settings.github_client_id,
            &settings.github_client_secret,
        )?;
        let openid = pair("OIDC", &settings.oidc_client_id, &settings.oidc_client_secret)?;
        if openid.is_some() != settings.oidc_issuer.is_some() {
            return Err(
                "OIDC_ISSUER needs OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, and they need it.".to_owned(),
            );
        }
        if google.is_none() && github.is_none() && openid.is_none() {
            return Ok(Self::default());
        }
        let api_url = settings
            .api_url
            .as_deref()
            .ok_or("DEALSTREAM_API_URL is missing: providers send people back to it.")?;
        address(api_url).map_err(|problem| format!("DEALSTREAM_API_URL {problem}."))?;
        let return_urls = settings.return_urls.iter().map(|url| url.trim().to_owned());
        let return_urls: Vec<String> = return_urls.filter(|url| !url.is_empty()).collect();
        if return_urls.is_empty() {
            return Err(
                "DEALSTREAM_RETURN_URLS is missing: people come back to one of these pages.".to_owned(),
            );
        }
        for url in &return_urls {
            address(url).map_err(|problem| format!("DEALSTREAM_RETURN_URLS: {url} {problem}."))?;
        }
        let url = |name: &str| format!("{api_url}/sign-in/{name}");
        let registration = |name: &str, (client_id, client_secret): (String, SecretString)| Registration {
            client_id,
            client_secret,
            redirect_uri: format!("{}/callback", url(name)),
        };
        let openid_of = |name, issuer: &str, pair| {
            let issuer_url = address(issuer).map_err(|problem| format!("OIDC_ISSUER {problem}."))?;
            if issuer_url.query().is_some() {
                return Err("OIDC_ISSUER has no query.".to_owned());
            }
            let openid = OpenId::new(
                issuer,
                registration(name, pair),
                Outbound::new()?,
                config.pace.published,
            );
            Ok(Kind::OpenId(Box::new(openid)))
        };
        let mut list = Vec::new();
        let mut add = |name: &'static str, label: &str, kind| {
            let (label, url) = (label.to_owned(), url(name));
            list.push(Provider {
                name,
                label,
                url,
                kind,
            });
        };
        if let Some(pair) = google {
            add("google", "Google", openid_of("google", openid::GOOGLE, pair)?);
        }
        if let Some(pair) = github {
            let base = settings.github_url.trim_end_matches('/');
            let github = GitHub::new(base, registration("github", pair), Outbound::new()?)
                .map_err(|problem| format!("GITHUB_URL {problem}."))?;
            add("github", "GitHub", Kind::GitHub(Box::new(github)));
        }
        if let (Some(pair), Some(issuer)) = (openid, &settings.oidc_issuer) {
            add("oidc", &settings.oidc_name, openid_of("oidc", issuer, pair)?);
        }
        Ok(Self {
            list,
            return_urls,
            is_secure: api_url.starts_with("https:"),
        })
    }

    /// All of them.
    pub fn list(&self) -> &[Provider] {
        &self.list
    }

    fn find(&self, name: &str) -> Option<&Provider> {
        self.list.iter().find(|provider| provider.name == name)
    }
}
