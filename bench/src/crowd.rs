//! Thousands of subscribers on one thread: sockets that an event loop reads, without tasks, timers or buffers of their
//! own, so that the processors are left to the server.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::frames::{self, CLOSE, PING, PONG, TEXT};
use crate::{Error, Result};

/// Subscribers that are on their way to be one at the same time.
const AT_ONCE: usize = 100;
/// Bytes that are read at a time, into a buffer for all.
const BUFFER: usize = 64 * 1024;
/// Of so many subscribers one reads what it gets as JSON and looks at all of it.
const READER: usize = 100;

/// What every subscriber asks.
const DOCUMENT: &str = "subscription Moves($pipeline: ID!) { dealStageChanged(pipelineId: $pipeline) { __typename \
    ... on DealStageChangedEvent { position dealId deal { id name stage { id name } } fromStage { id name } \
    toStage { id name } occurredAt } ... on UpToDate { position } ... on MustRefetch { reason } } }";

/// One who subscribes: with whose token, to the changes of which pipeline.
pub struct Subscriber {
    pub token: Arc<str>,
    pub pipeline: String,
}

/// A change that has arrived at a subscriber.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub subscriber: u32,
    pub position: i64,
    /// When: microseconds since 1970.
    pub at: i64,
}

/// What the subscribers have seen.
#[derive(Default)]
struct Log {
    /// Subscribers that were told to be up to date.
    live: usize,
    deliveries: Vec<Delivery>,
    /// What went wrong first. Nothing is read any more after that.
    failure: Option<String>,
}

/// The subscribers, until it is dropped.
pub struct Crowd {
    log: Arc<Mutex<Log>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Microseconds since 1970, by the clock that PostgreSQL has too.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// The number in a position. Clients have no business with it; a test of the order has.
pub fn number(position: &[u8]) -> Result<i64, String> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    // Sixteen bytes in 22 digits: the last four bits are nothing, the eight bytes before them are the number.
    let whole = position.iter().try_fold(0_u128, |sum, byte| {
        Some(sum.wrapping_shl(6) | u128::from(digit(*byte)?))
    });
    match whole {
        Some(whole) if position.len() == 22 => Ok((whole >> 4) as i64),
        _ => Err(format!("the position {:?}", String::from_utf8_lossy(position))),
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    /// Begins to subscribe.
    pub fn gather(server: &str, subscribers: Vec<Subscriber>) -> Result<Self> {
        let address: SocketAddr = server.parse()?;
        let (log, over) = (Arc::<Mutex<Log>>::default(), Arc::<AtomicBool>::default());
        let mut room = Room {
            poll: Poll::new()?,
            upgrade: frames::upgrade(server),
            address,
            subscribers,
            places: Vec::new(),
            fresh: Log::default(),
            live: 0,
        };
        let thread = std::thread::Builder::new().name("crowd".to_owned()).spawn({
            let (log, over) = (log.clone(), over.clone());
            move || {
                if let Err(error) = room.run(&log, &over) {
                    lock(&log).failure = Some(error.to_string());
                }
            }
        })?;
        Ok(Self {
            log,
            over,
            thread: Some(thread),
        })
    }

    /// How many are live, and how many deliveries wait to be taken.
    pub fn progress(&self) -> Result<(usize, usize)> {
        let log = lock(&self.log);
        match &log.failure {
            Some(failure) => Err(failure.clone().into()),
            None => Ok((log.live, log.deliveries.len())),
        }
    }

    /// Takes what has been delivered. To one subscriber: in the order in which it arrived.
    pub fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut lock(&self.log).deliveries)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How far a subscriber is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for a socket.
    Upgrading,
    /// Waits for the socket to be acknowledged.
    Introduced,
    /// Waits for the first word on the subscription.
    Subscribed,
    /// Has heard that it is up to date.
    Live,
}

/// A subscriber's socket.
struct Place {
    stream: TcpStream,
    stage: Stage,
    /// The beginning of something that has not wholly arrived.
    rest: Vec<u8>,
}

/// What the thread works with.
struct Room {
    poll: Poll,
    address: SocketAddr,
    upgrade: Vec<u8>,
    subscribers: Vec<Subscriber>,
    places: Vec<Place>,
    /// What was seen since it was last put into the common log.
    fresh: Log,
    live: usize,
}

impl Room {
    fn run(&mut self, log: &Mutex<Log>, over: &AtomicBool) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER];
        while !over.load(Ordering::Relaxed) {
            while self.places.len() < self.subscribers.len() && self.places.len() - self.live < AT_ONCE {
                self.enter()
                    .map_err(|error| self.about(self.places.len(), error))?;
            }
            match self.poll.poll(&mut events, Some(Duration::from_millis(100))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                let Token(index) = event.token();
                self.read(index, &mut buffer, event.is_read_closed())
                    .map_err(|error| self.about(index, error))?;
            }
            let mut log = lock(log);
            log.live = self.live;
            log.deliveries.append(&mut self.fresh.deliveries);
        }
        Ok(())
    }

    fn about(&self, index: usize, error: Error) -> Error {
        format!(
            "subscriber {index} of {} ({} live): {error}",
            self.subscribers.len(),
            self.live
        )
        .into()
    }

    fn enter(&mut self) -> Result<()> {
        // On the loopback this returns at once, whether the server has accepted or not.
        let stream = std::net::TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let token = Token(self.places.len());
        self.poll
            .registry()
            .register(&mut stream, token, Interest::READABLE)?;
        stream.write_all(&self.upgrade)?;
        self.places.push(Place {
            stream,
            stage: Stage::Upgrading,
            rest: Vec::new(),
        });
        Ok(())
    }

    fn read(&mut self, index: usize, buffer: &mut [u8], closed: bool) -> Result<()> {
        loop {
            match self.places[index].stream.read(buffer) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(length) => {
                    self.heard(index, &buffer[..length], now())?;
                    // Less than there was room for: nothing is left, and news will be told.
                    if length < buffer.len() && !closed {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn heard(&mut self, index: usize, bytes: &[u8], at: i64) -> Result<()> {
        if self.places[index].rest.is_empty() {
            let used = self.all(index, bytes, at)?;
            self.places[index].rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.places[index].rest);
            whole.extend_from_slice(bytes);
            let used = self.all(index, &whole, at)?;
            self.places[index].rest.extend_from_slice(&whole[used..]);
        }
        Ok(())
    }

    /// Deals with everything that is complete; answers how many bytes that was.
    fn all(&mut self, index: usize, bytes: &[u8], at: i64) -> Result<usize> {
        let mut used = 0;
        if self.places[index].stage == Stage::Upgrading {
            let Some(end) = find(bytes, b"\r\n\r\n") else {
                return Ok(0);
            };
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            if !head.starts_with("http/1.1 101 ") || !head.contains("graphql-transport-ws") {
                return Err(format!("no socket: {}", String::from_utf8_lossy(bytes)).into());
            }
            let token = &self.subscribers[index].token;
            let payload = json!({ "Authorization": format!("Bearer {token}") });
            self.say(index, &json!({ "type": "connection_init", "payload": payload }))?;
            self.places[index].stage = Stage::Introduced;
            used = end + 4;
        }
        while let Some((frame, length)) = frames::first(&bytes[used..])? {
            match frame.kind {
                TEXT => self.message(index, frame.payload, at)?,
                PING => {
                    let pong = frames::frame(PONG, frame.payload);
                    self.places[index].stream.write_all(&pong)?;
                }
                PONG => {}
                CLOSE => {
                    let code = frame
                        .payload
                        .iter()
                        .take(2)
                        .fold(0, |code, byte| code << 8 | u32::from(*byte));
                    let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default());
                    return Err(format!("the server closed the socket: {code} {reason}").into());
                }
                kind => return Err(format!("a frame of kind {kind}").into()),
            }
            used += length;
        }
        Ok(used)
    }

    /// Sends a message, which is small enough always to fit.
    fn say(&mut self, index: usize, message: &Value) -> Result<()> {
        let frame = frames::frame(TEXT, message.to_string().as_bytes());
        Ok(self.places[index].stream.write_all(&frame)?)
    }

    fn message(&mut self, index: usize, text: &[u8], at: i64) -> Result<()> {
        const TYPENAME: &[u8] = b"\"__typename\":\"";
        const EVENT: &[u8] = b"DealStageChangedEvent\",\"position\":\"";
        let wrong = || Error::from(String::from_utf8_lossy(text).into_owned());
        let stage = self.places[index].stage;
        if text.starts_with(br#"{"type":"ping""#) {
            return self.say(index, &json!({ "type": "pong" }));
        }
        if stage == Stage::Introduced {
            if !text.starts_with(br#"{"type":"connection_ack""#) {
                return Err(wrong());
            }
            let variables = json!({ "pipeline": self.subscribers[index].pipeline });
            let payload = json!({ "query": DOCUMENT, "variables": variables });
            self.say(
                index,
                &json!({ "id": "1", "type": "subscribe", "payload": payload }),
            )?;
            self.places[index].stage = Stage::Subscribed;
            return Ok(());
        }
        // Members come in the order in which they are asked for, so a few bytes tell all.
        let start = find(text, TYPENAME).ok_or_else(wrong)? + TYPENAME.len();
        let told = &text[start..];
        if let Some(position) = told.strip_prefix(EVENT).and_then(|rest| rest.get(..22)) {
            if index.is_multiple_of(READER) {
                whole(text).ok_or_else(wrong)?;
            }
            self.fresh.deliveries.push(Delivery {
                subscriber: u32::try_from(index)?,
                position: number(position)?,
                at,
            });
        } else if !told.starts_with(b"UpToDate\"") {
            return Err(wrong());
        } else if stage == Stage::Subscribed {
            self.places[index].stage = Stage::Live;
            self.live += 1;
        }
        Ok(())
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Whether a change is told completely and without errors. The deal's stage may be a later one already.
fn whole(text: &[u8]) -> Option<()> {
    let message: Value = serde_json::from_slice(text).ok()?;
    let payload = &message["payload"];
    let change = &payload["data"]["dealStageChanged"];
    let (from, to) = (
        change["fromStage"]["id"].as_str()?,
        change["toStage"]["id"].as_str()?,
    );
    change["deal"]["stage"]["name"].as_str()?;
    change["occurredAt"].as_str()?;
    let right = message["type"] == "next"
        && payload.get("errors").is_none()
        && from != to
        && change["deal"]["id"] == change["dealId"];
    right.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;
    use std::time::Instant;

    const UP_TO_DATE: &str = r#"{"__typename":"UpToDate","position":"AAAAAAAAAAEAAAAAAAAAAQ"}"#;

    fn event(position: &str) -> String {
        let stage = |id| format!(r#"{{"id":"{id}","name":"Some stage"}}"#);
        format!(
            r#"{{"__typename":"DealStageChangedEvent","position":"{position}","dealId":"d","deal":{{"id":"d","name":"A deal","stage":{}}},"fromStage":{},"toStage":{},"occurredAt":"2026-11-21T08:00:00Z"}}"#,
            stage("b"),
            stage("a"),
            stage("b")
        )
    }

    fn from_server(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let head = match payload.len() {
            short @ 0..126 => vec![0x80 | kind, short as u8],
            _ => vec![0x80 | kind, 126, length[0], length[1]],
        };
        [&head, payload].concat()
    }

    fn next(data: &str) -> Vec<u8> {
        let text =
            format!(r#"{{"id":"1","type":"next","payload":{{"data":{{"dealStageChanged":{data}}}}}}}"#);
        from_server(TEXT, text.as_bytes())
    }

    /// The text of the next message from a client, whose mask is zeros.
    fn received(stream: &mut std::net::TcpStream) -> (u8, String) {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut rest = vec![0; 4 + length];
        stream.read_exact(&mut rest).unwrap();
        (head[0] & 0xf, String::from_utf8(rest.split_off(4)).unwrap())
    }

    /// Does what the server does until the subscriber is up to date.
    fn welcome(listener: &TcpListener) -> std::net::TcpStream {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(
            String::from_utf8(head)
                .unwrap()
                .contains("sec-websocket-protocol: graphql-transport-ws")
        );
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
        let (_, init) = received(&mut stream);
        assert!(
            init.contains("connection_init") && init.contains("Bearer secret"),
            "{init}"
        );
        stream
            .write_all(&from_server(TEXT, br#"{"type":"connection_ack"}"#))
            .unwrap();
        let (_, subscribe) = received(&mut stream);
        assert!(subscribe.contains("pipeline_1"), "{subscribe}");
        stream.write_all(&next(UP_TO_DATE)).unwrap();
        stream
    }

    fn gather(listener: &TcpListener, many: usize) -> (Crowd, Vec<std::net::TcpStream>) {
        let subscriber = || Subscriber {
            token: "secret".into(),
            pipeline: "pipeline_1".to_owned(),
        };
        let address = listener.local_addr().unwrap().to_string();
        let crowd = Crowd::gather(&address, (0..many).map(|_| subscriber()).collect()).unwrap();
        let streams = (0..many).map(|_| welcome(listener)).collect();
        until(|| crowd.progress().unwrap().0 == many);
        (crowd, streams)
    }

    fn until(done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it took too long");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_arrives_in_pieces_and_together_is_heard_once_and_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (crowd, mut streams) = gather(&listener, 2);
        let (two, three) = (event("AAAAAAAAAAEAAAAAAAAAAg"), event("AAAAAAAAAAEAAAAAAAAAAw"));
        // A message byte by byte, to one; all at once with a ping and a signal between, to the other.
        for byte in next(&two) {
            streams[0].write_all(&[byte]).unwrap();
            streams[0].flush().unwrap();
        }
        let parts = [
            next(&two),
            from_server(PING, b"there?"),
            next(UP_TO_DATE),
            next(&three),
        ];
        streams[1].write_all(&parts.concat()).unwrap();
        assert_eq!(received(&mut streams[1]), (PONG, "there?".to_owned()));
        until(|| crowd.progress().unwrap().1 == 3);
        let mut heard: Vec<_> = crowd
            .take()
            .iter()
            .map(|it| (it.subscriber, it.position))
            .collect();
        heard.sort_by_key(|(subscriber, _)| *subscriber);
        assert_eq!(heard, [(0, 2), (1, 2), (1, 3)]);
        assert!(crowd.take().is_empty());
    }

    #[test]
    fn a_socket_that_is_closed_and_a_stream_that_ends_are_failures() {
        let must_refetch = r#"{"__typename":"MustRefetch","reason":"HISTORY_TRIMMED"}"#;
        let ends = [
            from_server(CLOSE, b"\x0f\xa1Token expired"),
            from_server(TEXT, br#"{"id":"1","type":"complete"}"#),
            next(must_refetch),
            next(&event("AAAAAAAAAAEAAAAAAAAAAg").replace(r#""id":"d""#, r#""id":"another""#)),
        ];
        for end in ends {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (crowd, mut streams) = gather(&listener, 1);
            streams[0].write_all(&end).unwrap();
            until(|| crowd.progress().is_err());
        }
    }

    #[test]
    fn positions_are_read_to_the_number_in_them() {
        // Epoch 1, position 2; epoch and position of all ones.
        assert_eq!(number(b"AAAAAAAAAAEAAAAAAAAAAg"), Ok(2));
        assert_eq!(number(b"f_________9__________w"), Ok(i64::MAX));
        assert!(number(b"AAAAAAAAAAEAAAAAAAAAA").is_err());
        assert!(number(b"AAAAAAAAAAEAAAAAAAAA=g").is_err());
    }
}
