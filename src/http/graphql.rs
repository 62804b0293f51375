//! GraphQL over HTTP: `POST` with JSON, `GET` for queries, one operation a request.

use std::borrow::Cow;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Response as Executed, Variables};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, HeaderName, RETRY_AFTER, UPGRADE, VARY,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tracing::Instrument;

use super::answer::{self, Answer, BAD_REQUEST, INTERNAL, RATE_LIMITED, TIMEOUT};
use super::headers::{self, RequestId};
use super::origin::origin;
use super::{Backend, Http, charge, sse, trace, websocket};
use crate::auth::{Origin, throttle};
use crate::error::Error;
use crate::graphql::limits::{Prepared, Refusal};
use crate::graphql::mutation::MAX_KEY;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The two forms of answers; they differ in when the status tells of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    /// `application/json`: a well-formed request is answered with 200, errors or not.
    Json,
    /// `application/graphql-response+json`: the status tells request errors.
    GraphQl,
}

/// A request that will not be executed, with the status of HTTP itself.
struct Refused {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    /// For 405: what would be allowed, where that is not GET and POST.
    allow: Option<HeaderValue>,
    /// For 429: what there is too much of.
    limit: Option<Box<throttle::Refused>>,
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code: BAD_REQUEST,
            message: message.into(),
            allow: None,
            limit: None,
        }
    }
}

/// Everything at `/graphql`.
pub async fn handle<B: Backend>(State(http): State<Arc<Http<B>>>, request: Request<Body>) -> Response {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::GET && wants_socket(&parts.headers) {
        return websocket::upgrade(http, &mut parts).await;
    }
    let id = RequestId::of(&parts.headers);
    let Some(accepted) = negotiate(&parts.headers) else {
        let refused = Refused::new(
            StatusCode::NOT_ACCEPTABLE,
            "Accept application/graphql-response+json, application/json or text/event-stream.",
        );
        return refuse(refused, Media::Json, &id);
    };
    let origin = origin(&parts, &http.settings.trusted_proxies, &id);
    match respond(&http, &parts, body, accepted, origin, &id).await {
        Ok(response) => response,
        Err(refused) => refuse(refused, accepted.media, &id),
    }
}

impl From<throttle::Refused> for Refused {
    fn from(limit: throttle::Refused) -> Self {
        Self {
            code: RATE_LIMITED,
            limit: Some(Box::new(limit)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "")
        }
    }
}

/// The answer to a request of which there are too many.
pub(super) fn refused(limit: &throttle::Refused, id: &RequestId) -> Response {
    refuse((*limit).into(), Media::Json, id)
}

fn refuse(refused: Refused, media: Media, id: &RequestId) -> Response {
    let error = match &refused.limit {
        Some(limit) => charge::error(limit),
        None => answer::error(refused.code, refused.message),
    };
    let answer = answer::refused(Refusal { errors: vec![error] }, id, 1);
    let mut response = headers::answer(refused.status, media.content_type(), answer.body, id);
    if let Some(allow) = refused.allow {
        response.headers_mut().insert(ALLOW, allow);
    }
    if let Some(limit) = &refused.limit {
        charge::tell_refused(response.headers_mut(), limit);
    }
    if matches!(
        refused.status,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT
    ) {
        // What is left of the body is not worth reading.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn respond<B: Backend>(
    http: &Arc<Http<B>>,
    parts: &Parts,
    body: Body,
    accepted: Accepted,
    origin: Origin,
    id: &RequestId,
) -> Result<Response, Refused> {
    http.admit(&origin)?;
    let media = accepted.media;
    let bytes;
    let question = match parts.method {
        Method::POST => {
            json_only(parts.headers.get(CONTENT_TYPE).ok_or_else(not_json)?)?;
            if parts
                .headers
                .get(CONTENT_ENCODING)
                .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
            {
                return Err(Refused::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "Send the body as it is: compressed bodies are not taken.",
                ));
            }
            bytes = read(http, parts, body).await?;
            Question::from_json(&bytes)?
        }
        Method::GET => {
            if let Some(content_type) = parts.headers.get(CONTENT_TYPE) {
                json_only(content_type)?;
            }
            Question::from_query(parts)?
        }
        _ => {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "Send GraphQL with POST, or queries with GET.",
            ));
        }
    };
    let viewer = viewer(http, &parts.headers, &origin).await?;
    let settings = &http.settings;
    let operation_name = question.operation_name.as_deref();
    let prepared = match http
        .backend
        .documents()
        .prepare(&question.query, operation_name, question.variables)
    {
        Ok(prepared) => prepared,
        Err(refusal) if accepted.events_first => return Ok(sse::refused(http, refusal.errors, id)),
        Err(refusal) => {
            let answer = answer::refused(refusal, id, settings.errors);
            return Ok(send(answer, media, parts, settings.gzip_from, id));
        }
    };
    match prepared.kind() {
        OperationType::Query => {}
        OperationType::Mutation if parts.method == Method::POST => {}
        OperationType::Subscription if accepted.events => {}
        OperationType::Subscription if parts.method == Method::POST => {
            return Err(Refused::new(
                StatusCode::BAD_REQUEST,
                "Subscriptions need a WebSocket with the protocol graphql-transport-ws, or Accept: text/event-stream.",
            ));
        }
        _ => {
            return Err(Refused {
                allow: Some(HeaderValue::from_static("POST")),
                ..Refused::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "Only queries may be sent with GET, and subscriptions that accept text/event-stream.",
                )
            });
        }
    }

    let key = idempotency_key(&parts.headers)?;
    let cost = http.charge(viewer.as_ref(), &origin, &prepared).await?;
    let balance = cost.available;
    let span = trace::span(http, viewer.as_ref(), &prepared, Some(&parts.headers), id);
    if accepted.events_first || prepared.kind() == OperationType::Subscription {
        return Ok(sse::respond(
            http.clone(),
            viewer,
            origin,
            prepared,
            cost,
            key,
            id.clone(),
            span,
        ));
    }
    let session = http.backend.session(viewer, origin, key);
    let response = execute(http, &session, &prepared).instrument(span).await;
    let again = charge::retry_after(&response.errors);
    let answer = answer::executed(response, Some(cost), id, settings.errors);
    let mut response = send(answer, media, parts, settings.gzip_from, id);
    if let Some(balance) = &balance {
        charge::tell(response.headers_mut(), balance);
    }
    if let Some(seconds) = again {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

/// Executes a query or mutation, and ends what its session holds.
pub(super) async fn execute<B: Backend>(
    http: &Http<B>,
    session: &Arc<B::Session>,
    prepared: &Prepared,
) -> Executed {
    loop {
        let request = http.backend.attach(prepared.request(), session);
        let response = run(http, request).await;
        if let Some(response) = http.backend.conclude(session, response).await {
            return response;
        }
    }
}

/// Runs an operation: bounded in time, and a resolver that panics spoils its own answer alone.
async fn run<B: Backend>(http: &Http<B>, request: async_graphql::Request) -> Executed {
    let execution = AssertUnwindSafe(http.backend.execute(request)).catch_unwind();
    match tokio::time::timeout(http.settings.execution_time, execution).await {
        Ok(Ok(response)) => {
            tracing::debug!(errors = response.errors.len(), "an operation was answered");
            response
        }
        Ok(Err(_panic)) => {
            tracing::error!("a resolver panicked");
            Executed::from_errors(vec![answer::error(INTERNAL, "")])
        }
        Err(_elapsed) => Executed::from_errors(vec![answer::error(
            TIMEOUT,
            format!(
                "The operation was stopped after {} seconds.",
                http.settings.execution_time.as_secs_f32()
            ),
        )]),
    }
}

fn send(answer: Answer, media: Media, parts: &Parts, gzip_from: usize, id: &RequestId) -> Response {
    let status = match (media, answer.refused) {
        (_, None) | (Media::Json, _) => StatusCode::OK,
        (Media::GraphQl, Some(code)) => match code {
            TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
            INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
            RATE_LIMITED => StatusCode::TOO_MANY_REQUESTS,
            "UNAVAILABLE" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        },
    };
    if answer.body.len() >= gzip_from && takes_gzip(&parts.headers) {
        let body = gzip(&answer.body);
        let mut response = headers::answer(status, media.content_type(), body, id);
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
            .headers_mut()
            .insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        return response;
    }
    headers::answer(status, media.content_type(), answer.body, id)
}

fn gzip(body: &[u8]) -> Bytes {
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .expect("memory takes what is written")
        .into()
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    ranges(headers, &ACCEPT_ENCODING)
        .any(|(name, quality)| name.eq_ignore_ascii_case("gzip") && quality > 0.0)
}

impl Media {
    fn content_type(self) -> HeaderValue {
        match self {
            Media::Json => headers::JSON,
            Media::GraphQl => HeaderValue::from_static("application/graphql-response+json; charset=utf-8"),
        }
    }
}

/// What a client takes.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    /// The form of a single answer that it likes best; the first of those it likes equally.
    media: Media,
    /// Whether it takes a stream of events. Clients that list one last mean it for subscriptions alone.
    events: bool,
    /// Whether it likes nothing better than a stream of events.
    events_first: bool,
}

/// What the client takes; nothing when it takes nothing that we have.
fn negotiate(headers: &HeaderMap) -> Option<Accepted> {
    if !headers.contains_key(ACCEPT) {
        return Some(Accepted {
            media: Media::Json,
            events: false,
            events_first: false,
        });
    }
    let mut media: Option<(Media, f32)> = None;
    let mut events = 0.0;
    let mut events_first = false;
    for (name, quality) in ranges(headers, &ACCEPT) {
        let best = media.map_or(0.0, |(_, quality)| quality);
        let offered = match name.to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Media::Json,
            "application/graphql-response+json" => Media::GraphQl,
            sse::MEDIA => {
                events = quality;
                events_first = quality > best;
                continue;
            }
            _ => continue,
        };
        if quality > best {
            media = Some((offered, quality));
            events_first &= quality <= events;
        }
    }
    let takes_events = events > 0.0;
    (media.is_some() || takes_events).then_some(Accepted {
        media: media.map_or(Media::Json, |(media, _)| media),
        events: takes_events,
        events_first,
    })
}

/// The items of a list header with their `q`.
fn ranges<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = (&'a str, f32)> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|item| {
            let mut parameters = item.split(';');
            let name = parameters.next().unwrap_or_default().trim();
            let quality = parameters
                .filter_map(|parameter| parameter.trim().strip_prefix("q="))
                .find_map(|quality| quality.parse().ok());
            (name, quality.unwrap_or(1.0))
        })
}

fn not_json() -> Refused {
    Refused::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "The content type must be application/json in UTF-8.",
    )
}

/// Anything else is what a browser would send across origins without asking first.
fn json_only(content_type: &HeaderValue) -> Result<(), Refused> {
    let mut parameters = content_type.to_str().map_err(|_| not_json())?.split(';');
    let is_json = parameters
        .next()
        .is_some_and(|name| name.trim().eq_ignore_ascii_case("application/json"));
    let is_utf8 = parameters.all(|parameter| match parameter.trim().split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if is_json && is_utf8 {
        Ok(())
    } else {
        Err(not_json())
    }
}

async fn read<B: Backend>(http: &Http<B>, parts: &Parts, body: Body) -> Result<Bytes, Refused> {
    let limit = http.settings.body_bytes;
    let too_large = || {
        Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is larger than {limit} bytes."),
        )
    };
    let announced = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match tokio::time::timeout(http.settings.body_time, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "The body could not be read.",
        )),
        Err(_) => Err(Refused::new(
            StatusCode::REQUEST_TIMEOUT,
            "The body took too long to arrive.",
        )),
    }
}

/// Who asks; nobody when no token came.
async fn viewer<B: Backend>(
    http: &Http<B>,
    headers: &HeaderMap,
    origin: &Origin,
) -> Result<Option<B::Viewer>, Refused> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let wrong = || Error::Unauthenticated("Send the access token as \"Authorization: Bearer …\".");
    let token = header.to_str().ok().and_then(bearer).ok_or_else(wrong);
    let viewer = match token {
        Ok(token) => http.backend.authenticate(token, origin).await,
        Err(error) => Err(error),
    };
    viewer.map(Some).map_err(|error| Refused {
        status: match error {
            Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Error::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
        code: error.code(),
        message: error.message().into(),
        allow: None,
        limit: None,
    })
}

/// The token of `Bearer …`.
pub(super) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(key) = headers.get(&IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let visible = |key: &&str| key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    match key.to_str().ok().filter(visible) {
        Some(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Refused::new(
            StatusCode::BAD_REQUEST,
            format!("An Idempotency-Key has between 1 and {MAX_KEY} visible characters of ASCII."),
        )),
    }
}

fn wants_socket(headers: &HeaderMap) -> bool {
    headers
        .get(UPGRADE)
        .is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// What a client asks: the members of a GraphQL request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question<'a> {
    #[serde(borrow)]
    pub(super) query: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) operation_name: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) variables: Variables,
    /// Understood by nobody here, yet it must be an object.
    #[serde(default, rename = "extensions")]
    _extensions: Option<std::collections::HashMap<String, IgnoredAny>>,
}

impl<'a> Question<'a> {
    fn from_json(body: &'a [u8]) -> Result<Self, Refused> {
        let wrong = |message: String| Refused::new(StatusCode::BAD_REQUEST, message);
        match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => {}
            Some(b'[') => {
                return Err(wrong(
                    "Send one operation a request: batches are not taken.".to_owned(),
                ));
            }
            _ => return Err(wrong("The body must be a JSON object.".to_owned())),
        }
        serde_json::from_slice(body).map_err(|error| {
            wrong(match error.classify() {
                serde_json::error::Category::Data => MEMBERS.to_owned(),
                _ => format!(
                    "The body is not JSON: see line {}, column {}.",
                    error.line(),
                    error.column()
                ),
            })
        })
    }

    fn from_query(parts: &Parts) -> Result<Question<'static>, Refused> {
        let wrong = |message: &'static str| Refused::new(StatusCode::BAD_REQUEST, message);
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) else {
            return Err(wrong("The query string could not be read."));
        };
        let mut members: [Option<String>; 4] = Default::default();
        for (name, value) in pairs {
            let index = match name.as_str() {
                "query" => 0,
                "operationName" => 1,
                "variables" => 2,
                "extensions" => 3,
                _ => continue,
            };
            if members[index].replace(value).is_some() {
                return Err(wrong("A parameter of the query string is there more than once."));
            }
        }
        let [query, operation_name, variables, extensions] =
            members.map(|member| member.filter(|value| !value.is_empty()));
        let object = |text: Option<String>| match text {
            None => Ok(Variables::default()),
            Some(text) => serde_json::from_str(&text)
                .map_err(|_| wrong("The parameters variables and extensions must be JSON objects.")),
        };
        object(extensions)?;
        Ok(Question {
            query: query.ok_or_else(|| wrong(MEMBERS))?.into(),
            operation_name: operation_name.map(Cow::Owned),
            variables: object(variables)?,
            _extensions: None,
        })
    }
}

const MEMBERS: &str = "A request has a string \"query\", and may have a string \"operationName\" and objects \"variables\" and \"extensions\".";
