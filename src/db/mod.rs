//! PostgreSQL, and the rules of reaching it.
//!
//! 1. A connection is taken here only: a [`session::Snapshot`] to read, a [`session::Transaction`] to write, each of one
//!    tenant, and [`directory`] for the little that happens before a tenant is known.
//! 2. The tenant is set by `SET LOCAL` in the message that begins the transaction, nowhere else. The same message ends the
//!    read that had the connection before, if that is still [open](warm).
//! 3. Reads take `&AsyncPgConnection`, so that queries polled together are pipelined; writes take `&Transaction`.
//! 4. What runs for every request must be a cached statement: no `diesel::update`, no `sql_query` (see [`statement`]).

pub mod asked;
pub mod directory;
pub mod embedded;
pub mod fair;
pub mod id;
pub mod migrate;
pub mod reach;
pub mod schema;
pub mod sealed;
pub mod select;
pub mod session;
pub mod signing_keys;
pub mod statement;
pub mod text_enum;
pub mod warm;

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use self::reach::Sight;
use crate::error::{Error, Result};
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncPgConnection, SimpleAsyncConnection, TransactionManager,
};
use fair::{Gate, Place};
use futures::FutureExt;
use tokio::runtime::{self, Handle};
use uuid::Uuid;
use warm::{Pooled, Warm};

/// The role that serves requests: neither owner nor exempt from row-level security.
pub const RUNTIME_ROLE: &str = "dealstream_app";
/// The role that serves those whose rights do not reach every record: see [`reach`].
pub const SCOPED_ROLE: &str = "dealstream_scoped";
/// The role that may look across tenants at accounts and memberships, and at nothing else.
pub const DIRECTORY_ROLE: &str = "dealstream_directory";

/// A connection of the pool, with its place among them.
pub(crate) struct Connection {
    // Handed back first: whoever gets the place next finds it.
    pooled: Pooled,
    warm: Arc<Warm>,
    _place: Place,
}

impl Deref for Connection {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.pooled
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.pooled
    }
}

impl Connection {
    /// Leaves it, inside of the transaction of a read, for whoever comes next.
    fn leave(self) {
        self.warm.leave(self.pooled);
    }
}

/// The pool of connections to one PostgreSQL database.
///
/// A connection is watched by the runtime that opened it, which is that of one thread where [each serves by itself]. Whoever
/// takes one of another thread wakes that thread with each question and is woken by it with each answer, and waits for both
/// until it is their turn there. So each thread has its own part of the connections.
///
/// [each serves by itself]: crate::http::serve
#[derive(Clone)]
pub struct Database {
    parts: Arc<[Part]>,
    /// Which runtime has which part.
    homes: Arc<RwLock<HashMap<runtime::Id, usize>>>,
    wait: Duration,
}

struct Part {
    pool: Pool<AsyncPgConnection>,
    warm: Arc<Warm>,
    gate: Arc<Gate>,
}

/// Connections that a part has at least, where there are several: a tenant may have six of these, and one is for others.
const OF_A_PART: u32 = 8;

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

/// What every connection is told once, when it is opened.
///
/// Generic plans, because `LIMIT $1` would otherwise be planned anew at each call. No notices, which nobody would read.
/// The rest are bounds, so that no statement and no forgotten transaction holds the database for ever.
fn connection_setup() -> String {
    format!(
        "SET ROLE {RUNTIME_ROLE}; SET plan_cache_mode = force_generic_plan; SET client_min_messages = error; \
         SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '60s'; SET lock_timeout = '10s'; SET timezone = 'UTC'"
    )
}

impl Part {
    fn new(url: &str, connections: usize, wait: Duration) -> Result<Self, String> {
        let mut config = ManagerConfig::default();
        // No ping per checkout: a connection found closed is replaced, and a lost one answers UNAVAILABLE once.
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(|url| {
            let url = url.to_owned();
            async move {
                let mut conn = AsyncPgConnection::establish(&url).await?;
                let setup = conn.batch_execute(&connection_setup()).await;
                setup.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
                Ok(conn)
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let pool = Pool::builder(manager)
            .max_size(connections)
            .queue_mode(deadpool::managed::QueueMode::Lifo)
            .runtime(deadpool::Runtime::Tokio1)
            .wait_timeout(Some(wait))
            .create_timeout(Some(wait))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            pool,
            warm: Arc::default(),
            gate: Gate::new(connections),
        })
    }
}

impl Database {
    /// Makes the pool; connections are opened when first needed.
    ///
    /// # Errors
    /// A sentence for the operator when the URL cannot be read.
    pub fn new(url: &str, connections: u32, wait: Duration) -> Result<Self, String> {
        Self::of_threads(url, connections, wait, 1)
    }

    /// The same for so many runtimes. Where there are few connections, several share a part.
    ///
    /// # Errors
    /// A sentence for the operator when the URL cannot be read.
    pub fn of_threads(url: &str, connections: u32, wait: Duration, threads: u32) -> Result<Self, String> {
        url.parse::<tokio_postgres::Config>()
            .map_err(|error| format!("DATABASE_URL cannot be read: {error}"))?;
        let parts = threads.min(connections / OF_A_PART).max(1);
        let of = |part| connections / parts + u32::from(part < connections % parts);
        let parts = (0..parts).map(|part| Part::new(url, of(part) as usize, wait));
        Ok(Self {
            parts: parts.collect::<Result<_, _>>()?,
            homes: Arc::default(),
            wait,
        })
    }

    /// The part of the runtime that this is called on. They come in turn.
    fn part(&self) -> &Part {
        if let [all] = &*self.parts {
            return all;
        }
        let here = Handle::current().id();
        let known = self.homes.read().unwrap_or_else(PoisonError::into_inner);
        let part = known.get(&here).copied();
        drop(known);
        let part = part.unwrap_or_else(|| {
            let mut homes = self.homes.write().unwrap_or_else(PoisonError::into_inner);
            let next = homes.len() % self.parts.len();
            *homes.entry(here).or_insert(next)
        });
        &self.parts[part]
    }

    /// A connection for what is done before a tenant is known, outside of any transaction.
    pub(in crate::db) async fn connection(&self) -> Result<Connection> {
        let mut connection = self.connection_of(None).await?;
        if warm::is_warm(&mut connection) {
            Box::pin(AnsiTransactionManager::commit_transaction(&mut *connection)).await?;
        }
        Ok(connection)
    }

    /// The only place that takes a connection: of those that wait, each tenant gets its [share](fair). It may still be inside
    /// of the transaction of a read that has [ended](warm).
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub(in crate::db) async fn connection_of(&self, tenant: Option<Uuid>) -> Result<Connection> {
        let Part { pool, warm, gate } = self.part();
        let place = match tokio::time::timeout(self.wait, gate.enter(tenant)).await {
            Ok(Ok(place)) => place,
            given_up => {
                let waiting = gate.waiting();
                let full = given_up.is_ok();
                tracing::warn!(waiting, full, "no database connection is free");
                return Err(Error::Unavailable);
            }
        };
        // Before a tenant is known a warm one costs a COMMIT first.
        let spare = tenant.is_none() && pool.status().available > 0;
        let left = if spare { None } else { warm.take() };
        let pooled = match left {
            Some(left) => left,
            // Boxed: it is large and rarely needed, and every future that reads anything has room for it.
            None => Box::pin(pool.get()).await?,
        };
        Ok(Connection {
            pooled,
            warm: warm.clone(),
            _place: place,
        })
    }

    /// How many wait for a connection.
    pub fn waiting(&self) -> usize {
        self.parts.iter().map(|part| part.gate.waiting()).sum()
    }

    /// A snapshot of a tenant's data, or of as much as a viewer may see of it, for reading. No connection is taken before
    /// the first use.
    pub fn snapshot(&self, sight: impl Into<Sight>) -> session::Snapshot {
        session::Snapshot::new(self.clone(), sight.into())
    }

    /// Begins a transaction that may write a tenant's data, or as much as a viewer may see of it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection can be had.
    pub async fn begin(&self, sight: impl Into<Sight>) -> Result<session::Transaction> {
        let sight = sight.into();
        session::Transaction::begin(self, Some(sight.tenant()), sight).await
    }

    /// The same for who reads from a snapshot meanwhile. It counts as [nobody's](fair): were it the tenant's too, those who
    /// read could hold all that the tenant may have, and each wait for one more.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection can be had.
    pub async fn begin_aside(&self, sight: impl Into<Sight>) -> Result<session::Transaction> {
        session::Transaction::begin(self, None, sight.into()).await
    }

    /// Whether PostgreSQL answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        let mut conn = self.connection().await?;
        conn.batch_execute("SELECT").await.map_err(Error::from)
    }

    /// How many connections are open, and how many of these are free and in no transaction: one that a read has just left
    /// is not counted until it is.
    pub fn pool_status(&self) -> (usize, usize) {
        let of_parts = self.parts.iter().map(|part| part.pool.status());
        of_parts.fold((0, 0), |(open, free), part| {
            (open + part.size, free + part.available)
        })
    }
}
