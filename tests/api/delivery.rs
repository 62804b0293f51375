//! The promise of the history, kept while everything around it breaks: two servers on one database, many who write,
//! many who come, go and resume; servers are killed and stand still, PostgreSQL is stopped and crashes, Redis goes away,
//! and a transaction stays open.
//!
//! What is drawn at random follows from a seed, which is printed; `DELIVERY_SEED` gives another. When things happen is
//! up to the machine all the same.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use dealstream::db::embedded::Embedded;
use dealstream::db::id::write_id;
use dealstream::db::migrate;
use dealstream::events::Position;
use futures::{SinkExt, StreamExt, future};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::app::SECRET;
use crate::support::folder::Folder;
use crate::support::program::{Program, ask, dealstream, lasting_address};
use crate::support::redis::Redis;
use crate::support::{Client, TestApp, app};

/// How long anything may take to recover from anything.
const PATIENCE: Duration = Duration::from_secs(40);

/// Each fault happens once, and again when there is time.
const ROUNDS: usize = 3;
const ENOUGH: Duration = Duration::from_secs(25);

/// What is lost when PostgreSQL is killed would be our fault, so only the machine may lose it.
const POSTGRES: &[(&str, &str)] = &[("fsync", "off"), ("full_page_writes", "off")];

const MOVE: &str =
    "mutation($input: MoveDealInput!) { moveDeal(input: $input) { position userErrors { code } } }";

const FOLLOW: &str = "subscription($after: String, $pipelineId: ID, $dealId: ID) {
    dealStageChanged(after: $after, pipelineId: $pipelineId, dealId: $dealId) {
        __typename
        ... on DealStageChangedEvent { position dealId }
        ... on UpToDate { position }
        ... on MustRefetch { reason }
    } }";

/// A move: its position in the history, and the deal.
type Moved = (i64, String);

/// A tenant whose deals are moved about.
struct Board {
    client: Client,
    token: String,
    begin: Position,
    deals: Vec<Deal>,
    /// The newest position that a writer was told.
    written: AtomicI64,
}

#[derive(Clone)]
struct Deal {
    id: String,
    pipeline: String,
    stages: Vec<String>,
}

impl Board {
    /// A tenant with two pipelines, and so many deals in each.
    async fn new(app: &TestApp, deals: usize) -> Arc<Self> {
        let client = app.tenant().await;
        let second =
            json!({ "name": "Second", "stages": [{ "name": "A" }, { "name": "B" }, { "name": "C" }] });
        client
            .mutate("createPipeline", "CreatePipelineInput", "pipeline { id }", second)
            .await;
        let query = "{ pipelines { nodes { id stages { id kind } } } }";
        let data = client.query(query, json!({})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut made = Vec::new();
        for pipeline in data["pipelines"]["nodes"].as_array().unwrap() {
            let stages = pipeline["stages"].as_array().unwrap().iter();
            let open = stages.filter(|stage| stage["kind"] == "OPEN");
            let stages: Vec<_> = open.map(|stage| text(&stage["id"])).collect();
            for number in 0..deals {
                let input = json!({ "name": format!("Deal {number}"), "stageId": stages[0] });
                made.push(Deal {
                    id: client.deal(input).await,
                    pipeline: text(&pipeline["id"]),
                    stages: stages.clone(),
                });
            }
        }
        let begin: Position = client.position().await.parse().unwrap();
        Arc::new(Self {
            token: client.token(),
            client,
            begin,
            deals: made,
            written: AtomicI64::new(begin.position),
        })
    }

    /// The moves that the history has, which must be dense.
    async fn moves(&self, app: &TestApp) -> Vec<Moved> {
        let tenant = self.client.viewer().tenant_id;
        let query = format!(
            "SELECT position, kind, record_id::text FROM events WHERE tenant_id = '{tenant}' ORDER BY position"
        );
        let rows = app.superuser().await.query(&query, &[]).await.unwrap();
        let positions: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        assert!(
            positions.iter().copied().eq(1..=positions.len() as i64),
            "it is dense"
        );
        let moves = rows.iter().filter(|row| row.get::<_, &str>(1) == "STAGE_CHANGED");
        let deal = |id: &str| write_id("deal", id.parse().unwrap());
        moves.map(|row| (row.get(0), deal(row.get(2)))).collect()
    }
}

/// The servers, by the addresses that they always have.
#[derive(Clone, Copy)]
struct Addresses([SocketAddr; 2]);

impl Addresses {
    fn any(&self, random: &mut StdRng) -> String {
        self.0.choose(random).unwrap().to_string()
    }
}

/// Moves a deal until it is told to stop, and answers the positions of its moves. Each is asked for until it is answered,
/// by whichever server, with a key of its own.
async fn write(board: Arc<Board>, deal: Deal, to: Addresses, seed: u64, stop: Arc<AtomicBool>) -> Vec<Moved> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut at = 0;
    let mut moves = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        at = (at + random.random_range(1..deal.stages.len())) % deal.stages.len();
        let key = format!("{seed}-{}", moves.len());
        let input = json!({ "dealId": deal.id, "stageId": deal.stages[at], "idempotencyKey": key });
        let variables = json!({ "input": input });
        let asked = async {
            loop {
                let answer = ask(&to.any(&mut random), Some(&board.token), MOVE, &variables).await;
                match answer {
                    Some(answer) if answer.get("errors").is_none() => return answer,
                    Some(answer) => {
                        let code = &answer["errors"][0]["extensions"]["code"];
                        assert_eq!(code, "UNAVAILABLE", "{answer:#}");
                    }
                    None => {}
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(10..100))).await;
            }
        };
        let answer = timeout(PATIENCE, asked).await.expect("it is moved at last");
        let payload = &answer["data"]["moveDeal"];
        assert_eq!(payload["userErrors"], json!([]), "{key}");
        let position: Position = payload["position"].as_str().unwrap().parse().unwrap();
        assert_eq!(position.epoch, board.begin.epoch);
        board.written.fetch_max(position.position, Ordering::SeqCst);
        moves.push((position.position, deal.id.clone()));
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
    }
    moves
}

#[derive(Clone, Copy)]
enum Transport {
    Socket,
    Events,
}

/// A subscription on its way, over a real connection.
enum Stream {
    Socket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Events { stream: TcpStream, bytes: Vec<u8> },
}

impl Stream {
    /// Subscribes; nothing when the server is away.
    async fn open(transport: Transport, address: &str, token: &str, variables: &Value) -> Option<Self> {
        let question = json!({ "query": FOLLOW, "variables": variables });
        match transport {
            Transport::Socket => {
                let mut request = format!("ws://{address}/graphql").into_client_request().unwrap();
                let protocol = HeaderValue::from_static("graphql-transport-ws");
                request.headers_mut().insert("sec-websocket-protocol", protocol);
                let (mut socket, _) = connect_async(request).await.ok()?;
                for message in [
                    json!({ "type": "connection_init", "payload": { "Authorization": format!("Bearer {token}") } }),
                    json!({ "type": "subscribe", "id": "1", "payload": question }),
                ] {
                    socket.send(Message::text(message.to_string())).await.ok()?;
                }
                Some(Self::Socket(Box::new(socket)))
            }
            Transport::Events => {
                let body = question.to_string();
                let mut stream = TcpStream::connect(address).await.ok()?;
                // Version 1.0, so that the body is not cut into chunks.
                let request = format!(
                    "POST /graphql HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\n\
                     accept: text/event-stream\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(request.as_bytes()).await.ok()?;
                let bytes = Vec::new();
                let mut events = Self::Events { stream, bytes };
                let head = events.part("\r\n\r\n").await?;
                assert!(head.starts_with("HTTP/1.0 200"), "{head}");
                Some(events)
            }
        }
    }

    /// The next frame; nothing when the server has gone away. May be given up and asked again.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let mut answer: Value = match self {
                Self::Socket(socket) => match socket.next().await?.ok()? {
                    Message::Text(text) => {
                        let mut message: Value = serde_json::from_str(&text).unwrap();
                        match message["type"].as_str() {
                            Some("connection_ack") => continue,
                            Some("next") => message["payload"].take(),
                            _ => panic!("{message}"),
                        }
                    }
                    Message::Ping(_) => continue,
                    other => panic!("{other:?}"),
                },
                Self::Events { .. } => {
                    let event = self.part("\n\n").await?;
                    if event.starts_with(':') {
                        continue;
                    }
                    let data = event.strip_prefix("event: next\ndata: ");
                    serde_json::from_str(data.unwrap_or_else(|| panic!("{event}"))).unwrap()
                }
            };
            assert_eq!(answer.get("errors"), None);
            return Some(answer["data"]["dealStageChanged"].take());
        }
    }

    /// What comes up to a mark.
    async fn part(&mut self, mark: &str) -> Option<String> {
        let Self::Events { stream, bytes } = self else {
            unreachable!("sockets come in messages");
        };
        loop {
            let found = bytes.windows(mark.len()).position(|it| it == mark.as_bytes());
            if let Some(end) = found {
                let part = bytes.drain(..end + mark.len()).collect();
                return Some(String::from_utf8(part).unwrap());
            }
            if stream.read_buf(bytes).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// Somebody who follows moves, comes and goes.
struct Follower {
    name: String,
    board: Arc<Board>,
    transport: Transport,
    /// What it asks for besides `after`.
    filter: Value,
    /// Up to here it has seen everything; it begins when it first connects when that is nowhere.
    after: Option<Position>,
    /// Everything after here is to be seen.
    from: Option<Position>,
    seen: Vec<Moved>,
    /// For the others: how far it has come.
    reached: Arc<AtomicI64>,
}

impl Follower {
    fn new(board: &Arc<Board>, transport: Transport, filter: Value, after: Option<Position>) -> Self {
        let kind = match transport {
            Transport::Socket => "socket",
            Transport::Events => "events",
        };
        Self {
            name: format!("{kind} {filter} after {after:?}"),
            board: board.clone(),
            transport,
            filter,
            after,
            from: after,
            seen: Vec::new(),
            reached: Arc::new(AtomicI64::new(0)),
        }
    }

    async fn connect(&self, to: Addresses, random: &mut StdRng) -> Option<Stream> {
        let mut variables = self.filter.clone();
        variables["after"] = json!(self.after.map(|after| after.to_string()));
        let address = to.any(random);
        let open = Stream::open(self.transport, &address, &self.board.token, &variables);
        let opened = timeout(PATIENCE, open).await;
        opened.expect("a server that is there takes connections")
    }

    /// Takes a frame in; answers whether it was a move.
    fn take(&mut self, frame: &Value) -> bool {
        let name = &self.name;
        let position = frame["position"].as_str();
        let position = position.unwrap_or_else(|| panic!("{name}: {frame}"));
        let position: Position = position.parse().unwrap();
        let moved = frame["__typename"] == "DealStageChangedEvent";
        assert!(
            self.after.is_some() || !moved,
            "{name}: it begins now, and says so first"
        );
        let before = self.after.unwrap_or(position);
        assert_eq!(position.epoch, before.epoch);
        if moved {
            assert!(
                position.position > before.position,
                "{name}: {frame} after {before:?}"
            );
            let deal = frame["dealId"].as_str().unwrap().to_owned();
            self.seen.push((position.position, deal));
        } else {
            assert!(
                position.position >= before.position,
                "{name}: {frame} after {before:?}"
            );
        }
        self.from.get_or_insert(position);
        self.after = Some(position);
        self.reached.store(position.position, Ordering::SeqCst);
        moved
    }

    /// Whether a move is among what it asks for.
    fn wants(&self, (position, deal): &Moved) -> bool {
        let of = self.board.deals.iter().find(|it| it.id == *deal).unwrap();
        let fits = |name: &str, value: &str| self.filter[name].is_null() || self.filter[name] == value;
        let from = self.from.map_or(i64::MAX, |from| from.position);
        *position > from && fits("dealId", &of.id) && fits("pipelineId", &of.pipeline)
    }

    /// Comes and goes until it is told all moves that there are, then stays until it has seen the last of its own, and
    /// asks once more whether there is anything else.
    async fn follow(mut self, to: Addresses, seed: u64, mut all: watch::Receiver<Option<Arc<Vec<Moved>>>>) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut last = None;
        loop {
            let away = if random.random_ratio(1, 10) { 3_000 } else { 300 };
            tokio::time::sleep(Duration::from_millis(random.random_range(0..away))).await;
            let Some(mut stream) = self.connect(to, &mut random).await else {
                continue;
            };
            let stay = Duration::from_millis(random.random_range(20..2_500));
            let leave = tokio::time::sleep(stay);
            tokio::pin!(leave);
            while last.is_none_or(|last| self.after.is_none_or(|after| after.position < last)) {
                tokio::select! {
                    frame = stream.next() => match frame {
                        Some(frame) => _ = self.take(&frame),
                        None => break,
                    },
                    () = leave.as_mut(), if last.is_none() => break,
                    Ok(()) = all.changed(), if last.is_none() => {
                        let all = all.borrow().clone().unwrap();
                        let mut wanted = all.iter().filter(|moved| self.wants(moved));
                        last = Some(wanted.next_back().map_or(0, |moved| moved.0));
                    }
                }
            }
            if let (Some(last), Some(after)) = (last, self.after)
                && after.position >= last
            {
                break;
            }
        }
        // Nothing else follows. What happened elsewhere in the tenant a server may learn of a second later.
        let all = all.borrow().clone().unwrap();
        let end = all.last().unwrap().0;
        let asks_until_then = async {
            loop {
                let stream = self.connect(to, &mut random).await;
                let mut stream = stream.expect("the servers are there");
                let frame = stream.next().await.expect("the servers stay");
                assert!(!self.take(&frame), "{}: {frame}", self.name);
                if self.after.is_some_and(|after| after.position >= end) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let told = timeout(PATIENCE, asks_until_then).await;
        told.unwrap_or_else(|_| panic!("{} has not come to {end}", self.name));
        let wanted: Vec<Moved> = all.iter().filter(|moved| self.wants(moved)).cloned().collect();
        assert_eq!(self.seen, wanted, "{}", self.name);
    }
}

/// What happens to those on whom it all rests.
#[derive(Debug, Clone, Copy)]
enum Fault {
    ServerKilled,
    ServersKilled,
    ServerFrozen,
    PostgresStopped,
    PostgresCrashed,
    PostgresStoppedAndServerKilled,
    RedisKilled,
    RedisFrozen,
    /// Somebody else holds a transaction open, and a server is killed meanwhile.
    TransactionHeld,
}

const FAULTS: [Fault; 9] = [
    Fault::ServerKilled,
    Fault::ServersKilled,
    Fault::ServerFrozen,
    Fault::PostgresStopped,
    Fault::PostgresCrashed,
    Fault::PostgresStoppedAndServerKilled,
    Fault::RedisKilled,
    Fault::RedisFrozen,
    Fault::TransactionHeld,
];

/// Two servers on one PostgreSQL and one Redis. Made and broken by the thread of the test, with which they end.
struct World {
    servers: [Option<Program>; 2],
    postgres: Embedded,
    redis: Redis,
    folder: Folder,
    url: String,
    addresses: Addresses,
    /// Who has to go on after each fault.
    followers: Vec<(String, Arc<AtomicI64>, Arc<Board>)>,
    begun: Instant,
}

impl World {
    async fn new() -> Self {
        let folder = Folder::new("delivery");
        let postgres = block_in_place(|| Embedded::start_with(folder.path(), POSTGRES)).unwrap();
        let url = postgres.url();
        migrate::migrate(&url).await.unwrap();
        Self {
            servers: [None, None],
            postgres,
            redis: block_in_place(|| Redis::new("delivery")),
            folder,
            url,
            addresses: Addresses([lasting_address(), lasting_address()]),
            followers: Vec::new(),
            begun: Instant::now(),
        }
    }

    /// Says what happens, for whoever wants to know why the test fails.
    fn note(&self, what: &str) {
        println!("{:6.2} s: {what}", self.begun.elapsed().as_secs_f64());
    }

    fn start(&mut self, number: usize) {
        let mut command = dealstream(self.folder.path());
        command
            .env("DATABASE_URL", &self.url)
            .env("REDIS_URL", self.redis.url())
            .env("JWT_SECRET", SECRET)
            .env("LISTEN_ADDR", self.addresses.0[number].to_string())
            .env("DEALSTREAM_DATABASE_CONNECTIONS", "8")
            .env("DEALSTREAM_DATABASE_WAIT_SECONDS", "1")
            .env("RUST_LOG", "error");
        self.servers[number] = Some(block_in_place(|| Program::start(command)));
    }

    fn kill(&mut self, number: usize) {
        let mut server = self.servers[number].take().unwrap();
        block_in_place(|| server.end(Signal::KILL));
    }

    fn stop_postgres(&mut self) {
        block_in_place(|| self.postgres.stop());
    }

    fn start_postgres(&mut self) {
        let started = block_in_place(|| Embedded::start_with(self.folder.path(), POSTGRES));
        self.postgres = started.unwrap();
        assert_eq!(self.postgres.url(), self.url);
    }

    /// Lets PostgreSQL end at once, with nothing put away; its keeper starts it again, and it recovers from its log.
    async fn crash_postgres(&self) {
        let noted = self.folder.path().join("postgres/postmaster.pid");
        let before = postmaster(&noted).unwrap();
        kill_process(before, Signal::QUIT).unwrap();
        let back = async {
            while postmaster(&noted).is_none_or(|pid| pid == before) || !answers(&self.url).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, back).await.expect("PostgreSQL comes back");
    }

    /// Lets it happen, and mends it.
    async fn suffer(&mut self, fault: Fault, app: &TestApp, random: &mut StdRng) {
        self.note(&format!("{fault:?}"));
        let number = random.random_range(0..2);
        let while_it_lasts = tokio::time::sleep(Duration::from_millis(random.random_range(0..1_000)));
        match fault {
            Fault::ServerKilled => {
                self.kill(number);
                while_it_lasts.await;
                self.start(number);
            }
            Fault::ServersKilled => {
                self.kill(number);
                self.kill(1 - number);
                while_it_lasts.await;
                self.start(0);
                self.start(1);
            }
            Fault::ServerFrozen => {
                self.servers[number].as_ref().unwrap().signal(Signal::STOP);
                while_it_lasts.await;
                self.servers[number].as_ref().unwrap().signal(Signal::CONT);
            }
            Fault::PostgresStopped => {
                self.stop_postgres();
                while_it_lasts.await;
                self.start_postgres();
            }
            Fault::PostgresCrashed => self.crash_postgres().await,
            Fault::PostgresStoppedAndServerKilled => {
                self.stop_postgres();
                self.kill(number);
                while_it_lasts.await;
                self.start_postgres();
                self.start(number);
            }
            Fault::RedisKilled => {
                self.redis.kill();
                self.all_go_on().await;
                block_in_place(|| self.redis.start());
            }
            Fault::RedisFrozen => {
                self.redis.freeze();
                self.all_go_on().await;
                self.redis.thaw();
            }
            Fault::TransactionHeld => {
                let holder = app.superuser().await;
                let hold = "BEGIN; UPDATE companies SET name = 'Held still' WHERE name = 'Held'";
                holder.batch_execute(hold).await.unwrap();
                self.all_go_on().await;
                self.kill(number);
                self.start(number);
                self.all_go_on().await;
                holder.batch_execute("ROLLBACK").await.unwrap();
            }
        }
        self.all_go_on().await;
    }

    /// Waits until every follower has seen something that was written from now on.
    async fn all_go_on(&self) {
        let wanted = self.followers.iter().map(|(name, reached, board)| {
            let written = board.written.load(Ordering::SeqCst);
            (name, reached, written)
        });
        for (name, reached, written) in wanted.collect::<Vec<_>>() {
            let goes_on = async {
                while reached.load(Ordering::SeqCst) <= written {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let goes_on = timeout(PATIENCE, goes_on).await;
            goes_on.unwrap_or_else(|_| panic!("{name} does not go on after {written}"));
        }
    }
}

fn postmaster(noted: &Path) -> Option<Pid> {
    let noted = std::fs::read_to_string(noted).ok()?;
    Pid::from_raw(noted.lines().next()?.parse().ok()?)
}

async fn answers(url: &str) -> bool {
    tokio_postgres::connect(url, tokio_postgres::NoTls).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_follower_sees_all_of_its_moves_once_and_in_order_whatever_breaks() {
    let seed: u64 = std::env::var("DELIVERY_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("DELIVERY_SEED={seed}");
    let mut seeds = seed * 1000..;
    let mut random = StdRng::seed_from_u64(seeds.next().unwrap());
    let mut world = World::new().await;
    let app = TestApp::on(world.url.clone(), app::config()).await;
    let [board, other] = [Board::new(&app, 3).await, Board::new(&app, 1).await];
    board.client.company("Held").await;
    world.start(0);
    world.start(1);

    let to = world.addresses;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for of in [&board, &other] {
        let writes = of.deals.iter().map(|deal| {
            let seed = seeds.next().unwrap();
            tokio::spawn(write(of.clone(), deal.clone(), to, seed, stop.clone()))
        });
        writers.push(writes.collect::<Vec<_>>());
    }
    use Transport::{Events, Socket};
    let deal = json!({ "dealId": board.deals[0].id });
    let [first, second] = [0, 3].map(|number| json!({ "pipelineId": board.deals[number].pipeline }));
    let followers = [
        Follower::new(&board, Socket, json!({}), Some(board.begin)),
        Follower::new(&board, Socket, json!({}), None),
        Follower::new(&board, Events, json!({}), Some(board.begin)),
        Follower::new(&board, Socket, first.clone(), None),
        Follower::new(&board, Socket, first, Some(board.begin)),
        Follower::new(&board, Events, second, Some(board.begin)),
        Follower::new(&board, Socket, deal.clone(), Some(board.begin)),
        Follower::new(&board, Events, deal, None),
        Follower::new(&other, Socket, json!({}), Some(other.begin)),
    ];
    let (of_board, all_of_board) = watch::channel(None);
    let (of_other, all_of_other) = watch::channel(None);
    let mut following = Vec::new();
    for follower in followers {
        let (name, reached, of) = (&follower.name, &follower.reached, &follower.board);
        world.followers.push((name.clone(), reached.clone(), of.clone()));
        let all = if Arc::ptr_eq(of, &board) {
            &all_of_board
        } else {
            &all_of_other
        };
        following.push(tokio::spawn(follower.follow(
            to,
            seeds.next().unwrap(),
            all.clone(),
        )));
    }
    world.all_go_on().await;

    for round in 0..ROUNDS {
        let mut faults = FAULTS;
        faults.shuffle(&mut random);
        for fault in faults {
            if round == 0 || world.begun.elapsed() < ENOUGH {
                world.suffer(fault, &app, &mut random).await;
            }
        }
    }

    stop.store(true, Ordering::SeqCst);
    for ((of, writers), tell) in [&board, &other]
        .into_iter()
        .zip(writers)
        .zip([of_board, of_other])
    {
        let answered = future::join_all(writers).await.into_iter();
        let mut answered: Vec<Moved> = answered.flat_map(Result::unwrap).collect();
        answered.sort();
        let all = of.moves(&app).await;
        assert_eq!(
            answered, all,
            "every move that was answered was made once, and no other"
        );
        world.note(&format!("{} moves were made", all.len()));
        tell.send(Some(Arc::new(all))).unwrap();
    }
    let seen = timeout(PATIENCE, future::join_all(following)).await;
    for followed in seen.expect("they see the last of it") {
        followed.unwrap();
    }
    world.note("all were seen");
}
