//! Hints between instances, through Redis: which tenant's history has reached which position.
//!
//! A hint saves the other instances the wait for their next poll, and that is all: it never delays a change, may be
//! dropped, and nothing is kept in Redis. Every instance also sends an empty message now and then, which all of them
//! hear, so that a connection that has silently died is noticed on either side.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use futures::{Stream, StreamExt};
use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Msg, RedisResult};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Hub, Position};

const CHANNEL: &str = "dealstream.hints";
/// Hints that wait to be sent; more are dropped.
const QUEUE: usize = 4096;
/// Hints of one message at most.
const BATCH: usize = 512;
/// Bytes of a hint: tenant, epoch, position.
const SIZE: usize = 32;
/// How often an instance sends an empty message, and how long silence may last.
const BEAT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(10);
/// How long Redis may take to connect or to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause before trying again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A tenant and the position that its history has reached.
pub(super) type Hint = (Uuid, Position);

/// The Redis that instances share.
#[derive(Debug)]
pub struct Redis {
    client: Client,
}

impl Redis {
    /// Reads the address; nothing is connected yet.
    ///
    /// # Errors
    /// A sentence for the operator when it cannot be read.
    pub fn new(url: &str) -> Result<Self, String> {
        let client = Client::open(url).map_err(|error| {
            format!("REDIS_URL cannot be read ({error}): use redis://host:port or redis+unix:///path.")
        })?;
        Ok(Self { client })
    }

    /// Lets a hub tell and hear the other instances, until `shutdown`. A Redis that is away is tried again and again.
    pub fn connect(&self, hub: &Arc<Hub>, shutdown: CancellationToken) {
        let (sender, queue) = mpsc::channel(QUEUE);
        hub.tell_others_by(sender);
        let link = Link {
            client: self.client.clone(),
            hub: hub.clone(),
            heard: AtomicBool::new(false),
        };
        tokio::spawn(async move {
            shutdown.run_until_cancelled(link.keep_up(queue)).await;
        });
    }
}

struct Link {
    client: Client,
    hub: Arc<Hub>,
    /// Whether a message has come through since the connection was made.
    heard: AtomicBool,
}

impl Link {
    async fn keep_up(self, mut queue: mpsc::Receiver<Hint>) {
        let mut told_away = false;
        let mut pause = PAUSES.0;
        loop {
            let error = self.exchange(&mut queue).await;
            if self.heard.swap(false, SeqCst) {
                (told_away, pause) = (false, PAUSES.0);
            }
            if !std::mem::replace(&mut told_away, true) {
                tracing::warn!(%error, "Redis is away: what other instances change is seen at the next poll; trying on");
            }
            // Not all instances at once, when Redis comes back.
            let share = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(pause.mul_f64(share)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Sends and hears hints for as long as that goes well; answers why it ended.
    async fn exchange(&self, queue: &mut mpsc::Receiver<Hint>) -> String {
        let connected = tokio::time::timeout(PATIENCE, async {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(PATIENCE))
                .set_response_timeout(Some(PATIENCE));
            let mut listening = self.client.get_async_pubsub().await?;
            listening.subscribe(CHANNEL).await?;
            let sending = self
                .client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            RedisResult::Ok((listening, sending))
        });
        let (listening, sending) = match connected.await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it does not answer".to_owned(),
        };
        tokio::select! {
            error = send(sending, queue) => error,
            error = self.hear(listening.into_on_message()) => error,
        }
    }

    async fn hear(&self, messages: impl Stream<Item = Msg>) -> String {
        let mut messages = std::pin::pin!(messages);
        loop {
            match tokio::time::timeout(SILENCE, messages.next()).await {
                Ok(Some(message)) => {
                    if !self.heard.swap(true, SeqCst) {
                        tracing::info!("Redis carries hints between instances");
                    }
                    for (tenant, position) in read(message.get_payload_bytes()) {
                        self.hub.hint(tenant, position);
                    }
                }
                Ok(None) => return "the connection was closed".to_owned(),
                Err(_) => return "nothing is heard any more".to_owned(),
            }
        }
    }
}

async fn send(mut connection: MultiplexedConnection, queue: &mut mpsc::Receiver<Hint>) -> String {
    let mut beat = tokio::time::interval(BEAT);
    let mut hints = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            _ = queue.recv_many(&mut hints, BATCH) => {}
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(CHANNEL).arg(write(hints.drain(..)));
        if let Err(error) = publish.query_async::<()>(&mut connection).await {
            return error.to_string();
        }
    }
}

/// The newest hint of each tenant, one after the other.
fn write(hints: impl Iterator<Item = Hint>) -> Vec<u8> {
    let newest: HashMap<Uuid, Position> = hints.collect();
    let mut bytes = Vec::with_capacity(newest.len() * SIZE);
    for (tenant, at) in newest {
        bytes.extend_from_slice(tenant.as_bytes());
        bytes.extend_from_slice(&at.epoch.to_be_bytes());
        bytes.extend_from_slice(&at.position.to_be_bytes());
    }
    bytes
}

/// What [`write()`] wrote. Of bytes that are none of ours some nonsense may be read, which does no harm.
fn read(bytes: &[u8]) -> impl Iterator<Item = Hint> {
    bytes.chunks_exact(SIZE).map(|hint| {
        let number = |at: usize| {
            let bytes = hint[at..at + 8].try_into().expect("eight bytes are eight bytes");
            i64::from_be_bytes(bytes)
        };
        let tenant = Uuid::from_slice(&hint[..16]).expect("a uuid has sixteen bytes");
        let (epoch, position) = (number(16), number(24));
        (tenant, Position { epoch, position })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_tenant_the_newest_hint_arrives_and_nonsense_does_no_harm() {
        let at = |position| Position { epoch: -7, position };
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(u128::MAX));
        let sent = write([(one, at(1)), (other, at(i64::MAX)), (one, at(2))].into_iter());
        let mut arrived: Vec<Hint> = read(&sent).collect();
        arrived.sort_by_key(|(tenant, _)| *tenant);
        assert_eq!(arrived, [(one, at(2)), (other, at(i64::MAX))]);
        assert_eq!(read(b"").count(), 0);
        assert_eq!(read(&sent[1..]).count(), 1);
    }
}
