//! Data loaders: what a level of a document asks for, record by record, is read by one statement.
//!
//! A loader is a type that implements [`Batch`]; there is no list of them. Loaders live as long as the snapshot they
//! read from, so a cached row is never older than the rest of the answer.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use dataloader::BatchFn;
use diesel_async::AsyncPgConnection;

use crate::auth::Permission;
use crate::db::session::Snapshot;
use crate::error::{Error, Result};

/// Keys in one statement at most: more than a page of pages can ask for.
const MAX_BATCH: usize = 10_000;

/// Reads many values by their keys with one statement.
pub trait Batch: Send + Sync + 'static {
    type Key: Eq + Hash + Clone + Debug + Send + Sync + 'static;
    /// Cheap to clone, as an `Arc` is.
    type Value: Clone + Send + Sync + 'static;
    /// What a viewer needs to be shown the values, whichever way leads to them.
    const READ: Permission;

    /// Reads the values of these keys; a key without a value is left out.
    fn load(
        conn: &AsyncPgConnection,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<HashMap<Self::Key, Self::Value>>> + Send;
}

/// The loaders of one snapshot, made when first used.
pub struct Loaders {
    snapshot: Arc<Snapshot>,
    made: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// A loader for one kind of batch.
pub struct Loader<B: Batch> {
    inner: dataloader::cached::Loader<B::Key, Loaded<B::Value>, Runner<B>>,
}

/// The crate has no channel for errors, and wants a value for every key.
type Loaded<V> = Result<Option<V>, Error>;

struct Runner<B> {
    snapshot: Arc<Snapshot>,
    batch: std::marker::PhantomData<fn() -> B>,
}

impl<B: Batch> BatchFn<B::Key, Loaded<B::Value>> for Runner<B> {
    async fn load(&mut self, keys: &[B::Key]) -> HashMap<B::Key, Loaded<B::Value>> {
        // Boxed, because the future of every key has room for this one, and the first of a batch runs it.
        let found = Box::pin(async {
            let conn = self.snapshot.conn().await?;
            B::load(conn, keys).await
        });
        let found = found.await;
        match found {
            Ok(mut found) => keys
                .iter()
                .map(|key| (key.clone(), Ok(found.remove(key))))
                .collect(),
            Err(error) => keys.iter().map(|key| (key.clone(), Err(error.clone()))).collect(),
        }
    }
}

impl Loaders {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            made: Mutex::default(),
        }
    }

    /// The loader of a batch.
    pub(super) fn get<B: Batch>(&self) -> Arc<Loader<B>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let loader = made.entry(TypeId::of::<B>()).or_insert_with(|| {
            let runner = Runner::<B> {
                snapshot: self.snapshot.clone(),
                batch: std::marker::PhantomData,
            };
            // One yield lets the siblings of a level state their keys; more only cost time.
            let inner = dataloader::cached::Loader::new(runner)
                .with_max_batch_size(MAX_BATCH)
                .with_yield_count(1);
            Arc::new(Loader { inner })
        });
        loader
            .clone()
            .downcast()
            .expect("the entry was made for this type")
    }
}

impl<B: Batch> Loader<B> {
    pub(super) async fn load(&self, key: B::Key) -> Result<Option<B::Value>> {
        // `try_load`, because `load` panics when the leader of a batch was dropped with it.
        self.inner.try_load(key).await.map_err(Error::internal)?
    }
}
