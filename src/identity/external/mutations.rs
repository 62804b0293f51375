//! Letting somebody in, or not, by what another issuer says.

use crate::auth::external::{NAME, Proved};
use crate::auth::refusal::{Reason, Refused};
use crate::auth::{Origin, Viewer};
use crate::db::directory;
use crate::error::{Error, Result};
use crate::identity::choose;
use crate::identity::refusals::Refusals;

use super::queries::{self, Member};

/// The user of a tenant whom a token proves, with the rights that they have there; nothing when nobody may come in with
/// this address. They come to the tenant of the token, and otherwise to the first that they joined.
///
/// # Errors
/// [`Error::Unauthenticated`] when their address is not verified, or the tenant requires a second factor and none was shown;
/// when the database fails.
pub async fn identify(refusals: &Refusals, proved: Proved, origin: &Origin) -> Result<Option<Viewer>> {
    let db = refusals.db();
    // No address of ours is that long, and no text in PostgreSQL has a NUL.
    let findable = proved.email.len() <= 1000 && !proved.email.contains('\0');
    let found = match findable {
        true => directory::find_account(db, &proved.email).await?,
        false => None,
    };
    let tell = |account_id, reason| {
        let told = Refused {
            account_id,
            tenant_id: proved.tenant_id,
            by: NAME.to_owned(),
            reason,
        };
        refusals.tell(origin, told);
    };
    if !proved.is_verified {
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
    match member {
        Member::Viewer(viewer) => Ok(Some(*viewer)),
        Member::None => {
            tell(account.id, Reason::NotAdmitted);
            Ok(None)
        }
        Member::LacksFactor => {
            tell(account.id, Reason::SecondFactorMissing);
            Err(Error::Unauthenticated(
                "A second factor is required. Sign in with one.",
            ))
        }
    }
}
