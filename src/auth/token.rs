//! Access tokens: JSON Web Tokens in the form of RFC 9068, checked as strictly as RFC 8725 asks.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keys::{Key, Keys};
use super::rights::{Rights, RightsClaims};
use super::{Means, Viewer};
use crate::crypto;
use crate::error::{Error, Result};

/// Fewest bytes of the root secret: as many as the keys that are made from it.
pub const MIN_SECRET_BYTES: usize = 32;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8192;

/// Verified tokens that are remembered, so that their signatures are verified once and not with every request.
const REMEMBERED: usize = 20_000;

/// Seconds by which the clocks of instances may differ: they must accept each other's new tokens.
pub const LEEWAY: u64 = 5;

/// What the header of a token says that it is, so that no other kind of token passes for one (RFC 9068, section 2.1).
const TYPE: &str = "at+jwt";

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The user.
    sub: Uuid,
    /// The tenant.
    tid: Uuid,
    /// The session.
    sid: Uuid,
    /// What the user may do.
    #[serde(flatten)]
    rights: RightsClaims,
    iat: i64,
    nbf: i64,
    exp: i64,
    /// See [`Viewer::token_id`].
    jti: Uuid,
}

/// For whom a token is issued.
#[derive(Debug, Clone)]
pub struct Grant {
    pub tenant_id: Uuid,
    pub user_id: Uuid,
    pub session_id: Uuid,
    /// See [`Viewer::token_id`].
    pub token_id: Uuid,
    pub rights: Arc<Rights>,
    /// When the session ends if nobody refreshes it: no token outlives it.
    pub ends_at: Option<DateTime<Utc>>,
}

/// Signs access tokens and verifies them.
pub struct Tokens {
    keys: Arc<Keys>,
    issuer: String,
    audience: String,
    lifetime: TimeDelta,
    /// By the hash of the token: who it stands for, and the id of the key that signed it.
    verified: Cache<[u8; 32], Arc<(Viewer, String)>>,
}

/// Refuses a root secret that could be guessed.
///
/// # Errors
/// A sentence for the operator.
pub fn check_secret(secret: &[u8]) -> Result<(), String> {
    // A word over and over is no longer than the word.
    let repeats = |length: usize| {
        secret
            .iter()
            .zip(&secret[length..])
            .all(|(one, next)| one == next)
    };
    let mut lengths = 1..MIN_SECRET_BYTES.min(secret.len() / 2 + 1);
    if secret.len() < MIN_SECRET_BYTES || lengths.any(repeats) {
        return Err(format!(
            "JWT_SECRET is too weak: give at least {MIN_SECRET_BYTES} random bytes."
        ));
    }
    Ok(())
}

fn invalid() -> Error {
    Error::Unauthenticated("The access token is not valid.")
}

fn expired() -> Error {
    Error::Unauthenticated("The access token has expired. Refresh it, or sign in again.")
}

impl Tokens {
    /// Issuer and audience are written into each token and required of each.
    pub fn new(keys: Arc<Keys>, issuer: &str, audience: &str, lifetime: TimeDelta) -> Self {
        Self {
            keys,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            lifetime,
            verified: Cache::new(REMEMBERED),
        }
    }

    /// The keys that tokens are signed with.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// How long a token is valid.
    pub fn lifetime(&self) -> TimeDelta {
        self.lifetime
    }

    /// Signs a token that is valid from `now`. Answers it with the viewer that it stands for.
    ///
    /// # Errors
    /// Only for faults of ours.
    pub fn issue(&self, grant: Grant, now: DateTime<Utc>) -> Result<(String, Viewer)> {
        let expires_at = now + self.lifetime;
        let expires_at = grant
            .ends_at
            .map_or(expires_at, |ends_at| expires_at.min(ends_at));
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: grant.user_id,
            tid: grant.tenant_id,
            sid: grant.session_id,
            rights: grant.rights.to_claims(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            exp: expires_at.timestamp(),
            jti: grant.token_id,
        };
        let ring = self.keys.ring();
        let key = ring
            .signer(now)
            .ok_or_else(|| Error::internal("there is no key to sign access tokens with"))?;
        let (algorithm, encoding) = key.signs_with();
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(key.kid.clone()),
            ..Header::new(algorithm)
        };
        let token = jsonwebtoken::encode(&header, &claims, encoding).map_err(Error::internal)?;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).unwrap_or(expires_at);
        let viewer = claims.viewer(grant.rights, expires_at);
        Ok((token, viewer))
    }

    /// Reads a token that a client sent. The database is asked only about a key that is not known here.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], which says no more than whether the token is out of date; [`Error::Unavailable`] when
    /// its key could not be asked for.
    pub async fn verify(&self, token: &str) -> Result<Viewer> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid());
        }
        let hash = crypto::token_hash(token);
        if let Some(known) = self.verified.get(&hash) {
            let (viewer, kid) = &*known;
            // The key may have been taken out of use since.
            if self.keys.known(kid).is_some() {
                return if has_ended(viewer.expires_at) {
                    Err(expired())
                } else {
                    Ok(viewer.clone())
                };
            }
        }
        // The header is good for one thing, to tell the key. Where to find keys, or which to take, is not its to say.
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        if header.crit.is_some() || !header.typ.as_deref().is_some_and(is_our_type) {
            return Err(invalid());
        }
        let key = self.keys.find(header.kid.as_deref().unwrap_or_default()).await?;
        let key = key.ok_or_else(invalid)?;
        let viewer = self.decode(token, &key)?;
        self.verified
            .insert(hash, Arc::new((viewer.clone(), key.kid.clone())));
        Ok(viewer)
    }

    fn decode(&self, token: &str, key: &Key) -> Result<Viewer> {
        // The algorithm belongs to the key; what the header says of it can only be refused.
        let (algorithm, decoding) = key.verifies_with();
        let validation = self.validation(algorithm);
        let claims = jsonwebtoken::decode::<Claims>(token, decoding, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => expired(),
                _ => invalid(),
            })?
            .claims;
        let issued_at = DateTime::from_timestamp(claims.iat, 0).ok_or_else(invalid)?;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).ok_or_else(invalid)?;
        // Another instance, or this one before it was configured anew, may have given longer: what has been revoked is
        // remembered for as long as a token lives here.
        let lives_until = issued_at.checked_add_signed(self.lifetime).ok_or_else(invalid)?;
        let expires_at = expires_at.min(lives_until);
        if has_ended(expires_at) {
            return Err(expired());
        }
        let rights = Arc::new(Rights::from_claims(&claims.rights));
        Ok(claims.viewer(rights, expires_at))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        validation
    }
}

impl Claims {
    fn viewer(&self, rights: Arc<Rights>, expires_at: DateTime<Utc>) -> Viewer {
        Viewer {
            tenant_id: self.tid,
            user_id: self.sub,
            session_id: self.sid,
            token_id: self.jti,
            means: Means::Session,
            rights,
            expires_at,
        }
    }
}

fn is_our_type(typ: &str) -> bool {
    let short = typ.strip_prefix("application/").unwrap_or(typ);
    short.eq_ignore_ascii_case(TYPE)
}

fn has_ended(expires_at: DateTime<Utc>) -> bool {
    expires_at + TimeDelta::seconds(LEEWAY as i64) < Utc::now()
}
