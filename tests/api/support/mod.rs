//! What the tests stand on.

pub mod cluster;
pub mod folder;
