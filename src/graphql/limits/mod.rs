//! The document guard: what a client may ask for, judged before anything walks the document.
//!
//! The executor unfolds fragments without memory, so a kilobyte of nested spreads would keep a processor busy for
//! hours. Here a document is scanned once (`scan`), parsed once, measured with every fragment counted once
//! (`measure`), checked against the schema (`check`) and kept in a bounded cache. What depends on variables (their
//! coercion, page sizes, the cost) is computed per request from a plan that was folded when the document was
//! first seen.
//!
//! Everything refused here is a *request error*: there is no `data`, nothing has run.

mod check;
mod coerce;
mod cost;
mod measure;
mod roots;
mod scan;
mod shape;

use std::fmt;
use std::sync::Arc;

use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextValidation};
use async_graphql::futures_util::FutureExt;
use async_graphql::parser::types::{DocumentOperations, ExecutableDocument, OperationType, Selection};
use async_graphql::{
    CacheControl, ErrorExtensionValues, ObjectType, Pos, Positioned, Request, SchemaBuilder, ServerError,
    SubscriptionType, ValidationMode, ValidationResult, Value, Variables,
};
use async_graphql_value::Value as Literal;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::eager::Distinct;
use super::mutation::Alone;
use super::reading::Joining;
use crate::db::asked::Asked;
use check::Operation;
use shape::Shape;
pub use shape::{IdKinds, Judge, Judges};

/// The document is not GraphQL.
pub const PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
/// The document breaks a rule of GraphQL or does not fit the schema.
pub const VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";
/// A variable or an argument has a value that it cannot have.
pub const BAD_USER_INPUT: &str = "BAD_USER_INPUT";
/// `operationName` does not choose one operation of the document.
pub const OPERATION_RESOLUTION_FAILURE: &str = "OPERATION_RESOLUTION_FAILURE";
/// The document is within the grammar but larger than one request may be.
pub const TOO_COMPLEX: &str = "TOO_COMPLEX";
/// The server does not describe its schema.
pub const INTROSPECTION_DISABLED: &str = "INTROSPECTION_DISABLED";

/// What one request may ask for. Every number is a maximum unless it says otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of query text.
    pub query_bytes: usize,
    /// Tokens of query text: names, numbers, strings and punctuators.
    pub tokens: usize,
    /// Brackets of all kinds inside one another; bounds the parser's stack.
    pub brackets: usize,
    /// Fields below one another, fragments unfolded; introspection is bounded apart.
    pub depth: usize,
    /// Selection sets below one another, fragments and inline fragments included. The executor's own bound is 32.
    pub nesting: usize,
    /// Fields of an operation with all fragments unfolded; introspection is bounded apart.
    pub fields: usize,
    /// The estimated cost of an operation: see [`Prepared::cost`].
    pub cost: u64,
    /// Aliased fields of an operation with all fragments unfolded.
    pub aliases: usize,
    /// Root fields of an operation.
    pub root_fields: usize,
    /// The same root field in one operation, under whatever aliases.
    pub same_root_field: usize,
    /// Directives of an operation with all fragments unfolded.
    pub directives: usize,
    /// Fragment definitions of a document.
    pub fragments: usize,
    /// Operations of a document.
    pub operations: usize,
    /// Variables of an operation.
    pub variables: usize,
    /// `first` and `last` of a connection.
    pub page_size: u64,
    /// The page size that a connection has without `first` and `last` (a default, not a maximum).
    pub default_page_size: u64,
    /// Items of one list among the arguments.
    pub list_items: usize,
    /// Lists and objects within one another in one argument or variable: whoever reads them, down to the last resolver,
    /// goes as deep.
    pub input_depth: usize,
    /// Introspection fields of an operation: the reference client's full query has 230.
    pub introspection_fields: usize,
    /// Introspection fields below one another: the reference client's full query has 15.
    pub introspection_depth: usize,
    /// Whether the schema may be asked about itself.
    pub introspection: bool,
    /// Bytes that the cache of documents may take, estimated.
    pub cache_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            query_bytes: 64 * 1024,
            tokens: 5_000,
            brackets: 64,
            depth: 16,
            nesting: 32,
            fields: 2_000,
            cost: 10_000,
            aliases: 50,
            root_fields: 30,
            same_root_field: 10,
            directives: 50,
            fragments: 100,
            operations: 10,
            variables: 100,
            page_size: 100,
            default_page_size: 25,
            list_items: 500,
            input_depth: 24,
            introspection_fields: 500,
            introspection_depth: 16,
            introspection: true,
            cache_bytes: 16 * 1024 * 1024,
        }
    }
}

/// Why a request was not run: errors for the client, each with `extensions.code`.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Never empty.
    pub errors: Vec<ServerError>,
}

impl Refusal {
    /// A refusal with one error.
    pub fn new(code: &'static str, message: impl Into<String>, at: Option<Pos>) -> Self {
        Self {
            errors: vec![error(code, message, at)],
        }
    }

    /// The code of the first error.
    pub fn code(&self) -> &str {
        match self
            .errors
            .first()
            .and_then(|error| error.extensions.as_ref()?.get("code"))
        {
            Some(async_graphql::Value::String(code)) => code,
            _ => VALIDATION_FAILED,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors.first() {
            Some(error) => write!(f, "{}: {}", self.code(), error.message),
            None => f.write_str(self.code()),
        }
    }
}

fn error(code: &'static str, message: impl Into<String>, at: Option<Pos>) -> ServerError {
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", code);
    let mut error = ServerError::new(message, at);
    error.extensions = Some(extensions);
    error
}

fn too_complex(what: &str, found: impl fmt::Display, limit: impl fmt::Display, at: Option<Pos>) -> Refusal {
    Refusal::new(
        TOO_COMPLEX,
        format!("The request has {found} {what}; the limit is {limit}."),
        at,
    )
}

/// Runs the schema's validation rules over a document, and nothing else; answers the errors.
pub type Validator = Box<dyn Fn(ExecutableDocument) -> Vec<ServerError> + Send + Sync>;

/// A [`Validator`] from a builder of the schema that will execute.
///
/// A document is validated once, when it is first seen: the executing schema is built with [`CheckedBefore`].
pub fn validator<Q, M, S>(builder: SchemaBuilder<Q, M, S>) -> Validator
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    let schema = builder
        .validation_mode(ValidationMode::Strict)
        .disable_suggestions()
        .extension(ValidateOnly)
        .finish();
    Box::new(move |document| {
        let mut request = Request::new("");
        request.set_parsed_query(document);
        // Validation never waits, and `ValidateOnly` ends the request before anything that could.
        match schema.execute(request).now_or_never() {
            Some(response) => response.errors,
            None => vec![error(
                VALIDATION_FAILED,
                "The document could not be validated.",
                None,
            )],
        }
    })
}

/// Spares requests of documents that passed the guard what the executor would check again. Any other is checked.
///
/// With an extension the executor resolves its own kinds of object for more than without. Few of ours are left to it: see
/// [`super::eager`].
pub struct CheckedBefore;

impl ExtensionFactory for CheckedBefore {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(CheckedBefore)
    }
}

#[async_graphql::async_trait::async_trait]
impl Extension for CheckedBefore {
    async fn validation(
        &self,
        ctx: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        // Only a prepared request carries this.
        if ctx.data_opt::<Arc<Asked>>().is_none() {
            return next.run(ctx).await;
        }
        Ok(ValidationResult {
            cache_control: CacheControl::default(),
            complexity: 0,
            depth: 0,
        })
    }
}

/// Ends every request after validation: without errors when the document is valid.
struct ValidateOnly;

impl ExtensionFactory for ValidateOnly {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(ValidateOnly)
    }
}

#[async_graphql::async_trait::async_trait]
impl Extension for ValidateOnly {
    async fn validation(
        &self,
        ctx: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        match next.run(ctx).await {
            Ok(_) => Err(Vec::new()),
            Err(errors) => Err(errors),
        }
    }
}

/// The guard and its cache of documents that passed it.
pub struct Documents {
    limits: Limits,
    shape: Shape,
    validator: Validator,
    cache: Cache<Box<str>, Arc<Checked>, ByBytes>,
}

/// A document that passed every rule that does not depend on variables.
struct Checked {
    operations: Vec<Operation>,
    bytes: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Box<str>, Arc<Checked>> for ByBytes {
    fn weight(&self, text: &Box<str>, document: &Arc<Checked>) -> u64 {
        text.len() as u64 + document.bytes
    }
}

impl Documents {
    /// A guard for the schema that `sdl` describes.
    ///
    /// # Panics
    /// When `sdl` does not parse: it comes from the schema itself, so that is a mistake in the program.
    pub fn new(limits: Limits, sdl: &str, validator: Validator) -> Self {
        let cache = Cache::with_weighter(1_000, limits.cache_bytes, ByBytes);
        Self {
            limits,
            shape: Shape::from_sdl(sdl),
            validator,
            cache,
        }
    }

    /// Refuses ids of the wrong kind, and what is no value of a scalar of ours, along with everything else that an input
    /// cannot be. Left to the executor, they would fail their fields when others have run: a mutation among several.
    pub fn with_own_inputs(mut self, kinds: IdKinds, judges: Judges) -> Self {
        self.shape.name_ids(kinds);
        self.shape.judge_scalars(judges);
        self
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Checks a request and makes it ready to run.
    ///
    /// `operation_name` may be left out (or empty) when the document has one operation.
    ///
    /// # Errors
    /// A [`Refusal`] with the reason, before anything ran.
    pub fn prepare(
        &self,
        query: &str,
        operation_name: Option<&str>,
        variables: Variables,
    ) -> Result<Prepared, Refusal> {
        let checked = match self.cache.get(query) {
            Some(checked) => checked,
            None => {
                let checked = Arc::new(self.check(query)?);
                self.cache.insert(query.into(), checked.clone());
                checked
            }
        };
        let index = checked.choose(operation_name)?;
        let operation = &checked.operations[index];
        let variables = coerce::variables(&self.shape, &self.limits, &operation.variables, variables)?;
        let cost = operation.cost.at(&variables, &self.limits)?;
        if cost > self.limits.cost {
            return Err(Refusal::new(
                TOO_COMPLEX,
                format!("The request costs {cost}; the limit is {}.", self.limits.cost),
                None,
            ));
        }
        let once = match &operation.repeated[..] {
            [] => None,
            roots => {
                let asked = roots.iter().filter(|root| root.is_included(&variables));
                Some(roots::merged(asked.map(|root| (&root.field, root.at)))?)
            }
        };
        Ok(Prepared {
            checked,
            index,
            variables,
            once,
            cost,
        })
    }

    fn check(&self, query: &str) -> Result<Checked, Refusal> {
        let text = scan::scan(query, &self.limits)?;
        let document =
            async_graphql::parser::parse_query(&text).map_err(|error| scan::parse_error(error, &text))?;
        measure::measure(&document, &self.limits)?;
        let document = check::rules(document, &self.shape, &self.limits)?;
        let mut errors = (self.validator)(document.clone());
        if !errors.is_empty() {
            for error in &mut errors {
                error
                    .extensions
                    .get_or_insert_default()
                    .set("code", VALIDATION_FAILED);
            }
            return Err(Refusal { errors });
        }
        let operations = check::operations(&document, &self.shape, &self.limits)?;
        Ok(Checked {
            bytes: operations.iter().map(|operation| operation.bytes).sum(),
            operations,
        })
    }
}

impl Checked {
    /// The index of the operation that `name` chooses.
    fn choose(&self, name: Option<&str>) -> Result<usize, Refusal> {
        match name.filter(|name| !name.is_empty()) {
            Some(name) => self
                .operations
                .iter()
                .position(|operation| operation.name.as_deref() == Some(name))
                .ok_or_else(|| {
                    Refusal::new(
                        OPERATION_RESOLUTION_FAILURE,
                        "The document has no operation of the name that operationName gives.",
                        None,
                    )
                }),
            None if self.operations.len() == 1 => Ok(0),
            None => Err(Refusal::new(
                OPERATION_RESOLUTION_FAILURE,
                "The document has several operations: operationName must choose one.",
                None,
            )),
        }
    }
}

/// The document, operation and variables of a request but for where it goes on from. Means something only as long as a
/// request of this likeness is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Likeness {
    document: usize,
    index: usize,
    variables: Box<str>,
}

/// A request that passed the guard.
pub struct Prepared {
    checked: Arc<Checked>,
    index: usize,
    variables: Variables,
    /// What a mutation asks for, each once, where any of it is there more than once.
    once: Option<Vec<Positioned<Selection>>>,
    cost: u64,
}

impl Prepared {
    fn operation(&self) -> &Operation {
        &self.checked.operations[self.index]
    }

    /// Whether this is a query, a mutation or a subscription.
    pub fn kind(&self) -> OperationType {
        self.operation().kind
    }

    /// The name of the operation, when it has one.
    pub fn operation_name(&self) -> Option<&str> {
        self.operation().name.as_deref()
    }

    /// The estimated cost: an object 1, a connection its page size times what an item costs, a list without
    /// pages ten times, a root field of a mutation 10.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The names of the root fields that are asked for, each as often as it is, skipped ones included.
    pub fn root_fields(&self) -> impl Iterator<Item = &str> {
        self.operation().root_fields.iter().map(|name| &**name)
    }

    /// The variables as they will be seen by the operation: defaults filled in, undeclared ones left out.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// The request for the executor: the chosen operation with the fragments it reaches, and its variables.
    pub fn request(&self) -> Request {
        let mut request = Request::new(String::new());
        let mut document = self.operation().document.clone();
        if let (Some(once), DocumentOperations::Single(operation)) = (&self.once, &mut document.operations) {
            operation.node.selection_set.node.items.clone_from(once);
        }
        request.set_parsed_query(document);
        if self.operation().distinct {
            request = request.data(Distinct);
        }
        if self.operation().alone {
            request = request.data(Alone);
        }
        if let Some(together) = &self.operation().together {
            request = request.data(Joining::new(together.clone(), self.cost));
        }
        request
            .data(self.operation().asked.clone())
            .variables(self.variables.clone())
    }

    /// From where a subscription goes on: the argument `after` of its field.
    pub fn after(&self) -> Option<&str> {
        let value = match &self.operation().after.as_ref()?.value {
            Literal::Variable(name) => match self.variables.get(name)? {
                Value::String(text) => text,
                _ => return None,
            },
            Literal::String(text) => text,
            _ => return None,
        };
        Some(value)
    }

    /// What two requests have in common that differ at most in where they go on from.
    pub fn likeness(&self) -> Likeness {
        let mut variables = self.variables.clone();
        if let Some(after) = &self.operation().after
            && let (Literal::Variable(name), true) = (&after.value, after.own_variable)
        {
            variables.remove(name);
        }
        Likeness {
            document: Arc::as_ptr(&self.checked) as usize,
            index: self.index,
            variables: serde_json::to_string(&variables)
                .expect("variables came as JSON")
                .into(),
        }
    }
}

#[cfg(test)]
mod tests;
