//! Pending sign-ins and second factors in the schema.

use async_graphql::Object;

use super::model::{PendingSignIn, SecondFactorMethod};
use crate::graphql::scalar::DateTime;

/// The second half of signing in: the first factor was right, and a second one is needed.
#[Object(name = "SecondFactorNeeded")]
impl PendingSignIn {
    /// Pass it to `verifySecondFactor`, or to `beginTotpEnrolment` and `confirmTotpEnrolment`. It is good for five wrong
    /// codes, and for nothing else.
    async fn token(&self) -> &str {
        &self.token
    }

    /// When the token ends: five minutes after it was given.
    async fn expires_at(&self) -> DateTime {
        self.expires_at.into()
    }

    /// What the sign-in can be completed with.
    async fn methods(&self) -> &[SecondFactorMethod] {
        self.methods
    }
}
