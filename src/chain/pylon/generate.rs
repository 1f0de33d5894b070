//! A new key for the wallet that Pylon has (nexus.md section 4.4).
//!
//! Pylon makes the key, publishes it, and only then answers, with the private half. If the answer is lost, so is the key:
//! whoever asks has made sure before that he can keep it.

use std::{fmt, time::Duration};

use reqwest::StatusCode;
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Problem, Pylon, read};
use crate::{
    chain::{
        fault::{Failed, Fault},
        http::{self, Object},
    },
    model::{
        address::hex_decode,
        neuron::{NetUid, PublishedKey},
    },
};

/// Pylon gives up after this, whatever it is asked.
pub const LONGEST: Duration = Duration::from_mins(5);

/// A key pair is some 250 bytes.
const ANSWER_LIMIT: usize = 64 << 10;
/// So much of an error text is repeated.
const DETAIL_CHARACTERS: usize = 200;

/// A key that Pylon has made and says it has published.
pub struct MadeKey {
    /// What the Ed25519 key is derived from.
    pub seed: Zeroizing<[u8; 32]>,
    /// The public half that Pylon says belongs to it. To be compared.
    pub unverified_public: PublishedKey,
}

impl fmt::Debug for MadeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeKey").field("unverified_public", &self.unverified_public).finish_non_exhaustive()
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotMade {
    /// Pylon said no: nothing has been published.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows: a key whose private half is lost may have been published.
    #[error("{0}")]
    Unknown(String),
}

impl Pylon {
    /// Makes sure that the identity belongs to this subnet, where Pylon can say.
    ///
    /// # Errors
    /// When it belongs to another, or Pylon cannot be asked.
    pub async fn belongs_to(&self, netuid: NetUid) -> Result<(), Failed> {
        self.verify(netuid).await
    }

    /// Has a new Ed25519 key made and published. The key before it counts no more.
    ///
    /// # Errors
    /// See [`NotMade`].
    pub async fn make_key(&self, netuid: NetUid, patience: Duration) -> Result<MadeKey, NotMade> {
        let url = self.identity_path(netuid, &["certificates", "self"]).map_err(|failed| refusal(&failed))?;
        let patience = patience.min(LONGEST);
        let request = self.0.client.post(url).json(&serde_json::json!({ "algorithm": 1 }));
        let request = request.header("accept", "application/json").header("x-pylon-timeout", patience.as_secs());
        let request = self.0.bearer.iter().fold(request, |request, bearer| request.header("authorization", bearer));
        // A little more than Pylon has, so that it is Pylon who says what became of it.
        let sent = request.timeout(patience.saturating_add(Duration::from_secs(10))).send().await;
        let response =
            sent.map_err(|error| if error.is_connect() { refusal(&http::failed(error)) } else { unknown(error) })?;
        let status = response.status();
        let body = http::read(response, ANSWER_LIMIT).await;
        let body =
            Zeroizing::new(body.map_err(|failed| NotMade::Unknown(format!("Pylon's answer broke off: {failed}")))?);
        if status == StatusCode::CREATED {
            return made(&body);
        }
        let Failed { detail, .. } = super::refused(status);
        let text = format!("{detail}{}", said(&body));
        // What it refuses to do, and what it cannot do because the wallet is not registered.
        let refused = status.is_client_error() || status.is_redirection() || status == StatusCode::BAD_GATEWAY;
        Err(if refused { NotMade::Refused(text) } else { NotMade::Unknown(text) })
    }
}

#[derive(Deserialize)]
struct Pair {
    algorithm: u64,
    public_key: String,
    private_key: String,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

/// Reads the answer. None of it is quoted.
fn made(body: &[u8]) -> Result<MadeKey, NotMade> {
    let unreadable =
        |what: &str| NotMade::Unknown(format!("Pylon has made a key, and its answer cannot be used: {what}"));
    let Ok(Object(pair)) = serde_json::from_slice::<Object<Pair>>(body) else {
        return Err(unreadable("it is not the JSON of a key pair"));
    };
    let seed =
        seed(&pair.private_key).ok_or_else(|| unreadable("the private key is not the hex form of 32 or 64 bytes"))?;
    let digits = pair.public_key.trim();
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let mut public = vec![0; digits.len() / 2];
    hex_decode(digits, &mut public).ok_or_else(|| unreadable("the public key is not hexadecimal"))?;
    let half = pair.private_key.trim().trim_start_matches("0x").get(64..).unwrap_or_default();
    if !half.is_empty() && !half.eq_ignore_ascii_case(digits) {
        return Err(unreadable("the two halves of its key do not belong together"));
    }
    Ok(MadeKey { seed, unverified_public: PublishedKey::new(pair.algorithm, &public) })
}

/// 32 bytes are the seed; 64 are the seed and the public half, as Go has it.
fn seed(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.trim();
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    if !matches!(digits.len(), 64 | 128) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut seed = Zeroizing::new([0; 32]);
    hex_decode(digits.get(..64)?, &mut *seed)?;
    Some(seed)
}

/// What Pylon says went wrong, as far as it can be shown.
fn said(body: &[u8]) -> String {
    let Ok(Object(Problem { detail })) = read::<Object<Problem>>(body) else { return String::new() };
    let shown: String = detail.chars().take(DETAIL_CHARACTERS).collect();
    format!(": {shown:?}")
}

fn refusal(failed: &Failed) -> NotMade {
    NotMade::Refused(format!("Pylon cannot be asked: {failed}"))
}

fn unknown(error: reqwest::Error) -> NotMade {
    let Failed { fault, detail } = http::failed(error);
    let what = if fault == Fault::Timeout { "Pylon has not answered in time" } else { "the connection to Pylon broke" };
    NotMade::Unknown(format!("{what}: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const PUBLIC: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";

    fn answer(private: &str, public: &str) -> Vec<u8> {
        format!(r#"{{"algorithm":1,"public_key":"{public}","private_key":"{private}","more":0}}"#).into_bytes()
    }

    #[test]
    fn each_form_of_a_private_key_is_read() {
        for private in [SEED, &format!(" 0x{SEED}\\n"), &format!("{SEED}{PUBLIC}"), &SEED.to_uppercase()] {
            let made = made(&answer(private, &format!("0x{PUBLIC}"))).unwrap();
            assert_eq!(made.seed[..3], [0, 1, 2]);
            assert!(matches!(made.unverified_public, PublishedKey::Ed25519(key) if key[..2] == [3, 0xa1]));
            assert!(!format!("{made:?}").contains("seed"));
        }
    }

    #[test]
    fn other_answers_may_have_published_a_key_and_are_not_quoted() {
        for body in [
            answer(&SEED[2..], PUBLIC),
            answer(&format!("{SEED}00"), PUBLIC),
            answer(&format!("é{}", &SEED[2..]), PUBLIC),
            answer(SEED, "zz"),
            answer(&format!("{SEED}{SEED}"), PUBLIC),
            b"{}".to_vec(),
            format!(r#"["{SEED}"]"#).into_bytes(),
        ] {
            let Err(NotMade::Unknown(text)) = made(&body) else { panic!("{body:?}") };
            assert!(!text.contains(&SEED[8..20]), "{text}");
        }
    }
}
