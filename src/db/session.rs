//! The tenant boundary: every statement about a tenant's data runs in a [`Snapshot`] or a [`Transaction`] of that tenant.
//!
//! Both set the tenant, and whose records are seen ([`super::reach`]), in the same message that begins their transaction,
//! and PostgreSQL's policies do the rest. There is no way to a connection without one, and a connection that was dropped in
//! the midst is thrown away by the pool. One on which everything has been answered is [left to the next](super::warm) before
//! the transaction ends; the message that begins theirs ends it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use diesel::connection::TransactionDepthChange;
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, SimpleAsyncConnection, TransactionManager};
use futures::future::{self, BoxFuture};
use futures::{FutureExt, poll};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use uuid::Uuid;

use super::fair::Who;
use super::reach::Sight;
use super::statement::statement;
use super::warm::{change_depth, is_warm};
use super::{Connection, Database};
use crate::error::{Error, Result};

/// How long an answer waits to know that its transaction had begun. As a rule that is known before anything is read.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long those who read together wait for the [turn](Snapshot::in_turn) of their transaction, at most.
const GATHERING: Duration = Duration::from_millis(2);

/// How a transaction begins.
struct Kind {
    /// On a connection that is in none.
    fresh: &'static str,
    /// Where a read is still open that has [ended](super::warm).
    following: &'static str,
}

/// Of what kind it is must be said again: after a read that failed, PostgreSQL does not go on with one of the same kind.
const READ: Kind = Kind {
    fresh: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    following: "COMMIT AND CHAIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
};

/// Of the kind that the database has by default: its operator may have made it one that only reads.
const WRITE: Kind = Kind {
    fresh: "BEGIN",
    following: "COMMIT; BEGIN",
};

/// A connection inside a transaction of one tenant.
struct Lease {
    connection: Arc<Connection>,
    /// What PostgreSQL answers when it has begun the transaction. Queries need not wait for it: they follow on the same
    /// wire. Nor is anybody woken by it: the driver keeps the answer, which is [short](Sight::settings), until it is asked for.
    begun: future::Shared<BoxFuture<'static, Result<()>>>,
    /// Had for as long as the transaction is under way.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// Tells when it is about to put the first message on the wire.
    async fn begin(
        db: &Database,
        who: Who,
        kind: Kind,
        sight: &Sight,
        about_to: impl FnOnce(),
    ) -> Result<Self> {
        let mut connection = db.connection_of(who).await?;
        let begin = if is_warm(&mut connection) {
            kind.following
        } else {
            // diesel must know of the transaction, so that the pool discards the connection when we are dropped in its midst.
            change_depth(&mut connection, TransactionDepthChange::IncreaseDepth)?;
            kind.fresh
        };
        let connection = Arc::new(connection);
        let started = {
            let connection = connection.clone();
            let sql = format!("{begin}; {}", sight.settings());
            // Unconstrained, so that an answer that is there is seen at once.
            unconstrained(async move { Ok((&mut &**connection).batch_execute(&sql).await?) })
        };
        let begun = started.boxed().shared();
        about_to();
        // The first look puts the message on the wire, before any query can.
        begun.clone().now_or_never().transpose()?;
        Ok(Self {
            connection,
            begun,
            _turn: None,
        })
    }

    /// Ends the transaction and hands the connection back to the pool, unless something about it failed.
    async fn end(self, commit: bool) -> Result<()> {
        let begun = self.begun.await;
        // A query that its waiter dropped may still hold the connection; then it cannot be used again.
        let mut connection = Arc::try_unwrap(self.connection).map_err(|_| Error::Unavailable)?;
        begun?;
        if commit {
            Box::pin(AnsiTransactionManager::commit_transaction(&mut *connection)).await?;
        } else {
            Box::pin(AnsiTransactionManager::rollback_transaction(&mut *connection)).await?;
        }
        Ok(())
    }

    /// Hands the connection back to the pool when PostgreSQL has ended the transaction.
    fn release(self) {
        drop(self.begun);
        let released = Arc::try_unwrap(self.connection)
            .map_err(|_| Error::Unavailable)
            .and_then(|mut connection| change_depth(&mut connection, TransactionDepthChange::DecreaseDepth));
        if let Err(error) = released {
            tracing::debug!(?error, "a connection is given up after its transaction");
        }
    }
}

/// One consistent view of one tenant's data: everything read through it is of the same moment.
pub struct Snapshot {
    db: Database,
    sight: Sight,
    lease: OnceCell<Lease>,
    /// Whether the message has been sent that begins the transaction, or nothing will come of it.
    closed: AtomicBool,
    /// Why there is no connection.
    failed: OnceLock<Error>,
    /// Whether several read from it.
    shared: AtomicBool,
    /// How many of them have not [said](Snapshot::complete) that they were answered.
    unanswered: AtomicUsize,
    turns: Option<Arc<Semaphore>>,
}

impl Snapshot {
    pub(super) fn new(db: Database, sight: Sight) -> Self {
        Self {
            db,
            sight,
            lease: OnceCell::new(),
            closed: AtomicBool::new(false),
            failed: OnceLock::new(),
            shared: AtomicBool::new(false),
            unanswered: AtomicUsize::new(1),
            turns: None,
        }
    }

    /// Begins when there is a turn, or has not been for a moment. Until then others may join.
    #[must_use]
    pub fn in_turn(mut self, turns: Arc<Semaphore>) -> Self {
        self.turns = Some(turns);
        self
    }

    /// Lets somebody else read from it too, unless that has begun: then what they would see may be older than their question.
    pub fn join(&self) -> bool {
        if self.closed.load(Ordering::SeqCst) {
            return false;
        }
        self.shared.store(true, Ordering::Relaxed);
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Whether somebody has joined.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Whether there is a connection to read from.
    pub fn has_begun(&self) -> bool {
        self.lease.get().is_some()
    }

    /// The connection, which is taken from the pool at the first use. When there was none, it is not tried again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection can be had.
    pub async fn conn(&self) -> Result<&AsyncPgConnection> {
        if let Some(lease) = self.lease.get() {
            return Ok(&lease.connection);
        }
        let begin = async || {
            if let Some(error) = self.failed.get() {
                return Err(error.clone());
            }
            let turn = match self.turns.clone() {
                Some(turns) => tokio::time::timeout(GATHERING, turns.acquire_owned()).await.ok(),
                None => None,
            };
            // PostgreSQL takes the snapshot for the first query, which may be in that message.
            let close = || self.closed.store(true, Ordering::SeqCst);
            let who = Some(self.sight.tenant());
            match Lease::begin(&self.db, who, READ, &self.sight, close).await {
                Ok(lease) => Ok(Lease {
                    _turn: turn.and_then(std::result::Result::ok),
                    ..lease
                }),
                Err(error) => {
                    close();
                    Err(self.failed.get_or_init(|| error).clone())
                }
            }
        };
        Ok(&self.lease.get_or_try_init(begin).await?.connection)
    }

    /// Says that nothing will be asked any more, and whether everything that was asked has been answered, to the last row.
    /// When all who read from it say so, the connection is left for the next as it is: PostgreSQL has nothing more to do on
    /// it. Who goes away earlier leaves it, perhaps, with a query that runs for long, and nobody should have to wait behind
    /// that.
    ///
    /// # Errors
    /// When PostgreSQL had refused to begin the transaction: what was read is then no view of the tenant.
    pub async fn complete(&self, answered: bool) -> Result<()> {
        if let Some(lease) = self.lease.get() {
            let begun = match poll!(lease.begun.clone()) {
                Poll::Ready(begun) => begun,
                // It may have its turn on the connection after a query of somebody else. Until then it must not be left
                // half way, as it would be if we were given up: others wait for their turns behind it.
                Poll::Pending => {
                    let begun = tokio::spawn(lease.begun.clone());
                    match tokio::time::timeout(PATIENCE, begun).await {
                        Ok(Ok(begun)) => begun,
                        _ => Err(Error::Unavailable),
                    }
                }
            };
            begun.inspect_err(|error| tracing::warn!(?error, "PostgreSQL did not begin a read"))?;
        }
        if answered {
            self.unanswered.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }
}

impl Drop for Snapshot {
    /// Ends the transaction off the caller's path, so that no answer waits for a COMMIT that has nothing to commit, or
    /// leaves that to who comes next.
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        if *self.unanswered.get_mut() == 0 {
            if let Some(connection) = Arc::into_inner(lease.connection) {
                connection.leave();
            }
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = lease.end(true).await {
                    tracing::debug!(
                        ?error,
                        "a read transaction could not be ended; its connection is closed"
                    );
                }
            });
        }
    }
}

/// A transaction that may write one tenant's data. Dropping it without [`Transaction::commit`] or
/// [`Transaction::commit_with`] rolls it back.
pub struct Transaction {
    sight: Sight,
    lease: Option<Lease>,
    /// Whether the changes have been made permanent.
    committed: AtomicBool,
}

impl Transaction {
    pub(super) async fn begin(db: &Database, who: Who, sight: Sight) -> Result<Self> {
        Ok(Self {
            lease: Some(Lease::begin(db, who, WRITE, &sight, || {}).await?),
            sight,
            committed: AtomicBool::new(false),
        })
    }

    /// The tenant whose data is written.
    pub fn tenant(&self) -> Uuid {
        self.sight.tenant()
    }

    /// What is seen of the tenant.
    pub fn sight(&self) -> &Sight {
        &self.sight
    }

    fn lease(&self) -> &Lease {
        (self.lease.as_ref()).expect("the lease is taken by commit and drop only")
    }

    /// The connection. Queries polled together on it are pipelined.
    pub fn conn(&self) -> &AsyncPgConnection {
        &self.lease().connection
    }

    /// Makes the changes permanent.
    ///
    /// # Errors
    /// As PostgreSQL says; the changes are then not made, or, when the connection broke, may or may not have been made.
    pub async fn commit(mut self) -> Result<()> {
        self.lease
            .take()
            .expect("commit consumes the transaction")
            .end(true)
            .await
    }

    /// Makes the changes permanent with a last statement, whose outcome is the answer. Both are sent together: what it locks
    /// is free again before its answer is here. If it fails, nothing is made permanent. Not a method, as only the end of a
    /// unit of work should come to it.
    ///
    /// # Errors
    /// As the statement and [`Transaction::commit`].
    pub async fn commit_with<T>(this: &Self, last: impl Future<Output = Result<T>>) -> Result<T> {
        this.lease().begun.clone().await?;
        // Prepared, as the statement is: a connection prepares and sends such one after the other, in the order in which they
        // are first looked at. What is not would overtake a statement that has to be prepared.
        let commit =
            async { Ok(diesel_async::RunQueryDsl::execute(statement("COMMIT"), &mut this.conn()).await?) };
        let (last, _) = future::try_join(last, commit).await?;
        this.committed.store(true, Ordering::Relaxed);
        Ok(last)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        if *self.committed.get_mut() {
            lease.release();
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = lease.end(false).await {
                    tracing::debug!(
                        ?error,
                        "a transaction could not be rolled back; its connection is closed"
                    );
                }
            });
        }
    }
}
