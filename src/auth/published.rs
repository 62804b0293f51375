//! What another server publishes, such as its keys: fetched when it is first needed, kept, and fetched anew from time to
//! time.
//!
//! It is fetched by nobody in particular: whoever needs it meanwhile waits for the same answer, or the same failure, and who
//! goes away takes nothing from the others. A failure is remembered for a moment, so that a server that hangs is not waited
//! for by one after the other. While it is away, what it has last published is good for a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::outbound::Unanswered;
use crate::config::Renewal;

type Fetch<T> = dyn Fn() -> BoxFuture<'static, Result<T, Unanswered>> + Send + Sync;

/// Something that another server publishes, as far as it is known.
pub(super) struct Published<T> {
    /// What it is, for the log.
    what: String,
    pace: Renewal,
    fetch: Box<Fetch<T>>,
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    /// What was fetched last, and when.
    kept: Option<(Arc<T>, Instant)>,
    /// When it was last tried to, and why that failed.
    tried: Option<(Instant, Option<Unanswered>)>,
    /// Its sender is there as long as it is being fetched.
    under_way: Option<watch::Receiver<()>>,
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + Sync + 'static> Published<T> {
    /// Nothing is fetched yet.
    pub fn new<F>(what: String, pace: Renewal, fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T, Unanswered>> + Send + 'static,
    {
        Self {
            what,
            pace,
            fetch: Box::new(move || Box::pin(fetch())),
            state: Arc::new(Mutex::new(State {
                kept: None,
                tried: None,
                under_way: None,
            })),
        }
    }

    /// What is published.
    ///
    /// # Errors
    /// When it could not be fetched, and what was fetched before is too old.
    pub async fn get(&self) -> Result<Arc<T>, Unanswered> {
        self.get_with(|_| true).await
    }

    /// What is published, fetched anew when what is looked for is not in it. It is not in what is answered either when the
    /// server does not publish it, or did not a moment ago.
    ///
    /// # Errors
    /// When what is known does not have it, or is too old, and it could not be fetched.
    pub async fn get_with(&self, has: impl Fn(&T) -> bool) -> Result<Arc<T>, Unanswered> {
        let fetched = {
            let mut state = lock(&self.state);
            let found = self.kept(&state).filter(|(kept, _)| has(kept));
            if let Some((kept, since)) = &found
                && since.elapsed() < self.pace.fresh
            {
                return Ok(kept.clone());
            }
            let failed = matches!(state.tried, Some((_, Some(_))));
            let fetched = self.fetch_if_due(&mut state);
            match found {
                // What is good still need not wait for a server that has lately failed to answer.
                Some((kept, _)) if failed => return Ok(kept),
                _ => fetched,
            }
        };
        if let Some(mut fetched) = fetched {
            // It never sends anything: this ends when it goes.
            let _ = fetched.changed().await;
        }
        let state = lock(&self.state);
        let failure = state.tried.as_ref().and_then(|(_, failure)| failure.clone());
        match (self.kept(&state), failure) {
            (Some((kept, _)), failure) if failure.is_none() || has(&kept) => Ok(kept),
            (_, failure) => Err(failure.unwrap_or_else(|| "it is too old".into())),
        }
    }

    fn kept(&self, state: &State<T>) -> Option<(Arc<T>, Instant)> {
        let good = |(_, since): &&(Arc<T>, Instant)| since.elapsed() < self.pace.kept;
        state.kept.as_ref().filter(good).cloned()
    }

    /// Begins to fetch, unless somebody does or did lately. Answers what there is to wait for.
    fn fetch_if_due(&self, state: &mut State<T>) -> Option<watch::Receiver<()>> {
        let under_way = state.under_way.as_ref().filter(|it| it.has_changed().is_ok());
        if under_way.is_some() {
            return under_way.cloned();
        }
        let pause = match self.kept(state) {
            Some(_) => self.pace.again,
            None => self.pace.again_at_first,
        };
        if let Some((at, _)) = &state.tried
            && at.elapsed() < pause
        {
            return None;
        }
        let (begun, under_way) = watch::channel(());
        let (what, shared) = (self.what.clone(), self.state.clone());
        let fetched = timeout(self.pace.patience, (self.fetch)());
        tokio::spawn(async move {
            let fetched = fetched.await.unwrap_or_else(|_| Err("no answer in time".into()));
            let (mut state, now) = (lock(&shared), Instant::now());
            let failure = match fetched {
                Ok(it) => {
                    state.kept = Some((Arc::new(it), now));
                    None
                }
                Err(problem) => {
                    tracing::warn!(what, %problem, "what another server publishes cannot be fetched");
                    Some(problem)
                }
            };
            state.tried = Some((now, failure));
            drop(begun);
        });
        state.under_way = Some(under_way.clone());
        Some(under_way)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// One that is fetched once and then good for long.
    const CALM: Renewal = Renewal {
        fresh: LONG,
        kept: LONG,
        again: LONG,
        again_at_first: LONG,
        patience: LONG,
    };

    /// A server that answers how often it was asked, or nothing, when it is let.
    #[derive(Clone)]
    struct Server {
        asked: Arc<AtomicUsize>,
        answers: Arc<Semaphore>,
        is_well: Arc<Mutex<bool>>,
    }

    impl Server {
        fn new() -> Self {
            Self {
                asked: Arc::default(),
                answers: Arc::new(Semaphore::new(0)),
                is_well: Arc::new(Mutex::new(true)),
            }
        }

        fn published(&self, pace: Renewal) -> Arc<Published<usize>> {
            let server = self.clone();
            let fetch = move || {
                let server = server.clone();
                async move {
                    let number = server.asked.fetch_add(1, Ordering::SeqCst) + 1;
                    server.answers.acquire().await.expect("it is open").forget();
                    match *server.is_well.lock().unwrap() {
                        true => Ok(number),
                        false => Err("it is not well".into()),
                    }
                }
            };
            Arc::new(Published::new("a number".to_owned(), pace, fetch))
        }

        fn answer(&self, is_well: bool) {
            *self.is_well.lock().unwrap() = is_well;
            self.answers.add_permits(1);
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    async fn number(published: &Published<usize>) -> Result<usize, String> {
        let got = published.get().await;
        got.map(|number| *number).map_err(|problem| problem.to_string())
    }

    #[tokio::test]
    async fn all_who_wait_share_one_answer_and_one_failure() {
        for (is_well, expected) in [(true, Ok(1)), (false, Err("it is not well".to_owned()))] {
            let server = Server::new();
            let published = server.published(CALM);
            let mut waiting = Box::pin(join_all((0..50).map(|_| number(&published))));
            assert!(waiting.as_mut().now_or_never().is_none());
            server.answer(is_well);
            assert_eq!(waiting.await, vec![expected.clone(); 50]);
            // It is remembered, the failure too: nobody waits any more.
            assert_eq!(number(&published).now_or_never(), Some(expected));
            assert_eq!(server.asked(), 1);
        }
    }

    #[tokio::test]
    async fn who_goes_away_takes_nothing_from_the_others() {
        let server = Server::new();
        let published = server.published(CALM);
        assert!(number(&published).now_or_never().is_none(), "and is gone");
        server.answer(true);
        assert_eq!(number(&published).await, Ok(1));
        assert_eq!(server.asked(), 1);
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_waited_for_so_long_only() {
        let server = Server::new();
        let published = server.published(Renewal {
            patience: Duration::from_millis(1),
            ..CALM
        });
        assert_eq!(number(&published).await, Err("no answer in time".to_owned()));
        assert_eq!(server.asked(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_forgotten_after_a_while() {
        let server = Server::new();
        let published = server.published(Renewal {
            again_at_first: Duration::ZERO,
            ..CALM
        });
        server.answer(false);
        assert!(number(&published).await.is_err());
        server.answer(true);
        assert_eq!(number(&published).await, Ok(2));
    }

    #[tokio::test]
    async fn what_was_fetched_last_is_good_while_it_cannot_be_renewed_and_nobody_waits_for_that_twice() {
        let server = Server::new();
        let published = server.published(Renewal {
            fresh: Duration::ZERO,
            again: Duration::ZERO,
            ..CALM
        });
        server.answer(true);
        assert_eq!(number(&published).await, Ok(1));
        server.answer(false);
        assert_eq!(
            number(&published).await,
            Ok(1),
            "and it is known now that the server is away"
        );
        // It is asked again, which this one need not wait for.
        assert_eq!(number(&published).now_or_never(), Some(Ok(1)));
        server.answer(true);
        let renewed = async {
            while number(&published).now_or_never() == Some(Ok(1)) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), renewed)
            .await
            .expect("it is renewed");
    }

    #[tokio::test]
    async fn nothing_is_good_for_ever() {
        let server = Server::new();
        let published = server.published(Renewal {
            fresh: Duration::ZERO,
            kept: Duration::ZERO,
            again: Duration::ZERO,
            again_at_first: Duration::ZERO,
            patience: LONG,
        });
        server.answer(true);
        // What has come just now is too old already.
        assert!(number(&published).await.is_err());
        server.answer(false);
        assert_eq!(number(&published).await, Err("it is not well".to_owned()));
    }

    #[tokio::test]
    async fn what_is_not_in_it_is_looked_for_once_in_a_while() {
        let server = Server::new();
        let published = server.published(CALM);
        server.answer(true);
        let looked_for = |wanted: usize| {
            let published = published.clone();
            async move {
                published
                    .get_with(|number| *number == wanted)
                    .await
                    .map(|it| *it)
                    .ok()
            }
        };
        assert_eq!(looked_for(1).await, Some(1));
        assert_eq!(
            looked_for(2).now_or_never(),
            Some(Some(1)),
            "it is not there, as was seen just now"
        );
        assert_eq!(server.asked(), 1);
        let eager = server.published(Renewal {
            again: Duration::ZERO,
            ..CALM
        });
        server.answer(true);
        assert_eq!(eager.get().await.map(|it| *it).ok(), Some(2));
        server.answer(true);
        assert_eq!(
            eager.get_with(|number| *number == 3).await.map(|it| *it).ok(),
            Some(3)
        );
        server.answer(false);
        assert!(
            eager.get_with(|number| *number == 5).await.is_err(),
            "nobody knows"
        );
        assert_eq!(
            eager.get_with(|number| *number == 3).await.map(|it| *it).ok(),
            Some(3)
        );
    }
}
