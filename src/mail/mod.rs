//! Mail to people: invitations, and links that prove an address.
//!
//! What is to be mailed is written down, sealed, in the transaction that is the reason for it ([`Mail::post_with`]), and
//! sent afterwards by whichever instance comes first: no request waits for a mail server, no mail is lost while one is
//! away, and nobody can tell from an answer or its time whether an address is known. The token of a link is made when the
//! mail is sent; only its hash is kept.

mod letter;
mod way;

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use letter::Letter;
use letter::{Envelope, Writer};
use way::{Failure, Way};

use crate::config::Config;
use crate::crypto::{self, Vault};
use crate::db::Database;
use crate::db::directory::mailing::{self, Claimed, NewLink};
use crate::db::sealed;
use crate::db::session::Transaction;
use crate::error::{Error, ProblemCode, Result};

/// Mails that are sent at the same time.
const AT_ONCE: i64 = 8;

/// How often mail that another instance has written down, or that is to be tried again, is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// How long sending one mail may take; shorter than it stays claimed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest time between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How long a mail is kept that cannot be read.
const UNREADABLE: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a mail is offered that the server refuses for good: it may have been misconfigured for a while.
const REFUSALS: i32 = 3;

/// Sends mail.
pub struct Mail {
    db: Database,
    vault: Arc<Vault>,
    writer: Writer,
    way: Way,
    /// The pause after the first failure; each further one doubles it.
    pause: Duration,
    /// How long a claim lasts.
    claim: Duration,
    news: Notify,
}

impl Mail {
    /// Mail as configured: by SMTP; without it links are logged when PostgreSQL is embedded, and nothing is sent otherwise.
    ///
    /// # Errors
    /// A sentence for the operator, without any password.
    pub fn new(config: &Config, db: Database, vault: Arc<Vault>) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            db,
            vault,
            writer: Writer::new(config)?,
            way: Way::new(config)?,
            pause: config.pace.mail,
            claim: config.pace.mail_claim,
            news: Notify::new(),
        }))
    }

    /// Refuses what cannot be done without mail.
    ///
    /// # Errors
    /// [`Error::Invalid`] when this server sends none.
    pub fn require(&self) -> Result<()> {
        if matches!(self.way, Way::None) {
            let message = "This server cannot send mail: its operator has to set SMTP_URL.";
            return Err(Error::invalid("", ProblemCode::NotAllowed, message));
        }
        Ok(())
    }

    /// Whether mail reaches people, and not only the log.
    pub fn is_real(&self) -> bool {
        matches!(self.way, Way::Smtp(_))
    }

    /// Writes a letter down in the transaction that is the reason for it. Call [`Mail::hurry`] after the commit.
    ///
    /// # Errors
    /// As [`Mail::require`], and when the database fails.
    pub async fn post_with(&self, tx: &Transaction, letter: &Letter) -> Result<()> {
        self.require()?;
        let (id, sealed) = self.seal(letter)?;
        mailing::post_with(tx, id, &sealed).await
    }

    /// Writes a letter down, to be sent soon.
    ///
    /// # Errors
    /// As [`Mail::require`], and when the database fails.
    pub async fn post(&self, letter: &Letter) -> Result<()> {
        self.require()?;
        let (id, sealed) = self.seal(letter)?;
        mailing::post(&self.db, id, &sealed).await?;
        self.hurry();
        Ok(())
    }

    /// Lets what has been written down be sent at once.
    pub fn hurry(&self) {
        self.news.notify_one();
    }

    /// Whether mail could be sent to an address.
    pub fn can_reach(email: &str) -> bool {
        email.parse::<lettre::Address>().is_ok()
    }

    /// Sends what has been written down, here or on other instances, until `stop`.
    pub async fn deliver(self: Arc<Self>, stop: CancellationToken) {
        if matches!(self.way, Way::None) {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.go_on() => {}
        }
    }

    async fn go_on(&self) {
        let look = LOOK.min(self.pause);
        let mut failing = false;
        loop {
            match mailing::claim(&self.db, AT_ONCE, self.claim).await {
                Ok(claimed) if claimed.is_empty() => {
                    failing = false;
                    tokio::select! {
                        () = self.news.notified() => {}
                        () = sleep(look) => {}
                    }
                }
                Ok(claimed) => {
                    failing = false;
                    join_all(claimed.iter().map(|mail| self.see_to(mail))).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(?error, "the mail that is to be sent cannot be read; trying on");
                    }
                    sleep(LOOK).await;
                }
            }
        }
    }

    fn seal(&self, letter: &Letter) -> Result<(Uuid, Vec<u8>)> {
        let id = Uuid::now_v7();
        let text = serde_json::to_vec(letter).map_err(Error::internal)?;
        Ok((id, self.vault.seal(&context(id), &text)?))
    }

    fn open(&self, mail: &Claimed) -> Result<Letter> {
        let text = self.vault.open(&context(mail.id), &mail.sealed)?;
        serde_json::from_slice(&text).map_err(Error::internal)
    }

    /// Sends one mail, and sees to it that it is tried again or forgotten.
    async fn see_to(&self, mail: &Claimed) {
        let letter = match self.open(mail) {
            Ok(letter) => letter,
            Err(error) => {
                // Another instance may have the master key that it was sealed by.
                tracing::error!(mail = %mail.id, ?error, "a mail cannot be read and is not sent from here");
                self.note(match mail.age > UNREADABLE.as_secs_f64() {
                    true => mailing::done(&self.db, mail.id).await,
                    false => mailing::again(&self.db, mail.id, self.pause_after(mail.attempts)).await,
                });
                return;
            }
        };
        let kind = letter.kind();
        let sent = timeout(PATIENCE, self.send(mail.id, &letter)).await;
        let failure = match sent.unwrap_or(Err(Failure::Silent)) {
            Ok(()) => {
                self.note(mailing::done(&self.db, mail.id).await);
                return;
            }
            Err(failure) => failure,
        };
        let too_old = mail.age > letter.patience().as_secs_f64();
        let refused = matches!(failure, Failure::Refused(_)) && mail.attempts >= REFUSALS;
        if too_old || refused {
            tracing::warn!(mail = %mail.id, kind, %failure, "a mail could not be sent and is given up");
            self.note(mailing::done(&self.db, mail.id).await);
            return;
        }
        tracing::warn!(mail = %mail.id, kind, %failure, "a mail could not be sent yet; it is tried again");
        let pause = self.pause_after(mail.attempts);
        self.note(mailing::again(&self.db, mail.id, pause).await);
    }

    fn pause_after(&self, attempts: i32) -> Duration {
        let doublings = u32::try_from(attempts - 1).unwrap_or_default().min(16);
        self.pause.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
    }

    /// What fails here is mended by itself: the claim ends, and the mail is taken again.
    fn note(&self, done: Result<()>) {
        if let Err(error) = done {
            tracing::warn!(?error, "a mail's state could not be kept");
        }
    }

    async fn send(&self, id: Uuid, letter: &Letter) -> Result<(), Failure> {
        let Some(envelope) = letter.address(&self.db).await? else {
            // What it was about is no more, or nobody is there to be written to.
            return Ok(());
        };
        let (token, hash) = match &envelope.link {
            Some(link) => {
                let token = crypto::random_token();
                let hash = crypto::token_hash(&token);
                self.keep_link(&envelope, link, hash).await?;
                (Some(token), Some(hash))
            }
            None => (None, None),
        };
        let written = self.writer.write(&envelope, token.as_deref());
        let sent = self
            .way
            .send(&self.writer, id, letter.kind(), &envelope.to, written)
            .await;
        if let (Err(failure), Some(hash)) = (&sent, hash)
            // Whoever was silent may have taken it.
            && !matches!(failure, Failure::Silent)
        {
            self.note(mailing::forget_link(&self.db, &hash).await);
        }
        sent
    }

    async fn keep_link(&self, envelope: &Envelope, link: &letter::LinkTo, hash: [u8; 32]) -> Result<()> {
        let lasts = TimeDelta::from_std(link.lasts).map_err(Error::internal)?;
        let sealed = link
            .sealed
            .as_ref()
            .map(|text| self.vault.seal(&link_context(&hash), text))
            .transpose()?;
        let link = NewLink {
            token_hash: hash,
            purpose: link.purpose,
            account_id: link.account_id,
            email: &envelope.to,
            invitation: link.invitation,
            sealed,
            expires_at: Utc::now() + lasts,
        };
        mailing::insert_link(&self.db, &link).await
    }
}

/// What a sealed letter is bound to.
fn context(id: Uuid) -> String {
    sealed::MAIL.of(id)
}

/// What is sealed with a link is bound to it.
pub fn link_context(token_hash: &[u8; 32]) -> String {
    let digits = token_hash.iter().map(|byte| format!("{byte:02x}"));
    sealed::LINK.of(digits.collect::<String>())
}
