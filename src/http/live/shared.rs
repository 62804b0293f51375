//! Running subscriptions over the history: together where they are alike, alone until they are.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_graphql::{Response, ServerError, Value};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use uuid::Uuid;

use super::channel::{Channel, Member, Next, Source, Told};
use super::{Step, Steps, step};
use crate::app::App;
use crate::auth::{Means, Rights, Viewer};
use crate::db::fair::Gate;
use crate::error::{Error, Result};
use crate::events::feed::Signal;
use crate::events::{Position, Standing};
use crate::graphql::limits::{Likeness, Prepared};
use crate::http::answer::{self, Cost, INTERNAL, UNAVAILABLE};
use crate::http::headers::RequestId;

/// Signals that one run takes at most.
const BATCH: usize = 100;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Runs at the same time for channels, and for those who are alone, who must not hold them up; the other connections are
/// for requests. Tenants take turns: one in which much happens, or in which many come back at once, waits for itself.
const RUNS: (usize, usize) = (4, 2);
/// How long a run that the database failed waits at first before it is tried again, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How often a run is tried while the database answers all but this.
const TRIES: u32 = 5;
/// Bytes of frames that all channels keep together, and what each may keep.
const ROOM_OF_ALL: usize = 64 * 1024 * 1024;
const ROOM: std::ops::RangeInclusive<usize> = 16 * 1024..=1024 * 1024;
/// How far back a channel may begin: who comes again after a short while, and all who come with them, share the way.
const BACK: i64 = 1_000;

/// The application, and the channels of its subscriptions.
pub struct Live {
    pub(in crate::http) app: Arc<App>,
    most_errors: usize,
    channels: Mutex<HashMap<Key, Weak<Channel>>>,
    /// Turns of channels to run.
    shared: Arc<Gate>,
    /// Turns of those who are alone.
    lone: Arc<Gate>,
}

/// What is equal for those who are told the same: what they ask, and their rights. Nothing that a subscription shows
/// depends on more than the tenant, the rights and, when these are limited, the user; what comes to depend on more
/// belongs in here.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Of somebody who has signed in.
    viewer: Option<Kin>,
    likeness: Likeness,
}

/// What is equal for viewers who may see the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kin {
    tenant_id: Uuid,
    rights: Arc<Rights>,
    /// Who it is, when the rights do not reach everything: what they reach is then each user's own.
    user_id: Option<Uuid>,
}

impl Kin {
    fn of(viewer: &Viewer) -> Self {
        let limited = viewer.rights.reach().is_limited();
        Self {
            tenant_id: viewer.tenant_id,
            rights: viewer.rights.clone(),
            user_id: limited.then_some(viewer.user_id),
        }
    }
}

/// An operation of all who ask the same.
struct Operation {
    live: Arc<Live>,
    key: Key,
    /// Keeps the likeness in the key valid.
    prepared: Prepared,
    cost: Cost,
}

impl Live {
    /// The channels of an application; answers tell at most so many errors.
    pub fn new(app: Arc<App>, most_errors: usize) -> Arc<Self> {
        Arc::new(Self {
            app,
            most_errors,
            channels: Mutex::default(),
            shared: Gate::without_bounds(RUNS.0),
            lone: Gate::without_bounds(RUNS.1),
        })
    }

    /// Subscribes.
    pub fn subscribe(self: &Arc<Self>, viewer: Option<&Viewer>, prepared: Prepared) -> Steps {
        let cost = Cost::of(&prepared, &self.app.documents);
        let after = prepared.after().map(str::parse::<Position>).transpose();
        let operation = Arc::new(Operation {
            live: self.clone(),
            key: Key {
                viewer: viewer.map(Kin::of),
                likeness: prepared.likeness(),
            },
            prepared,
            cost,
        });
        match (after, viewer) {
            (Ok(after), Some(_)) => Subscriber::new(operation, after).steps(),
            // The field itself tells why not, and has nothing else to tell.
            _ => futures::stream::once(async move {
                let answers = operation.run(Vec::new(), &operation.live.lone).await;
                let refused = answers.into_iter().next();
                refused.map_or(Step::Error(Vec::new()), |refused| {
                    step(refused.response, Some(operation.cost), operation.live.most_errors)
                })
            })
            .boxed(),
        }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<Key, Weak<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Channels that somebody is in.
    pub fn open_channels(&self) -> usize {
        self.channels().len()
    }

    /// Bytes of frames that a channel may keep now.
    fn room(&self) -> usize {
        (ROOM_OF_ALL / self.open_channels().max(1)).clamp(*ROOM.start(), *ROOM.end())
    }
}

impl Operation {
    /// Only who has signed in gets as far as where this is asked.
    fn tenant(&self) -> Uuid {
        (self.key.viewer.as_ref()).map_or(Uuid::nil(), |viewer| viewer.tenant_id)
    }

    fn follow(&self, after: Option<Position>) -> BoxStream<'static, Vec<Signal>> {
        let signals = self.live.app.hub.follow(self.tenant(), after);
        // Of what costs much fewer are answered at a time: their answers are in memory together.
        let batch = self.cost.maximum / self.cost.requested.max(1);
        let batch = usize::try_from(batch).unwrap_or(BATCH).clamp(1, BATCH);
        signals.ready_chunks(batch).boxed()
    }

    /// Where the history stands, for one who comes from a position. Waits for the database as long as it takes.
    async fn standing(&self, after: Option<Position>) -> Standing {
        self.live.app.hub.standing(self.tenant(), after).await
    }

    /// What is told of a part of the history. Waits for a database that is away as long as it takes, because what is told
    /// cannot be taken back; what it cannot answer although it is there is told as it is.
    async fn run(&self, signals: Vec<Signal>, turns: &Arc<Gate>) -> Vec<Answer> {
        let (mut pause, mut tries) = (RETRY.0, 0);
        loop {
            let answers = self.run_once(signals.clone(), turns).await;
            if !answers.iter().any(Answer::is_a_fault) {
                return answers;
            }
            if signals.len() > 1 {
                // One of them may be at fault.
                let mut answers = Vec::new();
                for signal in signals {
                    answers.extend(Box::pin(self.run(vec![signal], turns)).await);
                }
                return answers;
            }
            let ping = tokio::time::timeout(PATIENCE, self.live.app.db.ping()).await;
            tries = if matches!(ping, Ok(Ok(()))) { tries + 1 } else { 0 };
            if tries >= TRIES || answers.iter().any(|answer| answer.panicked) {
                return answers;
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    async fn run_once(&self, signals: Vec<Signal>, turns: &Arc<Gate>) -> Vec<Answer> {
        let who = self.key.viewer.as_ref().map(|viewer| viewer.tenant_id);
        // As many may wait as may subscribe, so there is always room.
        let _turn = turns.enter(who).await;
        let position = signals.first().and_then(Signal::position).unwrap_or(i64::MAX);
        let fault = |error: ServerError, panicked| Answer {
            position,
            response: Response::from_errors(vec![error]),
            up_to_date: false,
            panicked,
        };
        let execution = AssertUnwindSafe(self.execute(signals)).catch_unwind();
        match tokio::time::timeout(PATIENCE, execution).await {
            Ok(Ok(Ok(answers))) => answers,
            Ok(Err(_panic)) => {
                tracing::error!("a resolver of a subscription panicked");
                vec![fault(answer::error(INTERNAL, ""), true)]
            }
            Ok(Ok(Err(_))) | Err(_) => {
                let away = answer::error(UNAVAILABLE, Error::Unavailable.message());
                vec![fault(away, false)]
            }
        }
    }

    async fn execute(&self, signals: Vec<Signal>) -> Result<Vec<Answer>> {
        let app = &self.live.app;
        // Of what is equal alone: who among the alike asked first must make no difference.
        let viewer = self.key.viewer.as_ref().map(|kin| Viewer {
            tenant_id: kin.tenant_id,
            user_id: kin.user_id.unwrap_or_default(),
            session_id: Uuid::nil(),
            token_id: Uuid::nil(),
            means: Means::Session,
            rights: kin.rights.clone(),
            expires_at: chrono::DateTime::UNIX_EPOCH,
        });
        // What a limited reach covers is looked up for each part anew: who is in a team now.
        let session = app.session(viewer).with_signals(signals).with_vision().await?;
        let session = Arc::new(session);
        let request = self.prepared.request().data(session.clone());
        let mut responses = app.schema.execute_stream(request);
        let mut answers = Vec::new();
        while let Some(response) = responses.next().await {
            answers.push(Answer {
                position: session.signals().reached(),
                response,
                up_to_date: session.signals().up_to_date(),
                panicked: false,
            });
        }
        let answered = answers.iter().all(|answer| answer.response.errors.is_empty());
        session.close(answered).await?;
        Ok(answers)
    }

    fn frame(&self, response: Response) -> Bytes {
        answer::executed(response, None, &RequestId::new(), self.live.most_errors).body
    }

    /// Joins those who ask the same, at a position of the history; begins a channel when there is none yet.
    fn join(self: &Arc<Self>, at: Position, may_begin: bool) -> Option<Member> {
        // Upgraded and let go outside of the lock: the last to leave a channel needs it.
        let existing = self.live.channels().get(&self.key).and_then(Weak::upgrade);
        if let Some(channel) = existing.filter(|channel| !channel.is_over()) {
            return channel.join(at);
        }
        if !may_begin {
            return None;
        }
        let channel = Channel::new(self.clone(), at);
        let driver = tokio::spawn(drive(self.clone(), Arc::downgrade(&channel), at));
        channel.driven_by(driver.abort_handle());
        // Another may have begun one at the same time; that one then serves those who joined it, and ends with them.
        self.live
            .channels()
            .insert(self.key.clone(), Arc::downgrade(&channel));
        channel.join(at)
    }
}

/// What is told of a signal.
struct Answer {
    position: i64,
    response: Response,
    up_to_date: bool,
    panicked: bool,
}

impl Answer {
    /// Whether it may be another when it is asked for again.
    fn is_a_fault(&self) -> bool {
        let code = |error: &ServerError| error.extensions.as_ref()?.get("code").cloned();
        let mut errors = self.response.errors.iter();
        self.panicked || errors.any(|error| code(error) == Some(Value::from(UNAVAILABLE)))
    }

    fn is_nothing_but_a_fault(&self) -> bool {
        self.is_a_fault() && answer::is_request_error(&self.response)
    }
}

impl Source for Operation {
    fn from(self: Arc<Self>, position: Position) -> Steps {
        Subscriber::new(self, Some(position)).steps()
    }

    fn ended(&self) {
        let mut channels = self.live.channels();
        if channels
            .get(&self.key)
            .is_some_and(|channel| channel.strong_count() == 0)
        {
            channels.remove(&self.key);
        }
    }
}

/// Brings a channel what happens.
async fn drive(operation: Arc<Operation>, channel: Weak<Channel>, from: Position) {
    /// However it ends, nobody waits for more in vain.
    struct End(Weak<Channel>);
    impl Drop for End {
        fn drop(&mut self) {
            if let Some(channel) = self.0.upgrade() {
                channel.end(None);
            }
        }
    }
    let end = End(channel);
    let mut parts = operation.follow(Some(from));
    while let Some(signals) = parts.next().await {
        let reached = signals.iter().rev().find_map(Signal::position);
        let over = signals
            .iter()
            .any(|signal| matches!(signal, Signal::MustRefetch(_)));
        let mut answers = operation.run(signals, &operation.live.shared).await;
        // Who is told of a fault alone has missed something: everybody goes on anew after what they have.
        let failed = answers.iter().position(Answer::is_nothing_but_a_fault);
        answers.truncate(failed.map_or(answers.len(), |failed| failed + 1));
        let told = answers.into_iter().map(|answer| Told {
            position: answer.position,
            frame: operation.frame(answer.response),
            up_to_date: answer.up_to_date,
            made: Instant::now(),
        });
        let mut told: Vec<_> = told.collect();
        let Some(channel) = end.0.upgrade() else { return };
        let over = over || failed.is_some();
        let last = if over { told.pop() } else { None };
        let reached = match failed {
            Some(_) => told.last().map(|told| told.position),
            None => reached,
        };
        channel.extend(told, reached.unwrap_or_default(), operation.live.room());
        if over {
            channel.end(last.map(|last| last.frame));
            return;
        }
    }
}

/// One who is on the way to the others.
struct Subscriber {
    operation: Arc<Operation>,
    /// How far it has come; it begins now when that is nowhere.
    at: Option<Position>,
    /// Where the history stood when it began: what comes later is live.
    live_from: Option<Standing>,
    /// Whether it has been told that what follows is live.
    up_to_date: bool,
    /// What it follows as long as it is alone.
    parts: Option<BoxStream<'static, Vec<Signal>>>,
    /// Not yet told.
    ahead: VecDeque<Step>,
    /// Whether it has been told anything.
    begun: bool,
    /// Whether the others have left it behind: then it goes its way alone to the end.
    left_behind: bool,
    over: bool,
}

impl Subscriber {
    fn new(operation: Arc<Operation>, at: Option<Position>) -> Self {
        Self {
            operation,
            at,
            live_from: None,
            up_to_date: false,
            parts: None,
            ahead: VecDeque::new(),
            begun: false,
            left_behind: false,
            over: false,
        }
    }

    fn steps(self) -> Steps {
        let steps = futures::stream::unfold(self, |mut subscriber| async move {
            loop {
                if let Some(step) = subscriber.ahead.pop_front() {
                    return Some((step, subscriber));
                }
                if subscriber.over {
                    return None;
                }
                subscriber.go_on().await;
            }
        });
        steps.boxed()
    }

    async fn go_on(&mut self) {
        let live_from = match self.live_from {
            Some(live_from) => live_from,
            None => {
                let live_from = self.operation.standing(self.at).await;
                *self.live_from.insert(live_from)
            }
        };
        let begins_now = self.at.is_none();
        let at = *self.at.get_or_insert(Position {
            epoch: live_from.epoch,
            position: live_from.position,
        });
        // Who comes from a position that this history does not have is told so by the history itself.
        let kept = live_from.trimmed..=live_from.position;
        let known = self.parts.is_some() || (at.epoch == live_from.epoch && kept.contains(&at.position));
        let near = if self.left_behind {
            self.up_to_date
        } else {
            at.position >= live_from.position.saturating_sub(BACK)
        };
        let joined = if known {
            self.operation.join(at, near)
        } else {
            None
        };
        match joined {
            Some(member) => self.go_live(member, live_from.position, begins_now).await,
            None => self.go_alone(at).await,
        }
    }

    async fn go_alone(&mut self, at: Position) {
        let parts = self.parts.get_or_insert_with(|| self.operation.follow(Some(at)));
        let Some(signals) = parts.next().await else {
            self.over = true;
            return;
        };
        for signal in &signals {
            match signal {
                Signal::Event { epoch, event } => {
                    self.at = Some(Position {
                        epoch: *epoch,
                        position: event.position,
                    });
                }
                Signal::UpToDate(position) => {
                    self.at = Some(*position);
                    self.up_to_date = true;
                }
                Signal::MustRefetch(_) => self.over = true,
            }
        }
        for answer in self.operation.run(signals, &self.operation.live.lone).await {
            if !self.tell(answer.response) {
                break;
            }
        }
    }

    /// Answers whether there may be more to tell.
    fn tell(&mut self, response: Response) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        let cost = first.then_some(self.operation.cost);
        let step = step(response, cost, self.operation.live.most_errors);
        let failed = matches!(step, Step::Error(_));
        self.over |= failed;
        self.ahead.push_back(step);
        !failed
    }

    /// Goes on as one of the others; is told first what they were told already, and then that this was all.
    async fn go_live(&mut self, mut member: Member, live_from: i64, begins_now: bool) {
        if begins_now && !self.greet(&member).await {
            return;
        }
        let channel = member.channel().clone();
        while !self.up_to_date {
            let reached = channel.reached();
            match member.take() {
                Next::Frame(frame) => {
                    self.begun = true;
                    self.ahead.push_back(Step::Frame(frame));
                }
                // Of how far the others had come by then.
                Next::UpToDate(_) => {}
                Next::Nothing if reached < live_from => channel.reach(reached + 1).await,
                Next::Nothing => {
                    if member.settle() && !self.greet(&member).await {
                        return;
                    }
                }
                // The others went on so fast meanwhile: alone again.
                Next::Behind => {
                    self.at = Some(member.position());
                    self.parts = None;
                    self.left_behind = true;
                    return;
                }
                Next::Over => break,
            }
        }
        self.over = true;
        self.ahead.push_back(Step::Live(member));
    }

    /// Tells that everything up to the member's position has been told; answers whether there may be more to tell.
    async fn greet(&mut self, member: &Member) -> bool {
        self.up_to_date = true;
        if let Some(greeting) = member.greeting() {
            self.ahead.push_back(Step::Frame(greeting));
            return true;
        }
        let at = member.position();
        let operation = self.operation.clone();
        for answer in operation
            .run(vec![Signal::UpToDate(at)], &operation.live.lone)
            .await
        {
            if !self.tell(answer.response) {
                return false;
            }
        }
        if let Some(Step::Frame(greeting)) = self.ahead.back() {
            member.channel().greet(at.position, greeting.clone());
        }
        true
    }
}
