//! The tenant boundary: every statement about a tenant's data runs in a [`Snapshot`] or a [`Transaction`] of that tenant.
//!
//! Both set the tenant, and whose records are seen ([`super::reach`]), in the same message that begins their transaction, and PostgreSQL's policies do the rest. There is
//! no way to a connection without one, and a connection that was dropped in the midst is thrown away by the pool.

use diesel::connection::{TransactionDepthChange, TransactionManagerStatus};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, SimpleAsyncConnection, TransactionManager};
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::reach::Sight;
use super::{Connection, Database};
use crate::error::{Error, Result};

const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const WRITE: &str = "BEGIN";

/// A connection inside a transaction of one tenant.
struct Lease {
    connection: Arc<Connection>,
    /// Answers when PostgreSQL has begun the transaction. Queries need not wait for it: they follow on the same wire.
    begun: JoinHandle<diesel::QueryResult<()>>,
}

impl Lease {
    async fn begin(db: &Database, begin: &'static str, sight: &Sight) -> Result<Self> {
        let mut connection = db.connection_of(Some(sight.tenant())).await?;
        // diesel must know of the transaction, so that the pool discards the connection when we are dropped in its midst.
        change_depth(&mut connection, TransactionDepthChange::IncreaseDepth)?;
        let connection = Arc::new(connection);
        let mut started = {
            let connection = connection.clone();
            let sql = format!("{begin}; {}", sight.settings());
            Box::pin(async move { (&mut &**connection).batch_execute(&sql).await })
        };
        // The first poll puts the message on the wire, before any query can; its answer is awaited aside.
        let begun = match futures::poll!(&mut started) {
            std::task::Poll::Ready(Err(error)) => return Err(error.into()),
            std::task::Poll::Ready(Ok(())) => tokio::spawn(async { Ok(()) }),
            std::task::Poll::Pending => tokio::spawn(started),
        };
        Ok(Self { connection, begun })
    }

    /// Ends the transaction and hands the connection back to the pool, unless something about it failed.
    async fn end(self, commit: bool) -> Result<()> {
        let begun = self.begun.await.map_err(Error::internal)?;
        // A query that its waiter dropped may still hold the connection; then it cannot be used again.
        let mut connection = Arc::try_unwrap(self.connection).map_err(|_| Error::Unavailable)?;
        begun?;
        if commit {
            AnsiTransactionManager::commit_transaction(&mut *connection).await?;
        } else {
            AnsiTransactionManager::rollback_transaction(&mut *connection).await?;
        }
        Ok(())
    }
}

/// A transaction's connection, held beside it.
pub struct Shared(Arc<Connection>);

impl std::ops::Deref for Shared {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.0
    }
}

fn change_depth(connection: &mut Connection, change: TransactionDepthChange) -> Result<()> {
    match AnsiTransactionManager::transaction_manager_status_mut(&mut **connection) {
        TransactionManagerStatus::Valid(status) => Ok(status.change_transaction_depth(change)?),
        TransactionManagerStatus::InError => Err(Error::Unavailable),
    }
}

/// One consistent view of one tenant's data: everything read through it is of the same moment.
pub struct Snapshot {
    db: Database,
    sight: Sight,
    lease: OnceCell<Lease>,
}

impl Snapshot {
    pub(super) fn new(db: Database, sight: Sight) -> Self {
        Self {
            db,
            sight,
            lease: OnceCell::new(),
        }
    }

    /// The connection, which is taken from the pool at the first use.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection can be had.
    pub async fn conn(&self) -> Result<&AsyncPgConnection> {
        if let Some(lease) = self.lease.get() {
            return Ok(&lease.connection);
        }
        // Boxed, because every loader's future has room for this one, and one of them needs it.
        let begin = self
            .lease
            .get_or_try_init(|| Lease::begin(&self.db, READ, &self.sight));
        Ok(&Box::pin(begin).await?.connection)
    }
}

impl Drop for Snapshot {
    /// Ends the transaction off the caller's path, so that no answer waits for a COMMIT that has nothing to commit.
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
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

/// A transaction that may write one tenant's data. Dropping it without [`Transaction::commit`] rolls it back.
pub struct Transaction {
    sight: Sight,
    lease: Option<Lease>,
}

impl Transaction {
    pub(super) async fn begin(db: &Database, sight: Sight) -> Result<Self> {
        Ok(Self {
            lease: Some(Lease::begin(db, WRITE, &sight).await?),
            sight,
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

    /// The connection. Queries polled together on it are pipelined.
    pub fn conn(&self) -> &AsyncPgConnection {
        &self
            .lease
            .as_ref()
            .expect("the lease is taken by commit and drop only")
            .connection
    }

    /// The connection for a query that outlives a borrow. It must have ended before the transaction does.
    pub fn shared_conn(&self) -> Shared {
        Shared(
            self.lease
                .as_ref()
                .expect("the lease is taken by commit and drop only")
                .connection
                .clone(),
        )
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
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
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
