//! Where browsers go to sign in by way of another provider, and come back. See [`crate::auth::provider`].

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{COOKIE, LOCATION, RETRY_AFTER, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::headers::{self, RequestId};
use super::origin::origin;
use super::{Backend, Http, charge};
use crate::auth::Policy;
use crate::auth::provider::{Answer, Return};
use crate::error::{Error, Result};

/// What a page asks for.
#[derive(Deserialize)]
pub struct Ask {
    return_to: String,
    challenge: String,
}

/// What a provider sends back. It may send more.
#[derive(Deserialize)]
pub struct Back {
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// `GET /sign-in/{provider}`: sends a browser to a provider.
pub async fn send<B: Backend>(
    State(http): State<Arc<Http<B>>>,
    Path(provider): Path<String>,
    ask: Result<Query<Ask>, QueryRejection>,
    parts: Parts,
) -> Response {
    let Some(door) = http.backend.door() else {
        return headers::not_found(parts.headers).await;
    };
    let answered = async {
        let Query(ask) =
            ask.map_err(|_| Error::BadInput("return_to and challenge are needed.".to_owned()))?;
        door.send(&provider, &ask.return_to, &ask.challenge).await
    };
    respond(&http, &parts, answered).await
}

/// `GET /sign-in/{provider}/callback`: takes a browser in that comes from a provider.
pub async fn receive<B: Backend>(
    State(http): State<Arc<Http<B>>>,
    Path(provider): Path<String>,
    back: Result<Query<Back>, QueryRejection>,
    parts: Parts,
) -> Response {
    let Some(door) = http.backend.door() else {
        return headers::not_found(parts.headers).await;
    };
    let id = RequestId::of(&parts.headers);
    let origin = origin(&parts, &http.settings.trusted_proxies, &id);
    let cookies = parts.headers.get_all(COOKIE).iter();
    let cookies = cookies.filter_map(|line| line.to_str().ok().map(str::to_owned));
    let cookies = cookies.collect();
    let answered = async {
        let Query(back) = back.map_err(|_| Error::BadInput("There is no state.".to_owned()))?;
        let back = Return {
            state: back.state,
            code: back.code,
            error: back.error,
            issuer: back.iss,
            cookies,
            origin,
        };
        door.receive(&provider, back).await
    };
    respond(&http, &parts, answered).await
}

async fn respond<B: Backend>(
    http: &Arc<Http<B>>,
    parts: &Parts,
    answered: impl Future<Output = Result<Answer>>,
) -> Response {
    let id = RequestId::of(&parts.headers);
    let from = origin(parts, &http.settings.trusted_proxies, &id);
    if let Err(refused) = http.admit(&from) {
        let mut response = refuse(&Error::RateLimited(refused.retry_after()), &id);
        charge::tell_refused(response.headers_mut(), &refused);
        return response;
    }
    let limiter = http.backend.limiter();
    let answered = async {
        limiter.take_from(Policy::ProviderSignIn, &from, 1).await?;
        let answer = answered.await?;
        let location = HeaderValue::try_from(answer.location).map_err(Error::internal)?;
        let cookie = HeaderValue::try_from(answer.cookie).map_err(Error::internal)?;
        Ok((location, cookie))
    };
    match answered.await {
        Ok((location, cookie)) => {
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            let mut response = headers::answer(StatusCode::SEE_OTHER, text, Bytes::new(), &id);
            response.headers_mut().insert(LOCATION, location);
            response.headers_mut().insert(SET_COOKIE, cookie);
            response
        }
        Err(error) => refuse(&error, &id),
    }
}

fn refuse(error: &Error, id: &RequestId) -> Response {
    let status = match error {
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
        Error::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Error::Internal(cause) => {
            tracing::error!(request_id = id.as_str(), ?cause, "nobody could be signed in");
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::BAD_REQUEST,
    };
    let message = match error {
        // Whose fault it is makes no difference to them.
        Error::Unavailable => "The provider does not answer at the moment. Try again shortly.".to_owned(),
        error => error.message(),
    };
    let told = json!({ "errors": [{ "message": message, "extensions": { "code": error.code() } }] });
    let mut response = headers::answer(status, headers::JSON, told.to_string().into(), id);
    if let Error::RateLimited(seconds) = error {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    response
}
