//! What every answer carries, and the forms of plain answers.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `application/json` as it is answered.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The id of a request: the client's when it sent a sane one, otherwise one of ours. It is in the answer's
/// `X-Request-Id`, in the log and in the errors that are worth a question.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id of the request with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(&REQUEST_ID) {
            Some(id) if sane(id.as_bytes()) => Self(id.clone()),
            _ => Self::new(),
        }
    }

    /// A new id: unique among instances by a random part, in this one by a number.
    pub fn new() -> Self {
        static INSTANCE: LazyLock<u64> = LazyLock::new(rand::random);
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{number:x}", *INSTANCE);
        Self(HeaderValue::try_from(id).expect("hexadecimal digits are a header value"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

fn sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// An answer with the headers that all have.
pub fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes, id: &RequestId) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(&REQUEST_ID, id.0.clone());
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        _ => {}
    }
    response
}

/// What keeps browsers from doing more with an answer than it is meant for. A page that needs more has said so already.
pub fn secure(headers: &mut HeaderMap, over_tls: bool) {
    for (name, value) in &SECURE {
        if !headers.contains_key(name) {
            headers.insert(name, value.clone());
        }
    }
    if over_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HSTS);
    }
}

/// Nothing that is answered here is a page, unless it says so itself.
static SECURE: [(HeaderName, HeaderValue); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// A year, as browsers want it.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// For paths that are not there.
pub async fn not_found(headers: HeaderMap) -> Response {
    let body = br#"{"errors":[{"message":"There is nothing here. The API is at /graphql.","extensions":{"code":"NOT_FOUND"}}]}"#;
    answer(
        StatusCode::NOT_FOUND,
        JSON,
        Bytes::from_static(body),
        &RequestId::of(&headers),
    )
}
