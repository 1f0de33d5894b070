//! What the operator wrote wrong.

use std::{fmt, path::PathBuf};

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Debug)]
pub struct ConfigError {
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

/// One mistake. Its text never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file; none if it was not written in one.
    pub file: Option<PathBuf>,
    /// The line in the file, counted from 1; 0 if it is not about one.
    pub line: usize,
    /// The dotted key (`route[2].upstream`), or the variable or flag (`environment: SERVER_PORT`).
    pub key: String,
    /// What is wrong and, where it is not obvious, what to do.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
