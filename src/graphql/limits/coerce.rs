//! Variables: present when required, of their declared types, defaults filled in.
//!
//! The executor looks at a variable only where a resolver uses it, and at defaulted ones not at all in `@include`.

use async_graphql::parser::types::{BaseType, Type};
use async_graphql::{Name, Pos, Value, Variables};

use super::shape::{InputType, Scalar, Shape};
use super::{BAD_USER_INPUT, Limits, Refusal, error};
use crate::db::id::read_id_of;

/// A declared variable of an operation.
pub(super) struct Declared {
    pub(super) name: Name,
    pub(super) ty: Type,
    pub(super) default: Option<Value>,
    /// Whether `@skip` or `@include` depends on it.
    pub(super) decides: bool,
    /// The prefixes of the ids that the places take where it is used.
    pub(super) ids: Vec<&'static str>,
    pub(super) at: Pos,
}

/// The variables that an operation sees: every declared one that was given or has a default, and no others.
pub(super) fn variables(
    shape: &Shape,
    limits: &Limits,
    declared: &[Declared],
    mut given: Variables,
) -> Result<Variables, Refusal> {
    let mut seen = Variables::default();
    let mut errors = Vec::new();
    for declared in declared {
        let name = &declared.name;
        match given.remove(name.as_str()).or_else(|| declared.default.clone()) {
            // Its default makes a nullable variable fit for a condition, which null is none of.
            Some(Value::Null) if declared.decides => errors.push(error(
                BAD_USER_INPUT,
                format!("Variable \"${name}\" has an invalid value: expected Boolean!."),
                Some(declared.at),
            )),
            Some(mut value) => {
                let mut path = Path::default();
                let checked = check(shape, limits, &mut value, &declared.ty, 0, &mut path);
                let checked =
                    checked.and_then(|()| declared.ids.iter().try_for_each(|kind| id_of(kind, &value)));
                match checked {
                    Ok(()) => drop(seen.insert(name.clone(), value)),
                    Err(reason) => errors.push(error(
                        BAD_USER_INPUT,
                        format!(
                            "Variable \"${name}\" has an invalid value{path}: {}.",
                            reason.trim_end_matches('.')
                        ),
                        Some(declared.at),
                    )),
                }
            }
            None if declared.ty.nullable => {}
            None => errors.push(error(
                BAD_USER_INPUT,
                format!("Variable \"${name}\" of type {} is required.", declared.ty),
                Some(declared.at),
            )),
        }
    }
    if errors.is_empty() {
        Ok(seen)
    } else {
        Err(Refusal { errors })
    }
}

/// Where in a variable a value is; written down only when something is wrong there.
#[derive(Default)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub(super) fn fail<T, E>(&mut self, step: impl FnOnce() -> String, result: Result<T, E>) -> Result<T, E> {
        result.inspect_err(|_| self.0.push(step()))
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let steps: Vec<&str> = self.0.iter().rev().map(String::as_str).collect();
        write!(f, " at \"{}\"", steps.join("."))
    }
}

/// Checks a value; makes an `Int` of `1.0`, which JSON does not tell from `1`. Values are never repeated in messages:
/// they may be secrets.
fn check(
    shape: &Shape,
    limits: &Limits,
    value: &mut Value,
    ty: &Type,
    depth: usize,
    path: &mut Path,
) -> Result<(), String> {
    if depth > limits.input_depth {
        return Err(format!("it has more than {} levels", limits.input_depth));
    }
    if matches!(value, Value::Null) {
        return if ty.nullable { Ok(()) } else { Err(expected(ty)) };
    }
    let name = match &ty.base {
        BaseType::List(inner) => {
            let Value::List(items) = value else {
                return check(shape, limits, value, inner, depth, path);
            };
            if items.len() > limits.list_items {
                return Err(format!("the list has more than {} items", limits.list_items));
            }
            for (index, item) in items.iter_mut().enumerate() {
                let result = check(shape, limits, item, inner, depth + 1, path);
                path.fail(|| index.to_string(), result)?;
            }
            return Ok(());
        }
        BaseType::Named(name) => name,
    };
    match (shape.input(name), value) {
        (InputType::Custom(judge), value) => {
            judge.map_or(Ok(()), |judge| judge(value).map_err(str::to_owned))
        }
        (InputType::Scalar(Scalar::String | Scalar::Id), Value::String(_)) => Ok(()),
        (InputType::Scalar(Scalar::Boolean), Value::Boolean(_)) => Ok(()),
        (InputType::Scalar(scalar), Value::Number(number)) => {
            if matches!(scalar, Scalar::Int)
                && let Some(whole) = number
                    .as_f64()
                    .filter(|n| n.fract() == 0.0 && n.abs() < f64::from(i32::MAX))
            {
                *number = (whole as i32).into();
            }
            if scalar.takes_number(number) {
                Ok(())
            } else {
                Err(expected(ty))
            }
        }
        (InputType::Enum(values), Value::String(value)) if values.contains(value.as_str()) => Ok(()),
        (InputType::Enum(values), Value::Enum(value)) if values.contains(value.as_str()) => Ok(()),
        (InputType::Object { fields, one_of }, Value::Object(object)) => {
            if one_of && (object.len() != 1 || object.values().any(|value| matches!(value, Value::Null))) {
                return Err(format!("{name} takes exactly one of its fields"));
            }
            for (key, value) in object.iter_mut() {
                let result = match fields.get(key.as_str()) {
                    Some(field) => check(shape, limits, value, &field.ty, depth + 1, path)
                        .and_then(|()| field.id.map_or(Ok(()), |kind| id_of(kind, value))),
                    None => Err(format!("{name} has no such field")),
                };
                path.fail(|| key.to_string(), result)?;
            }
            match fields
                .iter()
                .find(|(key, field)| field.required() && !object.contains_key(&***key))
            {
                Some((key, _)) => Err(format!("the field \"{key}\" of {name} is required")),
                None => Ok(()),
            }
        }
        _ => Err(expected(ty)),
    }
}

/// Checks ids of one kind: one of them or a list.
fn id_of(kind: &'static str, value: &Value) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::List(items) => items.iter().try_for_each(|item| id_of(kind, item)),
        Value::String(text) => read_id_of(kind, text).map_or_else(|wrong| Err(wrong.to_string()), |_| Ok(())),
        _ => id_of(kind, &Value::String(String::new())),
    }
}

fn expected(ty: &Type) -> String {
    format!("expected {ty}")
}
