//! The kit of the API: what every entity's types, queries and mutations are made with. It knows no entity.

pub mod limits;
