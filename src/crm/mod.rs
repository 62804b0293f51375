//! The records of the CRM, in reading order. Each entity is a folder of the same anatomy:
//! `model` (the row) ← `queries` (all its SQL) ← `types` (how the schema shows it) ← `mutations`, `subscriptions`.

pub mod companies;
pub mod contacts;
pub mod deals;
pub mod interactions;
pub mod pipelines;
pub mod secrets;
