//! What a client asks: always the same, or what follows from the last answer.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::Arguments;
use crate::target::Target;

pub struct Question {
    fields: String,
    form: Option<String>,
    follows: Follows,
}

enum Follows {
    /// The same again. The answer must have this in it.
    Same { expect: Option<String>, request: Option<String> },
    /// The refresh token that the answer gave.
    Refresh(Box<Link>),
}

/// A link of a chain of refresh tokens: which client's it is, and what was issued last.
struct Link {
    number: usize,
    refresh_token: String,
    issued: Vec<String>,
}

/// What a token endpoint answers (RFC 6749 section 5.1).
#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the words of the RFC")]
struct Issued<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow)]
    id_token: Cow<'a, str>,
    #[serde(borrow)]
    refresh_token: Cow<'a, str>,
}

impl Question {
    pub fn always(arguments: &Arguments) -> Self {
        Self::new(arguments, Follows::Same { expect: arguments.expect.clone(), request: None })
    }

    fn new(arguments: &Arguments, follows: Follows) -> Self {
        let fields = arguments.headers.iter().flat_map(|field| [field.as_str(), "\r\n"]).collect();
        Self { fields, form: arguments.form.clone(), follows }
    }

    pub fn request(&mut self, target: &Target) -> Cow<'_, str> {
        match &mut self.follows {
            Follows::Same { request, .. } => {
                let request = request.get_or_insert_with(|| target.request(&self.fields, self.form.as_deref()));
                Cow::Borrowed(request)
            }
            Follows::Refresh(link) => {
                let form = format!("{}&refresh_token={}", self.form.as_deref().unwrap_or_default(), link.refresh_token);
                Cow::Owned(target.request(&self.fields, Some(&form)))
            }
        }
    }

    pub fn answered(&mut self, body: &[u8]) -> anyhow::Result<()> {
        match &mut self.follows {
            Follows::Same { expect, .. } => {
                let Some(expect) = expect else { return Ok(()) };
                let text = String::from_utf8_lossy(body);
                ensure!(text.contains(&**expect), "{expect} is not in the answer {text}");
            }
            Follows::Refresh(link) => {
                let issued: Issued = serde_json::from_slice(body).context("these are no tokens")?;
                ensure!(issued.refresh_token != link.refresh_token, "the refresh token was not exchanged");
                link.refresh_token = issued.refresh_token.into_owned();
                link.issued = vec![issued.access_token.into_owned(), issued.id_token.into_owned()];
            }
        }
        Ok(())
    }

    /// The signed tokens of the last answer.
    pub fn tokens(&self) -> &[String] {
        match &self.follows {
            Follows::Same { .. } => &[],
            Follows::Refresh(link) => &link.issued,
        }
    }
}

/// A file of refresh tokens.
pub struct Chains {
    path: PathBuf,
    tokens: Vec<String>,
}

impl Chains {
    pub fn read(path: &Path, clients: usize) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let tokens: Vec<_> = text.lines().map(str::to_owned).collect();
        ensure!(tokens.len() >= clients, "{} has {} tokens for {clients} clients", path.display(), tokens.len());
        Ok(Self { path: path.to_owned(), tokens })
    }

    pub fn question(&self, arguments: &Arguments, number: usize) -> anyhow::Result<Question> {
        let refresh_token = self.tokens.get(number).context("there is no refresh token for this client")?.clone();
        let link = Link { number, refresh_token, issued: Vec::new() };
        Ok(Question::new(arguments, Follows::Refresh(Box::new(link))))
    }

    /// For the next run.
    pub fn write(mut self, ended: &[Question]) -> anyhow::Result<()> {
        for question in ended {
            if let Follows::Refresh(link) = &question.follows
                && let Some(token) = self.tokens.get_mut(link.number)
            {
                token.clone_from(&link.refresh_token);
            }
        }
        std::fs::write(&self.path, self.tokens.join("\n")).with_context(|| format!("writing {}", self.path.display()))
    }
}
