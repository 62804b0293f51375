//! Sessions as they are kept, and the form of refresh tokens.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Bool, Bytea, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::crypto::{self, Vault};
use crate::db::id::{Id, Kind};

/// For how long a replaced refresh token still gets its successor: whoever lost the answer asks again soon.
pub(super) const GRACE: TimeDelta = TimeDelta::seconds(30);

/// What every refresh token begins with, so that it is known for what it is where it should not be.
const MARK: &str = "dsr_";

/// Letters of each of the two parts that follow: 256 bits in base64url.
const PART: usize = 43;

/// What the vault derives the key for that makes a token's successor.
const SUCCESSORS: &str = "refresh tokens";

/// A session of one's own.
#[derive(Debug, Clone, QueryableByName)]
pub struct Session {
    #[diesel(sql_type = SqlUuid)]
    pub id: Id<Session>,
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// When it began or was last refreshed.
    #[diesel(sql_type = Timestamptz)]
    pub last_used_at: DateTime<Utc>,
    /// When it ends if nobody refreshes it.
    #[diesel(sql_type = Timestamptz)]
    pub ends_at: DateTime<Utc>,
    /// When it ends however often it is refreshed.
    #[diesel(sql_type = Timestamptz)]
    pub expires_at: DateTime<Utc>,
    /// What the client that used it last calls itself.
    #[diesel(sql_type = Nullable<Text>)]
    pub user_agent: Option<String>,
    /// Where it was last used from.
    #[diesel(sql_type = Nullable<Text>)]
    pub address: Option<String>,
}

impl Kind for Session {
    const PREFIX: &'static str = "session";
}

/// What is needed to judge a refresh token, read under lock.
#[derive(Debug, QueryableByName)]
pub(super) struct Standing {
    #[diesel(sql_type = Bytea)]
    token_hash: Vec<u8>,
    #[diesel(sql_type = Nullable<Bytea>)]
    previous_hash: Option<Vec<u8>>,
    #[diesel(sql_type = Timestamptz)]
    last_used_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub expires_at: DateTime<Utc>,
    /// When it ends for want of use, as it is now.
    #[diesel(sql_type = Timestamptz)]
    pub idle_at: DateTime<Utc>,
    #[diesel(sql_type = Bool)]
    ended: bool,
}

/// What a refresh token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// Its successor, and the session goes on.
    Successor,
    /// The successor that it had a moment ago.
    SameSuccessor,
    /// Nothing: the session is over.
    Nothing,
    /// Nothing, and the session ends: it has been used before.
    Reused,
}

impl Standing {
    /// The token that follows: the one that followed a moment ago, by whichever master key of the ring, or a new one.
    pub fn successor(&self, token: &RefreshToken, vault: &Vault) -> RefreshToken {
        let given = token.successors(vault).find(|it| *self.token_hash == it.hash());
        given.unwrap_or_else(|| token.successor(vault))
    }

    /// What a token of the session's family is worth at a moment.
    pub fn judge(&self, token: &RefreshToken, successor: &RefreshToken, now: DateTime<Utc>) -> Worth {
        let is = |hash: &[u8], token: &RefreshToken| *hash == token.hash();
        if self.ended || now >= self.expires_at || now >= self.idle_at {
            return Worth::Nothing;
        }
        if is(&self.token_hash, token) {
            return Worth::Successor;
        }
        let previous = self.previous_hash.as_ref().is_some_and(|hash| is(hash, token));
        if !previous || now - self.last_used_at > GRACE {
            return Worth::Reused;
        }
        // A master key that has left the ring made another successor, which is nobody's fault.
        match is(&self.token_hash, successor) {
            true => Worth::SameSuccessor,
            false => Worth::Nothing,
        }
    }
}

/// What a session gives to whoever begins or refreshes it.
#[derive(Debug)]
pub struct Ticket {
    /// See [`crate::auth::Viewer::session_id`].
    pub session_id: Uuid,
    /// See [`crate::auth::Viewer::token_id`].
    pub token_id: Uuid,
    /// When the session ends if nobody refreshes it.
    pub ends_at: DateTime<Utc>,
    /// Good for one refresh.
    pub refresh_token: RefreshToken,
}

/// A refresh token: a part that all of the session have in common, by which it is found, and a part of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(String);

impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefreshToken").finish_non_exhaustive()
    }
}

impl RefreshToken {
    /// The first of a session.
    pub fn generate() -> Self {
        Self(format!(
            "{MARK}{}{}",
            crypto::random_token(),
            crypto::random_token()
        ))
    }

    /// What a client sent, if it has the form of a refresh token.
    pub fn parse(text: &str) -> Option<Self> {
        let parts = text.strip_prefix(MARK)?;
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (parts.len() == 2 * PART && parts.bytes().all(letters)).then(|| Self(text.to_owned()))
    }

    /// The token that follows this one. It is the same each time, so that it need not be kept to be given again, and
    /// nobody else can tell it.
    pub fn successor(&self, vault: &Vault) -> Self {
        self.successor_by(&vault.derive(SUCCESSORS))
    }

    /// As [`RefreshToken::successor`], by each master key of the ring.
    fn successors(&self, vault: &Vault) -> impl Iterator<Item = Self> {
        let keys = vault.derive_of_each(SUCCESSORS);
        keys.map(|key| self.successor_by(&key))
    }

    fn successor_by(&self, key: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let own = hmac::sign(&key, self.0.as_bytes());
        Self(format!(
            "{}{}",
            &self.0[..MARK.len() + PART],
            URL_SAFE_NO_PAD.encode(own.as_ref())
        ))
    }

    /// As the client gets it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> [u8; 32] {
        crypto::token_hash(&self.0)
    }

    /// What is kept of the part that all of the session have in common.
    pub fn family_hash(&self) -> [u8; 32] {
        crypto::token_hash(&self.0[..MARK.len() + PART])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn a_successor_is_of_the_same_family_and_of_the_same_vault() {
        let vault = |secret| Vault::new([MasterKey::of_secret(secret)]).unwrap();
        let (ours, theirs) = (vault(b"ours"), vault(b"theirs"));
        let first = RefreshToken::generate();
        let second = first.successor(&ours);
        assert_eq!(second, first.successor(&ours));
        assert_ne!(second, first.successor(&theirs));
        assert_eq!(second.family_hash(), first.family_hash());
        assert_ne!(second.hash(), first.hash());
        assert_ne!(second.successor(&ours), second);
        for token in [&first, &second] {
            assert_eq!(RefreshToken::parse(token.expose()), Some((*token).clone()));
        }
        assert_ne!(first.family_hash(), RefreshToken::generate().family_hash());
        assert!(!format!("{first:?}").contains(&first.0[4..]));
    }

    #[test]
    fn who_lost_an_answer_gets_the_same_again_while_the_master_key_changes() {
        let key = |name: &str| {
            let bytes = STANDARD.encode(crypto::hash(name.as_bytes()));
            MasterKey::parse(&format!("{name}:{bytes}")).unwrap()
        };
        let before = Vault::new([key("old"), key("new")]).unwrap();
        let after = Vault::new([key("new"), key("old")]).unwrap();
        let first = RefreshToken::generate();
        let given = first.successor(&before);
        let now = Utc::now();
        let standing = Standing {
            token_hash: given.hash().to_vec(),
            previous_hash: Some(first.hash().to_vec()),
            last_used_at: now,
            expires_at: now + TimeDelta::hours(1),
            idle_at: now + TimeDelta::hours(1),
            ended: false,
        };
        let again = standing.successor(&first, &after);
        assert_eq!(again, given);
        assert_eq!(standing.judge(&first, &again, now), Worth::SameSuccessor);
        // What follows next is of the new key.
        assert_eq!(standing.successor(&given, &after), given.successor(&after));
        let gone = Vault::new([key("new")]).unwrap();
        let other = standing.successor(&first, &gone);
        assert_eq!(standing.judge(&first, &other, now), Worth::Nothing);
    }

    #[test]
    fn only_what_has_the_form_of_a_refresh_token_is_one() {
        let good = RefreshToken::generate().0;
        let long = good.clone() + "A";
        let spaced = format!(" {good}");
        let umlaut = format!("{}ä", &good[..good.len() - 2]);
        for bad in [
            "",
            MARK,
            &good[4..],
            &good[..good.len() - 1],
            &long,
            &spaced,
            &umlaut,
        ] {
            assert_eq!(RefreshToken::parse(bad), None, "{bad}");
        }
    }
}
