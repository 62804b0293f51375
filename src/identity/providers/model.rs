//! What the history of a tenant tells of other providers, and what a page proves.

use crate::crypto;
use crate::db::id::Kind;

/// That a person is known by another provider, as the history of a tenant tells of it: by their id there.
pub(super) struct Identity;

impl Kind for Identity {
    const PREFIX: &'static str = "identity";
}

/// Whether a verifier is the one of a challenge (RFC 7636, section 4.6).
pub(super) fn fits(verifier: &str, challenge: &[u8]) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (43..=128).contains(&verifier.len())
        && verifier.bytes().all(letters)
        && crypto::token_hash(verifier) == *challenge
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn a_verifier_fits_its_challenge_only() {
        // The example of RFC 7636, appendix B.
        let challenge = URL_SAFE_NO_PAD
            .decode("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
            .unwrap();
        assert!(fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", &challenge));
        for other in [
            "",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXj",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        ] {
            assert!(!fits(other, &challenge), "{other}");
        }
        // A short verifier could be guessed, whoever has chosen it.
        assert!(!fits("short", &crypto::token_hash("short")));
    }
}
