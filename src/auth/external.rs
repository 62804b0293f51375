//! People whom another issuer has signed in: a user-management service that the operator trusts.
//!
//! Its token says who somebody is, and nothing else of it is believed: what they may do, and whether they may come in at
//! all, stands in the tenant that they belong to, and is looked up there once a minute and instance. That it has changed is
//! known at once, as with access tokens.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::believed::Believed;
use super::jwks::RemoteKeys;
use super::outbound::{Outbound, address, discovery};
use super::token::LEEWAY;
use super::{Revocations, Viewer};
use crate::config::Config;
use crate::crypto::token_hash;
use crate::db::id::read_id;
use crate::error::{Error, Result};

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8192;

/// Letters of a subject at most (OpenID Connect Core 1.0, section 2).
pub(super) const MAX_SUBJECT: usize = 255;

/// How long a token is good at most after it was issued, whatever it says itself.
const LONGEST: TimeDelta = TimeDelta::hours(24);

/// What tokens may call themselves: a token that was issued for another purpose says so.
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// The word in `amr` that tells of a second factor (RFC 8176).
const SECOND_FACTOR: &str = "mfa";

/// What this way in is called where people read of it.
pub const NAME: &str = "trusted-issuer";

/// The issuer that the operator trusts.
pub struct External {
    issuer: String,
    audience: String,
    /// What a subject is a name in: it may call the same person otherwise for another audience (OpenID Connect Core 1.0,
    /// section 8.1).
    realm: String,
    /// The names of claims.
    tenant: Option<String>,
    email: String,
    verified: String,
    /// Whether it asks everybody for a second factor.
    always_mfa: bool,
    keys: RemoteKeys,
    known: Believed,
}

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// Of the names that the issuer has for people.
    pub realm: String,
    /// Their lasting name there.
    pub subject: String,
    /// In lower case.
    pub email: String,
    /// Whether the issuer has verified it.
    pub is_verified: bool,
    /// The tenant that the token is for. Without it, the person says nothing about that.
    pub tenant_id: Option<Uuid>,
    /// Whether they have shown a second factor.
    pub by_second_factor: bool,
    /// An id of the token.
    pub id: Uuid,
    pub expires_at: DateTime<Utc>,
}

fn invalid() -> Error {
    Error::Unauthenticated("The access token is not valid.")
}

fn expired() -> Error {
    Error::Unauthenticated("The access token has expired. Sign in again.")
}

impl External {
    /// The trusted issuer of the settings, if there is one.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn of(config: &Config, revocations: Arc<Revocations>) -> Result<Option<Self>, String> {
        let Some(issuer) = config.trusted_issuer.clone() else {
            return Ok(None);
        };
        let named = |name: &str, text: &Option<String>| {
            let text = text.clone().filter(|text| !text.is_empty());
            text.ok_or_else(|| format!("{name} is missing: it goes with DEALSTREAM_TRUSTED_ISSUER."))
        };
        let audience = named(
            "DEALSTREAM_TRUSTED_ISSUER_AUDIENCE",
            &config.trusted_issuer_audience,
        )?;
        if issuer == config.jwt_issuer {
            return Err(
                "DEALSTREAM_TRUSTED_ISSUER is JWT_ISSUER: tokens must tell who issued them.".to_owned(),
            );
        }
        let at = match &config.trusted_issuer_jwks_url {
            Some(url) => Some(
                address(url).map_err(|problem| format!("DEALSTREAM_TRUSTED_ISSUER_JWKS_URL {problem}."))?,
            ),
            None => {
                discovery(&issuer).map_err(|problem| format!("DEALSTREAM_TRUSTED_ISSUER {problem}."))?;
                None
            }
        };
        let keys = RemoteKeys::new(Outbound::new()?, &issuer, at, config.pace.published);
        Ok(Some(Self {
            // No address of an issuer has a space.
            realm: format!("{issuer} {audience}"),
            issuer,
            audience,
            tenant: config.trusted_issuer_tenant_claim.clone(),
            email: config.trusted_issuer_email_claim.clone(),
            verified: config.trusted_issuer_verified_claim.clone(),
            always_mfa: config.trusted_issuer_mfa,
            keys,
            known: Believed::new(revocations),
        }))
    }

    /// Whether a token says that it is of this issuer. That alone proves nothing: it decides who is to verify it, and each
    /// verifier has the keys of its own issuer only.
    pub fn is_meant(&self, token: &str) -> bool {
        #[derive(Deserialize)]
        struct Issued {
            iss: String,
        }
        if token.len() > MAX_TOKEN_BYTES {
            return false;
        }
        let body = token.split('.').nth(1).unwrap_or_default();
        let body = URL_SAFE_NO_PAD.decode(body).unwrap_or_default();
        serde_json::from_slice::<Issued>(&body).is_ok_and(|issued| issued.iss == self.issuer)
    }

    /// Who sends a token, as `look_up` finds who it is that the token proves.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the token is not valid, or proves nobody who may come in; [`Error::Unavailable`] when
    /// its key could not be asked for; those of `look_up`.
    pub async fn identify<F>(&self, token: &str, look_up: impl FnOnce(Proved) -> F) -> Result<Viewer>
    where
        F: Future<Output = Result<Option<Viewer>>>,
    {
        let hash = token_hash(token);
        if let Some(viewer) = self.known.get(&hash) {
            return Ok(viewer);
        }
        let proved = self.verify(token, &hash).await?;
        let found = look_up(proved).await?;
        self.known.keep(hash, found.as_ref());
        found.ok_or(Error::Unauthenticated("You do not belong to this tenant."))
    }

    async fn verify(&self, token: &str, hash: &[u8; 32]) -> Result<Proved> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        if header.crit.is_some() || !header.typ.as_deref().is_none_or(is_our_type) {
            return Err(invalid());
        }
        let kid = header.kid.filter(|kid| !kid.is_empty()).ok_or_else(invalid)?;
        let key = self.keys.find(Some(&kid)).await;
        let key = key.map_err(|_| Error::Unavailable)?.ok_or_else(invalid)?;
        // The algorithm belongs to the key; what the header says of it can only be refused.
        let mut validation = Validation::new(key.algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => expired(),
                _ => invalid(),
            })?
            .claims;
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        self.read(
            &claims,
            uuid::Builder::from_random_bytes(id).into_uuid(),
            Utc::now(),
        )
    }

    /// What claims of the issuer prove at a moment.
    fn read(&self, claims: &Map<String, Value>, id: Uuid, now: DateTime<Utc>) -> Result<Proved> {
        let text = |name: &str| {
            let text = claims.get(name).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).ok_or_else(invalid)
        };
        let moment = |name: &str| {
            // Seconds, and by RFC 7519 they may have parts.
            let seconds = claims.get(name).and_then(Value::as_f64).ok_or_else(invalid)?;
            DateTime::from_timestamp(seconds as i64, 0).ok_or_else(invalid)
        };
        // A token that is bound to a key of its holder is no good to whoever merely bears it (RFC 7800).
        if claims.contains_key("cnf") {
            return Err(invalid());
        }
        let subject = text("sub")?;
        if subject.len() > MAX_SUBJECT || subject.chars().any(char::is_control) {
            return Err(invalid());
        }
        let (issued_at, expires_at) = (moment("iat")?, moment("exp")?);
        let leeway = TimeDelta::seconds(LEEWAY as i64);
        if issued_at > now + leeway {
            return Err(invalid());
        }
        let lives_until = issued_at.checked_add_signed(LONGEST).ok_or_else(invalid)?;
        let expires_at = expires_at.min(lives_until);
        if expires_at + leeway < now {
            return Err(expired());
        }
        let tenant_id = match &self.tenant {
            Some(claim) => Some(read_tenant(text(claim)?).ok_or_else(invalid)?),
            None => None,
        };
        let methods = claims.get("amr").and_then(Value::as_array);
        let shown = methods.is_some_and(|methods| methods.iter().any(|method| method == SECOND_FACTOR));
        Ok(Proved {
            realm: self.realm.clone(),
            subject: subject.to_owned(),
            email: text(&self.email)?.trim().to_lowercase(),
            is_verified: claims.get(&self.verified) == Some(&Value::Bool(true)),
            tenant_id,
            by_second_factor: self.always_mfa || shown,
            id,
            expires_at,
        })
    }
}

/// A tenant's id, as the API writes it or as a plain UUID.
fn read_tenant(text: &str) -> Option<Uuid> {
    match read_id(text) {
        Some(("tenant", id)) => Some(id),
        _ => Uuid::try_parse(text).ok(),
    }
}

fn is_our_type(typ: &str) -> bool {
    let short = typ.strip_prefix("application/").unwrap_or(typ);
    TYPES.iter().any(|known| known.eq_ignore_ascii_case(short))
}
