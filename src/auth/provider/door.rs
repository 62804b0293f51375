//! Where people go out to a provider, and come in again.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use subtle::ConstantTimeEq;

use super::super::Origin;
use super::super::refusal::{self, Hears, Reason};
use super::{Fault, Person, Provider, Providers, Secrets};
use crate::crypto::{self, Vault};
use crate::db::Database;
use crate::db::directory::identities::{self, Identity, Proof, Visit};
use crate::db::sealed::PROVIDER_VISIT;
use crate::error::{Error, Result};

/// How long somebody may be at a provider.
const AWAY: TimeDelta = TimeDelta::minutes(10);

/// How long the page may take to turn a code into a session.
const PROOF: TimeDelta = TimeDelta::minutes(2);

/// Letters of a code from a provider at most.
const MAX_CODE: usize = 4096;

/// What a browser is told: where to go, and what to keep until it comes back.
pub struct Answer {
    pub location: String,
    /// What goes into the `Set-Cookie` header.
    pub cookie: String,
}

/// What a browser brings back from a provider.
#[derive(Debug, Default)]
pub struct Return {
    pub state: String,
    pub code: Option<String>,
    /// What the provider says when there is no code.
    pub error: Option<String>,
    /// The provider, if it names itself (RFC 9207).
    pub issuer: Option<String>,
    /// The `Cookie` headers.
    pub cookies: Vec<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Why somebody is sent back without a code. Pages switch on it.
enum Refusal {
    /// They, or the provider, did not want to.
    Denied,
    /// The provider did not answer as it should, or something was forged.
    Failed,
    /// The provider does not say that they have a verified address.
    Unverified,
    /// Nobody here is known by this, or may enter any tenant.
    Unknown,
}

impl Refusal {
    fn name(&self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Unverified => "unverified_email",
            Self::Unknown => "unknown_user",
        }
    }
}

/// Where people go out to providers and come in again.
pub struct Door {
    providers: Arc<Providers>,
    db: Database,
    vault: Arc<Vault>,
    hears: Hears,
}

fn sealing_context(state_hash: &[u8; 32]) -> String {
    PROVIDER_VISIT.of(URL_SAFE_NO_PAD.encode(state_hash))
}

fn ended() -> Error {
    Error::BadInput("This sign-in has ended, or was begun in another browser. Begin again.".to_owned())
}

impl Door {
    /// A door to these providers. Who is refused although they are known is told of to `hears`.
    pub fn new(providers: Arc<Providers>, db: Database, vault: Arc<Vault>, hears: Hears) -> Self {
        Self {
            providers,
            db,
            vault,
            hears,
        }
    }

    fn provider(&self, name: &str) -> Result<&Provider> {
        let found = self.providers.find(name);
        found.ok_or(Error::NotFound("way to sign in"))
    }

    /// The cookie that ties a visit to a browser. Under its prefix no other host, and no page without TLS, can set it.
    fn cookie_name(&self) -> &'static str {
        match self.providers.is_secure {
            true => "__Host-dealstream-visit",
            false => "dealstream-visit",
        }
    }

    fn cookie(&self, value: &str, seconds: i64) -> String {
        let secure = if self.providers.is_secure { "; Secure" } else { "" };
        let name = self.cookie_name();
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
    }

    /// Sends somebody to a provider, to come back to a page.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such provider; [`Error::BadInput`] for a page that is not in the settings, or
    /// without a challenge; [`Error::Unavailable`] when the provider does not answer.
    pub async fn send(&self, name: &str, return_to: &str, challenge: &str) -> Result<Answer> {
        let provider = self.provider(name)?;
        if !self.providers.return_urls.iter().any(|url| url == return_to) {
            let message = "return_to has to be one of the pages in DEALSTREAM_RETURN_URLS.";
            return Err(Error::BadInput(message.to_owned()));
        }
        let challenge = match challenge.len() {
            43 => URL_SAFE_NO_PAD.decode(challenge).unwrap_or_default(),
            _ => Vec::new(),
        };
        if challenge.len() != 32 {
            let message = "challenge has to be the SHA-256 of a verifier in base64url, of 43 letters.";
            return Err(Error::BadInput(message.to_owned()));
        }
        let (state, browser) = (crypto::random_token(), crypto::random_token());
        let secrets = Secrets {
            nonce: crypto::random_token(),
            verifier: crypto::random_token(),
        };
        let location = provider.way(&state, &secrets).await.map_err(|fault| {
            tracing::warn!(provider = name, %fault, "nobody can be sent to a provider");
            Error::Unavailable
        })?;
        let state_hash = crypto::token_hash(&state);
        let secrets = serde_json::to_vec(&secrets).map_err(Error::internal)?;
        let visit = Visit {
            browser_hash: crypto::token_hash(&browser).to_vec(),
            provider: name.to_owned(),
            sealed: self.vault.seal(&sealing_context(&state_hash), &secrets)?,
            challenge,
            return_to: return_to.to_owned(),
        };
        identities::expect(&self.db, &state_hash, &visit, Utc::now() + AWAY).await?;
        Ok(Answer {
            location: location.into(),
            cookie: self.cookie(&browser, AWAY.num_seconds()),
        })
    }

    /// Takes in who comes back from a provider, and sends them on to their page, with a code or with the reason why not.
    ///
    /// # Errors
    /// [`Error::BadInput`] when nobody is expected, or somebody else: then there is no page to send them to.
    pub async fn receive(&self, name: &str, back: Return) -> Result<Answer> {
        let provider = self.provider(name)?;
        let state_hash = crypto::token_hash(&back.state);
        let visit = identities::take_visit(&self.db, &state_hash)
            .await?
            .ok_or_else(ended)?;
        let browser = cookie(&back.cookies, self.cookie_name()).map(crypto::token_hash);
        let same: bool = browser.is_some_and(|hash| hash.ct_eq(visit.browser_hash.as_slice()).into());
        if !same || visit.provider != name {
            tracing::warn!(target: "security", provider = name, "somebody came back in another's place");
            return Err(ended());
        }
        let result = match self.recognise(provider, &state_hash, &visit, back).await {
            Ok(code) => format!("code={code}"),
            Err(Refused::As(refusal)) => {
                tracing::warn!(target: "security", provider = name, reason = refusal.name(), "a provider's sign-in was refused");
                format!("error={}", refusal.name())
            }
            Err(Refused::Error(error)) => return Err(error),
        };
        Ok(Answer {
            location: format!("{}#{result}", visit.return_to),
            cookie: self.cookie("", 0),
        })
    }

    async fn recognise(
        &self,
        provider: &Provider,
        state_hash: &[u8; 32],
        visit: &Visit,
        back: Return,
    ) -> Result<String, Refused> {
        let code = match (back.code, back.error) {
            (Some(code), None) if code.len() <= MAX_CODE => code,
            (None, Some(_)) => return Err(Refusal::Denied.into()),
            _ => return Err(Refusal::Failed.into()),
        };
        let secrets = self.vault.open(&sealing_context(state_hash), &visit.sealed)?;
        let secrets: Secrets = serde_json::from_slice(&secrets).map_err(Error::internal)?;
        let person = provider.recognise(&code, back.issuer.as_deref(), secrets).await;
        let person = person.map_err(|fault: Fault| {
            tracing::warn!(provider = provider.name, %fault, "nobody was recognised");
            Refusal::Failed
        })?;
        let proof = self.know(provider, visit, person, &back.origin).await?;
        let code = crypto::random_token();
        let hash = crypto::token_hash(&code);
        identities::insert_proof(&self.db, &hash, &proof, Utc::now() + PROOF).await?;
        Ok(code)
    }

    /// The account of a person whom a provider has told us of.
    async fn know(
        &self,
        provider: &Provider,
        visit: &Visit,
        person: Person,
        origin: &Origin,
    ) -> Result<Proof, Refused> {
        let Person {
            issuer,
            subject,
            email,
        } = person;
        let refused = |account_id, reason| {
            let told = refusal::Refused {
                account_id,
                tenant_id: None,
                by: provider.name.to_owned(),
                reason,
            };
            (self.hears)(origin, told);
            Refusal::Unknown
        };
        let account = match identities::linked_to(&self.db, &issuer, &subject).await? {
            Some(known) => known.account_id,
            None => {
                // No address of ours is that long, and no text in PostgreSQL has a NUL.
                let email = email.filter(|email| email.len() <= 1000 && !email.contains('\0'));
                let email = email.ok_or(Refusal::Unverified)?;
                let candidate = identities::candidate(&self.db, &email, &issuer).await?;
                let candidate = candidate.ok_or(Refusal::Unknown)?;
                if candidate.is_linked {
                    return Err(refused(candidate.id, Reason::LinkedToAnother).into());
                }
                if !candidate.is_verified {
                    return Err(refused(candidate.id, Reason::AddressNotVerified).into());
                }
                candidate.id
            }
        };
        let found = identities::account(&self.db, account).await?;
        let (account, memberships) = found.ok_or(Refusal::Unknown)?;
        if memberships.is_empty() {
            return Err(refused(account.id, Reason::NotAdmitted).into());
        }
        Ok(Proof {
            challenge: visit.challenge.clone(),
            password_state: crypto::token_hash(&account.password_hash).to_vec(),
            identity: Identity {
                provider: provider.name.to_owned(),
                issuer,
                subject,
                email: account.email,
                account_id: account.id,
            },
        })
    }
}

enum Refused {
    As(Refusal),
    Error(Error),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::As(refusal)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The value of a cookie; nothing when it comes twice, because then one of the two is somebody else's.
fn cookie<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    let pairs = headers.iter().flat_map(|header| header.split(';'));
    let mut found = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(it, _)| *it == name)
        .map(|(_, value)| value);
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_and_only_once() {
        let headers = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let one = headers(&["a=1; visit=x", "visit2=y"]);
        assert_eq!(cookie(&one, "visit"), Some("x"));
        assert_eq!(cookie(&one, "isit"), None);
        assert_eq!(cookie(&headers(&["visit=x; visit=y"]), "visit"), None);
        assert_eq!(cookie(&headers(&["visit=x", "visit=y"]), "visit"), None);
        assert_eq!(cookie(&[], "visit"), None);
    }
}
