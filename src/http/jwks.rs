//! The public keys, for other services that verify access tokens by themselves.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use super::headers::{self, RequestId};
use super::{Backend, Http};

/// `GET /.well-known/jwks.json`: a JSON Web Key Set (RFC 7517).
pub async fn handle<B: Backend>(State(http): State<Arc<Http<B>>>, headers: HeaderMap) -> Response {
    let (keys, age) = http.backend.keys();
    let id = RequestId::of(&headers);
    let mut response = headers::answer(StatusCode::OK, headers::JSON, keys.to_string().into(), &id);
    // Keys are published long before they sign, so nobody misses one by keeping the set for a while.
    if let Ok(kept) = HeaderValue::try_from(format!("public, max-age={}", age.as_secs())) {
        response.headers_mut().insert(CACHE_CONTROL, kept);
    }
    response
}
