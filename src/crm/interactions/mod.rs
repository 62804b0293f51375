//! Interactions: calls, e-mails, meetings, chats and notes, planned and done.

mod model;
mod mutations;
mod queries;
mod subscriptions;
mod types;

pub use model::{Interaction, InteractionDirection, InteractionKind};
pub use mutations::InteractionMutation;
pub use queries::{
    InteractionById, InteractionsByCompany, InteractionsByContact, InteractionsByDeal, insert, insert_all,
};
pub use subscriptions::InteractionSubscription;
pub use types::{InteractionFilter, InteractionQuery};
