//! How often what may be done: each [`Policy`] counts under a key of its own, a user, a tenant, a network, an account.
//!
//! | kind | how it counts |
//! |---|---|
//! | a bucket | holds so many, and fills up again evenly in the time of its limit |
//! | failures | so many in a row are free, then each has to wait longer: the time of the limit, twice, four times as long |
//!
//! Everything that one request is charged for is taken together or not at all. Whoever is refused is told how long to
//! wait, and being refused costs nothing: a client that keeps trying does not lock itself out for longer.
//!
//! # Whom failures shut out
//!
//! Somebody who signs in fails five times in a quarter of an hour at most, by the network that they are in and by the
//! account that they want, and then has to wait longer and longer. The second rule would let anybody shut anybody out, by
//! failing in their name from anywhere. So of the networks from which an account has been proved to be one's own, by a
//! success or by a mailed link, each has a count of its own for it; all other networks share the account's count. Who
//! guesses from afar shuts out who guesses from afar, not who comes from where they always come from. A success clears
//! the count that it was charged to and no other: what others fail at stays counted. Nothing is asked again of who has
//! signed in, so sessions go on in any case. What fails for a reason of ours (a database that is away) is given back.
//!
//! Such networks are known for [`shared::KNOWN`] in Redis, and without it as long as this process runs. Who is in the same
//! network, behind the same router, can find out from this that somebody there has an account: they know it anyway.
//!
//! The counts are kept [in Redis](shared), for all instances together, and [in this process](local) when there is none or it
//! is away. Here they are bounded: under a flood of keys those are forgotten first that would be forgotten soonest.

mod limit;
mod local;
mod shared;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Origin;
use crate::error::{Error, Result};
pub use limit::{Kind, Limit, Policy};
use local::Local;
use shared::Shared;

/// Lines in which attempts wait: those of a network one after the other, others hardly ever together.
const LINES: usize = 256;

/// A key as it is kept: nobody reads an address or an e-mail out of it.
type Hashed = [u8; 16];

/// Bounds what may be done how often.
pub struct Limiter {
    limits: [Option<Limit>; Policy::ALL.len()],
    secret: Zeroizing<[u8; 32]>,
    local: Local,
    shared: Option<Arc<Shared>>,
    lines: Box<[Mutex<()>]>,
}

/// What is taken of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    policy: Policy,
    key: Hashed,
    limit: Limit,
    cost: u32,
}

/// What is left of a policy after a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    pub policy: Policy,
    pub limit: Limit,
    /// What can be taken at once.
    pub left: u32,
}

/// Nothing was taken, because one of the charges is more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub policy: Policy,
    pub limit: Limit,
    /// How long to wait until the same is granted, if nothing else is taken meanwhile.
    pub wait: Duration,
}

impl Refused {
    /// Seconds to wait, rounded up.
    pub fn retry_after(&self) -> u32 {
        u32::try_from(self.wait.as_millis().div_ceil(1000))
            .unwrap_or(u32::MAX)
            .max(1)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::RateLimited(refused.retry_after())
    }
}

/// An attempt to prove something, such as a password. It counts as failed until it is told that it succeeded.
#[must_use = "what succeeds must say so"]
pub struct Attempt<'a> {
    limiter: &'a Limiter,
    charges: Vec<Charge>,
    /// The account in the network that it is attempted from.
    place: Option<Hashed>,
    /// Those of one network come one after the other: otherwise the first five of an office would shut out the sixth
    /// although all of them are about to succeed.
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Attempt<'_> {
    /// The proof was good: the account's failures are forgotten, and the network is not charged for this one.
    pub async fn succeeded(self) {
        let limiter = self.limiter;
        if let Some(place) = &self.place {
            limiter.get_to_know(place).await;
        }
        let owed = self.charges.iter();
        let owed = owed.map(|charge| (charge, !charge.policy.counts_networks()));
        limiter.give_back(owed).await;
    }

    /// Nothing was proved either way, for a reason of ours: it is as if it had not been attempted.
    async fn void(self) {
        let owed = self.charges.iter().map(|charge| (charge, false));
        self.limiter.give_back(owed).await;
    }

    /// Ends the attempt with what came of it: a success, a failure, or a fault of ours, which is nobody's failure.
    ///
    /// # Errors
    /// As it came.
    pub async fn settle<T>(self, came: Result<T>) -> Result<T> {
        match &came {
            Ok(_) => self.succeeded().await,
            Err(error) if error.is_ours() => self.void().await,
            Err(_) => {}
        }
        came
    }
}

impl Limiter {
    /// A limiter with the default limits but for those of the settings, which counts in this process until it is told to
    /// [share](Self::share). Keys are kept hashed with the secret.
    ///
    /// # Errors
    /// A sentence for the operator when a setting cannot be read.
    pub fn new(
        settings: &[String],
        redis_url: Option<&str>,
        secret: Zeroizing<[u8; 32]>,
    ) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            limits: limit::limits(settings)?,
            secret,
            local: Local::default(),
            shared: redis_url.map(Shared::new).transpose()?,
            lines: std::iter::repeat_with(Mutex::default).take(LINES).collect(),
        }))
    }

    /// Counts in Redis, when there is one, until `stop`.
    pub fn share(&self, stop: CancellationToken) {
        if let Some(shared) = &self.shared {
            tokio::spawn(shared.clone().keep_up(stop));
        }
    }

    /// Whether the counts are those of all instances at the moment.
    pub fn is_shared(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.is_there())
    }

    /// The limit of a policy; nothing when it is switched off.
    pub fn limit(&self, policy: Policy) -> Option<Limit> {
        self.limits[policy as usize]
    }

    /// Takes from a policy under a key.
    ///
    /// # Errors
    /// [`Error::RateLimited`] when there is not so much.
    pub async fn take(&self, policy: Policy, key: &str, cost: u32) -> Result<()> {
        let charges = self.charge(policy, key, cost);
        self.take_all(charges.as_slice()).await?;
        Ok(())
    }

    /// Takes from a policy that counts by the client's address. What comes from nowhere, from the server itself, is free.
    ///
    /// # Errors
    /// [`Error::RateLimited`] when there is not so much.
    pub async fn take_from(&self, policy: Policy, origin: &Origin, cost: u32) -> Result<()> {
        match origin.network() {
            Some(network) => self.take(policy, &network, cost).await,
            None => Ok(()),
        }
    }

    /// Begins an attempt to prove something for an account, known or not, from somewhere: see [`Attempt`].
    ///
    /// # Errors
    /// [`Error::RateLimited`] when there were too many failures, with the time to wait.
    pub async fn attempt(
        &self,
        by_network: Policy,
        origin: &Origin,
        by_account: Policy,
        account: &str,
    ) -> Result<Attempt<'_>> {
        let network = origin.network();
        let place = network
            .as_ref()
            .map(|network| self.place(by_account, network, account));
        let known = match &place {
            Some(place) if self.limit(by_account).is_some() => self.knows(place).await,
            _ => false,
        };
        let of_account = self.charge(by_account, account, 1);
        let charges = [
            network
                .as_ref()
                .and_then(|network| self.charge(by_network, network, 1)),
            of_account.map(|charge| match place {
                Some(key) if known => Charge { key, ..charge },
                _ => charge,
            }),
        ];
        let charges: Vec<Charge> = charges.into_iter().flatten().collect();
        let turn = match charges.first() {
            Some(first) => Some(self.lines[usize::from(first.key[0]) % LINES].lock().await),
            None => None,
        };
        self.take_all(&charges).await?;
        Ok(Attempt {
            limiter: self,
            charges,
            place,
            _turn: turn,
        })
    }

    /// Notes that whoever comes from there has proved otherwise that the account is theirs, by a mailed link, and has given
    /// it a new password: what was guessed at before is forgotten, and from now on it has a count of its own there.
    pub async fn vouch(&self, by_account: Policy, origin: &Origin, account: &str) {
        let Some(of_account) = self.charge(by_account, account, 0) else {
            return;
        };
        let mut counts = vec![of_account];
        if let Some(network) = origin.network() {
            let key = self.place(by_account, &network, account);
            self.get_to_know(&key).await;
            counts.push(Charge { key, ..of_account });
        }
        self.give_back(counts.iter().map(|count| (count, true))).await;
    }

    /// Gives back what charges took, or forgets all of what is kept under their keys.
    async fn give_back(&self, charges: impl Iterator<Item = (&Charge, bool)> + Clone) {
        let now = now();
        for (charge, forget) in charges.clone() {
            self.local.give_back(now, charge, forget);
        }
        if let Some(shared) = &self.shared {
            shared.give_back(charges).await;
        }
    }

    async fn get_to_know(&self, place: &Hashed) {
        self.local.get_to_know(place);
        if let Some(shared) = &self.shared {
            shared.get_to_know(place).await;
        }
    }

    async fn knows(&self, place: &Hashed) -> bool {
        let shared = match &self.shared {
            Some(shared) => shared.knows(place).await,
            None => None,
        };
        shared.unwrap_or_else(|| self.local.knows(place))
    }

    /// What is to be taken; nothing when the policy is switched off. More than the limit ever holds counts as all of it.
    pub fn charge(&self, policy: Policy, key: &str, cost: u32) -> Option<Charge> {
        let limit = self.limit(policy)?;
        Some(Charge {
            policy,
            key: self.hash(policy, key),
            limit,
            cost: cost.min(limit.count),
        })
    }

    /// Takes all of it, or nothing. Answers what is left of each.
    ///
    /// # Errors
    /// [`Refused`], of the charge that has to wait longest.
    pub async fn take_all(&self, charges: &[Charge]) -> Result<Vec<Balance>, Refused> {
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(shared) = &self.shared
            && let Some(answer) = shared.take_all(charges).await
        {
            return answer;
        }
        self.local.take_all(now(), charges)
    }

    /// Takes in this process alone, at once: for what is looked at before anything else of a request.
    ///
    /// # Errors
    /// [`Refused`] when there is not so much.
    pub fn take_here(&self, charge: &Charge) -> Result<Balance, Refused> {
        let balances = self.local.take_all(now(), std::slice::from_ref(charge))?;
        Ok(balances[0])
    }

    /// Lets [`take_here`](Self::take_here) refuse as well what all instances together have refused.
    pub fn refuse_here(&self, charge: &Charge, refused: &Refused) {
        self.local.refuse(now(), charge, refused.wait);
    }

    fn hash(&self, policy: Policy, key: &str) -> Hashed {
        self.hash_of(&[policy.name(), key])
    }

    /// An account in a network. No key of an account alone is the same, whatever somebody calls their account.
    fn place(&self, policy: Policy, network: &str, account: &str) -> Hashed {
        self.hash_of(&["known", policy.name(), network, account])
    }

    /// Nobody but who gives the last part chooses what is in it.
    fn hash_of(&self, parts: &[&str]) -> Hashed {
        let mut context = Context::new(&SHA256);
        context.update(&self.secret[..]);
        context.update(parts.join("\0").as_bytes());
        let mut hashed = Hashed::default();
        hashed.copy_from_slice(&context.finish().as_ref()[..16]);
        hashed
    }
}

/// Milliseconds since this process first asked.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(settings: &[&str]) -> Arc<Limiter> {
        let settings: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
        Limiter::new(&settings, None, Zeroizing::new([7; 32])).expect("they can be read")
    }

    fn from(ip: &str) -> Origin {
        Origin::new(Some(ip.parse().expect("an address")), None, "1")
    }

    async fn fails(limiter: &Limiter, ip: &str, account: &str) -> Result<(), u32> {
        let origin = from(ip);
        let begun = limiter
            .attempt(Policy::SignInNetwork, &origin, Policy::SignInAccount, account)
            .await;
        match begun {
            Ok(_failed) => Ok(()),
            Err(Error::RateLimited(seconds)) => Err(seconds),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn five_failures_shut_out_a_network_and_an_account_each() {
        let limiter = limiter(&[]);
        for n in 0..5 {
            assert_eq!(
                fails(&limiter, "192.0.2.1", &format!("account {n}")).await,
                Ok(())
            );
        }
        assert_eq!(fails(&limiter, "192.0.2.1", "account 6").await, Err(900));
        for n in 0..5 {
            assert_eq!(
                fails(&limiter, &format!("192.0.2.{}", 10 + n), "ada").await,
                Ok(())
            );
        }
        assert_eq!(fails(&limiter, "192.0.2.99", "ada").await, Err(900));
        // Who was refused has not been charged for it.
        assert_eq!(fails(&limiter, "192.0.2.99", "bob").await, Ok(()));
    }

    #[tokio::test]
    async fn a_success_clears_the_account_and_is_not_charged_to_the_network() {
        let limiter = limiter(&[]);
        for _ in 0..4 {
            assert_eq!(fails(&limiter, "192.0.2.1", "ada").await, Ok(()));
        }
        let origin = from("192.0.2.1");
        for _ in 0..3 {
            let attempt = limiter
                .attempt(Policy::SignInNetwork, &origin, Policy::SignInAccount, "ada")
                .await;
            attempt
                .map_err(|_| ())
                .expect("there is one left")
                .succeeded()
                .await;
        }
        // The account begins anew; of the network's five four are gone.
        assert_eq!(fails(&limiter, "192.0.2.1", "ada").await, Ok(()));
        assert_eq!(fails(&limiter, "192.0.2.1", "ada").await, Err(900));
        assert_eq!(fails(&limiter, "192.0.2.2", "ada").await, Ok(()));
    }

    async fn succeeds(limiter: &Limiter, ip: &str, account: &str) -> bool {
        let origin = from(ip);
        let begun = limiter
            .attempt(Policy::SignInNetwork, &origin, Policy::SignInAccount, account)
            .await;
        match begun {
            Ok(attempt) => {
                attempt.succeeded().await;
                true
            }
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn who_fails_from_afar_shuts_out_nobody_who_is_known_where_they_are() {
        let limiter = limiter(&["sign-in-address=100/15m"]);
        assert!(succeeds(&limiter, "192.0.2.1", "ada").await);
        for n in 0..5 {
            assert_eq!(fails(&limiter, &format!("198.51.100.{n}"), "ada").await, Ok(()));
        }
        assert_eq!(fails(&limiter, "198.51.100.9", "ada").await, Err(900));
        for _ in 0..3 {
            assert!(succeeds(&limiter, "192.0.2.1", "ada").await);
        }
        // Her success gives no new guesses to who fails from afar.
        assert_eq!(fails(&limiter, "198.51.100.9", "ada").await, Err(900));
        // Nor is where she is a place to guess from without end.
        for _ in 0..5 {
            assert_eq!(fails(&limiter, "192.0.2.1", "ada").await, Ok(()));
        }
        assert_eq!(fails(&limiter, "192.0.2.1", "ada").await, Err(900));
        // What is known of one account says nothing about another, whatever it is called.
        for _ in 0..5 {
            assert_eq!(fails(&limiter, "192.0.2.1", "192.0.2.1\0ada").await, Ok(()));
        }
        assert_eq!(fails(&limiter, "192.0.2.1", "192.0.2.1\0ada").await, Err(900));
        assert_eq!(fails(&limiter, "192.0.2.2", "bob").await, Ok(()));
        // Who has read the account's mail is let in where they are.
        limiter
            .vouch(Policy::SignInAccount, &from("203.0.113.7"), "ada")
            .await;
        assert!(succeeds(&limiter, "203.0.113.7", "ada").await);
    }

    #[tokio::test]
    async fn what_fails_for_a_reason_of_ours_is_nobodys_failure() {
        let limiter = limiter(&[]);
        for _ in 0..20 {
            let origin = from("192.0.2.1");
            let attempt = limiter
                .attempt(Policy::SignInNetwork, &origin, Policy::SignInAccount, "ada")
                .await;
            let attempt = attempt.map_err(|_| ()).expect("it is free");
            let settled = attempt.settle(Err::<(), _>(Error::Unavailable)).await;
            assert!(matches!(settled, Err(Error::Unavailable)));
        }
        for _ in 0..5 {
            assert_eq!(fails(&limiter, "192.0.2.1", "ada").await, Ok(()));
        }
        assert_eq!(fails(&limiter, "192.0.2.1", "ada").await, Err(900));
    }

    #[tokio::test]
    async fn many_of_one_network_who_all_succeed_do_not_shut_each_other_out() {
        let limiter = limiter(&[]);
        let origin = from("192.0.2.1");
        let all = (0..50).map(|n| {
            let (limiter, origin) = (&limiter, &origin);
            async move {
                let account = format!("account {n}");
                let attempt = limiter
                    .attempt(Policy::SignInNetwork, origin, Policy::SignInAccount, &account)
                    .await
                    .map_err(|_| ())?;
                tokio::task::yield_now().await;
                attempt.succeeded().await;
                Ok::<(), ()>(())
            }
        });
        let done = futures::future::join_all(all).await;
        assert!(done.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn what_is_switched_off_is_free() {
        let limiter = limiter(&["all=off", "refresh=1/1h"]);
        for _ in 0..100 {
            assert_eq!(fails(&limiter, "192.0.2.1", "ada").await, Ok(()));
        }
        assert!(limiter.take(Policy::Refresh, "s", 1).await.is_ok());
        let refused = limiter.take(Policy::Refresh, "s", 1).await;
        assert!(matches!(refused, Err(Error::RateLimited(3600))), "{refused:?}");
    }

    #[tokio::test]
    async fn more_than_there_ever_is_costs_all_there_is() {
        let limiter = limiter(&["user-cost=10/10s"]);
        assert!(limiter.take(Policy::UserCost, "u", 1_000).await.is_ok());
        let refused = limiter.take(Policy::UserCost, "u", 1_000).await;
        assert!(matches!(refused, Err(Error::RateLimited(10))), "{refused:?}");
    }
}
