//! What stands at the root of an operation: how much, how often, and each once.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::types::{
    Directive, ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{Name, Pos, Positioned, Variables};
use async_graphql_value::{ConstValue, Value};

use super::check::invalid;
use super::{Limits, Refusal, TOO_COMPLEX, too_complex};

/// A root field, with what is said of whether it is skipped.
pub(super) struct Kept {
    pub(super) field: Field,
    pub(super) at: Pos,
    conditions: Vec<(bool, Value)>,
}

impl Kept {
    /// Whether it is asked for, with these variables.
    pub(super) fn is_included(&self, variables: &Variables) -> bool {
        self.conditions.iter().all(|(wanted, condition)| {
            let is_so = match condition {
                Value::Boolean(is_so) => *is_so,
                Value::Variable(name) => variables.get(name) == Some(&ConstValue::Boolean(true)),
                _ => false,
            };
            is_so == *wanted
        })
    }
}

/// The argument `after` of a subscription.
pub(super) struct After {
    /// As it is written: a text, null or a variable.
    pub(super) value: Value,
    /// Whether the variable is used for nothing else.
    pub(super) own_variable: bool,
}

/// What stands at the root of an operation, fragments unfolded.
#[derive(Clone)]
pub(super) struct Root<'a> {
    pub(super) field: &'a Field,
    pub(super) at: Pos,
    /// `@skip` and `@include` of itself and of the fragments that it is in.
    conditions: Vec<&'a Directive>,
}

impl Root<'_> {
    pub(super) fn kept(&self) -> Kept {
        let condition = |directive: &&Directive| {
            let wanted = directive.name.node == "include";
            Some((wanted, directive.get_argument("if")?.node.clone()))
        };
        Kept {
            field: self.field.clone(),
            at: self.at,
            conditions: self.conditions.iter().filter_map(condition).collect(),
        }
    }
}

/// The rules about root fields: how many, how often the same, and those of a subscription.
pub(super) fn roots<'a>(
    document: &'a ExecutableDocument,
    operation: &'a Positioned<OperationDefinition>,
    limits: &Limits,
) -> Result<Vec<Root<'a>>, Refusal> {
    fn collect<'a>(
        document: &'a ExecutableDocument,
        set: &'a SelectionSet,
        conditions: &[&'a Directive],
        into: &mut Vec<Root<'a>>,
    ) {
        for selection in &set.items {
            let own = selection
                .node
                .directives()
                .iter()
                .map(|directive| &directive.node);
            let own = own.filter(|it| matches!(it.name.node.as_str(), "skip" | "include"));
            let conditions: Vec<_> = conditions.iter().copied().chain(own).collect();
            match &selection.node {
                Selection::Field(field) => into.push(Root {
                    field: &field.node,
                    at: field.pos,
                    conditions,
                }),
                Selection::InlineFragment(inline) => {
                    collect(document, &inline.node.selection_set.node, &conditions, into);
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                        collect(document, &fragment.node.selection_set.node, &conditions, into);
                    }
                }
            }
        }
    }
    let mut roots = Vec::new();
    collect(document, &operation.node.selection_set.node, &[], &mut roots);

    if operation.node.ty == OperationType::Subscription {
        let keys: HashSet<&str> = roots
            .iter()
            .map(|root| root.field.response_key().node.as_str())
            .collect();
        if keys.len() != 1 || roots.iter().any(|root| root.field.name.node.starts_with("__")) {
            return Err(invalid(
                "A subscription selects exactly one field, and none of introspection.",
                operation.pos,
            ));
        }
        if let Some(root) = roots.iter().find(|root| !root.conditions.is_empty()) {
            return Err(invalid(
                "The field of a subscription cannot be skipped or included.",
                root.at,
            ));
        }
    }

    if roots.len() > limits.root_fields {
        return Err(too_complex(
            "root fields",
            roots.len(),
            limits.root_fields,
            Some(operation.pos),
        ));
    }
    let mut same: HashMap<&str, usize> = HashMap::new();
    for root in &roots {
        let name = root.field.name.node.as_str();
        let count = same.entry(name).or_default();
        *count += 1;
        let limit = if name == "__schema" {
            1
        } else {
            limits.same_root_field
        };
        if *count > limit {
            return Err(Refusal::new(
                TOO_COMPLEX,
                format!("The root field \"{name}\" is asked for more than {limit} times."),
                Some(root.at),
            ));
        }
    }
    Ok(roots)
}

/// The names of root fields: once for what is there more than once, in the answer's one place.
pub(super) fn answered(roots: &[Root]) -> Vec<Box<str>> {
    let is_same = |one: &Field, other: &Field| {
        one.response_key() == other.response_key() && one.name == other.name && same_arguments(one, other)
    };
    let earlier = |at: usize| {
        roots[..at]
            .iter()
            .any(|root| is_same(root.field, roots[at].field))
    };
    (0..roots.len())
        .filter(|at| !earlier(*at))
        .map(|at| roots[at].field.name.node.as_str().into())
        .collect()
}

/// Whether there is one field, what is known of every type apart; skipped ones count.
pub(super) fn is_alone(roots: &[Root]) -> bool {
    let mut keys = roots
        .iter()
        .filter(|root| !root.field.name.node.starts_with("__"))
        .map(|root| &root.field.response_key().node);
    let first = keys.next();
    keys.all(|key| Some(key) == first)
}

/// Whether a mutation is asked for more than once under one name.
pub(super) fn is_repeated(roots: &[Root]) -> bool {
    let mut keys = HashSet::new();
    let mut own = roots
        .iter()
        .filter(|root| !root.field.name.node.starts_with("__"));
    own.any(|root| !keys.insert(&root.field.response_key().node))
}

/// Root fields out of the fragments that they may be in, each once. The executor does not look into those for a
/// subscription, and would make a mutation as often as it is there.
pub(super) fn merged<'a>(
    roots: impl IntoIterator<Item = (&'a Field, Pos)>,
) -> Result<Vec<Positioned<Selection>>, Refusal> {
    let mut fields: Vec<Positioned<Field>> = Vec::new();
    for (root, at) in roots {
        let key = root.response_key();
        let Some(field) = fields.iter_mut().find(|field| field.node.response_key() == key) else {
            fields.push(Positioned::new(root.clone(), at));
            continue;
        };
        if field.node.name != root.name || !same_arguments(&field.node, root) {
            let message = format!("\"{}\" is asked for twice, and not the same.", key.node);
            return Err(invalid(message, at));
        }
        let more = root.selection_set.node.items.iter().cloned();
        field.node.selection_set.node.items.extend(more);
    }
    let selection = |field: Positioned<Field>| Positioned::new(Selection::Field(field.clone()), field.pos);
    Ok(fields.into_iter().map(selection).collect())
}

/// Fields of a selection and of all below it.
pub(super) fn size(set: &SelectionSet) -> u64 {
    let of = |selection: &Positioned<Selection>| match &selection.node {
        Selection::Field(field) => size(&field.node.selection_set.node),
        Selection::InlineFragment(inline) => size(&inline.node.selection_set.node),
        Selection::FragmentSpread(_) => 0,
    };
    set.items.iter().map(|selection| 1 + of(selection)).sum()
}

fn same_arguments(one: &Field, other: &Field) -> bool {
    one.arguments.len() == other.arguments.len()
        && one
            .arguments
            .iter()
            .all(|argument| other.arguments.contains(argument))
}

/// The argument `after` of a subscription, if it is there.
pub(super) fn after(roots: &[Root], used: &[&Name]) -> Option<After> {
    let value = roots.first()?.field.get_argument("after")?.node.clone();
    let own_variable = match &value {
        Value::Variable(name) => used.iter().filter(|used| **used == name).count() == 1,
        _ => false,
    };
    Some(After { value, own_variable })
}
