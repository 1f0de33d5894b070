//! Logs: the program's own, by `tracing`, and the access log, one JSON line a request.
//!
//! Neither ever holds a token, a secret or a query string.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts the program's log on standard error, so that standard output is the access log alone.
///
/// Pingora logs through the `log` crate, which arrives here too. Its listener reports every failed handshake as an
/// error, which a scanner can cause at will, its pool every connection that another request was quicker to look at, and
/// its proxy logs what [`crate::proxy`] logs better: all three are silent.
///
/// # Errors
/// When a log was started before.
pub fn start(log: Log) -> anyhow::Result<()> {
    let level = log.level.as_str();
    let filter = format!(
        "{level},pingora_core=warn,pingora_core::services::listening=off,pingora_core::apps=off,pingora_core::connectors=off,pingora_proxy=off,sqlx=warn,hyper_util=info,reqwest=info,h2=info,rustls=info,jsonrpsee-client=warn,soketto=warn,subxt=info"
    );
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(filter)?).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => subscriber.json().try_init(),
        LogFormat::Text => subscriber.try_init(),
    };
    started.map_err(|error| anyhow::anyhow!(error)).context("starting the log")
}

/// The access log. Lines are collected in memory, a few buffers so that threads seldom meet, and written by a thread of
/// its own: a request never waits for standard output. What standard output does not take in time is dropped and counted.
pub struct AccessLog {
    buffers: Box<[Mutex<Lines>]>,
    /// Takes the place of a buffer while that is written. A new one would grow from nothing ten times a second.
    spare: Mutex<Vec<u8>>,
    next: AtomicUsize,
    dropped: AtomicU64,
}

/// What a thread has to say, and the second in which it said it last: many lines share one.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    second: Option<i64>,
    /// Date and time of that second, to the point after it.
    stamp: Vec<u8>,
}

const BUFFERS: usize = 16;
/// Ten thousand lines: what a thread can bring about between two flushes, with room to spare.
const BUFFER_LIMIT: usize = 4 << 20;
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

thread_local! {
    static BUFFER: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

impl AccessLog {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start() -> anyhow::Result<Arc<Self>> {
        let buffers = (0..BUFFERS).map(|_| Mutex::default()).collect();
        let log =
            Arc::new(Self { buffers, spare: Mutex::default(), next: AtomicUsize::new(0), dropped: AtomicU64::new(0) });
        let writer = Arc::clone(&log);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(FLUSH_INTERVAL);
                writer.flush();
            }
        })?;
        Ok(log)
    }

    /// Takes a line.
    pub fn append(&self, line: &Line<'_>) {
        let Some(buffer) = self.buffers.get(self.buffer_of_this_thread()) else { return };
        let mut buffer = buffer.lock();
        if buffer.bytes.len() > BUFFER_LIMIT {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            line.write_to(&mut buffer);
        }
    }

    /// Writes out what is there. Called once more when the program ends.
    pub fn flush(&self) {
        let mut lines = self.spare.lock();
        for buffer in &self.buffers {
            {
                let mut buffer = buffer.lock();
                if buffer.bytes.is_empty() {
                    continue;
                }
                std::mem::swap(&mut buffer.bytes, &mut *lines);
            }
            let mut out = std::io::stdout().lock();
            if out.write_all(&lines).and_then(|()| out.flush()).is_err() {
                let lost = lines.split(|byte| *byte == b'\n').count().saturating_sub(1);
                self.dropped.fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            drop(out);
            lines.clear();
        }
    }

    /// How many lines were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn buffer_of_this_thread(&self) -> usize {
        BUFFER.with(|cell| {
            if cell.get() == usize::MAX {
                cell.set(self.next.fetch_add(1, Ordering::Relaxed) % BUFFERS);
            }
            cell.get()
        })
    }
}

/// What is said about one request. Texts of the client are escaped: no byte of a URL can end the line or forge a field.
pub struct Line<'a> {
    /// When it arrived, in microseconds since the epoch.
    pub at_micros: i64,
    /// The request's id, which is its usage event's id too.
    pub request_id: &'a str,
    /// The listener it came in by.
    pub listener: &'a str,
    /// The route, or "-".
    pub route: &'a str,
    /// The client's address.
    pub client: Option<std::net::IpAddr>,
    /// The method.
    pub method: &'a str,
    /// The host it asked for.
    pub host: &'a str,
    /// The path in its normal form, or as sent if it has none; never the query.
    pub path: &'a [u8],
    /// The status sent; 0: none.
    pub status: u16,
    /// The status the upstream sent.
    pub upstream_status: Option<u16>,
    /// From the request's header to the end of the answer.
    pub duration: Duration,
    /// From the request's header to the decision.
    pub decision: Duration,
    /// Body bytes sent to the client.
    pub bytes_sent: usize,
    /// Body bytes received from the client.
    pub bytes_received: usize,
    /// How the identity was proven.
    pub proof: Option<&'static str>,
    /// The account.
    pub subject: Option<&'a str>,
    /// `permit`, `deny` or, where nobody had to decide, `open`.
    pub verdict: &'static str,
    /// Why it was refused or failed.
    pub reason: Option<&'a str>,
    /// What was charged.
    pub charged: Option<u64>,
}

impl Line<'_> {
    fn write_to(&self, lines: &mut Lines) {
        lines.bytes.extend_from_slice(br#"{"time":""#);
        lines.timestamp(self.at_micros);
        let out = &mut lines.bytes;
        plain(out, r#"","request_id":""#, self.request_id);
        text(out, r#"","listener":""#, self.listener.as_bytes());
        text(out, r#"","route":""#, self.route.as_bytes());
        if let Some(client) = self.client {
            plain(out, r#"","client":""#, "");
            address(out, client);
        }
        plain(out, r#"","method":""#, self.method);
        text(out, r#"","host":""#, self.host.as_bytes());
        text(out, r#"","path":""#, self.path);
        plain(out, r#"","decision":""#, self.verdict);
        if let Some(proof) = self.proof {
            plain(out, r#"","proof":""#, proof);
        }
        if let Some(subject) = self.subject {
            text(out, r#"","subject":""#, subject.as_bytes());
        }
        if let Some(reason) = self.reason {
            text(out, r#"","reason":""#, reason.as_bytes());
        }
        number(out, r#"","status":"#, u64::from(self.status));
        if let Some(status) = self.upstream_status {
            number(out, r#","upstream_status":"#, u64::from(status));
        }
        if let Some(charged) = self.charged {
            number(out, r#","charged":"#, charged);
        }
        number(out, r#","duration_us":"#, micros(self.duration));
        number(out, r#","decision_us":"#, micros(self.decision));
        number(out, r#","bytes_sent":"#, u64::try_from(self.bytes_sent).unwrap_or(u64::MAX));
        number(out, r#","bytes_received":"#, u64::try_from(self.bytes_received).unwrap_or(u64::MAX));
        out.extend_from_slice(b"}\n");
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Appends what stands before a value, and a value that needs no escapes: our own word, a token of HTTP.
fn plain(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn text(out: &mut Vec<u8>, before: &str, value: &[u8]) {
    out.extend_from_slice(before.as_bytes());
    escape(value, out);
}

fn number(out: &mut Vec<u8>, before: &str, value: u64) {
    out.extend_from_slice(before.as_bytes());
    decimal(out, value, 1);
}

/// Appends a number, with as many digits at least. By hand: formatters take most of the time that a line takes.
fn decimal(out: &mut Vec<u8>, value: u64, least: usize) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut used) = (value, 0);
    for digit in digits.iter_mut().rev() {
        if rest == 0 && used >= least {
            break;
        }
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Appends an address.
pub fn address(out: &mut Vec<u8>, address: std::net::IpAddr) {
    match address {
        std::net::IpAddr::V4(address) => {
            for (index, byte) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                decimal(out, u64::from(byte), 1);
            }
        }
        // Writing to memory cannot fail.
        std::net::IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

impl Lines {
    /// RFC 3339 with microseconds, UTC.
    fn timestamp(&mut self, at_micros: i64) {
        let (second, micros) = (at_micros.div_euclid(1_000_000), at_micros.rem_euclid(1_000_000));
        if self.second != Some(second) {
            self.stamp.clear();
            date_and_time(second, &mut self.stamp);
            self.second = Some(second);
        }
        self.bytes.extend_from_slice(&self.stamp);
        decimal(&mut self.bytes, u64::try_from(micros).unwrap_or(0), 6);
        self.bytes.push(b'Z');
    }
}

fn date_and_time(second: i64, out: &mut Vec<u8>) {
    let (days, seconds) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (seconds / 3600, 2, b':'),
        (seconds / 60 % 60, 2, b':'),
        (seconds % 60, 2, b'.'),
    ];
    for (value, digits, after) in parts {
        decimal(out, u64::try_from(value).unwrap_or(0), digits);
        out.push(after);
    }
}

/// The proleptic Gregorian date of a day number since the epoch.
fn civil(days: i64) -> (i64, i64, i64) {
    time::Date::from_julian_day(i32::try_from(days.saturating_add(2_440_588)).unwrap_or(0))
        .map_or((0, 1, 1), |date| (i64::from(date.year()), i64::from(u8::from(date.month())), i64::from(date.day())))
}

/// JSON string escaping of any bytes: what is not UTF-8 becomes U+FFFD.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    // All bytes are looked at, so that many can be at once.
    if value.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'!' | b'#'..=b'[' | b']'..=b'~')) {
        out.extend_from_slice(value);
        return;
    }
    for character in String::from_utf8_lossy(value).chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            // U+2028 and U+2029 end a line for some readers.
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &[u8]) -> String {
        let line = Line {
            at_micros: 1_795_420_041_000_001,
            request_id: "r",
            listener: "l",
            route: "-",
            client: Some([10, 0, 255, 1].into()),
            method: "GET",
            host: "h",
            path,
            status: 200,
            upstream_status: Some(201),
            duration: Duration::from_micros(7),
            decision: Duration::ZERO,
            bytes_sent: 1,
            bytes_received: 0,
            proof: None,
            subject: Some("0x\"1"),
            verdict: "permit",
            reason: None,
            charged: Some(3),
        };
        let mut lines = Lines::default();
        line.write_to(&mut lines);
        String::from_utf8(lines.bytes).unwrap()
    }

    #[test]
    fn a_line_is_one_json_object_whatever_the_path_holds() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let text = line(&every_byte);
        assert_eq!(text.matches('\n').count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["time"], "2026-11-23T07:47:21.000001Z");
        assert_eq!(parsed["subject"], "0x\"1");
        assert_eq!(parsed["upstream_status"], 201);
        assert_eq!(parsed["client"], "10.0.255.1");
        assert_eq!(parsed["bytes_received"], 0);
        assert_eq!(parsed["duration_us"], 7);
        assert!(parsed["path"].as_str().unwrap().contains("!\"#"), "{}", parsed["path"]);
    }

    #[test]
    fn lines_of_one_second_and_of_the_next_have_their_own_times() {
        let mut lines = Lines::default();
        for at_micros in [1_795_420_041_999_999, 1_795_420_041_000_001, 1_795_420_042_000_000, -1] {
            lines.timestamp(at_micros);
        }
        let times = "2026-11-23T07:47:21.999999Z2026-11-23T07:47:21.000001Z2026-11-23T07:47:22.000000Z1969-12-31T23:59:59.999999Z";
        assert_eq!(lines.bytes, times.as_bytes());
    }

    #[test]
    fn ordinary_paths_stay_readable() {
        assert!(line(b"/a%20b").contains(r#""path":"/a%20b","#));
    }
}
