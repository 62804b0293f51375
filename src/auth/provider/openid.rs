//! Providers that speak OpenID Connect (Core 1.0, Discovery 1.0).

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
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
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::outbound::address;
use super::{Fault, Outbound, Person, Registration, Secrets};

/// Google's issuer.
pub(super) const GOOGLE: &str = "https://accounts.google.com";

/// How long it is believed what a provider says about itself, and which keys it has.
const BELIEVED: Duration = Duration::from_secs(60 * 60);

/// How often at most the keys are asked for because a token names one that is not known.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Seconds by which a provider's clock may be wrong.
const LEEWAY: u64 = 60;

/// Longest ID token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Letters of a subject at most (Core 1.0, section 2).
const MAX_SUBJECT: usize = 255;

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
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// A provider as it has been found.
struct Found {
    client: Client,
    jwks: Url,
    userinfo: Option<Url>,
    /// Whether it names itself when it sends people back (RFC 9207).
    names_itself: bool,
}

/// The keys of a provider.
struct Keys {
    set: JwkSet,
    asked: Instant,
}

pub(super) struct OpenId {
    issuer: String,
    registration: Registration,
    outbound: Outbound,
    found: Mutex<Option<(Arc<Found>, Instant)>>,
    keys: Mutex<Option<Keys>>,
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
pub(super) fn exchange_failed<T: ErrorResponse>(error: RequestTokenError<Fault, T>) -> Fault {
    match error {
        RequestTokenError::Request(fault) => fault,
        RequestTokenError::ServerResponse(_) => Fault::Refused("the provider refuses the code"),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            Fault::Unavailable("the answer to a code cannot be read".to_owned())
        }
    }
}

impl OpenId {
    pub fn new(issuer: &str, registration: Registration, outbound: Outbound) -> Self {
        Self {
            issuer: issuer.to_owned(),
            registration,
            outbound,
            found: Mutex::default(),
            keys: Mutex::default(),
        }
    }

    /// The provider, as it says that it is. One asks at a time; the others wait for its answer.
    async fn find(&self) -> Result<Arc<Found>, Fault> {
        let mut known = self.found.lock().await;
        if let Some((found, at)) = &*known
            && at.elapsed() < BELIEVED
        {
            return Ok(found.clone());
        }
        let unfit = |what: &str| Fault::Unavailable(format!("what it says about itself is wrong: {what}"));
        let base = self.issuer.trim_end_matches('/');
        let url = address(&format!("{base}/.well-known/openid-configuration")).map_err(unfit)?;
        let metadata = self.outbound.get(&url, None).await?;
        let metadata: Metadata =
            serde_json::from_value(metadata).map_err(|_| unfit("something is missing"))?;
        if metadata.issuer != self.issuer {
            return Err(unfit("it is another issuer"));
        }
        let endpoint = |text: &str| address(text).map_err(unfit);
        let userinfo = metadata.userinfo_endpoint.as_deref().map(endpoint);
        let methods = metadata.token_endpoint_auth_methods_supported;
        let by_body = methods.is_some_and(|methods| {
            let offers = |name: &str| methods.iter().any(|method| method == name);
            offers("client_secret_post") && !offers("client_secret_basic")
        });
        let secret = self.registration.client_secret.expose_secret().to_owned();
        let redirect = RedirectUrl::new(self.registration.redirect_uri.clone());
        let client = oauth2::Client::new(ClientId::new(self.registration.client_id.clone()))
            .set_client_secret(ClientSecret::new(secret))
            .set_auth_type(match by_body {
                true => AuthType::RequestBody,
                false => AuthType::BasicAuth,
            })
            .set_auth_uri(AuthUrl::from_url(endpoint(&metadata.authorization_endpoint)?))
            .set_token_uri(TokenUrl::from_url(endpoint(&metadata.token_endpoint)?))
            .set_redirect_uri(redirect.map_err(|_| unfit("the address of this server"))?);
        let found = Arc::new(Found {
            client,
            jwks: endpoint(&metadata.jwks_uri)?,
            userinfo: userinfo.transpose()?,
            names_itself: metadata.authorization_response_iss_parameter_supported,
        });
        *known = Some((found.clone(), Instant::now()));
        Ok(found)
    }

    /// Where to send somebody.
    pub async fn way(&self, state: &str, secrets: &Secrets) -> Result<Url, Fault> {
        let found = self.find().await?;
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
        let found = self.find().await?;
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
        let claims = self.verify(&found, id_token, &secrets.nonce).await?;
        let hosted = claims.hd.is_some();
        let vouched = |email: &String| self.issuer != GOOGLE || vouches(email, hosted);
        let verified = is_yes(claims.email_verified.as_ref());
        let email = match (claims.email, &found.userinfo) {
            (Some(email), _) => Some(email).filter(|_| verified),
            (None, None) => None,
            (None, Some(userinfo)) => {
                let info = self
                    .outbound
                    .get(userinfo, Some(tokens.access_token().secret()))
                    .await?;
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
    async fn verify(&self, found: &Found, token: &str, nonce: &str) -> Result<Claims, Fault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Fault::Refused("the ID token is too long"));
        }
        let unread = |_| Fault::Refused("the ID token cannot be read");
        let header = jsonwebtoken::decode_header(token).map_err(unread)?;
        if header.crit.is_some() {
            return Err(Fault::Refused("the ID token asks for what is not known here"));
        }
        let key = self.key(found, header.kid.as_deref()).await?;
        // The algorithm belongs to the key; what the header says of it can only be refused.
        let algorithm = algorithm_of(&key).ok_or(Fault::Refused("the key is not for signatures"))?;
        let decoding = DecodingKey::from_jwk(&key).map_err(unread)?;
        let client_id = &self.registration.client_id;
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[client_id]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let claims = jsonwebtoken::decode::<Claims>(token, &decoding, &validation)
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

    /// The key of this name, or the only one when the token names none.
    async fn key(&self, found: &Found, kid: Option<&str>) -> Result<Jwk, Fault> {
        let mut known = self.keys.lock().await;
        if let Some(keys) = &*known {
            let age = keys.asked.elapsed();
            match pick(&keys.set, kid) {
                Some(key) if age < BELIEVED => return Ok(key.clone()),
                None if age < ASK_AGAIN => return Err(Fault::Refused("the key is not known")),
                _ => {}
            }
        }
        let set = self.outbound.get(&found.jwks, None).await?;
        let set: JwkSet = serde_json::from_value(set)
            .map_err(|_| Fault::Unavailable("its keys cannot be read".to_owned()))?;
        let key = pick(&set, kid).cloned();
        *known = Some(Keys {
            set,
            asked: Instant::now(),
        });
        key.ok_or(Fault::Refused("the key is not known"))
    }
}

fn pick<'a>(set: &'a JwkSet, kid: Option<&str>) -> Option<&'a Jwk> {
    let mut fit = set.keys.iter().filter(|key| algorithm_of(key).is_some());
    match kid {
        Some(kid) => fit.find(|key| key.common.key_id.as_deref() == Some(kid)),
        None => fit.next().filter(|_| fit.next().is_none()),
    }
}

/// The one algorithm that a key is good for: the one that it says, if it is of its kind, or the usual one of its kind.
/// Secrets that both sides know sign nothing here.
fn algorithm_of(key: &Jwk) -> Option<Algorithm> {
    if matches!(&key.common.public_key_use, Some(used) if *used != PublicKeyUse::Signature) {
        return None;
    }
    let of_kind: &[Algorithm] = match &key.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    match key.common.key_algorithm {
        None => of_kind.first().copied(),
        Some(KeyAlgorithm::UNKNOWN_ALGORITHM) => None,
        Some(said) => {
            let said = Algorithm::try_from(said).ok()?;
            of_kind.contains(&said).then_some(said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(key: Value) -> Option<Algorithm> {
        algorithm_of(&serde_json::from_value(key).unwrap())
    }

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

    #[test]
    fn a_key_is_good_for_one_algorithm_of_its_kind() {
        let rsa = |alg: Value| json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": alg });
        assert_eq!(of(rsa(Value::Null)), Some(Algorithm::RS256));
        assert_eq!(of(rsa(json!("PS256"))), Some(Algorithm::PS256));
        for other in ["HS256", "none", "ES256", "RSA-OAEP"] {
            assert_eq!(of(rsa(json!(other))), None, "{other}");
        }
        let ec = json!({ "kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB" });
        assert_eq!(of(ec), Some(Algorithm::ES256));
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "AQAB", "use": "sig" });
        assert_eq!(of(ed), Some(Algorithm::EdDSA));
        let sealing = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "use": "enc" });
        assert_eq!(of(sealing), None);
        assert_eq!(of(json!({ "kty": "oct", "k": "AQAB", "alg": "HS256" })), None);
    }

    #[test]
    fn a_token_without_a_name_of_its_key_is_of_the_only_one() {
        let ed = |kid: &str| json!({ "kty": "OKP", "crv": "Ed25519", "x": "AQAB", "kid": kid });
        let one: JwkSet = serde_json::from_value(json!({ "keys": [ed("a")] })).unwrap();
        let two: JwkSet = serde_json::from_value(json!({ "keys": [ed("a"), ed("b")] })).unwrap();
        assert!(pick(&one, None).is_some() && pick(&two, None).is_none());
        assert!(pick(&two, Some("b")).is_some() && pick(&two, Some("c")).is_none());
    }
}
