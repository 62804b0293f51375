//! Dealstream: a multi-tenant CRM whose API is the product.
//!
//! # The map, in reading order
//!
//! | module | what it is |
//! |---|---|
//! | [`crm`] | the records: companies, contacts, pipelines, deals, interactions. Begin with [`crm::deals`] |
//! | [`identity`] | tenants, the users in them, signing in: a feature of the same anatomy |
//! | [`audit`] | the audit trail: reading it, proving it whole |
//! | [`founding`] | founding a tenant, which concerns both of them |
//! | [`graphql`] | the kit that features are built with: sessions, loaders, pages, filters, mutations, limits |
//! | [`events`] | the history: every change in order, and following it |
//! | [`auth`] | passwords, other providers, tokens, and the whole policy of roles on one screen |
//! | [`mail`] | what is mailed to people, and the links in it |
//! | [`crypto`] | the vault: what is kept sealed, and under which key |
//! | [`db`] | PostgreSQL and the tenant boundary: [`db::session`] is the file to read twice |
//! | [`api`] | the schema's roots: every feature merged, a line each |
//! | [`app`] | the only place where the parts meet |
//! | [`http`] | GraphQL over HTTP and WebSocket, GraphiQL, health |
//! | [`config`], [`error`], [`telemetry`] | settings, what can go wrong, logs |
//!
//! Arrows point down only: `main → http, demo → app → api → founding → crm → audit → identity → graphql → events → auth, mail → db → crypto → config → error`.
//! Inside a feature: `model ← queries ← types ← mutations, subscriptions`; only `queries` holds SQL.

pub mod api;
pub mod app;
pub mod audit;
pub mod auth;
pub mod config;
pub mod crm;
pub mod crypto;
pub mod db;
pub mod demo;
pub mod error;
pub mod events;
pub mod founding;
pub mod graphql;
pub mod http;
pub mod identity;
pub mod mail;
pub mod sensitive;
pub mod telemetry;
