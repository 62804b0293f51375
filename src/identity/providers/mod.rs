//! Signing in by way of other providers: the page's part of it, and by whom a person is known. The browser's part is in
//! [`auth::provider`](crate::auth::provider).

mod model;
mod mutations;
mod types;

pub(super) use mutations::tell_of_link;
pub use mutations::{ProviderMutation, unlink};
pub use types::ProviderQuery;
