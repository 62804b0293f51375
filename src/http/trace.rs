//! What the log tells of an operation: its name, who asks, and the ids by which it is found again.

use axum::http::HeaderMap;
use tracing::Span;
use uuid::Uuid;

use super::headers::RequestId;
use super::{Backend, Http};
use crate::graphql::limits::Prepared;

/// Letters of an operation's name that are logged.
const NAME: usize = 100;

/// The span that everything about an operation is logged in.
pub(super) fn span<B: Backend>(
    http: &Http<B>,
    viewer: Option<&B::Viewer>,
    prepared: &Prepared,
    headers: Option<&HeaderMap>,
    id: &RequestId,
) -> Span {
    let (tenant, user) = viewer.map(|viewer| http.backend.identity(viewer)).unzip();
    let [tenant_text, user_text] = &mut [Uuid::encode_buffer(); 2];
    tracing::info_span!(
        "operation",
        request_id = id.as_str(),
        trace_id = headers.and_then(trace_id),
        operation = prepared.operation_name().map(short),
        tenant = tenant.map(|id| &*id.hyphenated().encode_lower(tenant_text)),
        user = user.map(|id| &*id.hyphenated().encode_lower(user_text)),
    )
}

/// A name has letters, digits and underscores, or the document would not have been taken.
fn short(name: &str) -> &str {
    name.get(..NAME).unwrap_or(name)
}

/// The id of the trace that a request belongs to (W3C Trace Context): 32 digits of the header `traceparent`.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = parent.split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let known = id.len() == 32 && id.bytes().all(digits) && id.bytes().any(|byte| byte != b'0');
    known.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_known_by_its_digits_and_nothing_else() {
        let id = |parent: &'static str| {
            let headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("traceparent"),
                axum::http::HeaderValue::from_static(parent),
            )]);
            trace_id(&headers).map(str::to_owned)
        };
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(id(good).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(
            id("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            None
        );
        assert_eq!(
            id("00-4bf92f3577b34da6a3ce929d0e0e473\"-00f067aa0ba902b7-01"),
            None
        );
        assert_eq!(id("nonsense"), None);
    }
}
