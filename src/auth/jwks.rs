//! The keys of another issuer: a JSON Web Key Set (RFC 7517), [published](super::published) by it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

use super::outbound::{Outbound, Unanswered, address};
use super::published::Published;
use crate::config::Renewal;

/// Keys of an issuer at most.
const MAX_KEYS: usize = 100;

/// Letters of a key's id at most.
const MAX_KID: usize = 256;

/// Bits of an RSA key at least.
const MIN_RSA_BITS: usize = 2048;

/// A key that verifies by one algorithm, whatever a token's header says.
pub(super) struct Key {
    kid: Option<String>,
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

/// The keys of another issuer, as far as they are known.
pub(super) struct RemoteKeys(Published<Vec<Arc<Key>>>);

impl RemoteKeys {
    /// The keys of an issuer: at this address, or else where it says that they are. Nothing is fetched yet.
    pub fn new(outbound: Outbound, issuer: &str, at: Option<Url>, pace: Renewal) -> Self {
        let what = format!("the keys of {issuer}");
        let issuer: Arc<str> = issuer.into();
        let fetch = move || fetch(outbound.clone(), issuer.clone(), at.clone());
        Self(Published::new(what, pace, fetch))
    }

    /// The key of this id, if the issuer publishes it; without an id, its only key.
    ///
    /// # Errors
    /// When the key is not known and could not be asked for.
    pub async fn find(&self, kid: Option<&str>) -> Result<Option<Arc<Key>>, Unanswered> {
        let keys = self.0.get_with(|keys| pick(keys, kid).is_some()).await?;
        Ok(pick(&keys, kid).cloned())
    }
}

async fn fetch(outbound: Outbound, issuer: Arc<str>, at: Option<Url>) -> Result<Vec<Arc<Key>>, Unanswered> {
    #[derive(Deserialize)]
    struct Said {
        jwks_uri: String,
    }
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<Value>,
    }
    let at = match at {
        Some(at) => at,
        None => {
            let said: Said = outbound.discover(&issuer).await?;
            address(&said.jwks_uri)
                .map_err(|problem| Unanswered(format!("the address of its keys {problem}")))?
        }
    };
    let published: KeySet = outbound.get(&at, None).await?;
    let keys = published.keys.into_iter().take(MAX_KEYS).filter_map(read);
    // There may be none left: then it takes back what it has published.
    Ok(keys.map(Arc::new).collect())
}

fn pick<'a>(keys: &'a [Arc<Key>], kid: Option<&str>) -> Option<&'a Arc<Key>> {
    match (kid, keys) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (kid, keys) => keys.iter().find(|key| key.kid.as_deref() == kid),
    }
}

/// A key as it is published.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
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

/// The algorithms of keys of RSA; the first is meant where a key names none.
const RSA: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
];

/// A published key, if it is one that verifies signatures by an algorithm that is taken here. Secrets that both sides know
/// sign nothing.
fn read(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let verifies = jwk.used_for.as_deref().is_none_or(|used| used == "sig")
        && (jwk.key_ops.as_ref()).is_none_or(|all| all.iter().any(|it| it == "verify"));
    let named = (jwk.kid.as_ref()).is_none_or(|kid| (1..=MAX_KID).contains(&kid.len()));
    if !verifies || !named {
        return None;
    }
    let (algorithms, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", None) => {
            let n = URL_SAFE_NO_PAD.decode(jwk.n?).ok()?;
            let e = URL_SAFE_NO_PAD.decode(jwk.e?).ok()?;
            let first = n.iter().position(|byte| *byte != 0)?;
            let bits = (n.len() - first) * 8 - n[first].leading_zeros() as usize;
            if bits < MIN_RSA_BITS {
                return None;
            }
            (RSA, DecodingKey::from_rsa_raw_components(&n[first..], &e))
        }
        ("EC", Some(curve)) => {
            let algorithms: &[_] = match curve {
                "P-256" => &[("ES256", Algorithm::ES256)],
                "P-384" => &[("ES384", Algorithm::ES384)],
                _ => return None,
            };
            (
                algorithms,
                DecodingKey::from_ec_components(&jwk.x?, &jwk.y?).ok()?,
            )
        }
        ("OKP", Some("Ed25519")) => {
            let algorithms: &[_] = &[("EdDSA", Algorithm::EdDSA)];
            (algorithms, DecodingKey::from_ed_components(&jwk.x?).ok()?)
        }
        _ => return None,
    };
    let is_meant = |name: &str| jwk.alg.as_deref().is_none_or(|alg| alg == name);
    let (_, algorithm) = algorithms.iter().find(|(name, _)| is_meant(name))?;
    Some(Key {
        kid: jwk.kid,
        algorithm: *algorithm,
        decoding,
    })
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
            (with(&rsa, "alg", json!("PS384")), Algorithm::PS384),
            (with(&ec, "crv", json!("P-384")), Algorithm::ES384),
            (with(&rsa, "kid", Value::Null), Algorithm::RS256),
            (with(&rsa, "use", json!("sig")), Algorithm::RS256),
            (with(&rsa, "key_ops", json!(["verify"])), Algorithm::RS256),
            (with(&rsa, "x5c", json!(["whatever"])), Algorithm::RS256),
        ] {
            assert_eq!(read(jwk.clone()).unwrap().algorithm, algorithm, "{jwk}");
        }
        for jwk in [
            with(&rsa, "use", json!("enc")),
            with(&rsa, "key_ops", json!(["encrypt"])),
            with(&rsa, "alg", json!("ES256")),
            with(&rsa, "alg", json!("RSA-OAEP")),
            with(&rsa, "alg", json!("HS256")),
            with(&rsa, "alg", json!("none")),
            with(&ec, "alg", json!("RS256")),
            with(&rsa, "n", json!(bits(255, 0xff))),
            with(&rsa, "n", json!(bits(256, 0x7f))),
            with(&rsa, "kid", json!("")),
            with(&rsa, "kid", json!("k".repeat(257))),
            with(&ec, "crv", json!("P-521")),
            with(&ec, "crv", json!("secp256k1")),
            with(&ed, "crv", json!("X25519")),
            json!({ "kty": "oct", "kid": "s", "k": point }),
            json!("a key"),
        ] {
            assert!(read(jwk.clone()).is_none(), "{jwk}");
        }
    }

    #[test]
    fn a_token_without_a_name_of_its_key_is_of_the_only_one() {
        let point = URL_SAFE_NO_PAD.encode([7; 32]);
        let ed = |kid: Value| {
            let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": point, "kid": kid });
            Arc::new(read(jwk).unwrap())
        };
        let kid = |found: Option<&Arc<Key>>| found.and_then(|key| key.kid.clone());
        let one = [ed(json!("a"))];
        let two = [ed(Value::Null), ed(json!("b"))];
        assert_eq!(kid(pick(&one, None)).as_deref(), Some("a"));
        assert!(pick(&two, None).is_none() && pick(&[], None).is_none());
        assert_eq!(kid(pick(&two, Some("b"))).as_deref(), Some("b"));
        assert!(pick(&two, Some("c")).is_none() && pick(&one, Some("")).is_none());
    }
}
