//! The demo's way, walked by the demo itself.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{
    CREDITS, HOLDER, Stage,
    service::{Answer, Request, Secret},
    sign_in,
};

/// Walks, and says what it saw.
///
/// # Errors
/// At the first step that goes differently than it should.
pub async fn check(stage: &mut Stage, secret: &Secret) -> anyhow::Result<()> {
    stage.ready().await?;
    let gateway = stage.gateway;
    let host = gateway.to_string();
    let ask = async |target: &str, host: &str, token: Option<&str>| {
        let request = Request::get(target, host);
        token.into_iter().fold(request, Request::token).send(gateway).await
    };
    let token = Some(stage.token.as_str());

    let served = ask("/v1/hello", &host, token).await?;
    expect(&served, 200, "a request with a token is served")?;
    ensure!(served.body == format!("hello {HOLDER}\n"), "the service knows who calls: {}", served.body);
    for (name, text) in [("header", &served.head), ("body", &served.body)] {
        ensure!(!text.contains(secret.token()), "the provider's secret is in the client's {name}");
    }
    let request_id = served.field("X-Request-Id").context("the answer names its request")?.to_owned();

    expect(&ask("/v1/hello", &host, None).await?, 401, "a request without a token is refused")?;
    expect(&ask("/admin", &host, token).await?, 403, "an address that the token does not cover is refused")?;
    expect(&ask("/v1/%2e%2e/admin", &host, token).await?, 400, "a way around the token's addresses is refused")?;

    let (service, url) = (stage.service.to_string(), format!("http://{}/v1/expensive", stage.service));
    expect(&ask(&url, &service, token).await?, 200, "the forward-proxy form is served")?;
    let other = ask("http://127.0.0.1:9/v1/hello", "127.0.0.1:9", token).await?;
    expect(&other, 403, "another origin in the forward-proxy form is refused")?;

    // 10 credits, less 1 and 3, leave 6: two more requests find the 5 that one may cost.
    for left in [6, 5] {
        expect(&ask("/v1/hello", &host, token).await?, 200, &format!("a request with {left} credits left is served"))?;
    }
    let exhausted = ask("/v1/hello", &host, token).await?;
    expect(&exhausted, 402, "a request that may cost more than is left is refused")?;

    let explained = explained(stage, &request_id).await?;
    ensure!(explained.contains("1, as the service reported"), "the charge is explained: {explained}");
    let sums: serde_json::Value = serde_json::from_str(&stage.tollgate(&["usage", "sum", "--json"])?)?;
    ensure!(
        number(&sums, "requests") == Some(4) && number(&sums, "charged") == Some(6),
        "four requests were charged 6 credits: {sums}"
    );
    let left = stage.tollgate(&["credits", "list"])?;
    ensure!(left.contains(&format!("  {}  ", CREDITS - 6)), "4 credits are left: {left}");
    say("the usage table explains what was charged")?;
    writeln!(std::io::stdout().lock(), "\n{}", stage.tollgate(&["usage", "list"])?)?;
    sign_in::check(gateway).await?;
    say("every step went as it should")
}

/// Says what went as it should.
pub(super) fn expect(answer: &Answer, status: u16, step: &str) -> anyhow::Result<()> {
    ensure!(
        answer.status == status,
        "{step}: expected {status}, got {}\n{}\n{}",
        answer.status,
        answer.head,
        answer.body
    );
    say(&format!("{status}  {step}"))
}

fn number(of: &serde_json::Value, member: &str) -> Option<u64> {
    of.get(member)?.as_u64()
}

/// Says something.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// Usage reaches the database a moment after the answer reaches the client.
async fn explained(stage: &Stage, request_id: &str) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        let sums = stage.tollgate(&["usage", "sum", "--json"])?;
        let all =
            serde_json::from_str::<serde_json::Value>(&sums).is_ok_and(|sums| number(&sums, "requests") == Some(4));
        match stage.tollgate(&["usage", "show", request_id]) {
            Ok(text) if all => return Ok(text),
            _ if begun.elapsed() < Duration::from_secs(10) => tokio::time::sleep(Duration::from_millis(50)).await,
            Ok(_) => anyhow::bail!("four requests should be in the database: {sums}"),
            Err(error) => return Err(error),
        }
    }
}
