//! Secrets that are kept: sealed under a ring of master keys, or as hashes where only the same secret must be known again.
//!
//! The primitives are those of AWS-LC: AES-256-GCM (NIST SP 800-38D), HKDF-SHA-256 (RFC 5869), SHA-256. What is ours is
//! which key is taken and what a ciphertext is bound to.

pub mod field;
mod vault;

pub use vault::{MasterKey, Vault};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// 256 random bits for a token that is handed out, in 43 letters that need no escaping in a URL.
pub fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<32>())
}

/// Random bytes that nobody can guess.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}

/// SHA-256 of a token, to keep in its place. Enough for what has 256 random bits; a password needs
/// [`password`](crate::auth::password).
pub fn token_hash(token: &str) -> [u8; 32] {
    hash(token.as_bytes())
}

/// SHA-256.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
