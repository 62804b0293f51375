//! What a query reads from: one view of the tenant's data.
//!
//! Requests that come together read together. When a server has much to do, several requests with the same document are
//! ready at the same moment: they share one snapshot, so there is one transaction to begin and to end for all of them, and
//! what all of them ask of a loader is read by one statement, once if it is the same. Nobody waits for that: a reading can
//! be joined until it begins, which is one turn of the runtime after the first has asked, or, while no connection is free,
//! when there is one. So the moment that it shows is after the question of everybody who reads from it.
//!
//! They share who [see](Sight) the same. What a viewer is allowed is asked of each on their own, before a loader is. And they
//! share who ask by the same document, one that costs little whatever its variables are: whoever asks for little does not
//! wait behind somebody's search of a hundred thousand records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use diesel_async::AsyncPgConnection;

use super::loader::{Loaders, lock};
use crate::db::Database;
use crate::db::reach::Sight;
use crate::db::session::Snapshot;
use crate::error::Result;

/// One snapshot of the tenant's data with the loaders that read from it.
pub struct Reading {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) loaders: Loaders,
    /// Whether others may join.
    open: bool,
}

impl Reading {
    pub(super) fn new(db: &Database, sight: Sight, open: bool) -> Self {
        let snapshot = Arc::new(db.snapshot(sight));
        Self {
            loaders: Loaders::new(snapshot.clone()),
            snapshot,
            open,
        }
    }

    /// Whether others have joined.
    pub(super) fn is_shared(&self) -> bool {
        self.snapshot.is_shared()
    }

    /// The connection to read from.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::error::Error::Unavailable) when no connection can be had.
    pub async fn conn(&self) -> Result<&AsyncPgConnection> {
        if self.open && !self.snapshot.has_begun() {
            // Lets those who came at the same time join. Loaders do so anyway.
            tokio::task::yield_now().await;
        }
        self.snapshot.conn().await
    }
}

/// Readings that requests with one document may join.
#[derive(Default)]
pub struct Together(Mutex<HashMap<Sight, Weak<Reading>, foldhash::fast::RandomState>>);

/// Readings that are remembered before those that have ended are forgotten.
const REMEMBERED: usize = 256;

impl Together {
    /// A reading of what these see.
    pub(super) fn join(&self, db: &Database, sight: Sight) -> Arc<Reading> {
        let mut readings = lock(&self.0);
        let gathering = readings.get(&sight).and_then(Weak::upgrade);
        if let Some(reading) = gathering.filter(|reading| reading.snapshot.join()) {
            return reading;
        }
        if readings.len() >= REMEMBERED {
            readings.retain(|_, reading| reading.strong_count() > 0);
        }
        let reading = Arc::new(Reading::new(db, sight, true));
        readings.insert(sight, Arc::downgrade(&reading));
        reading
    }
}
