//! The end of access tokens before their time: by signing out, by a new password, and when a user is given another role,
//! shut out or removed.
//!
//! Revoked is a session, with whatever tokens it has; or what a user was given up to a moment, which leaves what they are
//! given later. Whether a session may go on, and so be given a new token, is for the session itself to know.
//!
//! A token is checked with every request, so the database is not asked: each instance keeps in memory what has been
//! revoked within the life of a token. The instance that revokes knows at once, the others with their next look, which
//! is one statement for all tenants together.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Viewer;
use super::token::LEEWAY;
use crate::db::Database;
use crate::db::directory::{self, Revocation};
use crate::error::Result;

/// How long revocations stay in the database: longer than any token that can be configured lives.
pub const KEPT: Duration = Duration::from_secs(25 * 60 * 60);

/// How often an instance looks for what others have revoked.
const LOOK: Duration = Duration::from_millis(500);

/// How far each look reaches back behind the last: a revocation is dated before its transaction commits, and that may
/// have to wait for locks.
const OVERLAP: Duration = Duration::from_secs(120);

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often what no token can be old enough for is forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// Places to wait at. Who waits is woken by the revocations of their own place: of 10,000 sockets, some ten.
const BELLS: usize = 1024;

/// What has been revoked within the life of a token.
pub struct Revocations {
    known: RwLock<Known>,
    bells: Box<[Notify]>,
    /// How long a revocation must be remembered.
    life: Duration,
}

#[derive(Default)]
struct Known {
    /// Sessions that have ended, with the moment in milliseconds.
    sessions: HashMap<Uuid, u64>,
    /// By tenant and user.
    users: HashMap<(Uuid, Uuid), Ended>,
}

/// Until when tokens of a user have ended, in milliseconds.
#[derive(Default, Clone, Copy)]
struct Ended {
    /// All of them.
    all: u64,
    /// All but those of one session.
    others: Option<(u64, Uuid)>,
}

/// Who is looked up: what a [`Viewer`] is known by. Small, because every open socket has one.
#[derive(Clone, Copy)]
struct Holder {
    tenant_id: Uuid,
    user_id: Uuid,
    session_id: Uuid,
    /// When the token was given, in milliseconds.
    given_at: u64,
}

impl Revocations {
    /// Nothing is revoked yet. `lifetime` is how long a token is valid.
    pub fn new(lifetime: Duration) -> Arc<Self> {
        Arc::new(Self {
            known: RwLock::default(),
            bells: std::iter::repeat_with(Notify::new).take(BELLS).collect(),
            // The clocks of the instances and of the database may differ.
            life: lifetime + Duration::from_secs(LEEWAY) + OVERLAP,
        })
    }

    /// Reads what has been revoked so far, and goes on reading what is revoked elsewhere, until `stop`.
    ///
    /// # Errors
    /// When the database fails at first; later it is tried again.
    pub async fn follow(self: &Arc<Self>, db: Database, stop: CancellationToken) -> Result<()> {
        let began = Instant::now();
        self.take_in(&directory::revocations(&db, self.life).await?);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = this.look_on(db, began) => {}
            }
        });
        Ok(())
    }

    async fn look_on(&self, db: Database, mut looked: Instant) {
        let (mut failing, mut forgot) = (false, looked);
        loop {
            sleep(LOOK).await;
            let now = Instant::now();
            // After a time without the database it reaches back over all of that.
            let since = (now - looked + OVERLAP).min(KEPT);
            match timeout(PATIENCE, directory::revocations(&db, since)).await {
                Ok(Ok(found)) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("revocations can be read again");
                    }
                    looked = now;
                    self.take_in(&found);
                }
                failed => {
                    if !std::mem::replace(&mut failing, true) {
                        let error = failed.map(|found| found.err());
                        tracing::warn!(?error, "revocations cannot be read; trying on");
                    }
                }
            }
            if forgot + FORGET < now {
                forgot = now;
                self.forget();
            }
        }
    }

    /// Revokes in this process, at once: for who has just committed it.
    pub fn take_in(&self, revoked: &[Revocation]) {
        if revoked.is_empty() {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let news: Vec<_> = revoked.iter().filter(|it| known.learn(it)).collect();
        drop(known);
        for revocation in news {
            self.bell(revocation.user_id).notify_waiters();
        }
    }

    /// Whether the viewer's token has ended.
    pub fn revokes(&self, viewer: &Viewer) -> bool {
        self.revokes_holder(Holder::of(viewer))
    }

    /// Ends when the viewer's token does, other than by its time. It keeps nothing but itself.
    pub fn watch(self: &Arc<Self>, viewer: &Viewer) -> impl Future<Output = ()> + Send + use<> {
        let (this, holder) = (self.clone(), Holder::of(viewer));
        async move {
            loop {
                let mut rung = pin!(this.bell(holder.user_id).notified());
                // From here on no ring is missed, so what was revoked earlier is seen and what is revoked later is heard.
                rung.as_mut().enable();
                if this.revokes_holder(holder) {
                    return;
                }
                rung.await;
            }
        }
    }

    fn revokes_holder(&self, holder: Holder) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let ended = known.users.get(&(holder.tenant_id, holder.user_id));
        known.sessions.contains_key(&holder.session_id) || ended.is_some_and(|ended| ended.includes(holder))
    }

    fn forget(&self) {
        let now = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or_default();
        let oldest = now.saturating_sub(u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.sessions.retain(|_, at| *at >= oldest);
        known.users.retain(|_, ended| ended.last() >= oldest);
    }

    fn bell(&self, user: Uuid) -> &Notify {
        // The last bits of an id are random.
        &self.bells[user.as_u128() as usize % BELLS]
    }
}

impl Known {
    /// Takes a revocation in; answers whether it is news.
    fn learn(&mut self, revocation: &Revocation) -> bool {
        let at = u64::try_from(revocation.revoked_at.timestamp_millis()).unwrap_or_default();
        if let Some(session) = revocation.session_id {
            return self.sessions.insert(session, at).is_none();
        }
        let user = (revocation.tenant_id, revocation.user_id);
        let ended = self.users.entry(user).or_default();
        match revocation.kept_session_id {
            None if at > ended.all => ended.all = at,
            Some(kept) if ended.others.is_none_or(|(last, _)| at > last) => ended.others = Some((at, kept)),
            _ => return false,
        }
        true
    }
}

impl Ended {
    fn includes(&self, holder: Holder) -> bool {
        let other = |(at, kept)| holder.given_at <= at && holder.session_id != kept;
        holder.given_at <= self.all || self.others.is_some_and(other)
    }

    fn last(&self) -> u64 {
        self.all.max(self.others.map_or(0, |(at, _)| at))
    }
}

impl Holder {
    fn of(viewer: &Viewer) -> Self {
        Self {
            tenant_id: viewer.tenant_id,
            user_id: viewer.user_id,
            session_id: viewer.session_id,
            given_at: time_of(viewer.token_id),
        }
    }
}

/// When a token was given, in milliseconds: the first 48 bits of a UUIDv7.
fn time_of(token: Uuid) -> u64 {
    (token.as_u128() >> 80) as u64
}
