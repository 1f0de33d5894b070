//! `tollgate import`: takes over what a replaced system knows. It may be repeated and interrupted: what is here already
//! stays, and what was changed or used here is never undone.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{on_runtime, open, table};
use crate::{
    config::{Config, DatabaseTarget, OAuth},
    model::{client::Client, clock, secret::Secret},
    oauth::{sign_in::after, takeover},
    store::{
        Store,
        auth_gateway::{AuthGateway, PAGE},
    },
};

/// From what.
#[derive(Subcommand)]
pub enum Command {
    /// Clients, refresh tokens and events of the auth gateway. Its database is only read.
    AuthGateway(Source),
}

/// Where from.
#[derive(Args)]
pub struct Source {
    /// Its database. Other people can read command lines: leave the password to PGPASSWORD or ~/.pgpass. Without this, the
    /// configured database, if it is Postgres: the old tables are beside ours then.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
///
/// # Errors
/// When one of the databases cannot be used. What was taken over until then stays.
pub fn run(command: &Command, config: &Config) -> anyhow::Result<()> {
    let Command::AuthGateway(source) = command;
    let Some(oauth) = &config.oauth else {
        bail!("no authorization server is configured (a section [oauth], or the auth gateway's environment)");
    };
    let url = match (&source.from, &config.database.target) {
        (Some(url), _) => Secret::new(url.clone()),
        (None, DatabaseTarget::Postgres(url)) => url.clone(),
        (None, DatabaseTarget::Sqlite(_)) => bail!("--from: say which database it is"),
    };
    let text = on_runtime(async {
        let target = target(config, source.dry_run).await?;
        let from = AuthGateway::open(&url, config.database.timeout).await.context("the auth gateway's database")?;
        let mut import = Import {
            from,
            target,
            write: !source.dry_run,
            settings: oauth,
            now_micros: clock::now_micros(),
            clients: BTreeMap::new(),
            report: Report::default(),
        };
        import.clients().await.context("clients")?;
        import.refresh_tokens().await.context("refresh tokens")?;
        import.take_back().await.context("refresh tokens")?;
        import.events().await.context("events")?;
        let Import { from, target, report, .. } = import;
        let text = report.text(&from, source.dry_run);
        from.close().await;
        if let Some(store) = target {
            store.close().await;
        }
        Ok(text)
    })?;
    write!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// The store. None: it is not made yet, and a dry run does not make it.
async fn target(config: &Config, dry_run: bool) -> anyhow::Result<Option<Store>> {
    if dry_run && matches!(&config.database.target, DatabaseTarget::Sqlite(path) if !path.exists()) {
        return Ok(None);
    }
    let store = open(config)?;
    if !dry_run && config.database.migrate_at_start {
        store.migrate().await.context("bringing our own schema up to date")?;
    }
    match store.can_take_over().await.context("looking at our own schema")? {
        true => Ok(Some(store)),
        false if dry_run => Ok(None),
        false => bail!("our own schema is not up to date: run `tollgate migrate` first"),
    }
}

struct Import<'c> {
    from: AuthGateway,
    target: Option<Store>,
    write: bool,
    settings: &'c OAuth,
    now_micros: i64,
    /// Clients here, as they are or would be after the import: whether each is active.
    clients: BTreeMap<String, bool>,
    report: Report,
}

#[derive(Default)]
struct Report {
    clients: Line,
    tokens: Line,
    events: Line,
    remarks: Vec<String>,
}

/// What became of rows of one kind.
#[derive(Default)]
struct Line {
    taken_over: u64,
    updated: u64,
    here: u64,
    taken_back: u64,
    left_out: BTreeMap<&'static str, u64>,
}

impl Import<'_> {
    /// The store, if there is one and it is to be written.
    fn written(&self) -> Option<&Store> {
        self.target.as_ref().filter(|_| self.write)
    }

    async fn clients(&mut self) -> anyhow::Result<()> {
        if let Some(store) = &self.target {
            self.clients.extend(store.clients().await?.into_iter().map(|client| (client.id, client.active)));
        }
        let mut after = None;
        loop {
            let page = self.from.clients(after.as_deref()).await?;
            after = page.last().map(|row| row.client_id.clone());
            let last = is_last(page.len());
            for row in page {
                let id = row.client_id.clone();
                match takeover::client(row, self.settings.production) {
                    Ok((client, remarks)) => self.client(&client, remarks).await?,
                    Err(why) => {
                        self.report.clients.leave_out(why);
                        self.report.remarks.push(format!("client {id:?} is left out: {why}"));
                    }
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    async fn client(&mut self, client: &Client, remarks: Vec<String>) -> anyhow::Result<()> {
        let known = match &self.target {
            Some(store) => store.client(&client.id).await?,
            None => None,
        };
        match (&known, &self.target) {
            (Some(known), _) if takeover::same_client(known, client) => {
                self.report.clients.here += 1;
                return Ok(());
            }
            (Some(_), Some(store)) if !store.is_client_untouched(&client.id).await? => {
                self.report.kept(client);
                return Ok(());
            }
            _ => {}
        }
        if let Some(store) = self.written() {
            if !store.take_over_client(client).await? {
                // Somebody has changed it here this very moment.
                self.report.kept(client);
                return Ok(());
            }
            if known.is_some() && !client.active {
                store.revoke_client(&client.id, clock::now_micros()).await?;
            }
        }
        *(if known.is_some() { &mut self.report.clients.updated } else { &mut self.report.clients.taken_over }) += 1;
        self.report.remarks.extend(remarks.into_iter().map(|remark| format!("client {:?}: {remark}", client.id)));
        self.clients.insert(client.id.clone(), client.active);
        Ok(())
    }

    async fn refresh_tokens(&mut self) -> anyhow::Result<()> {
        let total = self.settings.lifetimes.refresh_token_total;
        let mut after = None;
        loop {
            let page = self.from.refresh_tokens(after).await?;
            after = page.last().map(|row| row.jti);
            let last = is_last(page.len());
            let mut tokens = Vec::new();
            for row in page {
                match takeover::refresh_token(row, &self.clients, total, self.now_micros) {
                    Ok(token) => tokens.push(token),
                    Err(why) => self.report.tokens.leave_out(why),
                }
            }
            if let Some(store) = &self.target {
                let known = store.known_grants(&tokens.iter().map(|token| token.grant.id).collect::<Vec<_>>()).await?;
                tokens.retain(|token| !known.contains(&token.grant.id));
                self.report.tokens.here += count(known.len());
            }
            self.report.tokens.taken_over += match self.written() {
                Some(store) => store.take_over_refresh_tokens(&tokens).await?,
                None => count(tokens.len()),
            };
            if last {
                return Ok(());
            }
        }
    }

    /// What an earlier import took over, nobody has used here, and is of no use there any more: it was used or revoked there.
    async fn take_back(&mut self) -> anyhow::Result<()> {
        let Some(store) = &self.target else { return Ok(()) };
        let mut after = None;
        loop {
            let mut page = store.untouched_grants(after, self.now_micros, PAGE).await?;
            after = page.last().copied();
            let last = is_last(page.len());
            let good = self.from.good_refresh_tokens(&page).await?;
            page.retain(|id: &Uuid| !good.contains(id));
            self.report.tokens.taken_back += match self.written() {
                Some(store) => store.revoke_untouched_grants(&page, clock::now_micros()).await?,
                None => count(page.len()),
            };
            if last {
                return Ok(());
            }
        }
    }

    /// Events that would be kept here: older ones were deleted here, or would be at once.
    async fn events(&mut self) -> anyhow::Result<()> {
        if !self.settings.events.enabled {
            return Ok(());
        }
        let since = self.now_micros.saturating_sub(after(0, self.settings.events.retention));
        let mut after = None;
        loop {
            let page = self.from.events(since, after).await?;
            after = page.last().map(|row| row.id);
            let last = is_last(page.len());
            let mut events = Vec::new();
            for row in page {
                match takeover::event(row, &self.clients) {
                    Ok(event) => events.push(event),
                    Err(why) => self.report.events.leave_out(why),
                }
            }
            if let Some(store) = &self.target {
                let known = store.known_oauth_events(&events.iter().map(|event| event.id).collect::<Vec<_>>()).await?;
                events.retain(|event| !known.contains(&event.id));
                self.report.events.here += count(known.len());
            }
            if let Some(store) = self.written() {
                store.append_oauth_events(&events).await?;
            }
            self.report.events.taken_over += count(events.len());
            if last {
                return Ok(());
            }
        }
    }
}

impl Line {
    fn leave_out(&mut self, why: &'static str) {
        *self.left_out.entry(why).or_default() += 1;
    }
}

impl Report {
    fn kept(&mut self, client: &Client) {
        self.clients.here += 1;
        self.remarks.push(format!("client {:?} stays as it is here: it was changed or registered here", client.id));
    }

    fn text(&self, from: &AuthGateway, dry_run: bool) -> String {
        let lines = [("clients", &self.clients), ("refresh tokens", &self.tokens), ("events", &self.events)];
        let row = |(name, line): &(&str, &Line)| {
            let left_out: u64 = line.left_out.values().sum();
            let numbers = [line.taken_over, line.updated, line.here, line.taken_back, left_out];
            std::iter::once((*name).to_owned()).chain(numbers.iter().map(u64::to_string)).collect()
        };
        let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
        let mut text = format!("From {} (migrations up to {:03}):\n\n", from.place(), from.migrations());
        text.push_str(&table(&["", "TAKEN OVER", "UPDATED", "HERE ALREADY", "TAKEN BACK", "LEFT OUT"], &rows));
        for (name, line) in lines {
            for (why, rows) in &line.left_out {
                text.extend(["\n", name, " left out: ", &rows.to_string(), " ", why]);
            }
        }
        for remark in &self.remarks {
            text.extend(["\n", remark]);
        }
        text.push('\n');
        if dry_run {
            text.push_str("\nNothing was done: this was a dry run.\n");
        }
        text
    }
}

/// Whether a page is the last one.
fn is_last(rows: usize) -> bool {
    rows < usize::try_from(PAGE).unwrap_or(usize::MAX)
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
