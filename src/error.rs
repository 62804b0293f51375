//! What can go wrong, said once: [`Error`] for faults, [`Problem`] for what a person can mend.
//!
//! `Error` deliberately has no `Display`: async-graphql turns every displayable error into an answer to the client, so a
//! database error that slipped through a resolver would be shown. Without `Display` such code does not compile.

use std::sync::Arc;

/// The result of everything that can fail on behalf of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed request, or a part of one.
#[derive(Debug, Clone)]
pub enum Error {
    /// No valid access token came with the request.
    Unauthenticated(&'static str),
    /// The viewer lacks the named permission.
    Forbidden(&'static str),
    /// What only people may do who have signed in, and no program with an API key.
    InPerson,
    /// The record does not exist, or the viewer may not see it: the two look the same.
    NotFound(&'static str),
    /// An argument that no correct client sends: a forged cursor, a page size out of range.
    BadInput(String),
    /// What the user can mend. A mutation answers it as `userErrors`.
    Invalid(Vec<Problem>),
    /// Too many requests; try again after so many seconds.
    RateLimited(u32),
    /// The database cannot be reached at the moment.
    Unavailable,
    /// A fault of ours. The cause is logged and never shown.
    Internal(Arc<dyn std::fmt::Debug + Send + Sync>),
}

impl Error {
    /// A fault of ours, with what is known of its cause for the log.
    pub fn internal(cause: impl std::fmt::Debug + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    /// A single problem with one input field.
    pub fn invalid(field: &str, code: ProblemCode, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem::new(field, code, message)])
    }

    /// Whether it is for a reason of ours, and says nothing about what was asked.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Unavailable | Self::Internal(_))
    }

    /// The stable code that clients find in `extensions.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::Forbidden(_) | Self::InPerson => "FORBIDDEN",
            Self::NotFound(_) => "NOT_FOUND",
            Self::BadInput(_) | Self::Invalid(_) => "BAD_USER_INPUT",
            Self::RateLimited(_) => "RATE_LIMITED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal(_) => "INTERNAL",
        }
    }

    /// The sentence that clients find in `message`.
    pub fn message(&self) -> String {
        match self {
            Self::Unauthenticated(why) => (*why).to_owned(),
            Self::Forbidden(permission) => format!("You need the permission {permission} for this."),
            Self::InPerson => {
                "Neither an API key nor a token of another issuer can do this: sign in.".to_owned()
            }
            Self::NotFound(kind) => format!("There is no such {kind}."),
            Self::BadInput(message) => message.clone(),
            Self::Invalid(problems) => problems
                .iter()
                .map(|p| p.message.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            Self::RateLimited(seconds) => format!("Too many requests. Try again in {seconds} seconds."),
            Self::Unavailable => {
                "The database cannot be reached at the moment. Try again shortly.".to_owned()
            }
            Self::Internal(_) => "Something went wrong on our side.".to_owned(),
        }
    }
}

/// Why an input was refused; clients switch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemCode {
    Required,
    Invalid,
    TooLong,
    OutOfRange,
    Duplicate,
    NotFound,
    Conflict,
    InUse,
    NotAllowed,
    IdempotencyKeyReused,
}

/// One thing that a person can mend, with the path of the input field it is about.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Path from the mutation's arguments, for example `["input", "amount"]`; empty when no single field is at fault.
    pub field: Vec<String>,
    pub code: ProblemCode,
    pub message: String,
    /// For [`ProblemCode::Conflict`]: the fields that differ, with their current values as JSON text.
    pub conflicts: Vec<(String, String)>,
}

impl Problem {
    /// A problem with `input.<field>`; dots in `field` lead into nested inputs.
    pub fn new(field: &str, code: ProblemCode, message: impl Into<String>) -> Self {
        let path = std::iter::once("input").chain(field.split('.').filter(|part| !part.is_empty()));
        Self {
            field: path.map(str::to_owned).collect(),
            code,
            message: message.into(),
            conflicts: Vec::new(),
        }
    }
}

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind as Kind, Error as Diesel};
        match &error {
            Diesel::NotFound => Self::NotFound("record"),
            Diesel::DatabaseError(Kind::ClosedConnection | Kind::UnableToSendCommand, _)
            | Diesel::BrokenTransactionManager => Self::Unavailable,
            Diesel::DatabaseError(kind, info) => {
                let named = (info.table_name().zip(info.constraint_name()))
                    .and_then(|(table, name)| constraint_problem(*kind, table, name, info.message()));
                match named.or_else(|| out_of_reach(info.message())) {
                    Some(problem) => Self::Invalid(vec![problem]),
                    // PostgreSQL says these while it stops or starts; the driver has no kind of its own for them.
                    None if says_unavailable(info.message()) => Self::Unavailable,
                    None => Self::internal(DatabaseFault {
                        kind: format!("{kind:?}"),
                        message: without_values(info.message()),
                        table: info.table_name().map(str::to_owned),
                        constraint: info.constraint_name().map(str::to_owned),
                    }),
                }
            }
            other => Self::internal(DatabaseFault {
                kind: format!("{other:?}")
                    .split(|letter: char| !letter.is_alphanumeric())
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
                message: without_values(&other.to_string()),
                table: None,
                constraint: None,
            }),
        }
    }
}

impl From<deadpool::managed::PoolError<diesel_async::pooled_connection::PoolError>> for Error {
    fn from(error: deadpool::managed::PoolError<diesel_async::pooled_connection::PoolError>) -> Self {
        tracing::warn!(?error, "no database connection");
        Self::Unavailable
    }
}

/// What the log is told of a failed statement: what PostgreSQL says, without the values that it quotes.
#[derive(Debug)]
#[expect(dead_code, reason = "it is there to be printed")]
struct DatabaseFault {
    kind: String,
    message: String,
    table: Option<String>,
    constraint: Option<String>,
}

/// Messages end with the value that they are about, or begin with it: `invalid input syntax for type uuid: "…"`,
/// `value "…" is out of range for type integer`.
fn without_values(message: &str) -> String {
    let message = message.split(": ").next().unwrap_or_default();
    match message
        .strip_prefix("value \"")
        .and_then(|rest| rest.rsplit_once('"'))
    {
        Some((_, rest)) => format!("value \"…\"{rest}"),
        None => message.to_owned(),
    }
}

fn says_unavailable(message: &str) -> bool {
    [
        "shutting down",
        "starting up",
        "terminating connection",
        "connection closed",
        "in recovery mode",
        // Whoever waited too long, or waited for each other, may try again.
        "lock timeout",
        "statement timeout",
        "deadlock detected",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

/// What PostgreSQL says when a record is written so that its writer would not see it any more.
fn out_of_reach(message: &str) -> Option<Problem> {
    let table = message
        .split_once("row-level security policy \"reach\" for table \"")?
        .1;
    let (field, message) = if table.starts_with("interactions") {
        (
            "",
            "You do not reach interactions like this one: it would be lost to you.",
        )
    } else {
        ("ownerId", "Your rights do not reach the records of this owner.")
    };
    Some(Problem::new(field, ProblemCode::NotAllowed, message))
}

/// Constraint names follow one form, `<table>_<column>_{key,check,fkey}`, so that each maps to its input field.
fn constraint_problem(
    kind: diesel::result::DatabaseErrorKind,
    table: &str,
    constraint: &str,
    message: &str,
) -> Option<Problem> {
    use diesel::result::DatabaseErrorKind as Kind;
    let rest = constraint.strip_prefix(table)?.strip_prefix('_')?;
    let field = match rest {
        // Nobody types the key of a record; what collides is the key of a kept answer, when the same request comes twice.
        "pkey" => String::new(),
        _ => camel_case(rest.rsplit_once('_')?.0),
    };
    let (code, message) = match kind {
        // Found only here when whoever deletes does not see what refers to the record.
        Kind::ForeignKeyViolation if message.starts_with("update or delete") => {
            (ProblemCode::InUse, "Other records still refer to it.".to_owned())
        }
        Kind::UniqueViolation => (
            ProblemCode::Duplicate,
            format!("Another record already has this {field}."),
        ),
        Kind::ForeignKeyViolation => (
            ProblemCode::NotFound,
            format!("The record given as {field} does not exist."),
        ),
        Kind::CheckViolation => (
            ProblemCode::Invalid,
            format!("The value of {field} is not allowed."),
        ),
        _ => return None,
    };
    Some(Problem::new(&field, code, message))
}

/// `first_name` as GraphQL spells it: `firstName`.
pub fn camel_case(snake: &str) -> String {
    let mut out = String::with_capacity(snake.len());
    let mut upper = false;
    for c in snake.chars() {
        if c == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_was_given_is_not_told() {
        for (message, told) in [
            (
                "invalid input syntax for type uuid: \"Ada\"",
                "invalid input syntax for type uuid",
            ),
            (
                "value \"12\" is out of range for type integer",
                "value \"…\" is out of range for type integer",
            ),
            (
                "relation \"deals\" does not exist",
                "relation \"deals\" does not exist",
            ),
        ] {
            assert_eq!(without_values(message), told);
        }
    }
}
