//! Access tokens: JSON Web Tokens (RFC 7519), checked as strictly as RFC 8725 asks.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Viewer;
use super::rights::{Rights, RightsClaims};
use crate::error::{Error, Result};

/// Fewest bytes of a signing secret: as many as the output of SHA-256 (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// Seconds by which the clocks of instances may differ: they must accept each other's new tokens.
pub const LEEWAY: u64 = 5;

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
    jti: Uuid,
}

/// Signs access tokens and verifies them.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    issuer: String,
    audience: String,
    lifetime: TimeDelta,
}

impl Tokens {
    /// The keys are made from the secret; issuer and audience are written into each token and required of each.
    ///
    /// # Errors
    /// A sentence for the operator when the secret is too weak.
    pub fn new(secret: &[u8], issuer: &str, audience: &str, lifetime: TimeDelta) -> Result<Self, String> {
        if secret.len() < MIN_SECRET_BYTES || secret.iter().all(|byte| *byte == secret[0]) {
            return Err(format!(
                "JWT_SECRET is too weak: give at least {MIN_SECRET_BYTES} random bytes."
            ));
        }
        // The algorithm belongs to the key; what a token's header says of it can only be refused.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        Ok(Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            lifetime,
        })
    }

    /// How long a token is valid.
    pub fn lifetime(&self) -> TimeDelta {
        self.lifetime
    }

    /// Signs a token for a session of a tenant's user, valid from `now`. Answers it with the viewer that it stands for.
    ///
    /// # Errors
    /// Only for faults of ours.
    pub fn issue(
        &self,
        tenant_id: Uuid,
        user_id: Uuid,
        session_id: Uuid,
        rights: Arc<Rights>,
        now: DateTime<Utc>,
    ) -> Result<(String, Viewer)> {
        let expires_at = now + self.lifetime;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: user_id,
            tid: tenant_id,
            sid: session_id,
            rights: rights.to_claims(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            exp: expires_at.timestamp(),
            jti: Uuid::new_v4(),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(Error::internal)?;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).unwrap_or(expires_at);
        Ok((
            token,
            Viewer {
                tenant_id,
                user_id,
                session_id,
                rights,
                expires_at,
            },
        ))
    }

    /// Reads a token that a client sent.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], which says no more than whether the token is out of date.
    pub fn verify(&self, token: &str) -> Result<Viewer> {
        use jsonwebtoken::errors::ErrorKind;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::Unauthenticated("The access token is not valid."));
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => {
                    Error::Unauthenticated("The access token has expired. Sign in again.")
                }
                _ => Error::Unauthenticated("The access token is not valid."),
            })?
            .claims;
        let invalid = || Error::Unauthenticated("The access token is not valid.");
        let issued_at = DateTime::from_timestamp(claims.iat, 0).ok_or_else(invalid)?;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).ok_or_else(invalid)?;
        // Another instance, or this one before it was configured anew, may have given longer: what has been revoked is
        // remembered for as long as a token lives here.
        let lives_until = issued_at.checked_add_signed(self.lifetime).ok_or_else(invalid)?;
        let expires_at = expires_at.min(lives_until);
        if expires_at + TimeDelta::seconds(LEEWAY as i64) < Utc::now() {
            return Err(Error::Unauthenticated(
                "The access token has expired. Sign in again.",
            ));
        }
        Ok(Viewer {
            tenant_id: claims.tid,
            user_id: claims.sub,
            session_id: claims.sid,
            rights: Arc::new(Rights::from_claims(&claims.rights)),
            expires_at,
        })
    }
}
