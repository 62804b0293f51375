//! Looking up who is meant by what another issuer says.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::define_sql_function;
use diesel_async::RunQueryDsl;

use crate::auth::external::Proved;
use crate::auth::{Means, Viewer};
use crate::db::Database;
use crate::db::directory::{Account, Membership, factors};
use crate::db::id::{Id, uuid_at};
use crate::error::Result;
use crate::identity;

define_sql_function!(fn clock_timestamp() -> Timestamptz);

/// Who somebody is in a tenant.
pub(super) enum Member {
    Viewer(Box<Viewer>),
    /// They may come in with a second factor only, and have shown none.
    LacksFactor,
    /// Nobody who may come in.
    None,
}

/// Who a tenant's user is whom a token proves, with the rights that they have there at this moment.
///
/// # Errors
/// When the database fails.
pub(super) async fn member(
    db: &Database,
    account: &Account,
    membership: &Membership,
    proved: &Proved,
) -> Result<Member> {
    let tx = db.begin(membership.tenant_id).await?;
    // Whoever changes the tenant's settings or the user at this moment is waited for: the moment of the rights is later.
    identity::hold_tenant(&tx).await?;
    let user = Id::from_uuid(membership.user_id);
    let Some((tenant, _, rights)) = identity::member(&tx, user).await? else {
        return Ok(Member::None);
    };
    // Nobody gets past the second factor that somebody has set up here, either.
    let is_needed = tenant.mfa_required || factors::has_factor(&tx, account.id).await?;
    if is_needed && !proved.by_second_factor {
        return Ok(Member::LacksFactor);
    }
    let now: DateTime<Utc> = diesel::select(clock_timestamp())
        .get_result(&mut tx.conn())
        .await?;
    tx.commit().await?;
    Ok(Member::Viewer(Box::new(Viewer {
        tenant_id: membership.tenant_id,
        user_id: membership.user_id,
        session_id: proved.id,
        token_id: uuid_at(now),
        means: Means::External,
        rights: Arc::new(rights),
        expires_at: proved.expires_at,
    })))
}
