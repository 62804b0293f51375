//! Dealstream.
pub mod db;
pub mod graphql;
