//! The `OpenAPI` document beside the server: every route is in it or in an RFC, and every answer that it describes is had from
//! the server, in the form that it describes.

mod contract;

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use self::contract::{Contract, Operation};
use crate::support::{
    Answer, Gateway, Request, Settings,
    cluster::Cluster,
    eventually,
    oauth::{ADMIN_KEY, GRANTS, PUBLIC_URL, Server, admin_request, form, json_request, settings, standard},
    secret,
    sign_in::{App, Page, REDIRECT, of_our_page, registration, remembered},
    subtensor::Node,
    wallet::{BittensorWallet, EthereumWallet},
};

/// What RFCs and OpenID Connect describe.
const OF_RFCS: [&str; 9] = [
    "/v1/oauth/authorize",
    "/v1/oauth/token",
    "/v1/oauth/introspect",
    "/v1/oauth/revoke",
    "/v1/oauth/userinfo",
    "/v1/device/code",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
    "/.well-known/jwks.json",
];

/// For people.
const PAGES: [&str; 3] = ["/", "/v1/device/verify", "/v1/device/demo.sh"];

/// All routes in the sources.
fn routes() -> BTreeSet<Operation> {
    fn walk(folder: &Path, found: &mut BTreeSet<Operation>) {
        let route = regex::Regex::new(r#"\.route\("([^"]+)", ((?:(?:get|post|patch|put|delete)\([a-z_:]+\)\.?)+)\)"#);
        let (route, method) = (route.unwrap(), regex::Regex::new(r"([a-z]+)\(").unwrap());
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let all = text.matches(".route(").count() - text.matches(".route(assets::ROUTE, ").count();
            assert_eq!(route.captures_iter(&text).count(), all, "a route in {} is not understood", path.display());
            for route in route.captures_iter(&text) {
                let methods = method.captures_iter(route.get(2).unwrap().as_str());
                found.extend(methods.map(|method| (method[1].to_uppercase(), route[1].to_owned())));
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/oauth"), &mut found);
    found
}

#[test]
fn every_route_is_in_an_rfc_or_in_the_document_and_nothing_else_is() {
    let contract = Contract::of(&Server::start(standard()));
    let described: BTreeSet<Operation> = contract.operations().into_iter().map(|(operation, _)| operation).collect();
    let routed = routes();
    for path in OF_RFCS.iter().chain(&PAGES) {
        assert!(routed.iter().any(|(_, routed)| routed == path), "{path} is not there any more");
    }
    let ours = |(_, path): &&Operation| !OF_RFCS.contains(&&**path) && !PAGES.contains(&&**path);
    assert_eq!(routed.iter().filter(ours).cloned().collect::<BTreeSet<_>>(), described);
}

#[test]
fn the_document_is_whole_and_is_found() {
    let server = Server::start(standard());
    let contract = Contract::of(&server);
    let document = contract.document();
    assert_eq!(document["servers"], json!([{ "url": PUBLIC_URL }]));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let text = document.to_string();
    let references: BTreeSet<&str> =
        text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let parts = document["components"].as_object().unwrap().iter().filter(|(kind, _)| *kind != "securitySchemes");
    let parts = parts.flat_map(|(kind, parts)| {
        parts.as_object().unwrap().keys().map(move |name| format!("/components/{kind}/{name}"))
    });
    assert_eq!(parts.collect::<BTreeSet<_>>(), references.into_iter().map(str::to_owned).collect());
    let tags = document["tags"].as_array().unwrap();
    let operations = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap());
    let operations: Vec<&Value> = operations.filter(|(name, _)| *name != "parameters").map(|(_, it)| it).collect();
    let names: BTreeSet<&str> = operations.iter().map(|it| it["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations.len(), "each has a name of its own");
    for operation in operations {
        assert!(tags.iter().any(|tag| tag["name"] == operation["tags"][0]), "{operation}");
        assert!(operation["summary"].is_string(), "{operation}");
    }
    let metadata = server.get("/.well-known/oauth-authorization-server").json();
    assert_eq!(metadata["service_documentation"], format!("{PUBLIC_URL}/"));
    assert!(server.get("/").text().contains("href=\"/v1/openapi.json\" rel=\"service-desc\""));
}

#[test]
fn every_answer_that_it_describes_is_given_and_is_as_described() {
    let node = Node::start();
    let asking = |settings: Settings| settings.variable("SUBTENSOR_WS_URL", node.url()).variable("DEMO_MODE", "true");
    let servers = [settings(), standard()].map(|settings| Server::start(asking(settings)));
    let contract = Contract::of(&servers[0]);
    for server in &servers {
        assert_eq!(contract.document(), Contract::of(server).document());
        let walk = Walk { contract: &contract, server };
        walk.direct();
        walk.consent();
        walk.refresh();
        walk.device();
        walk.administration();
        walk.events();
        walk.about();
        walk.demonstration();
    }
    too_many(&contract);
    unavailable(&contract);
    assert_eq!(contract.unseen(), []);
}

fn wallet() -> EthereumWallet {
    EthereumWallet::new(17)
}

/// A server that is asked, and what its answers are held against.
#[derive(Clone, Copy)]
struct Walk<'w> {
    contract: &'w Contract,
    server: &'w Server,
}

impl Walk<'_> {
    #[track_caller]
    fn ask(self, status: u16, path: &str, request: &Request) -> Answer {
        self.contract.ask(self.server, path, request, status)
    }

    #[track_caller]
    fn post(self, status: u16, path: &str, body: &Value) -> Answer {
        self.ask(status, path, &json_request(path, Some(body)))
    }

    /// As one of our own pages.
    #[track_caller]
    fn ours(self, status: u16, path: &str, cookie: &str, body: &Value) -> Answer {
        self.ask(status, path, &of_our_page(path, cookie, body))
    }

    /// A body of a kind that nobody reads.
    #[track_caller]
    fn unreadable(self, path: &str, request: Request) {
        let headers = request.headers.into_iter().filter(|(name, _)| name != "Content-Type").collect();
        let request = Request { headers, ..request }.header("Content-Type", "text/plain");
        self.ask(415, path, &request);
    }

    fn registered(&self) -> Value {
        self.server.register(&registration("public"))
    }

    fn direct(self) {
        let (begin, finish) = ("/v1/auth/challenge", "/v1/auth/verify");
        let challenge = |address: &str, scope: &str| {
            let body = json!({ "address": address, "scopes": [scope] });
            self.post(200, begin, &body).json()["nonce"].as_str().unwrap().to_owned()
        };
        self.post(400, begin, &json!({ "address": "nobody" }));
        self.unreadable(begin, json_request(begin, Some(&json!({}))));

        let wallet = wallet();
        let signed = |nonce: &str, signature: &str| json!({ "nonce": nonce, "address": wallet.address(), "signature": signature });
        let nonce = challenge(&wallet.address(), "openid");
        remembered(&self.post(200, finish, &signed(&nonce, &wallet.sign(&nonce))));
        self.post(401, finish, &signed(&nonce, &wallet.sign(&nonce)));
        self.post(400, finish, &json!({ "nonce": nonce }));
        self.unreadable(finish, json_request(finish, Some(&json!({}))));
        // Nobody's hotkey.
        let coldkey = BittensorWallet::new("//Nobody");
        let nonce = challenge(&coldkey.address(), "signer:hotkey");
        let body = json!({ "nonce": nonce, "address": coldkey.address(), "signature": coldkey.sign(&nonce) });
        self.post(403, finish, &body);
    }

    fn consent(self) {
        let client = self.registered();
        let app = App { server: self.server, client: &client };
        let (begin, finish, deny) = ("/v1/oauth/challenge", "/v1/oauth/callback", "/v1/oauth/deny");
        let wallet = wallet();
        let page = app.page(&[]);
        let session = |page: &Page| json!({ "session_id": page.session, "address": wallet.address() });
        let challenge = self.ours(200, begin, &page.cookie, &session(&page)).json();
        let nonce = challenge["nonce"].as_str().unwrap();
        let body = json!({
            "session_id": page.session, "nonce": nonce, "address": wallet.address(), "signature": wallet.sign(nonce),
        });
        for path in [begin, finish, deny] {
            self.post(403, path, &body);
            self.unreadable(path, of_our_page(path, &page.cookie, &body));
        }
        let answer = self.ours(200, finish, &page.cookie, &body);
        secret(answer.json()["code"].as_str().unwrap());
        for path in [begin, finish, deny] {
            self.ours(400, path, &page.cookie, &body);
        }
        let page = app.page(&[]);
        let used =
            json!({ "session_id": page.session, "nonce": nonce, "address": wallet.address(), "signature": "00" });
        self.ours(401, finish, &page.cookie, &used);
        self.ours(200, deny, &page.cookie, &json!({ "session_id": page.session }));
    }

    fn refresh(self) {
        let path = "/v1/oauth/refresh";
        let client = self.registered();
        let app = App { server: self.server, client: &client };
        let tokens = app.tokens(&wallet());
        let token = tokens["refresh_token"].as_str().unwrap();
        let request = |client_id: &str, grant: &str| {
            form(path, &[("client_id", client_id), ("grant_type", grant), ("refresh_token", token)])
        };
        self.ask(403, path, &request(app.id(), "refresh_token").header("Origin", "https://evil.example"));
        remembered(&self.ask(200, path, &request(app.id(), "refresh_token")));
        self.ask(400, path, &request(app.id(), "authorization_code"));
        self.ask(401, path, &request("nobody", "refresh_token"));
        self.unreadable(path, request(app.id(), "refresh_token"));
    }

    /// A device waits, and shows this code.
    fn waiting(&self, client: &Value) -> String {
        let body = json!({ "client_id": client["client_id"], "scopes": ["openid"] });
        let document = self.server.post_json("/v1/device/code", &body).json();
        secret(document["device_code"].as_str().unwrap());
        document["user_code"].as_str().unwrap().to_owned()
    }

    fn device(self) {
        let client = self.registered();
        let shown = "/v1/device/scopes";
        let code = self.waiting(&client);
        let look = |query: &str| Request::get(&format!("{shown}?{query}"));
        self.ask(200, shown, &look(&format!("user_code={code}")));
        self.ask(404, shown, &look("user_code=ABCD-0000"));
        self.ask(400, shown, &look("user_code=A&user_code=B"));

        let (begin, finish, deny) = ("/v1/device/approve", "/v1/device/confirm", "/v1/device/deny");
        for path in [begin, finish, deny] {
            let body =
                json!({ "user_code": "ABCD-0000", "address": wallet().address(), "nonce": "x", "signature": "00" });
            self.post(403, path, &body);
            self.ours(404, path, "", &body);
            self.ours(400, path, "", &json!({}));
            self.unreadable(path, of_our_page(path, "", &body));
        }
        let signed = self.signed_for(&code);
        self.ours(200, finish, "", &signed);
        let code = self.waiting(&client);
        let mut wrong = self.signed_for(&code);
        wrong["signature"] = json!("00");
        self.ours(401, finish, "", &wrong);
        self.ours(200, deny, "", &json!({ "user_code": code }));
        self.device_of_two(&client);
    }

    /// A signature for a device.
    fn signed_for(self, code: &str) -> Value {
        let wallet = wallet();
        let body = json!({ "user_code": code, "address": wallet.address() });
        let answer = self.ours(200, "/v1/device/approve", "", &body).json();
        let nonce = answer["nonce"].as_str().unwrap();
        json!({ "user_code": code, "address": wallet.address(), "nonce": nonce, "signature": wallet.sign(nonce) })
    }

    /// Two sign for one device at the same moment: one of them is told so.
    fn device_of_two(self, client: &Value) {
        let path = "/v1/device/confirm";
        eventually("two find the same device waiting", || {
            let code = self.waiting(client);
            let requests = [self.signed_for(&code), self.signed_for(&code)].map(|body| of_our_page(path, "", &body));
            let answers = std::thread::scope(|scope| {
                let both = requests.each_ref().map(|request| scope.spawn(|| self.server.send(request)));
                both.map(|one| one.join().unwrap())
            });
            for (request, answer) in requests.iter().zip(&answers) {
                self.contract.answers(path, request, answer);
            }
            assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
            answers.iter().any(|answer| answer.status == 409).then_some(())
        });
    }

    fn administration(self) {
        let (all, one) = ("/v1/admin/clients", "/v1/admin/clients/{id}");
        let rotate = "/v1/admin/clients/{id}/rotate-secret";
        let registration = json!({
            "client_name": "Weather", "client_type": "confidential", "redirect_uris": [REDIRECT], "grant_types": GRANTS,
            "allowed_origins": ["https://app.example"], "allowed_scopes": ["subnet:*:miner"], "rate_limit": 0,
        });
        let created = self.ask(201, all, &admin_request("POST", all, Some(&registration))).json();
        secret(created["client_secret"].as_str().unwrap());
        self.ask(201, all, &admin_request("POST", all, Some(&self::registration("public"))));
        self.ask(400, all, &admin_request("POST", all, Some(&json!({ "client_name": 1 }))));
        self.unreadable(all, admin_request("POST", all, Some(&registration)));
        self.ask(200, all, &admin_request("GET", all, None));

        let at = |path: &str, id: &str| path.replace("{id}", id);
        let id = created["client_id"].as_str().unwrap();
        let change = json!({ "client_name": "Rain", "rate_limit": 5 });
        let patch = |id: &str, body: &Value| admin_request("PATCH", &at(one, id), Some(body));
        self.ask(200, one, &patch(id, &change));
        self.ask(400, one, &patch(id, &json!({})));
        self.ask(404, one, &patch("nobody", &change));
        self.unreadable(one, patch(id, &change));
        let bodiless = |method: &str, path: &str, id: &str| Request {
            method: method.to_owned(),
            ..admin_request(method, &at(path, id), None)
        };
        let rotated = self.ask(200, rotate, &bodiless("POST", rotate, id)).json();
        secret(rotated["client_secret"].as_str().unwrap());
        self.ask(404, rotate, &bodiless("POST", rotate, "nobody"));
        self.ask(404, one, &bodiless("DELETE", one, "nobody"));
        self.ask(200, one, &bodiless("DELETE", one, id));
        self.without_key();
    }

    /// The admin key is asked for before anything else is looked at.
    fn without_key(self) {
        for ((method, path), statuses) in self.contract.operations() {
            if path.starts_with("/v1/admin/") {
                assert!(statuses.contains(&"401".to_owned()), "{method} {path}");
                self.ask(401, &path, &Request::new(&method, &path.replace("{id}", "x")));
            }
        }
    }

    fn events(self) {
        let (stats, events) = ("/v1/admin/clients/{id}/stats", "/v1/admin/clients/{id}/events");
        let overview = "/v1/admin/stats/overview";
        let client = self.registered();
        let app = App { server: self.server, client: &client };
        app.tokens(&wallet());
        app.redeem("tgc_wrong");
        let look = |path: &str, id: &str, query: &str| {
            admin_request("GET", &format!("{}{query}", path.replace("{id}", id)), None)
        };
        eventually("both exchanges are in the statistics", || {
            let found = self.ask(200, stats, &look(stats, app.id(), "")).json();
            (found["totals"]["exchanges"] == 2 && found["totals"]["failures"] == 1).then_some(())
        });
        self.ask(200, stats, &look(stats, app.id(), "?window=30d"));
        let first = self.ask(200, events, &look(events, app.id(), "?limit=1")).json();
        let cursor = first["next_cursor"].as_str().unwrap();
        let cursor: String = url::form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
        let rest = self.ask(200, events, &look(events, app.id(), &format!("?before={cursor}"))).json();
        assert!(rest["events"].as_array().unwrap().len() >= 3 && rest["has_more"] == false, "{rest}");
        self.ask(200, overview, &look(overview, "", "?window=24h"));
        for (path, wrong) in [(stats, "?window=1h"), (events, "?limit=many"), (overview, "?window=7d&window=7d")] {
            self.ask(400, path, &look(path, app.id(), wrong));
        }
        for path in [stats, events] {
            self.ask(404, path, &look(path, "nobody", ""));
        }
    }

    fn about(self) {
        for path in ["/health", "/v1/openapi.json", "/v1/discovery/scope-config"] {
            self.ask(200, path, &Request::get(path));
        }
    }

    fn demonstration(self) {
        let path = "/v1/demo/sign";
        let body = json!({ "message": "anything" });
        self.ours(200, path, "", &body);
        self.ours(400, path, "", &json!({}));
        self.post(403, path, &body);
        self.unreadable(path, of_our_page(path, "", &body));
    }
}

/// Whatever is limited says so in the same way.
fn too_many(contract: &Contract) {
    let few = standard().variable("DEMO_MODE", "true").variable("RATE_LIMIT_GLOBAL", "1");
    let server = Server::start(few.variable("RATE_LIMIT_CHALLENGE", "1"));
    for ((method, path), statuses) in contract.operations() {
        if !statuses.contains(&"429".to_owned()) {
            continue;
        }
        let body = (method != "GET").then(|| json!({}));
        let request = admin_request(&method, &path.replace("{id}", "x"), body.as_ref());
        // A minute may end in between.
        eventually("a limit is reached", || {
            let answer = server.send(&request);
            contract.answers(&path, &request, &answer);
            (answer.status == 429).then_some(())
        });
    }
}

/// What needs the database is neither granted nor denied without it.
fn unavailable(contract: &Contract) {
    let mut cluster = Cluster::start();
    let database = format!("url = \"{}\"\ntimeout = \"1s\"", cluster.url());
    let mut gateway = Gateway::prepare(Settings::file().database(&database).with(&format!(
        "[oauth]\npublic_url = \"{PUBLIC_URL}\"\nproduction = false\nadmin_key = \"{ADMIN_KEY}\"\n\
         [oauth.limits]\nrequests = 1000\nchallenges = 1000\n\
         [[route]]\nname = \"sign-in\"\nupstream = \"authorization-server\"\n"
    )));
    gateway.expect_error("database");
    gateway.cli(&["key", "generate"]);
    gateway.launch();
    gateway.ready();
    let server = Server { gateway, database: None };
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let (page, tokens) = (app.page(&[]), app.tokens(&wallet()));
    cluster.stop();

    let body = json!({
        "session_id": page.session, "user_code": "ABCD-1234", "nonce": "x", "address": wallet().address(),
        "signature": "00", "client_id": app.id(), "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"],
    });
    let registration = registration("public");
    let asked: Vec<(String, Request)> = contract
        .operations()
        .into_iter()
        .filter(|(_, statuses)| statuses.contains(&"503".to_owned()))
        .map(|((method, path), _)| {
            let target = path.replace("{id}", "x");
            let request = match &*path {
                "/v1/device/scopes" => Request::get("/v1/device/scopes?user_code=ABCD-1234"),
                "/v1/admin/clients" if method == "POST" => admin_request("POST", &target, Some(&registration)),
                path if path.starts_with("/v1/admin/") => {
                    let body = (method == "PATCH").then(|| json!({ "client_name": "Rain" }));
                    admin_request(&method, &target, body.as_ref())
                }
                "/health" => Request::get("/health"),
                "/v1/oauth/refresh" => json_request(&target, Some(&body)),
                _ => of_our_page(&target, &page.cookie, &body),
            };
            (path, Request { method, ..request })
        })
        .collect();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let threads: Vec<_> = asked.iter().map(|(_, request)| scope.spawn(|| server.send(request))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for ((path, request), answer) in asked.iter().zip(&answers) {
        assert_eq!(answer.status, 503, "{} {path}: {}", request.method, answer.text());
        contract.answers(path, request, answer);
    }
    cluster.again();
}
