//! Asking other servers: over TLS, for a bounded time, for a bounded answer, and without being sent elsewhere.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use oauth2::url::{Host, Url};
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Semaphore;

/// How long an answer may take, with everything.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes of an answer at most. Sets of keys of large providers have some ten thousand.
const LONGEST: usize = 256 * 1024;

/// Requests on their way at the same time, to one party.
const AT_ONCE: usize = 16;

/// Why there is no answer that could be used. For the log: nobody else is told more than that there is none.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct Unanswered(pub String);

impl From<&str> for Unanswered {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

/// Reads an address that is safe to go to: over TLS, unless it is on this machine.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(super) fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not an address such as https://crm.example.com")?;
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => return Err("has no host"),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_local => {}
        _ => return Err("has to begin with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not have a user");
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment");
    }
    Ok(url)
}

/// Asks the servers of one party: one that hangs keeps nobody from asking another.
#[derive(Clone)]
pub(super) struct Outbound {
    client: reqwest::Client,
    places: Arc<Semaphore>,
}

impl Outbound {
    /// # Errors
    /// A sentence for the operator.
    pub fn new() -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .timeout(PATIENCE)
            .connect_timeout(CONNECT)
            .user_agent(concat!("dealstream/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("other servers cannot be asked: {error}."))?;
        Ok(Self {
            client,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Sends a request and reads the answer, whatever its status.
    ///
    /// # Errors
    /// When none comes in time, or it is too long.
    pub async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Unanswered> {
        let failed = |error: reqwest::Error| Unanswered(error.without_url().to_string());
        let place = tokio::time::timeout(PATIENCE, self.places.acquire()).await;
        let _place = place
            .map_err(|_| "too many are asked at the same time")?
            .map_err(|_| "the server stops")?;
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let mut response = self.client.execute(request).await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            if body.len() + part.len() > LONGEST {
                return Err("the answer is too long".into());
            }
            body.extend_from_slice(&part);
        }
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        Ok(answer)
    }

    /// Reads a document of JSON.
    ///
    /// # Errors
    /// When it is not there, or is another than is looked for.
    pub async fn get<T: DeserializeOwned>(&self, url: &Url, bearer: Option<&str>) -> Result<T, Unanswered> {
        let mut request = axum::http::Request::get(url.as_str()).header("accept", "application/json");
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let request = request
            .body(Vec::new())
            .map_err(|_| "the request cannot be made")?;
        let answer = self.send(request).await?;
        let host = url.host_str().unwrap_or_default();
        if answer.status() != StatusCode::OK {
            return Err(Unanswered(format!("{host} answers {}", answer.status())));
        }
        // What is wrong with it is not told: it may be about a person.
        serde_json::from_slice(answer.body())
            .map_err(|_| Unanswered(format!("the answer of {host} cannot be read")))
    }

    /// Reads what an issuer says about itself (OpenID Connect Discovery 1.0).
    ///
    /// # Errors
    /// When it is not there, or is that of another issuer.
    pub async fn discover<T: DeserializeOwned>(&self, issuer: &str) -> Result<T, Unanswered> {
        #[derive(Deserialize)]
        struct Said {
            issuer: String,
        }
        let unfit = |problem| Unanswered(format!("the issuer {problem}"));
        let said: Value = self.get(&discovery(issuer).map_err(unfit)?, None).await?;
        match Said::deserialize(&said) {
            Ok(it) if it.issuer == issuer => {
                T::deserialize(said).map_err(|_| "what it says about itself cannot be used".into())
            }
            _ => Err("what it says about itself is of another issuer".into()),
        }
    }
}

/// Where an issuer says what it is.
///
/// # Errors
/// What is wrong with the issuer, as the end of a sentence.
pub(super) fn discovery(issuer: &str) -> Result<Url, &'static str> {
    let base = issuer.trim_end_matches('/');
    address(&format!("{base}/.well-known/openid-configuration"))
}

impl<'c> AsyncHttpClient<'c> for Outbound {
    type Error = Unanswered;
    type Future = BoxFuture<'c, Result<HttpResponse, Unanswered>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_over_tls_or_on_this_machine() {
        for good in [
            "https://accounts.example.com",
            "https://id.example.com/realms/a?b=c",
            "http://127.0.0.1:4000",
            "http://localhost/x",
            "http://[::1]:1",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "accounts.example.com",
            "http://accounts.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "ftp://localhost",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https://ada@example.com",
            "https://:secret@example.com",
            "https://example.com/#x",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
