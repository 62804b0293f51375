//! The keys of another issuer: a JSON Web Key Set (RFC 7517), fetched when it is first needed, kept, and fetched anew from
//! time to time.
//!
//! What clients send decides little of it: a key that is not known makes this server look at most once in half a minute,
//! whoever asks how often. While the issuer is away, what it has last published is good for a day.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::header::ACCEPT;
use reqwest::{Client, StatusCode, Url, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

use crate::error::{Error, Result};

/// After how long the keys are looked at anew.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// How long they are good when they cannot be looked at.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How often at most they are looked at, whatever is sent.
const AGAIN: Duration = Duration::from_secs(30);

/// The same as long as none are known.
const AGAIN_AT_FIRST: Duration = Duration::from_secs(2);

/// How long looking may take, all in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer at most, and keys in it.
const MAX_BODY: usize = 256 * 1024;
const MAX_KEYS: usize = 100;

/// Letters of a key's id at most.
const MAX_KID: usize = 256;

/// Bits of an RSA key at least.
const MIN_RSA_BITS: usize = 2048;

/// Where the keys are.
pub(super) enum Source {
    /// Here.
    At(Url),
    /// Where the OpenID configuration of the issuer says.
    Discovered { issuer: String, configuration: Url },
}

/// A key that verifies by one algorithm, whatever a token's header says.
pub(super) struct Key {
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

type Keys = HashMap<String, Arc<Key>>;

struct Kept {
    keys: Keys,
    at: Instant,
}

/// The keys of another issuer, as far as they are known.
pub(super) struct RemoteKeys {
    client: Client,
    source: Source,
    kept: RwLock<Option<Arc<Kept>>>,
    /// When this instance last looked, and whether it was answered. Held while it does.
    asked: Mutex<Option<(Instant, bool)>>,
}

/// A URL to fetch keys from: nobody on the way may change them.
///
/// # Errors
/// What is wrong with it.
pub(super) fn fetchable(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| format!("{text} is not a URL"))?;
    let host = url.host_str().unwrap_or_default();
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let here = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        _ => Err(format!("{text} is not an https URL")),
    }
}

impl RemoteKeys {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn new(source: Source) -> Result<Self, String> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(|error| format!("the trusted issuer's keys cannot be fetched: {error}"))?;
        Ok(Self {
            client,
            source,
            kept: RwLock::default(),
            asked: Mutex::default(),
        })
    }

    /// The key of this id, if the issuer publishes it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the key is not known and could not be asked for.
    pub async fn find(&self, kid: &str) -> Result<Option<Arc<Key>>> {
        let answered = match self.known(kid) {
            Some((key, age)) if age < FRESH => return Ok(Some(key)),
            Some((key, _)) => match self.asked.try_lock() {
                Ok(asked) => self.ask(asked).await,
                // Somebody is asking, and who has a key that was good a moment ago need not wait for it.
                Err(_) => return Ok(Some(key)),
            },
            None => {
                let asked = self.asked.lock().await;
                match self.known(kid) {
                    Some((key, _)) => return Ok(Some(key)),
                    None => self.ask(asked).await,
                }
            }
        };
        match self.known(kid) {
            None if !answered => Err(Error::Unavailable),
            known => Ok(known.map(|(key, _)| key)),
        }
    }

    fn kept(&self) -> Option<Arc<Kept>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.clone().filter(|kept| kept.at.elapsed() < KEPT)
    }

    fn known(&self, kid: &str) -> Option<(Arc<Key>, Duration)> {
        let kept = self.kept()?;
        let key = kept.keys.get(kid)?;
        Some((key.clone(), kept.at.elapsed()))
    }

    /// Looks, unless that was done lately. Answers whether the issuer answered.
    async fn ask(&self, mut asked: MutexGuard<'_, Option<(Instant, bool)>>) -> bool {
        let pause = match self.kept() {
            Some(_) => AGAIN,
            None => AGAIN_AT_FIRST,
        };
        if let Some((at, answered)) = *asked
            && at.elapsed() < pause
        {
            return answered;
        }
        // Whoever waits for this may go away: that it was begun counts.
        *asked = Some((Instant::now(), false));
        let fetched = timeout(PATIENCE, self.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let answered = match fetched {
            Ok(keys) => {
                let kept = Kept {
                    keys,
                    at: Instant::now(),
                };
                *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(kept));
                true
            }
            Err(problem) => {
                tracing::warn!(problem, "the keys of the trusted issuer cannot be fetched");
                false
            }
        };
        *asked = Some((Instant::now(), answered));
        answered
    }

    async fn fetch(&self) -> Result<Keys, String> {
        #[derive(Deserialize)]
        struct Configuration {
            issuer: String,
            jwks_uri: String,
        }
        #[derive(Deserialize)]
        struct Published {
            keys: Vec<Value>,
        }
        let at = match &self.source {
            Source::At(url) => url.clone(),
            Source::Discovered {
                issuer,
                configuration,
            } => {
                let found: Configuration = self.get(configuration).await?;
                if found.issuer != *issuer {
                    return Err("the OpenID configuration is that of another issuer".to_owned());
                }
                fetchable(&found.jwks_uri)?
            }
        };
        let published: Published = self.get(&at).await?;
        let mut keys = Keys::new();
        for value in published.keys.into_iter().take(MAX_KEYS) {
            if let Some((kid, key)) = read(value) {
                keys.entry(kid).or_insert_with(|| Arc::new(key));
            }
        }
        match keys.is_empty() {
            true => Err("there is no key among them that verifies signatures".to_owned()),
            false => Ok(keys),
        }
    }

    async fn get<T: DeserializeOwned>(&self, url: &Url) -> Result<T, String> {
        let problem = |error: reqwest::Error| error.without_url().to_string();
        let request = self.client.get(url.clone()).header(ACCEPT, "application/json");
        let mut response = request.send().await.map_err(problem)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the answer has the status {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(problem)? {
            if body.len() + part.len() > MAX_BODY {
                return Err("the answer is too long".to_owned());
            }
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body).map_err(|error| format!("the answer cannot be read: {error}"))
    }
}

/// A key as it is published.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    used_for: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// A published key with its id, if it is one that verifies signatures by an algorithm that is taken here.
fn read(value: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let verifies = jwk.used_for.as_deref().is_none_or(|used| used == "sig")
        && (jwk.key_ops.as_ref()).is_none_or(|all| all.iter().any(|it| it == "verify"));
    if !verifies || jwk.kid.is_empty() || jwk.kid.len() > MAX_KID {
        return None;
    }
    let (name, algorithm, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", None) => {
            let n = URL_SAFE_NO_PAD.decode(jwk.n?).ok()?;
            let e = URL_SAFE_NO_PAD.decode(jwk.e?).ok()?;
            let first = n.iter().position(|byte| *byte != 0)?;
            let bits = (n.len() - first) * 8 - n[first].leading_zeros() as usize;
            if bits < MIN_RSA_BITS {
                return None;
            }
            let decoding = DecodingKey::from_rsa_raw_components(&n[first..], &e);
            ("RS256", Algorithm::RS256, decoding)
        }
        ("EC", Some("P-256")) => {
            let decoding = DecodingKey::from_ec_components(&jwk.x?, &jwk.y?).ok()?;
            ("ES256", Algorithm::ES256, decoding)
        }
        ("OKP", Some("Ed25519")) => {
            let decoding = DecodingKey::from_ed_components(&jwk.x?).ok()?;
            ("EdDSA", Algorithm::EdDSA, decoding)
        }
        _ => return None,
    };
    if jwk.alg.is_some_and(|alg| alg != name) {
        return None;
    }
    Some((jwk.kid, Key { algorithm, decoding }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_signing_keys_of_the_algorithms_that_are_taken_are_read() {
        let bits = |bytes: usize, first: u8| {
            let mut n = vec![0xff; bytes];
            n[0] = first;
            URL_SAFE_NO_PAD.encode(n)
        };
        let rsa = json!({ "kty": "RSA", "kid": "r", "n": bits(256, 0x80), "e": "AQAB" });
        let point = URL_SAFE_NO_PAD.encode([7; 32]);
        let ec = json!({ "kty": "EC", "crv": "P-256", "kid": "e", "x": point, "y": point });
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "o", "x": point });
        let with = |of: &Value, name: &str, value: Value| {
            let mut jwk = of.clone();
            jwk[name] = value;
            jwk
        };
        for (jwk, algorithm) in [
            (rsa.clone(), Algorithm::RS256),
            (ec.clone(), Algorithm::ES256),
            (ed.clone(), Algorithm::EdDSA),
            (with(&rsa, "alg", json!("RS256")), Algorithm::RS256),
            (with(&rsa, "use", json!("sig")), Algorithm::RS256),
            (with(&rsa, "key_ops", json!(["verify"])), Algorithm::RS256),
            (with(&rsa, "x5c", json!(["whatever"])), Algorithm::RS256),
        ] {
            assert_eq!(read(jwk.clone()).unwrap().1.algorithm, algorithm, "{jwk}");
        }
        for jwk in [
            with(&rsa, "use", json!("enc")),
            with(&rsa, "key_ops", json!(["encrypt"])),
            with(&rsa, "alg", json!("RS512")),
            with(&rsa, "alg", json!("HS256")),
            with(&rsa, "alg", json!("none")),
            with(&ec, "alg", json!("RS256")),
            with(&rsa, "n", json!(bits(255, 0xff))),
            with(&rsa, "n", json!(bits(256, 0x7f))),
            with(&rsa, "kid", json!("")),
            with(&rsa, "kid", Value::Null),
            with(&ec, "crv", json!("P-384")),
            with(&ed, "crv", json!("X25519")),
            json!({ "kty": "oct", "kid": "s", "k": point }),
            json!("a key"),
        ] {
            assert!(read(jwk.clone()).is_none(), "{jwk}");
        }
    }

    #[test]
    fn keys_come_over_a_line_that_nobody_else_writes_on() {
        for good in [
            "https://id.example.com/keys",
            "http://localhost:3000/keys",
            "http://127.0.0.1:3000/",
            "http://[::1]/",
        ] {
            assert!(fetchable(good).is_ok(), "{good}");
        }
        for bad in [
            "http://id.example.com/keys",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "ftp://id.example.com/",
            "file:///etc/passwd",
            "id.example.com",
            "",
        ] {
            assert!(fetchable(bad).is_err(), "{bad}");
        }
    }
}
