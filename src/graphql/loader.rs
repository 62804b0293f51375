//! Data loaders: what a level of a document asks for, record by record, is read by one statement.
//!
//! A loader is a type that implements [`Batch`]; there is no list of them. Loaders live as long as the snapshot they
//! read from, so a cached row is never older than the rest of the answer.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataloader::BatchFn;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::auth::Permission;
use crate::db::asked::{Asked, Reader};
use crate::db::session::Snapshot;
use crate::error::{Error, Result};

/// Keys in one statement at most: more than a page of pages can ask for.
const MAX_BATCH: usize = 10_000;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads many values by their keys with one statement.
pub trait Batch: Send + Sync + 'static {
    type Key: Eq + Hash + Clone + Debug + Send + Sync + 'static;
    /// Cheap to clone, as an `Arc` is.
    type Value: Clone + Send + Sync + 'static;
    /// What a viewer needs to be shown the values, whichever way leads to them.
    const READ: Permission;

    /// Reads the values of these keys; a key without a value is left out.
    fn load(
        reader: Reader<'_>,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<HashMap<Self::Key, Self::Value>>> + Send;
}

/// The loaders of one snapshot, made when first used.
pub struct Loaders {
    snapshot: Arc<Snapshot>,
    /// A document has few kinds of them.
    made: Mutex<Vec<(TypeId, Arc<dyn Any + Send + Sync>)>>,
}

/// A loader for one kind of batch.
pub struct Loader<B: Batch> {
    batches: dataloader::cached::Loader<B::Key, Loaded<B::Value>, Runner<B>>,
    state: Mutex<State<B::Key, B::Value>>,
}

/// The crate has no channel for errors, and wants a value for every key.
type Loaded<V> = Result<Option<V>, Error>;

struct State<K, V> {
    found: HashMap<K, Loaded<V>>,
    /// What the siblings of the level have stated until now.
    asked: HashSet<K>,
    /// Held by those who wait for it, and gone with the last of them.
    level: Option<WeakShared<Level>>,
}

/// Ends when what the siblings of a level have asked for is found.
type Level = BoxFuture<'static, ()>;

struct Runner<B> {
    snapshot: Arc<Snapshot>,
    asked: Arc<Asked>,
    batch: std::marker::PhantomData<fn() -> B>,
}

impl<B: Batch> BatchFn<B::Key, Loaded<B::Value>> for Runner<B> {
    async fn load(&mut self, keys: &[B::Key]) -> HashMap<B::Key, Loaded<B::Value>> {
        let found = async {
            let reader = Reader::new(self.snapshot.conn().await?, &self.asked);
            B::load(reader, keys).await
        };
        match found.await {
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

    /// The loader of a batch, for an operation that asks for this.
    pub(super) fn get<B: Batch>(&self, asked: impl FnOnce() -> Arc<Asked>) -> Arc<Loader<B>> {
        let kind = TypeId::of::<B>();
        let mut made = lock(&self.made);
        let loader = match made.iter().find(|(made, _)| *made == kind) {
            Some((_, loader)) => loader.clone(),
            None => {
                let loader = Arc::new(Loader::<B>::new(self.snapshot.clone(), asked()));
                made.push((kind, loader.clone()));
                loader
            }
        };
        loader.downcast().expect("the entry was made for this type")
    }
}

impl<B: Batch> Loader<B> {
    fn new(snapshot: Arc<Snapshot>, asked: Arc<Asked>) -> Self {
        let runner = Runner {
            snapshot,
            asked,
            batch: std::marker::PhantomData,
        };
        Self {
            // A level states all its keys at once: there is nothing more to wait for.
            batches: dataloader::cached::Loader::new(runner)
                .with_max_batch_size(MAX_BATCH)
                .with_yield_count(0),
            state: Mutex::new(State {
                found: HashMap::new(),
                asked: HashSet::new(),
                level: None,
            }),
        }
    }

    /// Loads one of what the siblings of a level ask for.
    pub(super) async fn load(self: Arc<Self>, key: B::Key) -> Result<Option<B::Value>> {
        let found = lock(&self.state).found.get(&key).cloned();
        if let Some(found) = found {
            return found;
        }
        let level = self.level(key.clone());
        // One turn lets the siblings of a level state their keys; more only cost time.
        tokio::task::yield_now().await;
        level.await;
        let state = lock(&self.state);
        state.found.get(&key).cloned().unwrap_or(Err(Error::Unavailable))
    }

    /// The level that the key belongs to: the one that is being gathered, or else a new one.
    fn level(self: &Arc<Self>, key: B::Key) -> Shared<Level> {
        let mut state = lock(&self.state);
        let gathered = state.level.as_ref().and_then(WeakShared::upgrade);
        let level = gathered.unwrap_or_else(|| {
            // Whoever asked before has given up.
            state.asked.clear();
            let level = self.clone().find().boxed().shared();
            state.level = level.downgrade();
            level
        });
        state.asked.insert(key);
        level
    }

    async fn find(self: Arc<Self>) {
        let keys = {
            let mut state = lock(&self.state);
            state.level = None;
            std::mem::take(&mut state.asked)
        };
        // It fails for a key without a value, and the runner has one for each.
        let keys = keys.into_iter().collect();
        let found = self.batches.try_load_many(keys).await.unwrap_or_default();
        lock(&self.state).found.extend(found);
    }
}
