//! What a process knows of one tenant's history: where it stands, and its newest events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::feed::Reason;
use super::{Event, Position, Standing};

/// How long after a look at the history it counts as known without another. Twice the poll, which looks at all of them.
const FRESH: Duration = Duration::from_secs(2);

/// What is known of a history, from the reads that have ended so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    standing: Option<Standing>,
    /// The newest events, one after the other without a gap.
    events: VecDeque<Arc<Event>>,
    /// The position of the last of them, or that from which on they are kept.
    end: i64,
    /// The newest question that has been answered.
    pub(super) answered: u64,
    /// When the newest look at the history began that found it like this.
    looked: Option<Instant>,
}

/// What there is after a position.
#[derive(Debug)]
pub(super) enum Next {
    Event(Arc<Event>),
    /// An event that is no longer in memory.
    Older,
    /// Nothing as yet.
    Nothing,
    /// Nothing ever: the history is another than the one that was followed.
    Over(Reason),
}

impl Known {
    pub(super) fn standing(&self) -> Option<Standing> {
        self.standing
    }

    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Whether a read has told of more than the events that have been read.
    pub(super) fn is_behind(&self) -> bool {
        self.standing.is_some_and(|standing| self.end < standing.position)
    }

    /// The position after which events are in memory.
    fn start(&self) -> i64 {
        self.end - self.events.len() as i64
    }

    /// What comes after a position.
    pub(super) fn next(&self, epoch: i64, position: i64) -> Next {
        let Some(standing) = self.standing else {
            return Next::Nothing;
        };
        if standing.epoch != epoch {
            return Next::Over(Reason::HistoryReplaced);
        }
        if standing.position < position {
            // The database has lost what was told already, and nobody gave the history a new epoch.
            return Next::Over(Reason::PositionUnknown);
        }
        if self.end <= position {
            return Next::Nothing;
        }
        // The history is dense: the place is known without a search.
        let index = usize::try_from(position - self.start()).ok();
        match index.and_then(|index| self.events.get(index)) {
            Some(event) => Next::Event(event.clone()),
            None => Next::Older,
        }
    }

    /// Where the history stands, when that was looked at just now and all that came after `after` is in memory.
    pub(super) fn fresh_since(&self, after: Position) -> Option<Standing> {
        let standing = self.standing?;
        let fresh = self.looked.is_some_and(|looked| looked.elapsed() < FRESH);
        let within = standing.epoch == after.epoch
            && (self.start()..=self.end).contains(&after.position)
            && self.end == standing.position;
        (fresh && within).then_some(standing)
    }

    /// A look at the history that began at this moment found it as it is known.
    pub(super) fn confirm(&mut self, looked: Instant) {
        self.looked = self.looked.max(Some(looked));
    }

    /// Takes in what was read after [`Known::end`], by a look that began at a moment. At most `room` events are kept.
    pub(super) fn take_in(&mut self, looked: Instant, found: Standing, events: Vec<Event>, room: usize) {
        let continues = self
            .standing
            .is_some_and(|known| known.epoch == found.epoch && known.position <= found.position);
        let next = events.first().map_or(found.position + 1, |event| event.position);
        if continues && next == self.end + 1 {
            self.end += events.len() as i64;
            self.events.extend(events.into_iter().map(Arc::new));
        } else {
            // The first look, or another history, or one that was trimmed beyond what we know.
            self.events = VecDeque::new();
            self.end = found.position;
        }
        self.standing = Some(found);
        self.confirm(looked);
        self.make_room(room);
    }

    /// Forgets the oldest events but `room` of them.
    pub(super) fn make_room(&mut self, room: usize) {
        self.events.drain(..self.events.len().saturating_sub(room));
    }

    /// From where to read, and how much, so that what follows a position is in memory for all: none when that is more
    /// than `room` events back. What is read begins at a round position, so that others who are a little further back
    /// find theirs as well.
    pub(super) fn gap(&self, epoch: i64, position: i64, room: usize) -> Option<(i64, i64)> {
        const ROUND: i64 = 128;
        let standing = self.standing.filter(|standing| standing.epoch == epoch)?;
        let oldest = (self.end - room as i64).max(standing.trimmed);
        let missing = (oldest..self.start()).contains(&position);
        let from = (position - position % ROUND).max(oldest);
        missing.then(|| (from, self.start() - from))
    }

    /// Takes in events that come right before those in memory; others are left.
    pub(super) fn take_in_older(&mut self, epoch: i64, events: &[Arc<Event>]) {
        let fits = self.standing.is_some_and(|standing| standing.epoch == epoch)
            && events.last().is_some_and(|event| event.position == self.start());
        if fits {
            for event in events.iter().rev() {
                self.events.push_front(event.clone());
            }
        }
    }
}
