//! Pages, by the Relay cursor connections specification: <https://relay.dev/graphql/connections.htm>.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use async_graphql::{
    Context, Enum, InputValueResult, Object, OutputType, Scalar, ScalarType, SimpleObject, TypeName, Value,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::scalar::OwnScalar;
use super::{Batch, ContextExt, Eager, EagerList};
use crate::auth::Permission;
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id, Kind};
use crate::db::select::{
    self, ChildrenKey, Listed, Listing, PageRequest, ReadRow, Rows, SortColumn, SortValue,
};
use crate::error::{Error, Result};

/// Records on a page when the client does not say.
pub const DEFAULT_PAGE: i32 = 25;
/// Bytes of SQL that a filter may come to: some hundreds of conditions, which PostgreSQL plans in milliseconds.
const MAX_CONDITION: usize = 16 * 1024;
/// Records on a page at most.
pub const MAX_PAGE: i32 = 100;

/// The direction of a sort order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum OrderDirection {
    /// Smallest, earliest or first in the alphabet comes first.
    Asc,
    /// Largest, latest or last in the alphabet comes first.
    Desc,
}

/// A place in a list. Opaque: pass back what `pageInfo` or an edge gave you, in the same order of the same list.
#[derive(Debug, Clone)]
pub struct Cursor(String);

/// A place in a list. Opaque: pass back what `pageInfo` or an edge gave you, in the same order of the same list.
#[Scalar(specified_by_url = "https://relay.dev/graphql/connections.htm#sec-Cursor")]
impl ScalarType for Cursor {
    fn parse(value: Value) -> InputValueResult<Self> {
        Self::take(&value)
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

impl OwnScalar for Cursor {
    const NEEDED: &'static str = "A cursor, which is a text, is needed.";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self(text.clone())),
            _ => None,
        }
    }
}

/// What a cursor says: the list and order that it belongs to, and the last row seen.
#[derive(Serialize, Deserialize)]
struct Place(u32, SortValue, Uuid);

/// The paging arguments of a field, as they came.
#[derive(Debug, Clone, Default)]
pub struct PageArgs {
    pub first: Option<i32>,
    pub after: Option<Cursor>,
    pub last: Option<i32>,
    pub before: Option<Cursor>,
}

/// What makes a cursor valid in one list only: the tenant, the kind of row, the order and its direction.
fn list_tag<R: Listed>(tenant: Uuid, order: R::Order, descending: bool) -> u32 {
    let column = R::order_column(order).name();
    let direction = u8::from(descending);
    // FNV-1a: a check against mix-ups, not against malice. A forged cursor can only start the viewer's own list elsewhere.
    let bytes = tenant
        .as_bytes()
        .iter()
        .chain(R::TABLE.as_bytes())
        .chain(column.as_bytes())
        .chain([&direction]);
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

impl PageArgs {
    /// Paging arguments as a resolver got them.
    pub fn new(first: Option<i32>, after: Option<Cursor>, last: Option<i32>, before: Option<Cursor>) -> Self {
        Self {
            first,
            after,
            last,
            before,
        }
    }

    /// Checks the arguments for a list of `R` in this order.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a size out of range, contradicting arguments, or a cursor of another list.
    pub fn request<R: Listed>(
        &self,
        tenant: Uuid,
        order: R::Order,
        descending: bool,
    ) -> Result<PageRequest<R::Order>> {
        let bad = |message: &str| Err(Error::BadInput(message.to_owned()));
        let (size, cursor, backward) = match (self.first, self.last) {
            (Some(_), Some(_)) => return bad("Give either first or last, not both."),
            (Some(_), None) if self.before.is_some() => {
                return bad("Use before with last, and after with first.");
            }
            (None, Some(_)) if self.after.is_some() => {
                return bad("Use after with first, and before with last.");
            }
            (None, Some(last)) => (last, &self.before, true),
            (None, None) if self.before.is_some() => (DEFAULT_PAGE, &self.before, true),
            (first, None) => (first.unwrap_or(DEFAULT_PAGE), &self.after, false),
        };
        if !(1..=MAX_PAGE).contains(&size) {
            return Err(Error::BadInput(format!(
                "A page has between 1 and {MAX_PAGE} records."
            )));
        }
        let from = match cursor {
            None => None,
            Some(cursor) => {
                let tag = list_tag::<R>(tenant, order, descending);
                Some(read_cursor(cursor, tag, R::order_column(order))?)
            }
        };
        Ok(PageRequest {
            order,
            descending,
            limit: i64::from(size),
            from,
            backward,
        })
    }
}

fn read_cursor(cursor: &Cursor, tag: u32, column: SortColumn) -> Result<(SortValue, Uuid)> {
    let bad = || Error::BadInput("The cursor does not belong to this list and order.".to_owned());
    let json = URL_SAFE_NO_PAD.decode(&cursor.0).map_err(|_| bad())?;
    let Place(of, value, id) = serde_json::from_slice(&json).map_err(|_| bad())?;
    // Whoever has seen a cursor can write one; what PostgreSQL could not compare must not come there.
    if of == tag && column.holds(&value) {
        Ok((value, id))
    } else {
        Err(bad())
    }
}

/// A page of records.
pub type Connection<T> = Eager<Page<T>>;

/// What there is to say of a page.
pub struct Page<T: Listed> {
    rows: Arc<Rows<Arc<T>>>,
    page: PageRequest<T::Order>,
    tag: u32,
    total: Option<i64>,
}

impl<T: Listed> Page<T> {
    /// A page as it was read, with the number of all records when the client asked for it.
    pub fn new(
        tenant: Uuid,
        page: PageRequest<T::Order>,
        rows: Arc<Rows<Arc<T>>>,
        total: Option<i64>,
    ) -> Self {
        let tag = list_tag::<T>(tenant, page.order, page.descending);
        Self {
            rows,
            page,
            tag,
            total,
        }
    }

    fn cursor(&self, row: &T) -> Cursor {
        let place = Place(self.tag, row.order_value(self.page.order), row.row_id());
        Cursor(
            URL_SAFE_NO_PAD
                .encode(serde_json::to_vec(&place).expect("numbers and text can be written as JSON")),
        )
    }
}

/// Reads a page of a root list, counting all of it in the same round trip when the client asks for the count.
/// `listing` is asked again when the count needs a statement of its own.
///
/// Boxed, as [`nested`].
///
/// # Errors
/// [`Error::BadInput`] for paging arguments or filters that make no sense; and when the database fails.
pub fn paged<'a, T: ReadRow, L: Into<Listing> + 'a>(
    ctx: &'a Context<'_>,
    args: PageArgs,
    order: (T::Order, OrderDirection),
    listing: impl Fn() -> Result<L> + Send + Sync + 'a,
) -> BoxFuture<'a, Result<Connection<T>>> {
    Box::pin(root_page(ctx, args, order, listing))
}

async fn root_page<T: ReadRow, L: Into<Listing>>(
    ctx: &Context<'_>,
    args: PageArgs,
    (field, direction): (T::Order, OrderDirection),
    listing: impl Fn() -> Result<L> + Send + Sync,
) -> Result<Connection<T>> {
    let tenant = ctx.viewer()?.tenant_id;
    let request = args.request::<T>(tenant, field, direction == OrderDirection::Desc)?;
    let reading = ctx.reading()?;
    let wanted: Listing = listing()?.into();
    if wanted.size() > MAX_CONDITION {
        return Err(Error::BadInput("The filter has too many conditions.".to_owned()));
    }
    let counted = ctx.look_ahead().field("totalCount").exists();
    let asked = ctx.asked();
    let reader = Reader::new(reading.conn().await?, &asked);
    let count = async {
        let all: Listing = listing()?.into();
        select::count::<T>(&reader, all.into_predicate()).await
    };
    let (rows, total) = if wanted.is_search() {
        match T::found(reader, wanted, &request).await? {
            (rows, None) if counted => (rows, Some(count.await?)),
            found => found,
        }
    } else {
        let page = T::page(reader, wanted.into_predicate(), &request);
        if counted {
            let (rows, total) = futures::try_join!(page, count)?;
            (rows, Some(total))
        } else {
            (page.await?, None)
        }
    };
    Ok(Eager(Page::new(tenant, request, Arc::new(rows), total)))
}

/// A list that hangs on another record, such as the contacts of a company.
pub trait Children: Send + Sync + 'static {
    type Parent: Kind;
    type Row: ReadRow;
    /// What a viewer needs to be shown the list.
    const READ: Permission;
    /// The column that refers to the parent.
    const COLUMN: &'static str;
    /// What the list is sorted by, latest or largest first.
    const ORDER: <Self::Row as Listed>::Order;

    /// The parent that a row refers to.
    fn parent_of(row: &Self::Row) -> Option<Id<Self::Parent>>;
}

struct PageOf<C>(PhantomData<C>);

impl<C: Children> Batch for PageOf<C> {
    type Key = ChildrenKey<C::Parent, <C::Row as Listed>::Order>;
    type Value = Arc<Rows<Arc<C::Row>>>;
    const READ: Permission = C::READ;

    async fn load(reader: Reader<'_>, keys: &[Self::Key]) -> Result<ByKey<Self::Key, Self::Value>> {
        C::Row::children(reader, C::COLUMN, keys, C::parent_of).await
    }
}

struct CountOf<C>(PhantomData<C>);

impl<C: Children> Batch for CountOf<C> {
    type Key = Id<C::Parent>;
    type Value = i64;
    const READ: Permission = C::READ;

    async fn load(reader: Reader<'_>, keys: &[Self::Key]) -> Result<ByKey<Self::Key, i64>> {
        select::count_children::<C::Row, C::Parent>(&reader, C::COLUMN, keys).await
    }
}

/// Reads a page of a nested list; the same page of all siblings is read by one statement.
///
/// Boxed: the executor makes room for an object's largest resolver whenever it resolves any of its fields.
///
/// # Errors
/// [`Error::BadInput`] for paging arguments that make no sense; and when the database fails.
pub fn nested<'a, C: Children>(
    ctx: &'a Context<'_>,
    parent: Id<C::Parent>,
    args: PageArgs,
) -> BoxFuture<'a, Result<Connection<C::Row>>> {
    Box::pin(nested_page::<C>(ctx, parent, args))
}

async fn nested_page<C: Children>(
    ctx: &Context<'_>,
    parent: Id<C::Parent>,
    args: PageArgs,
) -> Result<Connection<C::Row>> {
    let tenant = ctx.viewer()?.tenant_id;
    let request = args.request::<C::Row>(tenant, C::ORDER, true)?;
    let page = ctx.load::<PageOf<C>>((parent, request.clone()));
    let (rows, total) = if ctx.look_ahead().field("totalCount").exists() {
        let (rows, total) = futures::try_join!(page, ctx.load::<CountOf<C>>(parent))?;
        (rows, total)
    } else {
        (page.await?, None)
    };
    let rows = rows.unwrap_or_else(|| Arc::new(Rows::none()));
    Ok(Eager(Page::new(tenant, request, rows, total)))
}

/// Where a page stands in its list.
#[derive(SimpleObject)]
pub struct PageInfo {
    /// Whether records follow this page.
    has_next_page: bool,
    /// Whether records come before this page.
    has_previous_page: bool,
    /// Cursor of the first record on this page.
    start_cursor: Option<Cursor>,
    /// Cursor of the last record on this page. Pass it as `after` to get the next page.
    end_cursor: Option<Cursor>,
}

impl<T: Listed + OutputType> TypeName for Page<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Connection", <T as OutputType>::type_name()).into()
    }
}

/// A page of records, with cursors to go on from.
#[Object(name_type)]
impl<T: Listed + OutputType + async_graphql::ObjectType> Page<T> {
    /// The records of this page, each with its cursor.
    async fn edges(&self) -> EagerList<Vec<Edge<T>>> {
        let edge = |row: &Arc<T>| Edge {
            cursor: self.cursor(row),
            node: row.clone(),
        };
        EagerList(self.rows.rows.iter().map(edge).collect())
    }

    /// The records of this page.
    async fn nodes(&self) -> EagerList<&[Arc<T>]> {
        EagerList(&self.rows.rows)
    }

    /// Where this page stands in the list.
    async fn page_info(&self) -> Eager<PageInfo> {
        let (ahead, behind) = (self.rows.more, self.page.from.is_some());
        let (next, previous) = if self.page.backward {
            (behind, ahead)
        } else {
            (ahead, behind)
        };
        Eager(PageInfo {
            has_next_page: next,
            has_previous_page: previous,
            start_cursor: self.rows.rows.first().map(|row| self.cursor(row)),
            end_cursor: self.rows.rows.last().map(|row| self.cursor(row)),
        })
    }

    /// The number of all records in the list, over all pages. Counted only when asked for.
    async fn total_count(&self) -> i32 {
        i32::try_from(self.total.unwrap_or_default()).unwrap_or(i32::MAX)
    }
}

/// A record on a page.
pub struct Edge<T> {
    cursor: Cursor,
    node: Arc<T>,
}

impl<T: Listed + OutputType> TypeName for Edge<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Edge", <T as OutputType>::type_name()).into()
    }
}

/// A record on a page, with its cursor.
#[Object(name_type)]
impl<T: Listed + OutputType + async_graphql::ObjectType> Edge<T> {
    /// The record.
    async fn node(&self) -> Eager<&Arc<T>> {
        Eager(&self.node)
    }

    /// The record's place in the list, for `after` and `before`.
    async fn cursor(&self) -> &Cursor {
        &self.cursor
    }
}
