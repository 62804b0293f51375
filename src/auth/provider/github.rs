//! GitHub, which speaks OAuth 2.0 with an interface of its own for who somebody is.

use oauth2::basic::BasicClient;
use oauth2::url::Url;
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, Scope, TokenResponse, TokenUrl,
};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{Fault, Outbound, Person, Registration, Secrets, address};

/// Where everybody finds it who has none of their own.
const PUBLIC: &str = "https://github.com";

type Client = BasicClient<
    oauth2::EndpointSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointSet,
>;

pub(super) struct GitHub {
    issuer: String,
    client: Client,
    user: Url,
    emails: Url,
    outbound: Outbound,
}

#[derive(Deserialize)]
struct User {
    /// A login can be changed, and somebody else can take it then; the number stays.
    id: u64,
}

#[derive(Deserialize)]
struct Email {
    email: String,
    primary: bool,
    verified: bool,
}

impl GitHub {
    /// GitHub at its own address, or a server of one's own.
    ///
    /// # Errors
    /// What is wrong with the address, as the end of a sentence.
    pub fn new(base: &str, registration: Registration, outbound: Outbound) -> Result<Self, &'static str> {
        address(base)?;
        let unfit = |_| "is not an address such as https://github.example.com";
        let api = match base {
            PUBLIC => "https://api.github.com".to_owned(),
            base => format!("{base}/api/v3"),
        };
        let url = |path: &str| Url::parse(&format!("{api}{path}")).map_err(unfit);
        let client = BasicClient::new(ClientId::new(registration.client_id))
            .set_client_secret(ClientSecret::new(
                registration.client_secret.expose_secret().to_owned(),
            ))
            .set_auth_type(AuthType::RequestBody)
            .set_auth_uri(AuthUrl::new(format!("{base}/login/oauth/authorize")).map_err(unfit)?)
            .set_token_uri(TokenUrl::new(format!("{base}/login/oauth/access_token")).map_err(unfit)?)
            .set_redirect_uri(RedirectUrl::new(registration.redirect_uri).map_err(unfit)?);
        Ok(Self {
            issuer: base.to_owned(),
            client,
            user: url("/user")?,
            emails: url("/user/emails")?,
            outbound,
        })
    }

    /// Where to send somebody.
    pub fn way(&self, state: &str, secrets: &Secrets) -> Result<Url, Fault> {
        let verifier = PkceCodeVerifier::new(secrets.verifier.clone());
        let (url, _) = self
            .client
            .authorize_url(|| CsrfToken::new(state.to_owned()))
            .add_scope(Scope::new("user:email".to_owned()))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .url();
        Ok(url)
    }

    /// Who has come back with a code.
    pub async fn recognise(&self, code: &str, secrets: Secrets) -> Result<Person, Fault> {
        let token = self
            .client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(secrets.verifier))
            .request_async(&self.outbound)
            .await
            .map_err(super::openid::exchange_failed)?;
        let token = token.access_token().secret();
        let user: User = self.outbound.get(&self.user, Some(token)).await?;
        let emails: Vec<Email> = self.outbound.get(&self.emails, Some(token)).await?;
        let email = emails.into_iter().find(|email| email.primary && email.verified);
        Ok(Person {
            issuer: self.issuer.clone(),
            subject: user.id.to_string(),
            email: email.map(|email| email.email.to_lowercase()),
        })
    }
}
