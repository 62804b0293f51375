//! What a limited reach means above the database: PostgreSQL hides the records ([`crate::db::reach`]); here it is said
//! what may be referred to, and what of the history is told.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::db::Database;
use crate::db::id::{Id, read_id};
use crate::db::reach::{self, Owners, Resource, Sight, is_seen};
use crate::db::session::Transaction;
use crate::error::{Error, ProblemCode, Result};
use crate::events::Event;

use super::change::{kept, old};

/// Whom a new record belongs to: who is named, or the viewer when their reach would not cover a record of nobody's.
pub fn owner<T>(tx: &Transaction, resource: Resource, named: Option<Id<T>>) -> Option<Id<T>> {
    named.or_else(|| tx.sight().default_owner(resource).map(Id::from_uuid))
}

/// A record that an input refers to: the field, the kind of record, its id.
pub type Reference<'a> = (&'a str, Resource, Option<Uuid>);

/// Refuses to refer to what the viewer does not see: foreign keys look at everything there is. Who sees everything is
/// not asked about.
///
/// # Errors
/// As a user error on the field, the same as when there is no such record.
pub async fn check_references(tx: &Transaction, references: &[Reference<'_>]) -> Result<()> {
    for (field, resource, id) in references {
        let Some(id) = id else { continue };
        if !is_seen(tx, *resource, *id).await? {
            let message = format!("The record given as {field} does not exist.");
            return Err(Error::invalid(field, ProblemCode::NotFound, message));
        }
    }
    Ok(())
}

/// What a viewer with a limited reach sees at the moment: whose records, for each kind, and what of that which a part of
/// the history refers to.
///
/// A record's event is told to who sees the record as the event left it, or as it was before: who watches must learn of
/// what comes into reach and of what leaves it. It goes by the owners that the event names, so deletions are told as well.
/// Of an interaction it goes by who recorded it, and by the owners that what it is about has now.
///
/// Of the records of others in one's teams, what happened before both were in the team is not told: a history of old values
/// is more than the records that a new member finds.
#[derive(Debug)]
pub struct Vision {
    owners: [Owners; Resource::ALL.len()],
    /// Records in reach that interactions of this part are about, and whose they are.
    about: HashMap<Uuid, Uuid>,
    viewer: Option<Uuid>,
    together: HashMap<Uuid, DateTime<Utc>>,
}

/// To whom the records of a kind belong.
#[derive(Debug, Clone, Copy)]
pub struct Belongs {
    /// The kind of record.
    pub resource: Resource,
    /// The field that names the user, as the history has it.
    pub owner: &'static str,
    /// The fields that name what it is about: whoever owns that sees it too.
    pub about: &'static [&'static str],
}

/// What a record can be about, by the fields that say so.
pub const ABOUT: &[&str] = &["contactId", "companyId", "dealId"];

/// What the record of an event refers to by a field, and what it referred to before the event.
fn references(event: &Event, field: &str) -> impl Iterator<Item = Uuid> {
    let values = [Some(kept(&event.change, field)), old(&event.change, field)];
    let id = |value: Value| Some(read_id(value.as_str()?)?.1);
    values.into_iter().flatten().filter_map(id)
}

impl Vision {
    /// Looks up what is seen of these events.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of(db: &Database, sight: Sight, events: &[&Event]) -> Result<Self> {
        let snapshot = db.snapshot(sight);
        let conn = snapshot.conn().await?;
        let owners = reach::owners(conn).await?;
        let mut about = HashMap::new();
        if let Owners::These(users) = &owners[Resource::Interactions as usize] {
            let named = events
                .iter()
                .flat_map(|event| ABOUT.iter().flat_map(|field| references(event, field)));
            let named = named.collect::<HashSet<_>>().into_iter().collect();
            about = reach::owned_among(conn, named, users).await?;
        }
        let viewer = sight.limited_to();
        let together = match viewer {
            Some(user) => reach::together_since(conn, user).await?,
            None => HashMap::new(),
        };
        snapshot.complete(true).await?;
        Ok(Self {
            owners,
            about,
            viewer,
            together,
        })
    }

    /// Whether what happened to a user's record is the viewer's to hear.
    fn hears(&self, event: &Event, user: Uuid) -> bool {
        let together = self.together.get(&user);
        self.viewer == Some(user) || together.is_some_and(|since| *since <= event.occurred_at)
    }

    fn owns(&self, event: &Event, belongs: Belongs) -> bool {
        match &self.owners[belongs.resource as usize] {
            Owners::All => true,
            Owners::These(users) => {
                references(event, belongs.owner).any(|user| users.contains(&user) && self.hears(event, user))
            }
        }
    }

    /// Whether the record of an event is or was in reach.
    pub fn includes(&self, event: &Event, belongs: Belongs) -> bool {
        let about = |id: Uuid| self.about.get(&id).is_some_and(|owner| self.hears(event, *owner));
        self.owns(event, belongs) || (belongs.about.iter()).any(|field| references(event, field).any(about))
    }
}
