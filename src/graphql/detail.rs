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
        f.write_str(&mask(&self.0))
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

/// A detail as it is shown to who may not see it: `j•••@acme.example`, `•••• 42`.
fn mask(detail: &str) -> String {
    if let Some((local, domain)) = detail.rsplit_once('@') {
        let first: String = local.chars().take(1).collect();
        return format!("{first}{HIDDEN}@{domain}");
    }
    let digits: Vec<char> = detail.chars().filter(char::is_ascii_digit).collect();
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

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok(Value::String(if shown(ctx) {
            self.0.clone()
        } else {
            mask(&self.0)
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

/// The value of a field in an answer that shows it as JSON: masked when it is a contact detail that the viewer may not see.
/// Elsewhere than in contacts and companies a field of such a name is none.
pub fn value(
    viewer: Option<&Viewer>,
    entity: &str,
    field: &str,
    value: serde_json::Value,
) -> serde_json::Value {
    let is_detail = matches!(entity, "contact" | "company") && FIELDS.contains(&field);
    if !is_detail || may_see(viewer) {
        return value;
    }
    masked(value)
}

fn masked(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::String(text) => Json::String(mask(&text)),
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
        for (detail, shown) in [
            ("jane.doe@acme.example", "j•••@acme.example"),
            ("\"a@b\"@acme.example", "\"•••@acme.example"),
            ("@acme.example", "•••@acme.example"),
            ("+49 170 1234542", "•••• 42"),
            ("12345", "•••"),
            ("ask for Bob", "•••"),
            ("", "•••"),
            ("é@ü.example", "é•••@ü.example"),
        ] {
            assert_eq!(mask(detail), shown);
            assert_eq!(format!("{:?}", Detail(detail.to_owned())), shown);
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
