//! Connections that nobody uses at the moment.
//!
//! # Reads that have ended
//!
//! To end a read costs as much as to begin it: a message and its answer, and a process woken on either side, for a COMMIT
//! that has nothing to commit. So a read that went well leaves its transaction open, and who takes the connection next ends
//! it in the message that begins their own. If nobody comes for a moment it is ended here: an open snapshot keeps dead rows
//! from being removed, and its locks hold up migrations.
//!
//! Nothing of the read is left for the next: its tenant and its role are `SET LOCAL`, and end with its transaction. The
//! message by which a read ends it says `COMMIT AND CHAIN`, so the connection is inside a transaction at every moment: were
//! the message to fail, what follows it would be refused, and would not run outside of all transactions and without a tenant,
//! to find nothing. A write without a tenant is refused by itself.
//!
//! diesel knows of the open transaction all the while. However a connection is lost from here, it is closed, and there is room for another.
//!
//! # At home
//!
//! A connection is watched by the runtime that opened it, which is a thread of its own for [each](crate::http) that serves.
//! Whoever takes one of another thread wakes that thread with each question, and is woken by it with each answer, and that
//! costs more than either. So everybody takes one of their own, or opens one, before they take another's; and if a home has
//! more than its share, one that has less closes one of these and opens one of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, Object, RecycleResult};
use diesel::connection::{TransactionDepthChange, TransactionManagerStatus};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, PoolError, PoolableConnection};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};
use tokio::runtime::{self, Handle};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// How long a transaction stays open for the next who comes.
const MOMENT: Duration = Duration::from_millis(2);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many connections are at home where.
#[derive(Default)]
pub(super) struct Homes(Mutex<HashMap<runtime::Id, usize>>);

impl Homes {
    /// Whether one of so many connections should be at home here rather than there: there are more than a fair share of
    /// them, and fewer here.
    pub fn calls(&self, there: runtime::Id, here: runtime::Id, connections: usize) -> bool {
        let homes = lock(&self.0);
        let count = |home| homes.get(&home).copied().unwrap_or_default();
        let share = connections / (homes.len() + usize::from(count(here) == 0));
        count(there) > share && count(here) < share
    }
}

/// Counts a connection until it is closed.
struct Counted {
    homes: Arc<Homes>,
    home: runtime::Id,
}

impl Counted {
    fn here(homes: Arc<Homes>) -> Self {
        let home = Handle::current().id();
        *lock(&homes.0).entry(home).or_default() += 1;
        Self { homes, home }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut homes = lock(&self.homes.0);
        if let Entry::Occupied(mut count) = homes.entry(self.home) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Opens connections, and knows where.
pub(super) struct Opener {
    pub manager: AsyncDieselConnectionManager<AsyncPgConnection>,
    pub homes: Arc<Homes>,
}

/// A connection that knows where it is at home.
pub(super) struct Homed {
    connection: AsyncPgConnection,
    counted: Counted,
}

impl Homed {
    pub fn home(&self) -> runtime::Id {
        self.counted.home
    }
}

impl Deref for Homed {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.connection
    }
}

impl DerefMut for Homed {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.connection
    }
}

impl Manager for Opener {
    type Type = Homed;
    type Error = PoolError;

    async fn create(&self) -> Result<Homed, PoolError> {
        Ok(Homed {
            connection: self.manager.create().await?,
            counted: Counted::here(self.homes.clone()),
        })
    }

    async fn recycle(&self, homed: &mut Homed, metrics: &Metrics) -> RecycleResult<PoolError> {
        self.manager.recycle(&mut homed.connection, metrics).await
    }
}

/// A connection of the pool, which counts them. While nobody uses it, it is [here](Idle): the pool asks for nobody's home.
pub(super) type Pooled = Object<Opener>;

/// The connections that wait for who comes next. They hold no [place](super::fair): whoever comes has one.
#[derive(Default)]
pub(super) struct Idle {
    state: Mutex<State>,
    back: Notify,
}

#[derive(Default)]
struct State {
    /// Inside of the transactions of reads that have ended, with the times when; the last is taken first.
    warm: Vec<(Instant, Pooled)>,
    /// In no transaction.
    cold: Vec<Pooled>,
    /// Ends what nobody takes; there is none while there is nothing to end.
    sweeper: Option<JoinHandle<()>>,
}

impl State {
    /// Takes a connection at this home, or at any; a warm one if there is one, or only if there is no other.
    fn take(&mut self, home: Option<runtime::Id>, warm_first: bool) -> Option<Pooled> {
        let fits = |pooled: &Pooled| home.is_none_or(|home| pooled.home() == home);
        let warm = self.warm.iter().rposition(|(_, pooled)| fits(pooled));
        let cold = self.cold.iter().rposition(fits);
        match (warm, cold) {
            (Some(warm), cold) if warm_first || cold.is_none() => Some(self.warm.remove(warm).1),
            (_, cold) => Some(self.cold.remove(cold?)),
        }
    }
}

impl Idle {
    /// Keeps a connection that is in no transaction, and closes any other.
    pub fn keep(&self, mut pooled: Pooled) {
        if std::thread::panicking() || pooled.is_broken() {
            close(pooled);
        } else {
            self.state().cold.push(pooled);
            self.back.notify_waiters();
        }
    }

    /// Keeps a connection inside of the transaction of a read, in which nothing is still being answered.
    pub fn leave(self: &Arc<Self>, pooled: Pooled) {
        let Ok(runtime) = Handle::try_current() else {
            return close(pooled);
        };
        let mut state = self.state();
        state.warm.push((Instant::now(), pooled));
        if state.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            state.sweeper = Some(runtime.spawn(self.clone().sweep()));
        }
    }

    /// Takes a connection at this home, or at any, perhaps inside of the transaction that it was left in: rather so, or only
    /// if there is no other. One that was closed meanwhile is forgotten.
    pub fn take(&self, home: Option<runtime::Id>, warm_first: bool) -> Option<Pooled> {
        loop {
            let mut pooled = self.state().take(home, warm_first)?;
            let lost = if is_warm(&mut pooled) {
                is_lost(&mut pooled)
            } else {
                pooled.is_broken()
            };
            if !lost {
                return Some(pooled);
            }
            close(pooled);
        }
    }

    /// Waits until one comes back that is in no transaction, from when this is called.
    pub fn back(&self) -> Notified<'_> {
        self.back.notified()
    }

    /// How many are in no transaction.
    pub fn cold(&self) -> usize {
        self.state().cold.len()
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                let now = Instant::now();
                let due = state.warm.partition_point(|(since, _)| now >= *since + MOMENT);
                for (_, pooled) in state.warm.drain(..due) {
                    // Aside, so that one that does not answer keeps no other open.
                    tokio::spawn(self.clone().end(pooled));
                }
                let Some((since, _)) = state.warm.first() else {
                    state.sweeper = None;
                    return;
                };
                *since + MOMENT
            };
            tokio::time::sleep_until(next.into()).await;
        }
    }

    async fn end(self: Arc<Self>, mut pooled: Pooled) {
        match AnsiTransactionManager::commit_transaction(&mut **pooled).await {
            Ok(()) => self.keep(pooled),
            Err(error) => {
                tracing::debug!(?error, "the transaction of a read could not be ended");
                close(pooled);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Makes room for another in the pool.
pub(super) fn close(pooled: Pooled) {
    drop(Object::take(pooled));
}

/// Whether the connection is inside of a transaction, as a read leaves it.
pub(super) fn is_warm(connection: &mut AsyncPgConnection) -> bool {
    let status = AnsiTransactionManager::transaction_manager_status_mut(connection);
    let depth = status.transaction_depth();
    depth.is_ok_and(|depth| depth.is_some())
}

/// Tells diesel of a transaction that it did not begin itself.
pub(super) fn change_depth(connection: &mut AsyncPgConnection, change: TransactionDepthChange) -> Result<()> {
    match AnsiTransactionManager::transaction_manager_status_mut(connection) {
        TransactionManagerStatus::Valid(status) => Ok(status.change_transaction_depth(change)?),
        TransactionManagerStatus::InError => Err(Error::Unavailable),
    }
}

/// Whether the connection was closed, or diesel has given it up, which it answers of a connection without a transaction only.
fn is_lost(connection: &mut AsyncPgConnection) -> bool {
    let outside = change_depth(connection, TransactionDepthChange::DecreaseDepth);
    let lost = outside.is_err() || connection.is_broken();
    let inside = change_depth(connection, TransactionDepthChange::IncreaseDepth);
    lost || inside.is_err()
}
