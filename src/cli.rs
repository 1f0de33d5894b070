//! The command line: which subcommand, with which configuration, and how an error is shown.

mod client;
mod credits;
mod demo;
mod generate;
mod health;
mod import;
mod key;
mod nexus;
mod token;
mod usage;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Config, ConfigError, Environment, Flags, Sources},
    model::secret::Secret,
    server::{self, assemble::store_options},
    store::Store,
    telemetry,
};

/// A gateway that decides who may pass, meters what they use, and settles it.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    /// Check the configuration and exit, as `check` does.
    #[arg(short = 't')]
    test: bool,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the configuration comes from. What is given here wins over the environment, and that over the file.
#[derive(Args, Clone, Default)]
struct SourceArgs {
    /// The configuration file. Without one, the environment alone describes a gateway like one of the replaced systems: the
    /// Nevermined proxy, or, if it has variables called NEXUS_…, nexus-auth.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen with TLS; empty: nowhere.
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    listen_tls: Option<String>,
    /// Where to listen without TLS; empty: nowhere.
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    listen_http: Option<String>,
    /// Where to listen for health checks and metrics; empty: nowhere.
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    listen_admin: Option<String>,
    /// The directory of the usage spool and of SQLite.
    #[arg(long, global = true, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The database: `postgres://…` or `sqlite://path`. Other people can read command lines: better in the environment.
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// error, warn, info, debug or trace.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    /// `-listen-addr` of `run`.
    #[arg(skip)]
    auth_listen: Option<String>,
    /// `-pylon-endpoint` of `run`.
    #[arg(skip)]
    pylon_endpoint: Option<String>,
    /// `-net-uid` of `run`.
    #[arg(skip)]
    netuid: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until told to stop (SIGTERM: finish what is in flight).
    Serve,
    /// Serve NGINX as nexus-auth did, with its flags and variables.
    Run(nexus::Options),
    /// Check the configuration, and show the routes with who may call them.
    Check {
        /// The configuration file, as with --config.
        file: Option<PathBuf>,
    },
    /// Bring the database's schema up to date.
    Migrate,
    /// Access tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Credits that are kept in our own database.
    #[command(subcommand)]
    Credits(credits::Command),
    /// What was used, and what it cost.
    #[command(subcommand)]
    Usage(usage::Command),
    /// Applications that users may sign in to.
    #[command(subcommand)]
    Client(client::Command),
    /// Take over what a replaced system knows.
    #[command(subcommand)]
    Import(import::Command),
    /// Keys that the authorization server signs with.
    #[command(subcommand)]
    Key(key::Command),
    /// Make the key and the certificate of a neuron, publish the key, and make sure that the chain has it.
    Generate(Box<generate::Options>),
    /// Ask a running gateway whether it is alive: the health check of the container image.
    Health,
    /// Show a paid request going through, with a gateway and a service of its own.
    Demo(demo::Options),
}

/// Runs the program: parses the arguments, runs the subcommand, shows the error.
#[must_use]
pub fn run() -> ExitCode {
    // First of all: two libraries would otherwise choose one each.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return ExitCode::FAILURE;
    }
    // What we make holds tokens' charges and secrets' files: nobody else's to read.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let cli = Cli::parse_from(nexus::with_two_dashes(std::env::args_os()));
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // `tollgate usage list | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let mistaken = error.is::<ConfigError>() || error.is::<generate::Misused>();
            // Standard error may be closed; there is nobody to tell then.
            let _ = writeln!(
                std::io::stderr(),
                "{}",
                if mistaken { format!("{error}") } else { format!("tollgate: {error:#}") }
            );
            ExitCode::from(if mistaken { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let mut sources = cli.sources;
    let command = if cli.test { Some(Command::Check { file: None }) } else { cli.command };
    match command {
        Some(Command::Serve) => serve(sources),
        Some(Command::Run(options)) => serve(options.sources(sources)),
        Some(Command::Check { file }) => {
            sources.config = file.or(sources.config);
            check(&sources)
        }
        Some(Command::Migrate) => {
            let config = sources.load()?;
            on_runtime(async { Ok(open(&config)?.migrate().await?) })
        }
        Some(Command::Token(command)) => token::run(&command, &sources.load()?),
        Some(Command::Credits(command)) => credits::run(&command, &sources.load()?),
        Some(Command::Usage(command)) => usage::run(command, &sources.load()?),
        Some(Command::Client(command)) => client::run(command, &sources.load()?),
        Some(Command::Import(command)) => import::run(&command, &sources.load()?),
        Some(Command::Key(command)) => key::run(&command, &sources.load()?),
        Some(Command::Generate(options)) => generate::run(&options),
        Some(Command::Health) => health::run(&sources),
        Some(Command::Demo(options)) => demo::run(&options),
        None => Ok(()),
    }
}

fn serve(sources: SourceArgs) -> anyhow::Result<()> {
    let config = sources.load()?;
    telemetry::start(config.log)?;
    server::serve(&config, move || sources.load())
}

impl SourceArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        let flags = Flags {
            listen_tls: self.listen_tls.clone(),
            listen_http: self.listen_http.clone(),
            listen_admin: self.listen_admin.clone(),
            data_dir: self.data_dir.clone(),
            database_url: self.database_url.clone().map(Secret::new),
            log: self.log.clone(),
            auth_listen: self.auth_listen.clone(),
            pylon_endpoint: self.pylon_endpoint.clone(),
            netuid: self.netuid.clone(),
        };
        Config::load(&Sources { file: self.config.as_deref(), environment: Environment::from_process(), flags })
    }
}

fn check(sources: &SourceArgs) -> anyhow::Result<()> {
    let config = sources.load()?;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", config.summary())?;
    for warning in &config.warnings {
        writeln!(out, "\nWARNING: {warning}")?;
    }
    let origin = sources
        .config
        .as_deref()
        .map_or_else(|| "the environment".to_owned(), |path: &Path| path.display().to_string());
    writeln!(out, "\nThe configuration in {origin} is good.")?;
    Ok(())
}

/// The store of a configuration, for a command that looks into it and ends. To be called on a runtime.
fn open(config: &Config) -> anyhow::Result<Store> {
    std::fs::create_dir_all(&config.server.data_dir)
        .with_context(|| format!("making the data directory {}", config.server.data_dir.display()))?;
    Store::open(&store_options(config)).context("opening the database")
}

fn on_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Rows under a head, every column as wide as its widest cell.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A moment for people and for JSON: RFC 3339, UTC, milliseconds.
fn moment(micros: i64) -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros).saturating_mul(1000));
    moment.ok().and_then(|moment| moment.format(format).ok()).unwrap_or_else(|| micros.to_string())
}
