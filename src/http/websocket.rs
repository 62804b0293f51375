//! `graphql-transport-ws`: many operations on one socket.
//!
//! One task owns the socket; each query, mutation and beginning subscription has a task of its own and hands its messages
//! over through a bounded queue. A subscription that has caught up needs no task: it is a place in a [channel](super::live)
//! from which the socket takes what it has room for. A client that reads slowly holds its own operations up; one that
//! reads nothing for a while loses its socket. Neither takes the server's memory.
//!
//! A fresh access token can be sent before the old one ends, as the payload of a `ping`, in the form of
//! `connection_init`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::ServerError;
use async_graphql::parser::types::OperationType;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use super::answer::{self, BAD_REQUEST};
use super::graphql::{self, Question};
use super::headers::{self, RequestId};
use super::live::{Member, Next, Step, Steps};
use super::origin::origin;
use super::serve::Client;
use super::streams::Place;
use super::{Backend, Http, charge, cors, trace};
use crate::auth::Origin;
use crate::error::Error;
use crate::graphql::limits::{Prepared, Refusal, TOO_COMPLEX};

const PROTOCOL: &str = "graphql-transport-ws";

/// Bytes that are read at a time. Idle sockets are many, and each keeps a buffer of this size.
const READ: usize = 1024;

/// Bytes that are collected before they are written.
const WRITE: usize = 4096;

/// Messages that are written together, before the client is listened to again.
const BATCH: usize = 32;

/// The longest id of an operation.
const ID_BYTES: usize = 128;

/// How long a client may take to answer our good-bye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a socket is closed: the codes of the protocol, and of WebSocket itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Close(u16, &'static str);

const VIOLATION: Close = Close(1002, "Protocol error");
const NOT_TEXT: Close = Close(1007, "Invalid UTF-8");
const TOO_BIG: Close = Close(1009, "Message too big");
const TRY_LATER: Close = Close(1013, "Try again later");
const RESTART: Close = Close(1012, "Service restart");
const INVALID: Close = Close(4400, "Invalid message");
const UNAUTHORIZED: Close = Close(4401, "Unauthorized");
const EXPIRED: Close = Close(4401, "Token expired");
const FORBIDDEN: Close = Close(4403, "Forbidden");
const WRONG_PROTOCOL: Close = Close(4406, "Subprotocol not acceptable");
const INIT_TIMEOUT: Close = Close(4408, "Connection initialisation timeout");
const DUPLICATE: Close = Close(4409, "Subscriber already exists");
const INIT_TWICE: Close = Close(4429, "Too many initialisation requests");

/// Answers a request for a socket.
pub async fn upgrade<B: Backend>(http: Arc<Http<B>>, parts: &mut Parts) -> Response {
    let id = RequestId::of(&parts.headers);
    let refuse = |status, message: &str| {
        let errors = vec![answer::error(BAD_REQUEST, message)];
        let body = answer::refused(Refusal { errors }, &id, 1).body;
        headers::answer(status, headers::JSON, body, &id)
    };
    if !origin_allowed(&parts.headers, &http.settings.allowed_origins) {
        return refuse(StatusCode::FORBIDDEN, "Sockets from this origin are not allowed.");
    }
    let origin = Arc::new(origin(parts, &http.settings.trusted_proxies, &id));
    if let Err(refused) = http.admit(&origin) {
        return graphql::refused(&refused, &id);
    }
    if http.shutdown.is_cancelled() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "The server is stopping.");
    }
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(parts, &()).await else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "This is not a complete request for a WebSocket.",
        );
    };
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ)
        .write_buffer_size(WRITE)
        .max_message_size(http.settings.message_bytes)
        .max_frame_size(http.settings.message_bytes);
    let speaks_it = upgrade.selected_protocol().is_some();
    let counted = http.sockets.token();
    // A socket takes the place of the connection that it was.
    let client = parts.extensions.get::<Client>().cloned();
    upgrade.on_upgrade(async move |mut socket| {
        let _held = (counted, client);
        let close = if speaks_it {
            Connection::new(http, origin).run(&mut socket).await
        } else {
            Some(WRONG_PROTOCOL)
        };
        if let Some(close) = close {
            say_goodbye(socket, close).await;
        }
    })
}

/// Browsers tell where a page comes from; other clients do not and are judged by their token alone.
fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let same =
        authority.is_some_and(|(_, authority)| host.is_some_and(|host| host.eq_ignore_ascii_case(authority)));
    same || cors::is_among(origin, allowed)
}

/// Closes a socket such that the client gets to see the code.
async fn say_goodbye(mut socket: WebSocket, Close(code, reason): Close) {
    let frame = CloseFrame {
        code,
        reason: Utf8Bytes::from_static(reason),
    };
    let goodbye = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            // What the client sent meanwhile is read away: closing over unread data would reset the connection.
            read_away(&mut socket).await;
        }
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

/// Reads what a client still sends, to its end.
async fn read_away(socket: &mut WebSocket) {
    while let Some(Ok(_)) = socket.recv().await {}
}

/// What the task of an operation hands over.
struct Frame {
    /// The operation that it is from: the client's id may since be another's.
    id: Arc<str>,
    number: u64,
    word: Word,
}

enum Word {
    /// A message for the client.
    Say(Utf8Bytes),
    /// The message that ends the operation.
    Last(Utf8Bytes),
    /// The operation needs no task any more: from now on it is told what others are told.
    Live(Member),
}

/// A running operation.
struct Running {
    number: u64,
    way: Way,
    /// The place of a subscription among those that are open.
    _place: Option<Place>,
}

enum Way {
    /// By a task of its own.
    Alone(AbortHandle),
    /// As one of many who are told the same.
    Live(Member),
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Way::Alone(task) = &self.way {
            task.abort();
        }
    }
}

/// What a client may say.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

struct Connection<B: Backend> {
    http: Arc<Http<B>>,
    /// Where the request for the socket came from.
    origin: Arc<Origin>,
    viewer: Option<B::Viewer>,
    /// When the token of the viewer ends.
    expires: Option<Instant>,
    /// Ends when the viewer may no longer be here; until it is taken over by who waits for it.
    revoked: Option<BoxFuture<'static, ()>>,
    /// Running operations by the client's ids.
    running: HashMap<Arc<str>, Running>,
    /// Ends all operations when the connection is dropped.
    tasks: JoinSet<()>,
    /// Operations so far.
    count: u64,
    /// Boxed: the queue has room for many from the beginning, and most sockets are idle.
    queue: (mpsc::Sender<Box<Frame>>, mpsc::Receiver<Box<Frame>>),
    /// Notified when there is something for an operation that is live.
    wake: Arc<Notify>,
}

impl<B: Backend> Connection<B> {
    fn new(http: Arc<Http<B>>, origin: Arc<Origin>) -> Self {
        Self {
            queue: mpsc::channel(http.settings.backlog),
            http,
            origin,
            viewer: None,
            expires: None,
            revoked: None,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            count: 0,
            wake: Arc::default(),
        }
    }

    /// Serves the socket to its end; answers how to close it, or nothing when there is nobody to tell.
    async fn run(mut self, socket: &mut WebSocket) -> Option<Close> {
        let http = self.http.clone();
        let (settings, shutdown) = (&http.settings, &http.shutdown);
        let opened = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut heard = opened;
        let alarm = tokio::time::sleep_until(opened + settings.init_time.min(settings.ping_time));
        tokio::pin!(alarm);
        let mut revoked: BoxFuture<'static, ()> = Box::pin(std::future::pending());
        // Made once: each new one would have to get in line with those of all other sockets.
        let stopping = shutdown.cancelled();
        tokio::pin!(stopping);
        loop {
            if let Some(newer) = self.revoked.take() {
                revoked = newer;
            }
            // What ends the viewer's time comes before what the client says, and goes on to count while we write.
            tokio::select! {
                biased;
                () = &mut stopping => return Some(RESTART),
                () = &mut revoked => return Some(FORBIDDEN),
                () = alarm.as_mut() => {
                    let now = Instant::now();
                    if self.viewer.is_none() && now >= opened + settings.init_time {
                        return Some(INIT_TIMEOUT);
                    }
                    if self.expires.is_some_and(|expires| now >= expires) {
                        return Some(EXPIRED);
                    }
                    let mut next = heard.max(asked.unwrap_or(heard)) + settings.ping_time;
                    if now >= next {
                        if asked.is_some_and(|asked| heard < asked) {
                            return None;
                        }
                        send(socket, Message::Ping(Bytes::new()), settings.write_time).await?;
                        asked = Some(now);
                        next = now + settings.ping_time;
                    }
                    let init = self.viewer.is_none().then_some(opened + settings.init_time);
                    let deadline = [Some(next), init, self.expires].into_iter().flatten().min();
                    alarm.as_mut().reset(deadline.unwrap_or(next));
                }
                message = socket.recv() => {
                    heard = Instant::now();
                    let reply = match message {
                        None => return None,
                        Some(Err(error)) => return fault(&error),
                        Some(Ok(Message::Text(text))) => match self.message(text.as_str()).await {
                            Ok(reply) => reply,
                            Err(close) => return Some(close),
                        },
                        Some(Ok(Message::Binary(_))) => return Some(INVALID),
                        // The socket answers pings by itself, and a close when it is next read.
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
                        Some(Ok(Message::Close(_))) => {
                            let _ = timeout(GOODBYE, read_away(socket)).await;
                            return None;
                        }
                    };
                    if let Some(reply) = reply {
                        if self.expires.is_some_and(|expires| expires < alarm.deadline()) {
                            alarm.as_mut().reset(self.expires.unwrap_or(heard));
                        }
                        send(socket, Message::Text(reply.into()), settings.write_time).await?;
                    }
                }
                Some(frame) = self.queue.1.recv() => {
                    let until = self.write_until(settings.write_time);
                    tokio::select! {
                        biased;
                        () = &mut stopping => return Some(RESTART),
                        () = &mut revoked => return Some(FORBIDDEN),
                        written = timeout_at(until, self.write(socket, frame)) => match written {
                            Ok(written) => written.ok()?,
                            Err(_elapsed) => return self.expired(),
                        },
                    }
                }
                () = self.wake.notified() => {
                    let until = self.write_until(settings.write_time);
                    tokio::select! {
                        biased;
                        () = &mut stopping => return Some(RESTART),
                        () = &mut revoked => return Some(FORBIDDEN),
                        written = timeout_at(until, self.write_live(socket)) => match written {
                            Ok(written) => written.ok()?,
                            Err(_elapsed) => return self.expired(),
                        },
                    }
                }
            }
        }
    }

    /// Until when what is written now must have been taken in: not beyond the end of the token.
    fn write_until(&self, patience: Duration) -> Instant {
        let patient = Instant::now() + patience;
        self.expires.map_or(patient, |expires| patient.min(expires))
    }

    /// How to close when the token has ended.
    fn expired(&self) -> Option<Close> {
        let expired = self.expires.is_some_and(|expires| Instant::now() >= expires);
        expired.then_some(EXPIRED)
    }

    /// Sends a message and those that wait behind it.
    async fn write(&mut self, socket: &mut WebSocket, frame: Box<Frame>) -> Result<(), axum::Error> {
        let mut next = Some(frame);
        let mut left = BATCH;
        while let Some(frame) = next {
            // The client may have completed the operation and be about something else under the same id.
            let running = self.running.get_mut(&frame.id);
            if let Some(running) = running.filter(|running| running.number == frame.number) {
                match frame.word {
                    Word::Say(text) => socket.feed(Message::Text(text)).await?,
                    Word::Last(text) => {
                        self.end(&frame.id);
                        socket.feed(Message::Text(text)).await?;
                    }
                    Word::Live(mut member) => {
                        member.wake(self.wake.clone());
                        running.way = Way::Live(member);
                        while self.tasks.try_join_next().is_some() {}
                    }
                }
            }
            left -= 1;
            next = if left > 0 {
                self.queue.1.try_recv().ok()
            } else {
                None
            };
        }
        socket.flush().await
    }

    /// Sends what there is for operations that are live, of each a few messages at a time.
    async fn write_live(&mut self, socket: &mut WebSocket) -> Result<(), axum::Error> {
        let mut over = Vec::new();
        let mut behind = Vec::new();
        for (id, running) in &mut self.running {
            let Way::Live(member) = &mut running.way else {
                continue;
            };
            let mut left = BATCH;
            loop {
                if left == 0 {
                    self.wake.notify_one();
                    break;
                }
                left -= 1;
                match member.take() {
                    Next::Frame(payload) | Next::UpToDate(payload) => {
                        let text = frame(id, "next", &payload);
                        socket.feed(Message::Text(text.into())).await?;
                    }
                    Next::Nothing => break,
                    Next::Behind => {
                        behind.push((id.clone(), running.number, member.rejoin()));
                        break;
                    }
                    Next::Over => {
                        over.push(id.clone());
                        break;
                    }
                }
            }
        }
        for id in over {
            self.end(&id);
            socket.feed(Message::Text(complete(&id).into())).await?;
        }
        for (id, number, steps) in behind {
            let operation = self.operation(id.clone(), number);
            let task = self
                .tasks
                .spawn(async move { operation.tell(steps, &RequestId::new()).await });
            if let Some(running) = self.running.get_mut(&id) {
                running.way = Way::Alone(task);
            }
        }
        socket.flush().await
    }

    /// Forgets an operation, and stops it where it has not ended.
    fn end(&mut self, id: &str) {
        self.running.remove(id);
        while self.tasks.try_join_next().is_some() {}
    }

    fn operation(&self, id: Arc<str>, number: u64) -> Operation<B> {
        Operation {
            http: self.http.clone(),
            origin: self.origin.clone(),
            id,
            number,
            frames: self.queue.0.clone(),
        }
    }

    /// Does what a message says; answers what to send at once.
    async fn message(&mut self, text: &str) -> Result<Option<String>, Close> {
        // An array would be taken for the members in their order.
        if !text.trim_start().starts_with('{') {
            return Err(INVALID);
        }
        let message: Incoming = serde_json::from_str(text).map_err(|_| INVALID)?;
        match &*message.kind {
            "connection_init" => {
                let payload = object(message.payload)?;
                if self.viewer.is_some() {
                    return Err(INIT_TWICE);
                }
                let token = token(&payload).ok_or(UNAUTHORIZED)?;
                let viewer = authenticate(&self.http, token, &self.origin).await?;
                self.sign_in(viewer);
                Ok(Some("{\"type\":\"connection_ack\"}".to_owned()))
            }
            "ping" => {
                let payload = object(message.payload)?;
                if let (Some(viewer), Some(token)) = (&self.viewer, token(&payload)) {
                    // A fresh token, before the old one ends; it is not for sending back.
                    let newer = authenticate(&self.http, token, &self.origin).await?;
                    if !self.http.backend.renews(viewer, &newer) {
                        return Err(FORBIDDEN);
                    }
                    self.sign_in(newer);
                    return Ok(Some("{\"type\":\"pong\"}".to_owned()));
                }
                Ok(Some(match message.payload {
                    Some(payload) if payload.get() != "null" => {
                        format!("{{\"type\":\"pong\",\"payload\":{}}}", payload.get())
                    }
                    _ => "{\"type\":\"pong\"}".to_owned(),
                }))
            }
            "pong" => object(message.payload).map(|_| None),
            "subscribe" => self.subscribe(id(message.id)?, message.payload),
            "complete" => {
                self.end(&id(message.id)?);
                Ok(None)
            }
            _ => Err(INVALID),
        }
    }

    fn sign_in(&mut self, viewer: B::Viewer) {
        self.expires = Some(Instant::now() + self.http.backend.expires_in(&viewer));
        self.revoked = Some(Box::pin(self.http.backend.revoked(&viewer)));
        self.viewer = Some(viewer);
    }

    fn subscribe(&mut self, id: Cow<'_, str>, payload: Option<&RawValue>) -> Result<Option<String>, Close> {
        let viewer = self.viewer.clone().ok_or(UNAUTHORIZED)?;
        let payload = payload
            .map(RawValue::get)
            .filter(|payload| payload.starts_with('{'))
            .ok_or(INVALID)?;
        let question: Question = serde_json::from_str(payload).map_err(|_| INVALID)?;
        if self.running.contains_key(&*id) {
            return Err(DUPLICATE);
        }
        let limit = self.http.settings.operations;
        if self.running.len() >= limit {
            let error = answer::error(
                TOO_COMPLEX,
                format!("A socket may have {limit} operations at the same time."),
            );
            let errors = answer::errors(vec![error], &RequestId::new(), 1);
            return Ok(Some(frame(&id, "error", &errors)));
        }
        if let Err(refused) = self.http.admit(&self.origin) {
            let errors = answer::errors(vec![charge::error(&refused)], &RequestId::new(), 1);
            return Ok(Some(frame(&id, "error", &errors)));
        }
        // The document is judged before the next message is read: that bounds what a socket can keep busy.
        let documents = self.http.backend.documents();
        let prepared = documents.prepare(
            &question.query,
            question.operation_name.as_deref(),
            question.variables,
        );
        let mut place = None;
        if let Ok(prepared) = &prepared
            && prepared.kind() == OperationType::Subscription
        {
            match self.http.streams.open(self.http.backend.identity(&viewer)) {
                Ok(taken) => place = Some(taken),
                Err(full) => {
                    let errors = answer::errors(vec![full.error()], &RequestId::new(), 1);
                    return Ok(Some(frame(&id, "error", &errors)));
                }
            }
        }
        self.count += 1;
        let operation = self.operation(id.as_ref().into(), self.count);
        let (key, number) = (operation.id.clone(), operation.number);
        let task = self.tasks.spawn(operation.run(viewer, prepared));
        let running = Running {
            number,
            way: Way::Alone(task),
            _place: place,
        };
        self.running.insert(key, running);
        Ok(None)
    }
}

/// One operation on its way.
struct Operation<B: Backend> {
    http: Arc<Http<B>>,
    origin: Arc<Origin>,
    id: Arc<str>,
    number: u64,
    frames: mpsc::Sender<Box<Frame>>,
}

impl<B: Backend> Operation<B> {
    async fn run(self, viewer: B::Viewer, prepared: Result<Prepared, Refusal>) {
        let id = RequestId::new();
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => return self.fail(refusal.errors, &id).await,
        };
        if AssertUnwindSafe(self.answer(viewer, prepared, &id))
            .catch_unwind()
            .await
            .is_err()
        {
            tracing::error!(request_id = id.as_str(), "a resolver panicked");
            self.fail(vec![answer::error(answer::INTERNAL, "")], &id).await;
        }
    }

    async fn answer(&self, viewer: B::Viewer, prepared: Prepared, request_id: &RequestId) {
        let backend = &self.http.backend;
        let cost = match self.http.charge(Some(&viewer), &self.origin, &prepared).await {
            Ok(cost) => cost,
            Err(refused) => return self.fail(vec![charge::error(&refused)], request_id).await,
        };
        if prepared.kind() == OperationType::Subscription {
            return self
                .tell(backend.subscribe(Some(&viewer), prepared), request_id)
                .await;
        }
        let span = trace::span(&self.http, Some(&viewer), &prepared, None, request_id);
        let origin = self.origin.of_request(request_id.as_str());
        let session = backend.session(Some(viewer), origin, None);
        let executed = graphql::execute(&self.http, &session, &prepared);
        let response = executed.instrument(span).await;
        if answer::is_request_error(&response) {
            return self.fail(response.errors, request_id).await;
        }
        let answer = answer::executed(response, Some(cost), request_id, self.http.settings.errors);
        self.next(&answer.body).await;
        self.complete().await;
    }

    /// Tells a subscription to its end, or until it goes live.
    async fn tell(&self, mut steps: Steps, request_id: &RequestId) {
        while let Some(step) = steps.next().await {
            match step {
                Step::Frame(payload) => self.next(&payload).await,
                Step::Error(errors) => return self.fail(errors, request_id).await,
                Step::Live(member) => return self.hand_over(Word::Live(member)).await,
            }
        }
        self.complete().await;
    }

    async fn next(&self, payload: &[u8]) {
        let text = frame(&self.id, "next", payload);
        self.hand_over(Word::Say(text.into())).await;
    }

    async fn fail(&self, errors: Vec<ServerError>, id: &RequestId) {
        let errors = answer::errors(errors, id, self.http.settings.errors);
        let text = frame(&self.id, "error", &errors);
        self.hand_over(Word::Last(text.into())).await;
    }

    async fn complete(&self) {
        self.hand_over(Word::Last(complete(&self.id).into())).await;
    }

    /// Waits when the queue is full.
    async fn hand_over(&self, word: Word) {
        let frame = Frame {
            id: self.id.clone(),
            number: self.number,
            word,
        };
        // The connection is gone when this fails, and this task with it.
        let _ = self.frames.send(Box::new(frame)).await;
    }
}

/// The message that an operation is complete.
fn complete(id: &str) -> String {
    let id = serde_json::Value::from(id);
    format!("{{\"id\":{id},\"type\":\"complete\"}}")
}

/// A message about an operation. The payload is the same for all who get it; only the id is the client's own.
fn frame(id: &str, kind: &str, payload: &[u8]) -> String {
    let mut text = Vec::with_capacity(payload.len() + id.len() + 48);
    text.extend_from_slice(b"{\"id\":");
    serde_json::to_writer(&mut text, id).expect("a text is JSON");
    text.extend_from_slice(b",\"type\":\"");
    text.extend_from_slice(kind.as_bytes());
    text.extend_from_slice(b"\",\"payload\":");
    text.extend_from_slice(payload);
    text.push(b'}');
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// Who a token belongs to.
async fn authenticate<B: Backend>(http: &Http<B>, token: &str, origin: &Origin) -> Result<B::Viewer, Close> {
    // Boxed, because every open socket has room for this one.
    match Box::pin(http.backend.authenticate(token, origin)).await {
        Ok(viewer) => Ok(viewer),
        Err(Error::Unavailable | Error::Internal(_)) => Err(TRY_LATER),
        Err(_) => Err(FORBIDDEN),
    }
}

fn id(id: Option<Cow<'_, str>>) -> Result<Cow<'_, str>, Close> {
    id.filter(|id| (1..=ID_BYTES).contains(&id.len())).ok_or(INVALID)
}

type Object = HashMap<String, serde_json::Value>;

/// A payload that must be an object when it is there.
fn object(payload: Option<&RawValue>) -> Result<Object, Close> {
    match payload {
        None => Ok(Object::new()),
        Some(payload) => serde_json::from_str::<Option<Object>>(payload.get())
            .map(Option::unwrap_or_default)
            .map_err(|_| INVALID),
    }
}

/// The access token of a `connection_init`, under the names that clients give it.
fn token(payload: &Object) -> Option<&str> {
    let (name, value) = payload
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("authorization") || name.as_str() == "authToken")?;
    let value = value.as_str()?.trim();
    let token = match graphql::bearer(value) {
        Some(token) => token,
        None if name.eq_ignore_ascii_case("authorization") && value.eq_ignore_ascii_case("bearer") => "",
        None => value,
    };
    Some(token).filter(|token| !token.is_empty())
}

/// Sends a message; nothing when the client is gone or takes too long to take it.
async fn send(socket: &mut WebSocket, message: Message, patience: Duration) -> Option<()> {
    timeout(patience, socket.send(message)).await.ok()?.ok()
}

/// What a client did wrong when reading from its socket fails, if there is anybody left to be told.
fn fault(error: &axum::Error) -> Option<Close> {
    use std::error::Error;
    // The library's errors are not ours to match: axum keeps its version to itself.
    let text = error.source()?.to_string();
    let faults = [
        ("too long", TOO_BIG),
        ("UTF-8", NOT_TEXT),
        ("protocol error", VIOLATION),
    ];
    let fault = faults.into_iter().find(|(words, _)| text.contains(words));
    fault.map(|(_, close)| close)
}
