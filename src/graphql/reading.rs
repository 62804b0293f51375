//! What a query reads from: one view of the tenant's data.
//!
//! Requests that come together read together. When a server has much to do, several requests with the same document are
//! ready at the same moment: they share one snapshot, so there is one transaction to begin and to end for all of them, and
//! what all of them ask of a loader is read by one statement, once if it is the same. A reading can be joined until it
//! begins, so the moment that it shows is after the question of everybody who reads from it. It begins one turn of the runtime
//! after the first has asked; while another of the same kind is under way, when that has ended, or after two milliseconds; and
//! when there is a connection.
//!
//! They share who are served by one thread, so that none waits for another's, and who [see](Sight) the same. What a viewer is allowed is asked of each on their own, before a loader is. And they
//! share who ask by the same document, one that neither searches, filters, sorts nor counts, and as many as cost
//! [so much](ROOM) together: whoever asks for little does not wait behind who asks for very much.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use diesel_async::AsyncPgConnection;
use tokio::runtime::{self, Handle};
use tokio::sync::Semaphore;

use super::loader::{Loaders, lock};
use crate::db::Database;
use crate::db::id::ByKey;
use crate::db::reach::Sight;
use crate::db::session::Snapshot;
use crate::error::Result;

/// One snapshot of the tenant's data with the loaders that read from it.
pub struct Reading {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) loaders: Loaders,
    /// What those who join may cost yet; nothing where nobody may.
    room: Option<AtomicU64>,
}

impl Reading {
    /// A reading for one request.
    pub(super) fn alone(db: &Database, sight: Sight) -> Self {
        Self::of(db.snapshot(sight), None)
    }

    fn of(snapshot: Snapshot, room: Option<u64>) -> Self {
        let snapshot = Arc::new(snapshot);
        Self {
            loaders: Loaders::new(snapshot.clone()),
            snapshot,
            room: room.map(AtomicU64::new),
        }
    }

    /// Lets a request of this cost in, if it comes in time and there is room.
    fn join(&self, cost: u64) -> bool {
        let Some(room) = &self.room else {
            return false;
        };
        let less = |room: u64| room.checked_sub(cost);
        room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
            && self.snapshot.join()
    }

    /// Whether somebody else may have spoilt it: in a transaction in which one statement has failed, no other is answered.
    pub(super) fn may_be_spoilt(&self) -> bool {
        self.snapshot.is_shared() && self.snapshot.has_begun()
    }

    /// The connection to read from.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::error::Error::Unavailable) when no connection can be had.
    pub async fn conn(&self) -> Result<&AsyncPgConnection> {
        if self.room.is_some() && !self.snapshot.has_begun() {
            // Lets those who came at the same time join. Loaders do so anyway.
            tokio::task::yield_now().await;
        }
        self.snapshot.conn().await
    }
}

/// What all who read together cost at most, in the measure of documents: about as many records.
const ROOM: u64 = 1_000;

/// The readings that requests with one document may join, by who sees the same, on which thread.
#[derive(Default)]
pub struct Together(Mutex<ByKey<(Sight, runtime::Id), Gathering>>);

struct Gathering {
    /// The latest.
    reading: Weak<Reading>,
    /// Had by the one that is under way.
    turns: Arc<Semaphore>,
}

impl Gathering {
    /// Whether any reading is there.
    fn is_over(&self) -> bool {
        // Each has the turns too, from the first who may join to the last who is answered.
        Arc::strong_count(&self.turns) == 1
    }
}

/// A request that may read together with others.
pub struct Joining {
    together: Arc<Together>,
    cost: u64,
}

impl Joining {
    /// With others who ask with the same document, and of what they cost.
    pub fn new(together: Arc<Together>, cost: u64) -> Self {
        Self { together, cost }
    }

    /// A reading of what these see.
    pub(super) fn join(&self, db: &Database, sight: Sight) -> Arc<Reading> {
        let kind = (sight, Handle::current().id());
        // Upgraded and let go outside of the lock: the last to leave a reading gives its connection back.
        let latest = lock(&self.together.0)
            .get(&kind)
            .and_then(|gathering| gathering.reading.upgrade());
        if let Some(reading) = latest.filter(|reading| reading.join(self.cost)) {
            return reading;
        }
        let mut gatherings = lock(&self.together.0);
        if gatherings.len() == gatherings.capacity() {
            gatherings.retain(|_, gathering| !gathering.is_over());
        }
        let gathering = gatherings.entry(kind).or_insert_with(|| Gathering {
            reading: Weak::new(),
            turns: Arc::new(Semaphore::new(1)),
        });
        let snapshot = db.snapshot(sight).in_turn(gathering.turns.clone());
        let reading = Arc::new(Reading::of(snapshot, Some(ROOM.saturating_sub(self.cost))));
        gathering.reading = Arc::downgrade(&reading);
        reading
    }
}
