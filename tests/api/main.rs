//! All integration tests in one binary, so that they are linked once and share one PostgreSQL and one Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api_keys;
mod architecture;
mod audit;
mod budget;
mod canary;
mod companies;
mod contacts;
mod cors;
mod deals;
mod delivery;
mod demo;
mod dependencies;
mod embedded;
mod following;
mod graphiql;
mod history;
mod http;
mod idempotency;
mod identity;
mod input;
mod instances;
mod interactions;
mod invitations;
mod limits;
mod lists;
mod live;
mod outage;
mod pipelines;
mod process;
mod resume;
mod retention;
mod schema;
mod scope;
mod sessions;
mod settings;
mod sse;
mod subscriptions;
mod support;
mod tenancy;
mod throttle;
mod tls;
mod tokens;
mod users;
mod websocket;
