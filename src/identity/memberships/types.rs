//! Memberships in the schema.

use async_graphql::SimpleObject;

use crate::auth::{self, Role};
use crate::db::directory::people::{Person, Place};
use crate::db::id::Id;
use crate::error::{Error, Result};
use crate::identity::Tenant;

/// A tenant that you belong to.
#[derive(Debug, SimpleObject)]
pub struct Membership {
    /// The tenant.
    tenant: TenantName,
    /// Your role there. `CUSTOM` stands for one of that tenant's own.
    role: Role,
    /// Whether you are signed in to it with this access token.
    is_current: bool,
}

/// A tenant, as far as who belongs to it sees of it from another one.
#[derive(Debug, SimpleObject)]
pub struct TenantName {
    /// The tenant's id: `switchTenant` takes it.
    id: Id<Tenant>,
    /// The tenant's name.
    name: String,
}

/// The tenants that a viewer's account may enter.
///
/// # Errors
/// When the database has a role that we do not know.
pub fn memberships(viewer: &auth::Viewer, person: &Person) -> Result<Vec<Membership>> {
    let membership = |place: &Place| {
        Ok(Membership {
            is_current: place.tenant_id == viewer.tenant_id,
            role: place.role.parse().map_err(Error::internal)?,
            tenant: TenantName {
                id: Id::from_uuid(place.tenant_id),
                name: place.tenant_name.clone(),
            },
        })
    };
    // A program acts in the one tenant whose key it has.
    let seen = person
        .places
        .iter()
        .filter(|place| viewer.in_person().is_ok() || place.tenant_id == viewer.tenant_id);
    seen.map(membership).collect()
}
