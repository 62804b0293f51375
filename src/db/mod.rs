//! Rules of database access.

pub mod embedded;
