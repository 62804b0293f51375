//! PostgreSQL, and the rules of reaching it.
//!
//! 1. A connection is taken here only: a [`session::Snapshot`] to read, a [`session::Transaction`] to write, each of one
//!    tenant, and [`directory`] for the little that happens before a tenant is known.
//! 2. The tenant is set by `SET LOCAL` in the message that begins the transaction, nowhere else. The same message ends the
//!    read that had the connection before, if that is still [open](idle).
//! 3. Reads take `&AsyncPgConnection`, so that queries polled together are pipelined; writes take `&Transaction`.
//! 4. What runs for every request must be a cached statement: no `diesel::update`, no `sql_query` (see [`statement`]).

pub mod asked;
pub mod directory;
pub mod embedded;
pub mod fair;
pub mod id;
pub mod idle;
pub mod migrate;
pub mod reach;
pub mod schema;
pub mod sealed;
pub mod select;
pub mod session;
pub mod signing_keys;
pub mod statement;
pub mod text_enum;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use self::reach::Sight;
use crate::error::{Error, Result};
use deadpool::managed::{Pool, PoolError, TimeoutType, Timeouts};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncPgConnection, SimpleAsyncConnection, TransactionManager,
};
use fair::{Gate, Place};
use futures::FutureExt;
use idle::{Homes, Idle, Opener, Pooled};
use tokio::runtime::Handle;
use uuid::Uuid;

/// The role that serves requests: neither owner nor exempt from row-level security.
pub const RUNTIME_ROLE: &str = "dealstream_app";
/// The role that serves those whose rights do not reach every record: see [`reach`].
pub const SCOPED_ROLE: &str = "dealstream_scoped";
/// The role that may look across tenants at accounts and memberships, and at nothing else.
pub const DIRECTORY_ROLE: &str = "dealstream_directory";

/// A connection of the pool, with its place among them.
pub(crate) struct Connection {
    /// Nothing once it has been handed back.
    pooled: Option<Pooled>,
    idle: Arc<Idle>,
    _place: Place,
}

impl Deref for Connection {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        self.pooled.as_ref().expect(HANDED_BACK)
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        self.pooled.as_mut().expect(HANDED_BACK)
    }
}

impl Connection {
    /// Leaves it, inside of the transaction of a read, for whoever comes next.
    fn leave(mut self) {
        self.idle.leave(self.pooled.take().expect(HANDED_BACK));
    }
}

impl Drop for Connection {
    /// Before its place is free: whoever gets that next finds it.
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.idle.keep(pooled);
        }
    }
}

const HANDED_BACK: &str = "a connection is handed back by who has it whole";

/// The pool of connections to one PostgreSQL database.
#[derive(Clone)]
pub struct Database {
    pool: Pool<Opener>,
    idle: Arc<Idle>,
    homes: Arc<Homes>,
    connections: usize,
    gate: Arc<Gate>,
    wait: Duration,
}

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

impl Database {
    /// Makes the pool; connections are opened when first needed.
    ///
    /// # Errors
    /// A sentence for the operator when the URL cannot be read.
    pub fn new(url: &str, connections: u32, wait: Duration) -> Result<Self, String> {
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
        url.parse::<tokio_postgres::Config>()
            .map_err(|error| format!("DATABASE_URL cannot be read: {error}"))?;
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let homes = Arc::<Homes>::default();
        let opener = Opener {
            manager,
            homes: homes.clone(),
        };
        let connections = connections as usize;
        let pool = Pool::builder(opener)
            .max_size(connections)
            .runtime(deadpool::Runtime::Tokio1)
            .wait_timeout(Some(wait))
            .create_timeout(Some(wait))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            pool,
            idle: Arc::default(),
            homes,
            connections,
            gate: Gate::new(connections),
            wait,
        })
    }

    /// A connection for what is done before a tenant is known, outside of any transaction.
    pub(in crate::db) async fn connection(&self) -> Result<Connection> {
        let mut connection = self.connection_of(None).await?;
        if idle::is_warm(&mut connection) {
            AnsiTransactionManager::commit_transaction(&mut *connection).await?;
        }
        Ok(connection)
    }

    /// The only place that takes a connection: of those that wait, each tenant gets its [share](fair). It may still be inside
    /// of the transaction of a read that has [ended](warm).
    pub(in crate::db) async fn connection_of(&self, tenant: Option<Uuid>) -> Result<Connection> {
        let place = match tokio::time::timeout(self.wait, self.gate.enter(tenant)).await {
            Ok(Ok(place)) => place,
            given_up => {
                let waiting = self.gate.waiting();
                let full = given_up.is_ok();
                tracing::warn!(waiting, full, "no database connection is free");
                return Err(Error::Unavailable);
            }
        };
        Ok(Connection {
            pooled: Some(self.pooled(tenant.is_some()).await?),
            idle: self.idle.clone(),
            _place: place,
        })
    }

    /// A connection for whoever has a place: one that is at home here, or a new one, or any.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    async fn pooled(&self, warm_first: bool) -> Result<Pooled> {
        let here = Handle::current().id();
        let at_once = Timeouts {
            wait: Some(Duration::ZERO),
            ..self.pool.timeouts()
        };
        let mut calls = true;
        loop {
            let back = self.idle.back();
            if let Some(own) = self.idle.take(Some(here), warm_first) {
                return Ok(own);
            }
            let refused = match self.pool.timeout_get(&at_once).await {
                Ok(opened) => return Ok(opened),
                Err(refused) => refused,
            };
            if let Some(anothers) = self.idle.take(None, warm_first) {
                if calls && self.homes.calls(anothers.home(), here, self.connections) {
                    // Once: another may be quicker to open the next, or PostgreSQL give none.
                    calls = false;
                    idle::close(anothers);
                    continue;
                }
                return Ok(anothers);
            }
            if !matches!(refused, PoolError::Timeout(TimeoutType::Wait)) {
                return Err(refused.into());
            }
            // There are as many as there may be, and one of them has no user: the transaction of a read is being ended on it.
            tokio::select! {
                opened = self.pool.get() => return Ok(opened?),
                () = back => {}
            }
        }
    }

    /// How many wait for a connection.
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
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
        session::Transaction::begin(self, sight.into()).await
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
        let status = self.pool.status();
        (status.size, self.idle.cold())
    }
}
