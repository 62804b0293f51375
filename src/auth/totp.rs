//! Codes by time (RFC 6238): six digits of HMAC-SHA-1 and steps of 30 seconds, as every authenticator app has them.

use chrono::{DateTime, Utc};
use totp_rs::Builder;

use crate::crypto;
use crate::error::{Error, Result};

/// Bytes of a secret: as many as the hash has (RFC 4226, section 4).
const SECRET: usize = 20;

/// Seconds of a step.
const STEP: u64 = 30;

/// Steps before and after the current one whose codes are taken too: clocks differ, and people take their time.
const SKEW: u16 = 1;

/// Digits of a code.
const DIGITS: u8 = 6;

/// The name that apps show beside the person's address.
const ISSUER: &str = "Dealstream";

/// What makes the codes of one person.
pub struct Totp(totp_rs::Totp);

impl Totp {
    /// With a new secret, for whoever signs in with this address.
    ///
    /// # Errors
    /// Only for faults of ours.
    pub fn generate(email: &str) -> Result<Self> {
        Self::of(&crypto::random_bytes::<SECRET>(), email)
    }

    /// With the secret that is kept.
    ///
    /// # Errors
    /// When the secret cannot be one.
    pub fn of(secret: &[u8], email: &str) -> Result<Self> {
        let totp = Builder::new()
            .with_secret(secret)
            .with_digits(DIGITS)
            .with_skew(SKEW)
            .with_step_duration(STEP)
            // A colon would end the issuer's name in the URI.
            .with_account_name(email.replace(':', " "))
            .with_issuer(Some(ISSUER))
            .build();
        // What the library says of it could name the secret.
        Ok(Self(totp.map_err(|_| {
            Error::internal("a secret for codes by time is unfit")
        })?))
    }

    /// The secret, to be sealed and kept.
    pub fn secret(&self) -> &[u8] {
        self.0.secret().as_ref()
    }

    /// The secret as people type it.
    pub fn base32(&self) -> String {
        self.0.secret().to_base32()
    }

    /// The `otpauth://` URI that apps read from a QR code.
    ///
    /// # Errors
    /// Only for faults of ours.
    pub fn uri(&self) -> Result<String> {
        self.0
            .to_url()
            .map_err(|_| Error::internal("no URI for an authenticator app"))
    }

    /// The step whose code this is, when it is near enough to `now`. Whoever takes the code makes sure that no code of
    /// this step, or one before it, is taken again.
    pub fn step_of(&self, code: &str, now: DateTime<Utc>) -> Option<i64> {
        let seconds = u64::try_from(now.timestamp()).ok()?;
        i64::try_from(self.0.check(code, seconds)?).ok()
    }
}

/// Whether it has the form of a code by time, rather than of a recovery code.
pub fn is_code(text: &str) -> bool {
    text.len() == usize::from(DIGITS) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn the_codes_are_those_of_rfc_6238() {
        let totp = Totp::of(b"12345678901234567890", "ada@test.example").unwrap();
        // Appendix B, SHA-1: the last six of its eight digits.
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(totp.step_of(code, at(seconds)), Some(seconds / 30), "{seconds}");
        }
    }

    #[test]
    fn a_code_is_good_for_its_own_step_and_its_neighbours() {
        let totp = Totp::of(b"12345678901234567890", "ada@test.example").unwrap();
        let own = 1_111_111_111 / 30;
        for (offset, taken) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let step = totp.step_of("050471", at((own + offset) * 30));
            assert_eq!(step, taken.then_some(own), "{offset}");
        }
    }

    #[test]
    fn what_is_no_code_is_none() {
        let totp = Totp::of(b"12345678901234567890", "ada@test.example").unwrap();
        for text in ["", "50471", "+50471", "0050471", "050 471", "05047١", "050472"] {
            assert_eq!(totp.step_of(text, at(1_111_111_111)), None, "{text}");
        }
    }

    #[test]
    fn apps_are_told_who_and_what() {
        let totp = Totp::of(b"12345678901234567890", "ada:b@test.example").unwrap();
        let uri = totp.uri().unwrap();
        assert!(uri.starts_with("otpauth://totp/Dealstream:ada"), "{uri}");
        assert!(uri.contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"), "{uri}");
        assert_eq!(totp.base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_ne!(
            Totp::generate("a").unwrap().secret(),
            Totp::generate("a").unwrap().secret()
        );
    }
}
