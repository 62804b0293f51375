//! Who sends a bearer token that somebody else answers for: what was found out is believed for a minute.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::{Revocations, Viewer};

/// How long it is believed whom a token stands for.
const BELIEVED: Duration = Duration::from_secs(60);

/// Tokens that are remembered.
const REMEMBERED: usize = 10_000;

/// Whom bearer tokens have lately stood for, by the hash of the token. That a viewer's rights have changed, or that they
/// are shut out, is known at once: then it has to be found out anew.
pub(super) struct Believed {
    revocations: Arc<Revocations>,
    known: Cache<[u8; 32], (Viewer, Instant)>,
}

impl Believed {
    pub fn new(revocations: Arc<Revocations>) -> Self {
        Self {
            revocations,
            known: Cache::new(REMEMBERED),
        }
    }

    /// Whom a token stands for, as far as that can still be believed.
    pub fn get(&self, token_hash: &[u8; 32]) -> Option<Viewer> {
        let (viewer, until) = self.known.get(token_hash)?;
        let good = until > Instant::now()
            && viewer.expires_at > chrono::Utc::now()
            && !self.revocations.revokes(&viewer);
        good.then_some(viewer)
    }

    /// Keeps what was found out; that it stands for nobody, too.
    pub fn keep(&self, token_hash: [u8; 32], found: Option<&Viewer>) {
        match found {
            Some(viewer) => self
                .known
                .insert(token_hash, (viewer.clone(), Instant::now() + BELIEVED)),
            None => {
                self.known.remove(&token_hash);
            }
        }
    }
}
