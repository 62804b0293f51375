//! Passwords: argon2id with the parameters that OWASP recommends (19 MiB, 2 passes, 1 lane), away from the async threads.

use std::sync::{Arc, LazyLock};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// Longest password that is hashed, in bytes: work is bounded before it begins.
pub const MAX_BYTES: usize = 1024;

/// Hashing takes tens of milliseconds and 19 MiB: as many at once as there are cores, the others wait.
static PERMITS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    Arc::new(Semaphore::new(cores))
});

/// A hash that no password has, verified when there is no account, so that both answers take the same work.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    let nothing = uuid::Uuid::new_v4();
    Argon2::default()
        .hash_password(nothing.as_bytes())
        .map(|hash| hash.to_string())
        .expect("hashing sixteen bytes with the default parameters cannot fail")
});

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let permit = PERMITS.clone().acquire_owned().await.map_err(Error::internal)?;
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    })
    .await
    .map_err(Error::internal)?
}

/// Hashes a password into the PHC string format.
///
/// # Errors
/// Only for faults of ours; length and strength are the caller's to check.
pub async fn hash(password: String) -> Result<String> {
    blocking(move || {
        let hash = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string())
            .map_err(|error| Error::internal(error.to_string()))
    })
    .await
}

/// Whether the password is the one that was hashed. Without a hash it does the same work and says no.
///
/// # Errors
/// When the stored hash cannot be read.
pub async fn verify(password: String, hash: Option<String>) -> Result<bool> {
    if password.len() > MAX_BYTES {
        return Ok(false);
    }
    blocking(move || {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.clone());
        let hash = PasswordHash::new(&hash).map_err(|error| Error::internal(error.to_string()))?;
        let same =
            PasswordVerifier::<PasswordHash>::verify_password(&Argon2::default(), password.as_bytes(), &hash);
        Ok(same.is_ok() && known)
    })
    .await
}
