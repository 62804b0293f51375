//! Fair shares of the connections: a tenant that asks much waits for itself, and others do not wait for it.
//!
//! Whoever wants a connection takes a place first; there are as many places as connections. A place that becomes free goes
//! to the tenant that holds the fewest of those that wait, and within a tenant to who has waited longest. An eighth of the
//! places is never a tenant's that holds all the others: so one that comes now and then finds a connection at once, however
//! long another's statements run. What is done before a tenant is known counts as a tenant of its own, and may take every
//! place. One place is never a tenant's at all: who holds a place and looks something up that belongs to no tenant waits for
//! others who do the same and hold nothing else, never for somebody who waits for them.
//!
//! While nobody waits this is a number under a lock that is never held for longer than it takes to count.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

/// Those of one tenant that may wait at a time, and those of all: more are told at once that there is no connection.
const WAITING: (usize, usize) = (2_000, 20_000);

/// Who wants a connection: a tenant, or the server before a tenant is known.
pub type Who = Option<Uuid>;

/// The places of a pool, of connections or of anything else that tenants share.
pub struct Gate {
    state: Mutex<State>,
    places: usize,
    /// Places that tenants may hold together.
    of_tenants: usize,
    /// Places that one tenant may hold.
    most: usize,
    /// Those of one tenant that may wait at a time, and those of all.
    room: (usize, usize),
}

struct State {
    free: usize,
    held: HashMap<Who, usize>,
    waiting: HashMap<Who, VecDeque<oneshot::Sender<Place>>>,
    /// Those of whom somebody waits, the one whose turn was longest ago first.
    turns: VecDeque<Who>,
    /// How many wait, those included who have given up and were not passed yet.
    queued: usize,
}

/// A place, free again when dropped.
pub struct Place {
    /// Nothing once the place is somebody else's, or was never taken.
    gate: Option<Arc<Gate>>,
    who: Who,
}

/// There is no room left to wait in.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Gate {
    /// So many places, for which a bounded number may wait. One of them is kept for what belongs to no tenant, unless there
    /// are but two.
    pub fn new(places: usize) -> Arc<Self> {
        Self::with_room(places, usize::from(places > 2), WAITING)
    }

    /// So many places, for which everybody may wait: who they are is bounded elsewhere.
    pub fn without_bounds(places: usize) -> Arc<Self> {
        Self::with_room(places, 0, (usize::MAX, usize::MAX))
    }

    fn with_room(places: usize, kept: usize, room: (usize, usize)) -> Arc<Self> {
        let of_tenants = places - kept;
        // Of three or fewer none can be spared.
        let reserve = if places < 4 { 0 } else { (of_tenants / 8).max(1) };
        Arc::new(Self {
            state: Mutex::new(State {
                free: places,
                held: HashMap::new(),
                waiting: HashMap::new(),
                turns: VecDeque::new(),
                queued: 0,
            }),
            places,
            of_tenants,
            most: of_tenants - reserve,
            room,
        })
    }

    /// Takes a place, waiting for it if need be. Whoever gives up waiting takes none.
    ///
    /// # Errors
    /// [`Full`] when too many wait already.
    pub async fn enter(self: &Arc<Self>, who: Who) -> Result<Place, Full> {
        let waiting = {
            let mut state = self.state();
            if state.free > 0 && self.may_take(&state, who) {
                return Ok(self.give(&mut state, who));
            }
            self.queue(&mut state, who)?
        };
        // The sender stays in the queue until a place is sent.
        waiting.await.map_err(|_| Full)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        let state = self.state();
        let waits =
            |queue: &VecDeque<oneshot::Sender<Place>>| queue.iter().filter(|it| !it.is_closed()).count();
        state.waiting.values().map(waits).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_take(&self, state: &State, who: Who) -> bool {
        let held = |who: &Who| state.held.get(who).copied().unwrap_or_default();
        let by_tenants = || self.places - state.free - held(&None);
        who.is_none() || held(&who) < self.most && by_tenants() < self.of_tenants
    }

    fn give(self: &Arc<Self>, state: &mut State, who: Who) -> Place {
        state.free -= 1;
        *state.held.entry(who).or_default() += 1;
        Place {
            gate: Some(self.clone()),
            who,
        }
    }

    fn queue(&self, state: &mut State, who: Who) -> Result<oneshot::Receiver<Place>, Full> {
        if state.queued >= self.room.1
            || state
                .waiting
                .get(&who)
                .is_some_and(|queue| queue.len() >= self.room.0)
        {
            state.forget_who_gave_up();
        }
        let queue = state.waiting.entry(who).or_default();
        if state.queued >= self.room.1 || queue.len() >= self.room.0 {
            return Err(Full);
        }
        let (sender, receiver) = oneshot::channel();
        if queue.is_empty() {
            state.turns.push_back(who);
        }
        queue.push_back(sender);
        state.queued += 1;
        Ok(receiver)
    }

    /// Gives what is free to those whose turn it is.
    fn serve(self: &Arc<Self>, state: &mut State) {
        while state.free > 0 {
            let held = |who: &Who| state.held.get(who).copied().unwrap_or_default();
            let next = (state.turns.iter().enumerate())
                .filter(|(_, who)| self.may_take(state, **who))
                .min_by_key(|(_, who)| held(who))
                .map(|(at, _)| at);
            let Some(who) = next.and_then(|at| state.turns.remove(at)) else {
                return;
            };
            while let Some(waiter) = state.waiting.get_mut(&who).and_then(VecDeque::pop_front) {
                state.queued -= 1;
                if waiter.is_closed() {
                    continue;
                }
                let place = self.give(state, who);
                let Err(mut refused) = waiter.send(place) else {
                    break;
                };
                // It gave up at this very moment. Dropped as it is, the place would ask for the lock that we hold.
                refused.gate = None;
                state.take_back(who);
            }
            if state.waiting.get(&who).is_some_and(|queue| !queue.is_empty()) {
                state.turns.push_back(who);
            } else {
                state.waiting.remove(&who);
            }
        }
    }
}

impl State {
    fn take_back(&mut self, who: Who) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(&who) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&who);
            }
        }
    }

    fn forget_who_gave_up(&mut self) {
        for queue in self.waiting.values_mut() {
            queue.retain(|waiter| !waiter.is_closed());
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
        self.queued = self.waiting.values().map(VecDeque::len).sum();
        let Self { turns, waiting, .. } = self;
        turns.retain(|who| waiting.contains_key(who));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            let mut state = gate.state();
            state.take_back(self.who);
            gate.serve(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::future::BoxFuture;
    use futures::{FutureExt, poll};

    use super::*;

    fn tenant(number: u128) -> Who {
        Some(Uuid::from_u128(number))
    }

    /// Takes a place that is there.
    fn at_once(gate: &Arc<Gate>, who: Who) -> Place {
        let entered = gate.enter(who).now_or_never();
        entered.expect("there is one").expect("there is room")
    }

    /// Somebody who waits in line.
    async fn line_up(gate: &Arc<Gate>, who: Who) -> BoxFuture<'static, Result<Place, Full>> {
        let gate = gate.clone();
        let mut waiting = async move { gate.enter(who).await }.boxed();
        assert!(poll!(&mut waiting).is_pending(), "it need not wait");
        waiting
    }

    #[tokio::test]
    async fn of_what_is_too_little_for_a_reserve_the_next_is_anothers() {
        let gate = Gate::without_bounds(2);
        let (loud, quiet) = (tenant(1), tenant(2));
        let mut held = vec![at_once(&gate, loud), at_once(&gate, loud)];
        let mut many = Vec::new();
        for _ in 0..5_000 {
            many.push(line_up(&gate, loud).await);
        }
        let other = line_up(&gate, quiet).await;
        held.pop();
        let other = other
            .now_or_never()
            .expect("it is its turn")
            .expect("there is room");
        assert!(many.iter_mut().all(|one| one.now_or_never().is_none()));
        drop(other);
        // Kept, or else the next would have it in turn.
        let served: Vec<_> = many.iter_mut().filter_map(|one| one.now_or_never()).collect();
        assert_eq!(served.len(), 1);
    }

    #[tokio::test]
    async fn one_alone_may_have_all_but_the_reserve_which_is_there_for_another_at_once() {
        let gate = Gate::new(16);
        let places: Vec<_> = (0..14).map(|_| at_once(&gate, tenant(1))).collect();
        let waiting = line_up(&gate, tenant(1)).await;
        let _other = at_once(&gate, tenant(2));
        let _server = at_once(&gate, None);
        assert_eq!(gate.waiting(), 1);
        drop(places);
        assert!(waiting.await.is_ok());
        let small = Gate::new(2);
        let _both = [at_once(&small, tenant(1)), at_once(&small, tenant(1))];
    }

    #[tokio::test]
    async fn one_place_is_no_tenants_and_never_all_of_them_wait_for_it() {
        for places in [3, 4, 8, 16] {
            let gate = Gate::new(places);
            let mut held: Vec<_> = (1..places)
                .map(|number| at_once(&gate, tenant(number as u128)))
                .collect();
            let mut another = line_up(&gate, tenant(99)).await;
            // Each of those who hold a place looks something up beside it.
            for _ in 1..places {
                drop(at_once(&gate, None));
                assert!(poll!(&mut another).is_pending(), "of {places}");
            }
            held.pop();
            assert!(matches!(poll!(&mut another), Poll::Ready(Ok(_))), "of {places}");
        }
    }

    #[tokio::test]
    async fn what_becomes_free_goes_to_who_holds_the_fewest() {
        let gate = Gate::new(5);
        let mut loud: Vec<_> = (0..3).map(|_| at_once(&gate, tenant(1))).collect();
        let _else = at_once(&gate, tenant(9));
        let _server = at_once(&gate, None);
        let mut lines = Vec::new();
        for _ in 0..50 {
            lines.push(line_up(&gate, tenant(1)).await);
        }
        let mut quiet = line_up(&gate, tenant(2)).await;
        let mut other = line_up(&gate, tenant(3)).await;
        // However many of the loud came before: the first place is for the quiet, the second for the other.
        loud.pop();
        let Poll::Ready(Ok(quiets)) = poll!(&mut quiet) else {
            panic!("it waits")
        };
        assert!(poll!(&mut other).is_pending() && poll!(&mut lines[0]).is_pending());
        loud.pop();
        assert!(matches!(poll!(&mut other), Poll::Ready(Ok(_))));
        // Both have had enough (the other's place was dropped): now it is the turn of who came first among the loud.
        assert!(matches!(poll!(&mut lines[0]), Poll::Ready(Ok(_))));
        drop(quiets);
        assert!(matches!(poll!(&mut lines[2]), Poll::Ready(Ok(_))));
    }

    #[tokio::test]
    async fn between_equals_it_goes_round() {
        let gate = Gate::new(4);
        let _rest: Vec<_> = (0..3).map(|_| at_once(&gate, None)).collect();
        let mut place = Some(at_once(&gate, None));
        let mut lines = Vec::new();
        for who in [1, 1, 1, 2, 2, 3] {
            lines.push((who, line_up(&gate, tenant(who)).await));
        }
        let mut served = Vec::new();
        while !lines.is_empty() {
            place.take();
            for at in (0..lines.len()).rev() {
                if let Poll::Ready(got) = poll!(&mut lines[at].1) {
                    place = got.ok();
                    served.push(lines.remove(at).0);
                }
            }
        }
        assert_eq!(served, [1, 2, 3, 1, 2, 1]);
    }

    #[tokio::test]
    async fn who_gives_up_is_passed_and_loses_nothing() {
        let gate = Gate::new(4);
        let mut held: Vec<_> = (0..4).map(|_| at_once(&gate, None)).collect();
        let gone = line_up(&gate, tenant(1)).await;
        let mut stays = line_up(&gate, tenant(1)).await;
        drop(gone);
        held.pop();
        let Poll::Ready(Ok(place)) = poll!(&mut stays) else {
            panic!("it was not passed on")
        };
        // One that was served and never looks gives its place back all the same.
        let unlooked = line_up(&gate, tenant(2)).await;
        drop(place);
        drop(unlooked);
        drop(held);
        let all: Vec<_> = (0..4).map(|_| at_once(&gate, None)).collect();
        assert_eq!(all.len(), 4);
        drop(all);
        let state = gate.state();
        assert!(state.held.is_empty() && state.waiting.is_empty() && state.turns.is_empty());
        assert_eq!((state.free, state.queued), (4, 0));
    }

    #[tokio::test]
    async fn the_room_to_wait_in_is_bounded_by_those_who_are_still_there() {
        let gate = Gate::new(4);
        let _held: Vec<_> = (0..4).map(|_| at_once(&gate, None)).collect();
        let mut lines = Vec::new();
        for _ in 0..WAITING.0 {
            lines.push(line_up(&gate, tenant(1)).await);
        }
        assert_eq!(gate.enter(tenant(1)).await.err(), Some(Full));
        let _other = line_up(&gate, tenant(2)).await;
        lines.truncate(10);
        let _again = line_up(&gate, tenant(1)).await;
        assert_eq!(gate.waiting(), 12);
    }
}
