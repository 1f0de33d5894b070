//! The pattern language of endpoint paths: path-to-regexp 6.2.2, default options, without what a WHATWG pathname
//! cannot hold (`?`, `{}`, `\`, white space).
//!
//! A pattern is text, parameters (`:name`, one or more characters but no `/`) and groups (`(…)`, a regular expression
//! without groups). A `/` or `.` before a parameter or group belongs to it, which shows when `*` or `+` follows:
//! `/:id*` repeats `/x`. Groups are translated from JavaScript's syntax, because the two dialects differ within the
//! little that is left of them: `[]`, `[^]`, `[[]` and `**`.

use std::{fmt::Write as _, iter::Peekable, str::Chars};

use regex::bytes::{Regex, RegexBuilder};

use super::{EndpointError, MAX_GROUPS};
use crate::model::path::normal_form;

/// The most memory one compiled expression may take, in bytes.
const MAX_PROGRAM_BYTES: usize = 256 * 1024;

/// The longest text that is searched for between two `(.*)`. It bounds the work of the search.
const MAX_SEARCHED_BYTES: usize = 64;

/// A compiled pattern.
pub(super) enum Pattern {
    /// Texts with `(.*)` between them: nearly every endpoint in the wild, and a hundredth of an expression's memory.
    Texts { first: Box<str>, rest: Box<[Box<str>]> },
    /// Anything else.
    Expression { regex: Regex, footprint: usize },
}

impl Pattern {
    pub(super) fn compile(pathname: &str) -> Result<Self, EndpointError> {
        let pieces = pieces(pathname)?;
        if let Some(texts) = texts(&pieces)? {
            return Ok(texts);
        }
        let expression = expression(&pieces)?;
        let regex = RegexBuilder::new(&expression)
            .unicode(false)
            .case_insensitive(true)
            .size_limit(MAX_PROGRAM_BYTES)
            .dfa_size_limit(MAX_PROGRAM_BYTES)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => EndpointError::TooComplex,
                _ => EndpointError::Expression,
            })?;
        Ok(Self::Expression { regex, footprint: 8 * 1024 + 64 * expression.len() })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Expression { regex, .. } => regex.is_match(path),
            Self::Texts { first, rest } => {
                let shorter = path.strip_suffix(b"/");
                texts_match(first, rest, path) || shorter.is_some_and(|path| texts_match(first, rest, path))
            }
        }
    }

    pub(super) fn footprint(&self) -> usize {
        match self {
            Self::Expression { footprint, .. } => *footprint,
            Self::Texts { first, rest } => first.len() + rest.iter().map(|text| text.len() + 16).sum::<usize>(),
        }
    }
}

/// Text, or a parameter or group with what belongs to it.
enum Piece {
    Text(String),
    Group { prefix: &'static str, expression: Option<String>, modifier: Option<Modifier> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Modifier {
    Star,
    Plus,
}

/// Takes a pattern apart, as `parse` of the original does. The text of a piece is in normal form; that of a group is
/// not yet looked at.
fn pieces(pathname: &str) -> Result<Vec<Piece>, EndpointError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut groups = 0;
    let mut rest = pathname.chars().peekable();
    while let Some(&next) = rest.peek() {
        let expression = match next {
            ':' => {
                parameter(&mut rest)?;
                if rest.peek() == Some(&'(') { Some(group(&mut rest)?) } else { None }
            }
            '(' => Some(group(&mut rest)?),
            '*' | '+' => return Err(EndpointError::DanglingModifier),
            _ => {
                text.push(next);
                rest.next();
                continue;
            }
        };
        groups += 1;
        if groups > MAX_GROUPS {
            return Err(EndpointError::TooComplex);
        }
        let prefix = match text.chars().next_back() {
            Some('/') => "/",
            Some('.') => ".",
            _ => "",
        };
        text.truncate(text.len() - prefix.len());
        if !text.is_empty() {
            pieces.push(Piece::Text(normal_text(&text)?));
            text.clear();
        }
        let modifier = match rest.peek() {
            Some('*') => Some(Modifier::Star),
            Some('+') => Some(Modifier::Plus),
            _ => None,
        };
        if modifier.is_some() {
            rest.next();
        }
        pieces.push(Piece::Group { prefix, expression, modifier });
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(normal_text(&text)?));
    }
    Ok(pieces)
}

fn normal_text(text: &str) -> Result<String, EndpointError> {
    normal_form(text.as_bytes()).map(std::borrow::Cow::into_owned).map_err(|_| EndpointError::Unmatchable)
}

/// Skips `:name`. The name says what to call a value that nobody asks for.
fn parameter(rest: &mut Peekable<Chars<'_>>) -> Result<(), EndpointError> {
    rest.next();
    let mut named = false;
    while rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_').is_some() {
        named = true;
    }
    if named { Ok(()) } else { Err(EndpointError::MissingName) }
}

/// Reads `(…)` up to the first closing parenthesis, in a class or not, as the original does.
fn group(rest: &mut Peekable<Chars<'_>>) -> Result<String, EndpointError> {
    rest.next();
    let mut expression = String::new();
    for next in rest.by_ref() {
        match next {
            '(' => return Err(EndpointError::NestedGroup),
            ')' if expression.is_empty() => return Err(EndpointError::EmptyGroup),
            ')' => return Ok(expression),
            _ => expression.push(next),
        }
    }
    Err(EndpointError::UnclosedGroup)
}

/// The pattern as texts with anything between them, if it is one of these.
fn texts(pieces: &[Piece]) -> Result<Option<Pattern>, EndpointError> {
    let mut texts = vec![String::new()];
    for piece in pieces {
        let (text, hole) = match piece {
            Piece::Text(text) => (text.as_str(), false),
            Piece::Group { prefix, expression: Some(expression), modifier: None } if expression == ".*" => {
                (*prefix, true)
            }
            Piece::Group { .. } => return Ok(None),
        };
        if let Some(last) = texts.last_mut() {
            last.push_str(text);
        }
        if hole {
            texts.push(String::new());
        }
    }
    let searched = texts.get(1..texts.len().saturating_sub(1)).unwrap_or_default();
    if searched.iter().any(|text| text.len() > MAX_SEARCHED_BYTES) {
        return Ok(None);
    }
    let mut texts = texts.into_iter().map(String::into_boxed_str);
    let first = texts.next().ok_or(EndpointError::Expression)?;
    Ok(Some(Pattern::Texts { first, rest: texts.collect() }))
}

/// Whether the path is the first text, then the others in their order with anything between, the last at the end.
/// Taking the first place where a text fits leaves the most for those that follow, so one pass decides.
fn texts_match(first: &str, rest: &[Box<str>], path: &[u8]) -> bool {
    let Some((last, searched)) = rest.split_last() else {
        return path.eq_ignore_ascii_case(first.as_bytes());
    };
    let Some((begin, path)) = path.split_at_checked(first.len()) else { return false };
    let Some((mut path, end)) = path.len().checked_sub(last.len()).and_then(|at| path.split_at_checked(at)) else {
        return false;
    };
    if !begin.eq_ignore_ascii_case(first.as_bytes()) || !end.eq_ignore_ascii_case(last.as_bytes()) {
        return false;
    }
    for text in searched.iter().filter(|text| !text.is_empty()) {
        let found = path.windows(text.len()).position(|window| window.eq_ignore_ascii_case(text.as_bytes()));
        let Some(after) = found.and_then(|at| path.get(at + text.len()..)) else { return false };
        path = after;
    }
    true
}

/// The whole pattern as a regular expression, as `tokensToRegexp` of the original writes it, but for the captures and
/// the delimiters `#` and `?`, which no path has.
fn expression(pieces: &[Piece]) -> Result<String, EndpointError> {
    let mut whole = String::from("^");
    for piece in pieces {
        match piece {
            Piece::Text(text) => push_escaped(&mut whole, text),
            Piece::Group { prefix, expression, modifier } => {
                let inner = expression.as_deref().map_or_else(|| Ok("[^/]+".to_owned()), translate)?;
                let prefix = regex::escape(prefix);
                let written = match (modifier, prefix.is_empty()) {
                    (None, _) => write!(whole, "{prefix}(?:{inner})"),
                    (Some(Modifier::Star), true) => write!(whole, "(?:{inner})*"),
                    (Some(Modifier::Plus), true) => write!(whole, "(?:{inner})+"),
                    (Some(Modifier::Star), false) => write!(whole, "(?:{prefix}(?:{inner}))*"),
                    (Some(Modifier::Plus), false) => write!(whole, "(?:{prefix}(?:{inner}))+"),
                };
                written.map_err(|_| EndpointError::Expression)?;
            }
        }
    }
    whole.push_str("/?$");
    Ok(whole)
}

fn push_escaped(into: &mut String, text: &str) {
    into.push_str(&regex::escape(text));
}

/// Translates what stands in a group from JavaScript's dialect (without the `u` flag) to that of the `regex` crate.
/// Of the syntax only alternatives, `.`, classes, `^`, `$`, `*` and `+` can occur.
fn translate(expression: &str) -> Result<String, EndpointError> {
    let mut translated = String::new();
    let mut repeatable = false;
    let mut rest = expression.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '*' | '+' if !repeatable => return Err(EndpointError::Expression),
            '*' | '+' | '|' | '^' | '$' | '.' => translated.push(next),
            '[' => translated.push_str(&class(&mut rest)?),
            '%' => push_escaped(&mut translated, &percent(&mut rest)),
            literal => {
                let text = normal_text(literal.encode_utf8(&mut [0; 4]))?;
                push_escaped(&mut translated, &text);
            }
        }
        repeatable = !matches!(next, '*' | '+' | '|' | '^' | '$');
    }
    Ok(translated)
}

/// The text of an escape after its `%`: in normal form, unless the last digit is repeated, for then it stands alone.
fn percent(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut ahead = rest.clone();
    let escape: String = std::iter::once('%').chain(ahead.by_ref().take(2)).collect();
    if matches!(ahead.peek(), Some('*' | '+')) {
        return "%".to_owned();
    }
    match normal_form(escape.as_bytes()) {
        Ok(normal) => {
            *rest = ahead;
            normal.into_owned()
        }
        Err(_) => "%".to_owned(),
    }
}

/// A class after its `[`. It ends at the first `]`, even if that is the first character: `[]` is nothing, `[^]` is
/// anything, and `[` has no meaning within.
fn class(rest: &mut Peekable<Chars<'_>>) -> Result<String, EndpointError> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let from = match rest.next().ok_or(EndpointError::Expression)? {
            ']' => break,
            from => from,
        };
        let mut ahead = rest.clone();
        let to = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) if to != ']' => {
                *rest = ahead;
                to
            }
            _ => from,
        };
        if !(from.is_ascii() && to.is_ascii() && from <= to) {
            return Err(EndpointError::Expression);
        }
        ranges.push(format!(r"\x{:02X}-\x{:02X}", u32::from(from), u32::from(to)));
    }
    Ok(match (negated, ranges.is_empty()) {
        (false, true) => r"[^\x00-\xFF]".to_owned(),
        (true, true) => r"[\x00-\xFF]".to_owned(),
        (false, false) => format!("[{}]", ranges.concat()),
        (true, false) => format!("[^{}]", ranges.concat()),
    })
}
