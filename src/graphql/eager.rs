//! Objects in answers, resolved for less than the executor's own way costs.
//!
//! The executor makes a future for every field of every object of an answer before it asks the first of them, keeps all
//! of them until the last is done, and builds a tree that is written as JSON afterwards. But most fields are there at
//! once. Here a field is asked as soon as it has a future, so that only those are kept that wait for the database, and an
//! object whose fields have all been answered becomes JSON there and then.
//!
//! The resolvers are the executor's: a type is declared as any other, and [`Eager`] around it where a field answers it
//! changes nothing that a client could see.

use std::borrow::Cow;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use async_graphql::indexmap::IndexMap;
use async_graphql::indexmap::map::Entry;
use async_graphql::parser::types::{Field, Selection, SelectionSet};
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, Name, ObjectType, OutputType, Positioned, ServerError, ServerResult, Value,
};
use futures::future::BoxFuture;

/// An object that is resolved as this module tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eager<T>(pub T);

/// A list of objects that are resolved as this module tells: of a `Vec` or a slice.
#[derive(Debug, Clone, Copy)]
pub struct EagerList<L>(pub L);

/// A record that others may hold too.
pub type Record<T> = Eager<Arc<T>>;

/// Data of a request: no object of its answer has a field twice, so nothing will have to be merged with what has become
/// JSON. Without it an answer stays a tree. JSON is held as `Value::Binary`, which only [`write()`] knows to be that.
#[derive(Debug, Clone, Copy)]
pub struct Distinct;

impl<T: ObjectType> OutputType for Eager<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn introspection_type_name(&self) -> Cow<'static, str> {
        self.0.introspection_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    async fn resolve(
        &self,
        ctx: &ContextSelectionSet<'_>,
        _field: &Positioned<Field>,
    ) -> ServerResult<Value> {
        // Boxed, because every field of the object around it has room for this one.
        let resolved: BoxFuture<'_, _> = Box::pin(object(ctx, &self.0));
        resolved.await
    }
}

impl<T: ObjectType + 'static, L: Deref<Target = [T]> + OutputType> OutputType for EagerList<L> {
    fn type_name() -> Cow<'static, str> {
        L::type_name()
    }

    fn qualified_type_name() -> String {
        L::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        L::create_type_info(registry)
    }

    async fn resolve(
        &self,
        ctx: &ContextSelectionSet<'_>,
        _field: &Positioned<Field>,
    ) -> ServerResult<Value> {
        let resolved: BoxFuture<'_, _> = Box::pin(list(ctx, &self.0));
        resolved.await
    }
}

/// Resolves an object that is not held in an [`Eager`].
///
/// # Errors
/// What is wrong with a field that cannot be null.
pub(super) async fn object<T: ObjectType + ?Sized>(
    ctx: &ContextSelectionSet<'_>,
    object: &T,
) -> ServerResult<Value> {
    let selected = Selected::of(ctx, object)?;
    selected.resolve(ctx, object).await
}

async fn list<T: ObjectType>(ctx: &ContextSelectionSet<'_>, objects: &[T]) -> ServerResult<Value> {
    let Some(first) = objects.first() else {
        return Ok(Value::List(Vec::new()));
    };
    // They are all of one type.
    let selected = &Selected::of(ctx, first)?;
    let items = objects.iter().enumerate().map(|(index, item)| async move {
        let ctx = ctx.with_index(index);
        selected
            .resolve(&ctx, item)
            .await
            .map_err(|error| match error.path.is_empty() {
                true => ctx.set_error_path(error),
                false => error,
            })
    });
    if selected.distinct {
        return json([b'[', b']'], 200, items, |_| None).await;
    }
    Ok(Value::List(all(items).await?))
}

/// What is asked of an object.
struct Selected<'a> {
    fields: Vec<&'a Positioned<Field>>,
    /// Whether it is [known](Distinct) that no field is there twice.
    distinct: bool,
}

impl<'a> Selected<'a> {
    fn of<T: ObjectType + ?Sized>(ctx: &ContextSelectionSet<'a>, object: &T) -> ServerResult<Self> {
        let mut fields = Vec::with_capacity(ctx.item.node.items.len());
        collect(ctx, object, &ctx.item.node, &mut fields)?;
        Ok(Self {
            fields,
            distinct: ctx.data_opt::<Distinct>().is_some(),
        })
    }

    async fn resolve<T: ObjectType + ?Sized>(
        &self,
        ctx: &ContextSelectionSet<'_>,
        object: &T,
    ) -> ServerResult<Value> {
        let name = |at: usize| &self.fields[at].node.response_key().node;
        let answers = self.fields.iter().map(|field| resolve(ctx, object, field));
        if self.distinct {
            // Of a field the name is plain.
            return json([b'{', b'}'], 56, answers, |at| Some(name(at).as_str())).await;
        }
        let mut tree = IndexMap::with_capacity(self.fields.len());
        for (at, value) in all(answers).await?.into_iter().enumerate() {
            merge(&mut tree, name(at).clone(), value);
        }
        Ok(Value::Object(tree))
    }
}

async fn resolve<T: ObjectType + ?Sized>(
    ctx: &ContextSelectionSet<'_>,
    object: &T,
    field: &Positioned<Field>,
) -> ServerResult<Value> {
    if field.node.name.node == "__typename" {
        return Ok(Value::String(object.introspection_type_name().into_owned()));
    }
    let ctx = ctx.with_field(field);
    Ok(object.resolve_field(&ctx).await?.unwrap_or_default())
}

/// The fields that are asked of an object, those of the fragments that apply to it included: `CollectFields` of
/// <https://spec.graphql.org/October2021/#sec-Field-Collection>, but for merging.
fn collect<'a, T: ObjectType + ?Sized>(
    ctx: &ContextSelectionSet<'a>,
    object: &T,
    set: &'a SelectionSet,
    fields: &mut Vec<&'a Positioned<Field>>,
) -> ServerResult<()> {
    for selection in &set.items {
        let (condition, set) = match &selection.node {
            Selection::Field(field) => {
                fields.push(field);
                continue;
            }
            Selection::InlineFragment(inline) => {
                (inline.node.type_condition.as_ref(), &inline.node.selection_set)
            }
            Selection::FragmentSpread(spread) => {
                let name = &spread.node.fragment_name.node;
                let Some(fragment) = ctx.query_env.fragments.get(name) else {
                    let message = format!("There is no fragment \"{name}\".");
                    return Err(ServerError::new(message, Some(spread.pos)));
                };
                (Some(&fragment.node.type_condition), &fragment.node.selection_set)
            }
        };
        let applies = condition.is_none_or(|condition| {
            let (wanted, own) = (condition.node.on.node.as_str(), object.introspection_type_name());
            let abstracts = || ctx.schema_env.registry.implements.get(&*own);
            own == wanted || abstracts().is_some_and(|abstracts| abstracts.contains(wanted))
        });
        if applies {
            collect(ctx, object, &set.node, fields)?;
        }
    }
    Ok(())
}

/// Waits for all, and answers in their order.
async fn all<F: Future<Output = ServerResult<Value>>>(
    futures: impl ExactSizeIterator<Item = F>,
) -> ServerResult<Vec<Value>> {
    let mut values = Vec::with_capacity(futures.len());
    let mut late = Vec::new();
    let waited = join(futures, |at, value| match value {
        Some(value) => values.push(value),
        None => {
            late.push(at);
            values.push(Value::Null);
        }
    })
    .await?;
    for (at, value) in std::iter::zip(late, waited) {
        values[at] = value;
    }
    Ok(values)
}

/// Waits for all, and writes them as JSON. What is there at once is written at once, and leaves a hole for what is late.
async fn json<'a, F: Future<Output = ServerResult<Value>>>(
    [begin, end]: [u8; 2],
    likely_size: usize,
    futures: impl ExactSizeIterator<Item = F>,
    name: impl Fn(usize) -> Option<&'a str>,
) -> ServerResult<Value> {
    let mut json = Vec::with_capacity(likely_size * futures.len() + 2);
    let mut holes = Vec::new();
    json.push(begin);
    let late = join(futures, |at, value| {
        if at > 0 {
            json.push(b',');
        }
        if let Some(name) = name(at) {
            json.push(b'"');
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(b"\":");
        }
        match value {
            Some(value) => write(&value, &mut json),
            None => holes.push(json.len()),
        }
    })
    .await?;
    json.push(end);
    if late.is_empty() {
        return Ok(Value::Binary(json.into()));
    }
    let late_size: usize = late.iter().map(|value| likely_size_of(value, likely_size)).sum();
    let mut whole = Vec::with_capacity(json.len() + late_size);
    let mut written = 0;
    for (hole, value) in std::iter::zip(holes, late) {
        whole.extend_from_slice(&json[written..hole]);
        write(&value, &mut whole);
        written = hole;
    }
    whole.extend_from_slice(&json[written..]);
    Ok(Value::Binary(whole.into()))
}

/// How many bytes a value takes as JSON, more or less.
fn likely_size_of(value: &Value, otherwise: usize) -> usize {
    match value {
        Value::Binary(json) => json.len(),
        Value::Null => 4,
        _ => otherwise,
    }
}

/// Asks all, one after the other, and tells each one's answer, or that it is late; then waits for those, which are the
/// output. None is kept that need not be waited for: the next one takes its place in memory.
async fn join<F: Future<Output = ServerResult<Value>>>(
    futures: impl Iterator<Item = F>,
    mut told: impl FnMut(usize, Option<Value>),
) -> ServerResult<Vec<Value>> {
    let mut late = Vec::new();
    let mut waiting: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut unasked = Some(futures);
    std::future::poll_fn(|cx| {
        if let Some(futures) = unasked.take() {
            let mut place: Option<Pin<Box<F>>> = None;
            for (at, future) in futures.enumerate() {
                let mut future = match place.take() {
                    Some(mut place) => {
                        place.set(future);
                        place
                    }
                    None => Box::pin(future),
                };
                match future.as_mut().poll(cx)? {
                    Poll::Ready(value) => {
                        told(at, Some(value));
                        place = Some(future);
                    }
                    Poll::Pending => {
                        told(at, None);
                        waiting.push((waiting.len(), future));
                    }
                }
            }
            late.resize(waiting.len(), Value::Null);
        } else {
            let mut failed = None;
            waiting.retain_mut(|(at, future)| {
                if failed.is_some() {
                    return true;
                }
                match future.as_mut().poll(cx) {
                    Poll::Ready(Ok(value)) => late[*at] = value,
                    Poll::Ready(Err(error)) => failed = Some(error),
                    Poll::Pending => return true,
                }
                false
            });
            if let Some(error) = failed {
                return Poll::Ready(Err(error));
            }
        }
        match waiting.is_empty() {
            true => Poll::Ready(ServerResult::Ok(())),
            false => Poll::Pending,
        }
    })
    .await?;
    Ok(late)
}

/// Adds a field to an object; to one that is there already, what the same field was asked for elsewhere.
fn merge(tree: &mut IndexMap<Name, Value>, name: Name, value: Value) {
    let mut there = match tree.entry(name) {
        Entry::Vacant(place) => {
            place.insert(value);
            return;
        }
        Entry::Occupied(there) => there,
    };
    merge_values(there.get_mut(), value);
}

fn merge_values(there: &mut Value, value: Value) {
    match (there, value) {
        (Value::Object(tree), Value::Object(fields)) => {
            for (name, value) in fields {
                merge(tree, name, value);
            }
        }
        (Value::List(there), Value::List(items)) => {
            for (there, item) in std::iter::zip(there, items) {
                merge_values(there, item);
            }
        }
        // The same field of the same object has the same value.
        _ => {}
    }
}

/// Writes what a field answered as JSON.
pub fn write(value: &Value, json: &mut Vec<u8>) {
    match value {
        Value::Binary(written) => json.extend_from_slice(written),
        Value::String(text) => write_text(text, json),
        Value::Enum(name) => write_text(name, json),
        Value::Object(fields) => {
            json.push(b'{');
            for (at, (name, value)) in fields.into_iter().enumerate() {
                if at > 0 {
                    json.push(b',');
                }
                // Of a field the name is plain, but what a scalar has in it may be called anything.
                write_text(name, json);
                json.push(b':');
                write(value, json);
            }
            json.push(b'}');
        }
        Value::List(items) => {
            json.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    json.push(b',');
                }
                write(item, json);
            }
            json.push(b']');
        }
        scalar => serde_json::to_writer(json, scalar).expect("memory takes what is written"),
    }
}

fn write_text(text: &str, json: &mut Vec<u8>) {
    // Most texts have nothing to escape, and a look at all bytes at once is cheaper than one at each.
    let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text.bytes().fold(false, |found, byte| found | escaped(byte)) {
        serde_json::to_writer(json, text).expect("memory takes what is written");
        return;
    }
    json.reserve(text.len() + 2);
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}
