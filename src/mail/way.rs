//! How mail leaves the house.

use std::fmt;
use std::time::Duration;

use lettre::transport::smtp::Error as SmtpError;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::letter::{Writer, Written};
use crate::config::Config;
use crate::error::Error;

/// How long the mail server may take for each step.
const STEP: Duration = Duration::from_secs(20);

/// How mail leaves the house.
pub enum Way {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    /// Into the log, for who runs the server on their own machine and can read it.
    Log,
    None,
}

/// Why a mail did not leave. Nothing of what the mail server said is in it but its number: it may repeat the address.
#[derive(Debug)]
pub enum Failure {
    /// The mail server refused it and would do so again.
    Refused(u16),
    /// The mail server refused it for now, or does not let us in.
    NotNow(u16),
    /// The mail server cannot be reached, or not securely.
    Away,
    /// The mail server did not answer: it may or may not have taken the mail.
    Silent,
    /// A fault of ours, or of the database.
    Ours(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "the mail server refused it ({code})"),
            Self::NotNow(code) => write!(f, "the mail server does not take it now ({code})"),
            Self::Away => f.write_str("the mail server cannot be reached"),
            Self::Silent => f.write_str("the mail server did not answer"),
            Self::Ours(error) => write!(f, "{}", error.message()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<SmtpError> for Failure {
    fn from(error: SmtpError) -> Self {
        /// Answers about us and not about the mail (RFC 4954 and RFC 3207).
        const NOT_LET_IN: [u16; 6] = [421, 454, 530, 534, 535, 538];
        let code = error.status().map(u16::from);
        match code {
            Some(code) if error.is_permanent() && !NOT_LET_IN.contains(&code) => Self::Refused(code),
            Some(code) => Self::NotNow(code),
            None if error.is_timeout() => Self::Silent,
            None => Self::Away,
        }
    }
}

impl Way {
    /// The way that is configured.
    ///
    /// # Errors
    /// A sentence for the operator, without the URL: a password may be in it.
    pub fn new(config: &Config) -> Result<Self, String> {
        let Some(url) = &config.smtp_url else {
            return Ok(match config.database_url {
                None => Self::Log,
                Some(_) => Self::None,
            });
        };
        let url = url.expose_secret();
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(|_| {
            "SMTP_URL cannot be read: it looks like smtps://user:password@mail.example.com, with \
             special characters of the password percent-encoded."
                .to_owned()
        })?;
        if sends_a_password_in_the_clear(url) {
            return Err(
                "SMTP_URL would send its password unencrypted: use smtps://, or add ?tls=required."
                    .to_owned(),
            );
        }
        Ok(Self::Smtp(Box::new(builder.timeout(Some(STEP)).build())))
    }

    /// Sends one mail, or logs its link.
    pub async fn send(
        &self,
        writer: &Writer,
        id: Uuid,
        kind: &'static str,
        to: &str,
        written: Written,
    ) -> Result<(), Failure> {
        match self {
            Self::Smtp(transport) => {
                let message = writer.message(id, to, written)?;
                transport.send(message).await?;
                tracing::debug!(mail = %id, kind, "a mail was sent");
            }
            Self::Log => match written.link {
                Some(link) => tracing::info!(
                    kind,
                    link,
                    "no mail server is set; this link would have been mailed"
                ),
                None => tracing::info!(
                    kind,
                    "no mail server is set; a mail without a link would have been sent"
                ),
            },
            Self::None => {}
        }
        Ok(())
    }
}

/// Whether a URL has a password and asks for no encryption on a way that others share.
fn sends_a_password_in_the_clear(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((_, host)) = authority.rsplit_once('@') else {
        return false;
    };
    let local = ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|name| host == *name || host.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')));
    !scheme.eq_ignore_ascii_case("smtps") && !rest.contains("tls=required") && !local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(url: &str) -> Result<Way, String> {
        let config = Config {
            smtp_url: Some(url.to_owned().into()),
            ..Config::defaults()
        };
        Way::new(&config)
    }

    #[tokio::test]
    async fn a_password_goes_over_no_open_line() {
        for good in [
            "smtps://user:secret@mail.example.com",
            "smtp://user:secret@mail.example.com?tls=required",
            "smtp://user:secret@localhost:2525",
            "smtp://user:secret@[::1]:2525",
            "smtp://mail.example.com:25",
        ] {
            assert!(matches!(way(good), Ok(Way::Smtp(_))), "{good}");
        }
        for bad in [
            "smtp://user:secret@mail.example.com",
            "smtp://user:secret@mail.example.com:587?tls=opportunistic",
            "smtp://user:secret@localhost.example.com",
            "http://user:secret@mail.example.com",
            "mail.example.com:secret",
            "",
        ] {
            let problem = way(bad).err().unwrap_or_default();
            assert!(
                problem.contains("SMTP_URL") && !problem.contains("secret"),
                "{bad}: {problem}"
            );
        }
    }

    #[test]
    fn without_a_server_links_go_to_the_log_of_ones_own_machine_only() {
        assert!(matches!(Way::new(&Config::defaults()), Ok(Way::Log)));
        let shared = Config {
            database_url: Some("postgres://localhost/x".to_owned()),
            ..Config::defaults()
        };
        assert!(matches!(Way::new(&shared), Ok(Way::None)));
    }
}
