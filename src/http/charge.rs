//! What a request is charged for: its address, its user and tenant by what it costs, and the policies of its root fields.

use async_graphql::parser::types::OperationType;
use async_graphql::{ServerError, Value};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::answer::{self, Cost, RATE_LIMITED};
use super::{Backend, Http};
use crate::auth::throttle::{Balance, Charge, Limit, Refused};
use crate::auth::{Origin, Policy};
use crate::error::Error;
use crate::graphql::limits::Prepared;

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The policy that a root field counts under.
fn policy_of(kind: OperationType, field: &str) -> Option<Policy> {
    Some(match (kind, field) {
        (OperationType::Mutation, "createCompany" | "createContact") => Policy::CreateClient,
        (OperationType::Mutation, "createInteraction") => Policy::RecordCommunication,
        (OperationType::Query, "companies" | "contacts") => Policy::ListClients,
        (OperationType::Query, "interactions" | "interaction") => Policy::ReadCommunications,
        _ => return None,
    })
}

impl<B: Backend> Http<B> {
    /// Refuses a client that asks too often, before anything of its request is read.
    ///
    /// # Errors
    /// [`Refused`], with the time to wait.
    pub(super) fn admit(&self, origin: &Origin) -> Result<(), Refused> {
        match self.request_of(origin) {
            Some(charge) => self.backend.limiter().take_here(&charge).map(drop),
            None => Ok(()),
        }
    }

    fn request_of(&self, origin: &Origin) -> Option<Charge> {
        let network = origin.network()?;
        self.backend.limiter().charge(Policy::Requests, &network, 1)
    }

    /// Charges for an operation, all or nothing; answers its cost with what is left.
    ///
    /// # Errors
    /// [`Refused`], with the time to wait.
    pub(super) async fn charge(
        &self,
        viewer: Option<&B::Viewer>,
        origin: &Origin,
        prepared: &Prepared,
    ) -> Result<Cost, Refused> {
        let limiter = self.backend.limiter();
        let cost = Cost::of(prepared, self.backend.documents());
        let points = u32::try_from(cost.requested).unwrap_or(u32::MAX);
        let mut charges = Vec::with_capacity(4);
        // Who has signed in counts for themselves; of the others their address is all that is known.
        match viewer.map(|viewer| self.backend.identity(viewer)) {
            Some((tenant, user)) => {
                let user = format!("{tenant}/{user}");
                charges.extend(limiter.charge(Policy::UserCost, &user, points));
                charges.extend(limiter.charge(Policy::TenantCost, &tenant.to_string(), points));
                let kind = prepared.kind();
                let mut counted = prepared
                    .root_fields()
                    .filter_map(|field| policy_of(kind, field))
                    .collect::<Vec<_>>();
                counted.sort_unstable_by_key(|policy| *policy as usize);
                for same in counted.chunk_by(|one, other| one == other) {
                    let times = u32::try_from(same.len()).unwrap_or(u32::MAX);
                    charges.extend(limiter.charge(same[0], &user, times));
                }
            }
            None => {
                let network = origin.network();
                charges.extend(network.and_then(|it| limiter.charge(Policy::UserCost, &it, points)));
            }
        }
        // Counted here already; once more where all instances count together.
        let request = limiter.is_shared().then(|| self.request_of(origin)).flatten();
        charges.extend(request);
        let balances = limiter.take_all(&charges).await.inspect_err(|refused| {
            if let (Policy::Requests, Some(request)) = (refused.policy, &request) {
                limiter.refuse_here(request, refused);
            }
        })?;
        let balance = balances
            .into_iter()
            .find(|balance| balance.policy == Policy::UserCost);
        Ok(Cost {
            available: balance,
            ..cost
        })
    }
}

/// The error of a refusal.
pub(super) fn error(refused: &Refused) -> ServerError {
    let seconds = refused.retry_after();
    let mut error = answer::error(RATE_LIMITED, Error::RateLimited(seconds).message());
    let extensions = error.extensions.get_or_insert_default();
    extensions.set("retryAfter", i64::from(seconds));
    extensions.set("policy", refused.policy.name());
    error
}

/// How long to wait, when a field was refused for being asked too often.
pub(super) fn retry_after(errors: &[ServerError]) -> Option<u32> {
    let seconds = |error: &ServerError| match error.extensions.as_ref()?.get("retryAfter")? {
        Value::Number(seconds) => u32::try_from(seconds.as_u64()?).ok(),
        _ => None,
    };
    errors.iter().filter_map(seconds).max()
}

/// Tells what is left, in the headers that the IETF drafts for it (`draft-ietf-httpapi-ratelimit-headers`).
pub(super) fn tell(headers: &mut HeaderMap, balance: &Balance) {
    let left = balance.left;
    let full_in = (u64::from(balance.limit.count - left.min(balance.limit.count))
        * balance.limit.per.as_secs())
    .div_ceil(u64::from(balance.limit.count));
    describe(headers, balance.policy, balance.limit, left, full_in);
}

/// Tells why nothing is left, and for how long.
pub(super) fn tell_refused(headers: &mut HeaderMap, refused: &Refused) {
    let seconds = refused.retry_after();
    describe(headers, refused.policy, refused.limit, 0, u64::from(seconds));
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
}

fn describe(headers: &mut HeaderMap, policy: Policy, limit: Limit, left: u32, seconds: u64) {
    let name = policy.name();
    let quota = format!("\"{name}\";q={};w={}", limit.count, limit.per.as_secs());
    let state = format!("\"{name}\";r={left};t={seconds}");
    for (header, value) in [(&RATE_LIMIT_POLICY, quota), (&RATE_LIMIT, state)] {
        let value = HeaderValue::try_from(value).expect("names and numbers are a header value");
        headers.insert(header, value);
    }
}
