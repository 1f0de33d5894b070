//! No text makes the reader panic.

use proptest::prelude::*;

use super::*;

/// Pieces that a configuration is made of, so that chance gets further than the first line.
fn piece() -> impl Strategy<Value = String> {
    let lines: Vec<String> = EXAMPLE.lines().map(|line| line.strip_prefix('#').unwrap_or(line).to_owned()).collect();
    prop_oneof![
        4 => proptest::sample::select(lines),
        1 => "[\\[\\]a-z.=\" \n#']{0,20}",
        1 => "(a|b|route|server)(\\.(a|b|tls|cors)){0,3} = (1|true|\"x\"|\\[\\]|\\{\\}|\\[\\{a=1\\}\\]|\\{a.b=1\\})",
        1 => "\\[{1,2}(a|b|route|server)(\\.(a|b|tls|cors)){0,3}\\]{1,2}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_mixture_makes_it_panic(pieces in proptest::collection::vec(piece(), 0..30)) {
        let _ = parse(&pieces.join("\n"));
    }
}

#[test]
fn texts_that_are_hard_on_a_toml_parser_do_not_make_it_panic() {
    let deep = ["[".repeat(10_000), format!("a = {}", "[".repeat(10_000)), format!("{}x = 1", "a.".repeat(10_000))];
    for text in [
        "a.b = 1\n[[a]]",
        "a.b = 1\n[[a.b]]",
        "[a.b]\n[[a]]",
        "[[a]]\n[a]",
        "[[a.b]]\n[a]\nb = 1",
        "route = [1, {a = 2}, [3]]",
        "route = {name = {a = 1}}",
        "[[route.cors]]\n[route]",
        "\u{feff}[server]",
        "x = 1979-05-27",
        "x = 99999999999999999999",
        "x = nan",
        "\0",
    ]
    .into_iter()
    .chain(deep.iter().map(String::as_str))
    {
        let _ = parse(text);
    }
}
