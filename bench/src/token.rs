//! Access tokens of our own making. Thousands of sign-ins would mostly measure how long passwords take to hash.

use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use uuid::Uuid;

use crate::Result;

/// Seconds for which a token is good: longer than any run.
const LIFETIME: i64 = 4 * 60 * 60;

/// What the server's tokens are signed with.
pub struct Signer(EncodingKey);

impl Signer {
    /// With the server's own secret.
    pub fn new(secret: &str) -> Self {
        Self(EncodingKey::from_secret(secret.as_bytes()))
    }

    /// A token for the admin of a tenant, from a session of its own.
    pub fn admin(&self, tenant: Uuid, user: Uuid) -> Result<String> {
        let now = Utc::now().timestamp();
        let claims = json!({
            "iss": "dealstream",
            "aud": "dealstream",
            "sub": user,
            "tid": tenant,
            "sid": Uuid::now_v7(),
            "role": "ADMIN",
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
            "jti": Uuid::now_v7(),
        });
        Ok(jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims,
            &self.0,
        )?)
    }
}
