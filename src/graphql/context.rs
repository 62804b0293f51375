//! What a GraphQL operation carries: who asks, and one view of the data.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_graphql::{Context, Pos, Response, ServerError, Value};
use futures::future::BoxFuture;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::eager::Eager;
use super::loader::{Batch, lock};
use super::reach::{Belongs, Vision};
use super::reading::{Joining, Reading};
use crate::auth::{Means, Origin, Permission, Viewer};
use crate::db::Database;
use crate::db::asked::Asked;
use crate::db::directory::people::{self, Person};
use crate::db::reach::Sight;
use crate::db::session::Transaction;
use crate::error::{Error, Result};
use crate::events::feed::Signal;
use crate::events::{Event, Hub, Work};
use crate::sensitive::Disclosures;

/// The session of one operation: at most one database connection, taken when first needed.
pub struct Session {
    db: Database,
    hub: Arc<Hub>,
    viewer: Option<Viewer>,
    origin: Origin,
    disclosures: Disclosures,
    idempotency_key: Option<String>,
    reading: Mutex<Option<Arc<Reading>>>,
    /// Whether it must not read together with others.
    alone: AtomicBool,
    /// Whether it has begun to change something.
    changes: AtomicBool,
    person: Mutex<Option<Answered>>,
    aside: tokio::sync::Mutex<()>,
    signals: Arc<Signals>,
    /// What a viewer with a limited reach sees of what the signals tell.
    vision: Option<Vision>,
}

/// What a run of a subscription tells of: a part of the history, taken one by one.
#[derive(Default)]
pub struct Signals {
    waiting: Mutex<VecDeque<Signal>>,
    /// The position of what was taken last.
    reached: AtomicI64,
    /// Whether that was `UpToDate`.
    up_to_date: AtomicBool,
}

impl Signals {
    /// How far what has been taken goes.
    pub fn reached(&self) -> i64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Whether what was taken last tells how far the history has come, and of no event.
    pub fn up_to_date(&self) -> bool {
        self.up_to_date.load(Ordering::Acquire)
    }

    /// Takes the next.
    pub(super) fn take(&self) -> Option<Signal> {
        let signal = lock(&self.waiting).pop_front()?;
        if let Some(position) = signal.position() {
            self.reached.store(position, Ordering::Release);
        }
        let up_to_date = matches!(signal, Signal::UpToDate(_));
        self.up_to_date.store(up_to_date, Ordering::Release);
        Some(signal)
    }
}

/// Of which user of which tenant it was asked who they are, and the answer.
type Answered = ((Uuid, Uuid), Arc<OnceCell<Arc<Person>>>);

impl Session {
    /// A session for an operation of this viewer, or of nobody.
    pub fn new(db: Database, hub: Arc<Hub>, viewer: Option<Viewer>) -> Self {
        Self {
            db,
            hub,
            viewer,
            origin: Origin::default(),
            disclosures: Disclosures::default(),
            idempotency_key: None,
            reading: Mutex::default(),
            alone: AtomicBool::new(false),
            changes: AtomicBool::new(false),
            person: Mutex::default(),
            aside: tokio::sync::Mutex::default(),
            signals: Arc::default(),
            vision: None,
        }
    }

    /// Sets what a run of a subscription tells of.
    pub fn with_signals(mut self, signals: Vec<Signal>) -> Self {
        self.signals = Arc::new(Signals {
            waiting: Mutex::new(signals.into()),
            ..Signals::default()
        });
        self
    }

    /// Looks up what the viewer may be told of the signals, when not everything is within their reach.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn with_vision(mut self) -> Result<Self> {
        if let Some(sight) = self.viewer.as_ref().map(Viewer::sight).filter(Sight::is_limited) {
            let signals: Vec<_> = lock(&self.signals.waiting).iter().cloned().collect();
            let events = signals.iter().filter_map(|signal| match signal {
                Signal::Event { event, .. } => Some(&**event),
                _ => None,
            });
            self.vision = Some(Vision::of(&self.db, sight, &events.collect::<Vec<_>>()).await?);
        }
        Ok(self)
    }

    /// Whether the record of an event is, or was until then, within the viewer's reach. Of who sees all is nothing asked;
    /// who does not, and for whom nothing has been looked up, is told nothing.
    pub fn reaches(&self, event: &Event, belongs: Belongs) -> bool {
        let limited = |viewer: &Viewer| viewer.rights.reach().is_limited();
        match &self.vision {
            Some(vision) => vision.includes(event, belongs),
            None => !self.viewer.as_ref().is_none_or(limited),
        }
    }

    /// What this run of a subscription tells of.
    pub fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// Sets where the request comes from.
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Where the request comes from. Of a run of a subscription, which is for all who ask the same, nothing is known.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Which sensitive fields the operation has been shown.
    pub fn disclosures(&self) -> &Disclosures {
        &self.disclosures
    }

    /// Sets the idempotency key that came with the request rather than in the input.
    pub fn with_idempotency_key(mut self, key: Option<String>) -> Self {
        self.idempotency_key = key;
        self
    }

    /// The idempotency key that came with the request.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }

    /// Who asks.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when nobody has signed in.
    pub fn viewer(&self) -> Result<&Viewer> {
        self.viewer.as_ref().ok_or(Error::Unauthenticated(
            "Sign in first: this needs an access token.",
        ))
    }

    /// The database, for what happens before a tenant is known.
    pub fn db(&self) -> &Database {
        &self.db
    }

    /// The history's hub.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The current view of the viewer's tenant. All reads of a query share one, with those of others who come together.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when nobody has signed in.
    pub fn reading(&self, joining: Option<&Joining>) -> Result<Arc<Reading>> {
        let viewer = self.viewer()?;
        let mut reading = lock(&self.reading);
        let reading = reading.get_or_insert_with(|| match joining {
            Some(joining) if !self.alone.load(Ordering::Relaxed) => joining.join(&self.db, viewer.sight()),
            _ => Arc::new(Reading::alone(&self.db, viewer.sight())),
        });
        Ok(reading.clone())
    }

    /// Who a tenant's user is beyond the tenant. However often a document asks for it, that is read once: it takes a
    /// connection beside the one of the view.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn person(&self, tenant: Uuid, user: Uuid) -> Result<Arc<Person>> {
        let about = (tenant, user);
        let answer = {
            let mut asked = lock(&self.person);
            match asked.as_ref().filter(|asked| asked.0 == about) {
                Some((_, answer)) => answer.clone(),
                None => asked.insert((about, Arc::default())).1.clone(),
            }
        };
        let read = async || {
            let _turn = self.aside().await;
            people::person(&self.db, tenant, user).await.map(Arc::new)
        };
        Ok(answer.get_or_try_init(read).await?.clone())
    }

    /// Waits until nothing else of the operation reads what belongs to no tenant: however often a document asks for such
    /// things, it has one connection for them at a time.
    pub async fn aside(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.aside.lock().await
    }

    /// Gives the view back: what is read hereafter is newer. The connection is released off the caller's path.
    pub fn finish(&self) {
        lock(&self.reading).take();
        lock(&self.person).take();
    }

    /// Gives the view back when the operation has been answered: if everything was, the connection need not be seen to
    /// first.
    ///
    /// # Errors
    /// When PostgreSQL had refused to begin the transaction: what was read is then no view of the tenant.
    pub async fn close(&self, answered: bool) -> Result<()> {
        let reading = lock(&self.reading).take();
        lock(&self.person).take();
        match reading {
            Some(reading) => reading.snapshot.complete(answered).await,
            None => Ok(()),
        }
    }

    /// [Closes](Session::close) the session, and answers what was answered; of what was read without a transaction, only that
    /// it is no answer. What has been changed is told all the same.
    ///
    /// Nothing when it read [together](super::reading) with others, and it was perhaps by them that it failed: a transaction
    /// in which one statement has failed answers no other. Executed once more, it reads alone.
    pub async fn conclude(&self, mut response: Response) -> Option<Response> {
        let may_be_spoilt = (lock(&self.reading).as_ref()).is_some_and(|reading| reading.may_be_spoilt());
        let again = may_be_spoilt && response.errors.iter().any(is_of_server);
        // Without an error in it, the database has answered everything too.
        if let Err(error) = self.close(response.errors.is_empty()).await {
            if !self.changes.load(Ordering::Relaxed) {
                response.data = Value::Null;
            }
            let mut error = async_graphql::Error::from(error).into_server_error(Pos::default());
            error.locations.clear();
            response.errors.push(error);
        }
        if again {
            self.alone.store(true, Ordering::Relaxed);
            return None;
        }
        Some(response)
    }

    /// As [`Session::work`], beside what is being read: for noting in the audit trail who looks at what.
    ///
    /// # Errors
    /// As [`Session::work`].
    pub async fn work_aside(&self) -> Result<Work> {
        let transaction = self.db.begin_aside(self.viewer()?.sight()).await?;
        self.work_on(transaction)
    }

    fn work_on(&self, transaction: Transaction) -> Result<Work> {
        let viewer = self.viewer()?;
        self.changes.store(true, Ordering::Relaxed);
        let work = Work::on(transaction, self.hub.clone(), Some(viewer.user_id)).coming_from(&self.origin);
        Ok(match viewer.means {
            Means::Session | Means::External => work,
            Means::ApiKey => work.by("API_KEY"),
        })
    }

    /// Begins to write in the viewer's tenant, on the viewer's behalf.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when nobody has signed in, [`Error::Unavailable`] without a connection.
    pub async fn work(&self) -> Result<Work> {
        // What is read after a change must show it, and a mutation needs no second connection meanwhile.
        self.finish();
        let transaction = self.db.begin(self.viewer()?.sight()).await?;
        self.work_on(transaction)
    }
}

/// Whether an error is none of the client's.
fn is_of_server(error: &ServerError) -> bool {
    let code = (error.extensions.as_ref()).and_then(|extensions| extensions.get("code"));
    matches!(code, Some(Value::String(code)) if code == "UNAVAILABLE" || code == "INTERNAL")
}

/// How resolvers reach the session.
pub trait ContextExt {
    /// The operation's session.
    fn session(&self) -> &Arc<Session>;

    /// The current view of the viewer's tenant.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when nobody has signed in.
    fn reading(&self) -> Result<Arc<Reading>>;

    /// Who asks.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when nobody has signed in.
    fn viewer(&self) -> Result<&Viewer> {
        self.session().viewer()
    }

    /// What the operation asks for of the rows that are read for it.
    fn asked(&self) -> Arc<Asked>;

    /// Loads one of many, if the viewer may read what it is: what is asked for in the same level of a document is read by
    /// one statement.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the permission that is missing, whether there is such a record or not.
    ///
    /// Boxed: the executor makes room for an object's largest resolver whenever it resolves any of its fields.
    fn load<B: Batch>(&self, key: B::Key) -> BoxFuture<'static, Result<Option<B::Value>>>;

    /// As [`ContextExt::load`], for what the viewer knows of anyway: themselves, and their tenant.
    fn load_known<B: Batch>(&self, key: B::Key) -> BoxFuture<'static, Result<Option<B::Value>>>;

    /// Loads what a record refers to, if anything. Resolvers of nullable fields answer `Option<Result<…>>` like this:
    /// then an error makes this one field null, and not, as with `Result<Option<…>>`, everything around it.
    fn relation<B: Batch>(
        &self,
        key: impl Into<Option<B::Key>> + Send,
    ) -> impl Future<Output = Option<Result<Eager<B::Value>>>> + Send;

    /// Loads a record for a root field, if the viewer has the permission. As [`ContextExt::relation`], an error makes
    /// this one field null; a guard would make all of `data` null.
    fn find<B: Batch>(
        &self,
        permission: Permission,
        key: B::Key,
    ) -> impl Future<Output = Option<Result<Eager<B::Value>>>> + Send;
}

impl ContextExt for Context<'_> {
    fn session(&self) -> &Arc<Session> {
        self.data_unchecked::<Arc<Session>>()
    }

    fn reading(&self) -> Result<Arc<Reading>> {
        self.session().reading(self.data_opt::<Joining>())
    }

    fn asked(&self) -> Arc<Asked> {
        self.data_opt::<Arc<Asked>>().cloned().unwrap_or_default()
    }

    fn load<B: Batch>(&self, key: B::Key) -> BoxFuture<'static, Result<Option<B::Value>>> {
        match self.viewer().and_then(|viewer| viewer.require(B::READ)) {
            Ok(()) => self.load_known::<B>(key),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn load_known<B: Batch>(&self, key: B::Key) -> BoxFuture<'static, Result<Option<B::Value>>> {
        match self.reading() {
            Ok(reading) => Box::pin(reading.loaders.get::<B>(|| self.asked()).load(key)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    async fn relation<B: Batch>(
        &self,
        key: impl Into<Option<B::Key>> + Send,
    ) -> Option<Result<Eager<B::Value>>> {
        let found = self.load::<B>(key.into()?).await.transpose()?;
        Some(found.map(Eager))
    }

    async fn find<B: Batch>(&self, permission: Permission, key: B::Key) -> Option<Result<Eager<B::Value>>> {
        match self.viewer().and_then(|viewer| viewer.require(permission)) {
            Ok(()) => self.relation::<B>(key).await,
            Err(error) => Some(Err(error)),
        }
    }
}
