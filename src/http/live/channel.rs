//! The newest frames of a shared subscription, by their positions.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Steps;
use crate::events::Position;

/// Frames that a channel keeps at most, for subscribers that read slowly or resume.
const FRAMES: usize = 2_000;
/// How old a frame may be for who joins: it shows records as they were when it was made.
const FRESH: Duration = Duration::from_secs(10);

/// What a channel carries: a frame at its position.
pub struct Told {
    /// The position up to which everything has been told with it.
    pub position: i64,
    /// The JSON of a GraphQL response.
    pub frame: Bytes,
    /// Whether it tells of no event, but how far the stream has come.
    pub up_to_date: bool,
    /// When it was made.
    pub made: Instant,
}

/// What a channel carries.
pub trait Source: Send + Sync {
    /// The steps of a subscriber that has come to a position which the channel has left behind.
    fn from(self: Arc<Self>, position: Position) -> Steps;

    /// Tells that the channel is no more.
    fn ended(&self);
}

/// The newest frames of a shared subscription. Ends with its last member.
pub struct Channel {
    state: Mutex<State>,
    source: Arc<dyn Source>,
    /// Keeps the frames coming.
    driver: OnceLock<AbortHandle>,
    /// Notified whenever the channel has come further, frames or not.
    moved: Notify,
}

struct State {
    epoch: i64,
    /// Every frame after this position is kept.
    from: i64,
    /// There is no frame between the newest and this position.
    reached: i64,
    frames: VecDeque<Told>,
    bytes: usize,
    /// Whether the newest frame is the last.
    over: bool,
    /// What wakes the members, by their places.
    members: HashMap<u64, Arc<Notify>>,
    places: u64,
    /// What who begins at a position is told first.
    greeting: Option<(i64, Bytes)>,
}

/// What there is for a member.
pub enum Next {
    /// The frame that follows.
    Frame(Bytes),
    /// The same, which tells how far the stream has come.
    UpToDate(Bytes),
    /// Nothing new.
    Nothing,
    /// The channel no longer has what follows: see [`Member::rejoin`].
    Behind,
    /// Nothing, and there never will be.
    Over,
}

/// A subscriber's place in a channel.
pub struct Member {
    channel: Arc<Channel>,
    place: Option<u64>,
    at: i64,
}

impl Channel {
    /// A channel that begins after a position.
    pub fn new(source: Arc<dyn Source>, from: Position) -> Arc<Self> {
        let state = State {
            epoch: from.epoch,
            from: from.position,
            reached: from.position,
            frames: VecDeque::new(),
            bytes: 0,
            over: false,
            members: HashMap::new(),
            places: 0,
            greeting: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            source,
            driver: OnceLock::new(),
            moved: Notify::new(),
        })
    }

    /// How far the channel has come.
    pub fn reached(&self) -> i64 {
        self.state().reached
    }

    /// Waits until the channel has come as far as this, or is over.
    pub async fn reach(&self, position: i64) {
        loop {
            let moved = self.moved.notified();
            if self.state().reached >= position {
                return;
            }
            moved.await;
        }
    }

    /// Sets the task that keeps the frames coming; it ends with the channel.
    pub fn driven_by(&self, driver: AbortHandle) {
        let _ = self.driver.set(driver);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds frames, up to the position that has been reached, and wakes the members. Of the older frames so many are
    /// kept that all take no more than `room` bytes; what is added now stays, so that nobody who is there misses it.
    pub fn extend(&self, told: Vec<Told>, reached: i64, room: usize) {
        let mut state = self.state();
        let added = told.len();
        state.bytes += told.iter().map(|told| told.frame.len()).sum::<usize>();
        state.frames.extend(told);
        state.reached = state.reached.max(reached);
        self.moved.notify_waiters();
        if added == 0 {
            return;
        }
        while (state.frames.len() > FRAMES || state.bytes > room) && state.frames.len() > added {
            let Some(oldest) = state.frames.pop_front() else {
                break;
            };
            state.from = oldest.position;
            state.bytes -= oldest.frame.len();
        }
        state.wake();
    }

    /// Adds the last frame, and wakes the members.
    pub fn end(&self, last: Option<Bytes>) {
        let mut state = self.state();
        state.over = true;
        state.reached = i64::MAX;
        self.moved.notify_waiters();
        state.frames.extend(last.map(|frame| Told {
            position: i64::MAX,
            frame,
            up_to_date: false,
            made: Instant::now(),
        }));
        state.wake();
    }

    /// Joins at a position of the history; not when the channel is over, of another epoch, no longer has what follows,
    /// or has had it for so long that it may be true no more.
    pub fn join(self: &Arc<Self>, at: Position) -> Option<Member> {
        let state = self.state();
        let follows = state.frames.partition_point(|told| told.position <= at.position);
        let fresh = state
            .frames
            .get(follows)
            .is_none_or(|told| told.made.elapsed() < FRESH);
        let fits = !state.over && state.epoch == at.epoch && state.from <= at.position && fresh;
        fits.then(|| Member {
            channel: self.clone(),
            place: None,
            at: at.position,
        })
    }

    /// Whether nobody can join any more.
    pub fn is_over(&self) -> bool {
        self.state().over
    }

    /// Keeps what who begins at a position is told first.
    pub fn greet(&self, position: i64, greeting: Bytes) {
        self.state().greeting = Some((position, greeting));
    }
}

impl State {
    fn wake(&self) {
        for member in self.members.values() {
            member.notify_one();
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
        self.source.ended();
    }
}

impl Member {
    /// Sets what is notified when there is something new; it is notified at once for what is there already.
    pub fn wake(&mut self, wake: Arc<Notify>) {
        wake.notify_one();
        let mut state = self.channel.state();
        if let Some(place) = self.place {
            state.members.remove(&place);
        }
        state.places += 1;
        let place = state.places;
        state.members.insert(place, wake);
        self.place = Some(place);
    }

    /// Takes what follows.
    pub fn take(&mut self) -> Next {
        let state = self.channel.state();
        if self.at < state.from {
            return Next::Behind;
        }
        let follows = state.frames.partition_point(|told| told.position <= self.at);
        match state.frames.get(follows) {
            Some(told) => {
                self.at = told.position;
                if told.up_to_date {
                    Next::UpToDate(told.frame.clone())
                } else {
                    Next::Frame(told.frame.clone())
                }
            }
            None if state.over => Next::Over,
            None => Next::Nothing,
        }
    }

    /// Counts as taken what was not for this subscription; not when a frame follows.
    pub fn settle(&mut self) -> bool {
        let state = self.channel.state();
        let last = state.frames.back().map_or(state.from, |told| told.position);
        let settled = !state.over && last <= self.at;
        if settled {
            self.at = self.at.max(state.reached);
        }
        settled
    }

    /// The steps that lead from where this member is back to the channel.
    pub fn rejoin(&self) -> Steps {
        self.channel.source.clone().from(self.position())
    }

    /// Where this member is.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.channel.state().epoch,
            position: self.at,
        }
    }

    /// What who begins here is told first, when it is known already.
    pub fn greeting(&self) -> Option<Bytes> {
        let state = self.channel.state();
        let (position, greeting) = state.greeting.as_ref()?;
        (*position == self.at).then(|| greeting.clone())
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.channel.state().members.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1024;

    struct Nowhere;

    impl Source for Nowhere {
        fn from(self: Arc<Self>, _: Position) -> Steps {
            Box::pin(futures::stream::empty())
        }

        fn ended(&self) {}
    }

    fn channel() -> Arc<Channel> {
        Channel::new(Arc::new(Nowhere), at(0))
    }

    fn at(position: i64) -> Position {
        Position { epoch: 1, position }
    }

    fn frame(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn told(position: i64, text: &'static str) -> Told {
        Told {
            position,
            frame: frame(text),
            up_to_date: false,
            made: Instant::now(),
        }
    }

    fn taken(member: &mut Member) -> Option<Bytes> {
        match member.take() {
            Next::Frame(frame) => Some(frame),
            _ => None,
        }
    }

    #[test]
    fn a_member_is_told_how_far_the_stream_has_come_whenever_it_looked() {
        let channel = channel();
        let mut member = channel.join(at(0)).expect("it begins here");
        // Events that are not for it, after which it looks, as when another operation of its socket has news.
        channel.extend(Vec::new(), 5, ROOM);
        assert!(matches!(member.take(), Next::Nothing));
        channel.extend(vec![told(5, "up to date")], 5, ROOM);
        assert_eq!(taken(&mut member), Some(frame("up to date")));
        // Who begins there has been told.
        let mut late = channel.join(at(5)).expect("it is known");
        assert!(matches!(late.take(), Next::Nothing));
        assert!(late.settle());
        assert_eq!(late.position(), at(5));
    }

    #[test]
    fn a_member_settles_only_when_no_frame_follows() {
        let channel = channel();
        let mut member = channel.join(at(0)).expect("it begins here");
        channel.extend(vec![told(3, "three")], 4, ROOM);
        assert!(!member.settle());
        assert_eq!(taken(&mut member), Some(frame("three")));
        assert!(member.settle());
        assert_eq!(member.position(), at(4));
    }

    #[test]
    fn a_quiet_member_is_not_left_behind_and_a_slow_one_is() {
        let channel = channel();
        let mut quiet = channel.join(at(0)).expect("it begins here");
        let mut slow = channel.join(at(0)).expect("it begins here");
        channel.extend(Vec::new(), 1_000_000, ROOM);
        assert!(matches!(quiet.take(), Next::Nothing));
        channel.extend(vec![told(1_000_000, "first")], 1_000_000, ROOM);
        assert_eq!(taken(&mut quiet), Some(frame("first")));
        // However much comes at once, nobody who is there misses it.
        let many = (1..=FRAMES as i64).map(|n| told(1_000_000 + n, "many"));
        channel.extend(many.collect(), 2_000_000, 0);
        assert_eq!(taken(&mut quiet), Some(frame("many")));
        assert!(matches!(slow.take(), Next::Behind));
        assert_eq!(slow.position(), at(0));
        assert!(channel.join(at(0)).is_none());
    }

    #[test]
    fn who_joins_is_told_nothing_old_and_who_is_there_misses_nothing() {
        let channel = channel();
        let mut slow = channel.join(at(0)).expect("it begins here");
        let old = Told {
            made: Instant::now().checked_sub(2 * FRESH).expect("the clock has run"),
            ..told(1, "old")
        };
        channel.extend(vec![old, told(2, "new")], 2, ROOM);
        assert!(channel.join(at(0)).is_none());
        let mut late = channel.join(at(1)).expect("it is new");
        assert_eq!(taken(&mut late), Some(frame("new")));
        assert_eq!(taken(&mut slow), Some(frame("old")));
        assert_eq!(taken(&mut slow), Some(frame("new")));
    }

    #[test]
    fn the_last_frame_is_for_all_and_nobody_joins_after_it() {
        let channel = channel();
        let mut member = channel.join(at(0)).expect("it begins here");
        channel.extend(vec![told(1, "one")], 1, ROOM);
        channel.end(Some(frame("last")));
        assert_eq!(taken(&mut member), Some(frame("one")));
        assert_eq!(taken(&mut member), Some(frame("last")));
        assert!(matches!(member.take(), Next::Over));
        assert!(channel.join(at(1)).is_none());
    }
}
