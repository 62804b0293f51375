//! Dealstream.
pub mod db;
