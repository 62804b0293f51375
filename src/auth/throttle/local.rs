//! Counting in this process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache;

use super::limit::{Kind, Policy};
use super::{Balance, Charge, Hashed, Limit, Refused};

/// Keys that are remembered at most: some ten megabytes.
const KEYS: usize = 100_000;

/// How much longer each further failure makes the wait, and the most that it comes to.
const LONGEST: u32 = 4;

/// The counts of this process.
pub(super) struct Local {
    counts: Mutex<HashMap<(Policy, Hashed), Count>>,
    /// Accounts in networks where they have been proved; those that were seen lately.
    known: Cache<Hashed, ()>,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            known: Cache::new(KEYS),
        }
    }
}

#[derive(Clone, Copy)]
struct Count {
    /// What is taken of a bucket, or how many failures there were.
    taken: f64,
    /// Of a bucket, when that was so; of failures, when the next attempt is free. In milliseconds.
    at: u64,
    /// When it is as if it had never been.
    over: u64,
    /// When that would have been without the last charge: where it goes back to when that is given back, so that
    /// successes do not keep failures remembered.
    before: u64,
}

/// What a charge would come to.
enum Verdict {
    Granted { taken: f64 },
    Wait(u64),
}

impl Local {
    pub(super) fn take_all(&self, now: u64, charges: &[Charge]) -> Result<Vec<Balance>, Refused> {
        let mut counts = self.counts();
        let verdicts: Vec<_> = charges
            .iter()
            .map(|charge| judge(counts.get(&(charge.policy, charge.key)), charge, now))
            .collect();
        let longest = charges
            .iter()
            .zip(&verdicts)
            .filter_map(|(charge, verdict)| match verdict {
                Verdict::Wait(wait) => Some((charge, *wait)),
                Verdict::Granted { .. } => None,
            })
            .max_by_key(|(_, wait)| *wait);
        if let Some((charge, wait)) = longest {
            return Err(Refused {
                policy: charge.policy,
                limit: charge.limit,
                wait: Duration::from_millis(wait),
            });
        }
        let mut balances = Vec::with_capacity(charges.len());
        for (charge, verdict) in charges.iter().zip(verdicts) {
            let Verdict::Granted { taken } = verdict else {
                continue;
            };
            let key = (charge.policy, charge.key);
            let kind = charge.policy.kind();
            let count = Count {
                taken,
                at: match kind {
                    Kind::Bucket => now,
                    Kind::Failures => now.saturating_add(wait(charge.limit, taken)),
                },
                over: now.saturating_add(remembered(kind, charge.limit, taken)),
                before: counts.get(&key).map_or(now, |count| count.over),
            };
            counts.insert(key, count);
            balances.push(Balance {
                policy: charge.policy,
                limit: charge.limit,
                left: (f64::from(charge.limit.count) - taken).max(0.0) as u32,
            });
        }
        if counts.len() > KEYS {
            make_room(&mut counts, now);
        }
        Ok(balances)
    }

    /// Gives back what a charge took, or forgets all of what was taken under its key.
    pub(super) fn give_back(&self, now: u64, charge: &Charge, forget: bool) {
        let mut counts = self.counts();
        let key = (charge.policy, charge.key);
        if let Some(count) = counts.get_mut(&key) {
            count.taken -= f64::from(charge.cost);
            if charge.policy.kind() == Kind::Failures {
                // It was free to be attempted, or it would not have been granted; so it is again.
                count.at = count.at.min(now);
                count.over = count.over.min(count.before);
            }
            if forget || count.taken <= 0.0 || count.over <= now {
                counts.remove(&key);
            }
        }
    }

    pub(super) fn get_to_know(&self, place: &Hashed) {
        self.known.insert(*place, ());
    }

    pub(super) fn knows(&self, place: &Hashed) -> bool {
        self.known.get(place).is_some()
    }

    /// Lets a bucket be so empty that the charge has to wait so long.
    pub(super) fn refuse(&self, now: u64, charge: &Charge, wait: Duration) {
        let (most, per) = (f64::from(charge.limit.count), charge.limit.per_millis());
        let taken = most - f64::from(charge.cost) + wait.as_millis() as f64 * most / per as f64;
        let count = Count {
            taken,
            at: now,
            over: now.saturating_add(remembered(Kind::Bucket, charge.limit, taken)),
            before: now,
        };
        self.counts().insert((charge.policy, charge.key), count);
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<(Policy, Hashed), Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge(count: Option<&Count>, charge: &Charge, now: u64) -> Verdict {
    let count = count.filter(|count| count.over > now);
    let (taken, at) = count.map_or((0.0, now), |count| (count.taken, count.at));
    let (most, per) = (f64::from(charge.limit.count), charge.limit.per_millis());
    let cost = f64::from(charge.cost);
    match charge.policy.kind() {
        Kind::Bucket => {
            let passed = now.saturating_sub(at);
            let taken = (taken - passed as f64 * most / per as f64).max(0.0);
            let missing = taken + cost - most;
            if missing > 1e-9 {
                Verdict::Wait((missing * per as f64 / most).ceil() as u64)
            } else {
                Verdict::Granted { taken: taken + cost }
            }
        }
        Kind::Failures => match at.saturating_sub(now) {
            0 => Verdict::Granted { taken: taken + cost },
            left => Verdict::Wait(left),
        },
    }
}

/// Milliseconds from a failure to the next attempt, after so many failures in a row.
fn wait(limit: Limit, failures: f64) -> u64 {
    let beyond = failures - f64::from(limit.count);
    if beyond < 0.0 {
        return 0;
    }
    let times = 2_u32.saturating_pow(beyond as u32).min(LONGEST);
    limit.per_millis().saturating_mul(u64::from(times))
}

/// Milliseconds until a count is as if it had never been.
fn remembered(kind: Kind, limit: Limit, taken: f64) -> u64 {
    match kind {
        Kind::Bucket => (taken * limit.per_millis() as f64 / f64::from(limit.count)).ceil() as u64,
        Kind::Failures => wait(limit, taken).saturating_add(limit.per_millis()),
    }
}

/// Forgets what is over, and then, until an eighth of the room is free, what would be over soonest.
fn make_room(counts: &mut HashMap<(Policy, Hashed), Count>, now: u64) {
    counts.retain(|_, count| count.over > now);
    let most = KEYS - KEYS / 8;
    if counts.len() > most {
        let mut ends: Vec<u64> = counts.values().map(|count| count.over).collect();
        let surplus = ends.len() - most;
        let (_, end, _) = ends.select_nth_unstable(surplus);
        let end = *end;
        counts.retain(|_, count| count.over > end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(policy: Policy, count: u32, seconds: u64, cost: u32) -> Charge {
        Charge {
            policy,
            key: [1; 16],
            limit: Limit {
                count,
                per: Duration::from_secs(seconds),
            },
            cost,
        }
    }

    fn take(local: &Local, now: u64, charge: Charge) -> Result<u32, u64> {
        match local.take_all(now, &[charge]) {
            Ok(left) => Ok(left[0].left),
            Err(refused) => Err(u64::try_from(refused.wait.as_millis()).expect("it is short")),
        }
    }

    #[test]
    fn a_bucket_fills_up_evenly_and_never_beyond_its_size() {
        let local = Local::default();
        let three = charge(Policy::UserCost, 10, 10, 3);
        assert_eq!(take(&local, 0, three), Ok(7));
        assert_eq!(take(&local, 0, three), Ok(4));
        assert_eq!(take(&local, 0, three), Ok(1));
        assert_eq!(take(&local, 0, three), Err(2_000));
        assert_eq!(take(&local, 1_000, three), Err(1_000));
        assert_eq!(take(&local, 2_000, three), Ok(0));
        assert_eq!(take(&local, 1_000_000, three), Ok(7));
        // A clock that goes back gives nothing and breaks nothing.
        assert_eq!(take(&local, 0, three), Ok(4));
    }

    #[test]
    fn after_the_free_failures_each_wait_is_longer_up_to_an_hour() {
        let local = Local::default();
        let failure = charge(Policy::SignInAccount, 5, 900, 1);
        let minute = 60_000;
        for _ in 0..5 {
            assert!(take(&local, 0, failure).is_ok());
        }
        assert_eq!(take(&local, 0, failure), Err(15 * minute));
        assert_eq!(take(&local, 10 * minute, failure), Err(5 * minute));
        assert!(take(&local, 15 * minute, failure).is_ok());
        assert_eq!(take(&local, 15 * minute, failure), Err(30 * minute));
        assert!(take(&local, 45 * minute, failure).is_ok());
        assert_eq!(take(&local, 45 * minute, failure), Err(60 * minute));
        assert!(take(&local, 105 * minute, failure).is_ok());
        assert_eq!(take(&local, 105 * minute, failure), Err(60 * minute));
        // Once it has been quiet for long enough, all begins anew.
        for _ in 0..5 {
            assert!(take(&local, 181 * minute, failure).is_ok());
        }
        assert_eq!(take(&local, 181 * minute, failure), Err(15 * minute));
    }

    #[test]
    fn who_waited_and_succeeds_is_not_made_to_wait_again() {
        let local = Local::default();
        let attempt = charge(Policy::SignInNetwork, 5, 900, 1);
        let minute = 60_000;
        for _ in 0..5 {
            assert!(take(&local, 0, attempt).is_ok());
        }
        assert_eq!(take(&local, 14 * minute, attempt), Err(minute));
        for second in 0..100 {
            let now = 15 * minute + second * 1000;
            assert!(take(&local, now, attempt).is_ok(), "success {second}");
            local.give_back(now, &attempt, false);
        }
        // What failed before is not forgotten for it, nor remembered for longer.
        assert!(take(&local, 20 * minute, attempt).is_ok());
        assert_eq!(take(&local, 20 * minute, attempt), Err(30 * minute));
        let local = Local::default();
        for _ in 0..4 {
            assert!(take(&local, 0, attempt).is_ok());
        }
        for now in 1..30 {
            assert!(take(&local, now * minute, attempt).is_ok());
            local.give_back(now * minute, &attempt, false);
        }
        for _ in 0..5 {
            assert!(take(&local, 30 * minute, attempt).is_ok());
        }
    }

    #[test]
    fn all_is_taken_or_nothing_and_the_longest_wait_is_told() {
        let local = Local::default();
        let user = charge(Policy::UserCost, 10, 10, 6);
        let tenant = charge(Policy::TenantCost, 8, 80, 6);
        assert!(local.take_all(0, &[user, tenant]).is_ok());
        let refused = local.take_all(0, &[user, tenant]).expect_err("too much");
        assert_eq!(
            (refused.policy, refused.wait),
            (Policy::TenantCost, Duration::from_secs(40))
        );
        assert_eq!(refused.retry_after(), 40);
        // Nothing was taken of the user's.
        assert_eq!(take(&local, 0, Charge { cost: 4, ..user }), Ok(0));
    }

    #[test]
    fn a_flood_of_keys_takes_bounded_room_and_does_not_free_who_is_shut_out() {
        let local = Local::default();
        let failure = charge(Policy::SignInAccount, 5, 900, 1);
        for _ in 0..5 {
            assert!(take(&local, 0, failure).is_ok());
        }
        for n in 0..3 * KEYS as u128 {
            let key = n.to_be_bytes();
            let other = Charge {
                key,
                ..charge(Policy::Requests, 100, 60, 1)
            };
            assert!(take(&local, 1, other).is_ok());
        }
        assert!(local.counts().len() <= KEYS);
        assert!(take(&local, 1, failure).is_err());
    }
}
