//! People whom an issuer has signed in that the operator trusts: how they are known here. What their token has to prove
//! is in [`crate::auth::external`].

mod mutations;
mod queries;

pub use mutations::identify;
