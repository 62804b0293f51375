//! Letting somebody in, or not, by what another issuer says.

use chrono::{TimeDelta, Utc};

use super::queries::{self, Member};
use crate::auth::external::{NAME, Proved};
use crate::auth::refusal::{Reason, Refused};
use crate::auth::{Origin, Viewer};
use crate::db::directory::identities::{self, Identity, Linked, Sureness};
use crate::db::{Database, directory};
use crate::error::{Error, Result};
use crate::identity::refusals::Refusals;
use crate::identity::{choose, providers};

/// How exactly it is known when somebody last came.
const USED: TimeDelta = TimeDelta::hours(1);

/// The user of a tenant whom a token proves, with the rights that they have there; nothing when nobody may come in with it.
/// They come to the tenant of the token, and otherwise to the first that they joined.
///
/// A person is found by their address once, and is then known by the issuer's own name for them, whatever becomes of the
/// address there. Who is given somebody's old address does not become them.
///
/// # Errors
/// [`Error::Unauthenticated`] when their address is not verified, or the tenant requires a second factor and none was shown;
/// when the database fails.
pub async fn identify(refusals: &Refusals, proved: Proved, origin: &Origin) -> Result<Option<Viewer>> {
    let db = refusals.db();
    let tell = |account_id, reason| {
        let told = Refused {
            account_id,
            tenant_id: proved.tenant_id,
            by: NAME.to_owned(),
            reason,
        };
        refusals.tell(origin, told);
    };
    let known = identities::linked_to(db, &proved.realm, &proved.subject).await?;
    let found = match &known {
        Some(known) => identities::account(db, known.account_id).await?,
        None => by_address(db, &proved.email).await?,
    };
    if known.is_none() && !proved.is_verified {
        if let Some((account, _)) = found {
            tell(account.id, Reason::AddressNotVerified);
        }
        return Err(Error::Unauthenticated(
            "Your e-mail address is not verified where you have signed in.",
        ));
    }
    let Some((account, memberships)) = found else {
        return Ok(None);
    };
    let member = match choose(memberships, proved.tenant_id) {
        Some(membership) => queries::member(db, &account, &membership, &proved).await?,
        None => Member::None,
    };
    let viewer = match member {
        Member::Viewer(viewer) => viewer,
        Member::None => {
            tell(account.id, Reason::NotAdmitted);
            return Ok(None);
        }
        Member::LacksFactor => {
            tell(account.id, Reason::SecondFactorMissing);
            return Err(Error::Unauthenticated(
                "A second factor is required. Sign in with one.",
            ));
        }
    };
    let now = Utc::now();
    if known.is_none_or(|known| known.last_used_at + USED < now) {
        let identity = Identity {
            provider: NAME.to_owned(),
            issuer: proved.realm,
            subject: proved.subject,
            email: proved.email,
            account_id: account.id,
        };
        let linked = match known {
            Some(_) if identities::use_again(db, &identity, now).await? => Linked::Before,
            // Unlinked a moment ago. They were not asked for a verified address, so they are not linked anew.
            Some(_) => {
                tell(account.id, Reason::ChangedMeanwhile);
                return Ok(None);
            }
            None => identities::link(db, &identity, &account, Sureness::TheirSide, now).await?,
        };
        match linked {
            Linked::Now => providers::tell_of_link(db, refusals.hub(), origin, &identity).await,
            Linked::Before => {}
            Linked::Refused => {
                tell(account.id, Reason::LinkedToAnother);
                return Ok(None);
            }
        }
    }
    Ok(Some(*viewer))
}

async fn by_address(
    db: &Database,
    email: &str,
) -> Result<Option<(directory::Account, Vec<directory::Membership>)>> {
    // No address of ours is that long, and no text in PostgreSQL has a NUL.
    match email.len() <= 1000 && !email.contains('\0') {
        true => directory::find_account(db, email).await,
        false => Ok(None),
    }
}
