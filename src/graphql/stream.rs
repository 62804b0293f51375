//! What every subscription sends besides its events, and how the history becomes frames.

use async_graphql::{Context, Enum, SimpleObject};
use futures::stream::{self, Iter};

use super::ContextExt;
use crate::error::{Error, Result};
use crate::events::feed::{Reason, Signal};
use crate::events::{Event, Position};

/// Everything that happened before has been sent; what follows is live.
#[derive(Debug, SimpleObject)]
pub struct UpToDate {
    /// How far the stream has come. Pass it as `after` to go on from here, whatever happens to the connection.
    position: String,
}

/// The stream cannot go on from the position that was asked for, and ends. Read the data anew, with
/// `viewer { position }` in the same query, and subscribe after that position.
#[derive(Debug, SimpleObject)]
pub struct MustRefetch {
    /// Why the stream cannot go on.
    reason: MustRefetchReason,
}

/// Why a stream cannot go on from a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Reason")]
pub enum MustRefetchReason {
    /// Events after the position are no longer kept.
    HistoryTrimmed,
    /// The position belongs to another history: of another tenant, or from before a restored backup.
    HistoryReplaced,
    /// The position lies in the future.
    PositionUnknown,
}

/// What a subscription sends.
pub type Frames<F> = Iter<Box<dyn Iterator<Item = F> + Send>>;

/// The frames of a run of a subscription: what `read` makes of the events that it wants, in order, and the words of the
/// stream about itself.
///
/// A run is over a part of the history that is there already, for all subscribers at once who ask the same with the same
/// rights: waiting for more, and what each has come to (`after`), is the business of whoever runs it. So `read` must
/// depend on nothing but its arguments and those of the field.
///
/// # Errors
/// [`Error::BadInput`] when `after` is no position, [`Error::Unauthenticated`] when nobody has signed in.
pub fn frames<F>(
    ctx: &Context<'_>,
    after: Option<&str>,
    read: impl Fn(Position, &Event) -> Option<F> + Send + 'static,
) -> Result<Frames<F>>
where
    F: From<UpToDate> + From<MustRefetch> + Send + 'static,
{
    ctx.viewer()?;
    after
        .map(str::parse::<Position>)
        .transpose()
        .map_err(|_| Error::BadInput("after is not a position of this server.".to_owned()))?;
    let signals = ctx.session().signals().clone();
    let told = std::iter::from_fn(move || signals.take());
    let frames: Box<dyn Iterator<Item = F> + Send> = Box::new(told.filter_map(move |signal| match signal {
        Signal::Event { epoch, event } => {
            let position = Position {
                epoch,
                position: event.position,
            };
            read(position, &event)
        }
        Signal::UpToDate(position) => Some(F::from(UpToDate {
            position: position.to_string(),
        })),
        Signal::MustRefetch(reason) => Some(F::from(MustRefetch {
            reason: reason.into(),
        })),
    }));
    Ok(stream::iter(frames))
}
