//! What an operator does for somebody who has lost everything.

use std::sync::Arc;

use serde_json::json;

use super::super::queries;
use super::act::factor_of;
use crate::db::Database;
use crate::db::directory::{Membership, factors};
use crate::db::id::{Id, write_id};
use crate::error::{Error, Result};
use crate::events::{Hub, Work};

/// Takes the second factor away of who signs in with an address, ends their sessions in every tenant, and notes it in the
/// trails of their tenants. For somebody who has lost their app and their codes, and whom no admin can help: the sole admin
/// of a tenant, or who belongs to several. Answers what to tell the operator, who has made sure that it is they who ask.
///
/// It is taken away everywhere at once, and each trail is a transaction of its own; whom it could not tell, the next call
/// does, and it takes nothing else away then. Only who asks for it `again` takes away what was set up since, whether or not
/// all trails tell of the last time: one that keeps failing must not make a second factor one that nobody can reset.
///
/// # Errors
/// A sentence for the operator: also when nothing was there to be taken away, and when a trail does not tell of it yet.
pub async fn reset_second_factor(
    db: &Database,
    hub: &Arc<Hub>,
    email: &str,
    again: bool,
) -> Result<String, String> {
    let told = |error: Error| {
        tracing::error!(?error, "a second factor cannot be reset");
        error.message()
    };
    let email = email.trim().to_lowercase();
    let reset = factors::reset(db, &email, again).await.map_err(told)?;
    let factors::Reset { is_new, untold } = reset
        .ok_or_else(|| format!("nobody signs in with {email} and a second factor: nothing is changed"))?;
    let (mut noted, mut missing) = (0, Vec::new());
    for membership in untold {
        match note_reset(db, hub, &membership).await {
            Ok(now) => noted += usize::from(now),
            Err(error) => {
                told(error);
                missing.push(write_id("tenant", membership.tenant_id));
            }
        }
    }
    if !missing.is_empty() {
        return Err(format!(
            "the second factor {} taken away, but these trails do not tell of it yet: {}. Run this again, which takes \
             nothing else away; should there be another second factor since that is to go, with --again",
            if is_new { "is" } else { "had been" },
            missing.join(", ")
        ));
    }
    Ok(match is_new {
        true => format!(
            "The second factor of {email} is taken away, and all sessions have ended. Noted in the trails of tenants: {noted}."
        ),
        false => format!(
            "The second factor of {email} had been taken away before. Noted now in the trails of tenants: {noted}. \
             If there is another since, run this again to take it away."
        ),
    })
}

/// Notes in the trail of a tenant that an operator took a second factor away. Answers whether this was still to be done.
async fn note_reset(db: &Database, hub: &Arc<Hub>, membership: &Membership) -> Result<bool> {
    let Membership { tenant_id, user_id } = *membership;
    let mut work = Work::begin(db, hub.clone(), tenant_id, None).await?;
    if !queries::take_untold_reset(&work, user_id).await? {
        return Ok(false);
    }
    let detail = json!({ "by": "OPERATOR" });
    work.record(factor_of(Id::from_uuid(user_id)), "RESET", &detail)?;
    work.finish().await?;
    Ok(true)
}
