//! API keys: other programs act for a user with them, within the permissions that each is given.
//!
//! How a request with a key is known is in [`crate::auth::api_key`].

mod model;
mod mutations;
mod queries;
mod types;

pub use model::ApiKey;
pub use mutations::ApiKeyMutation;
pub use queries::holder;
pub use types::ApiKeyQuery;
