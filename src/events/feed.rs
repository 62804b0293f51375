//! Following a tenant's history, from a position on and without end.
//!
//! One reader per tenant that somebody follows. It keeps the newest events in a ring, which is a cache and no more: a
//! follower knows its own position and takes what comes after it, from the ring when the ring has it, from PostgreSQL
//! otherwise. So a slow follower costs no memory, and nothing is lost or doubled whatever hints are lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures::Stream;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{Event, Position, Standing};
use crate::db::Database;
use crate::error::{Error, Result};

/// Events that a tenant's ring keeps in memory.
const RING: usize = 1024;
/// Events read from PostgreSQL at a time.
const BATCH: i64 = 500;
/// How long a lost hint can delay delivery.
const POLL: Duration = Duration::from_secs(1);

/// What a follower of the history is told.
#[derive(Debug, Clone)]
pub enum Signal {
    /// Something happened, at the position that the event has in this epoch.
    Event { epoch: i64, event: Arc<Event> },
    /// Everything up to here has been told; what follows is live.
    UpToDate(Position),
    /// The history cannot be continued from the given position. Nothing follows.
    MustRefetch(Reason),
}

impl Signal {
    /// The position up to which everything has been told with this; none when the history cannot be continued.
    pub fn position(&self) -> Option<i64> {
        match self {
            Self::Event { event, .. } => Some(event.position),
            Self::UpToDate(position) => Some(position.position),
            Self::MustRefetch(_) => None,
        }
    }
}

/// Why a history cannot be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Events after the position are no longer kept.
    HistoryTrimmed,
    /// The position belongs to another history: of another tenant, or from before a restored backup.
    HistoryReplaced,
    /// The position lies in the future.
    PositionUnknown,
}

/// The readers of all tenants that are followed in this process.
pub struct Hub {
    db: Database,
    feeds: Mutex<HashMap<Uuid, Weak<Feed>>>,
}

/// What is known of one tenant's history.
struct Feed {
    wake: Arc<Notify>,
    head: watch::Sender<Option<Standing>>,
    ring: RwLock<Ring>,
}

/// The newest events of a history, one after the other without a gap.
#[derive(Default)]
struct Ring {
    /// The history that the events are of: positions mean nothing in another.
    epoch: i64,
    events: VecDeque<Arc<Event>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A hub over a database; it does nothing until somebody follows.
    pub fn new(db: Database) -> Arc<Self> {
        Arc::new(Self {
            db,
            feeds: Mutex::default(),
        })
    }

    /// Tells that a tenant's history has reached a position. May be lost, late or wrong without harm.
    pub fn hint(&self, tenant: Uuid, position: i64) {
        let feed = lock(&self.feeds).get(&tenant).and_then(Weak::upgrade);
        if let Some(feed) = feed
            && feed.head.borrow().is_none_or(|head| head.position < position)
        {
            feed.wake.notify_one();
        }
    }

    /// Where a tenant's history stands, at the moment of asking or later.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standing(&self, tenant: Uuid) -> Result<Standing> {
        let snapshot = self.db.snapshot(tenant);
        super::standing(snapshot.conn().await?).await
    }

    /// Follows a tenant's history: first what came after `after`, then [`Signal::UpToDate`], then what comes.
    /// Without `after` it begins now.
    pub fn follow(
        self: &Arc<Self>,
        tenant: Uuid,
        after: Option<Position>,
    ) -> impl Stream<Item = Signal> + Send + use<> {
        let follower = Follower {
            hub: self.clone(),
            feed: self.feed(tenant),
            tenant,
            after,
            at: None,
            told: false,
        };
        futures::stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            let signal = follower.next().await;
            let over = matches!(signal, Signal::MustRefetch(_));
            Some((signal, (!over).then_some(follower)))
        })
    }

    fn feed(self: &Arc<Self>, tenant: Uuid) -> Arc<Feed> {
        let mut feeds = lock(&self.feeds);
        if let Some(feed) = feeds.get(&tenant).and_then(Weak::upgrade) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let wake = Arc::new(Notify::new());
        let feed = Arc::new(Feed {
            wake: wake.clone(),
            head: watch::Sender::new(None),
            ring: RwLock::default(),
        });
        feeds.insert(tenant, Arc::downgrade(&feed));
        tokio::spawn(read_on(self.db.clone(), tenant, Arc::downgrade(&feed), wake));
        feed
    }
}

/// Keeps a feed up to date for as long as somebody holds it.
async fn read_on(db: Database, tenant: Uuid, feed: Weak<Feed>, wake: Arc<Notify>) {
    let mut failing = false;
    loop {
        let Some(known) = feed.upgrade().map(|feed| *feed.head.borrow()) else {
            return;
        };
        let news = read_news(&db, tenant, known).await;
        let Some(feed) = feed.upgrade() else { return };
        let caught_up = match news {
            Ok((standing, events)) => {
                failing = false;
                // A batch may end before the newest event; the head must not promise what the next batch brings.
                let position = events
                    .last()
                    .map_or(known.map_or(standing.position, |k| k.position), |e| e.position);
                let replaced = known.is_some_and(|known| known.epoch != standing.epoch);
                let head = if replaced {
                    // What was read continues another history. Who follows that one is told, and the ring begins anew.
                    feed.extend(standing.epoch, Vec::new());
                    standing
                } else {
                    feed.extend(standing.epoch, events);
                    Standing { position, ..standing }
                };
                if known != Some(head) {
                    feed.head.send_replace(Some(head));
                }
                head.position >= standing.position
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(?error, "the history cannot be read; trying on");
                }
                true
            }
        };
        drop(feed);
        if caught_up {
            let _ = tokio::time::timeout(POLL, wake.notified()).await;
        }
    }
}

async fn read_news(db: &Database, tenant: Uuid, known: Option<Standing>) -> Result<(Standing, Vec<Event>)> {
    let snapshot = db.snapshot(tenant);
    let conn = snapshot.conn().await?;
    match known {
        None => Ok((super::standing(conn).await?, Vec::new())),
        Some(known) => futures::try_join!(super::standing(conn), super::read(conn, known.position, BATCH)),
    }
}

impl Feed {
    fn extend(&self, epoch: i64, events: Vec<Event>) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if ring.epoch != epoch {
            *ring = Ring {
                epoch,
                ..Ring::default()
            };
        }
        ring.events.extend(events.into_iter().map(Arc::new));
        let surplus = ring.events.len().saturating_sub(RING);
        ring.events.drain(..surplus);
    }

    /// The event that follows a position, when it is still in memory.
    fn after(&self, epoch: i64, position: i64) -> Option<Arc<Event>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        if ring.epoch != epoch {
            return None;
        }
        // The history is dense: the place in the ring is known without a search.
        let index = usize::try_from(position + 1 - ring.events.front()?.position).ok()?;
        ring.events.get(index).cloned()
    }
}

struct Follower {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    tenant: Uuid,
    after: Option<Position>,
    at: Option<At>,
    /// Whether `UpToDate` has been said.
    told: bool,
}

/// Where a follower stands.
struct At {
    epoch: i64,
    position: i64,
    /// Up to here is replay.
    live_from: i64,
    /// Read from PostgreSQL, not yet told.
    ahead: VecDeque<Arc<Event>>,
}

impl Follower {
    /// The next signal. A database that is away makes it wait, never end.
    async fn next(&mut self) -> Signal {
        loop {
            match self.step().await {
                Ok(Some(signal)) => return signal,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(?error, "a follower waits for the database");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Signal>> {
        let Some(at) = &mut self.at else {
            return self.start().await;
        };
        if at.position >= at.live_from && !std::mem::replace(&mut self.told, true) {
            return Ok(Some(Signal::UpToDate(Position {
                epoch: at.epoch,
                position: at.position,
            })));
        }
        if let Some(event) = at
            .ahead
            .pop_front()
            .or_else(|| self.feed.after(at.epoch, at.position))
        {
            at.position = event.position;
            return Ok(Some(Signal::Event {
                epoch: at.epoch,
                event,
            }));
        }
        if at.position < at.live_from {
            return self.read_ahead().await;
        }
        // Live: wait until the reader knows of more, or of another history.
        let (epoch, position) = (at.epoch, at.position);
        let mut head = self.feed.head.subscribe();
        let news = head
            .wait_for(|head| head.is_some_and(|h| h.epoch != epoch || h.position > position))
            .await;
        let head = (*news.map_err(Error::internal)?).ok_or(Error::Unavailable)?;
        if head.epoch != epoch {
            return Ok(Some(Signal::MustRefetch(Reason::HistoryReplaced)));
        }
        if self.feed.after(epoch, position).is_none() {
            return self.read_ahead().await;
        }
        Ok(None)
    }

    async fn start(&mut self) -> Result<Option<Signal>> {
        let snapshot = self.hub.db.snapshot(self.tenant);
        let standing = super::standing(snapshot.conn().await?).await?;
        let from = match self.after {
            None => standing.position,
            Some(after) if after.epoch != standing.epoch => {
                return Ok(Some(Signal::MustRefetch(Reason::HistoryReplaced)));
            }
            Some(after) if after.position > standing.position => {
                return Ok(Some(Signal::MustRefetch(Reason::PositionUnknown)));
            }
            Some(after) if after.position < standing.trimmed => {
                return Ok(Some(Signal::MustRefetch(Reason::HistoryTrimmed)));
            }
            Some(after) => after.position,
        };
        self.at = Some(At {
            epoch: standing.epoch,
            position: from,
            live_from: standing.position,
            ahead: VecDeque::new(),
        });
        Ok(None)
    }

    async fn read_ahead(&mut self) -> Result<Option<Signal>> {
        let Some(at) = &mut self.at else { return Ok(None) };
        let snapshot = self.hub.db.snapshot(self.tenant);
        let conn = snapshot.conn().await?;
        let (standing, events) =
            futures::try_join!(super::standing(conn), super::read(conn, at.position, BATCH))?;
        if standing.epoch != at.epoch {
            return Ok(Some(Signal::MustRefetch(Reason::HistoryReplaced)));
        }
        // The history is dense: a gap means that it was trimmed under us.
        if at.position < standing.trimmed
            || events
                .first()
                .is_some_and(|event| event.position != at.position + 1)
        {
            return Ok(Some(Signal::MustRefetch(Reason::HistoryTrimmed)));
        }
        at.ahead = events.into_iter().map(Arc::new).collect();
        Ok(None)
    }
}
