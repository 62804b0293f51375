//! Contact details: e-mail addresses, telephone numbers, postal addresses.
//!
//! Their types mask them in every answer unless the viewer may see them, so that no resolver need remember to; the same
//! is done with what the history tells of them, and they can be filtered by only where they may be seen.

use std::borrow::Cow;
use std::fmt;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, InputType, InputValueResult, OutputType, Positioned, ServerResult, Value,
};
use diesel::Column;
use diesel::deserialize::{self, FromSql};
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use serde::{Deserialize, Serialize};

use super::Session;
use super::filter::StringFilter;
use crate::auth::{Permission, Rights, Viewer};
use crate::db::select::Predicate;
use crate::error::Result;

/// What stands for what is not shown.
const HIDDEN: &str = "•••";
/// Digits of a telephone number that are shown, and digits that it has at least for that.
const LAST: (usize, usize) = (2, 6);

/// The fields that hold contact details, by their names in inputs and in the history.
const FIELDS: [&str; 3] = ["email", "phone", "address"];

/// An e-mail address or a telephone number. Nobody sees it in a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, diesel::AsExpression, diesel::FromSqlRow)]
#[diesel(sql_type = Text)]
#[serde(transparent)]
pub struct Detail(String);

/// A line of a postal address.
pub struct AddressLine<'a>(pub &'a str);

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl FromSql<Text, Pg> for Detail {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        <String as FromSql<Text, Pg>>::from_sql(bytes).map(Self)
    }
}

impl ToSql<Text, Pg> for Detail {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <str as ToSql<Text, Pg>>::to_sql(&self.0, out)
    }
}

/// A detail as it is shown to who may not see it, by the field that holds it and not by what it looks like: people write
/// more into a field for telephone numbers than that.
fn mask(field: &str, detail: &str) -> String {
    match field {
        "email" => masked_email(detail),
        "phone" => masked_phone(detail),
        _ => HIDDEN.to_owned(),
    }
}

/// As `j•••@acme.example`.
fn masked_email(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => {
            let first: String = local.chars().take(1).collect();
            format!("{first}{HIDDEN}@{domain}")
        }
        None => HIDDEN.to_owned(),
    }
}

/// As `•••• 42`.
fn masked_phone(number: &str) -> String {
    let digits: Vec<char> = number.chars().filter(char::is_ascii_digit).collect();
    if digits.len() < LAST.1 {
        return HIDDEN.to_owned();
    }
    let last: String = digits[digits.len() - LAST.0..].iter().collect();
    format!("•••• {last}")
}

/// Whether the viewer may see contact details. Who has not signed in may not.
fn may_see(viewer: Option<&Viewer>) -> bool {
    viewer.is_some_and(|viewer| viewer.rights.permits(Permission::ContactDetailsRead))
}

fn shown(ctx: &ContextSelectionSet<'_>) -> bool {
    may_see(ctx.data_unchecked::<std::sync::Arc<Session>>().viewer().ok())
}

impl OutputType for Detail {
    fn type_name() -> Cow<'static, str> {
        <String as OutputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <String as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        Ok(Value::String(if shown(ctx) {
            self.0.clone()
        } else {
            mask(&field.node.name.node, &self.0)
        }))
    }
}

impl OutputType for AddressLine<'_> {
    fn type_name() -> Cow<'static, str> {
        <String as OutputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <String as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok(Value::String(if shown(ctx) { self.0 } else { HIDDEN }.to_owned()))
    }
}

/// Whether a field is a contact detail that the viewer may not see. Elsewhere than in contacts and companies a field of such
/// a name is none.
pub fn is_hidden(viewer: Option<&Viewer>, entity: &str, field: &str) -> bool {
    matches!(entity, "contact" | "company") && FIELDS.contains(&field) && !may_see(viewer)
}

/// The value of a field in an answer that shows it as JSON: masked when it is a contact detail that the viewer may not see.
pub fn value(
    viewer: Option<&Viewer>,
    entity: &str,
    field: &str,
    value: serde_json::Value,
) -> serde_json::Value {
    if !is_hidden(viewer, entity, field) {
        return value;
    }
    masked(field, value)
}

fn masked(field: &str, value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::String(text) => Json::String(mask(field, &text)),
        Json::Object(lines) => {
            let hidden = |(name, line): (String, Json)| {
                let shown = name == "countryCode" || line.is_null();
                (
                    name,
                    if shown {
                        line
                    } else {
                        Json::String(HIDDEN.to_owned())
                    },
                )
            };
            Json::Object(lines.into_iter().map(hidden).collect())
        }
        other => other,
    }
}

/// A filter by a contact detail. In the schema it is a `StringFilter`.
#[derive(Debug, Clone, Default)]
pub struct DetailFilter(StringFilter);

impl DetailFilter {
    /// The condition on a column of details.
    ///
    /// # Errors
    /// [`crate::error::Error::Forbidden`] for who may not see them: they could be guessed letter by letter.
    pub fn on<C: Column>(self, column: C, rights: &Rights) -> Result<Predicate> {
        rights.require(Permission::ContactDetailsRead)?;
        self.0.on(column)
    }
}

impl InputType for DetailFilter {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        <StringFilter as InputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <StringFilter as InputType>::create_type_info(registry)
    }

    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        match <StringFilter as InputType>::parse(value) {
            Ok(filter) => Ok(Self(filter)),
            Err(error) => Err(error.propagate()),
        }
    }

    fn to_value(&self) -> Value {
        self.0.to_value()
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_masked_detail_tells_what_it_is_and_not_whose() {
        for (field, detail, shown) in [
            ("email", "jane.doe@acme.example", "j•••@acme.example"),
            ("email", "\"a@b\"@acme.example", "\"•••@acme.example"),
            ("email", "@acme.example", "•••@acme.example"),
            ("email", "é@ü.example", "é•••@ü.example"),
            ("email", "0170 1234567", "•••"),
            ("phone", "+49 170 1234542", "•••• 42"),
            ("phone", "call Bob @ 0170 1234567", "•••• 67"),
            ("phone", "bob@0170.1234567.example", "•••• 67"),
            ("phone", "12345", "•••"),
            ("phone", "ask for Bob", "•••"),
            ("phone", "", "•••"),
            ("address", "jane@acme.example", "•••"),
        ] {
            assert_eq!(mask(field, detail), shown);
            let value = value(None, "contact", field, json!(detail));
            assert_eq!(value, json!(shown));
            assert_eq!(format!("{:?}", Detail(detail.to_owned())), HIDDEN);
        }
    }

    #[test]
    fn of_a_postal_address_the_country_is_shown() {
        let address = json!({ "street": "1 Main St", "city": null, "countryCode": "DE" });
        assert_eq!(
            value(None, "company", "address", address.clone()),
            json!({ "street": HIDDEN, "city": null, "countryCode": "DE" })
        );
        assert_eq!(
            value(None, "company", "name", json!("Acme 123456")),
            json!("Acme 123456")
        );
        assert_eq!(
            value(None, "user", "email", json!("a@b.example")),
            json!("a@b.example")
        );
    }
}
