//! The listening socket: time-outs, bounds, encryption and an orderly end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::workers::{Seat, Workers};
use super::{Backend, Http, headers};

/// Bytes that the head of a request may have.
const HEADERS_BYTES: usize = 64 * 1024;
/// How often a silent HTTP/2 client is asked whether it is there, and how long it may take to answer.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// Requests at the same time on an HTTP/2 connection.
const HTTP2_STREAMS: u32 = 100;
/// How long requests and sockets may take to end after the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long what was sent may wait for a client to take it in.
#[cfg(target_os = "linux")]
const DEAF: Duration = Duration::from_secs(30);
/// Files that are left to everything but client connections and threads.
const OTHER_FILES: u64 = 256;
/// Files that a thread has, to watch the others by.
const FILES_OF_A_THREAD: u64 = 4;

/// The client's side of a connection, in the extensions of its requests.
#[derive(Clone)]
pub struct Client {
    /// Where it comes from: a balancer's address behind one.
    pub address: SocketAddr,
    /// Its place among the connections, of all and of its thread, free when nothing holds it any more.
    _place: Arc<(OwnedSemaphorePermit, Arc<Seat>)>,
}

/// Raises the soft limit of open files to the hard one; answers how many connections that leaves room for, beside so many
/// threads and connections to PostgreSQL.
pub fn raise_file_limit(threads: u32, database_connections: u32) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    };
    let connections = files
        .unwrap_or(u64::MAX)
        .saturating_sub(
            OTHER_FILES + FILES_OF_A_THREAD * u64::from(threads) + u64::from(database_connections),
        )
        .clamp(64, 100_000);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// Serves until the shutdown token is cancelled, then ends what runs within ten seconds. At most `connections` at a
/// time; others wait to be accepted.
///
/// # Errors
/// When the threads that serve cannot be started.
pub async fn serve<B: Backend>(
    http: Arc<Http<B>>,
    listener: TcpListener,
    connections: usize,
) -> io::Result<()> {
    let workers = Workers::start(http.settings.threads)?;
    let router = http.router();
    let head_time = http.settings.head_time;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .max_buf_size(HEADERS_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HEADERS_BYTES as u32);
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));

    loop {
        let accepted = tokio::select! {
            biased;
            () = http.shutdown.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let (stream, address, place) = accepted;
        let seat = Arc::new(workers.seat());
        let runtime = seat.runtime().clone();
        let client = Client {
            address,
            _place: Arc::new((place, seat.clone())),
        };
        let connection = Connection {
            router: router.clone(),
            builder: builder.clone(),
            _watcher: graceful.watcher(),
            client,
            seat,
            head_time,
            idle_time: http.settings.idle_time,
            shutdown: http.shutdown.clone(),
            over_tls: http.settings.tls.is_some(),
        };
        let tls = http.settings.tls.as_ref().map(|tls| tls.acceptor());
        runtime.spawn(async move {
            match stream.and_then(TcpStream::from_std) {
                Ok(stream) => connection.greet(stream, tls).await,
                Err(error) => tracing::warn!(%address, %error, "a connection could not be handed on"),
            }
        });
    }

    drop(listener);
    http.sockets.close();
    let ended = async { tokio::join!(graceful.shutdown(), http.sockets.wait()) };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut off");
    }
    workers.end().await;
    Ok(())
}

/// A connection that is about to be served.
struct Connection {
    router: Router,
    builder: Arc<Builder<TokioExecutor>>,
    /// Held until the connection has ended: the server waits for that.
    _watcher: Watcher,
    client: Client,
    seat: Arc<Seat>,
    head_time: Duration,
    idle_time: Duration,
    shutdown: CancellationToken,
    over_tls: bool,
}

/// Counts what a connection is asked and has not been answered to the end. Nobody is woken by it, least of all the
/// connection itself: whoever waits looks again when it may be time.
#[derive(Clone)]
struct Asked(Arc<Mutex<Count>>);

struct Count {
    open: usize,
    /// When the last was answered.
    answered: Instant,
}

impl Asked {
    fn new() -> Self {
        let answered = Instant::now();
        Self(Arc::new(Mutex::new(Count { open: 0, answered })))
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Open {
        self.count().open += 1;
        Open(self.clone())
    }

    /// Nothing has been asked, nor been on its way, for so long from now on.
    async fn idle(&self, time: Duration) {
        let began = Instant::now();
        loop {
            let (open, answered) = {
                let count = self.count();
                (count.open, count.answered)
            };
            let since = match open {
                0 => answered.max(began),
                _ => Instant::now(),
            };
            if open == 0 && since.elapsed() >= time {
                return;
            }
            tokio::time::sleep_until(since + time).await;
        }
    }
}

/// Something that was asked, until this is dropped.
struct Open(Asked);

impl Drop for Open {
    fn drop(&mut self) {
        let mut count = self.0.count();
        count.open -= 1;
        count.answered = Instant::now();
    }
}

/// An answer's body: with its end the question is over.
struct Answering {
    body: Body,
    _open: Open,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Connection {
    /// Agrees on encryption first, if there is to be any.
    async fn greet(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let Some(tls) = tls else {
            return self.serve(stream).await;
        };
        let (address, shutdown) = (self.client.address, self.shutdown.clone());
        let handshake = tokio::time::timeout(self.head_time, tls.accept(stream));
        tokio::select! {
            // Nothing was asked yet, so nothing is lost.
            () = shutdown.cancelled() => {}
            greeted = handshake => match greeted {
                Ok(Ok(stream)) => self.serve(stream).await,
                Ok(Err(error)) => tracing::debug!(%address, %error, "a client could not agree on TLS 1.3"),
                Err(_elapsed) => tracing::debug!(%address, "a client took too long to agree on TLS"),
            },
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self {
            router,
            client,
            seat,
            over_tls,
            ..
        } = self;
        let address = client.address;
        let asked = Arc::new(AtomicBool::new(false));
        let open = Asked::new();
        let service = service_fn({
            let (asked, open) = (asked.clone(), open.clone());
            move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let _open = open.begin();
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(client.clone());
                // What becomes a socket stays where its connection is.
                let stays = request.headers().contains_key(header::UPGRADE);
                let answered = router.clone().oneshot(request);
                let seat = seat.clone();
                async move {
                    let mut response: Response = match stays {
                        true => answered.await?,
                        false => seat.execute(answered).await?,
                    };
                    headers::secure(response.headers_mut(), over_tls);
                    Ok::<_, Infallible>(response.map(|body| Body::new(Answering { body, _open })))
                }
            }
        });
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // The protocol is told by the first bytes, and nothing above bounds the wait for those.
        let silent = async {
            tokio::time::sleep(self.head_time).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        // Between two requests HTTP/1 is bounded by the wait for the next head; HTTP/2 would stay for ever.
        let over = async {
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = open.idle(self.idle_time) => {}
            }
        };
        // A client that is there agrees to the end at once, one that has vanished never does.
        let vanished = async {
            open.idle(self.head_time).await;
        };
        tokio::pin!(silent, over, vanished);
        let mut ending = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%address, %error, "a connection broke");
                    }
                    return;
                }
                () = &mut over, if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut vanished, if ending => return,
                () = &mut silent => {
                    tracing::debug!(%address, "a connection that asked nothing was closed");
                    return;
                }
            }
        }
    }
}

/// Lets the system drop a client that takes nothing in: an answer that nobody reads would be held for ever.
#[cfg(target_os = "linux")]
fn give_up_on_the_deaf(stream: &TcpStream) {
    use rustix::net::sockopt::set_tcp_user_timeout;
    if let Err(error) = set_tcp_user_timeout(stream, DEAF.as_millis() as u32) {
        tracing::debug!(%error, "clients that read nothing are kept");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_up_on_the_deaf(_: &TcpStream) {}

/// The next connection, not yet watched by anybody.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (io::Result<std::net::TcpStream>, SocketAddr, OwnedSemaphorePermit) {
    let place = room
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%address, %error, "small packets will wait");
                }
                give_up_on_the_deaf(&stream);
                return (stream.into_std(), address, place);
            }
            Err(error) => {
                // Out of files, or a client that went away at once: neither is mended by hurrying.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_waits_for_silence_is_not_woken_by_what_is_asked_and_waits_for_its_end() {
        let (asked, time) = (Asked::new(), Duration::from_millis(200));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut silence = Box::pin(asked.idle(time));
        let mut look = || silence.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(look().is_pending());
        let (one, other) = (asked.begin(), asked.begin());
        drop(one);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        // Longer than silence would have to last, and looked at in the midst.
        tokio::time::sleep(time * 2).await;
        assert!(look().is_pending());
        drop(other);
        let ended = Instant::now();
        silence.await;
        assert!(ended.elapsed() >= time, "it ended too early");
        assert!(ended.elapsed() < time * 20, "it did not end");
        // Who begins to wait later waits as long.
        asked.idle(time).await;
        assert!(ended.elapsed() >= time * 2);
    }
}
