//! What an operation costs: folded to a number as far as it goes when a document is first seen, finished with the
//! variables of each request.

use async_graphql::parser::types::{
    ExecutableDocument, Field as Selected, OperationType, Selection, SelectionSet,
};
use async_graphql::{Name, Pos, Positioned, Value as Const, Variables};
use async_graphql_value::Value;

use super::shape::{Field, Kind, Shape};
use super::{BAD_USER_INPUT, Limits, Refusal};

/// How many objects a list without pages is taken to have.
const LIST: u64 = 10;
/// A root field of a mutation: a transaction.
const MUTATION: u64 = 10;
/// The schema described whole, and one type of it.
const SCHEMA: u64 = 50;
const TYPE: u64 = 5;

/// A sum, some of whose terms wait for variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cost {
    fixed: u64,
    scaled: Vec<(Size, Cost)>,
}

/// A number of items that depends on variables.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Size {
    Page(Page),
    /// The length of the list in a variable.
    Items(Name),
}

/// The page arguments of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    field: Name,
    first: Bound,
    last: Bound,
    at: Pos,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bound {
    Absent,
    Number(i64),
    Variable(Name),
}

impl Cost {
    fn fixed(fixed: u64) -> Self {
        Self {
            fixed,
            scaled: Vec::new(),
        }
    }

    fn add(&mut self, other: Cost) {
        self.fixed = self.fixed.saturating_add(other.fixed);
        self.scaled.extend(other.scaled);
    }

    fn times(mut self, factor: u64) -> Self {
        self.fixed = self.fixed.saturating_mul(factor);
        self.scaled = self
            .scaled
            .into_iter()
            .map(|(size, cost)| (size, cost.times(factor)))
            .collect();
        self
    }

    /// The cost with the variables of a request.
    ///
    /// # Errors
    /// When a variable asks for a page that is not one.
    pub(super) fn at(&self, variables: &Variables, limits: &Limits) -> Result<u64, Refusal> {
        let mut sum = self.fixed;
        for (size, cost) in &self.scaled {
            let size = match size {
                Size::Page(page) => page.size(variables, limits)?,
                Size::Items(name) => match variables.get(name.as_str()) {
                    Some(Const::List(items)) => items.len() as u64,
                    Some(Const::Null) | None => 0,
                    Some(_) => 1,
                },
            };
            sum = sum.saturating_add(cost.at(variables, limits)?.saturating_mul(size));
        }
        Ok(sum)
    }
}

impl Page {
    fn size(&self, variables: &Variables, limits: &Limits) -> Result<u64, Refusal> {
        let first = self.bound("first", &self.first, variables, limits)?;
        let last = self.bound("last", &self.last, variables, limits)?;
        Ok(first.max(last).unwrap_or(limits.default_page_size))
    }

    fn bound(
        &self,
        argument: &str,
        bound: &Bound,
        variables: &Variables,
        limits: &Limits,
    ) -> Result<Option<u64>, Refusal> {
        let number = match bound {
            Bound::Absent => return Ok(None),
            Bound::Number(number) => Some(*number),
            Bound::Variable(name) => match variables.get(name.as_str()) {
                None | Some(Const::Null) => return Ok(None),
                Some(Const::Number(number)) => number.as_i64(),
                Some(_) => None,
            },
        };
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) if (1..=limits.page_size).contains(&number) => Ok(Some(number)),
            _ => Err(Refusal::new(
                BAD_USER_INPUT,
                format!(
                    "Argument \"{argument}\" of \"{}\" must be between 1 and {}.",
                    self.field, limits.page_size
                ),
                Some(self.at),
            )),
        }
    }
}

/// Folds the cost of an operation. The document has been measured, so unfolding its fragments is bounded.
pub(super) fn of_operation(
    document: &ExecutableDocument,
    kind: OperationType,
    set: &SelectionSet,
    shape: &Shape,
    limits: &Limits,
) -> Result<Cost, Refusal> {
    let folder = Folder {
        document,
        shape,
        limits,
    };
    let Some(root) = shape.root(kind) else {
        return Ok(Cost::default());
    };
    let field_cost = if kind == OperationType::Mutation {
        MUTATION
    } else {
        1
    };
    folder.set(set, root, Some(field_cost)).map(|both| both.own)
}

struct Folder<'a> {
    document: &'a ExecutableDocument,
    shape: &'a Shape,
    limits: &'a Limits,
}

/// The cost of a selection set: what it costs once, and (in a connection) for each item.
#[derive(Default)]
struct Both {
    own: Cost,
    item: Cost,
}

impl Folder<'_> {
    /// `root` is what a root field costs, when this is the root.
    fn set(&self, set: &SelectionSet, parent: &str, root: Option<u64>) -> Result<Both, Refusal> {
        let mut sum = Both::default();
        for selection in &set.items {
            let (set, on) = match &selection.node {
                Selection::Field(field) => {
                    self.field(field, parent, root, &mut sum)?;
                    continue;
                }
                Selection::InlineFragment(inline) => (
                    &inline.node.selection_set,
                    inline
                        .node
                        .type_condition
                        .as_ref()
                        .map(|on| on.node.on.node.as_str()),
                ),
                Selection::FragmentSpread(spread) => {
                    let Some(fragment) = self.document.fragments.get(&spread.node.fragment_name.node) else {
                        continue;
                    };
                    (
                        &fragment.node.selection_set,
                        Some(fragment.node.type_condition.node.on.node.as_str()),
                    )
                }
            };
            let inner = self.set(&set.node, on.unwrap_or(parent), root)?;
            sum.own.add(inner.own);
            sum.item.add(inner.item);
        }
        Ok(sum)
    }

    fn field(
        &self,
        field: &Positioned<Selected>,
        parent: &str,
        root: Option<u64>,
        sum: &mut Both,
    ) -> Result<(), Refusal> {
        let selected = &field.node;
        match selected.name.node.as_str() {
            "__schema" => sum.own.add(Cost::fixed(SCHEMA)),
            "__type" => sum.own.add(Cost::fixed(TYPE)),
            _ => {}
        }
        let Some(definition) = self.shape.field(parent, &selected.name.node) else {
            return Ok(());
        };
        let inner = match definition.kind {
            Kind::Leaf => Both::default(),
            _ => self.set(&selected.selection_set.node, &definition.of, None)?,
        };
        let mut once = Cost::fixed(root.unwrap_or(1));
        match definition.kind {
            // A root field does work of its own even when it answers with a scalar.
            Kind::Leaf => sum.own.add(Cost::fixed(root.unwrap_or(0))),
            Kind::Object => {
                once.add(inner.own);
                sum.own.add(once);
            }
            Kind::List => {
                once.add(inner.own);
                match list_size(selected) {
                    ListSize::Number(number) => sum.own.add(once.times(number)),
                    ListSize::Variable(name) => sum.own.scaled.push((Size::Items(name), once)),
                }
            }
            Kind::Connection => {
                once.add(inner.own);
                let page = page(field, definition);
                if matches!(
                    (&page.first, &page.last),
                    (Bound::Variable(_), _) | (_, Bound::Variable(_))
                ) {
                    once.scaled.push((Size::Page(page), inner.item));
                } else {
                    let size = page.size(&Variables::default(), self.limits)?;
                    once.add(inner.item.times(size));
                }
                sum.own.add(once);
            }
            Kind::Edges => sum.item.add(inner.own),
            Kind::Nodes => {
                once.add(inner.own);
                sum.item.add(once);
            }
        }
        Ok(())
    }
}

fn page(field: &Positioned<Selected>, definition: &Field) -> Page {
    let bound = |name: &str| match field.node.get_argument(name).map(|value| &value.node) {
        Some(Value::Variable(name)) => Bound::Variable(name.clone()),
        // What is not an integer has failed validation.
        Some(Value::Number(number)) => Bound::Number(number.as_i64().unwrap_or(i64::MAX)),
        Some(_) => Bound::Absent,
        None => match definition
            .arguments
            .get(name)
            .and_then(|argument| argument.default.as_ref())
        {
            Some(Const::Number(number)) => number.as_i64().map_or(Bound::Absent, Bound::Number),
            _ => Bound::Absent,
        },
    };
    Page {
        field: field.node.name.node.clone(),
        first: bound("first"),
        last: bound("last"),
        at: field.pos,
    }
}

enum ListSize {
    Number(u64),
    Variable(Name),
}

/// A list asked for by `ids` has as many items as there are ids.
fn list_size(field: &Selected) -> ListSize {
    match field.get_argument("ids").map(|value| &value.node) {
        Some(Value::List(ids)) => ListSize::Number(ids.len() as u64),
        Some(Value::Variable(name)) => ListSize::Variable(name.clone()),
        _ => ListSize::Number(LIST),
    }
}
