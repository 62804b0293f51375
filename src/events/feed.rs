//! Following a tenant's history, from a position on and without end.
//!
//! For each tenant that somebody follows, the newest events are kept in memory. That is a cache and no more: a follower
//! knows its own position and takes what comes after it, from memory when it is there, from PostgreSQL otherwise. So a
//! slow follower costs no memory, and nothing is lost or doubled whatever hints are lost.
//!
//! PostgreSQL is read when there is a question: a hint, a follower who begins, or the poll, which asks by one statement
//! for all tenants that are followed. A read answers every question that was asked before it began.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;

use super::hints::Hint;
use super::known::{Known, Next};
use super::{Event, Position, Standing};
use crate::config::Pace;
use crate::db::Database;
use crate::db::directory::{Seen, changed_histories};
use crate::error::{Error, Result};

/// Events of a tenant that are kept in memory, and of all tenants together, at most. A tenant keeps a few in any case.
const ROOM: std::ops::RangeInclusive<usize> = 16..=1024;
const ROOM_OF_ALL: usize = 65_536;
/// Events read from PostgreSQL at a time.
const BATCH: i64 = 500;
/// Reads of histories that go on at a time: whoever follows must not take all connections from requests.
const READS: usize = 4;
/// How long a follower waits after a failure before it tries again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a read may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a follower of the history is told.
#[derive(Debug, Clone)]
pub enum Signal {
    /// Something happened, at the position that the event has in this epoch.
    Event { epoch: i64, event: Arc<Event> },
    /// Everything up to here has been told; what follows is live. Told after the replay, and again now and then, so that
    /// who drops most events has a position that is not old.
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

/// What this process knows of the histories that are followed in it.
pub struct Hub {
    db: Database,
    pace: Pace,
    feeds: Mutex<Feeds>,
    reads: Semaphore,
    /// Takes hints for the other instances.
    others: OnceLock<mpsc::Sender<Hint>>,
}

#[derive(Default)]
struct Feeds {
    by_tenant: HashMap<Uuid, Held>,
    polling: bool,
}

/// A feed, and since when nobody follows it.
struct Held {
    feed: Arc<Feed>,
    unused: Option<Instant>,
}

/// The history of one tenant.
struct Feed {
    tenant: Uuid,
    known: watch::Sender<Known>,
    /// The number of questions asked so far.
    asked: AtomicU64,
    /// Whether a task reads.
    reading: AtomicBool,
    /// Whether the last read failed.
    failing: AtomicBool,
    /// Held by the follower who reads, for all, what is no longer in memory.
    filling: tokio::sync::Mutex<()>,
}

impl Hub {
    /// A hub over a database; it does nothing until somebody follows.
    pub fn new(db: Database, pace: Pace) -> Arc<Self> {
        Arc::new(Self {
            db,
            pace,
            feeds: Mutex::default(),
            reads: Semaphore::new(READS),
            others: OnceLock::new(),
        })
    }

    /// Hands every hint of a change in this process to whoever sends it to other instances.
    pub(super) fn tell_others_by(&self, sender: mpsc::Sender<Hint>) {
        // Once is enough: an application has one Redis.
        let _ = self.others.set(sender);
    }

    /// Tells all instances that a tenant's history has reached a position. Never waits.
    pub fn tell(self: &Arc<Self>, tenant: Uuid, position: Position) {
        self.hint(tenant, position);
        if let Some(others) = self.others.get() {
            // When the queue is full, the poll tells them.
            let _ = others.try_send((tenant, position));
        }
    }

    /// Tells that a tenant's history has reached a position. May be lost, late or wrong without harm.
    pub fn hint(self: &Arc<Self>, tenant: Uuid, position: Position) {
        let feed = self.feeds().by_tenant.get(&tenant).map(|held| held.feed.clone());
        let Some(feed) = feed else { return };
        let known = feed.known.borrow().standing();
        if known.is_none_or(|known| known.epoch != position.epoch || known.position < position.position) {
            feed.ask(self);
        }
    }

    /// Where a tenant's history stands, at the moment of asking or later; those who ask at the same time share a read.
    /// When everything after `after` is in memory, what is known is answered, which a poll has confirmed just now.
    /// Waits for the database as long as it takes.
    pub async fn standing(self: &Arc<Self>, tenant: Uuid, after: Option<Position>) -> Standing {
        self.feed(tenant).standing(self, after).await
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
            after,
            at: None,
            told: None,
        };
        futures::stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            let signal = follower.next().await;
            let over = matches!(signal, Signal::MustRefetch(_));
            Some((signal, (!over).then_some(follower)))
        })
    }

    fn feeds(&self) -> MutexGuard<'_, Feeds> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(self: &Arc<Self>, tenant: Uuid) -> Arc<Feed> {
        let mut feeds = self.feeds();
        if !std::mem::replace(&mut feeds.polling, true) {
            tokio::spawn(poll(Arc::downgrade(self), self.pace.poll));
        }
        let held = feeds.by_tenant.entry(tenant).or_insert_with(|| Held {
            feed: Arc::new(Feed::new(tenant)),
            unused: None,
        });
        held.unused = None;
        held.feed.clone()
    }

    /// The feeds to ask for; none, and no poll from now on, when nothing is followed.
    fn followed(&self) -> Option<Vec<Arc<Feed>>> {
        let mut feeds = self.feeds();
        let linger = self.pace.linger;
        feeds.by_tenant.retain(|_, held| {
            if Arc::strong_count(&held.feed) > 1 {
                held.unused = None;
                return true;
            }
            held.unused.get_or_insert_with(Instant::now).elapsed() < linger
        });
        feeds.polling = !feeds.by_tenant.is_empty();
        let found = || {
            feeds
                .by_tenant
                .values()
                .map(|held| held.feed.clone())
                .collect::<Vec<_>>()
        };
        feeds.polling.then(found)
    }

    /// Events that a tenant may keep in memory now.
    fn room(&self) -> usize {
        let share = ROOM_OF_ALL / self.feeds().by_tenant.len().max(1);
        share.clamp(*ROOM.start(), *ROOM.end())
    }

    /// Reads where a history stands, and what came after a position, in one snapshot.
    async fn read(&self, tenant: Uuid, after: Option<i64>, limit: i64) -> Result<(Standing, Vec<Event>)> {
        let _turn = self.reads.acquire().await.map_err(Error::internal)?;
        let read = async {
            let snapshot = self.db.snapshot(tenant);
            let conn = snapshot.conn().await?;
            let found = match after {
                None => (super::standing(conn).await?, Vec::new()),
                Some(after) => futures::try_join!(super::standing(conn), super::read(conn, after, limit))?,
            };
            snapshot.complete(true).await?;
            Ok(found)
        };
        patient(read).await
    }
}

/// Waits for a read, but not for ever: a connection that was cut without a word would hold all who wait behind it.
async fn patient<T>(read: impl Future<Output = Result<T>>) -> Result<T> {
    let read = tokio::time::timeout(PATIENCE, read).await;
    read.unwrap_or(Err(Error::Unavailable))
}

/// Asks for all histories together whether they have moved on, for as long as any is followed.
async fn poll(hub: Weak<Hub>, every: Duration) {
    let mut failing = false;
    loop {
        tokio::time::sleep(every).await;
        let Some(hub) = hub.upgrade() else { return };
        let Some(feeds) = hub.followed() else { return };
        match look(&hub, &feeds).await {
            Ok(()) if std::mem::take(&mut failing) => tracing::info!("histories can be read again"),
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(?error, "histories cannot be read; trying on");
                }
            }
        }
    }
}

async fn look(hub: &Arc<Hub>, feeds: &[Arc<Feed>]) -> Result<()> {
    let looked = Instant::now();
    let seen: Vec<Seen> = feeds.iter().filter_map(|feed| feed.seen()).collect();
    let changed = if seen.is_empty() {
        Vec::new()
    } else {
        patient(changed_histories(&hub.db, &seen)).await?
    };
    let changed: std::collections::HashSet<Uuid> = changed.into_iter().collect();
    let room = hub.room();
    for feed in feeds {
        if changed.contains(&feed.tenant) {
            feed.ask(hub);
        } else {
            feed.known.send_if_modified(|known| {
                if known.standing().is_some() {
                    known.confirm(looked);
                }
                known.make_room(room);
                false
            });
            if feed.is_asked() {
                // A read has failed.
                feed.answer(hub);
            }
        }
    }
    Ok(())
}

/// A task's right to read a feed, which it loses however it ends.
struct Reading<'a>(&'a AtomicBool);

impl<'a> Reading<'a> {
    fn begin(reading: &'a AtomicBool) -> Option<Self> {
        (!reading.swap(true, SeqCst)).then(|| Self(reading))
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

impl Feed {
    fn new(tenant: Uuid) -> Self {
        Self {
            tenant,
            known: watch::Sender::new(Known::default()),
            asked: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            filling: tokio::sync::Mutex::default(),
        }
    }

    fn seen(&self) -> Option<Seen> {
        self.known.borrow().standing().map(|standing| Seen {
            tenant_id: self.tenant,
            epoch: standing.epoch,
            position: standing.position,
        })
    }

    /// Asks where the history stands now, and answers the number of the question.
    fn ask(self: &Arc<Self>, hub: &Arc<Hub>) -> u64 {
        let question = self.asked.fetch_add(1, SeqCst) + 1;
        self.answer(hub);
        question
    }

    /// Whether there is anything to read.
    fn is_asked(&self) -> bool {
        let known = self.known.borrow();
        known.answered < self.asked.load(SeqCst) || known.is_behind()
    }

    /// Lets a task answer what has been asked, unless one does. When it fails, the poll begins it anew.
    fn answer(self: &Arc<Self>, hub: &Arc<Hub>) {
        if self.reading.load(SeqCst) {
            return;
        }
        let (feed, hub) = (self.clone(), hub.clone());
        tokio::spawn(async move {
            // Whoever asks while the task is ending sees that it reads, so it looks once more when it no longer does.
            while feed.is_asked()
                && let Some(_reading) = Reading::begin(&feed.reading)
            {
                while feed.is_asked() {
                    let done = feed.read_news(&hub).await;
                    let failed_before = feed.failing.swap(done.is_err(), SeqCst);
                    if let Err(error) = done {
                        if !failed_before {
                            report(&error, "a history cannot be read; the next poll tries again");
                        }
                        return;
                    }
                }
            }
        });
    }

    async fn read_news(&self, hub: &Hub) -> Result<()> {
        let (question, looked) = (self.asked.load(SeqCst), Instant::now());
        let after = {
            let known = self.known.borrow();
            known.standing().map(|_| known.end())
        };
        let (standing, events) = hub.read(self.tenant, after, BATCH).await?;
        let room = hub.room();
        self.known.send_modify(|known| {
            known.take_in(looked, standing, events, room);
            known.answered = question;
        });
        Ok(())
    }

    /// As [`Hub::standing`].
    async fn standing(self: &Arc<Self>, hub: &Arc<Hub>, after: Option<Position>) -> Standing {
        let fresh = after.and_then(|after| {
            let known = self.known.borrow();
            let all_answered = known.answered == self.asked.load(SeqCst);
            known.fresh_since(after).filter(|_| all_answered)
        });
        if let Some(standing) = fresh {
            return standing;
        }
        let question = self.ask(hub);
        let mut known = self.known.subscribe();
        let answered = known.wait_for(|known| known.answered >= question).await;
        let answered = answered.expect("it ends with the feed, which is held here");
        answered.standing().expect("what was read has a standing")
    }
}

/// A database that is away is told of by the poll, once; everything else is our fault, and wants to be seen.
fn report(error: &Error, what: &'static str) {
    match error {
        Error::Unavailable => tracing::debug!("{what}"),
        _ => tracing::warn!(?error, "{what}"),
    }
}

struct Follower {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    after: Option<Position>,
    at: Option<At>,
    /// What `UpToDate` was last said of, and when.
    told: Option<(i64, Instant)>,
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
        let mut failing = false;
        loop {
            match self.step().await {
                Ok(Some(signal)) => return signal,
                Ok(None) => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        report(&error, "a follower cannot read its history; trying on");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// A signal, or a step towards one. Boxed is what happens rarely, so that a follower who waits is small.
    async fn step(&mut self) -> Result<Option<Signal>> {
        let Some(at) = &mut self.at else {
            return Ok(Box::pin(self.start()).await);
        };
        if at.position >= at.live_from && self.told.is_none() {
            return Ok(Some(self.tell()));
        }
        let next = match at.ahead.pop_front() {
            Some(event) => Next::Event(event),
            None => self.feed.known.borrow().next(at.epoch, at.position),
        };
        match next {
            Next::Event(event) => {
                at.position = event.position;
                let epoch = at.epoch;
                Ok(Some(Signal::Event { epoch, event }))
            }
            Next::Over(reason) => Ok(Some(Signal::MustRefetch(reason))),
            Next::Older => Box::pin(self.read_ahead()).await,
            Next::Nothing if at.position < at.live_from => Box::pin(self.read_ahead()).await,
            Next::Nothing => Ok(self.wait().await),
        }
    }

    async fn start(&mut self) -> Option<Signal> {
        let standing = self.feed.standing(&self.hub, self.after).await;
        let from = match self.after {
            None => standing.position,
            Some(after) if after.epoch != standing.epoch => {
                return Some(Signal::MustRefetch(Reason::HistoryReplaced));
            }
            Some(after) if after.position > standing.position => {
                return Some(Signal::MustRefetch(Reason::PositionUnknown));
            }
            Some(after) if after.position < standing.trimmed => {
                return Some(Signal::MustRefetch(Reason::HistoryTrimmed));
            }
            Some(after) => after.position,
        };
        self.at = Some(At {
            epoch: standing.epoch,
            position: from,
            live_from: standing.position,
            ahead: VecDeque::new(),
        });
        None
    }

    /// Waits, live, until there is more to tell than before, or until it is time to say `UpToDate` again.
    async fn wait(&mut self) -> Option<Signal> {
        let at = self.at.as_ref()?;
        let (told, when) = self.told?;
        let (epoch, position) = (at.epoch, at.position);
        let mut known = self.feed.known.subscribe();
        let more = async {
            // It fails only when the feed is no more, and we hold it.
            let _ = known
                .wait_for(|known| !matches!(known.next(epoch, position), Next::Nothing))
                .await;
        };
        if told == position {
            more.await;
            return None;
        }
        let again = tokio::time::timeout_at((when + self.hub.pace.retell).into(), more);
        again.await.is_err().then(|| self.tell())
    }

    fn tell(&mut self) -> Signal {
        let at = self.at.as_ref().expect("only who has begun has anything to tell");
        self.told = Some((at.position, Instant::now()));
        Signal::UpToDate(Position {
            epoch: at.epoch,
            position: at.position,
        })
    }

    /// Reads what comes next from PostgreSQL: for all who follow, when they may want it too, or for this one.
    async fn read_ahead(&mut self) -> Result<Option<Signal>> {
        let Some(at) = &mut self.at else { return Ok(None) };
        let room = self.hub.room();
        let gap = || self.feed.known.borrow().gap(at.epoch, at.position, room);
        let (_turn, shared) = match gap() {
            None => (None, None),
            // Somebody else may have read it while we waited for our turn.
            Some(_) => match (self.feed.filling.lock().await, gap()) {
                (_, None) => return Ok(None),
                (turn, gap) => (Some(turn), gap),
            },
        };
        let (from, limit) = shared.unwrap_or((at.position, BATCH));
        let (standing, events) = self.hub.read(self.feed.tenant, Some(from), limit).await?;
        if standing.epoch != at.epoch {
            return Ok(Some(Signal::MustRefetch(Reason::HistoryReplaced)));
        }
        if standing.position < at.live_from {
            return Ok(Some(Signal::MustRefetch(Reason::PositionUnknown)));
        }
        // The history is dense: a gap means that it was trimmed under us.
        let first = events.iter().find(|event| event.position > at.position);
        if at.position < standing.trimmed || first.is_some_and(|event| event.position != at.position + 1) {
            return Ok(Some(Signal::MustRefetch(Reason::HistoryTrimmed)));
        }
        let events: Vec<Arc<Event>> = events.into_iter().map(Arc::new).collect();
        if shared.is_some() {
            self.feed.known.send_if_modified(|known| {
                known.take_in_older(at.epoch, &events);
                false
            });
        }
        // This read may know of more than the feed does; what is told must not outrun what is known of the history.
        let known = self.feed.known.borrow().standing();
        let head = known.map_or(0, |known| known.position);
        at.ahead = events
            .into_iter()
            .filter(|event| event.position > at.position && event.position <= head)
            .collect();
        Ok(None)
    }
}
