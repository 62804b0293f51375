//! What the tests stand on.

pub mod app;
pub mod cluster;
pub mod counter;
pub mod folder;
pub mod mail;
pub mod program;
pub mod provider;
pub mod recipes;
pub mod redis;
pub mod wire;

pub use app::{Client, TestApp};
