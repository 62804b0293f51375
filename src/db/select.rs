//! Lists: filters, keyset pages and the first few per parent.
//!
//! diesel's own query builder has no row comparison for keysets and no LATERAL, and boxed expressions are dear to
//! compile; so a list is assembled here from SQL text. Columns, their types and the selection still come from diesel's
//! schema, and every value is bound: what a client sends never becomes text.

use std::marker::PhantomData;
use std::sync::Arc;

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{Array, BigInt, HasSqlType, SingleValue, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{Column, Expression, QueryResult, Selectable};
use diesel_async::methods::LoadQuery;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::asked::{Columns, Reader, Stored};
use super::id::{ByKey, Id};
use super::statement::{Fragment, Value};
use crate::error::{Error, Result};

/// A condition on the rows of one table.
#[derive(Default)]
pub struct Predicate {
    sql: String,
    values: Vec<Fragment<'static>>,
    /// How many conditions it is made of.
    conditions: usize,
}

/// Conditions of one list at most.
const MAX_CONDITIONS: usize = 200;

impl Predicate {
    /// SQL with a `?` for each value. Only for texts of our own.
    pub fn sql(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            values: Vec::new(),
            conditions: 1,
        }
    }

    /// Gives the next `?` its value.
    pub fn bind<ST, T>(mut self, value: T) -> Self
    where
        ST: Send + 'static,
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg> + Send + 'static,
    {
        self.values.push(Value::boxed::<ST>(value));
        self
    }

    /// `column operator value`, with the value of the column's type.
    pub fn compare<C, T>(_column: C, operator: &str, value: T) -> Self
    where
        C: Column,
        C::SqlType: SingleValue + Send + 'static,
        Pg: HasSqlType<C::SqlType>,
        T: ToSql<C::SqlType, Pg> + Send + 'static,
    {
        Self::sql(format!("{} {operator} ?", C::NAME)).bind::<C::SqlType, T>(value)
    }

    /// `column = any(values)`.
    pub fn any_of<C, T>(_column: C, values: Vec<T>) -> Self
    where
        C: Column,
        C::SqlType: Send + 'static,
        Pg: HasSqlType<Array<C::SqlType>>,
        Vec<T>: ToSql<Array<C::SqlType>, Pg> + Send + 'static,
        Array<C::SqlType>: Send,
    {
        Self::sql(format!("{} = any(?)", C::NAME)).bind::<Array<C::SqlType>, Vec<T>>(values)
    }

    /// Whether the column is NULL.
    pub fn is_null<C: Column>(_column: C, null: bool) -> Self {
        Self::sql(format!(
            "{} IS {}",
            C::NAME,
            if null { "NULL" } else { "NOT NULL" }
        ))
    }

    /// The column refers to a row of `table` for which `inner` holds.
    pub fn refers_to<C: Column>(_column: C, table: &str, inner: Predicate) -> Self {
        if inner.is_empty() {
            return Self::sql(format!("{} IS NOT NULL", C::NAME));
        }
        Self {
            sql: format!("{} IN (SELECT id FROM {table} WHERE {})", C::NAME, inner.sql),
            values: inner.values,
            conditions: inner.conditions + 1,
        }
    }

    /// All of them hold. Without any, everything matches.
    pub fn all(parts: impl IntoIterator<Item = Predicate>) -> Self {
        Self::join(parts, " AND ")
    }

    /// At least one of them holds. Without any, nothing matches.
    pub fn any(parts: impl IntoIterator<Item = Predicate>) -> Self {
        let mut parts = parts.into_iter().peekable();
        if parts.peek().is_none() {
            return Self::sql("false");
        }
        // An empty part matches everything, and must not vanish from an alternative.
        Self::join(
            parts.map(|part| if part.is_empty() { Self::sql("true") } else { part }),
            " OR ",
        )
    }

    /// It does not hold; NULL counts as not holding.
    pub fn negate(self) -> Self {
        if self.is_empty() {
            return Self::sql("false");
        }
        Self {
            sql: format!("(({}) IS NOT TRUE)", self.sql),
            values: self.values,
            conditions: self.conditions + 1,
        }
    }

    /// The length of its text, as a measure of what it costs to plan.
    pub fn size(&self) -> usize {
        self.sql.len()
    }

    /// Whether this matches everything.
    pub fn is_empty(&self) -> bool {
        self.sql.is_empty()
    }

    /// Refuses what no person would ask for, and what would take PostgreSQL long to plan.
    fn bounded(self) -> Result<Self> {
        if self.conditions > MAX_CONDITIONS {
            let message = format!("A filter has {MAX_CONDITIONS} conditions at most.");
            return Err(Error::BadInput(message));
        }
        Ok(self)
    }

    /// Whether a statement with it is worth keeping prepared. Each combination of conditions is a text of its own: kept
    /// without bound, they would fill the memory of the server and of PostgreSQL.
    fn is_common(&self) -> bool {
        self.conditions <= 1
    }

    fn join(parts: impl IntoIterator<Item = Predicate>, word: &str) -> Self {
        let mut whole = Self::default();
        let mut several = false;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            if !whole.sql.is_empty() {
                whole.sql.push_str(word);
                several = true;
            }
            whole.sql.push_str(&part.sql);
            whole.values.extend(part.values);
            whole.conditions += part.conditions;
        }
        if several {
            whole.sql = format!("({})", whole.sql);
        }
        whole
    }
}

/// The rows of a list: all that match a condition, or of these the ones that a search finds.
pub struct Listing {
    search: Option<Predicate>,
    condition: Predicate,
}

impl From<Predicate> for Listing {
    fn from(condition: Predicate) -> Self {
        Self {
            search: None,
            condition,
        }
    }
}

impl Listing {
    /// What `search` finds of it: the call of a function that answers, for each row it finds, its `place` (`ctid`), the
    /// `id` and every column that the list can be sorted by.
    pub fn found_by(self, search: Predicate) -> Self {
        Self {
            search: Some(search),
            ..self
        }
    }

    /// The length of its text, as a measure of what it costs to plan.
    pub fn size(&self) -> usize {
        self.condition.size()
    }

    /// Whether it is what a search finds: then [`ReadRow::found`] reads it for the least.
    pub fn is_search(&self) -> bool {
        self.search.is_some()
    }

    /// As one condition on the rows.
    pub fn into_predicate(self) -> Predicate {
        let found = self.search.map(|search| Predicate {
            sql: format!("id IN (SELECT id FROM {})", search.sql),
            ..search
        });
        Predicate::all(found.into_iter().chain([self.condition]))
    }

    /// As a SELECT of the place, the id and one of the columns that it can be sorted by.
    fn into_found<R: Listed>(self, column: &str) -> Predicate {
        match self.search {
            Some(search) if self.condition.is_empty() => Predicate {
                sql: format!("SELECT place, id, {column} FROM {}", search.sql),
                ..search
            },
            _ => {
                let matching = self.into_predicate();
                Predicate {
                    sql: format!(
                        "SELECT ctid AS place, id, {column} FROM {} WHERE {}",
                        R::TABLE,
                        matching.sql
                    ),
                    ..matching
                }
            }
        }
    }
}

/// `text` as a pattern that finds it anywhere, for LIKE and ILIKE.
pub fn contains_pattern(text: &str) -> String {
    format!("%{}%", escape_pattern(text))
}

/// `text` with the signs that LIKE gives a meaning made ordinary.
pub fn escape_pattern(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// A row that can be listed: what it can be sorted by. Its id breaks ties, so that every list has one order.
pub trait Listed: Stored {
    /// What lists of it can be sorted by. Each is a NOT NULL column.
    type Order: Copy + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static;

    /// The column of a sort order, with what it holds.
    fn order_column(order: Self::Order) -> SortColumn;
    /// This row's place in a sort order.
    fn order_value(&self, order: Self::Order) -> SortValue;
}

/// A column that rows are sorted by, by what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortColumn {
    Time(&'static str),
    Text(&'static str),
    Int(&'static str),
}

impl SortColumn {
    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time(name) | Self::Text(name) | Self::Int(name) => name,
        }
    }

    /// Whether a value that a client handed back can be compared with the column: it is of its type, and PostgreSQL can
    /// hold it.
    pub fn holds(self, value: &SortValue) -> bool {
        match (self, value) {
            (Self::Time(_), SortValue::Time(micros)) => {
                let time = chrono::DateTime::from_timestamp_micros(*micros);
                time.is_some_and(|time| (0..=9999).contains(&chrono::Datelike::year(&time)))
            }
            (Self::Text(_), SortValue::Text(text)) => !text.contains('\0'),
            (Self::Int(_), SortValue::Int(_)) => true,
            _ => false,
        }
    }
}

/// A value that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum SortValue {
    /// Microseconds since 1970.
    #[serde(rename = "t")]
    Time(i64),
    #[serde(rename = "s")]
    Text(String),
    #[serde(rename = "i")]
    Int(i64),
}

/// A page to be read: so many rows after, or before, a place in an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageRequest<O> {
    pub order: O,
    pub descending: bool,
    /// Rows at most.
    pub limit: i64,
    /// Read from here on, this row not included.
    pub from: Option<(SortValue, Uuid)>,
    /// Read towards the beginning of the list.
    pub backward: bool,
}

/// Rows of a page in the list's order.
#[derive(Debug, Clone)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    /// Whether the list goes on beyond the limit, in the direction of reading.
    pub more: bool,
}

impl<T> Rows<T> {
    /// An empty page.
    pub fn none() -> Self {
        Self {
            rows: Vec::new(),
            more: false,
        }
    }

    /// Makes a page of rows that were read with a limit of one more than wanted.
    fn trim<O>(mut rows: Vec<T>, page: &PageRequest<O>) -> Self {
        let more = rows.len() as i64 > page.limit;
        rows.truncate(usize::try_from(page.limit).unwrap_or_default());
        if page.backward {
            rows.reverse();
        }
        Self { rows, more }
    }
}

impl<O: Copy> PageRequest<O> {
    fn keyset<R: Listed<Order = O>>(&self) -> Predicate {
        let column = R::order_column(self.order).name();
        let sign = if self.descending == self.backward {
            '>'
        } else {
            '<'
        };
        let Some((value, id)) = &self.from else {
            return Predicate::default();
        };
        let keyset = Predicate::sql(format!("({column}, id) {sign} (?, ?)"));
        let keyset = match value {
            SortValue::Time(micros) => {
                let time = chrono::DateTime::from_timestamp_micros(*micros).unwrap_or_default();
                keyset.bind::<Timestamptz, _>(time)
            }
            SortValue::Text(text) => keyset.bind::<Text, _>(text.clone()),
            SortValue::Int(number) => keyset.bind::<BigInt, _>(*number),
        };
        keyset.bind::<SqlUuid, _>(*id)
    }

    fn order_by<R: Listed<Order = O>>(&self) -> String {
        let column = R::order_column(self.order).name();
        let direction = if self.descending == self.backward {
            "ASC"
        } else {
            "DESC"
        };
        format!("ORDER BY {column} {direction}, id {direction}")
    }
}

/// A SELECT of what diesel reads as `ST`.
pub struct Select<ST> {
    sql: String,
    values: Vec<Fragment<'static>>,
    cached: bool,
    row: PhantomData<fn() -> ST>,
}

impl Columns {
    /// Those of the rows for which a condition holds. There are many conditions, and connections keep a statement for each
    /// already, so they get no choice of columns besides.
    fn under(condition: &Predicate) -> Self {
        if condition.is_empty() {
            Self::Shown
        } else {
            Self::All
        }
    }
}

/// The type of the columns of a row.
type ColumnsOf<R> = <<R as Selectable<Pg>>::SelectExpression as Expression>::SqlType;

impl<ST> Select<ST> {
    fn new(sql: String, values: Vec<Fragment<'static>>, cached: bool) -> Self {
        Self {
            sql,
            values,
            cached,
            row: PhantomData,
        }
    }

    /// Reads the rows, and makes something of each as it comes.
    async fn load<R: Send, T>(self, conn: &AsyncPgConnection, make: impl FnMut(R) -> T) -> Result<Vec<T>>
    where
        for<'q> Self: LoadQuery<'q, &'q AsyncPgConnection, R>,
    {
        let mut conn = conn;
        let rows = RunQueryDsl::load_stream(self, &mut conn).await?;
        Ok(rows.map_ok(make).try_collect().await?)
    }
}

impl<ST> QueryFragment<Pg> for Select<ST> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !self.cached {
            out.unsafe_to_cache_prepared();
        }
        super::statement::push(&self.sql, &mut self.values.iter(), &mut out)
    }
}

impl<ST> QueryId for Select<ST> {
    type QueryId = ();
    // Cached by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<ST> Query for Select<ST> {
    type SqlType = ST;
}

/// How many rows match.
///
/// # Errors
/// When the database fails.
pub fn count<R: Listed>(conn: &AsyncPgConnection, predicate: Predicate) -> BoxFuture<'_, Result<i64>> {
    Box::pin(async move {
        let predicate = predicate.bounded()?;
        let cached = predicate.is_common();
        let wanted = if predicate.is_empty() {
            "true"
        } else {
            &predicate.sql
        };
        let sql = format!("SELECT count(*) FROM {} WHERE {wanted}", R::TABLE);
        let select = Select::<BigInt>::new(sql, predicate.values, cached);
        Ok(select.get_result(&mut &*conn).await?)
    })
}

/// Reads rows by their ids; an id without a row is left out.
///
/// # Errors
/// When the database fails.
pub fn by_ids<'a, R>(reader: Reader<'a>, ids: &[Id<R>]) -> BoxFuture<'a, Result<ByKey<Id<R>, Arc<R>>>>
where
    R: Stored + Selectable<Pg>,
    R::SelectExpression: QueryFragment<Pg>,
    for<'q> Select<ColumnsOf<R>>: LoadQuery<'q, &'q AsyncPgConnection, R>,
{
    let columns = reader.columns::<R>(Columns::Shown);
    let sql = format!("SELECT {columns} FROM {} WHERE id = any(?)", R::TABLE);
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let values = vec![Value::boxed::<Array<SqlUuid>>(ids)];
    let select = Select::<ColumnsOf<R>>::new(sql, values, true);
    Box::pin(async move {
        let by_id = |row: R| (Id::from_uuid(row.row_id()), Arc::new(row));
        Ok(select.load(&reader, by_id).await?.into_iter().collect())
    })
}

/// The key of a page of children: the parent, and which page of its children.
pub type ChildrenKey<P, O> = (Id<P>, PageRequest<O>);

/// Pages of children by their keys.
pub type ChildPages<P, R> = ByKey<ChildrenKey<P, <R as Listed>::Order>, Arc<Rows<Arc<R>>>>;

/// A page of what a search finds, and how many rows it finds in all, if that is known.
pub type Found<R> = (Rows<Arc<R>>, Option<i64>);

/// A listed row that diesel can read. Implemented for every row that derives diesel's `Queryable` and `Selectable`.
pub trait ReadRow: Listed {
    /// Reads a page of the rows that match.
    ///
    /// # Errors
    /// When the database fails.
    fn page<'a>(
        reader: Reader<'a>,
        predicate: Predicate,
        page: &'a PageRequest<Self::Order>,
    ) -> BoxFuture<'a, Result<Rows<Arc<Self>>>>;

    /// Reads a page of what a search finds, and how many rows it finds in all. Both in one statement, because searching
    /// is dear and reading twenty rows is not. The number is not known when a page beyond the last one is asked for.
    ///
    /// # Errors
    /// When the database fails.
    fn found<'a>(
        reader: Reader<'a>,
        listing: Listing,
        page: &'a PageRequest<Self::Order>,
    ) -> BoxFuture<'a, Result<Found<Self>>>;

    /// Reads one page of children for each of many parents: a statement for each different page that is asked for,
    /// which is one, unless a document asks for several under aliases or several ask together. Every key has an entry in the
    /// answer.
    ///
    /// # Errors
    /// When the database fails.
    fn children<'a, P: 'static>(
        reader: Reader<'a>,
        column: &'static str,
        keys: &'a [ChildrenKey<P, Self::Order>],
        parent_of: fn(&Self) -> Option<Id<P>>,
    ) -> BoxFuture<'a, Result<ChildPages<P, Self>>>;
}

impl<R> ReadRow for R
where
    R: Listed + Selectable<Pg>,
    R::SelectExpression: QueryFragment<Pg>,
    for<'q> Select<ColumnsOf<R>>: LoadQuery<'q, &'q AsyncPgConnection, R>,
    for<'q> Select<(ColumnsOf<R>, BigInt)>: LoadQuery<'q, &'q AsyncPgConnection, (R, i64)>,
{
    fn page<'a>(
        reader: Reader<'a>,
        predicate: Predicate,
        page: &'a PageRequest<R::Order>,
    ) -> BoxFuture<'a, Result<Rows<Arc<R>>>> {
        let predicate = match predicate.bounded() {
            Ok(predicate) => predicate,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let cached = predicate.is_common();
        let columns = reader.columns::<R>(Columns::under(&predicate));
        let matching = Predicate::all([predicate, page.keyset::<R>()]);
        let wanted = if matching.is_empty() {
            "true"
        } else {
            &matching.sql
        };
        let sql = format!(
            "SELECT {columns} FROM {} WHERE {wanted} {} LIMIT ?",
            R::TABLE,
            page.order_by::<R>()
        );
        let mut values = matching.values;
        values.push(Value::boxed::<BigInt>(page.limit + 1));
        let select = Select::<ColumnsOf<R>>::new(sql, values, cached);
        Box::pin(async move { Ok(Rows::trim(select.load(&reader, Arc::new).await?, page)) })
    }

    fn found<'a>(
        reader: Reader<'a>,
        listing: Listing,
        page: &'a PageRequest<R::Order>,
    ) -> BoxFuture<'a, Result<Found<R>>> {
        let column = R::order_column(page.order).name();
        let columns = reader.columns::<R>(Columns::under(&listing.condition));
        let found = match listing.into_found::<R>(column).bounded() {
            Ok(found) => found,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let cached = found.is_common();
        let keyset = page.keyset::<R>();
        let after = if keyset.is_empty() { "" } else { " WHERE " };
        let order = page.order_by::<R>();
        // Rows are read by their places, which is cheaper than by their ids and holds within the one statement. The
        // policies are asked all the same.
        let sql = format!(
            "WITH found AS ({}) SELECT {columns}, (SELECT count(*) FROM found) FROM {} \
             WHERE ctid = ANY (ARRAY(SELECT place FROM found{after}{} {order} LIMIT ?)) {order}",
            found.sql,
            R::TABLE,
            keyset.sql
        );
        let mut values = found.values;
        values.extend(keyset.values);
        values.push(Value::boxed::<BigInt>(page.limit + 1));
        let select = Select::<(ColumnsOf<R>, BigInt)>::new(sql, values, cached);
        Box::pin(async move {
            let mut total = page.from.is_none().then_some(0);
            let row = |(row, all): (R, i64)| {
                total = Some(all);
                Arc::new(row)
            };
            let rows = select.load(&reader, row).await?;
            Ok((Rows::trim(rows, page), total))
        })
    }

    fn children<'a, P: 'static>(
        reader: Reader<'a>,
        column: &'static str,
        keys: &'a [ChildrenKey<P, R::Order>],
        parent_of: fn(&R) -> Option<Id<P>>,
    ) -> BoxFuture<'a, Result<ChildPages<P, R>>> {
        Box::pin(async move {
            let mut pages: ByKey<&PageRequest<R::Order>, Vec<Id<P>>> = ByKey::default();
            for (parent, page) in keys {
                pages.entry(page).or_default().push(*parent);
            }
            // All of them are on their way together.
            let found = pages.into_iter().map(async |(page, parents)| {
                let keyset = page.keyset::<R>();
                let and = if keyset.is_empty() { "" } else { " AND " };
                let sql = format!(
                    "SELECT child.* FROM unnest(?) AS parent (id) CROSS JOIN LATERAL \
                     (SELECT {} FROM {} WHERE {column} = parent.id{and}{} {} LIMIT ?) AS child",
                    reader.columns::<R>(Columns::ShownAnd(column)),
                    R::TABLE,
                    keyset.sql,
                    page.order_by::<R>()
                );
                let ids: Vec<Uuid> = parents.iter().map(|parent| parent.uuid()).collect();
                let mut values = vec![Value::boxed::<Array<SqlUuid>>(ids)];
                values.extend(keyset.values);
                values.push(Value::boxed::<BigInt>(page.limit + 1));
                let select = Select::<ColumnsOf<R>>::new(sql, values, true);
                let rows: Vec<Arc<R>> = select.load(&reader, Arc::new).await?;
                let mut found: ByKey<Id<P>, Vec<Arc<R>>> =
                    parents.iter().map(|parent| (*parent, Vec::new())).collect();
                for row in rows {
                    if let Some(siblings) = parent_of(&row).and_then(|parent| found.get_mut(&parent)) {
                        siblings.push(row);
                    }
                }
                let trimmed = found
                    .into_iter()
                    .map(|(parent, rows)| ((parent, page.clone()), Arc::new(Rows::trim(rows, page))));
                Ok(trimmed.collect::<Vec<_>>())
            });
            let found: Result<Vec<_>> = futures::future::try_join_all(found).await;
            Ok(found?.into_iter().flatten().collect())
        })
    }
}

/// Counts the children of each of many parents. Every parent has an entry in the answer.
///
/// # Errors
/// When the database fails.
pub fn count_children<'a, R: Listed, P>(
    conn: &'a AsyncPgConnection,
    column: &str,
    parents: &'a [Id<P>],
) -> BoxFuture<'a, Result<ByKey<Id<P>, i64>>> {
    let sql = format!(
        "SELECT {column}, count(*) FROM {} WHERE {column} = any(?) GROUP BY {column}",
        R::TABLE
    );
    let ids: Vec<Uuid> = parents.iter().map(|parent| parent.uuid()).collect();
    let values = vec![Value::boxed::<Array<SqlUuid>>(ids)];
    Box::pin(async move {
        let select = Select::<(SqlUuid, BigInt)>::new(sql, values, true);
        let counts: Vec<(Uuid, i64)> = RunQueryDsl::load(select, &mut &*conn).await?;
        let counts: ByKey<Uuid, i64> = counts.into_iter().collect();
        let of = |parent: &Id<P>| counts.get(&parent.uuid()).copied().unwrap_or_default();
        Ok(parents.iter().map(|parent| (*parent, of(parent))).collect())
    })
}
