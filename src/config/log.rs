//! `[log]`: what is written about it, to standard error.

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
