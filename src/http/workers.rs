//! The threads that serve: one for each processor, each with a runtime of its own.
//!
//! A connection stays with the thread that it is given to, and so does all that is done for it: its requests are read,
//! executed and answered there, over [connections](crate::db::idle) to PostgreSQL that are watched there. A runtime of many
//! threads hands each of these steps to whichever thread is free, and to wake that one takes longer than the step.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long what a thread does besides, such as hashing a password, may go on after its end.
const GRACE: Duration = Duration::from_secs(1);

/// Threads that serve connections, until this is dropped or [ended](Workers::end).
pub(super) struct Workers {
    workers: Vec<Worker>,
    running: DropGuard,
}

struct Worker {
    runtime: Handle,
    thread: JoinHandle<()>,
    connections: Arc<()>,
}

/// A connection of one of the threads, for as long as this is held.
#[derive(Debug)]
pub(super) struct Held(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Workers {
    /// Starts as many as there are processors.
    ///
    /// # Errors
    /// When the system gives no further thread, or nothing to watch sockets with.
    pub fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let count = std::thread::available_parallelism().map_or(1, NonZero::get);
        let start = |number| Worker::start(number, stop.clone());
        let workers = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self {
            workers,
            running: stop.drop_guard(),
        })
    }

    /// The runtime of the thread that has the fewest connections, with one more.
    pub fn next(&self) -> (&Handle, Held) {
        let fewest = self
            .workers
            .iter()
            .min_by_key(|worker| Arc::strong_count(&worker.connections))
            .expect("there is one at least");
        (&fewest.runtime, Held(fewest.connections.clone()))
    }

    /// Ends all threads, with whatever is still done on them.
    pub async fn end(self) {
        let Self { workers, running } = self;
        drop(running);
        let end = move || {
            for worker in workers {
                if worker.thread.join().is_err() {
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
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let serve = move || {
            runtime.block_on(stop.cancelled());
            runtime.shutdown_timeout(GRACE);
        };
        Ok(Self {
            runtime: handle,
            thread: std::thread::Builder::new()
                .name(format!("serve-{number}"))
                .spawn(serve)?,
            connections: Arc::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_connection_goes_where_the_fewest_are() {
        let workers = Workers::start().expect("there are threads");
        let count = workers.workers.len();
        let place = || {
            let (runtime, held) = workers.next();
            (runtime.id(), held)
        };
        let mut held: Vec<_> = (0..2 * count).map(|_| place()).collect();
        for worker in &workers.workers {
            let on = |(id, _): &&(_, _)| *id == worker.runtime.id();
            assert_eq!(held.iter().filter(on).count(), 2);
        }
        let (free, gone) = held.swap_remove(count / 2);
        drop(gone);
        assert_eq!(place().0, free);
    }

    #[tokio::test]
    async fn what_is_done_on_them_ends_with_them() {
        let workers = Workers::start().expect("there are threads");
        let (begun, begins) = tokio::sync::oneshot::channel();
        let endless = workers.next().0.spawn(async {
            begun.send(std::thread::current().id()).expect("it is waited for");
            std::future::pending::<()>().await;
        });
        let thread = begins.await.expect("it begins");
        assert_ne!(thread, std::thread::current().id());
        workers.end().await;
        assert!(endless.await.expect_err("it has no end").is_cancelled());
    }
}
