//! The size of a document with every fragment unfolded, each fragment counted once.

use std::collections::HashMap;

use async_graphql::parser::types::{ExecutableDocument, FragmentDefinition, Selection, SelectionSet};
use async_graphql::{Name, Pos, Positioned};

use super::{Limits, Refusal, TOO_COMPLEX, VALIDATION_FAILED, too_complex};

/// Fields that lead from one introspected type to others: several of them inside one another ask for the whole
/// schema many times over.
const INTROSPECTION_LISTS: [&str; 4] = ["fields", "interfaces", "possibleTypes", "inputFields"];

/// The most of [`INTROSPECTION_LISTS`] inside one another; the reference client's full query has one.
const INTROSPECTION_CYCLES: usize = 2;

/// What a selection set amounts to, fragments unfolded. All sums saturate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Selections of every kind, introspection included: what a walk without memory would visit.
    selections: usize,
    fields: usize,
    depth: usize,
    /// Selection sets inside one another, those of fragments included.
    nesting: usize,
    aliases: usize,
    directives: usize,
    introspection_fields: usize,
    introspection_depth: usize,
    introspection_lists: usize,
}

impl Measure {
    /// Siblings: sizes add up, depths do not.
    fn beside(&mut self, other: &Measure) {
        self.selections = self.selections.saturating_add(other.selections);
        self.fields = self.fields.saturating_add(other.fields);
        self.depth = self.depth.max(other.depth);
        self.nesting = self.nesting.max(other.nesting);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.directives = self.directives.saturating_add(other.directives);
        self.introspection_fields = self
            .introspection_fields
            .saturating_add(other.introspection_fields);
        self.introspection_depth = self.introspection_depth.max(other.introspection_depth);
        self.introspection_lists = self.introspection_lists.max(other.introspection_lists);
    }

    fn check(&self, limits: &Limits, at: Pos) -> Result<(), Refusal> {
        let at = Some(at);
        let checks = [
            ("levels of fields", self.depth, limits.depth),
            ("levels of selections", self.nesting, limits.nesting),
            ("fields", self.fields, limits.fields),
            ("selections", self.selections, limits.fields.saturating_mul(2)),
            ("aliases", self.aliases, limits.aliases),
            ("directives", self.directives, limits.directives),
            (
                "introspection fields",
                self.introspection_fields,
                limits.introspection_fields,
            ),
            (
                "levels of introspection fields",
                self.introspection_depth,
                limits.introspection_depth,
            ),
        ];
        for (what, found, limit) in checks {
            if found > limit {
                return Err(too_complex(what, found, limit, at));
            }
        }
        if self.introspection_lists > INTROSPECTION_CYCLES {
            return Err(Refusal::new(
                TOO_COMPLEX,
                "The introspection goes round in circles: ask for each list of types or fields once.",
                at,
            ));
        }
        Ok(())
    }
}

/// Refuses documents whose operations unfold to more than `limits`, and spreads that lead nowhere or round in circles.
pub(super) fn measure(document: &ExecutableDocument, limits: &Limits) -> Result<(), Refusal> {
    measure_counted(document, limits, &mut 0)
}

/// [`measure`], adding to `work` each selection that it looks at: proportional to the document, whatever its
/// fragments unfold to.
pub(super) fn measure_counted(
    document: &ExecutableDocument,
    limits: &Limits,
    work: &mut usize,
) -> Result<(), Refusal> {
    let operations = document.operations.iter().len();
    if operations > limits.operations {
        return Err(too_complex("operations", operations, limits.operations, None));
    }
    if document.fragments.len() > limits.fragments {
        return Err(too_complex(
            "fragments",
            document.fragments.len(),
            limits.fragments,
            None,
        ));
    }
    let mut walk = Walk {
        fragments: HashMap::with_capacity(document.fragments.len()),
        work,
    };
    for name in in_order_of_use(&document.fragments, walk.work)? {
        let fragment = &document.fragments[&name];
        let introspection = fragment.node.type_condition.node.on.node.starts_with("__");
        let mut measure = walk.set(&fragment.node.selection_set.node, introspection)?;
        measure.directives = measure.directives.saturating_add(fragment.node.directives.len());
        // A fragment that no operation uses is walked by some rules all the same.
        if measure.nesting > limits.nesting {
            return Err(too_complex(
                "levels of selections",
                measure.nesting,
                limits.nesting,
                Some(fragment.pos),
            ));
        }
        walk.fragments.insert(name, measure);
    }
    let mut whole = 0usize;
    for (_, operation) in document.operations.iter() {
        let mut measure = walk.set(&operation.node.selection_set.node, false)?;
        measure.directives = measure.directives.saturating_add(operation.node.directives.len());
        measure.check(limits, operation.pos)?;
        if operation.node.variable_definitions.len() > limits.variables {
            let found = operation.node.variable_definitions.len();
            return Err(too_complex(
                "variables",
                found,
                limits.variables,
                Some(operation.pos),
            ));
        }
        whole = whole.saturating_add(measure.selections);
    }
    let limit = limits.fields.saturating_mul(2);
    if whole > limit {
        return Err(too_complex("selections in all operations", whole, limit, None));
    }
    Ok(())
}

/// The fragments in an order in which each comes after those that it spreads.
fn in_order_of_use(
    fragments: &HashMap<Name, Positioned<FragmentDefinition>>,
    work: &mut usize,
) -> Result<Vec<Name>, Refusal> {
    let mut waiting: HashMap<&str, usize> = HashMap::with_capacity(fragments.len());
    let mut users: HashMap<&str, Vec<&Name>> = HashMap::with_capacity(fragments.len());
    let mut ready: Vec<&Name> = Vec::new();
    for (name, fragment) in fragments {
        let mut spreads = 0;
        let mut sets = vec![&fragment.node.selection_set.node];
        while let Some(set) = sets.pop() {
            for selection in &set.items {
                *work += 1;
                match &selection.node {
                    Selection::Field(field) => sets.push(&field.node.selection_set.node),
                    Selection::InlineFragment(inline) => sets.push(&inline.node.selection_set.node),
                    Selection::FragmentSpread(spread) => {
                        let spread = &spread.node.fragment_name;
                        if !fragments.contains_key(&spread.node) {
                            return Err(unknown(spread));
                        }
                        spreads += 1;
                        users.entry(&spread.node).or_default().push(name);
                    }
                }
            }
        }
        if spreads == 0 {
            ready.push(name);
        } else {
            waiting.insert(name, spreads);
        }
    }
    let mut order = Vec::with_capacity(fragments.len());
    while let Some(name) = ready.pop() {
        order.push(name.clone());
        for user in users.remove(name.as_str()).unwrap_or_default() {
            if let Some(left) = waiting.get_mut(user.as_str()) {
                *left -= 1;
                if *left == 0 {
                    ready.push(user);
                }
            }
        }
    }
    match fragments
        .iter()
        .filter(|(name, _)| !order.contains(name))
        .min_by_key(|(_, fragment)| fragment.pos)
    {
        Some((name, fragment)) => Err(Refusal::new(
            VALIDATION_FAILED,
            format!("The fragment \"{name}\" spreads itself, or a fragment that does."),
            Some(fragment.pos),
        )),
        None => Ok(order),
    }
}

fn unknown(spread: &Positioned<Name>) -> Refusal {
    Refusal::new(
        VALIDATION_FAILED,
        format!("There is no fragment \"{}\".", spread.node),
        Some(spread.pos),
    )
}

struct Walk<'a> {
    fragments: HashMap<Name, Measure>,
    work: &'a mut usize,
}

impl Walk<'_> {
    /// Recursion goes as deep as the document's own brackets, which the scanner has bounded.
    fn set(&mut self, set: &SelectionSet, introspection: bool) -> Result<Measure, Refusal> {
        let mut sum = Measure::default();
        for selection in &set.items {
            *self.work += 1;
            let mut one = match &selection.node {
                Selection::Field(field) => {
                    let name = field.node.name.node.as_str();
                    let inside = introspection || matches!(name, "__schema" | "__type");
                    let mut one = self.set(&field.node.selection_set.node, inside)?;
                    if inside {
                        one.introspection_fields = one.introspection_fields.saturating_add(1);
                        one.introspection_depth += 1;
                        one.introspection_lists += usize::from(INTROSPECTION_LISTS.contains(&name));
                    } else {
                        one.fields = one.fields.saturating_add(1);
                        one.depth += 1;
                    }
                    one.aliases = one
                        .aliases
                        .saturating_add(usize::from(field.node.alias.is_some()));
                    one.directives = one.directives.saturating_add(field.node.directives.len());
                    one.nesting += usize::from(!field.node.selection_set.node.items.is_empty());
                    one
                }
                Selection::InlineFragment(inline) => {
                    let mut one = self.set(&inline.node.selection_set.node, introspection)?;
                    one.directives = one.directives.saturating_add(inline.node.directives.len());
                    one.nesting += 1;
                    one
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name;
                    let mut one = *self.fragments.get(&name.node).ok_or_else(|| unknown(name))?;
                    one.directives = one.directives.saturating_add(spread.node.directives.len());
                    one.nesting += 1;
                    one
                }
            };
            one.selections = one.selections.saturating_add(1);
            sum.beside(&one);
        }
        Ok(sum)
    }
}
