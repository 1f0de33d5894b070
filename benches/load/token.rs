//! Whether a server's tokens are what they seem: a check that shares nothing with the server's own.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use josekit::jwk::{Jwk, JwkSet};
use josekit::jws::{ES256, JwsVerifier, RS256};
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use crate::PATIENCE;
use crate::target::{self, Target};

/// A published key set (RFC 7517 section 5), by the names of its keys.
pub struct KeySet(HashMap<String, Box<dyn JwsVerifier>>);

impl KeySet {
    pub async fn read(url: &Url) -> anyhow::Result<Self> {
        let target = Target::new(url, "1.3", false, None).await?;
        let mut answer = Vec::new();
        let exchange = async {
            let mut connection = target.connect().await?;
            target::ask(&mut connection, &target.request("", None), &mut answer).await.map(JwkSet::from_bytes)
        };
        let set = timeout(PATIENCE, exchange).await.context("no key set in time")???;
        set.keys().into_iter().map(verifier).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Fails unless one of the keys has signed the token.
    pub fn verify(&self, token: &str) -> anyhow::Result<()> {
        let (message, signature) = token.rsplit_once('.').context("a token has no signature")?;
        let header = message.split('.').next().unwrap_or_default();
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        let kid = header.get("kid").and_then(Value::as_str).context("a token does not name its key")?;
        let verifier = self.0.get(kid).with_context(|| format!("there is no key {kid}"))?;
        let algorithm = header.get("alg").and_then(Value::as_str);
        ensure!(algorithm == Some(verifier.algorithm().name()), "a token is not signed as its key signs: {header}");
        Ok(verifier.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?)?)
    }
}

fn verifier(key: &Jwk) -> anyhow::Result<(String, Box<dyn JwsVerifier>)> {
    let kid = key.key_id().context("a key has no name")?.to_owned();
    let verifier: Box<dyn JwsVerifier> = match key.algorithm() {
        Some("ES256") => Box::new(ES256.verifier_from_jwk(key)?),
        _ => Box::new(RS256.verifier_from_jwk(key)?),
    };
    Ok((kid, verifier))
}
