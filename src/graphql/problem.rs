//! Errors as clients see them: `errors` for faults, `userErrors` for what a person can mend.

use async_graphql::{Enum, ErrorExtensions, SimpleObject};

use crate::error::{Error, Problem, ProblemCode};

impl From<Error> for async_graphql::Error {
    fn from(error: Error) -> Self {
        if let Error::Internal(cause) = &error {
            tracing::error!(?cause, "a request failed");
        }
        async_graphql::Error::new(error.message()).extend_with(|_, extensions| {
            extensions.set("code", error.code());
            match &error {
                Error::Forbidden(permission) => extensions.set("permission", *permission),
                Error::RateLimited(seconds) => extensions.set("retryAfter", i64::from(*seconds)),
                _ => {}
            }
        })
    }
}

/// Why an input was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "ProblemCode")]
pub enum UserErrorCode {
    /// The field must be given and must not be empty.
    Required,
    /// The value does not have the form that is needed.
    Invalid,
    /// The text is longer than allowed.
    TooLong,
    /// The number or date is outside the allowed range.
    OutOfRange,
    /// Another record has this value already.
    Duplicate,
    /// The record that is referred to does not exist.
    NotFound,
    /// The record has changed since the version that was expected. See `conflicts`.
    Conflict,
    /// Other records depend on this one.
    InUse,
    /// The rules of the domain forbid it, for example moving a deal to a stage of another pipeline.
    NotAllowed,
    /// The idempotency key was used before, for another input.
    IdempotencyKeyReused,
}

/// Something in the input that a person can mend. When there is any, nothing has been changed.
#[derive(Debug, Clone, SimpleObject)]
pub struct UserError {
    /// Path of the input field, for example `["input", "amount"]`. Empty when no single field is at fault.
    field: Vec<String>,
    /// The reason, for programs.
    code: UserErrorCode,
    /// The reason, for people.
    message: String,
    /// For `CONFLICT`: the fields that differ from what you sent, with their current values. Empty for who may not read the
    /// record.
    conflicts: Vec<FieldConflict>,
}

/// A field whose current value differs from the one that was sent.
#[derive(Debug, Clone, SimpleObject)]
pub struct FieldConflict {
    /// The field's name in the input, for example `nextStep`.
    field: String,
    /// Its current value, as JSON text.
    current_value: String,
}

impl From<Problem> for UserError {
    fn from(problem: Problem) -> Self {
        let conflict = |(field, current_value)| FieldConflict { field, current_value };
        Self {
            field: problem.field,
            code: problem.code.into(),
            message: problem.message,
            conflicts: problem.conflicts.into_iter().map(conflict).collect(),
        }
    }
}
