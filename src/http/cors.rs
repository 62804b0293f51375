//! Which pages of other origins may use the API: those of the settings, the same that may open sockets.
//!
//! An access token comes in a header that only a page's own code can set, never by itself as a cookie would, so credentials
//! are not allowed. A page of another origin has to ask first, because bodies other than `application/json` are refused.

use std::time::Duration;

use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember that it was allowed.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);

/// What lets these origins in; nothing when there are none.
pub fn layer(allowed: &[String]) -> Option<CorsLayer> {
    if allowed.is_empty() {
        return None;
    }
    let allowed = allowed.to_vec();
    let origin = AllowOrigin::predicate(move |origin, _| is_among(origin, &allowed));
    let name = HeaderName::from_static;
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            ACCEPT,
            AUTHORIZATION,
            CONTENT_TYPE,
            name("idempotency-key"),
            name("x-request-id"),
        ])
        .expose_headers([
            name("ratelimit"),
            name("ratelimit-policy"),
            RETRY_AFTER,
            name("x-request-id"),
        ])
        .max_age(REMEMBERED);
    Some(layer)
}

/// Whether an origin is one of these.
pub fn is_among(origin: &HeaderValue, allowed: &[String]) -> bool {
    allowed
        .iter()
        .any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
}
