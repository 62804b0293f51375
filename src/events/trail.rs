//! The audit trail: what is recorded of a change for those who come later to see who did what, and that nobody has
//! changed the record since.
//!
//! # The chain
//!
//! Every tenant has a chain of its own. An entry's hash is of three things, one after the other:
//!
//! `hash = SHA-256(previous hash ‖ sequence ‖ digest)`
//!
//! - *previous hash*: the hash of the entry before; 32 zero bytes for the first.
//! - *sequence*: the entry's place in the chain, from 1, as 8 bytes, most significant first.
//! - *digest*: SHA-256 of the entry itself: the bytes `dealstream audit 1`, then these fields in this order: tenant id,
//!   entry id, time, kind of actor, actor id, entity, record id, kind, detail, address, user agent, request id. Each
//!   field is its length as 4 bytes, most significant first, and then its bytes; a missing one is the length `ff ff ff ff`
//!   alone. Ids are 16 bytes; the time is the microseconds since 1970 as 8 bytes, most significant first; everything else
//!   is text in UTF-8, the address as it is usually written, the detail as the JSON text that is kept.
//!
//! So no entry can be altered, removed, added or moved without every later hash being another. PostgreSQL chains the
//! digests where the head of the chain is locked ([`Work`](super::Work)); everything else is computed here only.
//!
//! # What is kept of a change
//!
//! Auditors want old and new values, so both are kept: for an update the changed fields before and after, for what was
//! added or deleted the whole record. What did not change is not repeated, and a text of more than [`LONG`] characters
//! is represented by its length and its SHA-256: what was written stays provable without the trail, which nothing is
//! ever taken out of, becoming a second archive of people's correspondence.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Characters of a text that the trail keeps as it is.
pub const LONG: usize = 500;

/// A SHA-256.
pub type Hash = [u8; 32];

/// What comes before the first entry of a chain.
pub const GENESIS: Hash = [0; 32];

/// An entry but for its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    pub id: Uuid,
    pub occurred_at: DateTime<Utc>,
    pub actor_kind: &'a str,
    pub actor_id: Option<Uuid>,
    pub entity: &'a str,
    pub record_id: Uuid,
    pub kind: &'a str,
    /// JSON.
    pub detail: &'a str,
    pub ip: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub request_id: Option<&'a str>,
}

impl Entry<'_> {
    /// The digest of the entry, as the module's documentation has it.
    pub fn digest(&self, tenant: Uuid) -> Hash {
        let mut hasher = Sha256::new_with_prefix(b"dealstream audit 1");
        let mut field = |bytes: Option<&[u8]>| match bytes {
            // Nothing in a row of PostgreSQL is as long as that.
            Some(bytes) => {
                hasher.update((bytes.len() as u32).to_be_bytes());
                hasher.update(bytes);
            }
            None => hasher.update(u32::MAX.to_be_bytes()),
        };
        field(Some(tenant.as_bytes()));
        field(Some(self.id.as_bytes()));
        field(Some(&self.occurred_at.timestamp_micros().to_be_bytes()));
        field(Some(self.actor_kind.as_bytes()));
        field(self.actor_id.as_ref().map(|id| id.as_bytes().as_slice()));
        field(Some(self.entity.as_bytes()));
        field(Some(self.record_id.as_bytes()));
        field(Some(self.kind.as_bytes()));
        field(Some(self.detail.as_bytes()));
        field(self.ip.map(str::as_bytes));
        field(self.user_agent.map(str::as_bytes));
        field(self.request_id.map(str::as_bytes));
        hasher.finalize().into()
    }
}

/// The hash of an entry at its place in the chain.
pub fn link(previous: &[u8], sequence: i64, digest: &Hash) -> Hash {
    let hasher = Sha256::new_with_prefix(previous);
    let hasher = hasher.chain_update(sequence.to_be_bytes());
    hasher.chain_update(digest).finalize().into()
}

/// What the trail keeps of what the history is told about a change.
pub(super) fn detail(kind: &str, change: &Value) -> Value {
    let mut detail = match change.get("before").and_then(Value::as_object) {
        Some(before) if kind == "UPDATED" => {
            let mut old = serde_json::Map::new();
            let mut new = serde_json::Map::new();
            for (field, value) in before {
                // The history keeps old values as JSON text, by the names of the inputs; the record has Rust's.
                let value = value.as_str().and_then(|text| serde_json::from_str(text).ok());
                old.insert(field.clone(), value.unwrap_or_default());
                let now = change.get(snake_case(field)).cloned();
                new.insert(field.clone(), now.unwrap_or_default());
                if field == "amount"
                    && let Some(currency) = change.get("currency_code")
                {
                    new.insert("currencyCode".to_owned(), currency.clone());
                }
            }
            json!({ "before": old, "after": new })
        }
        _ => change.clone(),
    };
    shorten(&mut detail);
    detail
}

fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// Puts length and hash in the places of long texts.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > LONG && text.chars().count() > LONG => {
            let (characters, hash) = (text.chars().count(), hex(&Sha256::digest(text.as_bytes())));
            *value = json!({ "characters": characters, "sha256": hash });
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

/// Bytes as people compare them.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            id: Uuid::from_u128(1),
            occurred_at: DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time"),
            actor_kind: "USER",
            actor_id: Some(Uuid::from_u128(2)),
            entity: "deal",
            record_id: Uuid::from_u128(3),
            kind: "UPDATED",
            detail: "{}",
            ip: Some("203.0.113.7"),
            user_agent: None,
            request_id: Some("r"),
        }
    }

    /// Whoever wants to check a chain with other means than ours has this to begin with.
    #[test]
    fn the_encoding_stays_as_it_is() {
        let mut bytes = b"dealstream audit 1".to_vec();
        let mut field = |field: &[u8]| {
            bytes.extend((field.len() as u32).to_be_bytes());
            bytes.extend(field);
        };
        field(&Uuid::from_u128(9).into_bytes());
        field(&Uuid::from_u128(1).into_bytes());
        field(&1_700_000_000_123_456_i64.to_be_bytes());
        field(b"USER");
        field(&Uuid::from_u128(2).into_bytes());
        field(b"deal");
        field(&Uuid::from_u128(3).into_bytes());
        field(b"UPDATED");
        field(b"{}");
        field(b"203.0.113.7");
        bytes.extend([0xff; 4]);
        bytes.extend([0, 0, 0, 1, b'r']);
        let digest: Hash = Sha256::digest(&bytes).into();
        assert_eq!(entry().digest(Uuid::from_u128(9)), digest);
        let mut chained = GENESIS.to_vec();
        chained.extend(7_i64.to_be_bytes());
        chained.extend(digest);
        let hash: Hash = Sha256::digest(&chained).into();
        assert_eq!(link(&GENESIS, 7, &digest), hash);
    }

    #[test]
    fn what_is_missing_is_not_what_is_empty() {
        let tenant = Uuid::from_u128(9);
        let empty = Entry {
            user_agent: Some(""),
            ..entry()
        };
        assert_ne!(entry().digest(tenant), empty.digest(tenant));
        assert_ne!(entry().digest(tenant), entry().digest(Uuid::from_u128(8)));
    }

    #[test]
    fn an_update_keeps_what_changed_and_nothing_else() {
        let change = json!({
            "before": { "nextStep": "\"Call\"", "amount": "{\"amount\":\"1.00\",\"currencyCode\":\"EUR\"}" },
            "name": "Deal", "next_step": null, "amount": 250, "currency_code": "EUR",
        });
        let kept = detail("UPDATED", &change);
        let after = json!({ "nextStep": null, "amount": 250, "currencyCode": "EUR" });
        assert_eq!(kept["after"], after);
        assert_eq!(kept["before"]["nextStep"], "Call");
        assert!(kept.get("name").is_none());
    }

    #[test]
    fn a_long_text_is_represented_by_its_hash() {
        let text = "x".repeat(LONG + 1);
        let kept = detail(
            "CREATED",
            &json!({ "content": text, "subject": "y".repeat(LONG) }),
        );
        assert_eq!(kept["content"]["characters"], LONG + 1);
        assert_eq!(kept["content"]["sha256"], hex(&Sha256::digest(text.as_bytes())));
        assert_eq!(kept["subject"], "y".repeat(LONG));
    }
}
