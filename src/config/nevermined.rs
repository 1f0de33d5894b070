//! `[nevermined]`: the keys of Nevermined access tokens, and the limits on them.

use url::Url;

use crate::model::{key::ContentKey, secret::Secret};

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
