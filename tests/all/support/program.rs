//! Programs that a test starts besides the gateway: they say by their exit code whether all is well.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::variable;

/// How long one may take; each is done in a quarter of this on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(110);

/// Runs one to its end. What it prints is the test's output.
#[track_caller]
pub fn succeeds(command: &mut Command) {
    let mut child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it is not done after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "it says above what is wrong");
}

/// Tests for Node, in a file below `tests/`. They find `world` in their environment.
pub fn node(file: &str, world: &Value) -> Command {
    let mut command = Command::new("node");
    command.args(["--test-reporter=spec", file]);
    below_tests(command, world)
}

/// The same for Python, which has what `tests/clients/requirements.txt` names.
#[track_caller]
pub fn python(file: &str, world: &Value) -> Command {
    let mut command = Command::new(variable("TOLLGATE_TEST_PYTHON").expect("scripts/test-env says where Python is"));
    command.arg(file);
    below_tests(command, world)
}

fn below_tests(mut command: Command, world: &Value) -> Command {
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).env("TOLLGATE_TEST_WORLD", world.to_string());
    command
}
