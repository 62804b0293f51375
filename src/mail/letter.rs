//! What is written to people, and to whom.

use std::time::Duration;

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Config;
use crate::db::Database;
use crate::db::directory::mailing::Purpose;
use crate::db::directory::people;
use crate::error::{Error, Result};

/// How long links are good that give an account to who follows them.
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is to be written. It holds no token: that is made when it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub enum Letter {
    /// To who is invited into a tenant.
    Invitation { tenant_id: Uuid, invitation_id: Uuid },
    /// To who has forgotten their password, if anybody has this address.
    PasswordReset { email: String },
    /// To who is to prove that their address is theirs.
    EmailVerification { account_id: Uuid, email: String },
    /// To who wants to found a tenant, with what they want to found; to who has the address already, if somebody has.
    SignUp { email: String, form: serde_json::Value },
}

/// To whom a letter goes, and what it says.
pub struct Envelope {
    pub to: String,
    pub to_name: Option<String>,
    subject: String,
    before: Vec<String>,
    after: Vec<String>,
    pub link: Option<LinkTo>,
}

/// A link in a letter, before it has a token.
pub struct LinkTo {
    pub purpose: Purpose,
    pub account_id: Option<Uuid>,
    pub invitation: Option<(Uuid, Uuid)>,
    pub sealed: Option<Vec<u8>>,
    pub lasts: Duration,
    label: &'static str,
    page: &'static str,
}

impl Letter {
    /// What it is, for the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Invitation { .. } => "invitation",
            Self::PasswordReset { .. } => "password reset",
            Self::EmailVerification { .. } => "e-mail verification",
            Self::SignUp { .. } => "sign-up",
        }
    }

    /// How long it makes sense to go on trying.
    pub fn patience(&self) -> Duration {
        match self {
            Self::PasswordReset { .. } => HOUR,
            _ => DAY,
        }
    }

    /// Finds out to whom it goes and what it says; nothing when there is nobody to be written to.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn address(&self, db: &Database) -> Result<Option<Envelope>> {
        Ok(match self {
            Self::Invitation {
                tenant_id,
                invitation_id,
            } => people::invited(db, *tenant_id, *invitation_id)
                .await?
                .map(invitation),
            Self::PasswordReset { email } => people::address(db, email).await?.map(password_reset),
            Self::EmailVerification { account_id, email } => people::address(db, email)
                .await?
                .filter(|address| address.account_id == *account_id && !address.is_verified)
                .map(email_verification),
            Self::SignUp { email, form } => Some(match people::address(db, email).await? {
                None => sign_up(email, form)?,
                Some(_) => known_already(email),
            }),
        })
    }
}

fn invitation(invited: people::Invited) -> Envelope {
    let tenant = line(&invited.tenant_name);
    let inviter = invited
        .inviter_name
        .as_deref()
        .map_or_else(|| "Somebody".to_owned(), line);
    let left = (invited.expires_at - chrono::Utc::now())
        .to_std()
        .unwrap_or_default();
    Envelope {
        subject: format!("{inviter} invites you to {tenant}"),
        before: vec![format!("{inviter} invites you to work with {tenant} in Dealstream.")],
        after: vec![
            "The link can be used once, until the invitation ends. If you did not expect it, you need not do anything."
                .to_owned(),
        ],
        link: Some(LinkTo {
            purpose: Purpose::Invitation,
            account_id: None,
            invitation: Some((invited.tenant_id, invited.invitation_id)),
            sealed: None,
            lasts: left,
            label: "Accept the invitation",
            page: "invitation",
        }),
        to: invited.email,
        to_name: invited.name,
    }
}

fn password_reset(address: people::Address) -> Envelope {
    Envelope {
        subject: "A new password for Dealstream".to_owned(),
        before: vec!["Somebody, probably you, asked for a new password for this address.".to_owned()],
        after: vec![
            "The link can be used once, within one hour. It ends all your sessions. If it was not you, you need not do \
             anything: your password stays as it is."
                .to_owned(),
        ],
        link: Some(LinkTo {
            purpose: Purpose::PasswordReset,
            account_id: Some(address.account_id),
            invitation: None,
            sealed: None,
            lasts: HOUR,
            label: "Choose a new password",
            page: "reset-password",
        }),
        to: address.email,
        to_name: None,
    }
}

fn email_verification(address: people::Address) -> Envelope {
    Envelope {
        subject: "Is this your address?".to_owned(),
        before: vec!["Please confirm that this is your address. You have to be signed in for it.".to_owned()],
        after: vec![
            "The link can be used once, within one hour. If you have no account with us, somebody has given your address \
             by mistake: do not follow it."
                .to_owned(),
        ],
        link: Some(LinkTo {
            purpose: Purpose::EmailVerification,
            account_id: Some(address.account_id),
            invitation: None,
            sealed: None,
            lasts: HOUR,
            label: "Confirm the address",
            page: "verify-email",
        }),
        to: address.email,
        to_name: None,
    }
}

fn sign_up(email: &str, form: &serde_json::Value) -> Result<Envelope> {
    Ok(Envelope {
        subject: "Complete your sign-up".to_owned(),
        before: vec![
            "Somebody, probably you, signed up to Dealstream with this address. To complete it, follow the link and give \
             the password that you chose."
                .to_owned(),
        ],
        after: vec![
            "The link can be used once, within one day. If it was not you, you need not do anything.".to_owned(),
        ],
        link: Some(LinkTo {
            purpose: Purpose::SignUp,
            account_id: None,
            invitation: None,
            sealed: Some(serde_json::to_vec(form).map_err(Error::internal)?),
            lasts: DAY,
            label: "Complete the sign-up",
            page: "complete-sign-up",
        }),
        to: email.to_owned(),
        to_name: None,
    })
}

fn known_already(email: &str) -> Envelope {
    Envelope {
        subject: "You have an account already".to_owned(),
        before: vec![
            "Somebody, probably you, signed up to Dealstream with this address, which has an account already. Nothing has \
             been changed."
                .to_owned(),
            "Sign in with your password; if you have forgotten it, ask for a new one. To found another tenant, sign up with \
             the password that you have."
                .to_owned(),
        ],
        after: vec!["If it was not you, you need not do anything.".to_owned()],
        link: None,
        to: email.to_owned(),
        to_name: None,
    }
}

/// A letter in its two forms.
pub struct Written {
    to_name: Option<String>,
    subject: String,
    text: String,
    html: String,
    /// With its token.
    pub link: Option<String>,
}

/// Puts letters into words.
pub struct Writer {
    from: Mailbox,
    /// Where the links lead, without a slash at its end.
    public_url: String,
}

impl Writer {
    /// # Errors
    /// A sentence for the operator.
    pub fn new(config: &Config) -> Result<Self, String> {
        let from = match (&config.mail_from, &config.smtp_url) {
            (Some(from), _) => from.parse().map_err(
                |_| "DEALSTREAM_MAIL_FROM is not an address such as `Acme CRM <crm@acme.example>`.",
            )?,
            (None, Some(_)) => return Err("DEALSTREAM_MAIL_FROM is missing: mail needs a sender.".to_owned()),
            // Nothing is sent, then.
            (None, None) => Mailbox::new(
                None,
                Address::new("dealstream", "localhost").map_err(|error| error.to_string())?,
            ),
        };
        let public_url = match &config.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", config.listen_addr()),
        };
        let host = public_url
            .strip_prefix("https://")
            .or_else(|| public_url.strip_prefix("http://"))
            .unwrap_or_default();
        let sound = !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_graphic() && !"<>\"'#?\\".contains(c));
        if !sound {
            return Err(
                "DEALSTREAM_PUBLIC_URL is not an address such as https://crm.example.com, without ? and #."
                    .to_owned(),
            );
        }
        Ok(Self { from, public_url })
    }

    /// Writes a letter as text and as HTML. The token stands behind a `#`, which browsers keep to themselves: it is in no
    /// server's log and in no referrer.
    pub fn write(&self, envelope: &Envelope, token: Option<&str>) -> Written {
        let label = envelope.link.as_ref().map(|link| link.label).unwrap_or_default();
        let link = envelope
            .link
            .as_ref()
            .zip(token)
            .map(|(link, token)| format!("{}/{}#{token}", self.public_url, link.page));
        let mut text = String::new();
        let mut html = String::from("<!doctype html>\n<html><body>\n");
        let mut say = |line: &str| {
            text.push_str(line);
            text.push_str("\n\n");
            html.push_str(&format!("<p>{}</p>\n", escape(line)));
        };
        envelope.before.iter().for_each(|line| say(line));
        if let Some(link) = &link {
            text.push_str(&format!("{label}:\n{link}\n\n"));
            html.push_str(&format!("<p><a href=\"{}\">{label}</a></p>\n", escape(link)));
        }
        let mut say = |line: &str| {
            text.push_str(line);
            text.push_str("\n\n");
            html.push_str(&format!("<p>{}</p>\n", escape(line)));
        };
        envelope.after.iter().for_each(|line| say(line));
        html.push_str("</body></html>\n");
        Written {
            to_name: envelope.to_name.clone(),
            subject: envelope.subject.clone(),
            text: text.trim_end().to_owned() + "\n",
            html,
            link,
        }
    }

    /// A letter as it goes over the wire. What people typed comes into headers only through types that know their form.
    ///
    /// # Errors
    /// When the address is none, which is checked before anything is written down.
    pub fn message(&self, id: Uuid, to: &str, written: Written) -> Result<Message> {
        let to = Mailbox::new(
            written.to_name.as_deref().map(line),
            // The error repeats the address, which is nothing for a log.
            to.parse()
                .map_err(|_| Error::internal("not an address that mail can be sent to"))?,
        );
        Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(line(&written.subject))
            // Sent twice, it is recognised.
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .header(AutoSubmitted)
            .multipart(MultiPart::alternative_plain_html(written.text, written.html))
            .map_err(|_| Error::internal("a mail could not be put together"))
    }
}

/// Tells automatic answerers to keep quiet (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A text as one line of bounded length. What comes here was checked when it was typed; this holds whatever comes here.
fn line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(200).collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, tenant: &str) -> Written {
        let invited = people::Invited {
            tenant_id: Uuid::nil(),
            tenant_name: tenant.to_owned(),
            invitation_id: Uuid::nil(),
            email: "guest@test.example".to_owned(),
            name: Some(name.to_owned()),
            inviter_id: None,
            inviter_name: Some(name.to_owned()),
            expires_at: chrono::Utc::now() + chrono::TimeDelta::days(7),
            account_id: None,
            password_hash: None,
            is_verified: false,
        };
        writer().write(&invitation(invited), Some("TOKEN"))
    }

    fn writer() -> Writer {
        let config = Config {
            mail_from: Some("Acme CRM <crm@acme.example>".to_owned()),
            public_url: Some("https://crm.example.com/".to_owned()),
            ..Config::defaults()
        };
        Writer::new(&config).unwrap()
    }

    /// The message's headers, unfolded, each with its name.
    fn headers(message: &Message) -> Vec<String> {
        let text = String::from_utf8(message.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.replace("\r\n", "").contains(['\r', '\n']));
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        unfolded.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn what_people_type_adds_no_header_and_no_recipient() {
        for hostile in [
            "Eve\r\nBcc: victim@test.example",
            "Eve\nBcc: victim@test.example",
            "Eve\rBcc: victim@test.example",
            "Eve\r\n\r\nBody",
            "Eve\0\u{85}\u{2028}Bcc: victim@test.example",
            "\"Eve\" <victim@test.example>, x",
            "=?utf-8?q?Eve=0D=0ABcc:_victim@test.example?=",
            &"é\r\n ".repeat(500),
        ] {
            let written = written(hostile, hostile);
            let message = writer()
                .message(Uuid::now_v7(), "guest@test.example", written)
                .unwrap();
            let names: Vec<String> = headers(&message)
                .iter()
                .map(|header| header.split_once(':').unwrap().0.to_ascii_lowercase())
                .collect();
            let mut expected = vec![
                "auto-submitted",
                "content-type",
                "date",
                "from",
                "message-id",
                "mime-version",
                "subject",
                "to",
            ];
            let mut found: Vec<&str> = names.iter().map(String::as_str).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{hostile:?}");
            let to: Vec<&str> = message.envelope().to().iter().map(AsRef::as_ref).collect();
            assert_eq!(to, ["guest@test.example"], "{hostile:?}");
        }
    }

    #[test]
    fn what_people_type_is_text_in_html() {
        let written = written("<script>alert('1')</script>", "A & \"B\"");
        assert!(!written.html.contains("<script>"));
        assert!(
            written
                .html
                .contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;")
        );
        assert!(written.html.contains("A &amp; &quot;B&quot;"));
        assert!(written.text.contains("A & \"B\""));
        assert_eq!(
            written.link.as_deref(),
            Some("https://crm.example.com/invitation#TOKEN")
        );
        assert!(
            written
                .text
                .contains("https://crm.example.com/invitation#TOKEN\n")
        );
    }

    #[test]
    fn the_settings_of_mail_are_checked_at_start() {
        let with = |from: Option<&str>, url: Option<&str>, smtp: bool| {
            Writer::new(&Config {
                mail_from: from.map(str::to_owned),
                public_url: url.map(str::to_owned),
                smtp_url: smtp.then(|| "smtp://localhost".to_owned().into()),
                ..Config::defaults()
            })
        };
        assert!(with(None, None, false).is_ok());
        assert!(with(Some("crm@acme.example"), Some("http://localhost:3000/app"), true).is_ok());
        assert!(with(None, None, true).is_err());
        assert!(with(Some("Acme"), None, true).is_err());
        for url in [
            "crm.example.com",
            "javascript:alert(1)",
            "https://",
            "https://a\"b",
            "https://a/#x",
            "https://a b",
        ] {
            assert!(with(None, Some(url), false).is_err(), "{url}");
        }
    }
}
