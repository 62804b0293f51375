//! Somebody who is known here and was not let in.

use serde::Serialize;
use uuid::Uuid;

use super::Origin;

/// Why somebody was not let in. Tenants read it in their audit trails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The password was wrong.
    WrongPassword,
    /// They are no user of the tenant that they wanted, or of any, who may come in: not, or not any more.
    NotAdmitted,
    /// The address by which they would be known is not verified: here, or where they come from.
    AddressNotVerified,
    /// The account with their address belongs to somebody who is known by another name where they come from.
    LinkedToAnother,
    /// They have shown no second factor, and one is needed.
    SecondFactorMissing,
    /// Who brought their code from a provider was not who began that sign-in.
    CodeOfAnother,
    /// Their password, or who else they are known by, has changed since they began.
    ChangedMeanwhile,
}

/// A sign-in that was refused although it is known whose account it was for.
#[derive(Debug, Clone)]
pub struct Refused {
    pub account_id: Uuid,
    /// The tenant that they wanted, if they said.
    pub tenant_id: Option<Uuid>,
    /// The way by which they came: `password`, the name of a provider, `trusted-issuer`.
    pub by: String,
    pub reason: Reason,
}

/// What hears of refusals where nothing is known of tenants and their trails.
pub type Hears = Box<dyn Fn(&Origin, Refused) + Send + Sync>;
