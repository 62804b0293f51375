//! A small schema behind the real wire, for what a correct application never does: hang, panic, leak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_graphql::futures_util::stream::{self, BoxStream, Stream, StreamExt};
use async_graphql::{
    Context, Object, Request, Response, Schema, SchemaBuilder, Subscription, ValidationMode,
};
use dealstream::app::App;
use dealstream::auth::{Limiter, Origin};
use dealstream::error::Error;
use dealstream::graphql::limits::{Documents, Limits, Prepared, validator};
use dealstream::http::answer::Cost;
use dealstream::http::live::{self, Step, Steps};
use dealstream::http::{Backend, Http, Settings, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The token that is taken; `soon` is taken for half a second.
pub const TOKEN: &str = "good";

/// What tests may look at and change behind the wire.
#[derive(Default)]
pub struct Behind {
    /// Operations whose session has not been finished since it was last used.
    pub unfinished: AtomicUsize,
    /// Rung when all who are there have to go.
    pub revoked: Notify,
    /// How many answers others are said to have spoilt.
    pub spoilt: AtomicUsize,
    /// Mutations that ran.
    pub mutations: AtomicUsize,
    /// Subscriptions whose stream has not been dropped.
    pub streams: AtomicUsize,
    /// Whether the database is said not to answer.
    pub database_gone: AtomicBool,
    /// How many ask the database whether it answers, now and at most.
    pub asking: (AtomicUsize, AtomicUsize),
}

pub struct Session {
    viewer: Option<String>,
    key: Option<String>,
    used: AtomicBool,
}

pub struct Small {
    schema: Schema<Query, Mutation, Counting>,
    documents: Documents,
    limiter: Arc<Limiter>,
    behind: Arc<Behind>,
}

pub struct Query;

#[Object]
impl Query {
    async fn hello(&self) -> &str {
        "hello"
    }
    async fn double(&self, of: i32) -> i32 {
        of * 2
    }
    async fn me(&self) -> Query {
        Query
    }
    async fn viewer(&self, ctx: &Context<'_>) -> Option<String> {
        let session = ctx.data_unchecked::<Arc<Session>>();
        session.used.store(true, Ordering::SeqCst);
        ctx.data_unchecked::<Arc<Behind>>()
            .unfinished
            .fetch_add(1, Ordering::SeqCst);
        session.viewer.clone()
    }
    async fn long(&self, length: i32) -> String {
        "long ".repeat(length as usize)
    }
    async fn hang(&self) -> bool {
        std::future::pending().await
    }
    async fn panic(&self, #[graphql(default)] harmless: bool) -> Option<bool> {
        assert!(harmless, "a panic that a test wants");
        Some(harmless)
    }
    // The executor nulls a field that fails only in this form; a `Result` of an `Option` fails the parent.
    async fn leak(&self) -> Option<async_graphql::Result<bool>> {
        Some(Err(async_graphql::Error::new(
            "relation \"secrets\" does not exist at /src/db.rs",
        )))
    }
    async fn told(&self) -> Option<async_graphql::Result<bool>> {
        use async_graphql::ErrorExtensions;
        Some(Err(async_graphql::Error::new("Not for you.")
            .extend_with(|_, extensions| extensions.set("code", "FORBIDDEN"))))
    }
    async fn id(&self, #[graphql(validator(min_length = 3))] of: String) -> String {
        of
    }
}

pub struct Mutation;

#[Object]
impl Mutation {
    async fn change(&self, ctx: &Context<'_>) -> Option<String> {
        ctx.data_unchecked::<Arc<Behind>>()
            .mutations
            .fetch_add(1, Ordering::SeqCst);
        ctx.data_unchecked::<Arc<Session>>().key.clone()
    }
}

pub struct Counting;

/// Counts a stream as long as it is there.
struct Counted(Arc<Behind>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

#[Subscription]
impl Counting {
    async fn count(&self, to: i32) -> impl Stream<Item = i32> {
        stream::iter(1..=to)
    }
    async fn endless(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 1)] bytes: i32,
    ) -> impl Stream<Item = String> {
        let behind = ctx.data_unchecked::<Arc<Behind>>().clone();
        behind.streams.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(behind);
        stream::unfold(counted, move |counted| async move {
            tokio::task::yield_now().await;
            Some(("x".repeat(bytes as usize), counted))
        })
    }
    async fn silence(&self, ctx: &Context<'_>) -> impl Stream<Item = i32> {
        let behind = ctx.data_unchecked::<Arc<Behind>>().clone();
        behind.streams.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(behind);
        stream::once(async { 0 }).chain(stream::pending()).map(move |n| {
            let _ = &counted;
            n
        })
    }
    async fn refuse(&self) -> async_graphql::Result<BoxStream<'static, i32>> {
        use async_graphql::ErrorExtensions;
        Err(async_graphql::Error::new("Not for you.")
            .extend_with(|_, extensions| extensions.set("code", "FORBIDDEN")))
    }
    async fn explode(&self) -> impl Stream<Item = i32> {
        stream::iter([1, 2]).map(|n| {
            if n == 2 {
                panic!("a panic that a test wants")
            } else {
                n
            }
        })
    }
}

fn finish(behind: &Behind, session: &Session) {
    if session.used.swap(false, Ordering::SeqCst) {
        behind.unfinished.fetch_sub(1, Ordering::SeqCst);
    }
}

fn builder(behind: &Arc<Behind>) -> SchemaBuilder<Query, Mutation, Counting> {
    Schema::build(Query, Mutation, Counting).data(behind.clone())
}

impl Backend for Small {
    type Viewer = String;
    type Session = Session;

    fn documents(&self) -> &Documents {
        &self.documents
    }

    fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    async fn authenticate(&self, bearer: &str, _from: &Origin) -> Result<String, Error> {
        match bearer {
            TOKEN | "soon" => Ok(bearer.to_owned()),
            "later" => Err(Error::Unavailable),
            _ => Err(Error::Unauthenticated("The access token is not valid.")),
        }
    }

    async fn introspect(
        &self,
        _asker: &String,
        _token: &str,
        _from: &Origin,
    ) -> Result<serde_json::Value, Error> {
        Ok(serde_json::json!({ "active": false }))
    }

    fn keys(&self) -> (serde_json::Value, Duration) {
        (serde_json::json!({ "keys": [] }), Duration::from_secs(1))
    }

    fn expires_in(&self, viewer: &String) -> Duration {
        match viewer.as_str() {
            "soon" => Duration::from_millis(500),
            _ => Duration::from_secs(900),
        }
    }

    fn revoked(&self, _viewer: &String) -> impl Future<Output = ()> + Send + 'static {
        let behind = self.behind.clone();
        async move { behind.revoked.notified().await }
    }

    fn session(&self, viewer: Option<String>, _: Origin, key: Option<String>) -> Arc<Session> {
        Arc::new(Session {
            viewer,
            key,
            used: AtomicBool::new(false),
        })
    }

    fn attach(&self, request: Request, session: &Arc<Session>) -> Request {
        request.data(session.clone())
    }

    async fn conclude(&self, session: &Session, response: Response) -> Option<Response> {
        finish(&self.behind, session);
        let less = |spoilt: usize| spoilt.checked_sub(1);
        let spoilt = (self.behind.spoilt).fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        spoilt.is_err().then_some(response)
    }

    async fn execute(&self, request: Request) -> Response {
        self.schema.execute(request).await
    }

    fn subscribe(&self, viewer: Option<&String>, prepared: Prepared) -> Steps {
        let cost = Cost::of(&prepared, &self.documents);
        let session = self.session(viewer.cloned(), Origin::default(), None);
        let request = self.attach(prepared.request(), &session);
        let behind = self.behind.clone();
        // Nothing is shared here: a step for each response, up to an error.
        let responses = self.schema.execute_stream(request).enumerate();
        let steps = responses.map(move |(number, response)| {
            finish(&behind, &session);
            live::step(response, (number == 0).then_some(cost), 20)
        });
        steps
            .scan(false, |failed, step| {
                let next = (!std::mem::replace(failed, matches!(step, Step::Error(_)))).then_some(step);
                std::future::ready(next)
            })
            .boxed()
    }

    fn identity(&self, _viewer: &String) -> (Uuid, Uuid) {
        (Uuid::nil(), Uuid::nil())
    }

    fn renews(&self, _older: &String, newer: &String) -> bool {
        newer == TOKEN
    }

    async fn database_answers(&self) -> bool {
        let (now, most) = &self.behind.asking;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        now.fetch_sub(1, Ordering::SeqCst);
        !self.behind.database_gone.load(Ordering::SeqCst)
    }
}

/// A running server; stops when dropped.
pub struct Wire {
    pub address: SocketAddr,
    /// What is behind the small schema.
    pub behind: Arc<Behind>,
    pub shutdown: CancellationToken,
    pub server: JoinHandle<()>,
}

impl Wire {
    pub async fn start() -> Self {
        Self::with(Settings::default(), Limits::default()).await
    }

    pub async fn with(settings: Settings, limits: Limits) -> Self {
        let behind = Arc::new(Behind::default());
        let schema = builder(&behind).validation_mode(ValidationMode::Fast).finish();
        let documents = Documents::new(limits, &schema.sdl(), validator(builder(&behind)));
        let small = Small {
            schema,
            documents,
            limiter: Limiter::new(&["all=off".to_owned()], None, [0; 32].into()).unwrap(),
            behind: behind.clone(),
        };
        let shutdown = CancellationToken::new();
        Self::listen(Http::new(small, settings, shutdown.clone()), shutdown, behind).await
    }

    /// The application, as the server puts it on the wire.
    pub async fn serve(app: Arc<App>) -> Self {
        Self::serve_as(app, false).await
    }

    /// The same, on demo data or not.
    pub async fn serve_as(app: Arc<App>, demo: bool) -> Self {
        let settings = Settings::of(&app.config, demo);
        let shutdown = app.shutdown.clone();
        Self::listen(Http::of(app, settings), shutdown, Arc::default()).await
    }

    async fn listen<B: Backend>(
        http: Arc<Http<B>>,
        shutdown: CancellationToken,
        behind: Arc<Behind>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async move { serve::serve(http, listener, 100).await.unwrap() };
        let server = tokio::spawn(serve);
        Self {
            address,
            behind,
            shutdown,
            server,
        }
    }

    /// Runs a program of `tests/peers` against this server.
    pub async fn peer(&self, script: &str, arguments: &[String]) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");
        assert!(
            std::path::Path::new(folder)
                .join("node_modules/graphql-http")
                .exists(),
            "the clients for tests are missing: run `make setup-tests`"
        );
        let run = tokio::process::Command::new("node")
            .arg(script)
            .args(arguments)
            .current_dir(folder)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(300), run)
            .await
            .expect("it ends")
            .unwrap();
        assert!(
            output.status.success(),
            "{script}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Sends bytes as they are and reads the answer to the end of the connection.
    pub async fn raw(&self, request: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request).await;
        Reply::read(&mut stream).await
    }

    /// A request with these headers (one a line), the connection closed after it.
    pub async fn send(&self, method: &str, target: &str, headers: &str, body: &str) -> Reply {
        let headers: String = headers
            .lines()
            .map(|line| format!("{}\r\n", line.trim()))
            .collect();
        let length = if body.is_empty() && method == "GET" {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{length}{headers}\r\n{body}"
        );
        self.raw(request.as_bytes()).await
    }

    /// A query as JSON.
    pub async fn ask(&self, query: &str) -> Reply {
        self.post("accept: application/graphql-response+json", query)
            .await
    }

    pub async fn post(&self, headers: &str, query: &str) -> Reply {
        let headers = format!("content-type: application/json\n{headers}");
        let body = serde_json::json!({ "query": query }).to_string();
        self.send("POST", "/graphql", &headers, &body).await
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        // A reset after the answer is no matter.
        let _ = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("the server answers and closes");
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(bytes.len(), |at| at + 4);
        let body = bytes.split_off(end);
        let head = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        Self { status, head, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the first error.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    }
}

/// Waits until something is so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
}
