//! What the tests through the front door need around the gateway: the gateway itself as a process of its own, and
//! somebody on each of its sides.
//!
//! Tests are ordinary blocking functions. The fakes run on a runtime of their own, so a test that waits for the
//! gateway never keeps the gateway waiting. Nothing here sleeps for luck: [`eventually`] waits for a condition.

pub mod auth_gateway;
pub mod client;
pub mod cluster;
pub mod database;
pub mod device;
pub mod gateway;
pub mod h2;
pub mod market;
pub mod neuron;
pub mod nginx;
pub mod oauth;
pub mod program;
pub mod pylon;
pub mod sign_in;
pub mod signer;
pub mod subtensor;
pub mod tls;
pub mod token;
pub mod upstream;
pub mod wallet;

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

pub use self::{
    client::{Answer, Client, Request},
    gateway::{Gateway, Settings},
    token::Token,
    upstream::{Gate, Part, Reply, Upstream},
};

/// How long anything may take that is expected to happen. Long, because it is only ever waited out when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The runtime of the fakes and of asynchronous clients.
fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// Runs something asynchronous on the runtime of the fakes.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

/// Starts something asynchronous there.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    runtime().spawn(work)
}

/// Waits until there is an answer.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, &mut ask)
}

/// Waits until there is an answer, for as long as is said.
#[track_caller]
pub fn within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < patience, "waited {patience:?} in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What the test environment says (`scripts/test-env`).
#[expect(clippy::disallowed_methods, reason = "a test is told where its tools are; the gateway reads its own")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A port that nobody else has and nobody else gets while this process lives. Below the range from which the system
/// hands out ports itself: a gateway that is restarted must find its port free, although clients come and go.
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<std::fs::File>> = Mutex::new(Vec::new());
    let mut held = HELD.lock().unwrap();
    let directory = std::env::temp_dir().join("tollgate-test-ports");
    std::fs::create_dir_all(&directory).unwrap();
    let start = u16::try_from(std::process::id().wrapping_mul(53) % 9_000).unwrap();
    for offset in 0..9_000 {
        let port = 10_000 + (start + offset) % 9_000;
        let lock = std::fs::File::create(directory.join(port.to_string())).unwrap();
        if lock.try_lock().is_ok() && TcpListener::bind(loopback(port)).is_ok() {
            held.push(lock);
            return port;
        }
    }
    panic!("there is no free port");
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Keeps one test at a time for something there is only one of on this machine.
pub fn alone(with: &str) -> std::fs::File {
    let path = std::env::temp_dir().join(format!("tollgate-test-{with}.lock"));
    let lock = std::fs::File::create(path).unwrap();
    lock.lock().unwrap();
    lock
}

/// Texts that must never appear in a log: every gateway looks for them when it ends.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Remembers a secret.
pub fn secret(text: impl Into<String>) -> String {
    let text = text.into();
    SECRETS.lock().unwrap().push(text.clone());
    text
}

fn secrets() -> Vec<String> {
    SECRETS.lock().unwrap().clone()
}

/// What every query string of a test holds, so that it can be looked for in the logs.
pub const IN_QUERY: &str = "must-not-be-logged";

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tollgate"))
}
