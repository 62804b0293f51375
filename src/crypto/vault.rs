//! Sealing what only this server may read.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroizing;

use super::random_bytes;
use crate::error::{Error, Result};

/// Bytes of a key.
const KEY: usize = 32;

/// Letters of a key's name at most.
const MAX_NAME: usize = 32;

/// A key that seals others, and the name by which what it has sealed is known.
pub struct MasterKey {
    name: String,
    key: SecretBox<[u8; KEY]>,
}

impl MasterKey {
    /// A key of 32 random bytes, given as `name:base64`.
    ///
    /// # Errors
    /// A sentence for the operator, without the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, key) = text
            .trim()
            .split_once(':')
            .ok_or("a master key is given as name:base64")?;
        if !Self::is_name(name.as_bytes()) {
            return Err(format!(
                "the name of a master key has 1 to {MAX_NAME} letters, digits, -, _ or ."
            ));
        }
        let bytes = Zeroizing::new(STANDARD.decode(key.trim()).unwrap_or_default());
        let key = <[u8; KEY]>::try_from(bytes.as_slice())
            .ok()
            .filter(|key| key.iter().any(|byte| *byte != key[0]))
            .ok_or_else(|| format!("the master key {name} is not 32 random bytes in base64"))?;
        Ok(Self::new(name, key))
    }

    /// Whether a master key can have this name.
    pub fn is_name(name: &[u8]) -> bool {
        (1..=MAX_NAME).contains(&name.len())
            && name
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    }

    /// The key that a server has from its root secret when it is given no other.
    pub fn of_secret(secret: &[u8]) -> Self {
        Self::new("root", expand(secret, "master key"))
    }

    fn new(name: &str, key: [u8; KEY]) -> Self {
        Self {
            name: name.to_owned(),
            key: SecretBox::new(Box::new(key)),
        }
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, self.key.expose_secret()).map_err(unfit)?;
        Ok(LessSafeKey::new(key))
    }
}

/// A ring of master keys. The first seals; all of them open what they have sealed.
pub struct Vault {
    current: MasterKey,
    older: Vec<MasterKey>,
}

impl Vault {
    /// The form of sealed bytes: this, the length of the key's name, the name, the nonce, the ciphertext with its tag.
    pub const VERSION: u8 = 1;

    /// The first key is the current one.
    ///
    /// # Errors
    /// A sentence for the operator when there is none, or two have the same name.
    pub fn new(keys: impl IntoIterator<Item = MasterKey>) -> Result<Self, String> {
        let mut keys = keys.into_iter();
        let current = keys.next().ok_or("at least one master key is needed")?;
        let vault = Self {
            current,
            older: keys.collect(),
        };
        let mut names: Vec<&str> = vault.keys().map(|key| key.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two master keys have the name {}", twice[0]));
        }
        Ok(vault)
    }

    /// Seals bytes. `context` tells what they are and whose, such as the table, the column and the record: they can be
    /// opened with the same context only, so that nobody moves them elsewhere.
    ///
    /// # Errors
    /// Only for faults of ours.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>> {
        // Random nonces of 96 bits are good for four thousand million seals under a key (SP 800-38D, 8.3).
        let nonce = random_bytes::<NONCE_LEN>();
        let mut text = plain.to_vec();
        self.current
            .cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut text)
            .map_err(unfit)?;
        Ok([&self.head(), &nonce[..], &text].concat())
    }

    /// What all that the current key seals begins with, and nothing that another seals.
    pub fn head(&self) -> Vec<u8> {
        let name = self.current.name.as_bytes();
        let length = u8::try_from(name.len()).expect("a key's name is short");
        [&[Self::VERSION, length], name].concat()
    }

    /// Opens what was sealed with the same context by a key of the ring.
    ///
    /// # Errors
    /// [`Error::Internal`] when it was altered, belongs elsewhere, or its key is not in the ring.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let unreadable = || Error::internal("what was sealed cannot be read");
        let (name, rest) = split(sealed).ok_or_else(unreadable)?;
        let key = self.keys().find(|key| key.name.as_bytes() == name);
        let key = key.ok_or_else(|| {
            let name = String::from_utf8_lossy(name).into_owned();
            Error::internal(format!("the master key {name:?} is not in the ring"))
        })?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(unreadable)?;
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.cipher()?.open_in_place(nonce, Aad::from(context), &mut text);
        let length = opened.map_err(|_| unreadable())?.len();
        text.truncate(length);
        Ok(text)
    }

    /// Whether it was sealed by the current key, and so need not be sealed anew.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        split(sealed).is_some_and(|(name, _)| name == self.current.name.as_bytes())
    }

    /// Whether it was sealed by a key of this name in the ring.
    pub fn knows_key_of(&self, sealed: &[u8]) -> bool {
        split(sealed).is_some_and(|(name, _)| self.keys().any(|key| key.name.as_bytes() == name))
    }

    /// A key for one purpose, made from the current master key: another purpose, or another master key, gives another.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY]> {
        Zeroizing::new(expand(self.current.key.expose_secret(), purpose))
    }

    /// As [`Vault::derive`] from each master key, the current one first: for checking what was made under an older one.
    pub fn derive_of_each(&self, purpose: &str) -> impl Iterator<Item = Zeroizing<[u8; KEY]>> {
        self.keys()
            .map(move |key| Zeroizing::new(expand(key.key.expose_secret(), purpose)))
    }

    /// The names of the keys, that of the current one first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| key.name.as_str())
    }

    fn keys(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

/// The name of the key and what follows it.
fn split(sealed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (version, rest) = sealed.split_first()?;
    let (length, rest) = rest.split_first()?;
    (*version == Vault::VERSION)
        .then(|| rest.split_at_checked(usize::from(*length)))
        .flatten()
}

/// A key from a secret with enough randomness, by HKDF.
fn expand(secret: &[u8], purpose: &str) -> [u8; KEY] {
    struct Bytes;
    impl KeyType for Bytes {
        fn len(&self) -> usize {
            KEY
        }
    }
    let mut key = [0; KEY];
    Salt::new(HKDF_SHA256, b"dealstream")
        .extract(secret)
        .expand(&[purpose.as_bytes()], Bytes)
        .and_then(|output| output.fill(&mut key))
        .expect("HKDF gives 32 bytes to whoever asks for 32");
    key
}

fn unfit(_: aws_lc_rs::error::Unspecified) -> Error {
    Error::internal("the cipher refused its input")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, fill: u8) -> MasterKey {
        let mut key = [fill; KEY];
        key[0] = fill.wrapping_add(1);
        MasterKey::new(name, key)
    }

    #[test]
    fn what_is_sealed_is_opened_in_its_context_only() {
        let vault = Vault::new([key("a", 1)]).unwrap();
        let sealed = vault.seal("companies/1", b"DE811907980").unwrap();
        assert_eq!(*vault.open("companies/1", &sealed).unwrap(), b"DE811907980");
        assert!(vault.open("companies/2", &sealed).is_err());
        assert!(!sealed.windows(4).any(|part| part == b"8119"));
        assert_ne!(sealed, vault.seal("companies/1", b"DE811907980").unwrap());
    }

    #[test]
    fn no_altered_byte_passes() {
        let vault = Vault::new([key("a", 1)]).unwrap();
        let sealed = vault.seal("here", b"text").unwrap();
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            assert!(vault.open("here", &altered).is_err(), "byte {place}");
            assert!(vault.open("here", &sealed[..place]).is_err(), "{place} bytes");
        }
    }

    #[test]
    fn older_keys_open_and_the_first_seals() {
        let old = Vault::new([key("old", 1)]).unwrap();
        let sealed = old.seal("here", b"text").unwrap();
        let both = Vault::new([key("new", 2), key("old", 1)]).unwrap();
        assert_eq!(*both.open("here", &sealed).unwrap(), b"text");
        assert!(!both.is_current(&sealed));
        let again = both.seal("here", b"text").unwrap();
        assert!(both.is_current(&again));
        assert!(old.open("here", &again).is_err());
        // Of the same name, but another key.
        let forged = Vault::new([key("old", 3)]).unwrap();
        assert!(forged.open("here", &sealed).is_err());
    }

    #[test]
    fn every_purpose_has_a_key_of_its_own() {
        let vault = Vault::new([key("a", 1)]).unwrap();
        assert_eq!(vault.derive("one"), vault.derive("one"));
        assert_ne!(vault.derive("one"), vault.derive("two"));
        let other = Vault::new([key("a", 2)]).unwrap();
        assert_ne!(vault.derive("one"), other.derive("one"));
    }

    #[test]
    fn master_keys_are_read_strictly() {
        let good = format!("k-2026.1:{}", STANDARD.encode(random_bytes::<KEY>()));
        assert_eq!(MasterKey::parse(&good).unwrap().name, "k-2026.1");
        let short = format!("k:{}", STANDARD.encode([1, 2, 3]));
        let same = format!("k:{}", STANDARD.encode([7; KEY]));
        let unnamed = good.split_once(':').unwrap().1;
        for bad in [short.as_str(), &same, unnamed, "", "k:", "a b:AAAA"] {
            let problem = MasterKey::parse(bad).err().unwrap();
            assert!(
                !problem.contains("AAAA") && !problem.contains(unnamed),
                "{problem}"
            );
        }
        assert!(Vault::new([key("a", 1), key("a", 2)]).is_err());
        assert!(Vault::new([]).is_err());
    }
}
