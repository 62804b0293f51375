//! Results and errors as the bytes that clients get.
//!
//! No text that a program made for itself goes out: an error is either one of ours, known by its code, or it is told
//! as `INTERNAL` with the request's id, and logged.

use std::io::Write;

use async_graphql::{ErrorExtensionValues, Response, ServerError, Value};
use bytes::Bytes;

use super::headers::RequestId;
use crate::auth::throttle::Balance;
use crate::graphql::eager;
use crate::graphql::limits::{self, Documents, Prepared, Refusal};

/// The request as HTTP is not one that this server takes.
pub const BAD_REQUEST: &str = "BAD_REQUEST";
/// The operation ran longer than it may.
pub const TIMEOUT: &str = "TIMEOUT";
/// A fault of the server.
pub const INTERNAL: &str = "INTERNAL";
/// The client asks more than it may; `retryAfter` tells when it may again.
pub const RATE_LIMITED: &str = "RATE_LIMITED";
/// The database cannot be reached at the moment.
pub const UNAVAILABLE: &str = "UNAVAILABLE";
/// No valid access token came with the request.
pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";

/// Codes whose messages are written for clients.
const KNOWN: [&str; 16] = [
    limits::PARSE_FAILED,
    limits::VALIDATION_FAILED,
    limits::BAD_USER_INPUT,
    limits::OPERATION_RESOLUTION_FAILURE,
    limits::TOO_COMPLEX,
    limits::INTROSPECTION_DISABLED,
    BAD_REQUEST,
    TIMEOUT,
    INTERNAL,
    UNAUTHENTICATED,
    "FORBIDDEN",
    "NOT_FOUND",
    "CONFLICT",
    RATE_LIMITED,
    UNAVAILABLE,
    "PERSISTED_QUERY_NOT_FOUND",
];

/// An answer ready to be sent.
pub struct Answer {
    /// The JSON of the GraphQL response.
    pub body: Bytes,
    /// The code of a request error: nothing was executed, there is no `data`.
    pub refused: Option<&'static str>,
}

/// What a request cost and might have cost at most.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// The estimate for this request.
    pub requested: u64,
    /// The most that is accepted.
    pub maximum: u64,
    /// What the client can spend, when that is bounded.
    pub available: Option<Balance>,
}

impl Cost {
    /// The cost of a request that the guard has passed.
    pub fn of(prepared: &Prepared, documents: &Documents) -> Self {
        Self {
            requested: prepared.cost(),
            maximum: documents.limits().cost,
            available: None,
        }
    }

    fn write(self, body: &mut Vec<u8>) {
        let Self {
            requested, maximum, ..
        } = self;
        // Writing to memory does not fail.
        let _ = write!(
            body,
            "{{\"requestedQueryCost\":{requested},\"maximumQueryCost\":{maximum}"
        );
        if let Some(Balance { limit, left, .. }) = self.available {
            let (most, restored) = (limit.count, limit.a_second());
            let _ = write!(
                body,
                ",\"throttleStatus\":{{\"maximumAvailable\":{most},\"currentlyAvailable\":{left},\"restoreRate\":{restored}}}"
            );
        }
        body.push(b'}');
    }
}

/// An error of ours.
pub fn error(code: &'static str, message: impl Into<String>) -> ServerError {
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", code);
    let mut error = ServerError::new(message, None);
    error.extensions = Some(extensions);
    error
}

/// The JSON of an executed response.
pub fn executed(mut response: Response, cost: Option<Cost>, id: &RequestId, most: usize) -> Answer {
    let refused =
        is_request_error(&response).then(|| response.errors.first().and_then(code).unwrap_or(INTERNAL));
    edge(&mut response.errors, id, most);

    let mut body = Vec::with_capacity(1024);
    body.push(b'{');
    if !response.errors.is_empty() {
        body.extend_from_slice(b"\"errors\":");
        write(&mut body, &response.errors);
    }
    if refused.is_none() {
        comma(&mut body);
        body.extend_from_slice(b"\"data\":");
        eager::write(&response.data, &mut body);
    }
    if let Some(cost) = cost {
        comma(&mut body);
        body.extend_from_slice(b"\"extensions\":{\"cost\":");
        cost.write(&mut body);
        body.push(b'}');
    }
    body.push(b'}');
    Answer {
        body: body.into(),
        refused,
    }
}

/// Whether a response tells that nothing was executed: then it has no `data`.
pub fn is_request_error(response: &Response) -> bool {
    response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}

/// The JSON of a request that was not executed.
pub fn refused(refusal: Refusal, id: &RequestId, most: usize) -> Answer {
    let mut response = Response::from_errors(refusal.errors);
    if response.errors.is_empty() {
        response.errors.push(error(INTERNAL, ""));
    }
    executed(response, None, id, most)
}

/// Only the errors, as a socket tells them.
pub fn errors(mut errors: Vec<ServerError>, id: &RequestId, most: usize) -> Bytes {
    edge(&mut errors, id, most);
    let mut body = Vec::with_capacity(256);
    write(&mut body, &errors);
    body.into()
}

fn comma(body: &mut Vec<u8>) {
    if body.len() > 1 {
        body.push(b',');
    }
}

fn write(body: &mut Vec<u8>, errors: &[ServerError]) {
    let start = body.len();
    if let Err(error) = serde_json::to_writer(&mut *body, errors) {
        // Only what JSON has no form for leads here: a mistake in what an error was extended by.
        tracing::error!(%error, "errors could not be written");
        body.truncate(start);
        body.extend_from_slice(b"[]");
    }
}

fn code(error: &ServerError) -> Option<&'static str> {
    match error.extensions.as_ref()?.get("code")? {
        Value::String(code) => KNOWN.iter().find(|known| *known == code).copied(),
        _ => None,
    }
}

/// Makes errors fit for clients.
fn edge(errors: &mut Vec<ServerError>, id: &RequestId, most: usize) {
    errors.truncate(most);
    for error in errors {
        match code(error) {
            Some(INTERNAL) => internal(error, id),
            Some(_) => {}
            None => match input_type(&error.message) {
                Some(name) => {
                    error.message = format!("A value that was given for the type {name} is not one.");
                    set(error, "code", limits::BAD_USER_INPUT);
                }
                None => {
                    tracing::error!(
                        request_id = id.as_str(),
                        error = error.message,
                        path = ?error.path,
                        "an error without a code was answered as internal"
                    );
                    internal(error, id);
                }
            },
        }
    }
}

fn internal(error: &mut ServerError, id: &RequestId) {
    error.message = "Something went wrong on our side.".to_owned();
    error.source = None;
    error.extensions = None;
    set(error, "code", INTERNAL);
    set(error, "requestId", id.as_str());
}

fn set(error: &mut ServerError, name: &str, value: &str) {
    error.extensions.get_or_insert_default().set(name, value);
}

/// The type that an input could not be read as: the executor tells that in words alone, with the parser's own
/// message, which may be a library's.
fn input_type(message: &str) -> Option<&str> {
    let rest = ["Failed to parse \"", "Expected input type \""]
        .iter()
        .find_map(|start| message.strip_prefix(start))?;
    let (name, _) = rest.split_once('"')?;
    Some(name)
}
