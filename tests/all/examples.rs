//! What newcomers run: `tollgate demo` as a process, with a browser at it to the very end, and the programs in `examples/`
//! with it as their gateway.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Gateway, PATIENCE, Settings, free_port, loopback, program, within};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// `tollgate demo`, until it is dropped.
struct Demo {
    port: u16,
    /// What it has printed.
    text: String,
    process: Child,
}

impl Demo {
    #[track_caller]
    fn start() -> Self {
        let port = three_ports();
        let mut process = Command::new(program())
            .args(["demo", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.as_mut().unwrap());
        let mut text = String::new();
        while !text.contains("Press Ctrl-C to end.") {
            assert_ne!(lines.read_line(&mut text).unwrap(), 0, "the demo has ended: {text}");
        }
        Self { port, text, process }
    }

    fn told(&self, state: &Path) -> Value {
        json!({ "port": self.port, "examples": format!("{ROOT}/examples"), "state": state })
    }

    fn stop(&mut self, signal: Signal) -> ExitStatus {
        if self.process.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&self.process), signal).unwrap();
        }
        within(PATIENCE, "the demo ends", || self.process.try_wait().unwrap())
    }

    #[track_caller]
    fn run(&self, test: &str) {
        let state = tempfile::tempdir().unwrap();
        program::succeeds(&mut program::node(test, &self.told(state.path())));
    }
}

impl Drop for Demo {
    /// As Ctrl-C ends it: with all that it has started.
    fn drop(&mut self) {
        let status = self.stop(Signal::INT);
        assert!(status.success() || std::thread::panicking(), "{status}");
    }
}

/// The first of three ports in a row, which are ours.
fn three_ports() -> u16 {
    let mut row = vec![free_port()];
    while row.len() < 3 {
        let next = free_port();
        if next != row[row.len() - 1] + 1 {
            row.clear();
        }
        row.push(next);
    }
    row[0]
}

#[test]
fn the_demo_signs_in_without_a_wallet_to_the_very_end() {
    let demo = Demo::start();
    assert!(demo.text.contains(&format!("http://localhost:{}/", demo.port)), "{}", demo.text);
    demo.run("examples/demo.test.mjs");
}

#[test]
fn the_web_pages_among_the_examples_sign_in_to_the_demo() {
    Demo::start().run("examples/web.test.mjs");
}

#[test]
fn the_programs_among_the_examples_work_with_the_demo() {
    Demo::start().run("examples/programs.test.mjs");
}

#[test]
fn the_demo_ends_with_all_that_it_has_started() {
    for signal in [Signal::TERM, Signal::HUP] {
        let mut demo = Demo::start();
        let status = demo.stop(signal);
        assert!(status.success(), "{status}");
        for port in demo.port..demo.port + 3 {
            assert!(std::net::TcpStream::connect(loopback(port)).is_err(), "{port} is still served");
        }
    }
}

#[test]
fn the_demo_says_at_once_that_a_port_is_taken() {
    let port = three_ports();
    let _taken = std::net::TcpListener::bind(loopback(port)).unwrap();
    let output = Command::new(program()).args(["demo", "--port", &port.to_string()]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("--port") && text.contains(&port.to_string()), "{text}");
}

#[test]
fn the_demo_knows_the_clients_that_the_readme_registers() {
    let readme = std::fs::read_to_string(format!("{ROOT}/examples/README.md")).unwrap();
    let block = readme.split("```sh\n").find(|block| block.starts_with("tollgate client create")).unwrap();
    let lines = block.split("```").next().unwrap().replace("\\\n", " ");
    let own = Gateway::prepare(Settings::file().with(
        "[oauth]\npublic_url = \"http://localhost:8402\"\nproduction = false\n\
         [[route]]\nname = \"sign-in\"\nupstream = \"authorization-server\"\n",
    ));
    for line in lines.lines() {
        let words = shell_words(line);
        own.cli(&words.iter().skip(1).map(String::as_str).collect::<Vec<_>>());
    }
    let listed = |text: &str| {
        let mut clients: Vec<Value> = serde_json::from_str(text).unwrap();
        clients.retain(|client| client["client_id"].as_str().unwrap().starts_with("example-"));
        for client in &mut clients {
            client["created_at"] = Value::Null;
        }
        clients
    };
    let demo = Demo::start();
    let file = demo.text.split("--config ").nth(1).unwrap().split_whitespace().next().unwrap();
    let theirs = Command::new(program()).args(["--config", file, "client", "list", "--json"]).output();
    let theirs = listed(&String::from_utf8(theirs.unwrap().stdout).unwrap());
    assert_eq!(theirs.len(), 3);
    assert_eq!(theirs, listed(&own.cli(&["client", "list", "--json"])));
}

/// The words of a line without escapes.
fn shell_words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        1 => vec![part.to_owned()],
        _ => part.split_whitespace().map(str::to_owned).collect(),
    });
    words.collect()
}
