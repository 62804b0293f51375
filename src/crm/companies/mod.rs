//! Companies: the businesses that the tenant deals with.

mod model;
mod mutations;
mod queries;
mod subscriptions;
mod types;

pub use model::{Company, PostalAddress};
pub use mutations::CompanyMutation;
pub use queries::{CompanyById, insert_all, matching};
pub use subscriptions::CompanySubscription;
pub use types::{CompanyFilter, CompanyQuery};
