//! Subscriptions whose subscribers share the work.
//!
//! Ten thousand who watch one pipeline ask the same, with the same rights, and are told the same. So an operation is
//! run once for all of them, a part of the history at a time, its answers are encoded once, and their bytes are kept
//! for a while in a [`channel`]. A subscriber is no more than a place in that: it takes what comes after its own
//! position whenever its socket has room, and takes no memory when it has none.
//!
//! ```text
//! history ──► a run (schema, loaders, JSON) ──► channel: the newest frames by position ──► sockets
//!               one for all who ask the same            each member knows how far it has come
//! ```
//!
//! Who begins, resumes from far back or falls behind the channel is run [alone](shared) until it has caught up, and
//! then joins. Positions decide where it goes on, so nothing is lost or doubled at the change.

pub mod channel;
pub mod shared;

use std::sync::Arc;

use async_graphql::ServerError;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::Notify;

pub use channel::{Channel, Member, Next, Told};
pub use shared::Live;

use super::answer::{self, Cost};
use super::headers::RequestId;

/// What happens to a subscription next.
pub enum Step {
    /// It is told this: the JSON of a GraphQL response.
    Frame(Bytes),
    /// It fails with these errors, and ends.
    Error(Vec<ServerError>),
    /// From now on it is told what the channel brings; nothing else follows.
    Live(Member),
}

/// The steps of a subscription, to their end or until it goes live.
pub type Steps = BoxStream<'static, Step>;

/// The step that a response is; with a cost it is the first.
pub fn step(response: async_graphql::Response, cost: Option<Cost>, most_errors: usize) -> Step {
    // Whoever could not subscribe at all gets an error, and nothing after it.
    let stillborn = cost.is_some()
        && response.data == async_graphql::Value::Null
        && response.errors.iter().any(|error| error.path.len() <= 1);
    if stillborn || answer::is_request_error(&response) {
        return Step::Error(response.errors);
    }
    let answer = answer::executed(response, cost, &RequestId::new(), most_errors);
    Step::Frame(answer.body)
}

/// All that a subscriber is told, for those who do nothing but listen: frames to the end, or errors.
pub fn frames(steps: Steps) -> impl Stream<Item = Result<Bytes, Vec<ServerError>>> + Send {
    struct Listener {
        steps: Steps,
        member: Option<Member>,
        wake: Arc<Notify>,
    }
    let listener = Listener {
        steps,
        member: None,
        wake: Arc::default(),
    };
    futures::stream::unfold(listener, |mut listener| async move {
        loop {
            if let Some(member) = &mut listener.member {
                match member.take() {
                    Next::Frame(frame) | Next::UpToDate(frame) => return Some((Ok(frame), listener)),
                    Next::Nothing => listener.wake.notified().await,
                    Next::Behind => {
                        listener.steps = member.rejoin();
                        listener.member = None;
                    }
                    Next::Over => return None,
                }
                continue;
            }
            match listener.steps.next().await? {
                Step::Frame(frame) => return Some((Ok(frame), listener)),
                Step::Error(errors) => return Some((Err(errors), listener)),
                Step::Live(mut member) => {
                    member.wake(listener.wake.clone());
                    listener.member = Some(member);
                    // What led here holds what nobody needs any more.
                    listener.steps = futures::stream::empty().boxed();
                }
            }
        }
    })
}
