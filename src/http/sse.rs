//! GraphQL over server-sent events, for clients that cannot use sockets: the protocol of `graphql-sse`, in its *distinct
//! connections mode*. An operation is a request, and its results are the events of the answer:
//!
//! ```text
//! event: next
//! data: {"data":{…}}
//!
//! event: complete
//! data:
//! ```
//!
//! A stream that ends without `complete` was cut: the client asks again, after the position that it has. A client that
//! reads nothing holds nothing but its connection, which the system gives up after a while.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use async_graphql::ServerError;
use async_graphql::parser::types::OperationType;
use axum::body::Body;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryFutureExt};
use tokio::time::Sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};

use super::answer::{self, Cost, UNAUTHENTICATED};
use super::headers::{self, RequestId};
use super::streams::Place;
use super::{Backend, Http, charge, graphql, live};
use crate::auth::Origin;
use crate::graphql::limits::Prepared;

/// What a stream of events has as its type.
pub const MEDIA: &str = "text/event-stream";

const COMPLETE: Bytes = Bytes::from_static(b"event: complete\ndata:\n\n");
/// A comment, which clients skip: it tells proxies that the stream is alive.
const ALIVE: Bytes = Bytes::from_static(b":\n\n");

type Results = BoxStream<'static, Result<Bytes, Vec<ServerError>>>;

/// Runs an operation and answers with its results as they come.
#[expect(clippy::too_many_arguments, reason = "all that is known of a request")]
pub fn respond<B: Backend>(
    http: Arc<Http<B>>,
    viewer: Option<B::Viewer>,
    origin: Origin,
    prepared: Prepared,
    cost: Cost,
    idempotency_key: Option<String>,
    id: RequestId,
    span: Span,
) -> Response {
    let mut place = None;
    let mut until = None;
    let results: Results = if prepared.kind() == OperationType::Subscription {
        if let Some(viewer) = &viewer {
            match http.streams.open(http.backend.identity(viewer)) {
                Ok(taken) => place = Some(taken),
                Err(full) => return refused(&http, vec![full.error()], &id),
            }
            until = Some(Until::of(&http.backend, viewer));
        }
        live::frames(http.backend.subscribe(viewer.as_ref(), prepared)).boxed()
    } else {
        let (http, id) = (http.clone(), id.clone());
        let once = async move {
            once(&http, viewer, origin, prepared, cost, idempotency_key, &id)
                .instrument(span)
                .await
        };
        // In a task of its own: a body is not read on while its client takes nothing, and others may wait for what is read
        // together with them.
        let once = AbortOnDropHandle::new(tokio::spawn(once));
        let once = once.map_err(|_panicked| vec![answer::error(answer::INTERNAL, "")]);
        futures::stream::once(once).boxed()
    };
    let mut response = stream(http, results, until, place, id);
    if let Some(balance) = &cost.available {
        charge::tell(response.headers_mut(), balance);
    }
    response
}

/// Answers with errors and nothing else.
pub fn refused<B: Backend>(http: &Arc<Http<B>>, errors: Vec<ServerError>, id: &RequestId) -> Response {
    let errors = futures::stream::once(async { Err(errors) }).boxed();
    stream(http.clone(), errors, None, None, id.clone())
}

/// The result of a query or mutation.
async fn once<B: Backend>(
    http: &Http<B>,
    viewer: Option<B::Viewer>,
    origin: Origin,
    prepared: Prepared,
    cost: Cost,
    idempotency_key: Option<String>,
    id: &RequestId,
) -> Bytes {
    let session = http.backend.session(viewer, origin, idempotency_key);
    let response = graphql::execute(http, &session, &prepared).await;
    answer::executed(response, Some(cost), id, http.settings.errors).body
}

/// The end of a viewer's time.
struct Until {
    expires: Pin<Box<Sleep>>,
    revoked: BoxFuture<'static, ()>,
}

impl Until {
    fn of<B: Backend>(backend: &B, viewer: &B::Viewer) -> Self {
        Self {
            expires: Box::pin(tokio::time::sleep(backend.expires_in(viewer))),
            revoked: Box::pin(backend.revoked(viewer)),
        }
    }

    /// Waits for it, and answers what to say.
    async fn over(this: &mut Option<Self>) -> &'static str {
        match this {
            Some(Self { expires, revoked }) => tokio::select! {
                () = expires => "The access token has expired. Subscribe again with a fresh one.",
                () = revoked => "The session has ended. Sign in again.",
            },
            None => std::future::pending().await,
        }
    }
}

struct Running<B: Backend> {
    http: Arc<Http<B>>,
    results: Option<Results>,
    until: Option<Until>,
    id: RequestId,
    complete: bool,
    _place: Option<Place>,
}

fn stream<B: Backend>(
    http: Arc<Http<B>>,
    results: Results,
    until: Option<Until>,
    place: Option<Place>,
    id: RequestId,
) -> Response {
    let mut response = headers::answer(StatusCode::OK, HeaderValue::from_static(MEDIA), Bytes::new(), &id);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies would wait for more to pass on at once.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    let running = Running {
        http,
        results: Some(results),
        until,
        id,
        complete: false,
        _place: place,
    };
    // The first comment brings the head of the answer on its way.
    let events = futures::stream::once(async { ALIVE }).chain(running.events());
    *response.body_mut() = Body::from_stream(events.map(Ok::<_, Infallible>));
    response
}

impl<B: Backend> Running<B> {
    fn events(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut running| async move {
            let event = running.next().await?;
            Some((event, running))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        let Some(results) = &mut self.results else {
            return (!std::mem::replace(&mut self.complete, true)).then_some(COMPLETE);
        };
        let shutdown = self.http.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            why = Until::over(&mut self.until) => {
                let error = answer::error(UNAUTHENTICATED, why);
                Some(self.fail(vec![error]))
            }
            result = results.next() => Some(match result {
                Some(Ok(result)) => event(&result),
                Some(Err(errors)) => self.fail(errors),
                None => {
                    self.results = None;
                    self.complete = true;
                    COMPLETE
                }
            }),
            () = tokio::time::sleep(self.http.settings.alive_time) => Some(ALIVE),
        }
    }

    /// The last result: errors, and nothing else.
    fn fail(&mut self, errors: Vec<ServerError>) -> Bytes {
        self.results = None;
        let errors = answer::errors(errors, &self.id, self.http.settings.errors);
        event(&[b"{\"errors\":", &errors[..], b"}"].concat())
    }
}

fn event(result: &[u8]) -> Bytes {
    [b"event: next\ndata: ", result, b"\n\n"].concat().into()
}
