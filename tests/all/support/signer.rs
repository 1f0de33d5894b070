//! A neuron that signs its requests.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use sp_core::{Pair, crypto::Ss58Codec, ed25519, sr25519};
use tollgate::model::clock;

use super::Request;

/// A hotkey with its secret.
pub enum Signer {
    Sr25519(Box<sr25519::Pair>),
    Ed25519(Box<ed25519::Pair>),
}

impl Signer {
    pub fn alice() -> Self {
        Self::sr25519("//Alice")
    }

    pub fn sr25519(path: &str) -> Self {
        Self::Sr25519(Box::new(sr25519::Pair::from_string(path, None).unwrap()))
    }

    pub fn ed25519(path: &str) -> Self {
        Self::Ed25519(Box::new(ed25519::Pair::from_string(path, None).unwrap()))
    }

    /// Its address.
    pub fn hotkey(&self) -> String {
        match self {
            Self::Sr25519(pair) => pair.public().to_ss58check(),
            Self::Ed25519(pair) => pair.public().to_ss58check(),
        }
    }

    fn sign(&self, message: &str) -> String {
        let signature = match self {
            Self::Sr25519(pair) => pair.sign(message.as_bytes()).0,
            Self::Ed25519(pair) => pair.sign(message.as_bytes()).0,
        };
        format!("0x{}", hex(&signature))
    }
}

/// How a request is signed, where it is not the usual way.
pub struct Signing<'a> {
    pub signer: &'a Signer,
    pub receiver: Option<&'a str>,
    /// When, in nanoseconds from now.
    pub shift_nanos: i128,
}

/// The gateway's own hotkey in the tests: Bob.
pub const GATEWAY: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

impl<'a> Signing<'a> {
    /// Now, for the gateway of the tests.
    pub fn by(signer: &'a Signer) -> Self {
        Self { signer, receiver: Some(GATEWAY), shift_nanos: 0 }
    }

    pub fn shifted(self, shift_nanos: i128) -> Self {
        Self { shift_nanos, ..self }
    }

    pub fn receiver(self, receiver: Option<&'a str>) -> Self {
        Self { receiver, ..self }
    }

    /// btauth/1: every time with another nonce.
    pub fn btauth(&self, request: Request) -> Request {
        let nonce = self.now_nanos();
        let scheme = match self.signer {
            Signer::Sr25519(_) => "sr25519",
            Signer::Ed25519(_) => "ed25519",
        };
        let sender = self.signer.hotkey();
        let message = format!(
            "btauth/1\n{scheme}\n{}\n{}\n{}\n{nonce}\n{sender}\n{}",
            request.method,
            request.target,
            sha256(&request.body),
            self.receiver.unwrap_or("-"),
        );
        let signed = request
            .header("X-Bittensor-Version", "1")
            .header("X-Bittensor-Hotkey", &sender)
            .header("X-Bittensor-Nonce", nonce.to_string())
            .header("X-Bittensor-Crypto", scheme)
            .header("X-Bittensor-Signature", self.signer.sign(&message));
        match self.receiver {
            Some(receiver) => signed.header("X-Bittensor-Receiver", receiver),
            None => signed,
        }
    }

    /// Epistula, version 2.
    pub fn epistula(&self, request: Request) -> Request {
        let stamp = (self.now_nanos() / 1_000_000).to_string();
        let uuid = uuid::Uuid::from_u128(self.now_nanos().unsigned_abs()).to_string();
        let receiver = self.receiver.unwrap_or_default();
        let message = format!("{}.{uuid}.{stamp}.{receiver}", sha256(&request.body));
        request
            .header("Epistula-Version", "2")
            .header("Epistula-Timestamp", &stamp)
            .header("Epistula-Uuid", &uuid)
            .header("Epistula-Signed-By", self.signer.hotkey())
            .header("Epistula-Signed-For", receiver)
            .header("Epistula-Request-Signature", self.signer.sign(&message))
    }

    /// Epistula's dialect, in nanoseconds.
    pub fn epistula_lite(&self, request: Request) -> Request {
        let stamp = self.now_nanos().to_string();
        let message = format!("{stamp}.{}", sha256(&request.body));
        request
            .header("X-Epistula-Timestamp", &stamp)
            .header("X-Epistula-Hotkey", self.signer.hotkey())
            .header("X-Epistula-Signature", self.signer.sign(&message))
    }

    /// Never the same twice in one process.
    fn now_nanos(&self) -> i128 {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = clock::now_nanos() / 1000 * 1000 - i128::from(COUNT.fetch_add(1, Ordering::Relaxed) % 1000);
        now + self.shift_nanos
    }
}

pub fn sha256(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}
