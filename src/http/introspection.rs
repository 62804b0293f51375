//! What another service asks about a token that somebody has sent to it: OAuth 2.0 Token Introspection (RFC 7662).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Form, FromRequest, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::Limited;
use serde::Deserialize;
use serde_json::{Value, json};

use super::headers::{self, RequestId};
use super::origin::origin;
use super::{Backend, Http, charge, graphql};
use crate::auth::{Means, Permission, Viewer};
use crate::db::id::write_id;
use crate::error::{Error, Result};

/// Bytes of a request at most: more than any token has.
const MAX_BODY: usize = 16 * 1024;

#[derive(Deserialize)]
struct Ask {
    token: String,
}

/// `POST /oauth/introspect`, with `token=…` as a form. Whoever asks authenticates with an API key or an access token that
/// has the permission `TOKENS_READ`. Of a token of another tenant they learn what they learn of no token at all.
pub async fn handle<B: Backend>(State(http): State<Arc<Http<B>>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let id = RequestId::of(&parts.headers);
    let from = origin(&parts, &http.settings.trusted_proxies, &id);
    if let Err(refused) = http.admit(&from) {
        let mut response = refuse(&Error::RateLimited(refused.retry_after()), &id);
        charge::tell_refused(response.headers_mut(), &refused);
        return response;
    }
    let bearer = parts.headers.get(AUTHORIZATION);
    let bearer = bearer.and_then(|header| header.to_str().ok().and_then(graphql::bearer));
    let bearer = bearer.map(str::to_owned);
    let request = Request::from_parts(parts, Body::new(Limited::new(body, MAX_BODY)));
    let form = tokio::time::timeout(http.settings.body_time, Form::<Ask>::from_request(request, &()));
    let asked = async {
        let bearer = bearer.ok_or(Error::Unauthenticated(
            "Send an API key or an access token as \"Authorization: Bearer …\".",
        ))?;
        let asker = http.backend.authenticate(&bearer, &from).await?;
        let form = form.await.ok().and_then(Result::ok);
        let Form(Ask { token }) =
            form.ok_or_else(|| Error::BadInput("Send token=… as application/x-www-form-urlencoded.".into()))?;
        http.backend.introspect(&asker, &token, &from).await
    };
    match asked.await {
        Ok(told) => headers::answer(StatusCode::OK, headers::JSON, told.to_string().into(), &id),
        Err(error) => refuse(&error, &id),
    }
}

fn refuse(error: &Error, id: &RequestId) -> Response {
    let (status, code) = match error {
        Error::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "invalid_token"),
        Error::Forbidden(_) => (StatusCode::FORBIDDEN, "insufficient_scope"),
        Error::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        Error::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        Error::Internal(cause) => {
            tracing::error!(
                request_id = id.as_str(),
                ?cause,
                "a token could not be introspected"
            );
            (StatusCode::INTERNAL_SERVER_ERROR, "server_error")
        }
        _ => (StatusCode::BAD_REQUEST, "invalid_request"),
    };
    let body = json!({ "error": code, "error_description": error.message() });
    headers::answer(status, headers::JSON, body.to_string().into(), id)
}

/// What is told of a token to somebody who may ask.
///
/// # Errors
/// [`Error::Forbidden`] when they may not; [`Error::Unavailable`] when it could not be found out.
pub(super) async fn tell(asker: &Viewer, found: impl Future<Output = Result<Viewer>>) -> Result<Value> {
    asker.require(Permission::TokensRead)?;
    let viewer = match found.await {
        Ok(viewer) if viewer.tenant_id == asker.tenant_id => viewer,
        Ok(_) | Err(Error::Unauthenticated(_)) => return Ok(json!({ "active": false })),
        Err(error) => return Err(error),
    };
    let mut told = json!({
        "active": true,
        "token_type": "Bearer",
        "scope": viewer.rights.permissions().to_scope(),
        "sub": viewer.user_id,
        "exp": viewer.expires_at.timestamp(),
        // As the API writes them, to ask it for more.
        "user_id": write_id("user", viewer.user_id),
        "tenant_id": write_id("tenant", viewer.tenant_id),
    });
    match viewer.means {
        Means::Session => {
            told["sid"] = json!(viewer.session_id);
            told["role"] = json!(viewer.rights.role);
        }
        // The session is with another issuer.
        Means::External => told["role"] = json!(viewer.rights.role),
        // A program has some of its user's permissions, and not their role.
        Means::ApiKey => told["client_id"] = json!(write_id("api_key", viewer.session_id)),
    }
    Ok(told)
}
