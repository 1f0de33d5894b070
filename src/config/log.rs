//! `[log]`: what is written about it, to standard error.

use super::{
    reader::Section,
    value::{Parse, Raw, word},
};

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// `level` or `TOLLGATE_LOG`; `VERBOSE=true` is `debug`. Default `info`.
    pub level: LogLevel,
    /// `access`: one line per request. Default true.
    pub access: bool,
    /// `format`: `json` (the default) or `text`, for people.
    pub format: LogFormat,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Somebody should act.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What explains a decision.
    Debug,
    /// Everything.
    Trace,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Words.
    Text,
}

impl LogLevel {
    /// The word in the configuration, which `tracing` uses too.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Log {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let context = section.context;
        let written = section.or("level", LogLevel::Info);
        let verbose = context.variable("VERBOSE").is_some_and(|found| found.value == "true");
        let named = context.parsed_variable(&["TOLLGATE_LOG"]).ok().flatten().map(|found| found.value);
        Self {
            level: named.unwrap_or(if verbose { LogLevel::Debug } else { written }),
            access: section.or("access", true),
            format: section.or("format", LogFormat::Json),
        }
    }
}

impl Parse for LogLevel {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let levels = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        word(raw, &levels.map(|level| (level.as_str(), level)))
    }
}

impl Parse for LogFormat {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("json", Self::Json), ("text", Self::Text)])
    }
}
