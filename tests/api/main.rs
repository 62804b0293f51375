//! All integration tests in one binary, so that they are linked once and share one PostgreSQL and one Redis.

mod budget;
mod embedded;
mod graphiql;
mod http;
mod limits;
mod settings;
mod support;
mod websocket;
