//! The pages of the authorization server: what they send, and how they look and work in a real browser, where the scripts of
//! `tests/browser` use them.

use serde_json::{Value, json};

use crate::support::{
    Answer, Request,
    oauth::{GRANTS, Server, settings, standard},
    program,
};

const CHALLENGE: &str = "ZtNPunH49FD35FWYhT5Tv8I7vRKQJ8uxMaL0_9eHjNA";
const CALLBACK: &str = "https://app.example/callback";

fn register(server: &Server, name: &str, method: &str) -> String {
    let scopes = if method == "evm" { json!(["openid"]) } else { json!([]) };
    let client = server.register(&json!({
        "client_name": name,
        "client_type": "public",
        "redirect_uris": [CALLBACK],
        "grant_types": GRANTS,
        "allowed_scopes": scopes,
        "allowed_sign_methods": [method],
    }));
    client["client_id"].as_str().unwrap().to_owned()
}

fn authorize(client: &str, state: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", CALLBACK),
            ("scope", "openid"),
            ("state", state),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ])
        .finish();
    format!("/v1/oauth/authorize?{query}")
}

/// As a browser asks.
fn page(server: &Server, path: &str) -> Answer {
    server.send(&Request::get(path).header("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"))
}

#[track_caller]
fn is_careful(answer: &Answer) {
    for (name, expected) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ] {
        assert_eq!(answer.header(name), Some(expected), "{name}");
    }
    let text = answer.text();
    for script in text.split("<script").skip(1) {
        assert!(script.split('>').next().unwrap().contains(" src=\"/static/"), "{script}");
    }
    let inline = regex::Regex::new(r"<style|<[^>]*\s(on[a-z]+|style)=|javascript:").unwrap();
    assert!(!inline.is_match(&text), "{text}");
}

#[test]
fn every_page_is_strict_about_what_it_loads_and_is_never_kept() {
    let server = Server::start(standard());
    let client = register(&server, "An Application", "evm");
    for (path, status) in [
        ("/", 200),
        ("/v1/device/verify", 200),
        ("/v1/device/verify?user_code=ABCD-1234&user_code=X", 200),
        (&*authorize(&client, "s"), 200),
        (&*authorize("nobody", "s"), 400),
        ("/v1/oauth/authorize", 400),
        ("/nothing", 404),
        ("/v1/oauth/token", 405),
    ] {
        let answer = page(&server, path);
        assert_eq!(answer.status, status, "{path}");
        is_careful(&answer);
        if status != 200 {
            assert!(answer.text().contains("What to do next"), "{path}");
        }
    }
}

#[test]
fn programs_get_no_pages_but_documents() {
    for settings in [settings(), standard()] {
        let server = Server::start(settings);
        for path in ["/nothing", "/v1/oauth/token", "/v1/device/scopes?user_code=x"] {
            let answer = server.get(path);
            assert!(answer.header("content-type").unwrap().starts_with("application/json"), "{path}");
            assert!(answer.json().is_object());
        }
    }
}

#[test]
fn who_comes_too_often_is_told_so_on_a_page() {
    let server = Server::start(standard().variable("RATE_LIMIT_GLOBAL", "2"));
    let path = authorize("nobody", "s");
    let refused = (0..6).map(|_| page(&server, &path)).find(|answer| answer.status == 429).unwrap();
    is_careful(&refused);
    assert!(refused.text().contains("Wait a minute"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    // One look at a page costs one request, whatever it loads.
    assert_eq!(page(&server, "/").status, 200);
    assert_eq!(server.get("/static/old/style.css").status, 200);
}

#[test]
fn what_pages_load_is_kept_for_good_under_a_name_of_its_own() {
    let server = Server::start(standard());
    let landing = page(&server, "/").text();
    let sheet = landing.split("rel=\"stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let folder = sheet.strip_suffix("/style.css").unwrap();
    assert!(regex::Regex::new("^/static/[0-9a-f]{16}$").unwrap().is_match(folder), "{folder}");
    for (name, kind) in [
        ("style.css", "text/css; charset=utf-8"),
        ("authorize.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let answer = server.get(&format!("{folder}/{name}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        // The page of another version, which asks in the middle of an update.
        let other = server.get(&format!("/static/0000000000000000/{name}"));
        assert_eq!((other.status, other.header("cache-control")), (200, Some("no-store")));
        assert_eq!(other.body, answer.body);
    }
    for path in ["/static/x/none.js", "/static/x/..%2f..%2fCargo.toml", "/static/../Cargo.toml", "/static/"] {
        assert!((400..=404).contains(&server.get(path).status), "{path}");
    }
}

#[test]
fn values_of_strangers_are_escaped_wherever_they_stand() {
    let server = Server::start(standard());
    let nasty = "\"'></script><script>alert(1)</script>&";
    let escaped = "&#34;&#39;&#62;&#60;/script&#62;&#60;script&#62;alert(1)&#60;/script&#62;&#38;";
    let client = register(&server, nasty, "evm");
    let query = url::form_urlencoded::byte_serialize(nasty.as_bytes()).collect::<String>();
    for path in [authorize(&client, nasty), format!("/v1/device/verify?user_code={query}"), format!("/{query}")] {
        let answer = page(&server, &path);
        is_careful(&answer);
        assert!(!answer.text().contains("alert(1)</script>"), "{}", answer.text());
    }
    let text = page(&server, &authorize(&client, nasty)).text();
    assert!(text.contains(&format!("<title>Sign in to {escaped}</title>")), "{text}");
    assert!(text.contains(&format!("data-client=\"{escaped}\"")), "{text}");
}

#[test]
fn the_landing_page_has_a_demonstration_only_if_it_is_asked_for() {
    let plain = Server::start(standard());
    assert!(!page(&plain, "/").text().contains("landing.js"));
    assert_eq!(plain.admin("GET", "/v1/admin/clients", None).json(), json!([]));

    let message = json!({ "message": "anything" });
    assert_eq!(plain.post_json("/v1/demo/sign", &message).status, 404);

    let demo = Server::start(standard().variable("DEMO_MODE", "true"));
    assert_eq!(demo.post_json("/v1/demo/sign", &message).status, 403, "its own pages alone");
    let names = |server: &Server| {
        let clients = server.admin("GET", "/v1/admin/clients", None).json();
        let clients: Vec<Value> = clients.as_array().unwrap().clone();
        let mut names: Vec<String> =
            clients.iter().map(|client| client["client_id"].as_str().unwrap().into()).collect();
        names.sort();
        names
    };
    for _ in 0..2 {
        assert!(page(&demo, "/").text().contains("landing.js"));
        assert_eq!(names(&demo), ["demo-cli", "demo-evm-web", "demo-web"]);
    }
    // What an administrator takes away does not come back by itself.
    assert_eq!(demo.admin("DELETE", "/v1/admin/clients/demo-web", None).status, 200);
    let answer = page(&demo, "/");
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("landing.js"));
}

#[test]
fn pages_work_in_a_real_browser() {
    let server = Server::start(standard().variable("DEMO_MODE", "true"));
    let nasty = "\"'></script><script>alert(1)</script><img src=x onerror=alert(2)>";
    let artifacts = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    let world = json!({
        "gateway": server.gateway.http.to_string(),
        "chain": false,
        "artifacts": artifacts,
        "clients": {
            "bittensor": register(&server, "Bob's Application", "sr25519"),
            "evm": register(&server, "EVM <Application>", "evm"),
            "nasty": register(&server, nasty, "evm"),
        },
    });
    eprintln!("pictures are in {}", artifacts.display());
    program::succeeds(&mut program::node("browser/pages.test.mjs", &world));
}
