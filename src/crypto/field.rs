//! Single values under a key that is at hand: sealed, so that only the key opens them, or as a keyed hash, so that equal
//! values can be found without being read.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::random_bytes;
use crate::error::{Error, Result};

/// A key of 256 random bits, forgotten when it is dropped.
pub type Key = Zeroizing<[u8; 32]>;

/// A new key.
pub fn new_key() -> Key {
    Zeroizing::new(random_bytes())
}

fn cipher(key: &Key) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, &key[..]).map_err(|_| unreadable())?;
    Ok(LessSafeKey::new(key))
}

/// Seals a value in a place: it is opened with the same key and place only. Answers nonce, ciphertext and tag.
///
/// # Errors
/// Only for faults of ours.
pub fn seal(key: &Key, place: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let nonce = random_bytes::<NONCE_LEN>();
    let mut text = plain.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut text)
        .map_err(|_| unreadable())?;
    Ok([&nonce[..], &text].concat())
}

/// Opens a value that was sealed in this place.
///
/// # Errors
/// [`Error::Internal`] when it was altered, or sealed elsewhere.
pub fn open(key: &Key, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(unreadable)?;
    let mut text = Zeroizing::new(text.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = cipher(key)?.open_in_place(nonce, Aad::from(place), &mut text);
    let length = opened.map_err(|_| unreadable())?.len();
    text.truncate(length);
    Ok(text)
}

fn unreadable() -> Error {
    Error::internal("a sealed field cannot be read")
}

/// HMAC-SHA-256 of a value of a kind: equal values have equal hashes, and without the key none can be guessed.
pub fn blind(key: &Key, kind: &str, value: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key[..]);
    let mut context = hmac::Context::with_key(&key);
    // No kind has a line end.
    context.update(kind.as_bytes());
    context.update(b"\n");
    context.update(value.as_bytes());
    context.sign().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_opened_where_it_was_sealed_only() {
        let (key, other) = (new_key(), new_key());
        let sealed = seal(&key, "here", b"DE811907980").unwrap();
        assert_eq!(*open(&key, "here", &sealed).unwrap(), b"DE811907980");
        assert!(open(&key, "there", &sealed).is_err());
        assert!(open(&other, "here", &sealed).is_err());
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            assert!(open(&key, "here", &altered).is_err(), "byte {place}");
            assert!(open(&key, "here", &sealed[..place]).is_err(), "{place} bytes");
        }
        assert_ne!(sealed, seal(&key, "here", b"DE811907980").unwrap());
    }

    #[test]
    fn equal_values_of_a_kind_are_found_and_others_are_not() {
        let (key, other) = (new_key(), new_key());
        assert_eq!(blind(&key, "tax id", "1"), blind(&key, "tax id", "1"));
        assert_ne!(blind(&key, "tax id", "1"), blind(&key, "tax id", "2"));
        assert_ne!(blind(&key, "tax id", "1"), blind(&key, "iban", "1"));
        assert_ne!(blind(&key, "tax id", "1"), blind(&other, "tax id", "1"));
    }
}
