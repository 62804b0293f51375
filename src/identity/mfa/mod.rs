//! Second factors: codes by time with recovery codes, and the one gate that everybody comes through who has proved a
//! first factor.
//!
//! [`admit`] is that gate: signing in with a password or by way of another provider, accepting an invitation, changing to
//! another tenant and founding a further one all end in it, and it alone begins sessions of people who have an account. It
//! keeps this true: *every session of somebody who has a second factor was begun with it*. To set one up ends all other
//! sessions, so no later step has to ask again; and a tenant that begins to require one ends the sessions of those who have
//! none. Each session knows what it was begun with, so that neither refreshing it nor going on to another tenant relies on
//! that alone.
//!
//! Who resets their password gets no session by that, and keeps their second factor.

mod model;
mod mutations;
mod queries;
mod types;

pub use model::{Admitted, By, PendingSignIn, SecondFactorMethod};
pub(super) use mutations::require_of_all;
pub use mutations::{MfaMutation, admit, reset_second_factor};
pub(super) use queries::SecondFactorOfUser;
