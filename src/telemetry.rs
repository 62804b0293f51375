//! Logging: text for people, or one JSON object a line for machines.
//!
//! A line has a level, a moment, the service, a message, the id of the request and its trace, and a context of names and ids.
//! What is secret or personal is not in it, at no level, and nothing in it can begin another line:
//!
//! - Libraries log what passes through them at their lower levels, whole statements and heads of requests among it. Whatever
//!   the filter says, of them nothing below INFO is logged.
//! - Values are [scrubbed](scrub): addresses, tokens, hashes, passwords in URLs and what errors quote are blotted out. This
//!   is the second line of defence; the first is that nothing of the kind is logged.
//! - A panic tells where it happened, and no more than what the program's text has of it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat};
use crate::error::camel_case;

/// Letters of a value that are logged.
const LETTERS: usize = 2_000;

/// What stands for what is not told.
const BLOT: &str = "•••";

/// Begins to log as configured.
///
/// # Errors
/// A sentence for the operator when the filter cannot be read.
pub fn init(config: &Config) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(&config.log).map_err(|error| format!("RUST_LOG is not a log filter: {error}"))?;
    let lines = Lines {
        format: config.log_format,
        // Colours are for people who watch; in a file they are noise.
        colours: std::io::stderr().is_terminal(),
        out: Box::new(|line| {
            // There is nowhere to tell that it failed.
            let _ = std::io::stderr().lock().write_all(line);
        }),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(discreet))
        .with(lines)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // What was formatted may have anything in it.
        let said = panic.payload().downcast_ref::<&'static str>().copied();
        tracing::error!(place, said, "a panic");
    }));
    Ok(())
}

/// Whether something may be logged at all.
fn discreet(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target == "dealstream" || target.starts_with("dealstream::");
    ours || *metadata.level() <= Level::INFO
}

/// Takes a whole line, its end included.
type Out = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Writes lines.
struct Lines {
    format: LogFormat,
    colours: bool,
    out: Out,
}

/// The values of a span or of an event as they came: [`Lines`] alone has them, and scrubs what it writes. In most spans
/// nothing is logged.
#[derive(Default)]
struct Values(Vec<(&'static str, Value)>);

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), Value::from(format!("{value:?}"))));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), Value::from(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), Value::from(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), Value::from(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.push((field.name(), Value::from(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), Value::from(value)));
    }
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            let mut values = Values(Vec::with_capacity(attributes.values().len()));
            attributes.record(&mut values);
            span.extensions_mut().insert(values);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(values) = span.extensions_mut().get_mut::<Values>()
        {
            record.record(values);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut all = Values::default();
        for span in ctx
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(values) = span.extensions().get::<Values>() {
                all.0.extend(values.0.iter().cloned());
            }
        }
        event.record(&mut all);
        for (_, value) in &mut all.0 {
            if let Value::String(text) = value {
                *text = fit(text);
            }
        }
        let mut line = match self.format {
            LogFormat::Json => json(event.metadata(), all.0),
            LogFormat::Text => text(event.metadata(), all.0, self.colours),
        };
        line.push('\n');
        (self.out)(line.as_bytes());
    }
}

fn moment() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn json(metadata: &Metadata<'_>, values: Vec<(&'static str, Value)>) -> String {
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), moment().into());
    line.insert("level".to_owned(), metadata.level().as_str().into());
    line.insert("service".to_owned(), "dealstream".into());
    line.insert("message".to_owned(), "".into());
    let mut context = Map::new();
    for (name, value) in values {
        match name {
            "message" | "request_id" | "trace_id" => line.insert(camel_case(name), value),
            _ => context.insert(camel_case(name), value),
        };
    }
    line.insert("target".to_owned(), metadata.target().into());
    line.insert("context".to_owned(), context.into());
    Value::Object(line).to_string()
}

fn text(metadata: &Metadata<'_>, values: Vec<(&'static str, Value)>, colours: bool) -> String {
    let (begin, end) = match (colours, *metadata.level()) {
        (false, _) => ("", ""),
        (true, Level::ERROR) => ("\x1b[31m", "\x1b[0m"),
        (true, Level::WARN) => ("\x1b[33m", "\x1b[0m"),
        (true, Level::INFO) => ("\x1b[32m", "\x1b[0m"),
        (true, _) => ("\x1b[2m", "\x1b[0m"),
    };
    let mut message = String::new();
    let mut rest = String::new();
    for (name, value) in values {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if name == "message" {
            message = value;
        } else {
            let _ = write!(rest, " {name}={value}");
        }
    }
    let (moment, level, target) = (moment(), metadata.level().as_str(), metadata.target());
    format!("{moment} {begin}{level:>5}{end} {target}: {message}{rest}")
}

/// A value as it is logged: short, scrubbed and without what could break a line.
fn fit(text: &str) -> String {
    let short = match text.char_indices().nth(LETTERS) {
        Some((end, _)) => &text[..end],
        None => text,
    };
    escaped(&scrub(short)).into_owned()
}

/// Control characters, and what turns or hides the text around it.
pub fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Text that cannot break a line of a log or move a terminal's cursor.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_unprintable(letter) {
            out.extend(letter.escape_unicode());
        } else {
            out.push(letter);
        }
    }
    out.into()
}

/// Blots out what looks like an address, a phone number, a token, a hash, a password in a URL, or a value that an error
/// quotes.
pub fn scrub(text: &str) -> String {
    let text = without_quotes(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(begin) = rest.find(is_of_word) {
        out.push_str(&rest[..begin]);
        let word = &rest[begin..];
        let end = word.find(|letter| !is_of_word(letter)).unwrap_or(word.len());
        blot(&word[..end], &mut out);
        rest = &word[end..];
    }
    out.push_str(rest);
    out
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || "@._-+/:$=%~!#?&*".contains(letter)
}

fn blot(word: &str, out: &mut String) {
    if let Some((before, after)) = word.rsplit_once('@') {
        // Of a URL the host may be told, and who may sign in there may not.
        match before.split_once("://") {
            Some((scheme, _)) => {
                let _ = write!(out, "{scheme}://{BLOT}@{after}");
            }
            None => out.push_str(BLOT),
        }
        return;
    }
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_phone = word.starts_with('+') && digits >= 6;
    let is_token = word.len() >= 40
        && word
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || b"-_+/=.".contains(&it))
        && digits > 0
        && word.bytes().any(|it| it.is_ascii_uppercase())
        && word.bytes().any(|it| it.is_ascii_lowercase());
    if is_phone || is_token || word.contains("$argon2") || word.starts_with("eyJ") {
        out.push_str(BLOT);
    } else {
        out.push_str(word);
    }
}

/// What readers of JSON and of numbers quote of what they could not read.
fn without_quotes(text: &str) -> Cow<'_, str> {
    let marks = [
        ("string \\\"", "\\\""),
        ("string \"", "\""),
        ("variant `", "`"),
        ("field `", "`"),
        ("literal: ", ","),
    ];
    let mut text = Cow::Borrowed(text);
    for (open, close) in marks {
        let mut from = 0;
        while let Some(at) = text[from..].find(open) {
            let begin = from + at + open.len();
            let end = text[begin..].find(close).map_or(text.len(), |end| begin + end);
            text = format!("{}{BLOT}{}", &text[..begin], &text[end..]).into();
            from = begin + BLOT.len();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged meanwhile.
    fn logged(format: LogFormat, work: impl FnOnce()) -> Vec<String> {
        let out = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines {
            format,
            colours: false,
            out: Box::new({
                let out = out.clone();
                move |line: &[u8]| out.lock().expect("nobody panicked").extend_from_slice(line)
            }),
        };
        let subscriber = tracing_subscriber::registry()
            .with(EnvFilter::new("trace"))
            .with(filter_fn(discreet))
            .with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = out.lock().expect("nobody panicked").clone();
        let text = String::from_utf8(bytes).expect("it is text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_of_json_has_its_fields_and_the_context_of_its_request() {
        let lines = logged(LogFormat::Json, || {
            let span =
                tracing::info_span!("operation", request_id = "r-1", operation = "Board", tenant = "t");
            span.in_scope(|| tracing::warn!(record_id = 7, "it happened"));
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        let line: Value = serde_json::from_str(line).expect("it is JSON");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["service"], "dealstream");
        assert_eq!(line["message"], "it happened");
        assert_eq!(line["requestId"], "r-1");
        let context = serde_json::json!({ "operation": "Board", "tenant": "t", "recordId": 7 });
        assert_eq!(line["context"], context);
        let moment = line["timestamp"].as_str().expect("it is there");
        assert!(chrono::DateTime::parse_from_rfc3339(moment).is_ok() && moment.ends_with('Z'));
    }

    #[test]
    fn values_of_spans_are_scrubbed_and_made_to_fit_as_those_of_events_are() {
        let evil = "bob@acme.example\nforged\u{202e}";
        for format in [LogFormat::Json, LogFormat::Text] {
            let lines = logged(format, || {
                let span = tracing::info_span!(
                    "outer",
                    address = "ada@acme.example",
                    phone = Some("+4930123456"),
                    token = ?"eyJ0",
                    shown = %evil,
                );
                span.in_scope(|| {
                    let span = tracing::info_span!("inner", later = tracing::field::Empty);
                    span.record("later", evil);
                    span.record("later", "x ".repeat(LETTERS));
                    span.in_scope(|| tracing::info!("of eve@acme.example"));
                    span.in_scope(|| tracing::info!(again = "eve@acme.example", "again"));
                });
            });
            assert_eq!(lines.len(), 2, "{lines:?}");
            for line in &lines {
                for secret in ["acme", "4930", "eyJ", "\u{202e}"] {
                    assert!(!line.contains(secret), "{secret}: {line}");
                }
                for name in ["address", "phone", "token", "shown", "later"] {
                    assert!(line.contains(name), "{name}: {line}");
                }
                assert!(line.contains(BLOT) && line.len() < 2 * LETTERS, "{line}");
            }
        }
    }

    #[test]
    fn nothing_can_begin_another_line() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let evil = "a\r\n2026-11-21T00:00:00Z ERROR dealstream: forged\u{2028}\x1b[2J\u{202e}";
            let lines = logged(format, || tracing::info!(agent = evil, "hello\n{evil}"));
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(!lines[0].contains(is_unprintable), "{lines:?}");
            assert!(lines[0].contains("forged"), "{lines:?}");
        }
    }

    #[test]
    fn libraries_are_not_heard_below_info_and_we_are() {
        let lines = logged(LogFormat::Text, || {
            tracing::trace!(target: "tokio_postgres::query", "canary");
            tracing::debug!(target: "dealstreamer", "canary");
            tracing::info!(target: "hyper", "heard");
            tracing::trace!("ours");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(!lines.concat().contains("canary"));
    }

    #[test]
    fn what_is_secret_or_personal_is_blotted_out() {
        for (text, scrubbed) in [
            ("mail to ada@acme.example now", "mail to ••• now"),
            ("(email)=(ada.l+x@acme.example)", "(email)=(•••)"),
            (
                "postgres://dealstream:pa$s#w@rd@db.example:5432/x",
                "postgres://•••@db.example:5432/x",
            ),
            ("Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc", "Bearer •••"),
            ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA", "•••,t=2,p=1$c2FsdA"),
            ("call +49 or +4930123456", "call +49 or •••"),
            ("token kJ8sdf7ASDF6asdf5ASDF4asdf3ASDF2asdf1ASDF09x.", "token •••"),
            (
                "Error(\"invalid type: string \\\"Ada\\\", expected u8\", line: 1)",
                "Error(\"invalid type: string \\\"•••\\\", expected u8\", line: 1)",
            ),
            (
                "unknown variant `Ada`, expected one of",
                "unknown variant `•••`, expected one of",
            ),
            // What people look for in a log stays.
            (
                "deal_01h455vb4pex5vsknk084sn02q",
                "deal_01h455vb4pex5vsknk084sn02q",
            ),
            (
                "018f4d8e-7b5c-7cc3-98c4-dc0c0c07398f",
                "018f4d8e-7b5c-7cc3-98c4-dc0c0c07398f",
            ),
            (
                "constraint \"deals_stage_id_fkey\" of /var/lib/x:12",
                "constraint \"deals_stage_id_fkey\" of /var/lib/x:12",
            ),
        ] {
            assert_eq!(scrub(text), scrubbed);
        }
    }
}
