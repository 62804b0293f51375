//! Sign-ins that were refused although it is known whose account they were for: those concerned are told.

mod mutations;

pub use mutations::Refusals;
