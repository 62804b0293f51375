//! Connections of reads that have ended, kept for a moment for whoever comes next.
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
//! diesel knows of the open transaction all the while. However a connection is lost from here, the pool throws it away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::Object;
use diesel::connection::{TransactionDepthChange, TransactionManagerStatus};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, PoolableConnection};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// How long a transaction stays open for the next who comes.
const MOMENT: Duration = Duration::from_millis(2);

/// A connection of the pool, which goes back to it when dropped.
pub(super) type Pooled = Object<AsyncDieselConnectionManager<AsyncPgConnection>>;

/// The connections that wait for who comes next. They hold no [place](super::fair): whoever comes has one.
#[derive(Default)]
pub(super) struct Warm(Mutex<State>);

#[derive(Default)]
struct State {
    /// With the time when each was left; the last one is taken first.
    left: Vec<(Instant, Pooled)>,
    /// Ends what nobody takes; there is none while there is nothing to end.
    sweeper: Option<JoinHandle<()>>,
}

impl Warm {
    /// Keeps a connection inside of the transaction of a read, in which nothing is still being answered.
    pub fn leave(self: &Arc<Self>, connection: Pooled) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut state = self.state();
        state.left.push((Instant::now(), connection));
        if state.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            state.sweeper = Some(runtime.spawn(self.clone().sweep()));
        }
    }

    /// Takes a connection, inside of the transaction that it was left in. One that was closed meanwhile is left to the
    /// pool, which replaces it.
    pub fn take(&self) -> Option<Pooled> {
        loop {
            let (_, mut connection) = self.state().left.pop()?;
            if !is_lost(&mut connection) {
                return Some(connection);
            }
        }
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                let now = Instant::now();
                let due = state.left.partition_point(|(since, _)| now >= *since + MOMENT);
                for (_, connection) in state.left.drain(..due) {
                    // Aside, so that one that does not answer keeps no other open.
                    tokio::spawn(end(connection));
                }
                let Some((since, _)) = state.left.first() else {
                    state.sweeper = None;
                    return;
                };
                *since + MOMENT
            };
            tokio::time::sleep_until(next.into()).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn end(mut connection: Pooled) {
    if let Err(error) = AnsiTransactionManager::commit_transaction(&mut *connection).await {
        tracing::debug!(?error, "the transaction of a read could not be ended");
    }
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
