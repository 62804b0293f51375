//! Telling the audit trail who looks at what, before they do.
//!
//! A read has no transaction to record in: the snapshot that it answers from is read-only. So what is to be given out is
//! recorded in a transaction of its own, and given out when that is committed; when it cannot be, nothing is given out.
//! Fields that are asked for at the same time are recorded together, an entry for each record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// What one request has been, and is to be, shown.
#[derive(Default)]
pub struct Disclosures {
    state: Mutex<State>,
    /// Held by who records: the others wait for it, and find theirs recorded.
    pub(super) turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    waiting: BTreeSet<(Uuid, &'static str)>,
    recorded: BTreeSet<(Uuid, &'static str)>,
}

impl Disclosures {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn to record that a field of a record is shown, with all others that wait. Answers, with the turn,
    /// what is to be recorded, by record; nothing is left when somebody else has done it.
    pub async fn turn(
        &self,
        record: Uuid,
        field: &'static str,
    ) -> (tokio::sync::MutexGuard<'_, ()>, BTreeMap<Uuid, Vec<&'static str>>) {
        self.state().waiting.insert((record, field));
        // The other fields of this level come to the same point before anybody goes on.
        tokio::task::yield_now().await;
        let turn = self.turn.lock().await;
        let state = self.state();
        let mut due: BTreeMap<Uuid, Vec<&'static str>> = BTreeMap::new();
        for (record, field) in state.waiting.difference(&state.recorded) {
            due.entry(*record).or_default().push(field);
        }
        drop(state);
        (turn, due)
    }

    /// Notes what has been recorded.
    pub fn recorded(&self, done: BTreeMap<Uuid, Vec<&'static str>>) {
        let mut state = self.state();
        for (record, fields) in done {
            for field in fields {
                state.waiting.remove(&(record, field));
                state.recorded.insert((record, field));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_at_once_is_recorded_at_once_and_only_once() {
        let disclosures = Disclosures::default();
        let recordings = Mutex::new(Vec::new());
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let ask = async |record, field| {
            let (turn, due) = disclosures.turn(record, field).await;
            if !due.is_empty() {
                tokio::task::yield_now().await;
                recordings.lock().expect("nobody panicked").push(due.clone());
                disclosures.recorded(due);
            }
            drop(turn);
        };
        futures::join!(ask(one, "tax_id"), ask(one, "bank_account"), ask(two, "tax_id"));
        ask(one, "tax_id").await;
        let expected = BTreeMap::from([(one, vec!["bank_account", "tax_id"]), (two, vec!["tax_id"])]);
        assert_eq!(*recordings.lock().expect("nobody panicked"), [expected]);
    }
}
