//! Typed filters. Several operators in one filter must all hold.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::{InputObject, InputType, TypeName};
use diesel::Column;
use diesel::pg::Pg;
use diesel::serialize::ToSql;
use diesel::sql_types::{Array, Date as SqlDate, Integer, Text, Timestamptz, Uuid as SqlUuid};

use super::Batch;
use super::scalar::{CurrencyCode, Date, DateTime, Decimal, MoneyInput};
use crate::auth::Rights;
use crate::db::id::{Id, Kind};
use crate::db::select::{Listed, Predicate, contains_pattern, escape_pattern};
use crate::error::{Error, Result};

/// Values in one `in` list at most.
const MAX_LIST: usize = 100;

fn bounded<T>(list: Vec<T>) -> Result<Vec<T>> {
    if list.len() > MAX_LIST {
        return Err(Error::BadInput(format!(
            "A list in a filter has at most {MAX_LIST} values."
        )));
    }
    Ok(list)
}

/// Characters of a text to look for at most.
const MAX_TEXT: usize = 1_000;

/// A text to look for: none is so long, and none in PostgreSQL has a NUL.
///
/// # Errors
/// [`Error::BadInput`] for a text that cannot be looked for.
pub fn sought(text: String) -> Result<String> {
    if text.len() > MAX_TEXT * 4 || text.chars().count() > MAX_TEXT || text.contains('\0') {
        return Err(Error::BadInput(format!(
            "A text to look for has {MAX_TEXT} characters at most, and no NUL among them."
        )));
    }
    Ok(text)
}

/// Conditions on a text. Upper and lower case differ in `eq` and `in`, and are alike in `contains` and `startsWith`. One
/// that is null is none: use `isNull` for what is missing.
#[derive(Debug, Clone, Default, InputObject)]
pub struct StringFilter {
    /// Is exactly this text.
    pub eq: Option<String>,
    /// Is one of these texts; 100 at most.
    #[graphql(name = "in")]
    pub among: Option<Vec<String>>,
    /// Contains this text somewhere.
    pub contains: Option<String>,
    /// Begins with this text.
    pub starts_with: Option<String>,
    /// Is missing (`true`) or there (`false`).
    pub is_null: Option<bool>,
}

impl StringFilter {
    /// The condition on a column of texts.
    ///
    /// # Errors
    /// [`Error::BadInput`] for an overlong list.
    pub fn on<C: Column>(self, column: C) -> Result<Predicate> {
        let name = C::NAME;
        let compare = |operator: &str, text: String| {
            Predicate::sql(format!("{name} {operator} ?")).bind::<Text, _>(text)
        };
        let checked = |text: Option<String>| text.map(sought).transpose();
        let (eq, contains, starts_with) = (
            checked(self.eq)?,
            checked(self.contains)?,
            checked(self.starts_with)?,
        );
        let among: Option<Vec<_>> = (self.among)
            .map(|texts| bounded(texts)?.into_iter().map(sought).collect())
            .transpose()?;
        Ok(Predicate::all(
            [
                eq.map(|text| compare("=", text)),
                among.map(|texts| Predicate::sql(format!("{name} = any(?)")).bind::<Array<Text>, _>(texts)),
                contains.map(|text| compare("ILIKE", contains_pattern(&text))),
                starts_with.map(|text| compare("ILIKE", format!("{}%", escape_pattern(&text)))),
                self.is_null.map(|null| Predicate::is_null(column, null)),
            ]
            .into_iter()
            .flatten(),
        ))
    }
}

/// Conditions on a moment. One that is null is none: use `isNull` for what is missing.
#[derive(Debug, Clone, Default, InputObject)]
pub struct DateTimeFilter {
    /// After this moment.
    pub gt: Option<DateTime>,
    /// At this moment or after.
    pub gte: Option<DateTime>,
    /// Before this moment.
    pub lt: Option<DateTime>,
    /// At this moment or before.
    pub lte: Option<DateTime>,
    /// Is missing (`true`) or there (`false`).
    pub is_null: Option<bool>,
}

impl DateTimeFilter {
    /// The condition on a column of moments.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a moment that the database cannot hold.
    pub fn on<C: Column>(self, column: C) -> Result<Predicate> {
        let bounds = [(">", self.gt), (">=", self.gte), ("<", self.lt), ("<=", self.lte)];
        for moment in bounds.iter().filter_map(|(_, moment)| *moment) {
            if !super::input::is_plausible(moment.0) {
                return Err(Error::BadInput(
                    "The date is outside the years 1900 to 9999.".to_owned(),
                ));
            }
        }
        let compare = |(operator, moment): (&str, Option<DateTime>)| {
            moment.map(|moment| {
                Predicate::sql(format!("{} {operator} ?", C::NAME)).bind::<Timestamptz, _>(moment.0)
            })
        };
        let null = self.is_null.map(|null| Predicate::is_null(column, null));
        Ok(Predicate::all(bounds.into_iter().filter_map(compare).chain(null)))
    }
}

/// Conditions on a day. One that is null is none: use `isNull` for what is missing.
#[derive(Debug, Clone, Default, InputObject)]
pub struct DateFilter {
    /// On this day.
    pub eq: Option<Date>,
    /// On this day or after.
    pub gte: Option<Date>,
    /// On this day or before.
    pub lte: Option<Date>,
    /// Is missing (`true`) or there (`false`).
    pub is_null: Option<bool>,
}

impl DateFilter {
    /// The condition on a column of days.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a day that the database cannot hold.
    pub fn on<C: Column>(self, column: C) -> Result<Predicate> {
        let bounds = [("=", self.eq), (">=", self.gte), ("<=", self.lte)];
        for day in bounds.iter().filter_map(|(_, day)| *day) {
            if !super::input::is_plausible_day(day.0) {
                return Err(Error::BadInput(
                    "The date is outside the years 1900 to 9999.".to_owned(),
                ));
            }
        }
        let compare = |(operator, day): (&str, Option<Date>)| {
            day.map(|day| Predicate::sql(format!("{} {operator} ?", C::NAME)).bind::<SqlDate, _>(day.0))
        };
        let null = self.is_null.map(|null| Predicate::is_null(column, null));
        Ok(Predicate::all(bounds.into_iter().filter_map(compare).chain(null)))
    }
}

/// Conditions on a whole number. One that is null is none: use `isNull` for what is missing.
#[derive(Debug, Clone, Default, InputObject)]
pub struct IntFilter {
    /// Is this number.
    pub eq: Option<i32>,
    /// Is this number or greater.
    pub gte: Option<i32>,
    /// Is this number or less.
    pub lte: Option<i32>,
    /// Is missing (`true`) or there (`false`).
    pub is_null: Option<bool>,
}

impl IntFilter {
    /// The condition on a column of whole numbers.
    pub fn on<C: Column>(self, column: C) -> Predicate {
        let compare = |(operator, number): (&str, Option<i32>)| {
            number
                .map(|number| Predicate::sql(format!("{} {operator} ?", C::NAME)).bind::<Integer, _>(number))
        };
        let null = self.is_null.map(|null| Predicate::is_null(column, null));
        let bounds = [("=", self.eq), (">=", self.gte), ("<=", self.lte)];
        Predicate::all(bounds.into_iter().filter_map(compare).chain(null))
    }
}

/// Conditions on an amount of money. Only amounts in the given currency match.
#[derive(Debug, Clone, InputObject)]
pub struct MoneyFilter {
    /// The currency.
    pub currency_code: CurrencyCode,
    /// Is this amount or more.
    pub gte: Option<Decimal>,
    /// Is this amount or less.
    pub lte: Option<Decimal>,
}

impl MoneyFilter {
    /// The condition on a column of minor units and the column of their currency.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an amount that is none.
    pub fn on<A, C>(self, _amount: A, currency: C) -> Result<Predicate>
    where
        A: Column<SqlType = diesel::sql_types::BigInt>,
        C: Column<SqlType = Text>,
    {
        let currency_code = self.currency_code;
        let bound = |operator: &str, amount: Option<Decimal>| -> Result<Option<Predicate>> {
            let Some(amount) = amount else { return Ok(None) };
            let units = MoneyInput {
                amount,
                currency_code,
            }
            .minor_units("amount")
            .map_err(|problem| Error::BadInput(problem.message))?;
            Ok(Some(
                Predicate::sql(format!("{} {operator} ?", A::NAME))
                    .bind::<diesel::sql_types::BigInt, _>(units),
            ))
        };
        let same = Predicate::compare(currency, "=", currency_code);
        Ok(Predicate::all(
            [Some(same), bound(">=", self.gte)?, bound("<=", self.lte)?]
                .into_iter()
                .flatten(),
        ))
    }
}

/// Conditions on a value of a fixed set. One that is null is none.
#[derive(Debug, Clone, InputObject)]
#[graphql(name_type)]
pub struct EnumFilter<T: InputType> {
    /// Is this value.
    pub eq: Option<T>,
    /// Is one of these values.
    #[graphql(name = "in")]
    pub among: Option<Vec<T>>,
}

impl<T: InputType> TypeName for EnumFilter<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Filter", <T as InputType>::type_name()).into()
    }
}

impl<T: InputType> EnumFilter<T> {
    /// The condition on a column of such values.
    ///
    /// # Errors
    /// [`Error::BadInput`] for an overlong list.
    pub fn on<C>(self, column: C) -> Result<Predicate>
    where
        C: Column<SqlType = Text> + Copy,
        T: ToSql<Text, Pg> + Send + 'static,
    {
        let among = self.among.map(bounded).transpose()?;
        let eq = self.eq.map(|value| Predicate::compare(column, "=", value));
        Ok(Predicate::all(
            eq.into_iter()
                .chain(among.map(|values| Predicate::any_of(column, values))),
        ))
    }
}

/// Conditions on a reference to another record. One that is null is none: use `isNull` for what is missing.
#[derive(Debug, Clone, InputObject)]
#[graphql(name_type)]
pub struct IdFilter<T: Kind> {
    /// Is this record.
    pub eq: Option<Id<T>>,
    /// Is one of these records; 100 at most.
    #[graphql(name = "in")]
    pub among: Option<Vec<Id<T>>>,
    /// Is missing (`true`) or there (`false`).
    pub is_null: Option<bool>,
}

impl<T: Kind> TypeName for IdFilter<T> {
    fn type_name() -> Cow<'static, str> {
        let mut name = crate::error::camel_case(T::PREFIX);
        name[..1].make_ascii_uppercase();
        format!("{name}IdFilter").into()
    }
}

impl<T: Kind> IdFilter<T> {
    /// The condition on a column of such references.
    ///
    /// # Errors
    /// [`Error::BadInput`] for an overlong list.
    pub fn on<C: Column>(self, column: C) -> Result<Predicate> {
        let among = self.among.map(bounded).transpose()?;
        let name = C::NAME;
        Ok(Predicate::all(
            [
                self.eq
                    .map(|id| Predicate::sql(format!("{name} = ?")).bind::<SqlUuid, _>(id.uuid())),
                among.map(|ids| {
                    let ids: Vec<_> = ids.into_iter().map(Id::uuid).collect();
                    Predicate::sql(format!("{name} = any(?)")).bind::<Array<SqlUuid>, _>(ids)
                }),
                self.is_null.map(|null| Predicate::is_null(column, null)),
            ]
            .into_iter()
            .flatten(),
        ))
    }
}

/// The condition that a column refers to a record of the kind that `B` loads, for which `inner` holds.
///
/// # Errors
/// [`Error::Forbidden`] for who may not read that kind: its records could be found out by asking. And as `inner`.
pub fn across<B, T: Listed>(
    column: impl Column,
    rights: &Rights,
    inner: impl FnOnce() -> Result<Predicate>,
) -> Result<Predicate>
where
    B: Batch<Value = Arc<T>>,
{
    rights.require(B::READ)?;
    Ok(Predicate::refers_to(column, T::TABLE, inner()?))
}

/// Joins what a filter's `and`, `or` and `not` say to its own conditions.
///
/// # Errors
/// As `matching` does for one of the parts.
pub fn combine<F>(
    own: Vec<Predicate>,
    and: Option<Vec<F>>,
    or: Option<Vec<F>>,
    not: Option<Box<F>>,
    matching: impl Fn(F) -> Result<Predicate>,
) -> Result<Predicate> {
    let mut parts = own;
    for filter in bounded(and.unwrap_or_default())? {
        parts.push(matching(filter)?);
    }
    if let Some(filters) = or {
        let alternatives = bounded(filters)?
            .into_iter()
            .map(&matching)
            .collect::<Result<Vec<_>>>()?;
        parts.push(Predicate::any(alternatives));
    }
    if let Some(filter) = not {
        parts.push(matching(*filter)?.negate());
    }
    Ok(Predicate::all(parts))
}
