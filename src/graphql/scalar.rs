//! Values of the schema that GraphQL does not have: decimals, money, currencies, moments and days.

use std::sync::LazyLock;

use async_graphql::{
    InputObject, InputType, InputValueError, InputValueResult, Scalar, ScalarType, SimpleObject, Value,
};
use chrono::{NaiveDate, SecondsFormat, Utc};
use rust_decimal::Decimal as Number;

use crate::error::{Problem, ProblemCode};

/// A scalar of ours: read before anything runs, so that it is known to be good wherever a resolver takes it.
pub trait OwnScalar: ScalarType + InputType {
    /// What is told to who gave something else.
    const NEEDED: &'static str;

    /// The value, if it is one.
    fn read(value: &Value) -> Option<Self>;

    /// Tells what is wrong with a value.
    ///
    /// # Errors
    /// [`Self::NEEDED`].
    fn judge(value: &Value) -> Result<(), &'static str> {
        Self::read(value).map(drop).ok_or(Self::NEEDED)
    }

    /// The value for the executor.
    ///
    /// # Errors
    /// `BAD_USER_INPUT`, which the guard of documents has told before.
    fn take(value: &Value) -> InputValueResult<Self> {
        Self::read(value)
            .ok_or_else(|| InputValueError::custom(Self::NEEDED).with_extension("code", "BAD_USER_INPUT"))
    }
}

/// A decimal number, written as a string so that no client rounds it: `"1234.50"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Decimal(pub Number);

/// A decimal number, written as a string so that no client rounds it: `"1234.50"`.
#[Scalar(specified_by_url = "https://speleotrove.com/decimal/decarith.html")]
impl ScalarType for Decimal {
    fn parse(value: Value) -> InputValueResult<Self> {
        Self::take(&value)
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

impl OwnScalar for Decimal {
    const NEEDED: &'static str = "A decimal number such as \"1234.50\" is needed.";

    fn read(value: &Value) -> Option<Self> {
        let text = match value {
            Value::String(text) => text.clone(),
            // Clients that write a whole number mean it; a float has lost its digits before it came here.
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return None,
        };
        // Stricter than the parser, which takes `1_000` and `.5`. At most 28 digits: more than any amount of money, few
        // enough to be exact.
        let (whole, part) = text.split_once('.').unwrap_or((&text, "0"));
        let digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let sane = text.len() <= 40 && digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(part);
        Number::from_str_exact(&text).ok().filter(|_| sane).map(Self)
    }
}

/// A currency by its code in ISO 4217, for example `USD`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, diesel::AsExpression, diesel::FromSqlRow,
)]
#[diesel(sql_type = diesel::sql_types::Text)]
pub struct CurrencyCode {
    code: &'static str,
    digits: u32,
}

/// Active currencies of ISO 4217 by the number of digits after the point.
const CURRENCIES: [(u32, &str); 3] = [
    (
        0,
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    ),
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC \
         CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR \
         JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD \
         NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN \
         SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
];

impl CurrencyCode {
    /// The US dollar, the currency of a new tenant.
    pub const USD: Self = Self {
        code: "USD",
        digits: 2,
    };

    /// The currency with this code, when there is one.
    pub fn find(code: &str) -> Option<Self> {
        // In order of their codes: every deal that is read looks for its currency.
        static SORTED: LazyLock<Vec<CurrencyCode>> = LazyLock::new(|| {
            let of = |(digits, codes): (u32, &'static str)| {
                codes
                    .split_whitespace()
                    .map(move |code| CurrencyCode { code, digits })
            };
            let mut all: Vec<_> = CURRENCIES.into_iter().flat_map(of).collect();
            all.sort_unstable_by_key(|currency| currency.code);
            all
        });
        let found = SORTED.binary_search_by_key(&code, |currency| currency.code);
        found.ok().map(|index| SORTED[index])
    }

    /// The code.
    pub fn as_str(self) -> &'static str {
        self.code
    }

    /// Digits after the point: 2 for dollars and cents.
    pub fn digits(self) -> u32 {
        self.digits
    }
}

/// A currency by its code in ISO 4217, for example `USD`.
#[Scalar(specified_by_url = "https://www.iso.org/iso-4217-currency-codes.html")]
impl ScalarType for CurrencyCode {
    fn parse(value: Value) -> InputValueResult<Self> {
        Self::take(&value)
    }

    fn to_value(&self) -> Value {
        Value::String(self.code.to_owned())
    }
}

impl OwnScalar for CurrencyCode {
    const NEEDED: &'static str = "A currency code of ISO 4217 such as USD is needed.";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(code) => Self::find(code),
            Value::Enum(code) => Self::find(code),
            _ => None,
        }
    }
}

impl diesel::deserialize::FromSql<diesel::sql_types::Text, diesel::pg::Pg> for CurrencyCode {
    fn from_sql(bytes: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
        Self::find(std::str::from_utf8(bytes.as_bytes())?).ok_or_else(|| "an unknown currency".into())
    }
}

impl diesel::serialize::ToSql<diesel::sql_types::Text, diesel::pg::Pg> for CurrencyCode {
    fn to_sql<'b>(
        &'b self,
        out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>,
    ) -> diesel::serialize::Result {
        std::io::Write::write_all(out, self.code.as_bytes())?;
        Ok(diesel::serialize::IsNull::No)
    }
}

impl serde::Serialize for CurrencyCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

impl<'de> serde::Deserialize<'de> for CurrencyCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::find(&code).ok_or_else(|| serde::de::Error::custom("an unknown currency"))
    }
}

/// The largest amount that is accepted, in minor units.
pub const MAX_MINOR_UNITS: i64 = 1_000_000_000_000_000;

/// An amount of money in its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SimpleObject, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Money {
    /// The amount as a decimal number, with as many digits after the point as the currency has: `"1250.00"`.
    pub amount: Decimal,
    /// The currency.
    pub currency_code: CurrencyCode,
}

impl Money {
    /// Money from the minor units that the database keeps, such as cents.
    pub fn from_minor(units: i64, currency_code: CurrencyCode) -> Self {
        Self {
            amount: Decimal(Number::new(units, currency_code.digits())),
            currency_code,
        }
    }

    /// Money from a sum of minor units, which may be larger than a single amount.
    pub fn from_minor_sum(sum: Number, currency_code: CurrencyCode) -> Self {
        let mut amount = sum;
        let digits = currency_code.digits();
        // A sum is a whole number of minor units: moving its point is exact.
        amount.set_scale(digits).unwrap_or_default();
        Self {
            amount: Decimal(amount),
            currency_code,
        }
    }
}

/// An amount of money in its currency.
#[derive(Debug, Clone, InputObject)]
pub struct MoneyInput {
    /// The amount as a decimal number, not negative, with no more digits after the point than the currency has.
    pub amount: Decimal,
    /// The currency, for example `USD`.
    pub currency_code: CurrencyCode,
}

impl MoneyInput {
    /// The amount in minor units.
    ///
    /// # Errors
    /// When the amount is negative, too large or too finely divided; `field` is the input field's name.
    pub fn minor_units(&self, field: &str) -> Result<i64, Problem> {
        let field = format!("{field}.amount");
        let digits = self.currency_code.digits();
        let amount = self.amount.0.normalize();
        if amount.is_sign_negative() && !amount.is_zero() {
            return Err(Problem::new(
                &field,
                ProblemCode::OutOfRange,
                "The amount must not be negative.",
            ));
        }
        if amount.scale() > digits {
            let message = format!("{} has {digits} digits after the point.", self.currency_code.code);
            return Err(Problem::new(&field, ProblemCode::Invalid, message));
        }
        minor_units(amount, digits)
            .filter(|units| *units <= MAX_MINOR_UNITS)
            .ok_or_else(|| Problem::new(&field, ProblemCode::OutOfRange, "The amount is too large."))
    }
}

/// Minor units of an amount, when it is a whole number of them that fits.
fn minor_units(amount: Number, digits: u32) -> Option<i64> {
    amount
        .checked_mul(Number::from(10_i64.pow(digits)))?
        .normalize()
        .to_string()
        .parse()
        .ok()
}

/// A moment in UTC, for example `2026-11-21T09:30:00.000000Z`. In input, any offset from UTC is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime(pub chrono::DateTime<Utc>);

/// A moment in UTC, for example `2026-11-21T09:30:00.000000Z`. In input, any offset from UTC is understood.
#[Scalar(specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        Self::take(&value)
    }

    fn to_value(&self) -> Value {
        // All digits that the database has: a filter with a moment that was read must find its record.
        Value::String(self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl OwnScalar for DateTime {
    const NEEDED: &'static str = "A moment such as \"2026-11-21T09:30:00Z\" is needed.";

    fn read(value: &Value) -> Option<Self> {
        let Value::String(text) = value else { return None };
        let moment = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self(moment.to_utc()))
    }
}

impl From<chrono::DateTime<Utc>> for DateTime {
    fn from(moment: chrono::DateTime<Utc>) -> Self {
        Self(moment)
    }
}

/// A day of the calendar, for example `2026-11-21`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date(pub NaiveDate);

/// A day of the calendar, for example `2026-11-21`.
#[Scalar(specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339#section-5.6")]
impl ScalarType for Date {
    fn parse(value: Value) -> InputValueResult<Self> {
        Self::take(&value)
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

impl OwnScalar for Date {
    const NEEDED: &'static str = "A day such as \"2026-11-21\" is needed.";

    fn read(value: &Value) -> Option<Self> {
        match value {
            // The parser takes days, months and years of other lengths too.
            Value::String(text) if text.len() == 10 && !text.starts_with(['+', '-']) => {
                NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(Self)
            }
            _ => None,
        }
    }
}

impl From<NaiveDate> for Date {
    fn from(day: NaiveDate) -> Self {
        Self(day)
    }
}

/// Any value of JSON: a text, a number, a boolean, a list or an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Json(pub serde_json::Value);

/// Any value of JSON: a text, a number, a boolean, a list or an object.
#[Scalar(name = "JSON", specified_by_url = "https://www.rfc-editor.org/rfc/rfc8259")]
impl ScalarType for Json {
    fn parse(value: Value) -> InputValueResult<Self> {
        Ok(Self(value.into_json()?))
    }

    fn to_value(&self) -> Value {
        Value::from_json(self.0.clone()).unwrap_or_default()
    }
}
