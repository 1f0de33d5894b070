//! `[nevermined]`: the keys of Nevermined access tokens, and the limits on them.

use url::Url;

use super::{
    context::{Context, Found, Recorded, Spot},
    reader::Section,
    value::{BaseUrl, Size},
};
use crate::model::{
    key::{ContentKey, Weakness, weakness_of_phrase},
    secret::Secret,
};

/// How Nevermined access tokens are opened, and what a backend endpoint is given.
#[derive(Debug)]
pub struct Nevermined {
    /// The current key and, during a rotation, the previous one: one or two, the current one first. From `key`,
    /// `key_file`, `key_phrase`, `key_phrase_file`, `JWT_SECRET_PHRASE` or `TOLLGATE_JWT_KEY`, and the same with
    /// `previous_`.
    pub keys: Vec<ContentKey>,
    /// `backend` or `BACKEND_API_URI`: endpoints of this URL's origin are given `proxy_auth_token` instead of what the
    /// access token carries (nevermined.md section 2.6). Default: none.
    pub backend: Option<Url>,
    /// `proxy_auth_token`, `proxy_auth_token_file` or `PROXY_AUTH_TOKEN`: the token for the backend's endpoints.
    pub proxy_auth_token: Option<Secret>,
    /// `token_cache_entries`: opened tokens that are remembered. Default 100 000; 0 remembers none.
    pub token_cache_entries: usize,
    /// `max_token_bytes`: a longer token is refused unopened. Default 16 KiB.
    pub max_token_bytes: usize,
}

/// The backend's URL, by the name that the replaced system used and by the one its other half would have.
pub(super) const BACKEND: [&str; 2] = ["BACKEND_API_URI", "BACKEND_API_URL"];

/// What the replaced system took a variable for that was not set (nevermined.md section 11).
const DEFAULT_PHRASE: &str = "12345678901234567890123456789012";
const DEFAULT_BACKEND: &str = "http://localhost:3001";
const DEFAULT_PROXY_TOKEN: &str = "changeme";

/// The key in `conf/tollgate.toml`.
const EXAMPLE_KEY: &str = "REPLACE/ME/this/is/a/development/key/only/8=";

/// A key that has not been judged yet.
struct Candidate {
    key: ContentKey,
    at: Spot,
    /// Why it can be guessed.
    weakness: Option<Weakness>,
    /// Nobody gave it; it is the default of the replaced system.
    assumed: bool,
}

impl Nevermined {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let context = section.context;
        let allow_weak = section.optional("allow_weak_secret", &["TOLLGATE_ALLOW_WEAK_SECRET"]);
        let allow_weak = allow_weak.is_some_and(|found| found.value);
        let current = read_key(section, "", "TOLLGATE_JWT_KEY", "JWT_SECRET_PHRASE");
        let previous = read_key(section, "previous_", "TOLLGATE_JWT_KEY_PREVIOUS", "TOLLGATE_JWT_PHRASE_PREVIOUS");
        let backend = section.optional::<BaseUrl>("backend", &BACKEND);
        let token = section.secret("proxy_auth_token", Some("PROXY_AUTH_TOKEN"));
        let token_cache_entries = section.within("token_cache_entries", 0..=100_000_000, 100_000);
        let max_token_bytes = section.or("max_token_bytes", Size(16 << 10)).0;
        if !(256..=1 << 20).contains(&max_token_bytes) {
            section.mistake("max_token_bytes", "must be from 256 bytes to 1MiB");
        }
        let (Ok(current), Ok(previous), Ok(token)) = (current, previous, token) else { return None };
        let current = match current {
            Some(key) => key,
            None if context.drop_in() => default_key()?,
            None => {
                if section.present() || previous.is_some() {
                    let message = "there is no key: give `key_file`, `key`, `key_phrase_file` or `key_phrase`";
                    section.mistake("", message);
                }
                return None;
            }
        };
        let keys = judge(context, current, previous, allow_weak);
        let (backend, proxy_auth_token) = backend_and_token(section, backend.map(|found| found.value.0), token);
        let max_token_bytes = usize::try_from(max_token_bytes).unwrap_or(usize::MAX);
        Some(Self { keys, backend, proxy_auth_token, token_cache_entries, max_token_bytes })
    }
}

/// A key in one of its four forms, or two of them as variables; the variables override all four.
fn read_key(
    section: &Section<'_>,
    prefix: &str,
    key_variable: &str,
    phrase_variable: &str,
) -> Result<Option<Candidate>, Recorded> {
    let context = section.context;
    let (key_name, phrase_name) = (format!("{prefix}key"), format!("{prefix}key_phrase"));
    section.know_secret(&key_name);
    section.know_secret(&phrase_name);
    let mut given = (context.secret_variable(key_variable)?, context.secret_variable(phrase_variable)?);
    if let (None, None) = given {
        given = (section.secret(&key_name, None)?, section.secret(&phrase_name, None)?);
    }
    let (parsed, weakness, at) = match given {
        (None, None) => return Ok(None),
        (Some(_), Some(phrase)) => {
            context.mistake(&phrase.at, "there is also a base64 key: give one of the two");
            return Err(Recorded);
        }
        (Some(key), None) => {
            let parsed = ContentKey::from_base64(key.value.expose());
            let weakness = parsed.as_ref().ok().and_then(ContentKey::weakness);
            (parsed, weakness, key.at)
        }
        (None, Some(phrase)) => {
            let text = phrase.value.expose();
            (ContentKey::from_phrase(text), weakness_of_phrase(text), phrase.at)
        }
    };
    match parsed {
        Ok(key) => Ok(Some(Candidate { key, at, weakness, assumed: false })),
        Err(problem) => {
            context.mistake(&at, problem.to_string());
            Err(Recorded)
        }
    }
}

/// What the replaced system did without `JWT_SECRET_PHRASE`: use the phrase that everybody knows.
fn default_key() -> Option<Candidate> {
    let key = ContentKey::from_phrase(DEFAULT_PHRASE).ok()?;
    let at = Spot::of_variable("JWT_SECRET_PHRASE");
    Some(Candidate { key, at, weakness: weakness_of_phrase(DEFAULT_PHRASE), assumed: true })
}

/// Refuses or warns of keys that can be guessed.
fn judge(context: &Context<'_>, current: Candidate, previous: Option<Candidate>, allow_weak: bool) -> Vec<ContentKey> {
    let mut keys = Vec::new();
    for Candidate { key, at, weakness, assumed } in std::iter::once(current).chain(previous) {
        if let Some(weakness) = weakness {
            let assumed = if assumed { "not set, which means the default phrase; " } else { "" };
            if allow_weak {
                context.warn(format!("{at}: A WEAK SECRET IS ALLOWED: {assumed}{weakness}"));
            } else {
                context.mistake(&at, format!("{assumed}{weakness}"));
            }
        }
        if ContentKey::from_base64(EXAMPLE_KEY).is_ok_and(|example| example == key) {
            context
                .warn(format!("{at}: this is the key of the example configuration, which everybody knows: replace it"));
        }
        if keys.contains(&key) {
            context.mistake(&at, "the previous key is the current one: leave it out");
        }
        keys.push(key);
    }
    keys
}

/// The backend and the token for its endpoints, which make sense together only. In drop-in mode one that is missing
/// is what the replaced system took it for.
fn backend_and_token(
    section: &Section<'_>,
    backend: Option<Url>,
    token: Option<Found<Secret>>,
) -> (Option<Url>, Option<Secret>) {
    let context = section.context;
    match (backend, token.map(|found| found.value)) {
        (Some(backend), None) if context.drop_in() => {
            let warning = "PROXY_AUTH_TOKEN is not set: endpoints of the backend are given the replaced system's \
                           default, which the backend should not accept";
            context.warn(warning.into());
            (Some(backend), Some(Secret::new(DEFAULT_PROXY_TOKEN.into())))
        }
        (None, Some(token)) if context.drop_in() => {
            context.warn(format!("BACKEND_API_URI is not set: the backend is taken to be {DEFAULT_BACKEND}"));
            (Url::parse(DEFAULT_BACKEND).ok(), Some(token))
        }
        (Some(_), None) if section.has("backend") => {
            section.mistake("proxy_auth_token", "is missing: without it, `backend` has no effect");
            (None, None)
        }
        // BACKEND_API_URI may be meant for reports alone.
        (Some(_), None) => (None, None),
        (None, Some(token)) => {
            section.mistake("backend", "is missing: without it, `proxy_auth_token` has no effect");
            (None, Some(token))
        }
        pair => pair,
    }
}
