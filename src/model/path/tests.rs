//! Paths: one normal form, and nothing that two readers could read in two ways.

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
