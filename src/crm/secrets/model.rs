//! A sensitive field as it is kept, and as it is checked.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::crm::companies::Company;
use crate::db::id::Id;
use crate::db::schema::company_secrets;
use crate::db::text_enum::text_enum;
use crate::sensitive::{Place, Sealed};

text_enum! {
    /// A sensitive field of a company.
    pub enum SecretField {
        /// The tax id.
        TaxId = "tax_id",
        /// The bank account.
        BankAccount = "bank_account",
    }
}

impl SecretField {
    /// Its name in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TaxId => "taxId",
            Self::BankAccount => "bankAccount",
        }
    }

    /// What of a value it can be found by, if it can.
    pub fn findable(self, plain: &[u8]) -> Option<&str> {
        match self {
            Self::TaxId => std::str::from_utf8(plain).ok(),
            Self::BankAccount => None,
        }
    }

    /// What the field of a company is bound to when it is sealed.
    pub fn place(self, tenant: Uuid, company: Id<Company>) -> Place {
        Place {
            tenant,
            table: "company_secrets",
            column: self.as_str(),
            row: company.uuid(),
        }
    }
}

/// A sealed field of a company.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = company_secrets)]
pub struct CompanySecret {
    pub company_id: Id<Company>,
    pub field: SecretField,
    pub key_id: Uuid,
    pub sealed: Vec<u8>,
    pub blind_index: Option<Vec<u8>>,
    pub updated_at: DateTime<Utc>,
    /// The key of the blind index.
    pub index_key_id: Option<Uuid>,
}

impl CompanySecret {
    /// What is to be opened.
    pub fn value(&self) -> Sealed {
        Sealed {
            key_id: self.key_id,
            sealed: self.sealed.clone(),
        }
    }
}

/// A bank account as it is sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub holder: String,
    pub iban: String,
    pub bic: Option<String>,
}

/// A tax id as it is compared: without spaces, dots and strokes, in upper case.
pub fn normal_tax_id(text: &str) -> String {
    let letters = text
        .chars()
        .filter(|letter| !matches!(letter, ' ' | '.' | '-' | '/'));
    letters.collect::<String>().to_ascii_uppercase()
}

/// Whether a normalised tax id can be one: what the countries have in common is that it is short, of letters and digits.
pub fn is_tax_id(text: &str) -> bool {
    (4..=20).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_digit())
}

/// An IBAN as it is kept: without spaces, in upper case.
pub fn normal_iban(text: &str) -> String {
    text.chars()
        .filter(|letter| *letter != ' ')
        .collect::<String>()
        .to_ascii_uppercase()
}

/// Whether a normalised IBAN has the form and the check digits of ISO 13616: with the first four letters at the end, and
/// letters as numbers from 10, it is 1 modulo 97.
pub fn is_iban(text: &str) -> bool {
    let bytes = text.as_bytes();
    let formed = (15..=34).contains(&bytes.len())
        && bytes[..2].iter().all(u8::is_ascii_uppercase)
        && bytes[2..4].iter().all(u8::is_ascii_digit)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if !formed {
        return false;
    }
    let rest = bytes[4..]
        .iter()
        .chain(&bytes[..4])
        .fold(0_u32, |rest, byte| match byte {
            b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
            _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
        });
    rest == 1
}

/// Whether a text has the form of a BIC (ISO 9362): eight or eleven letters and digits, the first four of the bank and the
/// next two of the country.
pub fn is_bic(text: &str) -> bool {
    matches!(text.len(), 8 | 11)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && text.as_bytes()[4..6].iter().all(u8::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ibans_are_known_by_their_check_digits() {
        for good in [
            "DE89 3704 0044 0532 0130 00",
            "GB82 WEST 1234 5698 7654 32",
            "no9386011117947",
        ] {
            assert!(is_iban(&normal_iban(good)), "{good}");
        }
        for bad in [
            "DE88370400440532013000",
            "DE89370400440532013001",
            "",
            "DE",
            "D189370400440532013000",
            "DE89é7040044053201300",
        ] {
            assert!(!is_iban(bad), "{bad}");
        }
    }

    #[test]
    fn tax_ids_are_compared_without_their_punctuation() {
        assert_eq!(normal_tax_id("de 811.907-980"), "DE811907980");
        assert!(is_tax_id("DE811907980") && is_tax_id("1234"));
        for bad in ["", "123", "ABCDE", "12345é", "123456789012345678901", "1234\n"] {
            assert!(!is_tax_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_bic_has_eight_or_eleven_letters() {
        assert!(is_bic("COBADEFF") && is_bic("COBADEFFXXX"));
        assert!(!is_bic("COBADEF") && !is_bic("COBA12FF") && !is_bic("cobadeff"));
    }
}
