//! Counts what a test sends to PostgreSQL.
//!
//! Tests run on a thread of their own with all their tasks, so the counts are kept by thread, and no other test is in
//! them.

use std::cell::RefCell;
use std::sync::Once;

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Statements, each as it began to run; BEGIN and COMMIT are among them.
    pub statements: Vec<String>,
    /// Times that the sender waited: statements that are on their way together count once.
    pub round_trips: usize,
    /// Statements that PostgreSQL had to prepare.
    pub prepared: usize,
    /// Connections that were opened.
    pub connections: usize,
    pending: usize,
}

thread_local! {
    static COUNTS: RefCell<Counts> = RefCell::default();
}

struct Counter;

impl Instrumentation for Counter {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        COUNTS.with_borrow_mut(|counts| match event {
            InstrumentationEvent::StartEstablishConnection { .. } => counts.connections += 1,
            InstrumentationEvent::StartQuery { query, .. } => {
                counts.statements.push(query.to_string());
                counts.round_trips += usize::from(counts.pending == 0);
                counts.pending += 1;
            }
            InstrumentationEvent::FinishQuery { .. } => counts.pending = counts.pending.saturating_sub(1),
            InstrumentationEvent::CacheQuery { .. } => counts.prepared += 1,
            _ => {}
        });
    }
}

/// Lets connections that are opened from now on be counted.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_default_instrumentation(|| Some(Box::new(Counter))).unwrap());
}

/// What this thread has sent since it last asked.
pub fn take() -> Counts {
    COUNTS.with_borrow_mut(|counts| {
        let pending = counts.pending;
        let taken = std::mem::take(counts);
        counts.pending = pending;
        taken
    })
}
