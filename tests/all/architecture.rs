//! The dependency direction (architecture.md section 3): who may use whom, compared with what the sources say.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Nouns: every room may use them.
const NOUNS: [&str; 2] = ["model", "config"];

/// Rooms, and the rooms they may use besides the nouns. The composition root sees everything.
const MAY_USE: [(&str, &[&str]); 21] = [
    ("model", &[]),
    ("jose", &[]),
    ("wallet", &[]),
    ("config", &[]),
    ("metrics", &[]),
    ("telemetry", &[]),
    ("tls", &[]),
    ("chain", &[]),
    ("store", &[]),
    ("replay", &["store"]),
    ("authn", &["jose", "wallet", "chain"]),
    ("authz", &["chain", "credits"]),
    ("credits", &["chain", "store"]),
    ("usage", &["store", "chain", "credits"]),
    ("oauth", &["jose", "wallet", "chain", "store", "metrics"]),
    ("decision", &["authn", "authz", "chain", "metrics"]),
    ("admin", &["authn", "chain", "credits", "metrics", "replay", "telemetry", "tls", "usage"]),
    ("proxy", &["authn", "authz", "chain", "replay", "usage", "tls", "metrics", "telemetry"]),
    (
        "server",
        &[
            "admin",
            "authn",
            "authz",
            "chain",
            "credits",
            "decision",
            "metrics",
            "oauth",
            "proxy",
            "replay",
            "store",
            "telemetry",
            "tls",
            "usage",
        ],
    ),
    ("cli", &["authn", "chain", "jose", "oauth", "server", "store", "telemetry", "tls", "wallet"]),
    ("lib", &[]),
];

/// Outside names, and the rooms that may know them.
const OUTSIDE: [(&str, &[&str]); 10] = [
    ("pingora", &["proxy", "server"]),
    ("pingora_proxy", &["proxy", "server"]),
    // The demonstration brings a service of its own.
    ("axum", &["decision", "admin", "oauth", "proxy", "server", "cli"]),
    ("josekit", &["jose"]),
    ("openssl", &["jose", "oauth"]),
    ("sqlx", &["store"]),
    ("alloy", &["chain", "model", "wallet"]),
    ("subxt", &["chain"]),
    ("sp_core", &["model", "wallet"]),
    ("curve25519_dalek", &["wallet"]),
];

/// The text of every file of a room, without its tests.
fn rooms() -> BTreeMap<String, Vec<(String, String)>> {
    fn walk(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, files) } else { files.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let mut rooms = BTreeMap::<_, Vec<_>>::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if name.ends_with("tests.rs") || name.ends_with("/fake.rs") || name == "main.rs" {
            continue;
        }
        let of = name.split(['/', '.']).next().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        rooms.entry(of).or_default().push((name, code.join("\n")));
    }
    rooms
}

/// The rooms a text names: `crate::room` and the first words in `use crate::{…}`.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let word =
        |text: &str| text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, true);
        for (index, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                _ if start && letter.is_alphanumeric() => {
                    names.insert(word(&group[index..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn rooms_use_only_the_rooms_they_may() {
    let table: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let mut wrong = Vec::new();
    for (room, files) in rooms() {
        let Some(allowed) = table.get(room.as_str()) else {
            wrong.push(format!("{room} is not in the table"));
            continue;
        };
        for (file, code) in files {
            for used in named(&code) {
                let fine = used == room || NOUNS.contains(&used.as_str()) || allowed.contains(&used.as_str());
                let noun = room == "model" && used != "model";
                if (!fine || noun) && table.contains_key(used.as_str()) {
                    wrong.push(format!("{file} uses {used}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "edges the table lacks:\n{}", wrong.join("\n"));
}

#[test]
fn outside_names_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (room, files) in rooms() {
        for (file, code) in files {
            for (name, allowed) in OUTSIDE {
                let used = code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"));
                let exact = regex::Regex::new(&format!(r"(^|[^a-z_:]){name}::")).unwrap();
                if used && exact.is_match(&code) && !allowed.contains(&room.as_str()) {
                    wrong.push(format!("{file} knows {name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_group_of_uses_is_read() {
    let code =
        "use crate::{authn::{A, b::C}, config, model::{did::Did}};\nuse crate::tls::X;\nlet x = crate::usage::y();";
    assert_eq!(named(code), ["authn", "config", "model", "tls", "usage"].map(str::to_owned).into());
}
