//! The gateway, as a process of its own.
//!
//! When the fixture is dropped, the test fails if a usage event is left behind in the spool, if the gateway logged an
//! error that the test did not expect, if it does not stop when told to, or if a log has a secret in it.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    IN_QUERY, PATIENCE,
    client::{Answer, Client, Request},
    eventually, free_port, loopback, program, secrets,
    token::{KEY, PHRASE},
    within,
};

/// How a gateway is told what to do.
#[derive(Clone)]
pub struct Settings {
    /// No file, only variables, of this system.
    replaces: Option<Replaced>,
    server: String,
    usage: String,
    egress: String,
    database: String,
    nevermined: String,
    rest: String,
    variables: Vec<(String, String)>,
    certificate: Option<(PathBuf, PathBuf)>,
    client_certificates: &'static str,
    introspection: bool,
    /// Lines of its section.
    auth_request: Option<String>,
    /// Nothing but nexus-auth's variables.
    nexus_auth: bool,
    /// What it is started with.
    words: Vec<String>,
}

impl Settings {
    /// A file with a listener, a key, upstreams allowed on this machine, and whatever is added.
    pub fn file() -> Self {
        Self {
            replaces: None,
            server: "threads = 2\n".into(),
            usage: String::new(),
            egress: "allow = [\"127.0.0.0/8\"]\n".into(),
            database: String::new(),
            nevermined: format!("key = \"{KEY}\"\n"),
            rest: String::new(),
            variables: Vec::new(),
            certificate: None,
            client_certificates: "ignore",
            introspection: false,
            auth_request: None,
            nexus_auth: false,
            words: vec!["serve".into()],
        }
    }

    /// The variables of nexus-auth alone, and ours for ports and directories.
    pub fn nexus_auth() -> Self {
        Self { nexus_auth: true, ..Self::file() }
    }

    /// The endpoint of nexus-auth, with these settings.
    pub fn auth_request(mut self, lines: &str) -> Self {
        self.auth_request = Some(lines.to_owned());
        self
    }

    /// Starts it with these words instead of `serve`.
    pub fn words(mut self, words: &[&str]) -> Self {
        self.words = words.iter().map(ToString::to_string).collect();
        self
    }

    /// The replaced system's variables alone, and ours for ports, directories and private upstreams.
    pub fn drop_in() -> Self {
        Self { replaces: Some(Replaced::Nevermined), introspection: true, ..Self::file() }
            .variable("JWT_SECRET_PHRASE", PHRASE)
            .variable("TOLLGATE_UPSTREAM_ALLOW", "127.0.0.0/8")
    }

    /// The auth gateway's variables alone, and ours for ports and directories.
    pub fn auth_gateway() -> Self {
        Self { replaces: Some(Replaced::AuthGateway), ..Self::file() }
    }

    pub fn server(mut self, lines: &str) -> Self {
        writeln!(self.server, "{lines}").unwrap();
        self
    }

    pub fn usage(mut self, lines: &str) -> Self {
        writeln!(self.usage, "{lines}").unwrap();
        self
    }

    /// Upstreams that tokens name must be public.
    pub fn nothing_allowed(mut self) -> Self {
        self.egress.clear();
        self
    }

    pub fn egress(mut self, lines: &str) -> Self {
        writeln!(self.egress, "{lines}").unwrap();
        self
    }

    pub fn database(mut self, lines: &str) -> Self {
        writeln!(self.database, "{lines}").unwrap();
        self
    }

    /// Whole sections. `{tls}` stands for the address of the TLS listener.
    pub fn with(mut self, sections: &str) -> Self {
        writeln!(self.rest, "{sections}").unwrap();
        self
    }

    /// The service that tokens of tests are for, with its credits in our own database, and the route to it.
    pub fn paid(self, service: &str) -> Self {
        let (id, plan) = (super::token::SERVICE, super::token::PLAN);
        let service = format!("[[service]]\nid = \"{id}\"\nplan = \"{plan}\"\n{service}\n");
        self.with(&service).with("[[route]]\nname = \"paid\"\nupstream = \"token\"\n")
    }

    /// An open route to an upstream with a fixed address.
    pub fn open(self, address: SocketAddr, route: &str) -> Self {
        self.with(&format!("[[upstream]]\nname = \"fixed\"\naddresses = [\"{address}\"]\n"))
            .with(&format!("[[route]]\nname = \"open\"\nupstream = \"fixed\"\n{route}\n"))
    }

    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub fn unset(mut self, name: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self
    }

    /// TLS, with this certificate and key.
    pub fn tls(mut self, certificate: &Path, key: &Path) -> Self {
        self.certificate = Some((certificate.to_owned(), key.to_owned()));
        self
    }

    /// Whether the TLS listener asks clients for certificates.
    pub fn client_certificates(mut self, word: &'static str) -> Self {
        self.client_certificates = word;
        self
    }
}

/// Whose variables they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replaced {
    Nevermined,
    AuthGateway,
}

/// A gateway.
pub struct Gateway {
    pub http: SocketAddr,
    pub tls: SocketAddr,
    pub admin: SocketAddr,
    pub introspection: SocketAddr,
    pub auth_request: SocketAddr,
    directory: tempfile::TempDir,
    data: PathBuf,
    settings: Settings,
    child: Option<Child>,
    readers: Vec<std::thread::JoinHandle<()>>,
    out: Arc<Mutex<Vec<String>>>,
    log: Arc<Mutex<Vec<String>>>,
    expected: Vec<String>,
}

impl Gateway {
    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(settings: Settings) -> Self {
        let mut gateway = Self::prepare(settings);
        gateway.launch();
        gateway.ready();
        gateway
    }

    /// Everything but the start.
    pub fn prepare(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [http, tls, admin, introspection, auth_request] = [(); 5].map(|()| loopback(free_port()));
        let data = directory.path().join("data");
        let gateway = Self {
            http,
            tls,
            admin,
            introspection,
            auth_request,
            directory,
            data,
            settings,
            child: None,
            readers: Vec::new(),
            out: Arc::default(),
            log: Arc::default(),
            expected: Vec::new(),
        };
        gateway.write();
        gateway
    }

    /// The same with its data elsewhere, say on a disk that can be filled.
    pub fn prepare_at(settings: Settings, data: &Path) -> Self {
        let mut gateway = Self::prepare(settings);
        gateway.data = data.to_owned();
        gateway.write();
        gateway
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("tollgate.toml")
    }

    fn write(&self) {
        let settings = &self.settings;
        let (server, usage, egress, database) =
            (&settings.server, &settings.usage, &settings.egress, &settings.database);
        let mut text = format!(
            "[server]\ndata_dir = \"{}\"\n{server}\n[admin]\naddress = \"{}\"\n[egress]\n{egress}\n[nevermined]\n{}\n",
            self.data.display(),
            self.admin,
            settings.nevermined,
        );
        if !usage.is_empty() {
            write!(text, "[usage]\n{usage}\n").unwrap();
        }
        if !database.is_empty() {
            write!(text, "[database]\n{database}\n").unwrap();
        }
        if settings.introspection {
            write!(text, "[introspection]\naddress = \"{}\"\n", self.introspection).unwrap();
        }
        if let Some(lines) = &settings.auth_request {
            write!(text, "[auth_request]\naddress = \"{}\"\n{lines}\n", self.auth_request).unwrap();
        }
        write!(text, "[[listener]]\nname = \"plain\"\naddress = \"{}\"\n", self.http).unwrap();
        if let Some((certificate, key)) = &settings.certificate {
            let (certificate, key) = (certificate.display(), key.display());
            write!(text, "[[listener]]\nname = \"tls\"\naddress = \"{}\"\n[listener.tls]\n", self.tls).unwrap();
            writeln!(text, "client_certificates = \"{}\"", settings.client_certificates).unwrap();
            write!(text, "[[listener.tls.certificate]]\ncert = \"{certificate}\"\nkey = \"{key}\"\n").unwrap();
        }
        text.push_str(&settings.rest.replace("{tls}", &self.tls.to_string()));
        std::fs::write(self.file(), text).unwrap();
    }

    /// This program, with this gateway's configuration.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.env_clear().current_dir(self.directory.path()).stdin(Stdio::null());
        if self.settings.replaces == Some(Replaced::AuthGateway) {
            command
                .env("HOST", self.http.ip().to_string())
                .env("PORT", self.http.port().to_string())
                .env("TOLLGATE_LISTEN_ADMIN", self.admin.to_string())
                .env("TOLLGATE_DATA_DIR", &self.data);
        } else if self.settings.replaces.is_some() {
            let tls = if self.settings.certificate.is_some() { self.tls.to_string() } else { String::new() };
            command
                .env("TOLLGATE_LISTEN_HTTP", self.http.to_string())
                .env("TOLLGATE_LISTEN_TLS", tls)
                .env("TOLLGATE_LISTEN_ADMIN", self.admin.to_string())
                .env("TOLLGATE_DATA_DIR", &self.data)
                .env("SERVER_HOST", self.introspection.ip().to_string())
                .env("SERVER_PORT", self.introspection.port().to_string());
            if let Some((certificate, key)) = &self.settings.certificate {
                command.env("TOLLGATE_TLS_CERT", certificate).env("TOLLGATE_TLS_KEY", key);
            }
        } else if self.settings.nexus_auth {
            command
                .env("NEXUS_AUTH_LISTEN_ADDR", self.auth_request.to_string())
                .env("TOLLGATE_LISTEN_ADMIN", self.admin.to_string())
                .env("TOLLGATE_DATA_DIR", &self.data);
        } else {
            command.arg("--config").arg(self.file());
        }
        for (name, value) in &self.settings.variables {
            command.env(name, value);
        }
        command
    }

    /// The same, told to serve.
    pub fn serve(&self) -> Command {
        let mut command = self.command();
        command.args(&self.settings.words);
        command
    }

    /// Gives it another file and tells it to read it. Says what it made of it.
    #[track_caller]
    pub fn reload(&mut self, settings: Settings) -> String {
        let results = |gateway: &Self| -> Vec<String> {
            let told = |line: &String| line.contains("are loaded again") || line.contains("the old one stays");
            gateway.log().into_iter().filter(told).collect()
        };
        let before = results(self).len();
        self.settings = settings;
        self.write();
        self.signal(Signal::HUP);
        eventually("the file is read again", || results(self).into_iter().nth(before))
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn launch(&mut self) {
        let mut child = self.serve().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, log) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        self.readers.push(collect(out, &self.out));
        self.readers.push(collect(log, &self.log));
        self.child = Some(child);
    }

    #[track_caller]
    pub fn ready(&mut self) {
        within(Duration::from_secs(40), "the gateway is ready", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the gateway ended with {status}:\n{}", self.log().join("\n"));
            }
            self.admin("/readyz").filter(|answer| answer.status == 200)
        });
    }

    /// What an admin page says, if it answers at all.
    pub fn admin(&self, path: &str) -> Option<Answer> {
        let mut client = Client::try_connect(self.admin).ok()?;
        let request = Request::get(path).header("Connection", "close");
        client.try_write(request.bytes()).ok()?;
        client.try_answer("GET").ok()
    }

    /// The sum of the metrics with this name whose labels hold all of these texts, without its fraction.
    pub fn metric(&self, name: &str, labels: &[&str]) -> i64 {
        let text = self.admin("/metrics").expect("the admin listener answers").text();
        sum_of(&text, name, labels)
    }

    /// Sends a request on a connection of its own.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Answer {
        self.client().send(request)
    }

    pub fn client(&self) -> Client {
        Client::connect(self.http)
    }

    /// What this program prints about this gateway's data.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn grant(&self, holder: &tollgate::model::address::EvmAddress, credits: u64) {
        let plan = super::token::PLAN.to_string();
        self.cli(&["credits", "grant", &holder.to_string(), &plan, &credits.to_string()]);
    }

    /// Waits until the store has everything.
    #[track_caller]
    pub fn settle(&self) {
        eventually("the spool is empty", || (self.metric("tollgate_spool_events", &[]) == 0).then_some(()));
    }

    /// The usage table, once everything is in it, newest first.
    #[track_caller]
    pub fn usage(&self) -> Vec<Value> {
        if self.child.is_some() {
            self.settle();
        }
        let text = self.cli(&["usage", "list", "--json", "--limit", "1000000"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The usage of one request.
    #[track_caller]
    pub fn usage_of(&self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id").expect("a metered answer has an id").to_owned();
        let rows = self.usage();
        let mut rows = rows.into_iter().filter(|row| row["request_id"] == *id);
        let row = rows.next().unwrap_or_else(|| panic!("{id} is not in the usage"));
        assert!(rows.next().is_none(), "{id} is there twice");
        row
    }

    /// The access log's lines so far.
    pub fn access_log(&self) -> Vec<Value> {
        let lines = self.out.lock().unwrap().clone();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Waits for the access log's line about something.
    #[track_caller]
    pub fn logged(&self, about: impl Fn(&Value) -> bool) -> Value {
        eventually("a line in the access log", || self.access_log().into_iter().find(|line| about(line)))
    }

    /// The program's log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Errors with this text in their line are no reason to fail.
    pub fn expect_error(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`, and the end of its output.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
    }

    /// Tells it to stop, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let status = within(Duration::from_secs(40), "the gateway stops", || child.try_wait().unwrap());
        self.child = None;
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        status
    }

    /// Starts it again with the same data.
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch();
        self.ready();
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn is_expected(&self, line: &str) -> bool {
        self.expected.iter().any(|text| line.contains(text))
    }

    fn check_logs(&self) {
        let (out, log) = (self.out.lock().unwrap().clone(), self.log.lock().unwrap().clone());
        for line in &log {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| {
                // A panic begins with an empty line: all of it has to be seen.
                panic!("not a log line: {line}\n{}", log.join("\n"))
            });
            assert!(entry["level"] != "ERROR" || self.is_expected(line), "an error that nobody expected: {line}");
        }
        for secret in secrets().iter().map(String::as_str).chain([IN_QUERY, KEY, PHRASE]) {
            for line in out.iter().chain(&log) {
                assert!(!line.contains(secret), "a log has a secret in it: {line}");
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(mut child) = self.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            eprintln!("--- the gateway's log\n{}\n--- its access log", self.log().join("\n"));
            let out = self.out.lock().unwrap();
            out.iter().rev().take(40).rev().for_each(|line| eprintln!("{line}"));
            return;
        }
        if self.child.is_some() {
            self.settle();
            let status = self.stop();
            assert!(status.success(), "the gateway ended with {status}:\n{}", self.log().join("\n"));
        }
        self.check_logs();
    }
}

fn collect(from: impl std::io::Read + Send + 'static, into: &Arc<Mutex<Vec<String>>>) -> std::thread::JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let whole = line.ends_with(b"\n");
            // A process that is killed may leave half a line.
            if whole {
                into.lock().unwrap().push(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            line.clear();
        }
    })
}

#[expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]
pub fn sum_of(text: &str, name: &str, labels: &[&str]) -> i64 {
    let lines = text.lines().filter(|line| {
        let (key, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        key == name && labels.iter().all(|label| rest.contains(label))
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>() as i64
}

/// Sends the same request many times, on so many connections at a time, each of which is kept alive. Returns the
/// answers that came.
pub fn storm(address: SocketAddr, request: &Request, times: usize, connections: usize) -> Vec<Answer> {
    let bytes = Arc::new(request.bytes());
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(times));
    let workers = (0..connections).map(|_| {
        let (bytes, left, method) = (Arc::clone(&bytes), Arc::clone(&left), request.method.clone());
        spawn_blocking(move || {
            let mut answers = Vec::new();
            let mut client = Client::connect(address);
            let take = || {
                left.fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, |n| {
                    n.checked_sub(1)
                })
            };
            while take().is_ok() {
                client.write(bytes.as_slice());
                let answer = client.answer(&method);
                let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                answers.push(answer);
                if closes {
                    client = Client::connect(address);
                }
            }
            answers
        })
    });
    let workers: Vec<_> = workers.collect();
    workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
}

fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap()
}

/// Waits until a process that should not have started has ended, and says how, and what it said.
#[track_caller]
pub fn refused(settings: Settings) -> (i32, String) {
    let gateway = Gateway::prepare(settings);
    let begun = Instant::now();
    let output = gateway.serve().output().unwrap();
    assert!(begun.elapsed() < PATIENCE, "it took too long to refuse");
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}
