//! Contacts: the people that the tenant deals with.

mod model;
mod mutations;
mod queries;
mod subscriptions;
mod types;

pub use model::{Contact, LifecycleStage, RecordStatus};
pub use mutations::ContactMutation;
pub use queries::{ContactById, ContactsByCompany, insert, insert_all, matching};
pub use subscriptions::ContactSubscription;
pub use types::{ContactFilter, ContactQuery};
