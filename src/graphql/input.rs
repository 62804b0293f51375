//! Checks of what people type. All problems of an input are told at once.

use std::collections::BTreeMap;

use async_graphql::MaybeUndefined;
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use serde::Serialize;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::scalar;
use crate::auth::strength::Rules;
use crate::error::{Error, Problem, ProblemCode, Result};

/// Characters of a name, a subject or another line at most.
pub const LINE: usize = 200;
/// Characters of a text with several lines at most.
pub const TEXT: usize = 20_000;

/// Collects the problems of an input.
#[derive(Debug, Default)]
pub struct Check {
    problems: Vec<Problem>,
}

impl Check {
    /// Notes a problem.
    pub fn problem(&mut self, field: &str, code: ProblemCode, message: impl Into<String>) {
        self.problems.push(Problem::new(field, code, message));
    }

    /// A line that must be there: white space around it is dropped.
    pub fn line(&mut self, field: &str, text: &str) -> String {
        let text = trimmed(text, false);
        if text.is_empty() {
            self.problem(
                field,
                ProblemCode::Required,
                format!("{field} must not be empty."),
            );
        }
        self.characters(field, text, LINE, false);
        text.to_owned()
    }

    /// A line that may be missing; an empty one counts as missing.
    pub fn optional_line(&mut self, field: &str, text: Option<String>) -> Option<String> {
        self.optional(field, text, LINE, false)
    }

    /// A text of several lines that may be missing; an empty one counts as missing.
    pub fn optional_text(&mut self, field: &str, text: Option<String>) -> Option<String> {
        self.optional(field, text, TEXT, true)
    }

    /// An e-mail address that must be there, in lower case.
    pub fn email(&mut self, field: &str, email: String) -> String {
        let email = self.optional_email(field, Some(email));
        if email.is_none() {
            self.problem(
                field,
                ProblemCode::Required,
                format!("{field} must not be empty."),
            );
        }
        email.unwrap_or_default()
    }

    /// An e-mail address that may be missing, in lower case.
    pub fn optional_email(&mut self, field: &str, email: Option<String>) -> Option<String> {
        let email = self.optional(field, email, LINE, false)?.to_lowercase();
        if !is_email(&email) {
            self.problem(field, ProblemCode::Invalid, "This is not an e-mail address.");
        }
        Some(email)
    }

    /// An internet domain that may be missing, in the one form that it is shown in.
    pub fn optional_domain(&mut self, field: &str, domain: Option<String>) -> Option<String> {
        let domain = self.optional(field, domain, LINE, false)?;
        let read = read_domain(&domain);
        if read.is_none() {
            let message = "This is not a domain, such as acme.example.";
            self.problem(field, ProblemCode::Invalid, message);
        }
        read
    }

    /// A password that is to be set.
    pub fn new_password(&mut self, field: &str, password: &str, rules: &Rules) {
        if let Err((code, message)) = rules.check(password) {
            self.problem(field, code, message);
        }
    }

    /// A number within a range.
    pub fn range(&mut self, field: &str, number: Option<i32>, range: std::ops::RangeInclusive<i32>) {
        if let Some(number) = number
            && !range.contains(&number)
        {
            let message = format!("{field} must be between {} and {}.", range.start(), range.end());
            self.problem(field, ProblemCode::OutOfRange, message);
        }
    }

    /// A moment of this or a neighbouring century.
    pub fn moment(&mut self, field: &str, moment: Option<scalar::DateTime>) -> Option<DateTime<Utc>> {
        let moment = moment.map(|moment| moment.0);
        if moment.is_some_and(|moment| !is_plausible(moment)) {
            self.problem(
                field,
                ProblemCode::OutOfRange,
                "The date must be within the years 1900 to 9999.",
            );
        }
        // The database keeps microseconds: what is answered now must be what is read later.
        moment.and_then(|moment| DateTime::from_timestamp_micros(moment.timestamp_micros()))
    }

    /// A day of this or a neighbouring century.
    pub fn day(&mut self, field: &str, day: Option<scalar::Date>) -> Option<NaiveDate> {
        let day = day.map(|day| day.0);
        if day.is_some_and(|day| !is_plausible_day(day)) {
            self.problem(
                field,
                ProblemCode::OutOfRange,
                "The date must be within the years 1900 to 9999.",
            );
        }
        day
    }

    /// Checks the value of a patch, when there is one; a value that the check finds empty takes the field away.
    pub fn patch<T, U>(
        &mut self,
        field: &str,
        value: MaybeUndefined<T>,
        with: impl FnOnce(&mut Self, &str, Option<T>) -> Option<U>,
    ) -> MaybeUndefined<U> {
        match value {
            MaybeUndefined::Value(value) => match with(self, field, Some(value)) {
                Some(value) => MaybeUndefined::Value(value),
                None => MaybeUndefined::Null,
            },
            MaybeUndefined::Null => MaybeUndefined::Null,
            MaybeUndefined::Undefined => MaybeUndefined::Undefined,
        }
    }

    /// The value of a patch for a field that cannot be taken away, when there is one.
    pub fn given<T>(&mut self, field: &str, value: MaybeUndefined<T>) -> Option<T> {
        if value.is_null() {
            let message = format!("{field} cannot be null: leave it out to keep what it is.");
            self.problem(field, ProblemCode::Required, message);
        }
        value.take()
    }

    /// The line of a patch for a field that cannot be taken away, when there is one.
    pub fn given_line(&mut self, field: &str, text: MaybeUndefined<String>) -> Option<String> {
        let text = self.given(field, text)?;
        Some(self.line(field, &text))
    }

    /// Takes a value whose check answers a problem.
    pub fn take<T>(&mut self, checked: Result<T, Problem>) -> Option<T> {
        checked.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Ends the check.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all problems that were found.
    pub fn done(self) -> Result<()> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self.problems))
        }
    }

    fn optional(&mut self, field: &str, text: Option<String>, max: usize, lines: bool) -> Option<String> {
        let text = text?;
        let text = trimmed(&text, lines);
        self.characters(field, text, max, lines);
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn characters(&mut self, field: &str, text: &str, max: usize, lines: bool) {
        // Counting a huge text costs; its bytes tell enough.
        if text.len() > max * 4 || text.chars().count() > max {
            self.problem(
                field,
                ProblemCode::TooLong,
                format!("{field} can have {max} characters at most."),
            );
        } else if text.chars().any(|c| {
            !(lines && matches!(c, '\n' | '\r' | '\t'))
                && (c.is_control() || !lines && (is_override(c) || is_line_end(c)))
        }) {
            self.problem(
                field,
                ProblemCode::Invalid,
                format!("{field} must not contain control characters."),
            );
        }
    }
}

/// A text without what stands unseen around it; nothing, if nothing of it can be seen. Around a line that is the marks, too,
/// that address books put around telephone numbers: within one they are [refused](is_override).
fn trimmed(text: &str, lines: bool) -> &str {
    let unseen =
        |c: char| c.is_whitespace() || "\u{200b}\u{2060}\u{feff}".contains(c) || !lines && is_override(c);
    let text = text.trim_matches(unseen);
    // A control character is left to be named.
    if text.chars().any(|c| is_visible(c) || c.is_control()) {
        text
    } else {
        ""
    }
}

/// Whether a sign is seen by itself. One that is not may still belong to a text: it joins letters, changes them, or makes
/// one emoji of several.
fn is_visible(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Number, Punctuation, Symbol};
    let seen = matches!(c.general_category_group(), Letter | Number | Punctuation | Symbol)
        || c.general_category() == GeneralCategory::PrivateUse;
    seen && !is_blank(c)
}

/// Whether a letter or symbol looks like nothing.
fn is_blank(c: char) -> bool {
    "\u{115f}\u{1160}\u{2800}\u{3164}\u{ffa0}".contains(c)
}

/// Whether a sign turns round what stands behind it, so that a name reads as another. A text in two directions needs
/// none of these since there are isolates.
fn is_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}')
}

/// Whether a sign ends a line, though it is no control character.
fn is_line_end(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// Whether a moment lies within the years 1900 to 9999.
pub fn is_plausible(moment: DateTime<Utc>) -> bool {
    (1900..=9999).contains(&moment.year())
}

/// Whether a day lies within the years 1900 to 9999.
pub fn is_plausible_day(day: NaiveDate) -> bool {
    (1900..=9999).contains(&day.year())
}

/// Whether a text has the form of an e-mail address. Only sending to it would prove more.
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    // Nothing that is not seen: two addresses must not look the same.
    let unseen = |c: char| {
        let selects = matches!(c, '\u{34f}' | '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}');
        selects || is_blank(c) || c.general_category() == GeneralCategory::Format
    };
    let plain = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| {
                c.is_whitespace() || c.is_control() || unseen(c) || "@,;<>()\"".contains(c)
            })
    };
    plain(local) && plain(domain) && domain.contains('.') && domain.split('.').all(|label| !label.is_empty())
}

/// An internet domain below another, in any script, as it is shown to people:
/// <https://www.unicode.org/reports/tr46/>.
fn read_domain(text: &str) -> Option<String> {
    let (deny, hyphens) = (AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    let written = Uts46::new().to_ascii(text.as_bytes(), deny, hyphens, DnsLength::Verify);
    let (shown, _) = Uts46::new().to_unicode(text.as_bytes(), deny, hyphens);
    (written.is_ok() && shown.contains('.')).then(|| shown.into_owned())
}

/// Refuses a stale update.
///
/// # Errors
/// [`Error::Invalid`] with the fields that differ, when the record is not of the version that the client expects.
pub fn expect_version(expected: Option<i32>, current: i32, differing: Vec<(String, String)>) -> Result<()> {
    if expected.is_none_or(|expected| expected == current) {
        return Ok(());
    }
    let message = format!("The record has changed meanwhile: it is at version {current}.");
    let mut problem = Problem::new("expectedVersion", ProblemCode::Conflict, message);
    problem.conflicts = differing;
    Err(Error::Invalid(vec![problem]))
}

/// What the history keeps of an update.
#[derive(Serialize)]
pub struct PatchChange<'a, T> {
    /// Old values, as JSON text, by the name of the field in the input.
    before: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    record: &'a T,
}

/// A patch of a record: collects what it changes, and where the current values differ from it.
#[derive(Default)]
pub struct Patch {
    differing: Vec<(String, String)>,
}

impl Patch {
    /// Applies a field that can be changed but not taken away.
    pub fn set<T: PartialEq + Serialize>(&mut self, field: &str, current: &mut T, new: Option<T>) {
        if let Some(new) = new
            && *current != new
        {
            self.note(field, current);
            *current = new;
        }
    }

    /// Applies a field that can also be set to null.
    pub fn set_or_clear<T: PartialEq + Serialize>(
        &mut self,
        field: &str,
        current: &mut Option<T>,
        new: MaybeUndefined<T>,
    ) {
        let new = match new {
            MaybeUndefined::Undefined => return,
            MaybeUndefined::Null => None,
            MaybeUndefined::Value(new) => Some(new),
        };
        self.set(field, current, Some(new));
    }

    fn note(&mut self, field: &str, current: &impl Serialize) {
        let current = serde_json::to_string(current).unwrap_or_default();
        self.differing.push((field.to_owned(), current));
    }

    /// Whether the patch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.differing.is_empty()
    }

    /// What the history keeps of the change: the fields with their old values, and the record as it is now.
    pub fn change<'a, T: Serialize>(&'a self, record: &'a T) -> PatchChange<'a, T> {
        PatchChange {
            before: self
                .differing
                .iter()
                .map(|(field, value)| (field.as_str(), value.as_str()))
                .collect(),
            record,
        }
    }

    /// Refuses the patch when the record is not of the version that the client expects.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the fields that differ and their current values.
    pub fn expect_version(&self, expected: Option<i32>, current: i32) -> Result<()> {
        expect_version(expected, current, self.differing.clone())
    }
}
