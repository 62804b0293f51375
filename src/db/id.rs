//! Ids: UUIDv7 in the database, `prefix_` + base 32 outside, by the [TypeID] specification.
//!
//! [TypeID]: https://github.com/jetify-com/typeid/tree/main/spec

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use diesel::deserialize::FromSql;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{Output, ToSql};
use diesel::sql_types;
use uuid::Uuid;

/// What an [`Id`] identifies; the row type of an entity implements it.
pub trait Kind: Send + Sync + 'static {
    /// The part of the written id before the underscore, for example `deal`.
    const PREFIX: &'static str;
}

/// The id of a `T`: ids of different kinds cannot be mixed up, neither in Rust nor by clients.
#[derive(diesel::AsExpression, diesel::FromSqlRow)]
#[diesel(sql_type = sql_types::Uuid)]
pub struct Id<T> {
    uuid: Uuid,
    kind: PhantomData<fn() -> T>,
}

/// Values by an id, or by what has one in it. There are many of them on the way of every record to its answer, so the
/// hasher is a quick one, seeded by chance.
pub type ByKey<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

impl<T> Id<T> {
    /// Takes a UUID from the database or a test as the id of a `T`.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self {
            uuid,
            kind: PhantomData,
        }
    }

    /// A new id; ids made later sort later.
    pub fn generate() -> Self {
        Self::from_uuid(Uuid::now_v7())
    }

    /// The value as the database has it.
    pub const fn uuid(self) -> Uuid {
        self.uuid
    }
}

impl<T> From<Uuid> for Id<T> {
    fn from(uuid: Uuid) -> Self {
        Self::from_uuid(uuid)
    }
}

/// A new UUIDv7 of a moment that another clock has told.
pub fn uuid_at(moment: chrono::DateTime<chrono::Utc>) -> Uuid {
    let (seconds, nanos) = (moment.timestamp().unsigned_abs(), moment.timestamp_subsec_nanos());
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Writes 128 bits as 26 digits of Crockford's base 32, most significant first.
fn encode(value: u128) -> [u8; 26] {
    let mut out = [0; 26];
    for (i, digit) in out.iter_mut().enumerate() {
        *digit = DIGITS[(value >> (5 * (25 - i)) & 31) as usize];
    }
    out
}

fn decode(text: &str) -> Option<u128> {
    // 26 digits hold 130 bits: a first digit above 7 would overflow.
    if text.len() != 26 || text.as_bytes()[0] > b'7' {
        return None;
    }
    text.bytes().try_fold(0, |value, byte| {
        let digit = DIGITS.iter().position(|d| *d == byte)?;
        Some(value << 5 | digit as u128)
    })
}

/// Writes the id of a record of the kind with this prefix.
pub fn write_id(prefix: &str, uuid: Uuid) -> String {
    let digits = encode(uuid.as_u128());
    let mut out = String::with_capacity(prefix.len() + 27);
    out.push_str(prefix);
    out.push('_');
    out.push_str(str::from_utf8(&digits).expect("the digits are ASCII"));
    out
}

/// Splits a written id into its prefix and its UUID; `None` when it does not have the form of an id.
pub fn read_id(text: &str) -> Option<(&str, Uuid)> {
    let (prefix, digits) = text.rsplit_once('_')?;
    Some((prefix, Uuid::from_u128(decode(digits)?)))
}

/// Why a text is not the id that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongId {
    expected: &'static str,
    given: Option<String>,
}

impl fmt::Display for WrongId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = self.expected;
        match &self.given {
            Some(kind) => write!(
                f,
                "This is the id of a {kind}; the id of a {expected} (\"{expected}_…\") is needed."
            ),
            None => write!(
                f,
                "This is not an id; the id of a {expected} (\"{expected}_…\") is needed."
            ),
        }
    }
}

/// Reads a written id that must be of the kind with this prefix.
///
/// # Errors
/// A sentence for the client when it is of another kind, or no id at all.
pub fn read_id_of(prefix: &'static str, text: &str) -> Result<Uuid, WrongId> {
    match read_id(text) {
        Some((given, uuid)) if given == prefix => Ok(uuid),
        // Only a well-formed prefix is repeated to the client, never arbitrary input.
        Some((given, _))
            if given.len() <= 24 && given.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') =>
        {
            Err(WrongId {
                expected: prefix,
                given: Some(given.to_owned()),
            })
        }
        _ => Err(WrongId {
            expected: prefix,
            given: None,
        }),
    }
}

impl<T: Kind> FromStr for Id<T> {
    type Err = WrongId;

    fn from_str(text: &str) -> Result<Self, WrongId> {
        read_id_of(T::PREFIX, text).map(Self::from_uuid)
    }
}

impl<T: Kind> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write_id(T::PREFIX, self.uuid))
    }
}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.uuid, f)
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uuid.cmp(&other.uuid)
    }
}
impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The random half is enough: only a client can make ids that differ in the other one alone, and asks for no more
        // than a hundred.
        state.write_u64(self.uuid.as_u64_pair().1);
    }
}

// In the history and in kept answers an id is written as clients know it.
impl<T: Kind> serde::Serialize for Id<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, T: Kind> serde::Deserialize<'de> for Id<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

// diesel reads and writes an id as the UUID it is.
impl<T: 'static> FromSql<sql_types::Uuid, Pg> for Id<T> {
    fn from_sql(bytes: PgValue<'_>) -> diesel::deserialize::Result<Self> {
        Uuid::from_sql(bytes).map(Self::from_uuid)
    }
}
impl<T: 'static> ToSql<sql_types::Uuid, Pg> for Id<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> diesel::serialize::Result {
        ToSql::<sql_types::Uuid, Pg>::to_sql(&self.uuid, out)
    }
}
