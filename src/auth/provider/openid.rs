//! Providers that speak OpenID Connect (Core 1.0, Discovery 1.0).

use std::sync::Arc;

use jsonwebtoken::Validation;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::url::Url;
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    ErrorResponse, ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError,
    Scope, StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::external::MAX_SUBJECT;
use super::super::jwks::RemoteKeys;
use super::super::published::Published;
use super::{Fault, Outbound, Person, Registration, Secrets, Unanswered, address};
use crate::config::Renewal;

/// Google's issuer.
pub(super) const GOOGLE: &str = "https://accounts.google.com";

/// Seconds by which a provider's clock may be wrong.
const LEEWAY: u64 = 60;

/// Longest ID token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

#[derive(Debug, Deserialize, Serialize)]
struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

type Client = oauth2::Client<
    BasicErrorResponse,
    StandardTokenResponse<IdToken, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// What a provider says about itself.
#[derive(Debug, Deserialize)]
struct Metadata {
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// A provider as it has been found.
struct Found {
    client: Client,
    userinfo: Option<Url>,
    /// Whether it names itself when it sends people back (RFC 9207).
    names_itself: bool,
}

pub(super) struct OpenId {
    issuer: String,
    client_id: String,
    outbound: Outbound,
    found: Published<Found>,
    keys: RemoteKeys,
}

/// Whether a provider says yes; some write it as a text.
fn is_yes(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(yes)) => *yes,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}

/// Whether Google speaks for an address today: it hosts it. Of others it knows only that somebody read their mail once,
/// perhaps years ago (<https://developers.google.com/identity/gsi/web/guides/verify-google-id-token>).
fn vouches(email: &str, hosted: bool) -> bool {
    hosted || email.ends_with("@gmail.com")
}

#[derive(Debug, Deserialize)]
struct Claims {
    /// Compared already; a list of issuers is none.
    #[serde(rename = "iss")]
    _iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    nonce: Option<String>,
    /// Not looked at, but there has to be one.
    #[serde(rename = "iat")]
    _iat: i64,
    email: Option<String>,
    email_verified: Option<Value>,
    /// The organisation that Google hosts the account for.
    hd: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Why a code could not be exchanged, without what was sent or answered.
pub(super) fn exchange_failed<T: ErrorResponse>(error: RequestTokenError<Unanswered, T>) -> Fault {
    match error {
        RequestTokenError::Request(unanswered) => unanswered.into(),
        RequestTokenError::ServerResponse(_) => Fault::Refused("the provider refuses the code"),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            Fault::Unavailable("the answer to a code cannot be read".into())
        }
    }
}

impl Found {
    /// A provider, as it says that it is.
    async fn look(
        outbound: &Outbound,
        issuer: &str,
        registration: &Registration,
    ) -> Result<Self, Unanswered> {
        let metadata: Metadata = outbound.discover(issuer).await?;
        let endpoint = |text: &str| address(text).map_err(|problem| Unanswered(format!("{text} {problem}")));
        let userinfo = metadata.userinfo_endpoint.as_deref().map(endpoint);
        let methods = metadata.token_endpoint_auth_methods_supported;
        let by_body = methods.is_some_and(|methods| {
            let offers = |name: &str| methods.iter().any(|method| method == name);
            offers("client_secret_post") && !offers("client_secret_basic")
        });
        let secret = registration.client_secret.expose_secret().to_owned();
        let redirect = RedirectUrl::new(registration.redirect_uri.clone());
        let client = oauth2::Client::new(ClientId::new(registration.client_id.clone()))
            .set_client_secret(ClientSecret::new(secret))
            .set_auth_type(match by_body {
                true => AuthType::RequestBody,
                false => AuthType::BasicAuth,
            })
            .set_auth_uri(AuthUrl::from_url(endpoint(&metadata.authorization_endpoint)?))
            .set_token_uri(TokenUrl::from_url(endpoint(&metadata.token_endpoint)?))
            .set_redirect_uri(redirect.map_err(|_| "the address of this server is none")?);
        Ok(Self {
            client,
            userinfo: userinfo.transpose()?,
            names_itself: metadata.authorization_response_iss_parameter_supported,
        })
    }
}

impl OpenId {
    pub fn new(issuer: &str, registration: Registration, outbound: Outbound, pace: Renewal) -> Self {
        let client_id = registration.client_id.clone();
        let of = Arc::new((outbound.clone(), issuer.to_owned(), registration));
        let look = move || {
            let of = of.clone();
            async move { Found::look(&of.0, &of.1, &of.2).await }
        };
        Self {
            issuer: issuer.to_owned(),
            client_id,
            found: Published::new(format!("what {issuer} is"), pace, look),
            keys: RemoteKeys::new(outbound.clone(), issuer, None, pace),
            outbound,
        }
    }

    /// Where to send somebody.
    pub async fn way(&self, state: &str, secrets: &Secrets) -> Result<Url, Fault> {
        let found = self.found.get().await?;
        let verifier = PkceCodeVerifier::new(secrets.verifier.clone());
        let (url, _) = found
            .client
            .authorize_url(|| CsrfToken::new(state.to_owned()))
            .add_scope(Scope::new("openid".to_owned()))
            .add_scope(Scope::new("email".to_owned()))
            .add_extra_param("nonce", secrets.nonce.clone())
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .url();
        Ok(url)
    }

    /// Who has come back with a code.
    pub async fn recognise(
        &self,
        code: &str,
        issuer: Option<&str>,
        secrets: Secrets,
    ) -> Result<Person, Fault> {
        let found = self.found.get().await?;
        let named = match issuer {
            Some(issuer) => issuer == self.issuer,
            None => !found.names_itself,
        };
        if !named {
            return Err(Fault::Refused("somebody else sends this person back"));
        }
        let tokens = found
            .client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(secrets.verifier))
            .request_async(&self.outbound)
            .await
            .map_err(exchange_failed)?;
        let id_token = tokens.extra_fields().id_token.as_deref();
        let id_token = id_token.ok_or(Fault::Refused("there is no ID token"))?;
        let claims = self.verify(id_token, &secrets.nonce).await?;
        let hosted = claims.hd.is_some();
        let vouched = |email: &String| self.issuer != GOOGLE || vouches(email, hosted);
        let verified = is_yes(claims.email_verified.as_ref());
        let email = match (claims.email, &found.userinfo) {
            (Some(email), _) => Some(email).filter(|_| verified),
            (None, None) => None,
            (None, Some(userinfo)) => {
                let token = tokens.access_token().secret();
                let info: Value = self.outbound.get(userinfo, Some(token)).await?;
                if info.get("sub").and_then(Value::as_str) != Some(&claims.sub) {
                    return Err(Fault::Refused("it tells of another person"));
                }
                let email = info.get("email").and_then(Value::as_str);
                email
                    .filter(|_| is_yes(info.get("email_verified")))
                    .map(str::to_owned)
            }
        };
        Ok(Person {
            issuer: self.issuer.clone(),
            subject: claims.sub,
            email: email.map(|email| email.trim().to_lowercase()).filter(vouched),
        })
    }

    /// Checks an ID token as Core 1.0 asks in section 3.1.3.7.
    async fn verify(&self, token: &str, nonce: &str) -> Result<Claims, Fault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Fault::Refused("the ID token is too long"));
        }
        let unread = |_| Fault::Refused("the ID token cannot be read");
        let header = jsonwebtoken::decode_header(token).map_err(unread)?;
        if header.crit.is_some() {
            return Err(Fault::Refused("the ID token asks for what is not known here"));
        }
        let key = self.keys.find(header.kid.as_deref()).await?;
        let key = key.ok_or(Fault::Refused("the key is not known"))?;
        let client_id = &self.client_id;
        // The algorithm belongs to the key; what the header says of it can only be refused.
        let mut validation = Validation::new(key.algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[client_id]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation)
            .map_err(|_| Fault::Refused("the ID token is not valid"))?
            .claims;
        let (named, several) = match &claims.aud {
            Audience::One(aud) => (aud == client_id, false),
            Audience::Many(all) => (all.contains(client_id), all.len() > 1),
        };
        let for_us = match &claims.azp {
            Some(azp) => named && azp == client_id,
            None => named && !several,
        };
        if !for_us {
            return Err(Fault::Refused("the ID token is for somebody else"));
        }
        if claims.nonce.as_deref() != Some(nonce) {
            return Err(Fault::Refused("the ID token is of another sign-in"));
        }
        let subject = claims.sub.len();
        if subject == 0 || subject > MAX_SUBJECT || claims.sub.chars().any(char::is_control) {
            return Err(Fault::Refused("the ID token names nobody"));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn google_speaks_for_the_addresses_that_it_hosts() {
        assert!(vouches("ada@gmail.com", false));
        assert!(vouches("ada@acme.example", true));
        for other in [
            "ada@acme.example",
            "ada@gmail.com.acme.example",
            "ada@notgmail.com",
        ] {
            assert!(!vouches(other, false), "{other}");
        }
    }
}
