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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(raw: &str) -> Result<String, PathError> {
        RequestPath::parse(raw.as_bytes()).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (raw, normal) in [
            ("/", "/"),
            ("/v1/completions/", "/v1/completions/"),
            ("//a//b", "//a//b"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%41%7a%30%2d%2e%5f%7E", "/Az0-._~"),
            ("/a%3fz=1%23%25", "/a%3Fz=1%23%25"),
            ("/a%20b", "/a%20b"),
            ("/did:nv:ab@x!$&'()*+,;=", "/did:nv:ab@x!$&'()*+,;="),
            ("/%3a%40%21", "/%3A%40%21"), // reserved: the escape may mean something else
            ("/\"<>^`{|}[]", "/%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
            ("/café", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b/.c./d..", "/a/..b/.c./d.."),
            ("/a;..;/b", "/a;..;/b"),
            ("/a%252fb", "/a%252fb"), // an escaped %, then two letters
            ("/a%25b", "/a%25b"),
            ("/x/a..%2fadmin", "/x/a..%2Fadmin"),
        ] {
            assert_eq!(parse(raw).as_deref(), Ok(normal), "{raw}");
        }
        assert_eq!(RequestPath::parse(b"/caf\xe9").unwrap().as_str(), "/caf%E9");
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        use PathError::{Backslash, Control, DotSegment, Fragment, MalformedEscape, NotAbsolute, Query, Space};
        for (raw, error) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("a", NotAbsolute),
            ("%2fa", NotAbsolute),
            ("http://h/", NotAbsolute),
            ("/%", MalformedEscape),
            ("/%4", MalformedEscape),
            ("/%zz", MalformedEscape),
            ("/%4g", MalformedEscape),
            ("/%E0%A4%A", MalformedEscape),
            ("/%%32e", MalformedEscape),
            ("/%+1", MalformedEscape),
            ("/a\0", Control),
            ("/a\r\nX: y", Control),
            ("/a\t", Control),
            ("/a\x7f", Control),
            ("/a%00b", Control),
            ("/a%0d%0aX-Inj:%201", Control),
            ("/a%1F", Control),
            ("/a%7f", Control),
            ("/a\\b", Backslash),
            ("/a%5cb", Backslash),
            ("/a%5Cb", Backslash),
            ("/.", DotSegment),
            ("/..", DotSegment),
            ("/./a", DotSegment),
            ("/x/../admin", DotSegment),
            ("/x/%2e%2e/admin", DotSegment),
            ("/x/.%2E/admin", DotSegment),
            ("/x/%2e", DotSegment),
            ("/x/..%2fadmin", DotSegment),
            ("/x%2f..%2Fadmin", DotSegment),
            ("/x%2f..", DotSegment),
            ("/x/%2e%2e%2fadmin", DotSegment),
            ("/x/..;/admin", DotSegment),
            ("/x/..;a=b/admin", DotSegment),
            ("/x/.;a", DotSegment),
            ("/x/..%3b/admin", DotSegment),
            ("/x/..%3fz", DotSegment), // decoded, the query begins here and the path ends in a dot segment
            ("/x/..%23z", DotSegment),
            ("/x/%252e%252e/admin", DotSegment),
            ("/x/..%252fadmin", DotSegment),
            ("/x/..%255cadmin", DotSegment),
            ("/x/%25%32%65%2e/admin", DotSegment),
            ("/a b", Space),
            ("/a#b", Fragment),
            ("/a?b", Query),
        ] {
            assert_eq!(parse(raw), Err(error), "{raw:?}");
        }
    }

    #[test]
    fn a_path_in_normal_form_is_not_copied() {
        for raw in ["/", "/v1/agents/did:nv:ab/tasks", "/a%2Fb/caf%C3%A9%20", "/a%252fb"] {
            assert!(matches!(RequestPath::parse(raw.as_bytes()), Ok(RequestPath(Cow::Borrowed(_)))), "{raw}");
        }
        assert!(matches!(RequestPath::parse(b"/%61"), Ok(RequestPath(Cow::Owned(_)))));
    }

    #[test]
    fn a_query_is_left_as_it_is() {
        for (raw, path, query) in [
            ("/a", "/a", None),
            ("/a?", "/a", Some("")),
            ("/%61?x=%20%22&y=%zz/../?\\é", "/a", Some("x=%20%22&y=%zz/../?\\é")),
        ] {
            let target = RequestTarget::parse(raw.as_bytes()).unwrap();
            assert_eq!((target.path.as_str(), target.query), (path, query), "{raw}");
        }
    }

    #[test]
    fn a_query_that_would_not_arrive_as_one_is_refused() {
        for (raw, error) in [
            (b"/a?x y".as_slice(), PathError::QuerySpace),
            (b"/a?x#y", PathError::Fragment),
            (b"/a?x\r\nX: y", PathError::QueryControl),
            (b"/a?\0", PathError::QueryControl),
            (b"/a?\x7f", PathError::QueryControl),
            (b"/a?\xff", PathError::QueryNotText),
            (b"/a#?x", PathError::Fragment),
            (b"?x", PathError::NotAbsolute),
            (b"", PathError::NotAbsolute),
        ] {
            assert_eq!(RequestTarget::parse(raw), Err(error), "{raw:?}");
        }
    }

    #[test]
    fn every_refusal_has_a_word_of_its_own() {
        use PathError as E;
        let all = [
            E::NotAbsolute,
            E::MalformedEscape,
            E::Control,
            E::Backslash,
            E::DotSegment,
            E::Space,
            E::Fragment,
            E::Query,
            E::QueryControl,
            E::QuerySpace,
            E::QueryNotText,
        ];
        let words: std::collections::BTreeSet<_> = all.iter().map(|error| error.reason()).collect();
        assert_eq!(words.len(), all.len());
    }

    /// Bytes that make up interesting paths, more often than others do.
    fn raw_paths() -> impl Strategy<Value = Vec<u8>> {
        let bits = prop_oneof![
            8 => proptest::sample::select(vec![
                "/", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", "%25", "%252e", "%252f", "%255c", ";", "%3b", "%3F",
                "%23", "a", "%61", "%", "%4", "2e", "%c3%a9", "é", "|", "[", "%20", ":", "%3a", "%7e", "%0d", "?", "#", " ",
            ]).prop_map(|text| text.as_bytes().to_vec()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ];
        proptest::collection::vec(bits, 0..12).prop_map(|bits| [b"/".to_vec(), bits.concat()].concat())
    }

    fn decode(bytes: &[u8]) -> Vec<u8> {
        Decode(bytes.iter().copied()).collect()
    }

    /// A second opinion on dot segments, without a state machine.
    fn naive_dot_segment(bytes: &[u8], slashes: &[u8]) -> bool {
        bytes.split(|byte| slashes.contains(byte)).any(|segment| {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            name == b"." || name == b".."
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn any_bytes_are_accepted_or_refused(raw: Vec<u8>) {
            let _ = RequestPath::parse(&raw);
            let _ = RequestTarget::parse(&raw);
        }

        #[test]
        fn the_normal_form_is_its_own_normal_form(raw in raw_paths()) {
            if let Ok(path) = RequestPath::parse(&raw) {
                let again = RequestPath::parse(path.as_str().as_bytes()).unwrap();
                prop_assert!(matches!(again.0, Cow::Borrowed(_)));
                prop_assert_eq!(&again, &path);
            }
        }

        #[test]
        fn the_normal_form_holds_only_pchar_and_slash(raw in raw_paths()) {
            if let Ok(path) = RequestPath::parse(&raw) {
                let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/%";
                prop_assert!(path.as_str().chars().all(|c| alphabet.contains(c)));
                for (at, _) in path.as_str().match_indices('%') {
                    let digits = &path.as_str()[at + 1..at + 3];
                    prop_assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)));
                }
            }
        }

        #[test]
        fn the_normal_form_means_what_was_sent(raw in raw_paths()) {
            if let Ok(path) = RequestPath::parse(&raw) {
                prop_assert_eq!(decode(path.as_str().as_bytes()), decode(&raw));
            }
        }

        #[test]
        fn no_reading_of_an_accepted_path_has_a_dot_segment(raw in raw_paths()) {
            if let Ok(path) = RequestPath::parse(&raw) {
                let never = path.as_str().as_bytes();
                let once = decode(never);
                let twice = decode(&once);
                for reading in [never, &once, &twice] {
                    prop_assert!(!naive_dot_segment(reading, b"/"));
                    prop_assert!(!naive_dot_segment(reading, b"/\\"));
                }
                prop_assert!(!once.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\'));
            }
        }
    }
}
