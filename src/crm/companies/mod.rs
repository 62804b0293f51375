//! Companies: the businesses that the tenant deals with.

mod model;
mod mutations;
mod queries;
mod types;

pub use model::Company;
pub use mutations::CompanyMutation;
pub use queries::{CompanyById, matching};
pub use types::{CompanyFilter, CompanyQuery};
