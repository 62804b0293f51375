//! The keys that sign access tokens: made here, kept in the database for all instances, and replaced in time.
//!
//! A new key is published before it signs, so that whoever verifies tokens has it by then; an older one verifies until no
//! token of its signing can live. What is read from the database is trusted only as far as the vault opens it: the public
//! part is made from the private, so nobody adds a key by writing into the table.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::revocation;
use crate::config::SigningAlgorithm;
use crate::crypto::{self, Vault};
use crate::db::Database;
use crate::db::sealed::SIGNING_KEY;
use crate::db::signing_keys::{self, NewKey, Others, SigningKey};
use crate::error::{Error, Result};

/// How long a key is published before it signs: longer than [`JWKS_AGE`] and [`LOOK`] together by far.
pub const AHEAD: Duration = Duration::from_secs(60 * 60);

/// For how long others may keep the published keys.
pub const JWKS_AGE: Duration = Duration::from_secs(300);

/// How long a key verifies after another has taken its place: no token that can be configured lives longer.
const VERIFIES_ON: Duration = revocation::KEPT;

/// How often an instance looks for the keys of others, and whether one has become due.
const LOOK: Duration = Duration::from_secs(60);

/// How often at most an instance looks because a token names a key that it does not know.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Letters of a key's id: SHA-256 in base64url.
const KID: usize = 43;

impl SigningAlgorithm {
    /// As the header of a token names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Rs256, Self::EdDsa]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    fn jwt(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }

    /// Makes a new private key, as PKCS #8.
    fn generate(self) -> Result<Zeroizing<Vec<u8>>> {
        let made = match self {
            Self::Rs256 => {
                RsaKeyPair::generate(KeySize::Rsa2048).and_then(|pair| Ok(pair.as_der()?.as_ref().to_vec()))
            }
            Self::EdDsa => Ed25519KeyPair::generate().and_then(|pair| Ok(pair.to_pkcs8()?.as_ref().to_vec())),
        };
        made.map(Zeroizing::new)
            .map_err(|_| Error::internal("a signing key could not be made"))
    }
}

/// A key that signs and verifies with one algorithm, whatever a token's header says.
#[derive(Clone)]
pub struct Key {
    pub kid: String,
    pub algorithm: SigningAlgorithm,
    pub created_at: DateTime<Utc>,
    pub signs_from: DateTime<Utc>,
    /// When it no longer verifies; without it, no other has taken its place.
    pub until: Option<DateTime<Utc>>,
    encoding: EncodingKey,
    decoding: DecodingKey,
    public: Value,
}

impl Key {
    /// The key of a private part.
    fn new(algorithm: SigningAlgorithm, private: &[u8]) -> Result<Self> {
        let unfit = || Error::internal("what is kept as a signing key is none");
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (encoding, decoding, mut public) = match algorithm {
            SigningAlgorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(private).map_err(|_| unfit())?;
                let of = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                // It takes PKCS #8 in this dress only.
                let pem = Zeroizing::new(format!(
                    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                    Zeroizing::new(STANDARD.encode(private)).as_str()
                ));
                (
                    EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| unfit())?,
                    DecodingKey::from_rsa_raw_components(&of.n, &of.e),
                    BTreeMap::from([
                        ("kty", "RSA".to_owned()),
                        ("n", base64(&of.n)),
                        ("e", base64(&of.e)),
                    ]),
                )
            }
            SigningAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(private).map_err(|_| unfit())?;
                let x = pair.public_key().as_ref();
                (
                    EncodingKey::from_ed_der(private),
                    DecodingKey::from_ed_der(x),
                    BTreeMap::from([
                        ("kty", "OKP".to_owned()),
                        ("crv", "Ed25519".to_owned()),
                        ("x", base64(x)),
                    ]),
                )
            }
        };
        let kid = thumbprint(&public);
        public.extend([
            ("kid", kid.clone()),
            ("alg", algorithm.name().to_owned()),
            ("use", "sig".to_owned()),
        ]);
        Ok(Self {
            kid,
            algorithm,
            created_at: DateTime::UNIX_EPOCH,
            signs_from: DateTime::UNIX_EPOCH,
            until: None,
            encoding,
            decoding,
            public: json!(public),
        })
    }

    /// The key that is kept in a row.
    fn open(vault: &Vault, row: &SigningKey) -> Result<Self> {
        let algorithm = SigningAlgorithm::of_name(&row.algorithm)
            .ok_or_else(|| Error::internal(format!("the algorithm {:?} is not known", row.algorithm)))?;
        let private = vault.open(&context(algorithm, &row.kid), &row.sealed)?;
        let key = Self::new(algorithm, &private)?;
        if key.kid != row.kid {
            return Err(Error::internal("a signing key has another's name"));
        }
        Ok(Self {
            created_at: row.created_at,
            signs_from: row.signs_from,
            ..key
        })
    }

    /// How this key signs.
    pub fn signs_with(&self) -> (Algorithm, &EncodingKey) {
        (self.algorithm.jwt(), &self.encoding)
    }

    /// How its signatures are verified.
    pub fn verifies_with(&self) -> (Algorithm, &DecodingKey) {
        (self.algorithm.jwt(), &self.decoding)
    }

    fn verifies_at(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// What a sealed key is bound to.
fn context(algorithm: SigningAlgorithm, kid: &str) -> String {
    SIGNING_KEY.of(format_args!("{}/{kid}", algorithm.name()))
}

/// The thumbprint of a public key by RFC 7638: of its required members alone, in alphabetical order.
fn thumbprint(public: &BTreeMap<&str, String>) -> String {
    let canonical = serde_json::to_string(public).expect("texts can be written as JSON");
    URL_SAFE_NO_PAD.encode(crypto::token_hash(&canonical))
}

/// All keys that sign, have signed or will sign, in this order.
#[derive(Default)]
pub struct Ring {
    keys: Vec<Arc<Key>>,
}

impl Ring {
    /// Opens what is kept. What this server's vault cannot open is left out, but for a key that was opened `before` and has
    /// since been sealed under a master key that is not in this server's ring: others have the new one already, and nobody
    /// is to be signed out while it comes to all instances.
    fn open(vault: &Vault, rows: &[SigningKey], before: &Self) -> Self {
        let opened = rows.iter().filter_map(|row| match Key::open(vault, row) {
            Ok(key) => Some(key),
            Err(_) if !vault.knows_key_of(&row.sealed) => {
                let known = before.keys.iter().find(|key| key.kid == row.kid);
                tracing::warn!(
                    kid = row.kid,
                    kept = known.is_some(),
                    "a signing key is sealed under a master key that is not in DEALSTREAM_MASTER_KEYS here"
                );
                known.map(|known| Key {
                    created_at: row.created_at,
                    signs_from: row.signs_from,
                    until: None,
                    ..Key::clone(known)
                })
            }
            Err(error) => {
                tracing::warn!(
                    kid = row.kid,
                    ?error,
                    "a signing key cannot be opened; it is left out"
                );
                None
            }
        });
        let mut keys: Vec<Key> = opened.collect();
        keys.sort_by_key(|key| key.signs_from);
        let next: Vec<_> = keys.iter().skip(1).map(|key| key.signs_from).collect();
        for (key, replaced_at) in keys.iter_mut().zip(next) {
            key.until = Some(replaced_at + VERIFIES_ON);
        }
        Self {
            keys: keys.into_iter().map(Arc::new).collect(),
        }
    }

    /// The keys, oldest first.
    pub fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    /// The key that signs: the last whose time has come, and the very first from its beginning, by whatever clock.
    pub fn signer(&self, now: DateTime<Utc>) -> Option<&Arc<Key>> {
        let due = self.keys.iter().rfind(|key| key.signs_from <= now);
        due.or(self.keys.first())
    }

    fn find(&self, kid: &str, now: DateTime<Utc>) -> Option<&Arc<Key>> {
        let named = self.keys.iter().find(|key| key.kid == kid);
        named.filter(|key| key.verifies_at(now))
    }

    /// Whether it is time for another key: when there is none, and when the last was made so long ago.
    fn is_due(&self, age: TimeDelta, now: DateTime<Utc>) -> bool {
        self.keys.last().is_none_or(|last| last.created_at + age <= now)
    }
}

/// The keys of all instances, as this one knows them.
pub struct Keys {
    db: Database,
    vault: Arc<Vault>,
    algorithm: SigningAlgorithm,
    /// The age at which a key is replaced.
    age: TimeDelta,
    ring: RwLock<Arc<Ring>>,
    /// When this instance last looked because of a token, and whether it could. Held while it does.
    asked: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl Keys {
    /// No key is known before [`Keys::prepare`].
    pub fn new(db: Database, vault: Arc<Vault>, algorithm: SigningAlgorithm, days: u32) -> Self {
        Self {
            db,
            vault,
            algorithm,
            age: TimeDelta::days(i64::from(days)),
            ring: RwLock::default(),
            asked: tokio::sync::Mutex::default(),
        }
    }

    /// The keys that are known at this moment.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the keys, and makes one when there is none, when the last is too old, or of another algorithm than is
    /// wanted now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prepare(&self) -> Result<()> {
        self.look().await?;
        let ring = self.ring();
        let other = |ring: &Ring| {
            ring.keys
                .last()
                .is_some_and(|last| last.algorithm != self.algorithm)
        };
        let wanted = |ring: &Ring| ring.is_due(self.age, Utc::now()) || other(ring);
        if wanted(&ring) {
            self.add(AHEAD, false, wanted).await?;
        }
        Ok(())
    }

    /// Makes a key that signs from now on, or when it has been published for a while. With `discard`, all others go at
    /// once and with them every access token that they have signed: for keys that somebody else may know.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate(&self, ahead: Duration, discard: bool) -> Result<()> {
        self.look().await?;
        self.add(ahead, discard, |_| true).await
    }

    /// Replaces the last key when its time has come.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate_when_due(&self) -> Result<()> {
        let due = |ring: &Ring| ring.is_due(self.age, Utc::now());
        if due(&self.ring()) {
            self.add(AHEAD, false, due).await?;
        }
        Ok(())
    }

    async fn add(&self, ahead: Duration, discard: bool, wanted: impl Fn(&Ring) -> bool) -> Result<()> {
        // A long key takes long to find.
        let algorithm = self.algorithm;
        let made = tokio::task::spawn_blocking(move || {
            let private = algorithm.generate()?;
            Ok::<_, Error>((Key::new(algorithm, &private)?.kid, private))
        });
        let (kid, private) = made.await.map_err(Error::internal)??;
        let sealed = self.vault.seal(&context(algorithm, &kid), &private)?;
        // Nobody waits for a key when there is none to sign meanwhile.
        let first = self.ring().keys.is_empty();
        let new = NewKey {
            kid,
            algorithm: algorithm.name(),
            sealed,
            ahead: if first { Duration::ZERO } else { ahead },
        };
        let others = match discard {
            true => Others::Removed,
            // No token needs it by then; a little longer, so that people still find it in the list.
            false => Others::KeptFor(VERIFIES_ON * 2),
        };
        let known = self.ring();
        let still_wanted = |rows: &[SigningKey]| wanted(&Ring::open(&self.vault, rows, &known));
        if signing_keys::add(&self.db, &new, others, still_wanted).await? {
            tracing::info!(
                kid = new.kid,
                algorithm = new.algorithm,
                discard,
                "a new key signs access tokens"
            );
        }
        self.look().await
    }

    /// Reads the keys anew.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look(&self) -> Result<()> {
        let rows = signing_keys::all(&self.db).await?;
        let ring = Arc::new(Ring::open(&self.vault, &rows, &self.ring()));
        for row in rows.iter().filter(|row| !self.vault.is_current(&row.sealed)) {
            if let Some(algorithm) = SigningAlgorithm::of_name(&row.algorithm) {
                self.reseal(algorithm, row).await?;
            }
        }
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }

    /// Seals a key under the current master key, if it can be opened: the master key that it is under is going to leave.
    async fn reseal(&self, algorithm: SigningAlgorithm, row: &SigningKey) -> Result<()> {
        let context = context(algorithm, &row.kid);
        let Ok(private) = self.vault.open(&context, &row.sealed) else {
            return Ok(());
        };
        signing_keys::reseal(&self.db, row, &self.vault.seal(&context, &private)?).await
    }

    /// The key of this id, if it still verifies. When it is not known, the database is asked for it, though not more
    /// often than once a second, whatever is sent.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the key is not known and could not be asked for.
    pub async fn find(&self, kid: &str) -> Result<Option<Arc<Key>>> {
        if let Some(known) = self.known(kid) {
            return Ok(Some(known));
        }
        let could_be = kid.len() == KID
            && kid
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !could_be {
            return Ok(None);
        }
        let mut asked = self.asked.lock().await;
        let answered = match *asked {
            Some((last, answered)) if last.elapsed() < LOOK_AGAIN => answered,
            _ => {
                let looked = timeout(PATIENCE, self.look()).await;
                let answered = matches!(looked, Ok(Ok(())));
                if !answered {
                    tracing::warn!(?looked, "the signing keys cannot be read");
                }
                *asked = Some((Instant::now(), answered));
                answered
            }
        };
        match self.known(kid) {
            None if !answered => Err(Error::Unavailable),
            known => Ok(known),
        }
    }

    /// The key of this id, if it is known and still verifies.
    pub fn known(&self, kid: &str) -> Option<Arc<Key>> {
        self.ring().find(kid, Utc::now()).cloned()
    }

    /// Goes on looking for the keys of others, and replaces the last when its time has come, until `stop`.
    pub fn follow(self: &Arc<Self>, stop: CancellationToken) {
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = this.look_on() => {}
            }
        });
    }

    async fn look_on(&self) {
        let mut failing = false;
        loop {
            sleep(LOOK).await;
            let looked = timeout(PATIENCE, async {
                self.look().await?;
                self.rotate_when_due().await
            });
            match looked.await {
                Ok(Ok(())) => failing = false,
                failed => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(?failed, "the signing keys cannot be read; trying on");
                    }
                }
            }
        }
    }

    /// What others verify our tokens with: a JSON Web Key Set (RFC 7517).
    pub fn jwks(&self) -> Value {
        let (ring, now) = (self.ring(), Utc::now());
        let verifying = ring.keys.iter().filter(|key| key.verifies_at(now));
        json!({ "keys": verifying.map(|key| &key.public).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7638, section 3.1.
    #[test]
    fn thumbprints_are_those_of_the_specification() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZC\
                 iFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZg\
                 nYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqb\
                 w0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let public = [("kty", "RSA"), ("n", n), ("e", "AQAB")].map(|(name, value)| (name, value.to_owned()));
        assert_eq!(
            thumbprint(&BTreeMap::from(public)),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }

    fn row(vault: &Vault, algorithm: SigningAlgorithm, signs_from: i64) -> SigningKey {
        let private = algorithm.generate().unwrap();
        let kid = Key::new(algorithm, &private).unwrap().kid;
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        SigningKey {
            sealed: vault.seal(&context(algorithm, &kid), &private).unwrap(),
            algorithm: algorithm.name().to_owned(),
            kid,
            created_at: at(signs_from - 3600),
            signs_from: at(signs_from),
        }
    }

    fn vault(secret: &[u8]) -> Vault {
        Vault::new([crate::crypto::MasterKey::of_secret(secret)]).unwrap()
    }

    #[test]
    fn each_key_signs_in_its_time_and_verifies_for_a_while_longer() {
        let vault = vault(b"a secret");
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let rows = [1000, 2000, 3000].map(|from| row(&vault, SigningAlgorithm::EdDsa, from));
        let ring = Ring::open(&vault, &rows, &Ring::default());
        for (now, signer) in [
            (0, 0),
            (1000, 0),
            (1999, 0),
            (2000, 1),
            (2999, 1),
            (3000, 2),
            (9_999_999, 2),
        ] {
            assert_eq!(ring.signer(at(now)).unwrap().kid, rows[signer].kid, "at {now}");
        }
        let last = 2000 + VERIFIES_ON.as_secs() as i64;
        assert!(ring.find(&rows[0].kid, at(last - 1)).is_some());
        assert!(ring.find(&rows[0].kid, at(last)).is_none());
        assert!(ring.find(&rows[2].kid, at(1)).is_some(), "before it signs");
        assert!(ring.find(&rows[2].kid, at(i64::from(u32::MAX))).is_some());
        let (age, made) = (TimeDelta::seconds(2000), rows[2].created_at);
        assert!(!ring.is_due(age, made + TimeDelta::seconds(1999)));
        assert!(ring.is_due(age, made + age));
        assert!(Ring::default().is_due(TimeDelta::MAX, at(0)));
    }

    #[test]
    fn a_row_is_trusted_only_as_far_as_the_vault_opens_it() {
        let (ours, theirs) = (vault(b"a secret"), vault(b"another"));
        let good = row(&ours, SigningAlgorithm::EdDsa, 1000);
        let nothing = Ring::default();
        let opened = Ring::open(&ours, std::slice::from_ref(&good), &nothing);
        assert_eq!(opened.keys.len(), 1);
        let named = |kid: &str| SigningKey {
            kid: kid.to_owned(),
            ..good.clone()
        };
        let called = |algorithm: &str| SigningKey {
            algorithm: algorithm.to_owned(),
            ..good.clone()
        };
        let foreign = row(&theirs, SigningAlgorithm::EdDsa, 1000);
        let mut altered = good.clone();
        *altered.sealed.last_mut().unwrap() ^= 1;
        for bad in [
            named(&foreign.kid),
            called("RS256"),
            called("HS256"),
            foreign,
            altered,
        ] {
            // Whether it was good before or not: only what is sealed under a key of others is taken on trust.
            for before in [&nothing, &opened] {
                assert!(
                    Ring::open(&ours, std::slice::from_ref(&bad), before)
                        .keys
                        .is_empty()
                );
            }
        }
    }

    #[test]
    fn a_key_that_others_have_sealed_anew_stays_known() {
        let named = |name: &str| {
            let key = STANDARD.encode(crypto::random_bytes::<32>());
            format!("{name}:{key}")
        };
        let (old, new) = (named("old"), named("new"));
        let vault = |keys: &[&str]| {
            let keys: Vec<_> = keys
                .iter()
                .map(|key| crate::crypto::MasterKey::parse(key).unwrap())
                .collect();
            Vault::new(keys).unwrap()
        };
        let (behind, ahead) = (vault(&[&old]), vault(&[&new, &old]));
        let first = row(&behind, SigningAlgorithm::EdDsa, 1000);
        let ring = Ring::open(&behind, std::slice::from_ref(&first), &Ring::default());
        let context = context(SigningAlgorithm::EdDsa, &first.kid);
        let resealed = SigningKey {
            sealed: ahead
                .seal(&context, &behind.open(&context, &first.sealed).unwrap())
                .unwrap(),
            ..first.clone()
        };
        // And one that the instance behind has never seen.
        let second = row(&ahead, SigningAlgorithm::EdDsa, 2000);
        let rows = [resealed, second.clone()];
        let later = Ring::open(&behind, &rows, &ring);
        let kids: Vec<_> = later.keys.iter().map(|key| &key.kid).collect();
        assert_eq!(kids, [&first.kid]);
        assert!(later.keys[0].until.is_none(), "it signs on");
        assert_eq!(Ring::open(&ahead, &rows, &Ring::default()).keys.len(), 2);
        // Who has never opened it cannot, and what is gone is gone.
        assert!(Ring::open(&behind, &rows, &Ring::default()).keys.is_empty());
        assert!(Ring::open(&behind, &[second], &ring).keys.is_empty());
    }

    #[test]
    fn the_published_part_is_public() {
        let vault = vault(b"a secret");
        for (algorithm, members) in [
            (
                SigningAlgorithm::Rs256,
                &["alg", "e", "kid", "kty", "n", "use"][..],
            ),
            (SigningAlgorithm::EdDsa, &["alg", "crv", "kid", "kty", "use", "x"]),
        ] {
            let key = Key::open(&vault, &row(&vault, algorithm, 0)).unwrap();
            let mut found: Vec<_> = key.public.as_object().unwrap().keys().collect();
            found.sort();
            assert_eq!(found, members);
        }
    }
}
