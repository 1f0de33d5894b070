//! `tollgate demo`: a paid request goes through, is charged for, and can be explained; and somebody signs in.
//!
//! Starts a gateway (this same program, with a configuration of its own in a temporary directory) and a small paid
//! service behind it, gives a holder ten credits, registers the clients of `examples/`, and shows the way of a request and
//! of a sign-in with lines to try by hand. With `--check` it walks both itself and fails at the first step that goes
//! differently: nothing in it is pretended.

mod service;
mod sign_in;
mod walk;

use std::{
    fmt::Write as _,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::on_runtime;

/// How the demo runs.
#[derive(Args)]
pub struct Options {
    /// Walk through it and exit, with an error if a step goes differently than it should.
    #[arg(long)]
    check: bool,
    /// The gateway's port; the service takes the next one, the admin listener the one after.
    #[arg(long, default_value_t = 8402)]
    port: u16,
    /// A node of Bittensor's chain, as `wss://entrypoint-finney.opentensor.ai`, so that Bittensor wallets can sign in too.
    #[arg(long, value_name = "URL")]
    subtensor: Option<String>,
}

/// Everything the demo has running.
pub(super) struct Stage {
    program: PathBuf,
    directory: PathBuf,
    gateway: SocketAddr,
    service: SocketAddr,
    admin: SocketAddr,
    token: String,
    child: Child,
}

/// The service's DID, the plan's, and who holds the ten credits: made up, and written as Nevermined writes them.
const SERVICE: &str = "did:nv:1111111111111111111111111111111111111111111111111111111111111111";
const PLAN: &str = "did:nv:2222222222222222222222222222222222222222222222222222222222222222";
const HOLDER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const CREDITS: u64 = 10;

/// Runs the demo.
///
/// # Errors
/// When something cannot be started, or, with `--check`, when a step goes differently than it should.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let directory = Directory::make()?;
    let secret = service::Secret::make()?;
    if !options.check {
        for port in options.port..=options.port.saturating_add(2) {
            let bound = std::net::TcpListener::bind(loopback(port));
            bound.with_context(|| format!("port {port} is needed; others can be had with --port"))?;
        }
    }
    on_runtime(async {
        let listen = if options.check { loopback(0) } else { loopback(options.port.saturating_add(1)) };
        let service = service::start(listen, &secret).await.context("starting the service")?;
        let mut stage = Stage::set(options, &directory.0, service, &secret)?;
        if options.check { walk::check(&mut stage, &secret).await } else { explain(&mut stage).await }
    })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A directory of our own, which goes when the demo ends.
struct Directory(PathBuf);

impl Directory {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tollgate-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Best effort: it is a temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port that is free now.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(loopback(0))?.local_addr()?.port())
}

impl Stage {
    fn set(options: &Options, directory: &Path, service: SocketAddr, secret: &service::Secret) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let (gateway, admin) = if options.check {
            (loopback(free_port()?), loopback(free_port()?))
        } else {
            (loopback(options.port), loopback(options.port.saturating_add(2)))
        };
        let mut configuration = configuration(directory, gateway, admin);
        if let Some(url) = &options.subtensor {
            writeln!(configuration, "\n[subtensor]\nurl = {url:?}")?;
        }
        std::fs::write(directory.join("tollgate.toml"), configuration)?;
        std::fs::write(directory.join("key"), service::random_base64()?)?;
        std::fs::write(directory.join("service-token"), secret.token())?;

        let command = |arguments: &[&str]| tollgate(&program, directory, arguments);
        command(&["key", "generate"])?;
        for registration in sign_in::registrations() {
            command(&registration)?;
        }
        command(&["credits", "grant", HOLDER, PLAN, &CREDITS.to_string()])?;
        let endpoint = format!("http://{service}/v1/(.*)");
        let bearer = directory.join("service-token").display().to_string();
        let token = command(&[
            "token",
            "issue",
            "--service",
            SERVICE,
            "--plan",
            PLAN,
            "--holder",
            HOLDER,
            "--endpoint",
            &endpoint,
            "--upstream-bearer-file",
            &bearer,
        ])?;
        let log = std::fs::File::create(directory.join("log"))?;
        let child = base(&program, directory)
            .arg("serve")
            .stdout(Stdio::from(std::fs::File::create(directory.join("access.log"))?))
            .stderr(Stdio::from(log))
            .spawn()
            .context("starting the gateway")?;
        let stage = Self {
            program,
            directory: directory.to_owned(),
            gateway,
            service,
            admin,
            token: token.trim().to_owned(),
            child,
        };
        Ok(stage)
    }

    /// Waits until the gateway says that it is ready.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let host = self.admin.to_string();
        while begun.elapsed() < Duration::from_secs(30) && self.child.try_wait()?.is_none() {
            let answer = service::Request::get("/readyz", &host).send(self.admin).await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!(
            "the gateway did not become ready; it said:\n{}",
            std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
        )
    }

    /// What this program answers to a command about the same data.
    fn tollgate(&self, arguments: &[&str]) -> anyhow::Result<String> {
        tollgate(&self.program, &self.directory, arguments)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn base(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    // The configuration alone decides: variables of the shell would win over it.
    command.env_clear().arg("--config").arg(directory.join("tollgate.toml")).stdin(Stdio::null());
    command
}

fn tollgate(program: &Path, directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = base(program, directory).args(arguments).output().context("running this program")?;
    ensure!(output.status.success(), "tollgate {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn configuration(directory: &Path, gateway: SocketAddr, admin: SocketAddr) -> String {
    let directory = directory.display();
    let port = gateway.port();
    format!(
        r#"[server]
data_dir = "{directory}/data"
threads = 2

[admin]
address = "{admin}"

[[listener]]
name = "demo"
address = "{gateway}"

[nevermined]
key_file = "{directory}/key"

[[service]]
id = "{SERVICE}"
plan = "{PLAN}"
charge = "dynamic"
amount = 1
minimum = 1
maximum = 5

[egress]
allow = ["127.0.0.0/8"]

# The same port by another name is where people sign in.
[oauth]
public_url = "http://localhost:{port}"
production = false
demo = true
resources = ["{}"]

[oauth.limits]
requests = 300
challenges = 60

[[route]]
name = "sign-in"
hosts = ["localhost"]
upstream = "authorization-server"

[[route]]
name = "paid"
upstream = "token"
accepts = ["nevermined"]
"#,
        sign_in::EXAMPLE_API
    )
}

/// Shows what to try, and keeps everything running until interrupted.
async fn explain(stage: &mut Stage) -> anyhow::Result<()> {
    // Whatever ends us, the gateway must not go on without us.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    stage.ready().await?;
    let Stage { gateway, service, directory, program, token, .. } = &*stage;
    let directory = directory.display();
    std::fs::write(stage.directory.join("token"), token)?;
    let program = program.display();
    let port = gateway.port();
    let text = format!(
        r#"
SIGN IN, in a browser, with a wallet or with none:

  http://localhost:{port}/

A throw-away development key signs for those who have no wallet. The programs in examples/ can sign in here too.

PAY FOR A REQUEST, in another terminal. tollgate listens on http://{gateway}; behind it is a paid service on
http://{service}, and {HOLDER} has {CREDITS} credits:

  TOKEN=$(cat {directory}/token)

  # Served, and charged 1 credit. The service saw the provider's secret; the client never does.
  curl -i -H "Authorization: Bearer $TOKEN" http://{gateway}/v1/hello

  # The service asks 3 credits for this one.
  curl -i -H "Authorization: Bearer $TOKEN" http://{gateway}/v1/expensive

  # Refused: no token, and an address that the token does not cover.
  curl -i http://{gateway}/v1/hello
  curl -i -H "Authorization: Bearer $TOKEN" http://{gateway}/admin

  # The same as a forward proxy: the service's real address, through the gateway.
  curl -i -x http://{gateway} -H "Authorization: Bearer $TOKEN" http://{service}/v1/hello

  # Exhausted, after a few: 402. A request is let in only if the most it may cost (5) is there.
  for i in $(seq 10); do curl -s -o /dev/null -w '%{{http_code}}\n' -H "Authorization: Bearer $TOKEN" http://{gateway}/v1/hello; done

  # What was charged, and why. `usage show` takes the X-Request-Id of an answer.
  {program} --config {directory}/tollgate.toml usage list
  {program} --config {directory}/tollgate.toml usage sum

Press Ctrl-C to end.
"#
    );
    std::io::stdout().lock().write_all(text.as_bytes())?;
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
        _ = hung_up.recv() => {}
    }
    Ok(())
}
