//! All integration tests in one binary, so that they are linked once and share one PostgreSQL and one Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod budget;
mod demo;
mod embedded;
mod graphiql;
mod http;
mod limits;
mod outage;
mod process;
mod settings;
mod support;
mod websocket;
