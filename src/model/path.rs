//! The path of a request target, in the one form that is both matched and sent upstream.
//!
//! The system we replace authorised the raw path and sent the decoded one, so `/x/..%2fadmin` was allowed as something
//! below `/x/` and arrived as `/admin` (nevermined.md sections 3 and 5.3). Here a path is brought to its normal form
//! once; what has two readings is refused, and every later room sees these bytes and no others.

use std::borrow::Cow;

/// A path in normal form: it begins with `/`, holds only `pchar` and `/` (RFC 3986 §3.3), its escapes are upper-case
/// and never spell an unreserved character (RFC 3986 §6.2.2), and no reading of it contains a dot segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestPath<'a>(Cow<'a, str>);

/// What a request asks for: the path in normal form, and the query as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    /// The path, to be matched and sent.
    pub path: RequestPath<'a>,
    /// What follows the first `?`, untouched. An empty query is not the same as none.
    pub query: Option<&'a str>,
}

/// Why a request target is refused. None of these is a path that a well-behaved client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A `%` that two hexadecimal digits do not follow.
    #[error("the path has a % without two hexadecimal digits")]
    MalformedEscape,
    /// A control character, as it is or as an escape (`%0d%0a`, `%00`).
    #[error("the path has a control character")]
    Control,
    /// A backslash, as it is or as `%5c`: some servers read it as a slash.
    #[error("the path has a backslash")]
    Backslash,
    /// A segment `.` or `..` in any spelling, or one that becomes such where `%2f` is read as a slash, where parameters
    /// (`..;x`) are cut off, or where a server decodes twice (`%252e`).
    #[error("the path has a dot segment")]
    DotSegment,
    /// A space as it is.
    #[error("the path has a space")]
    Space,
    /// A fragment, which is never sent (RFC 9112 §3.2).
    #[error("the request target has a fragment")]
    Fragment,
    /// A `?`, where a path alone was expected.
    #[error("the path has a query")]
    Query,
    /// A control character in the query.
    #[error("the query has a control character")]
    QueryControl,
    /// A space in the query.
    #[error("the query has a space")]
    QuerySpace,
    /// Bytes in the query that are no UTF-8.
    #[error("the query is not UTF-8")]
    QueryNotText,
}

impl PathError {
    /// The metric label and the `reason` field of the access log. Operators build alerts on these: never rename one.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotAbsolute => "path_not_absolute",
            Self::MalformedEscape => "path_malformed_escape",
            Self::Control => "path_control_character",
            Self::Backslash => "path_backslash",
            Self::DotSegment => "path_dot_segment",
            Self::Space => "path_space",
            Self::Fragment => "target_fragment",
            Self::Query => "path_query",
            Self::QueryControl => "query_control_character",
            Self::QuerySpace => "query_space",
            Self::QueryNotText => "query_not_text",
        }
    }
}

impl<'a> RequestPath<'a> {
    /// Brings a path to its normal form. Allocates only if it is not in that form already.
    ///
    /// `%2F` stays an escape and `//` stays two slashes: both mean what the upstream takes them for.
    ///
    /// # Errors
    /// When the path is one of those [`PathError`] lists.
    pub fn parse(raw: &'a [u8]) -> Result<Self, PathError> {
        if raw.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        let normal = normal_form(raw)?;
        if has_dot_segment(normal.as_bytes()) {
            return Err(PathError::DotSegment);
        }
        Ok(Self(normal))
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same path, owning its text.
    #[must_use]
    pub fn into_owned(self) -> RequestPath<'static> {
        RequestPath(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> RequestTarget<'a> {
    /// Takes a request target in origin form apart (RFC 9112 §3.2.1).
    ///
    /// # Errors
    /// When the path or the query is one of those [`PathError`] lists.
    pub fn parse(path_and_query: &'a [u8]) -> Result<Self, PathError> {
        let mut halves = path_and_query.splitn(2, |byte| *byte == b'?');
        let path = RequestPath::parse(halves.next().unwrap_or_default())?;
        let query = halves.next().map(parse_query).transpose()?;
        Ok(Self { path, query })
    }
}

fn parse_query(raw: &[u8]) -> Result<&str, PathError> {
    for byte in raw {
        match byte {
            b' ' => return Err(PathError::QuerySpace),
            b'#' => return Err(PathError::Fragment),
            byte if byte.is_ascii_control() => return Err(PathError::QueryControl),
            _ => {}
        }
    }
    std::str::from_utf8(raw).map_err(|_| PathError::QueryNotText)
}

/// The normal form of any part of a path: the literals of an endpoint pattern go through here too, so that both sides
/// of a comparison are spelled alike.
pub(super) fn normal_form(raw: &[u8]) -> Result<Cow<'_, str>, PathError> {
    let mut rest = raw;
    let mut normal: Option<String> = None;
    let mut kept = 0;
    while let Some((unit, after)) = Unit::next(rest)? {
        let same = rest.get(..rest.len() - after.len()).is_some_and(|spelled| unit.is_spelled(spelled));
        if normal.is_none() && !same {
            normal = Some(ascii(raw.get(..kept).unwrap_or_default()).to_owned());
        }
        if let Some(text) = &mut normal {
            unit.write(text);
        }
        kept += rest.len() - after.len();
        rest = after;
    }
    Ok(normal.map_or_else(|| Cow::Borrowed(ascii(raw)), Cow::Owned))
}

/// What has been looked at is ASCII: everything else was turned into an escape.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// One character of a path, or one escape.
#[derive(Clone, Copy)]
enum Unit {
    Plain(u8),
    Escape(u8),
}

impl Unit {
    fn next(rest: &[u8]) -> Result<Option<(Self, &[u8])>, PathError> {
        let Some((&first, after)) = rest.split_first() else { return Ok(None) };
        let (meant, after) = match first {
            b'%' => {
                let (value, after) = escaped(after).ok_or(PathError::MalformedEscape)?;
                if value.is_ascii_control() {
                    return Err(PathError::Control);
                }
                if value == b'\\' {
                    return Err(PathError::Backslash);
                }
                (if is_unreserved(value) { Self::Plain(value) } else { Self::Escape(value) }, after)
            }
            b' ' => return Err(PathError::Space),
            b'#' => return Err(PathError::Fragment),
            b'?' => return Err(PathError::Query),
            b'\\' => return Err(PathError::Backslash),
            control if control.is_ascii_control() => return Err(PathError::Control),
            byte if may_stand(byte) => (Self::Plain(byte), after),
            byte => (Self::Escape(byte), after),
        };
        Ok(Some((meant, after)))
    }

    fn is_spelled(self, spelled: &[u8]) -> bool {
        match self {
            Self::Plain(byte) => spelled == [byte],
            Self::Escape(byte) => spelled == escape(byte),
        }
    }

    fn write(self, text: &mut String) {
        match self {
            Self::Plain(byte) => text.push(char::from(byte)),
            Self::Escape(byte) => text.extend(escape(byte).map(char::from)),
        }
    }
}

fn escape(byte: u8) -> [u8; 3] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'A' + (value - 10) };
    [b'%', digit(byte >> 4), digit(byte & 0xF)]
}

/// The byte that two hexadecimal digits stand for, and what follows them.
fn escaped(after_percent: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], after) = after_percent.split_first_chunk::<2>()?;
    Some(((nibble(high)? << 4) | nibble(low)?, after))
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` without escapes, and the slash (RFC 3986 §3.3).
fn may_stand(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

/// Whether some server could read a dot segment out of this path: one that decodes it once or twice, takes an encoded
/// slash or backslash for a separator, and cuts off what follows `;`, `?` or `#` in a segment.
///
/// Decoding twice and separating everywhere finds all that the milder readings find: decoding leaves dots and slashes
/// where they are, and a segment between more separators is no longer.
fn has_dot_segment(normal: &[u8]) -> bool {
    if normal.contains(&b'%') {
        dot_segment_in(Decode(Decode(normal.iter().copied())))
    } else {
        dot_segment_in(normal.iter().copied())
    }
}

fn dot_segment_in(bytes: impl Iterator<Item = u8>) -> bool {
    /// What the segment has been so far.
    enum Segment {
        Dots(u8),
        Other,
    }
    let mut segment = Segment::Other;
    for byte in bytes {
        segment = match (byte, segment) {
            (b'/' | b'\\' | b';' | b'?' | b'#', Segment::Dots(1 | 2)) => return true,
            (b'/' | b'\\', _) => Segment::Dots(0),
            (b'.', Segment::Dots(dots)) => Segment::Dots(dots.saturating_add(1)),
            _ => Segment::Other,
        };
    }
    matches!(segment, Segment::Dots(1 | 2))
}

/// Decodes escapes on the way, and leaves malformed ones as they are.
#[derive(Clone)]
struct Decode<I>(I);

impl<I: Iterator<Item = u8> + Clone> Iterator for Decode<I> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let byte = self.0.next()?;
        if byte != b'%' {
            return Some(byte);
        }
        let mut ahead = self.0.clone();
        if let (Some(high), Some(low)) = (ahead.next().and_then(nibble), ahead.next().and_then(nibble)) {
            self.0 = ahead;
            return Some((high << 4) | low);
        }
        Some(byte)
    }
}

#[cfg(test)]
mod tests;
