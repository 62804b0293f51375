//! The one form of every mutation: a unit of work, its position, and errors that a person can mend.

use async_graphql::{Context, SimpleObject};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::problem::UserError;
use super::{ContextExt, Session, detail};
use crate::auth::{Permission, Viewer};
use crate::db::schema::idempotency_keys;
use crate::db::session::Transaction;
use crate::error::{Error, Problem, ProblemCode, Result};
use crate::events::work::Answer;
use crate::events::{Position, Work};

/// Characters of an idempotency key at most.
pub const MAX_KEY: usize = 200;

/// What every mutation answers besides the record.
#[derive(Debug, SimpleObject)]
pub struct Outcome {
    /// The position of this change in the tenant's history: pass it as `after` to a subscription to get all that came
    /// later. Null when nothing was changed because of `userErrors`.
    position: Option<String>,
    /// What has to be mended in the input. When there is any, nothing has been changed.
    user_errors: Vec<UserError>,
}

impl Outcome {
    /// The outcome of something that did not change the tenant's data.
    ///
    /// # Errors
    /// Passes on what is not a person's to mend.
    pub fn of<T>(result: Result<T>) -> Result<(Option<T>, Self)> {
        match result {
            Ok(done) => Ok((
                Some(done),
                Self {
                    position: None,
                    user_errors: Vec::new(),
                },
            )),
            Err(Error::Invalid(problems)) => {
                let user_errors = problems.into_iter().map(UserError::from).collect();
                Ok((
                    None,
                    Self {
                        position: None,
                        user_errors,
                    },
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// The same outcome, at a position.
    pub fn with_position(self, position: Option<Position>) -> Self {
        Self {
            position: position.map(|position| position.to_string()),
            ..self
        }
    }

    fn at(position: Position) -> Self {
        Self {
            position: Some(position.to_string()),
            user_errors: Vec::new(),
        }
    }
}

/// Input fields that are not compared: a fast hash of a password, or of a tax id, would give it away to who gets hold of
/// the table. A key may come with the input once, and with the request another time.
const NOT_COMPARED: [&str; 7] = [
    "idempotencyKey",
    "password",
    "currentPassword",
    "newPassword",
    "token",
    "taxId",
    "bankAccount",
];

fn compared(mut input: serde_json::Value) -> serde_json::Value {
    if let Some(fields) = input.as_object_mut() {
        fields.retain(|name, _| !NOT_COMPARED.contains(&name.as_str()));
    }
    input
}

/// Data of a request: it asks for one mutation, whatever that answers.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

/// A name of an answer as part of a key, which has to fit into an index.
fn short(name: &str) -> String {
    match name.len() {
        0..=MAX_KEY => name.to_owned(),
        _ => URL_SAFE_NO_PAD.encode(Sha256::digest(name)),
    }
}

/// A key under which this very request is done once.
struct Once {
    key: String,
    operation: &'static str,
    input_hash: Vec<u8>,
    actor_id: Uuid,
}

/// Changes the tenant's data: runs `work`, appends its events and commits, all in one transaction.
///
/// With an idempotency key, from the input or from the request's header, a retry is answered what was answered first. The work
/// of a retry may be done as far as the commit, and be undone.
///
/// # Errors
/// [`Error::Invalid`] becomes `userErrors`; everything else fails the field.
pub async fn mutate<T>(
    ctx: &Context<'_>,
    operation: &'static str,
    idempotency_key: Option<String>,
    work: impl AsyncFnOnce(&mut Work) -> Result<T>,
) -> Result<(Option<T>, Outcome)>
where
    T: Serialize + DeserializeOwned,
{
    // Boxed: the executor makes room for the largest of all mutations whenever it executes any.
    let attempted = Box::pin(attempt(ctx, operation, idempotency_key, Recall::After, work)).await;
    outcome(ctx, operation, attempted)
}

/// As [`mutate`], for work with effects outside of its transaction, such as a token that is no longer believed: it is not
/// attempted when it has been done before.
///
/// # Errors
/// As [`mutate`].
pub async fn mutate_unless_done<T>(
    ctx: &Context<'_>,
    operation: &'static str,
    idempotency_key: Option<String>,
    work: impl AsyncFnOnce(&mut Work) -> Result<T>,
) -> Result<(Option<T>, Outcome)>
where
    T: Serialize + DeserializeOwned,
{
    let attempted = Box::pin(attempt(ctx, operation, idempotency_key, Recall::Before, work)).await;
    outcome(ctx, operation, attempted)
}

fn outcome<T>(
    ctx: &Context<'_>,
    operation: &str,
    attempted: Result<(T, Position)>,
) -> Result<(Option<T>, Outcome)> {
    match attempted {
        Ok((done, position)) => Ok((Some(done), Outcome::at(position))),
        Err(Error::Invalid(mut problems)) => {
            for problem in &mut problems {
                show_conflicts(ctx.viewer().ok(), operation, &mut problem.conflicts);
            }
            Outcome::of(Err(Error::Invalid(problems)))
        }
        Err(error) => Outcome::of(Err(error)),
    }
}

/// The kind of record that an operation changes when it is of the expected version, and who may read that.
fn changed(operation: &str) -> Option<(&'static str, Permission)> {
    Some(match operation {
        "updateCompany" => ("company", Permission::CompaniesRead),
        "updateContact" => ("contact", Permission::ContactsRead),
        "updateDeal" | "moveDeal" => ("deal", Permission::DealsRead),
        "updateInteraction" | "completeInteraction" => ("interaction", Permission::InteractionsRead),
        "updatePipeline" => ("pipeline", Permission::PipelinesRead),
        "updatePipelineStage" => ("stage", Permission::PipelinesRead),
        "updateTenant" => ("tenant", Permission::TenantRead),
        "updateUser" => ("user", Permission::UsersRead),
        "updateTeam" => ("team", Permission::UsersRead),
        "updateRole" => ("role", Permission::UsersRead),
        _ => return None,
    })
}

/// A conflict tells the current values of fields, to who may read the record. Of contact details that the viewer may not see
/// it does not even tell that they differ: who may write them blindly could guess them one by one.
fn show_conflicts(viewer: Option<&Viewer>, operation: &str, conflicts: &mut Vec<(String, String)>) {
    let permits = |permission| viewer.is_some_and(|viewer| viewer.rights.permits(permission));
    let Some((entity, _)) = changed(operation).filter(|(_, read)| permits(*read)) else {
        conflicts.clear();
        return;
    };
    conflicts.retain(|(field, _)| !detail::is_hidden(viewer, entity, field));
}

/// When it is asked whether this was done before.
enum Recall {
    /// Before the work begins.
    Before,
    /// When the work is refused, or turns out to have been done: nothing is asked in vain.
    After,
}

async fn attempt<T>(
    ctx: &Context<'_>,
    operation: &'static str,
    idempotency_key: Option<String>,
    recall: Recall,
    work: impl AsyncFnOnce(&mut Work) -> Result<T>,
) -> Result<(T, Position)>
where
    T: Serialize + DeserializeOwned,
{
    let session = ctx.session();
    let once = Once::new(ctx, operation, idempotency_key)?;
    let mut unit = session.work().await?;
    let Some(once) = once else {
        let done = work(&mut unit).await?;
        return Ok((done, unit.finish().await?));
    };
    if let Recall::Before = recall
        && let Some(kept) = once.recall::<T>(&unit).await?
    {
        return Ok(kept);
    }
    let done = match work(&mut unit).await {
        Ok(done) => done,
        Err(error) if error.is_ours() => return Err(error),
        // The same request may have been done before, and ours is refused for that very reason: the version is stale,
        // the name is taken, the record is gone.
        Err(refused) => {
            drop(unit);
            return recall_now(session, &once).await?.ok_or(refused);
        }
    };
    match unit.finish_and_keep(Some(once.answer(&done)?)).await {
        Ok(position) => Ok((done, position)),
        Err(Error::Invalid(problems))
            if problems
                .iter()
                .any(|problem| problem.code == ProblemCode::Duplicate) =>
        {
            // It has been done before: what we did is void, and we answer what was answered then.
            recall_now(session, &once).await?.ok_or(Error::Unavailable)
        }
        Err(error) => Err(error),
    }
}

async fn recall_now<T: DeserializeOwned>(session: &Session, once: &Once) -> Result<Option<(T, Position)>> {
    let unit = session.work().await?;
    once.recall(&unit).await
}

impl Once {
    fn new(ctx: &Context<'_>, operation: &'static str, key: Option<String>) -> Result<Option<Self>> {
        let session = ctx.session();
        // A key of the request is shared by all its mutations: of several, each is known by the name of its answer too.
        let field = ctx.field();
        let part = match ctx.data_opt::<Alone>() {
            Some(Alone) => String::new(),
            None => short(field.alias().unwrap_or(field.name())),
        };
        let of_request = session.idempotency_key().map(|key| (key.to_owned(), part));
        let Some((mut key, part)) = key.map(|key| (key, String::new())).or(of_request) else {
            return Ok(None);
        };
        if key.is_empty() || key.chars().count() > MAX_KEY || key.chars().any(char::is_control) {
            let message = format!(
                "An idempotency key has between 1 and {MAX_KEY} characters, no control characters among them."
            );
            return Err(Error::invalid("idempotencyKey", ProblemCode::Invalid, message));
        }
        if !part.is_empty() {
            key = format!("{key}\n{part}");
        }
        let arguments = ctx
            .field()
            .arguments()
            .map_err(|_| Error::BadInput("The input cannot be read.".to_owned()))?;
        let input: Vec<_> = arguments
            .into_iter()
            .map(|(name, value)| (name, value.into_json().ok().map(compared)))
            .collect();
        let input = serde_json::to_vec(&input).map_err(Error::internal)?;
        let input_hash = Sha256::digest(&input).to_vec();
        Ok(Some(Self {
            key,
            operation,
            input_hash,
            actor_id: session.viewer()?.user_id,
        }))
    }

    /// What was answered before under this key.
    async fn recall<T: DeserializeOwned>(&self, tx: &Transaction) -> Result<Option<(T, Position)>> {
        use idempotency_keys::dsl;
        let kept: Option<(String, Vec<u8>, serde_json::Value, i64, i64)> = idempotency_keys::table
            .filter(dsl::actor_id.eq(self.actor_id).and(dsl::key.eq(&self.key)))
            .select((
                dsl::operation,
                dsl::input_hash,
                dsl::answer,
                dsl::epoch,
                dsl::position,
            ))
            .first(&mut tx.conn())
            .await
            .optional()?;
        let Some((operation, input_hash, answer, epoch, position)) = kept else {
            return Ok(None);
        };
        if operation != self.operation || input_hash != self.input_hash {
            let message = "This idempotency key was used before, for another request.";
            let problem = Problem::new("idempotencyKey", ProblemCode::IdempotencyKeyReused, message);
            return Err(Error::Invalid(vec![problem]));
        }
        let done = serde_json::from_value(answer).map_err(Error::internal)?;
        Ok(Some((done, Position { epoch, position })))
    }

    /// The answer to be kept.
    fn answer<T: Serialize>(&self, done: &T) -> Result<Answer<'_>> {
        Ok(Answer {
            actor_id: self.actor_id,
            key: &self.key,
            operation: self.operation,
            input_hash: &self.input_hash,
            answer: serde_json::to_value(done).map_err(Error::internal)?,
        })
    }
}
