//! The authorization server, as a process of its own, over each of the two databases.

use serde_json::{Value, json};

use super::{
    client::{Answer, Request},
    database::Database,
    gateway::{Gateway, Settings},
    secret,
};

pub const ADMIN_KEY: &str = "an-admin-key-for-tests-only";

/// Where our browser pages think they are.
pub const PUBLIC_URL: &str = "http://localhost:3000";

/// A file of `tests/data/oauth`.
pub fn data(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oauth").join(name)
}

/// The auth gateway's environment, with limits that no ordinary test meets.
pub fn settings() -> Settings {
    secret(ADMIN_KEY);
    Settings::auth_gateway()
        .variable("RSA_PRIVATE_KEY_PATH", data("rsa.pem").to_str().unwrap())
        .variable("RSA_PUBLIC_KEY_PATH", data("rsa.pub.pem").to_str().unwrap())
        .variable("ADMIN_API_KEY", ADMIN_KEY)
        // Nobody: no test asks the real chain.
        .variable("SUBTENSOR_WS_URL", "ws://127.0.0.1:9")
        .variable("RATE_LIMIT_GLOBAL", "100000")
        .variable("RATE_LIMIT_CHALLENGE", "100000")
}

/// The same with the RFCs' status numbers.
pub fn standard() -> Settings {
    settings().variable("TOLLGATE_OAUTH_COMPATIBILITY", "standard")
}

/// One authorization server.
pub struct Server {
    pub gateway: Gateway,
    /// None: SQLite.
    pub database: Option<Database>,
}

impl Server {
    /// Over SQLite.
    #[track_caller]
    pub fn start(settings: Settings) -> Self {
        Self { gateway: Gateway::start(settings), database: None }
    }

    /// Over a Postgres database of its own.
    #[track_caller]
    pub fn on_postgres(settings: Settings) -> Self {
        let database = Database::fresh();
        let gateway = Gateway::start(settings.variable("DATABASE_URL", &database.url));
        Self { gateway, database: Some(database) }
    }

    /// One over each.
    #[track_caller]
    pub fn on_both(settings: &Settings) -> [Self; 2] {
        [Self::start(settings.clone()), Self::on_postgres(settings.clone())]
    }

    pub fn send(&self, request: &Request) -> Answer {
        self.gateway.send(&request.clone().header("Connection", "close"))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(&Request::get(path))
    }

    pub fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.send(&json_request(path, Some(body)))
    }

    pub fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(&form(path, fields))
    }

    /// A request to the admin API, with the key.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.send(&admin_request(method, path, body))
    }

    /// Registers a client and says what the answer was.
    #[track_caller]
    pub fn register(&self, registration: &Value) -> Value {
        let answer = self.admin("POST", "/v1/admin/clients", Some(registration));
        assert_eq!(answer.status, 201, "{}", answer.text());
        let client = answer.json();
        if let Some(text) = client["client_secret"].as_str() {
            secret(text);
        }
        client
    }

    /// A public client with every grant.
    #[track_caller]
    pub fn public_client(&self, name: &str) -> Value {
        self.register(&json!({
            "client_name": name,
            "client_type": "public",
            "redirect_uris": ["https://app.example/callback"],
            "grant_types": GRANTS,
        }))
    }

    /// A confidential client with every grant.
    #[track_caller]
    pub fn confidential_client(&self, name: &str) -> Value {
        self.register(&json!({
            "client_name": name,
            "client_type": "confidential",
            "redirect_uris": ["https://app.example/callback"],
            "grant_types": GRANTS,
        }))
    }
}

pub const GRANTS: [&str; 3] = ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"];

/// Status and `error` of a refusal, after a look at the rest of it (auth-gateway.md section 1.0).
#[track_caller]
pub fn refused(answer: &Answer) -> (u16, String) {
    let document = answer.json();
    assert_eq!(document["statusCode"], json!(answer.status), "{document}");
    assert!(document["message"].as_str().is_some_and(|text| !text.is_empty()), "{document}");
    if let Some(description) = document.get("error_description") {
        assert_eq!(*description, document["message"]);
    }
    (answer.status, document["error"].as_str().unwrap().to_owned())
}

/// The names in an object, sorted.
pub fn members(document: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// A form.
pub fn form(path: &str, fields: &[(&str, &str)]) -> Request {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Request::post(path, body).header("Content-Type", "application/x-www-form-urlencoded")
}

/// A request to the admin API, with the key.
pub fn admin_request(method: &str, path: &str, body: Option<&Value>) -> Request {
    let request = Request { method: method.to_owned(), ..json_request(path, body) };
    request.header("X-Admin-API-Key", ADMIN_KEY)
}

/// With a document, or without one.
pub fn json_request(path: &str, body: Option<&Value>) -> Request {
    match body {
        Some(body) => Request::post(path, body.to_string()).header("Content-Type", "application/json"),
        None => Request::get(path),
    }
}
