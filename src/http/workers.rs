//! The threads that serve: one for each processor, each with a runtime of its own.
//!
//! A connection stays with the thread that it is given to, and so does all that is done for it: its requests are read,
//! executed and answered there, over [connections](crate::db::Database) to PostgreSQL that are watched there. A runtime of many
//! threads hands each of these steps to whichever thread is free, and to wake that one takes longer than the step. Only a
//! whole request is ever handed on, by a thread that has [more](MORE) of them than another.

use std::future::pending;
use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinError;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// How long what a thread does besides, such as hashing a password, may go on after its end.
const GRACE: Duration = Duration::from_secs(1);

/// How many requests more than another a thread has before it hands one on, which costs as much as a small one does; and half
/// of what that one has besides, as among many a few more are soon done.
const MORE: usize = 4;

/// Threads that serve connections: the one that accepts them, and others until this is dropped or [ended](Workers::end).
pub(super) struct Workers {
    workers: Arc<[Worker]>,
    others: Vec<JoinHandle<()>>,
    running: DropGuard,
}

struct Worker {
    runtime: Handle,
    connections: AtomicUsize,
    /// Those that are being executed.
    requests: AtomicUsize,
}

/// A connection's thread, which counts it until this is dropped.
pub(super) struct Seat {
    workers: Arc<[Worker]>,
    at: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.workers[self.at].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    /// The runtime of the thread.
    pub fn runtime(&self) -> &Handle {
        &self.workers[self.at].runtime
    }

    /// Executes a request on this thread, or on one that has [fewer](MORE): a connection may bring many at a time, and those
    /// that bring many may all be on one thread.
    pub async fn execute<F: Future<Output: Send> + Send + 'static>(&self, request: F) -> F::Output {
        let load = |at: usize| self.workers[at].requests.load(Ordering::Relaxed);
        let idlest = (0..self.workers.len()).rev().min_by_key(|at| load(*at));
        let at = idlest.filter(|at| load(self.at) >= load(*at) * 3 / 2 + MORE);
        let at = at.unwrap_or(self.at);
        let _executed = Executed::by(&self.workers[at]);
        if at == self.at {
            return request.await;
        }
        let request = AbortOnDropHandle::new(self.workers[at].runtime.spawn(request));
        match request.await.map_err(JoinError::try_into_panic) {
            Ok(answer) => answer,
            Err(Ok(panic)) => resume_unwind(panic),
            // The threads are being ended, and the connection with them.
            Err(Err(_)) => pending().await,
        }
    }
}

/// Counts a request.
struct Executed<'a>(&'a Worker);

impl<'a> Executed<'a> {
    fn by(worker: &'a Worker) -> Self {
        worker.requests.fetch_add(1, Ordering::Relaxed);
        Self(worker)
    }
}

impl Drop for Executed<'_> {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// So many, with the one that this is called on.
    ///
    /// # Errors
    /// When the system gives no further thread, or nothing to watch sockets with.
    pub fn start(count: u32) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let running = stop.clone().drop_guard();
        let mut workers = vec![Worker::of(Handle::current())];
        let mut others = Vec::new();
        for number in 1..count {
            let stop = stop.clone();
            let (give, take) = mpsc::sync_channel::<Runtime>(1);
            let serve = move || {
                if let Ok(runtime) = take.recv() {
                    runtime.block_on(stop.cancelled());
                    runtime.shutdown_timeout(GRACE);
                }
            };
            // First of all: a runtime must not be dropped here, if there is no thread for it.
            let thread = thread::Builder::new().name(format!("serve-{number}"));
            others.push(thread.spawn(serve)?);
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.push(Worker::of(runtime.handle().clone()));
            give.send(runtime).map_err(io::Error::other)?;
        }
        Ok(Self {
            workers: workers.into(),
            others,
            running,
        })
    }

    /// Gives a connection to the thread that has the fewest.
    pub fn seat(&self) -> Seat {
        let count = |at: &usize| self.workers[*at].connections.load(Ordering::Relaxed);
        // Backwards: the first also accepts, and does what the server does by itself.
        let fewest = (0..self.workers.len()).rev().min_by_key(count);
        let at = fewest.unwrap_or_default();
        self.workers[at].connections.fetch_add(1, Ordering::Relaxed);
        Seat {
            workers: self.workers.clone(),
            at,
        }
    }

    /// Ends the other threads, with whatever is still done on them.
    pub async fn end(self) {
        drop(self.running);
        let end = move || {
            for thread in self.others {
                if thread.join().is_err() {
                    tracing::error!("a thread that served connections panicked");
                }
            }
        };
        if tokio::task::spawn_blocking(end).await.is_err() {
            tracing::error!("the threads that serve connections could not be ended");
        }
    }
}

impl Worker {
    fn of(runtime: Handle) -> Self {
        Self {
            runtime,
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn each_connection_goes_where_the_fewest_are() {
        let workers = Workers::start(3).expect("there are threads");
        let count = workers.workers.len();
        let place = || workers.seat();
        let mut held: Vec<_> = (0..2 * count).map(|_| place()).collect();
        for worker in workers.workers.iter() {
            let on = |seat: &&Seat| seat.runtime().id() == worker.runtime.id();
            assert_eq!(held.iter().filter(on).count(), 2);
        }
        let free = held.swap_remove(count / 2).at;
        assert_eq!(place().at, free);
    }

    #[tokio::test]
    async fn what_comes_one_by_one_stays_and_what_comes_together_is_spread() {
        let workers = Workers::start(2).expect("there are threads");
        let (_another, seat) = (workers.seat(), Arc::new(workers.seat()));
        let here = thread::current().id();
        for _ in 0..3 {
            assert_eq!(seat.execute(async { thread::current().id() }).await, here);
        }
        let (all, end) = (Arc::new(Barrier::new(16 + 1)), CancellationToken::new());
        let requests = (0..16).map(|_| {
            let (all, end, seat) = (all.clone(), end.clone(), seat.clone());
            tokio::spawn(async move {
                let request = async move {
                    all.wait().await;
                    end.cancelled().await;
                    thread::current().id()
                };
                seat.execute(request).await
            })
        });
        let requests: Vec<_> = requests.collect();
        all.wait().await;
        end.cancel();
        let mut stayed = 0;
        for request in requests {
            stayed += usize::from(request.await.expect("it is executed") == here);
        }
        // The first four are ahead; of the others of four two go and two stay, then of five two and three.
        assert_eq!(stayed, 11);
        assert!(
            workers
                .workers
                .iter()
                .all(|it| it.requests.load(Ordering::Relaxed) == 0)
        );
    }

    #[tokio::test]
    async fn a_request_that_was_handed_on_ends_with_who_asked_and_panics_with_them() {
        let workers = Workers::start(2).expect("there are threads");
        let (_another, seat) = (workers.seat(), workers.seat());
        workers.workers[0].requests.fetch_add(MORE, Ordering::Relaxed);
        let here = thread::current().id();
        let held = Arc::new(());
        let request = {
            let held = held.clone();
            async move {
                let _held = held;
                pending::<()>().await;
            }
        };
        let asked = tokio::time::timeout(Duration::from_millis(50), seat.execute(request));
        assert!(asked.await.is_err());
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
        let request = async move {
            assert_eq!(thread::current().id(), here, "it was handed on");
        };
        let asked = std::panic::AssertUnwindSafe(seat.execute(request));
        assert!(futures::FutureExt::catch_unwind(asked).await.is_err());
    }

    #[tokio::test]
    async fn what_is_done_on_the_others_ends_with_them() {
        let workers = Workers::start(3).expect("there are threads");
        let (tell, told) = std::sync::mpsc::channel();
        let mut endless = Vec::new();
        for worker in workers.workers.iter() {
            let tell = tell.clone();
            endless.push(worker.runtime.spawn(async move {
                tell.send(thread::current().id()).expect("it is waited for");
                std::future::pending::<()>().await;
            }));
        }
        let own = endless.remove(0);
        tokio::task::yield_now().await;
        let threads: HashSet<_> = told.into_iter().take(workers.workers.len()).collect();
        assert_eq!(
            threads.len(),
            workers.workers.len(),
            "each has a thread to itself"
        );
        workers.end().await;
        for others in endless {
            assert!(others.await.expect_err("it has no end").is_cancelled());
        }
        assert!(!own.is_finished());
    }
}
