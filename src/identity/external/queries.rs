//! Looking up who is meant by what another issuer says.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::define_sql_function;
use diesel_async::RunQueryDsl;

use crate::auth::external::Proved;
use crate::auth::{Means, Viewer};
use crate::db::id::{Id, uuid_at};
use crate::db::{Database, directory};
use crate::error::{Error, Result};
use crate::identity;

define_sql_function!(fn clock_timestamp() -> Timestamptz);

/// The user of a tenant whom a token proves, with the rights that they have there; nothing when nobody may come in with
/// this address. They come to the tenant of the token, and otherwise to the first that they joined.
///
/// # Errors
/// [`Error::Unauthenticated`] when the tenant requires a second factor and none was shown; when the database fails.
pub async fn member(db: &Database, proved: Proved) -> Result<Option<Viewer>> {
    // No address of ours is that long, and no text in PostgreSQL has a NUL.
    if proved.email.len() > 1000 || proved.email.contains('\0') {
        return Ok(None);
    }
    let Some((account, memberships)) = directory::find_account(db, &proved.email).await? else {
        return Ok(None);
    };
    let mut memberships = memberships.into_iter();
    let membership = match proved.tenant_id {
        Some(tenant) => memberships.find(|membership| membership.tenant_id == tenant),
        None => memberships.next(),
    };
    let Some(membership) = membership else {
        return Ok(None);
    };
    let tx = db.begin(membership.tenant_id).await?;
    // Whoever changes the tenant's settings or the user at this moment is waited for: the moment of the rights is later.
    identity::hold_tenant(&tx).await?;
    let user = Id::from_uuid(membership.user_id);
    let Some((tenant, _, rights)) = identity::member(&tx, user).await? else {
        return Ok(None);
    };
    // Nobody gets past the second factor that somebody has set up here, either.
    let is_needed = tenant.mfa_required || directory::factors::has_factor(&tx, account.id).await?;
    if is_needed && !proved.by_second_factor {
        return Err(Error::Unauthenticated(
            "A second factor is required. Sign in with one.",
        ));
    }
    let now: DateTime<Utc> = diesel::select(clock_timestamp())
        .get_result(&mut tx.conn())
        .await?;
    tx.commit().await?;
    Ok(Some(Viewer {
        tenant_id: membership.tenant_id,
        user_id: membership.user_id,
        session_id: proved.id,
        token_id: uuid_at(now),
        means: Means::External,
        rights: Arc::new(rights),
        expires_at: proved.expires_at,
    }))
}
