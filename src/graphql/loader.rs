//! Data loaders: what a level of a document asks for, record by record, is read by one statement.
//!
//! A loader is a type that implements [`Batch`]; there is no list of them. Loaders live as long as the snapshot they
//! read from, so a cached row is never older than the rest of the answer.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataloader::{BatchFn, cached};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::auth::Permission;
use crate::db::asked::{Asked, Reader};
use crate::db::id::ByKey;
use crate::db::session::Snapshot;
use crate::error::{Error, Result};

/// Keys in one statement at most: more than a page of pages can ask for, unless many ask for one together.
const MAX_BATCH: usize = 10_000;

/// How often a level is asked: another that was given up meanwhile may have taken its keys along.
const TRIES: usize = 3;

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
    ) -> impl Future<Output = Result<ByKey<Self::Key, Self::Value>>> + Send;
}

/// The loaders of one snapshot, made when first used.
pub struct Loaders {
    snapshot: Arc<Snapshot>,
    /// A document has few kinds of them.
    made: Mutex<Vec<(TypeId, Arc<dyn Any + Send + Sync>)>>,
}

/// A loader for one kind of batch.
pub struct Loader<B: Batch> {
    batches: Batches<B, B::Value>,
    asked: Arc<Mutex<Asking<B::Key, B::Value>>>,
}

type Batches<B, V> = cached::Loader<Place, Loaded<V>, Runner<B>, Answers<V>>;

/// The crate has no channel for errors, and wants a value for every key.
type Loaded<V> = Result<Option<V>, Error>;

/// What the crate knows a key by: its place among all that have been asked for. The crate hashes a key, and makes a text of
/// it, several times over; of a place both are cheap.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place(u32);

impl Debug for Place {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // For errors that nobody is shown.
        Ok(())
    }
}

/// Answers by their places.
struct Answers<V>(Vec<Option<Loaded<V>>>);

impl<V> cached::Cache for Answers<V> {
    type Key = Place;
    type Val = Loaded<V>;

    fn get(&mut self, place: &Place) -> Option<&Loaded<V>> {
        self.0.get(place.index())?.as_ref()
    }

    fn insert(&mut self, place: Place, answer: Loaded<V>) {
        if self.0.len() <= place.index() {
            self.0.resize_with(place.index() + 1, || None);
        }
        self.0[place.index()] = Some(answer);
    }

    fn remove(&mut self, place: &Place) -> Option<Loaded<V>> {
        self.0.get_mut(place.index())?.take()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

impl Place {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What has been asked for.
struct Asking<K, V> {
    keys: Vec<K>,
    places: ByKey<K, Place>,
    /// By place.
    steps: Vec<Step<V>>,
    /// What the siblings of the level have stated until now.
    gathered: Vec<Place>,
    /// Held by those who wait for it, and gone with the last of them.
    level: Option<WeakShared<Level>>,
}

/// How far it is with a key.
enum Step<V> {
    /// Its level is being gathered.
    Gathered,
    /// It is being read, or was, until nobody waited any more.
    Asked,
    Answered(Loaded<V>),
}

/// Ends when what the siblings of a level have asked for is found.
type Level = BoxFuture<'static, ()>;

struct Runner<B: Batch> {
    snapshot: Arc<Snapshot>,
    shown: Arc<Asked>,
    asked: Arc<Mutex<Asking<B::Key, B::Value>>>,
}

impl<B: Batch> BatchFn<Place, Loaded<B::Value>> for Runner<B> {
    async fn load(&mut self, places: &[Place]) -> HashMap<Place, Loaded<B::Value>> {
        let keys: Vec<B::Key> = {
            let asked = lock(&self.asked);
            (places.iter())
                .map(|place| asked.keys[place.index()].clone())
                .collect()
        };
        let found = async {
            let reader = Reader::new(self.snapshot.conn().await?, &self.shown);
            B::load(reader, &keys).await
        };
        let mut found = found.await;
        let answer = |key: &B::Key| match &mut found {
            Ok(found) => Ok(found.remove(key)),
            Err(error) => Err(error.clone()),
        };
        std::iter::zip(places.iter().copied(), keys.iter().map(answer)).collect()
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
    fn new(snapshot: Arc<Snapshot>, shown: Arc<Asked>) -> Self {
        let asked = Arc::new(Mutex::new(Asking {
            keys: Vec::new(),
            places: ByKey::default(),
            steps: Vec::new(),
            gathered: Vec::new(),
            level: None,
        }));
        let runner = Runner {
            snapshot,
            shown,
            asked: asked.clone(),
        };
        Self {
            // A level states all its keys at once: there is nothing more to wait for.
            batches: cached::Loader::with_cache(runner, Answers(Vec::new()))
                .with_max_batch_size(MAX_BATCH)
                .with_yield_count(0),
            asked,
        }
    }

    /// Loads one of what the siblings of a level ask for.
    pub(super) async fn load(self: Arc<Self>, key: B::Key) -> Result<Option<B::Value>> {
        let (place, level) = match self.state(key) {
            Ok(answer) => return answer,
            Err(later) => later,
        };
        // One turn lets the siblings of a level state their keys; more only cost time.
        tokio::task::yield_now().await;
        level.await;
        match &lock(&self.asked).steps[place.index()] {
            Step::Answered(answer) => answer.clone(),
            // Reading it panicked, which has been told.
            _ => Err(Error::internal("a loader brought no answer")),
        }
    }

    /// The answer, if it is there, or else its place and the level that it will be there after: the one that is being
    /// gathered, or a new one.
    fn state(self: &Arc<Self>, key: B::Key) -> Result<Loaded<B::Value>, (Place, Shared<Level>)> {
        let mut asked = lock(&self.asked);
        let asked = &mut *asked;
        let place = *asked.places.entry(key).or_insert_with_key(|key| {
            asked.keys.push(key.clone());
            asked.steps.push(Step::Asked);
            Place(u32::try_from(asked.keys.len() - 1).expect("no answer has as many records"))
        });
        match &mut asked.steps[place.index()] {
            Step::Answered(answer) => return Ok(answer.clone()),
            Step::Gathered => {}
            step @ Step::Asked => {
                *step = Step::Gathered;
                asked.gathered.push(place);
            }
        }
        let gathered = asked.level.as_ref().and_then(WeakShared::upgrade);
        let level = gathered.unwrap_or_else(|| {
            let level = self.clone().find().boxed().shared();
            asked.level = level.downgrade();
            level
        });
        Err((place, level))
    }

    async fn find(self: Arc<Self>) {
        let places = {
            let mut asked = lock(&self.asked);
            let asked = &mut *asked;
            asked.level = None;
            for place in &asked.gathered {
                // An earlier level may have brought the answer meanwhile.
                if let step @ Step::Gathered = &mut asked.steps[place.index()] {
                    *step = Step::Asked;
                }
            }
            std::mem::take(&mut asked.gathered)
        };
        for _ in 0..TRIES {
            let (batches, places, many) = (self.batches.clone(), places.clone(), places.len() > 1);
            let load = async move { batches.try_load_many(places).await };
            let loaded = if many {
                // In a task of its own, so that many are woken once, and not whenever PostgreSQL has sent some of it.
                AbortOnDropHandle::new(tokio::spawn(load.in_current_span()))
                    .await
                    .ok()
            } else {
                AssertUnwindSafe(load).catch_unwind().await.ok()
            };
            // It panicked: whoever waits is told so.
            let Some(loaded) = loaded else {
                return;
            };
            if let Ok(found) = loaded {
                let mut asked = lock(&self.asked);
                for (place, answer) in found {
                    asked.steps[place.index()] = Step::Answered(answer);
                }
                return;
            }
        }
    }
}
