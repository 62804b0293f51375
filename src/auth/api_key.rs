//! API keys: long-lived bearer tokens of other programs, which act for a user within some permissions.
//!
//! A key is 256 random bits, of which the database has the hash. Who a key stands for is looked up once a minute and
//! instance; that it is revoked, or that its user's rights have changed, is known at once, as with access tokens.

use std::sync::Arc;

use super::believed::Believed;
use super::{Revocations, Viewer};
use crate::crypto::{random_token, token_hash};
use crate::error::{Error, Result};

/// What every key begins with, so that it is known for what it is: by us, and by whoever finds it where it should not be.
const MARK: &str = "dsk_";

/// Letters of a key.
const LETTERS: usize = MARK.len() + 43;

/// Letters by which people know a key again.
const SHOWN: usize = MARK.len() + 6;

/// Who has lately sent an API key.
pub struct ApiKeys(Believed);

/// A new key.
pub fn generate() -> String {
    format!("{MARK}{}", random_token())
}

/// The part of a key that may be shown.
pub fn prefix(key: &str) -> &str {
    key.get(..SHOWN).unwrap_or_default()
}

/// Whether a bearer token is meant as an API key.
pub fn is_api_key(bearer: &str) -> bool {
    bearer.starts_with(MARK)
}

impl ApiKeys {
    /// Nothing is known yet.
    pub fn new(revocations: Arc<Revocations>) -> Self {
        Self(Believed::new(revocations))
    }

    /// The user for whom a key acts, with the key's rights, as `look_up` finds it by the hash of the key.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when there is no such key, or no longer; those of `look_up`.
    pub async fn identify<F>(&self, key: &str, look_up: impl FnOnce([u8; 32]) -> F) -> Result<Viewer>
    where
        F: Future<Output = Result<Option<Viewer>>>,
    {
        let invalid = || Error::Unauthenticated("The API key is not valid.");
        if key.len() != LETTERS {
            return Err(invalid());
        }
        let hash = token_hash(key);
        if let Some(viewer) = self.0.get(&hash) {
            return Ok(viewer);
        }
        let found = look_up(hash).await?;
        self.0.keep(hash, found.as_ref());
        found.ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_form() {
        let key = generate();
        assert_eq!(key.len(), LETTERS);
        assert!(is_api_key(&key));
        assert!(key.starts_with(prefix(&key)) && prefix(&key).len() == SHOWN);
        assert_ne!(key, generate());
        assert_eq!(prefix("dsk_é"), "");
    }
}
