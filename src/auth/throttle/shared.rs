//! Counting in Redis, for all instances together.
//!
//! One script takes all charges of a request, by the clock of Redis. Its rules are those of [`local`](super::local): a
//! test holds the two against each other. While Redis is away each instance counts for itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult, Script, ScriptInvocation};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::limit::Kind;
use super::{Balance, Charge, Hashed, Refused};

/// How long an answer may take before this instance counts for itself.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long it is remembered where an account has been proved.
pub(super) const KNOWN: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long Redis may take to connect.
const CONNECT: Duration = Duration::from_secs(2);
/// The pause before connecting again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// `KEYS`: one for each charge. `ARGV`: kind, count, milliseconds and cost of each.
/// Answers 0 and what is left of each, or the number of the charge that must wait longest and how many milliseconds.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local after, longest, slowest = {}, 0, 0
        local function wait(most, per, failures)
            if failures < most then return 0 end
            return per * math.min(2 ^ math.min(failures - most, 10), 4)
        end
        for i, key in ipairs(KEYS) do
            local kind, most = ARGV[i * 4 - 3], tonumber(ARGV[i * 4 - 2])
            local per, cost = tonumber(ARGV[i * 4 - 1]), tonumber(ARGV[i * 4])
            local held = redis.call('HMGET', key, 'taken', 'at')
            local taken = tonumber(held[1] or 0)
            local at = tonumber(held[2] or now)
            local left
            if kind == 'bucket' then
                taken = math.max(0, taken - math.max(0, now - at) * most / per)
                left = math.max(0, taken + cost - most - 1e-9) * per / most
            else
                left = math.max(0, at - now)
            end
            if left > longest then longest, slowest = left, i end
            after[i] = taken + cost
        end
        if slowest > 0 then return { slowest, math.ceil(longest) } end
        local answer = { 0 }
        for i, key in ipairs(KEYS) do
            local kind, most, per = ARGV[i * 4 - 3], tonumber(ARGV[i * 4 - 2]), tonumber(ARGV[i * 4 - 1])
            local kept, at = after[i] * per / most, now
            if kind == 'failures' then
                at = now + wait(most, per, after[i])
                kept = at - now + per
                redis.call('HSET', key, 'before', string.format('%.0f', now + math.max(0, redis.call('PTTL', key))))
            end
            redis.call('HSET', key, 'taken', string.format('%.17g', after[i]), 'at', string.format('%.0f', at))
            redis.call('PEXPIRE', key, string.format('%.0f', math.max(1, math.ceil(kept))))
            answer[i + 1] = math.floor(math.max(0, most - after[i]))
        end
        return answer
        ",
    )
});

/// `ARGV`: what each key is given back, or -1 to forget it.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        for i, key in ipairs(KEYS) do
            local cost = tonumber(ARGV[i])
            local held = redis.call('HMGET', key, 'taken', 'at', 'before')
            local taken, at, before = tonumber(held[1] or 0), tonumber(held[2] or 0), tonumber(held[3])
            if cost < 0 or taken <= cost then
                redis.call('DEL', key)
            else
                redis.call('HSET', key, 'taken', string.format('%.17g', taken - cost))
                if before then
                    redis.call('HSET', key, 'at', string.format('%.0f', math.min(at, now)))
                    local kept = math.min(before - now, redis.call('PTTL', key))
                    if kept > 0 then redis.call('PEXPIRE', key, string.format('%.0f', kept)) else redis.call('DEL', key) end
                end
            end
        end
        return 0
        ",
    )
});

/// The counts that instances share.
pub(super) struct Shared {
    client: Client,
    /// There while Redis answers.
    connection: RwLock<Option<MultiplexedConnection>>,
    lost: Notify,
    told_away: AtomicBool,
}

impl Shared {
    /// Reads the address; nothing is connected yet.
    pub(super) fn new(url: &str) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            client: Client::open(url).map_err(|error| format!("REDIS_URL cannot be read: {error}"))?,
            connection: RwLock::default(),
            lost: Notify::new(),
            told_away: AtomicBool::new(false),
        }))
    }

    /// Connects, and connects again whenever the connection is lost.
    pub(super) async fn keep_up(self: Arc<Self>, stop: CancellationToken) {
        let endless = async {
            let mut pause = PAUSES.0;
            loop {
                match tokio::time::timeout(CONNECT, self.connect()).await {
                    Ok(Ok(connection)) => {
                        pause = PAUSES.0;
                        let lost = self.lost.notified();
                        *self.connection.write().unwrap_or_else(PoisonError::into_inner) = Some(connection);
                        self.told_away.store(false, Ordering::Relaxed);
                        tracing::info!("limits are counted for all instances together");
                        lost.await;
                    }
                    Ok(Err(error)) => self.tell_away(&error),
                    Err(_elapsed) => self.tell_away(&"it does not answer"),
                }
                let share = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(pause.mul_f64(share)).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        };
        stop.run_until_cancelled(endless).await;
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(PATIENCE));
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
        Ok(connection)
    }

    /// Whether Redis answers, as far as is known.
    pub(super) fn is_there(&self) -> bool {
        self.connection().is_some()
    }

    fn connection(&self) -> Option<MultiplexedConnection> {
        let connection = self.connection.read().unwrap_or_else(PoisonError::into_inner);
        connection.clone()
    }

    /// Takes all or nothing; says nothing when Redis is away.
    pub(super) async fn take_all(&self, charges: &[Charge]) -> Option<Result<Vec<Balance>, Refused>> {
        let mut connection = self.connection()?;
        let mut take = TAKE.prepare_invoke();
        for charge in charges {
            take.key(key(charge))
                .arg(match charge.policy.kind() {
                    Kind::Bucket => "bucket",
                    Kind::Failures => "failures",
                })
                .arg(charge.limit.count)
                .arg(charge.limit.per_millis())
                .arg(charge.cost);
        }
        let answer: Vec<u64> = self.invoke(&take, &mut connection).await?;
        let (verdict, rest) = answer.split_first()?;
        let slowest = usize::try_from(*verdict)
            .ok()
            .and_then(|number| number.checked_sub(1));
        Some(match slowest {
            None => Ok(charges
                .iter()
                .zip(rest)
                .map(|(charge, left)| Balance {
                    policy: charge.policy,
                    limit: charge.limit,
                    left: u32::try_from(*left).unwrap_or(u32::MAX),
                })
                .collect()),
            Some(slowest) => Err(Refused {
                policy: charges.get(slowest)?.policy,
                limit: charges.get(slowest)?.limit,
                wait: Duration::from_millis(*rest.first()?),
            }),
        })
    }

    /// Gives back what charges took, or forgets all of what is kept under their keys.
    pub(super) async fn give_back(&self, charges: impl Iterator<Item = (&Charge, bool)>) {
        let Some(mut connection) = self.connection() else {
            return;
        };
        let mut give_back = GIVE_BACK.prepare_invoke();
        for (charge, forget) in charges {
            let cost = if forget { -1 } else { i64::from(charge.cost) };
            give_back.key(key(charge)).arg(cost);
        }
        self.invoke::<u64>(&give_back, &mut connection).await;
    }

    /// Remembers that an account has been proved in a network.
    pub(super) async fn get_to_know(&self, place: &Hashed) {
        if let Some(mut connection) = self.connection() {
            let mut set = redis::cmd("SET");
            set.arg(place_key(place)).arg(1).arg("EX").arg(KNOWN.as_secs());
            self.heard::<()>(set.query_async(&mut connection)).await;
        }
    }

    /// Whether an account has been proved in a network; says nothing when Redis is away.
    pub(super) async fn knows(&self, place: &Hashed) -> Option<bool> {
        let mut connection = self.connection()?;
        let mut exists = redis::cmd("EXISTS");
        exists.arg(place_key(place));
        self.heard(exists.query_async(&mut connection)).await
    }

    async fn invoke<T: redis::FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        connection: &mut MultiplexedConnection,
    ) -> Option<T> {
        self.heard(script.invoke_async(connection)).await
    }

    /// An answer of Redis; nothing, and the connection is given up, when it does not answer.
    async fn heard<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> Option<T> {
        let error = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "it does not answer".to_owned(),
        };
        let lost = self
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if lost.is_some() {
            self.tell_away(&error);
            self.lost.notify_one();
        }
        None
    }

    fn tell_away(&self, error: &dyn std::fmt::Display) {
        if !self.told_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "limits are counted by this instance alone, because their Redis does not answer; trying on");
        }
    }
}

fn key(charge: &Charge) -> Vec<u8> {
    let mut key = format!("dealstream.limits:{}:", charge.policy.name()).into_bytes();
    key.extend_from_slice(&charge.key);
    key
}

fn place_key(place: &Hashed) -> Vec<u8> {
    [b"dealstream.known:", &place[..]].concat()
}
