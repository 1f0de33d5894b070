//! `conf/tollgate.toml` is accepted, complete, and tells the truth about defaults.

use std::collections::BTreeSet;

use super::*;

#[test]
fn the_example_is_accepted_as_it_stands() {
    let config =
        Config::from_toml(EXAMPLE, Path::new("conf/tollgate.toml")).unwrap_or_else(|error| panic!("\n{error}"));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("key of the example configuration"));
    let expected = "\
LISTENER       ADDRESS         PROTOCOL
http           127.0.0.1:3128  HTTP/1.1 in clear text
https          127.0.0.1:8443  HTTP/2 and HTTP/1.1 over TLS, certs/dev.crt
introspection  127.0.0.1:4000  POST /introspect
admin          127.0.0.1:9464  /healthz /readyz /metrics

ROUTE   HOSTS  PATH   METHODS  UPSTREAM               WHO MAY CALL                                                                                   REFUSALS
demo    any    /demo  any      demo (127.0.0.1:3005)  Nevermined token of did:nv:1111111111111111111111111111111111111111111111111111111111111111  standard
tokens  any    /      any      the token's            Nevermined token                                                                               standard

DEPENDS ON      WHERE
data directory  tollgate-data
database        SQLite file tollgate-data/tollgate.db
";
    let words =
        |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(words(&config.summary()), words(expected));
}

/// The settings of the example: section, key, the line's index, and whether it is made.
fn settings(text: &str) -> Vec<(String, String, usize, bool)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if bare.starts_with('[') {
            section = bare.split_whitespace().next().unwrap().trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = bare.split_once(" = ")
            && !key.starts_with(' ')
        {
            found.push((section.clone(), key.to_owned(), index, !line.starts_with('#')));
        }
    }
    found
}

#[test]
fn the_example_has_every_key_that_the_reader_knows_and_no_other() {
    let context = Context::new(Some(Path::new("x")), EXAMPLE, Variables::new());
    let document = toml_span::parse(EXAMPLE).unwrap();
    read(&Section::root(&context, Some(&document)));
    // Sections are asked for as keys too; they have keys of their own.
    let asked = context.all_asked().0;
    let below = |key: &String| asked.iter().any(|other| other.starts_with(&format!("{key}.")));
    let known: BTreeSet<String> = asked.iter().filter(|key| !below(key)).cloned().collect();
    let shown: BTreeSet<String> =
        settings(EXAMPLE).into_iter().map(|(section, key, ..)| format!("{section}.{key}")).collect();
    assert_eq!(known.difference(&shown).collect::<Vec<_>>(), [""; 0], "not in the example");
    assert_eq!(shown.difference(&known).collect::<Vec<_>>(), [""; 0], "in the example only");
}

#[test]
fn the_example_shows_the_defaults() {
    let parse = |text: &str| Config::from_toml(text, Path::new("x")).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let as_it_stands = format!("{:?}", parse(EXAMPLE));
    let mut tried = 0;
    for (section, key, index, made) in settings(EXAMPLE) {
        let line = EXAMPLE.lines().nth(index).unwrap();
        if made || line.ends_with("# example") || EXAMPLE.contains(&format!("\n#[{section}]")) {
            continue;
        }
        let uncommented = |(at, line): (usize, &str)| if at == index { line[1..].to_owned() } else { line.to_owned() };
        let text: Vec<_> = EXAMPLE.lines().enumerate().map(uncommented).collect();
        assert_eq!(format!("{:?}", parse(&text.join("\n"))), as_it_stands, "{section}.{key}");
        tried += 1;
    }
    assert!(tried > 40, "{tried}");
}
