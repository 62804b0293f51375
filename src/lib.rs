//! Dealstream: a multi-tenant CRM whose API is the product.

pub mod api;
pub mod app;
pub mod auth;
pub mod config;
pub mod crm;
pub mod db;
pub mod error;
pub mod events;
pub mod graphql;
pub mod http;
pub mod identity;
pub mod telemetry;
