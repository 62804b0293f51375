//! The kit that every feature of the schema is built with. It knows no entity.
//!
//! [`context`] what an operation carries · [`guard`] permissions of root fields · [`reading`] what queries read from · [`loader`] one statement per level ·
//! [`connection`] pages · [`filter`] typed filters · [`input`] checks of what people type · [`mutation`] one form for
//! every change · [`apart`] mutations that fail one by one · [`eager`] objects in answers · [`stream`] the frames of subscriptions · [`change`] what they tell of a record · [`id`], [`scalar`] values · [`detail`] contact details and who sees them · [`problem`] errors · [`reach`] whose records are seen · [`shown`] what mutations answer · [`limits`] what a document may cost.

pub mod apart;
pub mod change;
pub mod connection;
pub mod context;
pub mod detail;
pub mod eager;
pub mod filter;
pub mod guard;
pub mod id;
pub mod input;
pub mod limits;
pub mod loader;
pub mod mutation;
pub mod problem;
pub mod reach;
pub mod reading;
pub mod scalar;
pub mod shown;
pub mod stream;

pub use connection::{Connection, OrderDirection, PageArgs};
pub use context::{ContextExt, Session};
pub use eager::{Eager, EagerList, Record};
pub use guard::{Can, InPerson};
pub use loader::Batch;
pub use mutation::{Outcome, mutate, mutate_unless_done};
pub use shown::Shown;
