//! What an operation asks for of the rows that are read for it: columns that no field shows need not be read, sent and
//! taken in.

use std::any::TypeId;
use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::Selectable;
use diesel::pg::{Pg, PgQueryBuilder};
use diesel::query_builder::{QueryBuilder, QueryFragment};
use diesel_async::AsyncPgConnection;
use uuid::Uuid;

/// A row that is kept in a table under an id.
pub trait Stored: Sized + Send + Sync + 'static {
    const TABLE: &'static str;
    /// Columns that may be NULL, and that nothing but the field of their name shows: `lost_reason` is `lostReason`,
    /// `owner_id` is `owner`. They are in groups: one is read when a document has a field for any of its columns. Each
    /// choice of groups is a statement that every connection keeps prepared, so there are three groups at most.
    const OPTIONAL: &'static [&'static [&'static str]] = &[];

    /// The row's id.
    fn row_id(&self) -> Uuid;
}

/// Groups of columns of a kind of row, at most.
const GROUPS: usize = 3;

/// The fields by which an operation may show what it reads.
#[derive(Default)]
pub struct Asked {
    /// Their names, as columns are written; nothing when they are not known.
    fields: Option<HashSet<String>>,
    /// What has been made of them.
    chosen: Mutex<Vec<(Choice, Arc<str>)>>,
}

/// A kind of row, and which columns of it are read.
type Choice = (TypeId, Columns);

/// Which columns are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// Those that are shown.
    Shown,
    /// Those that are shown, and one that is needed in any case.
    ShownAnd(&'static str),
    /// All of them.
    All,
}

impl Asked {
    /// Of rows nothing will be shown but by fields of these names.
    pub fn of<'a>(fields: impl IntoIterator<Item = &'a str>) -> Self {
        let snake_case = |field: &str| {
            let mut column = String::with_capacity(field.len() + 4);
            for letter in field.chars() {
                if letter.is_ascii_uppercase() {
                    column.push('_');
                }
                column.push(letter.to_ascii_lowercase());
            }
            column
        };
        Self {
            fields: Some(fields.into_iter().map(snake_case).collect()),
            chosen: Mutex::default(),
        }
    }

    fn shows(&self, column: &str) -> bool {
        let names = [column, column.trim_end_matches("_id")];
        (self.fields.as_ref()).is_none_or(|fields| names.iter().any(|name| fields.contains(*name)))
    }

    /// A list of columns, as SQL: NULL stands for those that are not read.
    fn columns<R: Stored + Selectable<Pg>>(&self, columns: Columns) -> Arc<str>
    where
        R::SelectExpression: QueryFragment<Pg>,
    {
        let choice = (TypeId::of::<R>(), columns);
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = chosen.iter().find(|(known, _)| *known == choice) {
            return text.clone();
        }
        let mut builder = PgQueryBuilder::default();
        (R::construct_selection().to_sql(&mut builder, &Pg)).expect("a list of columns is always SQL");
        let all = builder.finish();
        let wanted = |column: &str| match columns {
            Columns::Shown => self.shows(column),
            Columns::ShownAnd(needed) => column == needed || self.shows(column),
            Columns::All => true,
        };
        let left_out: HashSet<&str> = (R::OPTIONAL.iter())
            .filter(|group| !group.iter().any(|column| wanted(column)))
            .flat_map(|group| group.iter().copied())
            .collect();
        debug_assert!(R::OPTIONAL.len() <= GROUPS, "{}", R::TABLE);
        debug_assert!(
            left_out.iter().all(|name| all.contains(&format!("\"{name}\""))),
            "{left_out:?}"
        );
        let listed = all.split(", ").map(|column| {
            let name = column.rsplit('"').nth(1).unwrap_or_default();
            if left_out.contains(name) { "NULL" } else { column }
        });
        let text: Arc<str> = listed.collect::<Vec<_>>().join(", ").into();
        chosen.push((choice, text.clone()));
        text
    }
}

/// A connection to read from, for an operation that asks for some of what there is.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    conn: &'a AsyncPgConnection,
    asked: &'a Asked,
}

impl<'a> Reader<'a> {
    /// Reads for an operation that asks for this.
    pub fn new(conn: &'a AsyncPgConnection, asked: &'a Asked) -> Self {
        Self { conn, asked }
    }

    /// A list of columns of a kind of row, as SQL.
    pub(super) fn columns<R: Stored + Selectable<Pg>>(&self, columns: Columns) -> Arc<str>
    where
        R::SelectExpression: QueryFragment<Pg>,
    {
        self.asked.columns::<R>(columns)
    }
}

impl Deref for Reader<'_> {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        self.conn
    }
}
