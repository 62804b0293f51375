//! What stands between a first factor and a session.

use async_graphql::Enum;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use uuid::Uuid;

use super::super::SignedIn;
use crate::auth::{Viewer, totp};
use crate::crypto;
use crate::db::directory::Account;
use crate::db::id::Kind;
use crate::db::schema::pending_sign_ins;
use crate::db::sealed::SECOND_FACTOR;

/// Minutes that one has for the second factor.
pub(super) const PENDING: TimeDelta = TimeDelta::minutes(5);

/// Codes that may be tried with one token.
pub(super) const TRIES: i32 = 5;

/// Recovery codes that one is given.
const RECOVERY_CODES: usize = 10;

/// Letters of a recovery code without its dashes: a hundred bits.
const RECOVERY_LETTERS: usize = 20;

/// Letters and digits that are not mistaken for each other (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A person's second factor, as the history of a tenant tells of it: by their id there.
pub struct SecondFactor;

impl Kind for SecondFactor {
    const PREFIX: &'static str = "second_factor";
}

/// What somebody has shown who wants to get into a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A first factor: a password, or that another provider knows them.
    FirstFactor,
    /// A first factor, and the second that they have.
    BothFactors,
    /// A session that goes on: as good as what it was begun with, and for no longer.
    Session { tenant_id: Uuid, session_id: Uuid },
}

impl By {
    /// The viewer's session.
    pub fn session_of(viewer: &Viewer) -> Self {
        Self::Session {
            tenant_id: viewer.tenant_id,
            session_id: viewer.session_id,
        }
    }
}

/// Who has come to the gate of a tenant with a first factor.
pub enum Admitted {
    /// They are in.
    SignedIn(Box<SignedIn>),
    /// They have to show, or to set up, a second factor.
    Pending(PendingSignIn),
}

impl From<SignedIn> for Admitted {
    fn from(signed_in: SignedIn) -> Self {
        Self::SignedIn(Box::new(signed_in))
    }
}

/// What `signIn` answers instead of a session.
pub struct PendingSignIn {
    pub(super) token: String,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) methods: &'static [SecondFactorMethod],
}

/// How a sign-in is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum SecondFactorMethod {
    /// With a code of the authenticator app, by `verifySecondFactor`.
    Totp,
    /// With one of the recovery codes, by `verifySecondFactor`.
    RecoveryCode,
    /// The tenant wants a second factor and you have none: set it up with `beginTotpEnrolment` and
    /// `confirmTotpEnrolment`, which both take the token.
    Enrol,
}

/// Who has shown the first factor, as it is kept.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = pending_sign_ins)]
pub(super) struct Pending {
    pub user_id: Uuid,
    pub password_state: Vec<u8>,
    pub enrols: bool,
}

/// What changes with the password.
pub(super) fn password_state(account: &Account) -> [u8; 32] {
    crypto::token_hash(&account.password_hash)
}

/// A token for a pending sign-in: it names the tenant, within which its hash is looked for.
pub(super) fn new_token(tenant: Uuid) -> String {
    let mut bytes = tenant.as_bytes().to_vec();
    bytes.extend_from_slice(&crypto::random_bytes::<32>());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The tenant of a token, if it is one.
pub(super) fn tenant_of(token: &str) -> Option<Uuid> {
    // 48 bytes in base 64; what is longer is not even decoded.
    let bytes = (token.len() == 64).then(|| URL_SAFE_NO_PAD.decode(token).ok())??;
    Uuid::from_slice(bytes.get(..16)?).ok()
}

/// What somebody typed to prove themselves.
pub(super) enum Code {
    Totp(String),
    /// By its hash.
    Recovery([u8; 32]),
    /// Neither can look like this.
    Neither,
}

impl Code {
    /// Takes white space and dashes out, and letters for digits that are read as such.
    pub fn read(text: &str) -> Self {
        if text.len() > 100 {
            return Self::Neither;
        }
        let plain: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        if totp::is_code(&plain) {
            return Self::Totp(plain);
        }
        let letters: String = plain
            .chars()
            .map(|c| match c.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                c => c,
            })
            .collect();
        if letters.len() == RECOVERY_LETTERS && letters.bytes().all(|c| ALPHABET.contains(&c)) {
            return Self::Recovery(crypto::token_hash(&letters));
        }
        Self::Neither
    }
}

/// New recovery codes, as they are shown, and as they are kept.
pub(super) fn new_recovery_codes() -> (Vec<String>, Vec<[u8; 32]>) {
    let code = |_| {
        let letters: String = crypto::random_bytes::<RECOVERY_LETTERS>()
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
            .collect();
        let groups: Vec<&str> = (0..RECOVERY_LETTERS)
            .step_by(5)
            .map(|at| &letters[at..at + 5])
            .collect();
        (groups.join("-"), crypto::token_hash(&letters))
    };
    (0..RECOVERY_CODES).map(code).unzip()
}

/// What the sealed secret of an account is bound to.
pub(super) fn sealing_context(account: Uuid) -> String {
    SECOND_FACTOR.of(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_code_is_known_however_it_is_typed() {
        let (shown, kept) = new_recovery_codes();
        assert_eq!((shown.len(), kept.len()), (RECOVERY_CODES, RECOVERY_CODES));
        for (shown, kept) in shown.iter().zip(&kept) {
            let typed = shown
                .to_uppercase()
                .replace('-', " ")
                .replace('0', "O")
                .replace('1', "l");
            for text in [shown.clone(), typed, format!(" {shown}\n")] {
                assert!(
                    matches!(Code::read(&text), Code::Recovery(hash) if hash == *kept),
                    "{text}"
                );
            }
        }
        let mut different = shown.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), RECOVERY_CODES);
    }

    #[test]
    fn codes_are_told_apart_by_their_form() {
        assert!(matches!(Code::read("123 456"), Code::Totp(code) if code == "123456"));
        for text in [
            "",
            "12345",
            "1234567",
            "abcde-fghjk-mnpqr",
            "abcde-fghjk-mnpqr-stvwu",
            "١٢٣٤٥٦",
            &"1".repeat(1000),
        ] {
            assert!(matches!(Code::read(text), Code::Neither), "{text:.30}");
        }
    }

    #[test]
    fn a_token_names_its_tenant() {
        let tenant = Uuid::now_v7();
        let token = new_token(tenant);
        assert_eq!(tenant_of(&token), Some(tenant));
        assert_ne!(new_token(tenant), token);
        for text in [
            "",
            "A",
            &token[1..],
            &format!("{token}A"),
            &"!".repeat(64),
            &"é".repeat(32),
        ] {
            assert_eq!(tenant_of(text), None, "{text}");
        }
        assert!(new_token(Uuid::nil()).starts_with("AAAA"));
    }
}
