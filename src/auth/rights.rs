//! What a viewer may do, in one value: the permissions of a role, and how far they reach.
//!
//! Rights travel in the access token, so no request asks the database for them; a change of rights makes older tokens
//! stale. What a release does not know it does not grant: unknown names are passed over, and what is missing is the
//! least there is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::permission::{Permission, Role};
pub use crate::db::reach::{Reach, Resource, Scope};
use crate::error::{Error, Result};

/// A set of permissions: a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u64);

/// What a viewer may do, and with whose records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rights {
    /// The built-in role, or what stands for a role of the tenant's own.
    pub role: Role,
    /// The tenant's own role that these rights are of.
    pub custom_role: Option<Uuid>,
    permissions: Permissions,
    reach: Reach,
}

/// How an access token carries rights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RightsClaims {
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    custom_role: Option<Uuid>,
    /// The names of the permissions with spaces between them, as in RFC 9068, section 2.2.3.
    #[serde(default)]
    scope: String,
    /// The scope of each kind of record.
    #[serde(default)]
    reach: BTreeMap<String, String>,
}

impl Permissions {
    /// No permission at all.
    pub const NONE: Self = Self(0);

    const fn bit(permission: Permission) -> u64 {
        1 << permission as u64
    }

    /// Whether the permission is among them.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & Self::bit(permission) != 0
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The permissions that are named, with spaces between them, as in RFC 9068, section 2.2.3. What this release does not
    /// know is passed over.
    pub fn from_scope(scope: &str) -> Self {
        scope.split(' ').filter_map(|name| name.parse().ok()).collect()
    }

    /// Their names with spaces between them.
    pub fn to_scope(self) -> String {
        let names: Vec<_> = self.iter().map(Permission::name).collect();
        names.join(" ")
    }

    /// The permissions, in the order of the policy.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .iter()
            .copied()
            .filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let bits = permissions.into_iter().map(Self::bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl Rights {
    /// The rights of a built-in role: they reach every record.
    pub fn of(role: Role) -> Self {
        Self {
            role,
            custom_role: None,
            permissions: role.permissions().into_iter().collect(),
            reach: Reach::ALL,
        }
    }

    /// Rights that are a tenant's own making.
    pub fn custom(role: Role, custom_role: Option<Uuid>, permissions: Permissions, reach: Reach) -> Self {
        Self {
            role,
            custom_role,
            permissions,
            reach,
        }
    }

    /// Rights of a tenant's own making as the database keeps them: names of permissions, and scopes in the order of the kinds
    /// of record. What is unknown grants nothing, what is missing reaches the least.
    pub fn kept(role: Role, custom_role: Option<Uuid>, permissions: &[String], scopes: &[String]) -> Self {
        let permissions = permissions.iter().filter_map(|name| name.parse().ok()).collect();
        let reach = (Resource::ALL.iter().enumerate()).fold(Reach::ALL, |reach, (at, resource)| {
            let scope = scopes.get(at).and_then(|scope| scope.parse().ok());
            reach.with(*resource, scope.unwrap_or(Scope::Own))
        });
        Self::custom(role, custom_role, permissions, reach)
    }

    /// The same rights, of the permissions only those that are among `permissions` too.
    #[must_use]
    pub fn only(&self, permissions: Permissions) -> Self {
        Self {
            permissions: self.permissions.and(permissions),
            ..self.clone()
        }
    }

    /// Whether they permit it.
    pub fn permits(&self, permission: Permission) -> bool {
        self.permissions.contains(permission)
    }

    /// Refuses what they do not permit.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the name of the missing permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.permits(permission) {
            Ok(())
        } else {
            Err(Error::Forbidden(permission.name()))
        }
    }

    /// Everything they permit.
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// How far they reach.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Whether they permit nothing that the other rights do not, and reach no further: what nobody may exceed who gives
    /// rights to somebody else.
    pub fn are_within(&self, other: &Self) -> bool {
        self.permissions.without(other.permissions).is_empty() && self.reach.is_within(other.reach)
    }

    /// What an access token says of them.
    pub fn to_claims(&self) -> RightsClaims {
        let scope = |resource: &Resource| {
            let scope = self.reach.of(*resource);
            (resource.as_str().to_owned(), scope.as_str().to_owned())
        };
        RightsClaims {
            role: self.role,
            custom_role: self.custom_role,
            scope: self.permissions.to_scope(),
            reach: Resource::ALL.iter().map(scope).collect(),
        }
    }

    /// Reads what an access token says. Permissions that this release does not know are passed over; so is what the
    /// token's built-in role no longer permits. A kind of record without a known scope is reached as little as can be.
    pub fn from_claims(claims: &RightsClaims) -> Self {
        let permissions = Permissions::from_scope(&claims.scope);
        let reach = Resource::ALL.iter().fold(Reach::ALL, |reach, resource| {
            let scope = claims.reach.get(resource.as_str());
            let scope = scope.and_then(|scope| scope.parse().ok());
            reach.with(*resource, scope.unwrap_or(Scope::Own))
        });
        let permissions = match claims.custom_role {
            Some(_) => permissions,
            None => permissions.and(Self::of(claims.role).permissions),
        };
        Self {
            role: claims.role,
            custom_role: claims.custom_role,
            permissions,
            reach,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(claims: serde_json::Value) -> Rights {
        Rights::from_claims(&serde_json::from_value(claims).expect("claims of this form"))
    }

    #[test]
    fn rights_come_out_of_a_token_as_they_went_in() {
        for role in Role::ALL {
            let rights = Rights::of(*role);
            assert_eq!(Rights::from_claims(&rights.to_claims()), rights);
        }
        let reach = Reach::ALL
            .with(Resource::Deals, Scope::Own)
            .with(Resource::Contacts, Scope::Team);
        let few = [Permission::DealsRead, Permission::ContactsRead];
        let custom = Rights::custom(
            Role::Sales,
            Some(Uuid::now_v7()),
            few.into_iter().collect(),
            reach,
        );
        assert_eq!(Rights::from_claims(&custom.to_claims()), custom);
    }

    #[test]
    fn what_is_unknown_or_missing_grants_nothing() {
        let sales = read(json!({
            "role": "SALES",
            "scope": "DEALS_READ DEALS_TELEPORT TENANT_WRITE deals_write",
            "reach": { "deals": "GALAXY", "contacts": "TEAM", "invoices": "ALL" },
        }));
        assert_eq!(
            sales.permissions().iter().collect::<Vec<_>>(),
            [Permission::DealsRead]
        );
        assert_eq!(sales.reach().of(Resource::Deals), Scope::Own);
        assert_eq!(sales.reach().of(Resource::Contacts), Scope::Team);
        assert_eq!(sales.reach().of(Resource::Companies), Scope::Own);
        assert!(read(json!({ "role": "ADMIN" })).permissions().is_empty());
    }

    #[test]
    fn nobody_can_give_more_than_they_have() {
        let (admin, sales) = (Rights::of(Role::Admin), Rights::of(Role::Sales));
        assert!(sales.are_within(&admin));
        assert!(!admin.are_within(&sales));
        let own = Rights {
            reach: Reach::ALL.with(Resource::Deals, Scope::Own),
            ..sales.clone()
        };
        assert!(own.are_within(&sales));
        assert!(!sales.are_within(&own));
    }
}
