use proptest::prelude::*;

use super::*;

fn matches(endpoint: &str, path: &str) -> bool {
    let endpoint = Endpoint::parse(endpoint).unwrap_or_else(|error| panic!("{endpoint}: {error}"));
    let path = RequestPath::parse(path.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
    endpoint.matches(&path)
}

/// The whole table of nevermined.md section 3. A query in it never reaches the matcher.
#[test]
fn endpoints_match_as_they_did() {
    for (endpoint, matching, others) in [
        ("http://h", &["/"][..], &["/x"][..]),
        ("http://h/", &["/"], &["/x"]),
        (
            "http://h/v1/completions",
            &["/v1/completions", "/v1/completions/", "/V1/Completions"],
            &["/v1/completionsX", "/v1//completions"],
        ),
        ("http://h/v1/completions/", &["/v1/completions/"], &["/v1/completions"]),
        ("http://h/(.*)", &["/", "/a/b"], &[]),
        ("http://h/api(.*)", &["/api", "/apix/y"], &["/ap"]),
        ("http://h/api/(.*)", &["/api/", "/api/x/y"], &["/api"]),
        ("http://h(.*)", &["/"], &["/x"]),
        ("http://h/users/:id", &["/users/42", "/users/a%2Fb"], &["/users/", "/users/4/2"]),
        ("http://h/users/:id?", &["/users/42"], &["/users", "/users/"]),
        ("http://h/users/:id*", &["/users/a/b", "/users"], &["/usersx"]),
        ("http://h/users/:id+", &["/users/a", "/users/a/b"], &["/users"]),
        (r"http://h/users/:id(\d+)", &["/users//d"], &["/users/42"]),
        ("http://h/users/:id([0-9]+)", &["/users/42"], &["/users/x"]),
        ("http://h/users/{id}", &["/users/{id}"], &["/users/5"]),
        ("http://h/v1/models:list", &["/v1/models:list", "/v1/modelsfoo"], &["/v1/models"]),
        ("http://h/files/:name.json", &["/files/a.json"], &["/files/ajson", "/files/.json"]),
        ("http://h/a/(b|c)", &["/a/b", "/a/c"], &["/a/d", "/a/bc"]),
        ("http://h/a.json", &["/a.json"], &["/aXjson"]),
        ("http://h/a b", &["/a%20b"], &["/a"]),
        ("http://h/a%20b", &["/a%20b"], &["/a"]),
    ] {
        for path in matching {
            assert!(matches(endpoint, path), "{endpoint} {path}");
        }
        for path in others {
            assert!(!matches(endpoint, path), "{endpoint} {path}");
        }
    }
}

#[test]
fn endpoints_that_threw_are_errors_of_themselves_alone() {
    use EndpointError as E;
    for (endpoint, error) in [
        ("http://h:3005(.*)", E::Origin(OriginError::NotAUrl)),
        ("http://h/*", E::DanglingModifier),
        ("http://h/api/*", E::DanglingModifier),
        ("http://h/.*", E::DanglingModifier),
        ("http://h/a+b", E::DanglingModifier),
        ("http://h/(", E::UnclosedGroup),
        ("http://h/:", E::MissingName),
        ("http://h/()", E::EmptyGroup),
        ("http://h/a/(b(c))", E::NestedGroup),
        ("not a url", E::Origin(OriginError::NotAUrl)),
        ("/relative", E::Origin(OriginError::NotAUrl)),
        ("", E::Origin(OriginError::NotAUrl)),
        ("http://h/a**", E::DanglingModifier),
        ("http://h/:a**", E::DanglingModifier),
        ("http://h/:/x", E::MissingName),
        ("http://h/(?:x)", E::UnclosedGroup), // what follows the ? is the query
        ("http://h/(*)", E::Expression),
        ("http://h/(a**)", E::Expression),
        ("http://h/(a*+)", E::Expression),
        ("http://h/(a|+)", E::Expression),
        ("http://h/(^*)", E::Expression),
        ("http://h/($+)", E::Expression),
        ("http://h/([z-a])", E::Expression),
        ("http://h/([a)", E::Expression),
        ("http://h/([)])", E::Expression),
    ] {
        assert_eq!(Endpoint::parse(endpoint).map(|_| ()), Err(error), "{endpoint}");
    }
    // A request that made the original throw is refused before it gets here.
    assert!(RequestPath::parse(b"/users/%E0%A4%A").is_err());
}

/// The original matched `ftp://h/x` and then spoke HTTP to it; user names were ignored, and paths could be any length.
#[test]
fn endpoints_that_can_only_be_mistakes_are_errors() {
    use EndpointError as E;
    let long = format!("http://h/{}", "a".repeat(MAX_ENDPOINT_BYTES));
    let groups = format!("http://h/{}", ":a/".repeat(MAX_GROUPS + 1));
    for (endpoint, error) in [
        ("ftp://h/x", E::Origin(OriginError::Scheme)),
        ("file:///x", E::Origin(OriginError::Scheme)),
        ("ws://h/x", E::Origin(OriginError::Scheme)),
        ("data:x", E::Origin(OriginError::Scheme)),
        ("http://user@h/x", E::Origin(OriginError::UserInfo)),
        ("http://:secret@h/x", E::Origin(OriginError::UserInfo)),
        (long.as_str(), E::TooLong),
        (groups.as_str(), E::TooComplex),
        ("http://h/%zz", E::Unmatchable),
        ("http://h/a%00", E::Unmatchable),
        ("http://h/a%5cb", E::Unmatchable),
    ] {
        assert_eq!(Endpoint::parse(endpoint).map(|_| ()), Err(error), "{endpoint}");
    }
    assert!(Endpoint::parse(&format!("http://h/{}", ":a/".repeat(MAX_GROUPS))).is_ok());
}

#[test]
fn no_endpoint_is_dear_to_compile() {
    for bit in ["(a*)*", "([^/]*x|y*)+", "(a|b|c|d)*", ":a+", "(.*.*.*)*"] {
        let dear = format!("http://h/{}", bit.repeat(MAX_GROUPS));
        match Endpoint::parse(&dear) {
            Ok(endpoint) => assert!(endpoint.footprint() < 2 * MAX_ENDPOINT_BYTES * 64),
            Err(error) => assert_eq!(error, EndpointError::TooComplex, "{bit}"),
        }
    }
    let wide = format!("http://h/({})", "[!-~]+".repeat(300));
    assert!(matches!(Endpoint::parse(&wide), Ok(_) | Err(EndpointError::TooComplex)));
}

#[test]
fn endpoints_of_the_wild_match() {
    let did = "did:nv:bda7cb58ea2d8b336447971f28148a293e6ca28a34657e7703a69ec84d87deab";
    let tasks = "https://one.example/api/v1/agents/(.*)/tasks";
    let task = "https://one.example/api/v1/agents/(.*)/tasks/(.*)";
    assert!(matches(tasks, &format!("/api/v1/agents/{did}/tasks")));
    assert!(matches(tasks, &format!("/api/v1/agents/{did}/tasks/")));
    assert!(!matches(tasks, &format!("/api/v1/agents/{did}/tasks/7")));
    assert!(matches(tasks, "/api/v1/agents/tasks/tasks"));
    assert!(!matches(tasks, "/api/v1/agents/tasks"));
    assert!(matches(task, &format!("/api/v1/agents/{did}/tasks/7")));
    assert!(!matches(task, &format!("/api/v1/agents/{did}/tasks")));
    assert!(matches("http://h/path(.*)", "/PATH/and/more"));
}

#[test]
fn both_sides_are_spelled_alike() {
    for (endpoint, path) in [
        ("http://h/é", "/é"),
        ("http://h/é", "/%c3%a9"),
        ("http://h/%c3%A9", "/é"),
        ("http://h/a%2Db", "/a-b"),
        ("http://h/a-b", "/a%2db"),
        ("http://h/a|b[c]^", "/a%7cb%5Bc%5d%5E"),
        ("http://h/a%2fb", "/a%2Fb"),
        ("http://h/(a%2Db|caf%c3%a9)", "/a%2db"),
        ("http://h/(a%2Db|caf%c3%a9)", "/café"),
        ("http://h/x/../a", "/a"), // the URL parser has resolved it
        ("http://h/x\\a", "/x/a"),
        (" http://h/a\t\n", "/a"),
        ("http://h/a#b", "/a"),
    ] {
        assert!(matches(endpoint, path), "{endpoint} {path}");
    }
    assert!(!matches("http://h/a%2fb", "/a/b"));
}

#[test]
fn groups_are_javascript() {
    for (endpoint, path, expected) in [
        ("http://h/([^/]+)/x", "/ab/x", true),
        ("http://h/([^/]+)/x", "/a/b/x", false),
        ("http://h/([[a]+)", "/a", true),     // one class of [ and a
        ("http://h/([a&&b]+)", "/b&a", true), // no intersection
        ("http://h/([a-]+)", "/a-a", true),
        ("http://h/([-a]+)", "/a-a", true),
        ("http://h/([a-c-e]+)", "/b-e", true),
        ("http://h/([a-c-e]+)", "/d", false),
        ("http://h/x([])", "/x", false),
        ("http://h/x([^])", "/xy", true),
        ("http://h/x([^])", "/x", false),
        ("http://h/x(|a)", "/x", true),
        ("http://h/([:alpha:]+)", "/plah", true),
        ("http://h/([:alpha:]+)", "/b", false),
        ("http://h/a(b])", "/ab%5D", true),
        ("http://h/(a*)", "/aaa", true),
        ("http://h/(ab)+", "/abx", false),
        ("http://h/(ab)+", "/ab/ab", true), // the slash belongs to the group
        ("http://h/x(ab)+", "/xabab", true),
        ("http://h/x.(ab)*", "/x.ab.ab", true),
        ("http://h/(x$|y)z", "/yz", true),
        ("http://h/(x$|y)z", "/xz", false),
        ("http://h/(%4*)x", "/x", false),
        ("http://h/([0-9a-f]+)-:rest", "/1F-x", true),
        ("http://h/:a:b", "/xy", true),
        ("http://h/:a:b", "/x", false),
        ("http://h/:a(.*)", "/x/y", true), // the group is the parameter's
        ("http://h/(.*)(.*)", "/x/y", true),
        ("http://h/_x:a_1-b", "/_xq-b", true),
    ] {
        assert_eq!(matches(endpoint, path), expected, "{endpoint} {path}");
    }
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    for (text, scheme, host, port, authority) in [
        ("http://h", Scheme::Http, "h", 80, "h"),
        ("http://h:80/", Scheme::Http, "h", 80, "h"),
        ("HTTPS://API.Example:443", Scheme::Https, "api.example", 443, "api.example"),
        ("https://h:80", Scheme::Https, "h", 80, "h:80"),
        ("http://127.0.0.1:9300", Scheme::Http, "127.0.0.1", 9300, "127.0.0.1:9300"),
        ("http://[::1]:3000", Scheme::Http, "::1", 3000, "[::1]:3000"),
        ("http://[0:0::1]", Scheme::Http, "::1", 80, "[::1]"),
        ("http://bücher.example", Scheme::Http, "xn--bcher-kva.example", 80, "xn--bcher-kva.example"),
    ] {
        let origin: Origin = text.parse().unwrap();
        assert_eq!(
            (origin.scheme(), origin.host(), origin.port(), origin.authority()),
            (scheme, host, port, authority),
            "{text}"
        );
        assert_eq!(origin.to_string().parse::<Origin>().as_ref(), Ok(&origin));
    }
    for (text, error) in [
        ("h:80", OriginError::Scheme),
        ("h", OriginError::NotAUrl),
        ("http://", OriginError::NotAUrl),
        ("http://h/x", OriginError::NotAnOrigin),
        ("http://h?x", OriginError::NotAnOrigin),
        ("http://h#x", OriginError::NotAnOrigin),
        ("http://u@h", OriginError::UserInfo),
        ("ftp://h", OriginError::Scheme),
    ] {
        assert_eq!(text.parse::<Origin>(), Err(error), "{text}");
    }
}

#[test]
fn the_last_match_wins_and_a_named_origin_narrows() {
    let endpoints: Vec<Endpoint> = ["http://one/(.*)", "https://one/a", "http://two/a", "http://two/b"]
        .map(|text| Endpoint::parse(text).unwrap())
        .into();
    let found = |path: &str, origin: Option<&str>| {
        let path = RequestPath::parse(path.as_bytes()).unwrap();
        let origin = origin.map(|origin| origin.parse::<Origin>().unwrap());
        last_match(&endpoints, &path, origin.as_ref()).map(|index| endpoints[index].as_str())
    };
    assert_eq!(found("/a", None), Some("http://two/a"));
    assert_eq!(found("/c", None), Some("http://one/(.*)"));
    assert_eq!(found("/a", Some("http://one")), Some("http://one/(.*)"));
    assert_eq!(found("/a", Some("https://one")), Some("https://one/a"));
    assert_eq!(found("/b", Some("https://one")), None);
    assert_eq!(found("/a", Some("http://one:8080")), None);
    assert_eq!(last_match(&[], &RequestPath::parse(b"/").unwrap(), None), None);
}

/// A pattern as its author thinks of it, from which both its text and a slow matcher are made.
#[derive(Clone, Debug)]
enum Bit {
    Text(&'static str),
    Hole(&'static str, Inner, &'static str),
}

#[derive(Clone, Debug)]
enum Inner {
    Segment,
    Words(Vec<Vec<(Atom, &'static str)>>),
}

#[derive(Clone, Copy, Debug)]
enum Atom {
    Letter(char),
    Any,
    Class(bool, &'static str),
}

impl Bit {
    fn write(&self, into: &mut String) {
        match self {
            Self::Text(text) => into.push_str(text),
            Self::Hole(prefix, inner, modifier) => {
                into.push_str(prefix);
                match inner {
                    Inner::Segment => into.push_str(":p"),
                    Inner::Words(words) => {
                        let words: Vec<String> = words.iter().map(|word| word.iter().map(written).collect()).collect();
                        into.extend(["(", &words.join("|"), ")"]);
                    }
                }
                into.push_str(modifier);
            }
        }
    }
}

fn written((atom, times): &(Atom, &str)) -> String {
    match atom {
        Atom::Letter(letter) => format!("{letter}{times}"),
        Atom::Any => format!(".{times}"),
        Atom::Class(negated, letters) => format!("[{}{letters}]{times}", if *negated { "^" } else { "" }),
    }
}

type Then<'t> = &'t dyn Fn(&str) -> bool;

/// Backtracking, as in the original: tries to match the bits at the beginning of the path, and then the rest.
fn naive(bits: &[Bit], path: &str, then: Then<'_>) -> bool {
    match bits {
        [] => then(path),
        [Bit::Text(text), rest @ ..] => {
            path.get(..text.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(text))
                && naive(rest, &path[text.len()..], then)
        }
        [Bit::Hole(prefix, inner, modifier), rest @ ..] => {
            let then = |path: &str| naive(rest, path, then);
            match *modifier {
                "" => once(prefix, inner, path, &then),
                "*" => then(path) || many(prefix, inner, path, &then),
                _ => many(prefix, inner, path, &then),
            }
        }
    }
}

fn once(prefix: &str, inner: &Inner, path: &str, then: Then<'_>) -> bool {
    path.strip_prefix(prefix).is_some_and(|path| match inner {
        Inner::Segment => atoms(&[(Atom::Class(true, "/"), "+")], path, then),
        Inner::Words(words) => words.iter().any(|word| atoms(word, path, then)),
    })
}

fn many(prefix: &str, inner: &Inner, path: &str, then: Then<'_>) -> bool {
    once(prefix, inner, path, &|after: &str| {
        then(after) || (after.len() < path.len() && many(prefix, inner, after, then))
    })
}

fn atoms(word: &[(Atom, &str)], path: &str, then: Then<'_>) -> bool {
    let [(atom, times), rest @ ..] = word else { return then(path) };
    let one = || {
        let letter = path.chars().next()?;
        let in_class = |letters: &str| letters.chars().any(|other| other.eq_ignore_ascii_case(&letter));
        let fits = match atom {
            Atom::Letter(wanted) => wanted.eq_ignore_ascii_case(&letter),
            Atom::Any => true,
            Atom::Class(negated, letters) => in_class(letters) != *negated,
        };
        fits.then(|| &path[1..])
    };
    match *times {
        "" => one().is_some_and(|path| atoms(rest, path, then)),
        "+" => one().is_some_and(|path| atoms(rest, path, then) || atoms(word, path, then)),
        _ => atoms(rest, path, then) || one().is_some_and(|path| atoms(word, path, then)),
    }
}

fn bits() -> impl Strategy<Value = Vec<Bit>> {
    let atom = prop_oneof![
        proptest::sample::select(vec!['a', 'b', 'B', '/', '-']).prop_map(Atom::Letter),
        Just(Atom::Any),
        (any::<bool>(), proptest::sample::select(vec!["ab", "/", "A-", "b/"]))
            .prop_map(|(negated, letters)| Atom::Class(negated, letters)),
    ];
    let word = proptest::collection::vec((atom, proptest::sample::select(vec!["", "", "*", "+"])), 0..3);
    let words = proptest::collection::vec(word, 1..3)
        .prop_filter("an empty group", |words| words.len() > 1 || words.iter().any(|word| !word.is_empty()));
    let inner = prop_oneof![
        Just(Inner::Segment),
        Just(Inner::Words(vec![vec![(Atom::Any, "*")]])),
        words.prop_map(Inner::Words),
    ];
    // A text that ends in a slash or a dot would give it to the hole that follows; texts here end in neither.
    let bit = prop_oneof![
        proptest::sample::select(vec!["/a", "a", "/b-", "B", "//a", "/.b"]).prop_map(Bit::Text),
        (proptest::sample::select(vec!["", "/", "/", "."]), inner, proptest::sample::select(vec!["", "", "*", "+"]))
            .prop_map(|(prefix, inner, modifier)| Bit::Hole(prefix, inner, modifier)),
    ];
    // The text after `:p` would be part of its name.
    let joined = proptest::collection::vec(bit, 0..5).prop_filter("a name that runs on", |bits| {
        bits.windows(2).all(|pair| match pair {
            [Bit::Hole(_, Inner::Segment, ""), Bit::Text(text)] => !text.starts_with(char::is_alphanumeric),
            [Bit::Hole(_, Inner::Segment, ""), Bit::Hole("", Inner::Words(_), _)] => false,
            _ => true,
        })
    });
    joined.prop_map(|mut bits| {
        bits.insert(0, Bit::Text("/a"));
        bits
    })
}

/// Paths that often get far into such a pattern.
fn paths() -> impl Strategy<Value = String> {
    let parts = vec!["a", "A", "/a", "/b", "/a", "/B", "b-", "/b-a", "//a", ".b", "/.b", "-", "/", "."];
    proptest::collection::vec(proptest::sample::select(parts), 0..5).prop_map(|parts| format!("/a{}", parts.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_text_is_an_endpoint_or_an_error(text: String, path in "[ -~]{0,20}") {
        let _ = Endpoint::parse(&text);
        let _ = Endpoint::parse(&format!("http://h/{text}"));
        let _ = Endpoint::parse(&format!("http://h/{path}"));
    }

    #[test]
    fn any_pattern_text_is_an_endpoint_or_an_error(text in r"[/a:.*+()\[\]^|$%2D-]{0,16}", path in "/[a/%-]{0,8}") {
        if let (Ok(endpoint), Ok(path)) = (Endpoint::parse(&format!("http://h/{text}")), RequestPath::parse(path.as_bytes())) {
            let _ = endpoint.matches(&path);
        }
    }

    #[test]
    fn the_matcher_agrees_with_a_naive_one(bits in bits(), paths in proptest::collection::vec(paths(), 16)) {
        let mut text = String::from("http://h");
        for bit in &bits {
            bit.write(&mut text);
        }
        // The URL parser resolves dot segments, and the naive matcher does not know.
        prop_assume!(!text.contains("/./") && !text.contains("/../"));
        let endpoint = Endpoint::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        for path in paths {
            let Ok(path) = RequestPath::parse(path.as_bytes()) else { continue };
            let expected = naive(&bits, path.as_str(), &|rest: &str| rest.is_empty() || rest == "/");
            prop_assert_eq!(endpoint.matches(&path), expected, "{} {:?}", text, path);
        }
    }
}
