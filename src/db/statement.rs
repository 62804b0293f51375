//! SQL text that PostgreSQL prepares once per connection.
//!
//! diesel never caches an `UPDATE`, nor anything made with `sql_query`: each such statement is prepared anew, which costs
//! a second round trip. Where that matters (everything on a request's path) we write the SQL and bind it here. The text
//! has a `?` for each value, in order, and must be a constant: it is the key of the statement cache.

use std::marker::PhantomData;

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{Array, HasSqlType, Untyped};

/// A bound value, whatever its type.
pub(super) type Fragment<'a> = Box<dyn QueryFragment<Pg> + Send + 'a>;

/// A constant SQL text with its values.
pub struct Statement<'a> {
    sql: &'static str,
    values: Vec<Fragment<'a>>,
}

/// Begins a statement; every `?` in the text wants one [`Statement::bind`].
pub fn statement<'a>(sql: &'static str) -> Statement<'a> {
    Statement {
        sql,
        values: Vec::with_capacity(8),
    }
}

impl<'a> Statement<'a> {
    /// Gives the next `?` its value.
    pub fn bind<ST, T>(mut self, value: T) -> Self
    where
        ST: Send + 'a,
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg> + Send + 'a,
    {
        self.values.push(Value::boxed::<ST>(value));
        self
    }

    /// Gives the next `?` one value of every row, as an array: `INSERT … SELECT * FROM unnest(?, …)` is one text for any
    /// number of rows, where a list of rows is another text for every number.
    pub fn column<ST, R, T>(self, rows: &'a [R], of: impl Fn(&'a R) -> T) -> Self
    where
        ST: Send + 'static,
        Pg: HasSqlType<ST> + HasSqlType<Array<ST>>,
        T: Send + 'a,
        Vec<T>: ToSql<Array<ST>, Pg>,
    {
        self.bind::<Array<ST>, _>(rows.iter().map(of).collect::<Vec<T>>())
    }
}

/// A value to bind, with its SQL type.
pub(super) struct Value<ST, T> {
    value: T,
    sql_type: PhantomData<fn() -> ST>,
}

impl<'a, T: Send + 'a> Value<(), T> {
    pub(super) fn boxed<ST>(value: T) -> Fragment<'a>
    where
        ST: Send + 'a,
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg>,
    {
        Box::new(Value::<ST, T> {
            value,
            sql_type: PhantomData,
        })
    }
}

impl<ST, T> QueryFragment<Pg> for Value<ST, T>
where
    Pg: HasSqlType<ST>,
    T: ToSql<ST, Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param::<ST, T>(&self.value)
    }
}

/// Writes a text, taking a value for each `?`.
pub(super) fn push<'b>(
    sql: &str,
    values: &mut std::slice::Iter<'b, Fragment<'_>>,
    out: &mut AstPass<'_, 'b, Pg>,
) -> QueryResult<()> {
    // diesel walks a statement several times for each time that it is sent, so this looks for the places quickly.
    let mut written = 0;
    for at in memchr::memchr_iter(b'?', sql.as_bytes()) {
        let value = values
            .next()
            .ok_or_else(|| diesel::result::Error::QueryBuilderError("a `?` without a value".into()))?;
        out.push_sql(&sql[written..at]);
        value.walk_ast(out.reborrow())?;
        written = at + 1;
    }
    out.push_sql(&sql[written..]);
    Ok(())
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // No `unsafe_to_cache_prepared` here: that is the point.
        push(self.sql, &mut self.values.iter(), &mut out)
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    // Without an id of its own the statement is cached by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}
