//! Loads a server for `benches/side-by-side` as wrk cannot: with a client certificate, with a new connection for each
//! request, with a question that follows from the last answer. Says what it measured as one line of JSON, times in
//! microseconds.
//!
//! It must cost less than what it measures, so it runs on one thread, believes any server, and reads no more of HTTP/1.1 than
//! a status and a length. An answer that is not 200 or not the one that was expected, a connection that ends early, a
//! certificate that nobody asked for and a token that the key set does not verify end the run with an error.

mod question;
mod target;
mod tls;
mod token;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

use self::question::{Chains, Question};
use self::target::Target;

/// How long a connection or an answer may take: a run that hangs must end.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    /// What to ask for: <https://127.0.0.1:8443/path>
    url: Url,
    /// Connections at a time
    #[arg(long, default_value_t = 16)]
    clients: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// A new connection, with a full handshake, for each request
    #[arg(long)]
    new: bool,
    #[arg(long, default_value = "1.3", value_parser = ["1.2", "1.3"])]
    tls: String,
    /// PEM file of the certificate to present
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// A header field of every request. Repeatable
    #[arg(long = "header")]
    headers: Vec<String>,
    /// A form to send. Without one the requests are GET
    #[arg(long)]
    form: Option<String>,
    /// What every answer must contain
    #[arg(long)]
    expect: Option<String>,
    /// File with a refresh token for each client, one a line: it is the form's last field, and the answer has the next one.
    /// The last ones are written back
    #[arg(long, requires = "form", requires = "keys", conflicts_with = "expect")]
    refresh: Option<PathBuf>,
    /// Key set that must verify the tokens of the last answers
    #[arg(long)]
    keys: Option<Url>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // `cargo bench` adds a word of its own.
    let arguments = Arguments::parse_from(std::env::args().filter(|argument| argument != "--bench"));
    let presented = arguments.certificate.as_ref().zip(arguments.key.as_ref());
    let presented = presented.map(|(certificate, key)| tls::Presented::read(certificate, key)).transpose()?;
    let presented = presented.map(Arc::new);
    let target = Arc::new(Target::new(&arguments.url, &arguments.tls, !arguments.new, presented.clone()).await?);
    let chains = arguments.refresh.as_deref().map(|path| Chains::read(path, arguments.clients)).transpose()?;

    let begin = Instant::now();
    let end = begin + Duration::try_from_secs_f64(arguments.seconds)?;
    let mut clients = JoinSet::new();
    for number in 0..arguments.clients {
        let question = match &chains {
            Some(chains) => chains.question(&arguments, number)?,
            None => Question::always(&arguments),
        };
        clients.spawn(client(Arc::clone(&target), question, end));
    }
    let (mut times, mut questions) = (Vec::new(), Vec::new());
    while let Some(ended) = clients.join_next().await {
        let (mut its_times, question) = ended??;
        times.append(&mut its_times);
        questions.push(question);
    }
    let elapsed = begin.elapsed().as_secs_f64();
    if let Some(presented) = presented {
        presented.ensure_asked()?;
    }
    if let Some(chains) = chains {
        chains.write(&questions)?;
    }
    if let Some(keys) = &arguments.keys {
        let keys = token::KeySet::read(keys).await?;
        questions.iter().flat_map(Question::tokens).try_for_each(|token| keys.verify(token))?;
    }

    times.sort_unstable();
    let percentile = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    let requests = u32::try_from(times.len())?;
    let figures = serde_json::json!({
        "requests": requests,
        "rate": f64::from(requests) / elapsed,
        "p50": percentile(50),
        "p99": percentile(99),
    });
    writeln!(std::io::stdout(), "{figures}").context("nobody reads the figures")
}

/// One client, that asks again as soon as it has its answer. How long each took, and what it would ask next.
async fn client(target: Arc<Target>, mut question: Question, end: Instant) -> anyhow::Result<(Vec<u64>, Question)> {
    let (mut times, mut answer, mut kept) = (Vec::new(), Vec::with_capacity(32 << 10), None);
    while Instant::now() < end {
        let begin = Instant::now();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => timeout(PATIENCE, target.connect()).await.context("no connection in time")??,
        };
        let request = question.request(&target);
        let body = timeout(PATIENCE, target::ask(&mut connection, &request, &mut answer)).await;
        times.push(u64::try_from(begin.elapsed().as_micros())?);
        question.answered(body.context("no answer in time")??)?;
        if target.keep {
            kept = Some(connection);
        } else {
            target::close(connection).await;
        }
    }
    Ok((times, question))
}
