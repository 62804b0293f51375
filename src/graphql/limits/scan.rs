//! One pass over the query text before the parser sees it: tokens and brackets counted, and the few forms of the
//! current specification that the parser does not know rewritten into ones that it does.

use std::borrow::Cow;
use std::ops::Range;

use async_graphql::Pos;
use async_graphql::parser::Error;

use super::{Limits, PARSE_FAILED, Refusal, TOO_COMPLEX, VALIDATION_FAILED, too_complex};

/// Checks the size of a text, leaves out comments and descriptions, and rewrites the `\u{…}` and surrogate-pair escapes
/// of strings. Positions of what follows stay right but for columns behind a rewritten escape.
pub(super) fn scan<'a>(text: &'a str, limits: &Limits) -> Result<Cow<'a, str>, Refusal> {
    if text.len() > limits.query_bytes {
        return Err(too_complex(
            "bytes of query text",
            text.len(),
            limits.query_bytes,
            None,
        ));
    }
    let mut scanner = Scanner {
        text,
        at: 0,
        edits: Vec::new(),
    };
    scanner.run(limits)?;
    Ok(apply(text, scanner.edits))
}

fn apply(text: &str, edits: Vec<(Range<usize>, String)>) -> Cow<'_, str> {
    if edits.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    let mut copied = 0;
    for (range, replacement) in edits {
        result.push_str(&text[copied..range.start]);
        result.push_str(&replacement);
        copied = range.end;
    }
    result.push_str(&text[copied..]);
    Cow::Owned(result)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    edits: Vec<(Range<usize>, String)>,
}

impl Scanner<'_> {
    fn run(&mut self, limits: &Limits) -> Result<(), Refusal> {
        let bytes = self.text.as_bytes();
        let mut tokens = 0usize;
        let mut open: Vec<u8> = Vec::new();
        // The first byte of the token before this one; 0 at the start.
        let mut previous = 0u8;
        let mut described = false;
        while let Some(&byte) = bytes.get(self.at) {
            let start = self.at;
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b',' => {
                    self.at += 1;
                    continue;
                }
                b'#' => {
                    while bytes
                        .get(self.at)
                        .is_some_and(|byte| !matches!(byte, b'\n' | b'\r'))
                    {
                        self.at += 1;
                    }
                    // The parser would try its rules on every character; nothing stands behind it on its line.
                    self.edits.push((start..self.at, String::new()));
                    continue;
                }
                0xEF if self.text[start..].starts_with('\u{feff}') => {
                    self.at += 3;
                    continue;
                }
                _ => {}
            }
            tokens += 1;
            if tokens > limits.tokens {
                return Err(Refusal::new(
                    TOO_COMPLEX,
                    format!("The query text has more than {} tokens.", limits.tokens),
                    Some(position(self.text, start)),
                ));
            }
            if described && !byte.is_ascii_alphabetic() && byte != b'$' {
                return Err(self.unexpected(start));
            }
            described = false;
            match byte {
                b'{' | b'(' | b'[' => {
                    open.push(byte);
                    if open.len() > limits.brackets {
                        return Err(Refusal::new(
                            TOO_COMPLEX,
                            format!("The query text nests more than {} brackets.", limits.brackets),
                            Some(position(self.text, start)),
                        ));
                    }
                    self.at += 1;
                }
                b'}' | b')' | b']' => {
                    let opening = match byte {
                        b'}' => b'{',
                        b')' => b'(',
                        _ => b'[',
                    };
                    // The grammar asks for at least one argument or variable, the parser does not.
                    if open.pop() != Some(opening) || (byte == b')' && previous == b'(') {
                        return Err(self.unexpected(start));
                    }
                    self.at += 1;
                }
                b'!' | b'$' | b'&' | b':' | b'=' | b'@' | b'|' => self.at += 1,
                b'.' if bytes[start..].starts_with(b"...") => self.at += 3,
                b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                    self.skip(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
                }
                b'-' | b'0'..=b'9' => {
                    self.at += 1;
                    self.skip(|byte| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+' | b'-')
                    });
                }
                b'"' => {
                    let definition = open.is_empty() && matches!(previous, 0 | b'}');
                    let variable = open == [b'('] && !matches!(previous, b'=' | b':');
                    described = definition || variable;
                    self.string(described)?;
                }
                _ => return Err(self.unexpected(start)),
            }
            previous = byte;
        }
        if !open.is_empty() || described {
            return Err(self.unexpected(self.text.len()));
        }
        Ok(())
    }

    fn skip(&mut self, accept: impl Fn(u8) -> bool) {
        while self
            .text
            .as_bytes()
            .get(self.at)
            .is_some_and(|byte| accept(*byte))
        {
            self.at += 1;
        }
    }

    /// Passes a string; blanks it when it is a description, which keeps all positions.
    fn string(&mut self, description: bool) -> Result<(), Refusal> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let edits_before = self.edits.len();
        if bytes[start..].starts_with(b"\"\"\"") {
            self.at += 3;
            loop {
                let rest = &bytes[self.at.min(bytes.len())..];
                if rest.is_empty() {
                    return Err(self.unterminated(start));
                } else if rest.starts_with(b"\\\"\"\"") {
                    self.at += 4;
                } else if rest.starts_with(b"\"\"\"") {
                    self.at += 3;
                    break;
                } else {
                    self.at += 1;
                }
            }
        } else {
            self.at += 1;
            loop {
                match bytes.get(self.at) {
                    None | Some(b'\n' | b'\r') => return Err(self.unterminated(start)),
                    Some(b'"') => {
                        self.at += 1;
                        break;
                    }
                    Some(b'\\') if bytes.get(self.at + 1) == Some(&b'u') => self.escape()?,
                    // Whatever is escaped may be the first byte of a longer character: the rest passes as text.
                    Some(b'\\') => self.at += 2,
                    Some(_) => self.at += 1,
                }
            }
        }
        if description {
            self.edits.truncate(edits_before);
            let blank = self.text[start..self.at]
                .chars()
                .map(|c| if matches!(c, '\n' | '\r') { c } else { ' ' })
                .collect();
            self.edits.push((start..self.at, blank));
        }
        Ok(())
    }

    /// Passes a `\u` escape, and rewrites it when it is `\u{…}` or half of a surrogate pair.
    fn escape(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        let rest = &self.text[start + 2..];
        let (code, length) = if let Some(braced) = rest.strip_prefix('{') {
            let digits = braced.find('}').filter(|length| (1..=6).contains(length));
            let code = digits.and_then(|length| hex(&braced[..length]));
            (code, digits.map_or(0, |length| length + 4))
        } else {
            match hex4(rest) {
                Some(high @ 0xD800..=0xDBFF) => {
                    let low = rest.get(4..).and_then(|rest| hex4(rest.strip_prefix("\\u")?));
                    let code = low
                        .filter(|low| (0xDC00..=0xDFFF).contains(low))
                        .map(|low| 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
                    (code, 12)
                }
                Some(0xDC00..=0xDFFF) | None => (None, 0),
                Some(_) => {
                    self.at += 6;
                    return Ok(());
                }
            }
        };
        let Some(character) = code.and_then(char::from_u32) else {
            return Err(Refusal::new(
                PARSE_FAILED,
                "Syntax error: invalid Unicode escape in a string.",
                Some(position(self.text, start)),
            ));
        };
        let plain = match u32::from(character) {
            code @ (0..0x20 | 0x22 | 0x5C | 0x7F) => format!("\\u{code:04X}"),
            _ => character.to_string(),
        };
        self.edits.push((start..start + length, plain));
        self.at += length;
        Ok(())
    }

    fn unterminated(&self, start: usize) -> Refusal {
        Refusal::new(
            PARSE_FAILED,
            "Syntax error: a string is not closed.",
            Some(position(self.text, start)),
        )
    }

    fn unexpected(&self, at: usize) -> Refusal {
        unexpected(self.text, at)
    }
}

fn hex(digits: &str) -> Option<u32> {
    digits
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(digits, 16).ok())?
}

fn hex4(text: &str) -> Option<u32> {
    text.get(..4).and_then(hex)
}

fn unexpected(text: &str, at: usize) -> Refusal {
    let rest = &text[at..];
    let message = match rest.chars().next() {
        None => "Syntax error: unexpected end of the document.".to_owned(),
        Some(first) if first == '_' || first.is_ascii_alphanumeric() => {
            let name: String = rest
                .chars()
                .take_while(|c| *c == '_' || c.is_ascii_alphanumeric())
                .take(40)
                .collect();
            format!("Syntax error: unexpected \"{name}\".")
        }
        Some(first) if first.is_ascii_graphic() => format!("Syntax error: unexpected '{first}'."),
        Some(first) => format!("Syntax error: unexpected character U+{:04X}.", u32::from(first)),
    };
    Refusal::new(PARSE_FAILED, message, Some(position(text, at)))
}

/// The parser's error in words for a client.
pub(super) fn parse_error(error: Error, text: &str) -> Refusal {
    let at = error.positions().next();
    let (code, message) = match &error {
        Error::Syntax { start, .. } => {
            return unexpected(text, offset(text, *start));
        }
        Error::MultipleOperations { .. } => (
            VALIDATION_FAILED,
            "An anonymous operation must be the only operation of its document.".to_owned(),
        ),
        Error::OperationDuplicated { operation, .. } => (
            VALIDATION_FAILED,
            format!("There are several operations named \"{operation}\"."),
        ),
        Error::FragmentDuplicated { fragment, .. } => (
            VALIDATION_FAILED,
            format!("There are several fragments named \"{fragment}\"."),
        ),
        Error::RecursionLimitExceeded => (TOO_COMPLEX, "The selections are nested too deep.".to_owned()),
        _ => (PARSE_FAILED, "The document has no operation.".to_owned()),
    };
    Refusal::new(code, message, at)
}

/// Line and column (in characters, from 1) of a byte offset.
fn position(text: &str, offset: usize) -> Pos {
    let before = &text[..offset];
    let line_start = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let breaks = before
        .bytes()
        .filter(|byte| matches!(byte, b'\n' | b'\r'))
        .count();
    let pairs = before.matches("\r\n").count();
    Pos {
        line: breaks - pairs + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// The byte offset of the parser's position, which counts lines by `\n` alone.
fn offset(text: &str, at: Pos) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(at.line.saturating_sub(1))
        .map(str::len)
        .sum();
    text[start..]
        .char_indices()
        .nth(at.column.saturating_sub(1))
        .map_or(text.len(), |(column, _)| start + column)
}
