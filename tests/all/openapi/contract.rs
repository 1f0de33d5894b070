//! The `OpenAPI` document as a contract: requests and answers are held against it, and what was seen is remembered.

use std::{cell::RefCell, collections::BTreeSet};

use boon::{Compiler, Schemas};
use serde_json::{Map, Value};

use crate::support::{Answer, Request, oauth::Server};

/// An operation: method and path.
pub type Operation = (String, String);

/// The document, and which of its answers were had.
pub struct Contract {
    document: Value,
    /// The same, but an object has no members that it does not name. The document itself promises to grow.
    closed: Value,
    seen: RefCell<BTreeSet<(Operation, String)>>,
}

const METHODS: [&str; 5] = ["get", "post", "patch", "put", "delete"];
const NAME: &str = "http://localhost/openapi.json";

impl Contract {
    /// As a server publishes it.
    #[track_caller]
    pub fn of(server: &Server) -> Self {
        let answer = server.get("/v1/openapi.json");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let document = answer.json();
        let mut closed = document.clone();
        close(&mut closed);
        Self { document, closed, seen: RefCell::default() }
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    /// All operations, each with the statuses of its answers.
    pub fn operations(&self) -> Vec<(Operation, Vec<String>)> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            let there = METHODS.iter().filter(|method| item.get(method).is_some());
            there.map(move |method| {
                let statuses = item[method]["responses"].as_object().unwrap().keys().cloned().collect();
                ((method.to_uppercase(), path.clone()), statuses)
            })
        });
        operations.collect()
    }

    /// Sends a request of this operation. Its answer must have the status and be as the document says; the request too, if
    /// it succeeds.
    #[track_caller]
    pub fn ask(&self, server: &Server, path: &str, request: &Request, status: u16) -> Answer {
        let answer = server.send(request);
        let name = format!("{} {path}", request.method);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        self.answers(path, request, &answer);
        answer
    }

    /// Holds an answer against the document.
    #[track_caller]
    pub fn answers(&self, path: &str, request: &Request, answer: &Answer) {
        let method = request.method.to_lowercase();
        let name = format!("{} {path}: {} {}", request.method, answer.status, answer.text());
        let target = request.target.split('?').next().unwrap();
        let form = format!("^{}$", regex::escape(path).replace("\\{id\\}", "[^/]+"));
        assert!(regex::Regex::new(&form).unwrap().is_match(target), "{target} is not {path}");

        let operation = pointer(&["paths", path, &method]);
        assert!(self.document.pointer(&operation).is_some(), "{name}: the operation is not in the document");
        let exact = answer.status.to_string();
        let responses = format!("{operation}/responses");
        let documented = &self.document.pointer(&responses).unwrap();
        let key = if documented.get(&exact).is_some() { &*exact } else { "default" };
        assert!(documented.get(key).is_some(), "{name}: the status is not in the document");

        let response = self.resolved(&format!("{responses}/{key}"));
        self.check_headers(&response, answer, &name);
        let kind = answer.header("content-type").unwrap_or_default().split(';').next().unwrap();
        let body = if kind == "application/json" { answer.json() } else { Value::from(answer.text()) };
        self.check(&format!("{response}/content/{}/schema", escaped(kind)), &body, &name);
        if answer.status < 300 {
            self.check_request(&operation, request, &name);
        }
        let seen = ((request.method.clone(), path.to_owned()), key.to_owned());
        self.seen.borrow_mut().insert(seen);
    }

    /// What the document describes and nobody has seen.
    pub fn unseen(&self) -> Vec<(Operation, String)> {
        let documented = self.operations().into_iter().flat_map(|(operation, statuses)| {
            statuses.into_iter().map(move |status| (operation.clone(), status)).collect::<Vec<_>>()
        });
        documented.filter(|one| !self.seen.borrow().contains(one)).collect()
    }

    /// Follows a reference from one place of the document to another.
    fn resolved(&self, place: &str) -> String {
        let found = self.document.pointer(place).unwrap_or_else(|| panic!("{place} is not there"));
        match found.get("$ref") {
            None => place.to_owned(),
            Some(reference) => self.resolved(reference.as_str().unwrap().strip_prefix('#').unwrap()),
        }
    }

    fn check_headers(&self, response: &str, answer: &Answer, name: &str) {
        let headers = self.document.pointer(&format!("{response}/headers")).and_then(Value::as_object);
        for (header, described) in headers.into_iter().flatten() {
            let value = answer.header(header);
            assert!(value.is_some() || described["required"] != true, "{name}: {header} is missing");
            if let Some(value) = value {
                let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
                self.check(&format!("{response}/headers/{}/schema", escaped(header)), &value, name);
            }
        }
    }

    fn check_request(&self, operation: &str, request: &Request, name: &str) {
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let parameters = self.document.pointer(&format!("{operation}/parameters")).and_then(Value::as_array);
        for (field, _) in url::form_urlencoded::parse(query.as_bytes()) {
            let known =
                parameters.is_some_and(|all| all.iter().any(|one| one["name"] == *field && one["in"] == "query"));
            assert!(known, "{name}: the parameter {field} is not in the document");
        }
        if request.body.is_empty() {
            return;
        }
        let kind = request.headers.iter().find(|(header, _)| header == "Content-Type").unwrap();
        let kind = String::from_utf8(kind.1.clone()).unwrap();
        let body = match kind.as_str() {
            "application/json" => serde_json::from_slice(&request.body).unwrap(),
            _ => url::form_urlencoded::parse(&request.body)
                .map(|(field, value)| (field.into_owned(), Value::from(value.into_owned())))
                .collect::<Map<_, _>>()
                .into(),
        };
        self.check(&format!("{operation}/requestBody/content/{}/schema", escaped(&kind)), &body, name);
    }

    /// Validates a value by the schema at a place of the document.
    #[track_caller]
    fn check(&self, place: &str, value: &Value, name: &str) {
        assert!(self.closed.pointer(place).is_some(), "{name}: there is no {place}");
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        compiler.add_resource(NAME, self.closed.clone()).unwrap();
        let schema = compiler.compile(&format!("{NAME}#{place}"), &mut schemas);
        let schema = schema.unwrap_or_else(|error| panic!("{place}: {error:#}"));
        if let Err(error) = schemas.validate(value, schema) {
            panic!("{name}\n{error:#}");
        }
    }
}

/// Makes every object schema one that names all of its members.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".into(), false.into());
            }
            members.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

/// RFC 6901.
fn escaped(word: &str) -> String {
    word.replace('~', "~0").replace('/', "~1")
}

fn pointer(words: &[&str]) -> String {
    words.iter().fold(String::new(), |place, word| place + "/" + &escaped(word))
}
