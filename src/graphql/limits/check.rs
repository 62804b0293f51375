//! Rules of GraphQL that the executor's own validation leaves out, and the operations of a document made ready.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_graphql::parser::types::{
    BaseType, Directive, DocumentOperations, ExecutableDocument, Field, InlineFragment, OperationDefinition,
    OperationType, Selection, SelectionSet, Type,
};
use async_graphql::{Name, Pos, Positioned};
use async_graphql_value::Value;

use super::coerce::{Declared, Path};
use super::cost::{self, Cost};
use super::roots::{After, Kept, Root, after, answered, is_alone, is_repeated, merged, roots, size};
use super::shape::{InputType, Scalar, Shape};
use super::{BAD_USER_INPUT, INTROSPECTION_DISABLED, Limits, Refusal, VALIDATION_FAILED, too_complex};
use crate::db::asked::Asked;
use crate::db::id::read_id_of;
use crate::graphql::reading::Together;

/// Bytes that a node of a parsed document takes, estimated for the cache.
const NODE_BYTES: u64 = 300;

/// An operation of a document with all that was found out about it.
pub(super) struct Operation {
    pub(super) name: Option<Box<str>>,
    pub(super) kind: OperationType,
    /// The operation alone, with the fragments that it reaches.
    pub(super) document: ExecutableDocument,
    pub(super) variables: Vec<Declared>,
    pub(super) cost: Cost,
    pub(super) bytes: u64,
    /// The names of its root fields: each as often as it is answered.
    pub(super) root_fields: Vec<Box<str>>,
    /// Where a subscription says from which position it goes on.
    pub(super) after: Option<After>,
    /// Whether no object of the answer is asked for the same field twice.
    pub(super) distinct: bool,
    /// Whether it is a single mutation.
    pub(super) alone: bool,
    /// What a mutation asks for, when any of it is there more than once.
    pub(super) repeated: Vec<Kept>,
    /// What its fields can show of rows.
    pub(super) asked: Arc<Asked>,
    /// For a query whose cost is known: whoever else asks it.
    pub(super) together: Option<Arc<Together>>,
}

pub(super) fn invalid(message: impl Into<String>, at: Pos) -> Refusal {
    Refusal::new(VALIDATION_FAILED, message, Some(at))
}

/// Rules that look at one selection at a time.
///
/// `__typename` with directives becomes an inline fragment around it: the executor does not look at the directives of
/// `__typename`, and would call a variable unused that only they use.
pub(super) fn rules(
    mut document: ExecutableDocument,
    shape: &Shape,
    limits: &Limits,
) -> Result<ExecutableDocument, Refusal> {
    if let Some(fragment) = document.fragments.get("on") {
        return Err(invalid("A fragment cannot be named \"on\".", fragment.pos));
    }
    let operations: Vec<&mut Positioned<OperationDefinition>> = match &mut document.operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    };
    for operation in operations {
        if shape.root(operation.node.ty).is_none() {
            return Err(invalid(
                format!("The schema has no {}s.", operation.node.ty),
                operation.pos,
            ));
        }
        selections(&mut operation.node.selection_set.node, limits)?;
    }
    for fragment in document.fragments.values_mut() {
        selections(&mut fragment.node.selection_set.node, limits)?;
    }
    Ok(document)
}

fn selections(set: &mut SelectionSet, limits: &Limits) -> Result<(), Refusal> {
    for selection in &mut set.items {
        match &mut selection.node {
            Selection::Field(field) => {
                let at = field.pos;
                let field = &mut field.node;
                match field.name.node.as_str() {
                    "__typename" => {
                        if !field.arguments.is_empty() || !field.selection_set.node.items.is_empty() {
                            return Err(invalid(
                                "\"__typename\" takes no arguments and has no fields.",
                                at,
                            ));
                        }
                        if !field.directives.is_empty() {
                            let directives = std::mem::take(&mut field.directives);
                            wrap(selection, directives);
                            continue;
                        }
                    }
                    "__schema" | "__type" if !limits.introspection => {
                        return Err(Refusal::new(
                            INTROSPECTION_DISABLED,
                            "This server does not answer introspection.",
                            Some(at),
                        ));
                    }
                    _ => {}
                }
                selections(&mut field.selection_set.node, limits)?;
            }
            Selection::InlineFragment(inline) => selections(&mut inline.node.selection_set.node, limits)?,
            Selection::FragmentSpread(_) => {}
        }
    }
    Ok(())
}

fn wrap(selection: &mut Positioned<Selection>, directives: Vec<Positioned<Directive>>) {
    let at = selection.pos;
    let inner = Positioned::new(selection.node.clone(), at);
    let inline = InlineFragment {
        type_condition: None,
        directives,
        selection_set: Positioned::new(SelectionSet { items: vec![inner] }, at),
    };
    selection.node = Selection::InlineFragment(Positioned::new(inline, at));
}

/// The operations of a valid document, checked one by one.
pub(super) fn operations(
    document: &ExecutableDocument,
    shape: &Shape,
    limits: &Limits,
) -> Result<Vec<Operation>, Refusal> {
    let mut fragments = HashMap::with_capacity(document.fragments.len());
    for (name, fragment) in &document.fragments {
        let mut uses = Uses::new(shape, limits);
        uses.directives(&fragment.node.directives)?;
        uses.set(
            &fragment.node.selection_set.node,
            &fragment.node.type_condition.node.on.node,
        )?;
        fragments.insert(name, uses);
    }
    document
        .operations
        .iter()
        .map(|(name, operation)| {
            let definition = &operation.node;
            let set = &definition.selection_set.node;
            let roots = roots(document, operation, limits)?;

            let mut uses = Uses::new(shape, limits);
            uses.directives(&definition.directives)?;
            uses.set(set, shape.root(definition.ty).unwrap_or_default())?;
            let mut reached: HashSet<&Name> = HashSet::new();
            let mut waiting: Vec<&Name> = uses.spreads.clone();
            uses.check(operation)?;
            let mut nodes = uses.nodes;
            let mut used: Vec<&Name> = uses.variables.iter().map(|used| used.name).collect();
            let mut ids = uses.ids.clone();
            let mut deciding: HashSet<&Name> = uses.deciding().collect();
            while let Some(name) = waiting.pop() {
                if reached.insert(name)
                    && let Some(uses) = fragments.get(name)
                {
                    uses.check(operation)?;
                    nodes += uses.nodes;
                    used.extend(uses.variables.iter().map(|used| used.name));
                    ids.extend(&uses.ids);
                    deciding.extend(uses.deciding());
                    waiting.extend(&uses.spreads);
                }
            }

            let subscribes = definition.ty == OperationType::Subscription;
            let alone = definition.ty == OperationType::Mutation && is_alone(&roots);
            let mut operation = operation.clone();
            if subscribes {
                let fields = roots.iter().map(|root| (root.field, root.at));
                operation.node.selection_set.node.items = merged(fields)?;
            }
            let repeated = definition.ty == OperationType::Mutation && is_repeated(&roots);
            let repeated: Vec<_> = roots.iter().filter(|_| repeated).map(Root::kept).collect();
            nodes += repeated
                .iter()
                .map(|root| 1 + size(&root.field.selection_set.node))
                .sum::<u64>();
            let reduced = ExecutableDocument {
                operations: DocumentOperations::Single(operation),
                fragments: document
                    .fragments
                    .iter()
                    .filter(|(name, _)| reached.contains(name))
                    .map(|(name, fragment)| (name.clone(), fragment.clone()))
                    .collect(),
            };
            let variables = definition.variable_definitions.iter().map(|variable| Declared {
                decides: deciding.contains(&variable.node.name.node),
                ids: ids
                    .iter()
                    .filter(|(name, _)| **name == variable.node.name.node)
                    .map(|(_, kind)| *kind)
                    .collect(),
                name: variable.node.name.node.clone(),
                ty: variable.node.var_type.node.clone(),
                default: variable
                    .node
                    .default_value
                    .as_ref()
                    .map(|value| value.node.clone()),
                at: variable.pos,
            });
            let fields = fields(set, &reduced);
            let together = definition.ty == OperationType::Query && measurable(&fields);
            let names = fields.iter().map(|field| field.name.node.as_str());
            Ok(Operation {
                together: together.then(Arc::default),
                alone,
                repeated,
                asked: Arc::new(Asked::of(names)),
                name: name.map(|name| name.as_str().into()),
                kind: definition.ty,
                variables: variables.collect(),
                cost: cost::of_operation(document, definition.ty, set, shape, limits)?,
                distinct: distinct(document, set),
                document: reduced,
                bytes: nodes * NODE_BYTES,
                root_fields: answered(&roots),
                after: subscribes.then(|| after(&roots, &used)).flatten(),
            })
        })
        .collect()
}

/// All fields of an operation and of the fragments that it reaches.
fn fields<'a>(set: &'a SelectionSet, reduced: &'a ExecutableDocument) -> Vec<&'a Field> {
    fn collect<'a>(set: &'a SelectionSet, fields: &mut Vec<&'a Field>) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    fields.push(&field.node);
                    collect(&field.node.selection_set.node, fields);
                }
                Selection::InlineFragment(inline) => collect(&inline.node.selection_set.node, fields),
                Selection::FragmentSpread(_) => {}
            }
        }
    }
    let mut fields = Vec::new();
    collect(set, &mut fields);
    for fragment in reduced.fragments.values() {
        collect(&fragment.node.selection_set.node, &mut fields);
    }
    fields
}

/// Whether what such fields cost is told by their number: they are records by their ids, pages along an index, and what a
/// board adds up.
fn measurable(fields: &[&Field]) -> bool {
    const ARGUMENTS: [&str; 6] = ["id", "ids", "first", "after", "last", "before"];
    fields.iter().all(|field| {
        let mut arguments = field.arguments.iter();
        field.name.node != "totalCount" && arguments.all(|(name, _)| ARGUMENTS.contains(&name.node.as_str()))
    })
}

/// Whether no object asks for the same field twice, whichever of the fragments apply to it. How large the unfolded document
/// is has been bounded before.
fn distinct(document: &ExecutableDocument, set: &SelectionSet) -> bool {
    fn collect<'a>(
        document: &'a ExecutableDocument,
        set: &'a SelectionSet,
        names: &mut HashSet<&'a Name>,
        below: &mut Vec<&'a SelectionSet>,
    ) -> bool {
        set.items.iter().all(|selection| match &selection.node {
            Selection::Field(field) => {
                below.push(&field.node.selection_set.node);
                names.insert(&field.node.response_key().node)
            }
            Selection::InlineFragment(inline) => {
                collect(document, &inline.node.selection_set.node, names, below)
            }
            Selection::FragmentSpread(spread) => {
                let fragment = document.fragments.get(&spread.node.fragment_name.node);
                fragment.is_none_or(|it| collect(document, &it.node.selection_set.node, names, below))
            }
        })
    }
    let mut below = Vec::new();
    collect(document, set, &mut HashSet::new(), &mut below)
        && below.into_iter().all(|set| distinct(document, set))
}

/// What an operation or a fragment uses: variables with the types of their places, and other fragments.
struct Uses<'a> {
    shape: &'a Shape,
    limits: &'a Limits,
    variables: Vec<Use<'a>>,
    spreads: Vec<&'a Name>,
    /// Variables that stand for ids, with the prefix that is meant.
    ids: Vec<(&'a Name, &'static str)>,
    nodes: u64,
    /// Where in an argument the value is that is wrong: the parser knows only where the whole of it begins.
    path: Path,
}

struct Use<'a> {
    name: &'a Name,
    ty: Place<'a>,
    at: Pos,
}

/// The type of a place that takes a value.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// A type of the schema, and whether the place has a default.
    Typed(&'a Type, bool),
    /// The condition of `@skip` and `@include`.
    Condition,
    /// A field of a one-of input: null is not a value there.
    OneOf(&'a Type),
}

impl<'a> Uses<'a> {
    fn new(shape: &'a Shape, limits: &'a Limits) -> Self {
        Self {
            shape,
            limits,
            variables: Vec::new(),
            spreads: Vec::new(),
            ids: Vec::new(),
            nodes: 0,
            path: Path::default(),
        }
    }

    /// A refusal of what an argument cannot be, in the words that variables are refused in.
    fn told_of(&self, argument: &Name, mut refusal: Refusal) -> Refusal {
        if refusal.code() == BAD_USER_INPUT {
            for error in &mut refusal.errors {
                let reason = &error.message;
                error.message = format!(
                    "Argument \"{argument}\" has an invalid value{}: {reason}",
                    self.path
                );
            }
        }
        refusal
    }

    /// The variables that conditions depend on.
    fn deciding(&self) -> impl Iterator<Item = &'a Name> + '_ {
        let in_conditions = self.variables.iter();
        in_conditions
            .filter(|used| matches!(used.ty, Place::Condition))
            .map(|used| used.name)
    }

    fn set(&mut self, set: &'a SelectionSet, parent: &'a str) -> Result<(), Refusal> {
        let shape = self.shape;
        for selection in &set.items {
            self.nodes += 1;
            self.directives(selection.node.directives())?;
            match &selection.node {
                Selection::Field(field) => {
                    self.nodes += field.node.arguments.len() as u64;
                    // Introspection fields are not in the SDL; validation looks after their arguments.
                    let definition = shape.field(parent, &field.node.name.node);
                    for (name, value) in &field.node.arguments {
                        let argument = definition.and_then(|field| field.arguments.get(name.node.as_str()));
                        if let Some(argument) = argument {
                            let place = Place::Typed(&argument.ty, argument.default.is_some());
                            self.value(&value.node, place, value.pos, 0)
                                .and_then(|()| self.id(&value.node, argument.id, value.pos))
                                .map_err(|refusal| self.told_of(&name.node, refusal))?;
                        }
                    }
                    let of = definition.map_or("", |field| &field.of);
                    self.set(&field.node.selection_set.node, of)?;
                }
                Selection::InlineFragment(inline) => {
                    let on = inline
                        .node
                        .type_condition
                        .as_ref()
                        .map(|on| on.node.on.node.as_str());
                    self.set(&inline.node.selection_set.node, on.unwrap_or(parent))?;
                }
                Selection::FragmentSpread(spread) => self.spreads.push(&spread.node.fragment_name.node),
            }
        }
        Ok(())
    }

    fn directives(&mut self, directives: &'a [Positioned<Directive>]) -> Result<(), Refusal> {
        for directive in directives {
            self.nodes += 1;
            if matches!(directive.node.name.node.as_str(), "skip" | "include")
                && let Some(condition) = directive.node.get_argument("if")
            {
                self.value(&condition.node, Place::Condition, condition.pos, 0)?;
            }
        }
        Ok(())
    }

    /// Checks a literal, and notes the variables in it.
    ///
    /// Validation passes over every literal with a variable in it, since it does not know what will stand there.
    fn value(&mut self, value: &'a Value, place: Place<'a>, at: Pos, depth: usize) -> Result<(), Refusal> {
        self.nodes += 1;
        if depth > self.limits.input_depth {
            let (what, limit) = (
                "levels of lists and objects in an argument",
                self.limits.input_depth,
            );
            return Err(too_complex(what, depth, limit, Some(at)));
        }
        if let Value::Variable(name) = value {
            self.variables.push(Use { name, ty: place, at });
            return Ok(());
        }
        let (ty, one_of) = match place {
            Place::Typed(ty, _) => (ty, false),
            Place::OneOf(ty) => (ty, true),
            Place::Condition => {
                return match value {
                    Value::Boolean(_) => Ok(()),
                    _ => Err(invalid("A condition is a Boolean.", at)),
                };
            }
        };
        let wrong = || invalid(format!("Expected a value of type {ty}."), at);
        let name = match (&ty.base, value) {
            (_, Value::Null) if ty.nullable && !one_of => return Ok(()),
            (_, Value::Null) => return Err(wrong()),
            (BaseType::List(inner), Value::List(items)) => {
                if items.len() > self.limits.list_items {
                    return Err(too_complex(
                        "items in a list",
                        items.len(),
                        self.limits.list_items,
                        Some(at),
                    ));
                }
                return items.iter().enumerate().try_for_each(|(index, item)| {
                    let checked = self.value(item, Place::Typed(inner, false), at, depth + 1);
                    self.path.fail(|| index.to_string(), checked)
                });
            }
            (BaseType::List(inner), single) => {
                return self.value(single, Place::Typed(inner, false), at, depth);
            }
            (BaseType::Named(name), _) => name,
        };
        let shape = self.shape;
        let fits = match (shape.input(name), value) {
            (InputType::Custom(judge), _) => {
                self.untyped(value)?;
                // What has a variable in it is a list or an object.
                let constant = value.clone().into_const().unwrap_or_default();
                let judged = judge.map_or(Ok(()), |judge| judge(&constant));
                return judged.map_err(|reason| Refusal::new(BAD_USER_INPUT, reason, Some(at)));
            }
            (InputType::Scalar(Scalar::String | Scalar::Id), Value::String(_)) => true,
            (InputType::Scalar(Scalar::Boolean), Value::Boolean(_)) => true,
            (InputType::Scalar(scalar), Value::Number(number)) => scalar.takes_number(number),
            (InputType::Enum(values), Value::Enum(value)) => values.contains(value.as_str()),
            (InputType::Object { fields, one_of }, Value::Object(object)) => {
                if one_of && object.len() != 1 {
                    return Err(invalid(format!("{name} takes exactly one of its fields."), at));
                }
                if let Some((key, _)) = fields
                    .iter()
                    .find(|(key, field)| field.required() && !object.contains_key(&***key))
                {
                    return Err(invalid(format!("The field \"{key}\" of {name} is required."), at));
                }
                for (key, value) in object {
                    let Some(field) = fields.get(key.as_str()) else {
                        return Err(invalid(format!("{name} has no field \"{key}\"."), at));
                    };
                    let place = if one_of {
                        Place::OneOf(&field.ty)
                    } else {
                        Place::Typed(&field.ty, field.default.is_some())
                    };
                    let checked = self.value(value, place, at, depth + 1);
                    let checked = checked.and_then(|()| self.id(value, field.id, at));
                    self.path.fail(|| key.to_string(), checked)?;
                }
                true
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(wrong()) }
    }

    /// Checks the id in a literal, and notes the variables that stand for one.
    fn id(&mut self, value: &'a Value, kind: Option<&'static str>, at: Pos) -> Result<(), Refusal> {
        let Some(kind) = kind else { return Ok(()) };
        let text = match value {
            Value::Null => return Ok(()),
            Value::Variable(name) => {
                self.ids.push((name, kind));
                return Ok(());
            }
            Value::List(items) => {
                return items.iter().enumerate().try_for_each(|(index, item)| {
                    let checked = self.id(item, Some(kind), at);
                    self.path.fail(|| index.to_string(), checked)
                });
            }
            Value::String(text) => text.as_str(),
            _ => "",
        };
        match read_id_of(kind, text) {
            Ok(_) => Ok(()),
            Err(wrong) => Err(Refusal::new(BAD_USER_INPUT, wrong.to_string(), Some(at))),
        }
    }

    /// The size of a value of a scalar of ours, which may be anything, variables of any type included.
    fn untyped(&mut self, value: &Value) -> Result<(), Refusal> {
        self.nodes += 1;
        match value {
            Value::List(items) if items.len() > self.limits.list_items => Err(too_complex(
                "items in a list",
                items.len(),
                self.limits.list_items,
                None,
            )),
            Value::List(items) => items.iter().try_for_each(|item| self.untyped(item)),
            Value::Object(object) => object.values().try_for_each(|value| self.untyped(value)),
            _ => Ok(()),
        }
    }

    /// Checks that the variables of an operation may stand where they are used.
    fn check(&self, operation: &Positioned<OperationDefinition>) -> Result<(), Refusal> {
        for place in &self.variables {
            let declared = operation
                .node
                .variable_definitions
                .iter()
                .find(|declared| declared.node.name.node == *place.name);
            // Undeclared variables have failed validation.
            let Some(declared) = declared.map(|declared| &declared.node) else {
                continue;
            };
            let ty = &declared.var_type.node;
            let has_default = declared
                .default_value
                .as_ref()
                .is_some_and(|value| value.node != async_graphql::Value::Null);
            let allowed = match place.ty {
                Place::Condition => {
                    matches!(&ty.base, BaseType::Named(name) if name == "Boolean")
                        && (!ty.nullable || has_default)
                }
                Place::OneOf(expected) => !ty.nullable && compatible(&ty.base, &expected.base),
                Place::Typed(expected, place_default) => {
                    (expected.nullable || !ty.nullable || has_default || place_default)
                        && compatible(&ty.base, &expected.base)
                }
            };
            if !allowed {
                let expected = match place.ty {
                    Place::Condition => "Boolean!".to_owned(),
                    Place::OneOf(expected) | Place::Typed(expected, _) => expected.to_string(),
                };
                return Err(invalid(
                    format!(
                        "Variable \"${}\" of type {ty} is used where {expected} is expected.",
                        place.name
                    ),
                    place.at,
                ));
            }
        }
        Ok(())
    }
}

/// Whether a variable of one type may stand where another is expected, nullability of the outermost type aside.
fn compatible(variable: &BaseType, expected: &BaseType) -> bool {
    match (variable, expected) {
        (BaseType::Named(variable), BaseType::Named(expected)) => variable == expected,
        (BaseType::List(variable), BaseType::List(expected)) => {
            (expected.nullable || !variable.nullable) && compatible(&variable.base, &expected.base)
        }
        _ => false,
    }
}
