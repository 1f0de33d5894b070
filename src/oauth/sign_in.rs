//! Asking a wallet to sign, and taking its answer: what all flows have in common.

use super::{
    Error, State,
    account::Account,
    asked,
    events::Happened,
    facts::Acquaintance,
    message::{self, Client as Asker, Request},
    opaque,
};
use crate::{
    config::{Network, OAuthCompatibility},
    model::{
        client::{Client, SignMethod},
        clock,
    },
    store::{
        challenge::{Challenge, Digest, Flow},
        grant::Signer,
    },
};

/// What is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Where the answer may be given.
    pub flow: Flow,
    /// What it belongs to.
    pub binding: Option<Digest>,
    /// Who will sign, if that is known.
    pub account: Option<Account>,
    /// With what kind of wallet.
    pub wallet: SignMethod,
    /// Who wants it.
    pub client: Option<&'a Client>,
    /// Where the client gets it.
    pub redirect_uri: Option<&'a str>,
    /// For which scopes, with a blank between them.
    pub scope: &'a str,
    /// For which resources, with a blank between them.
    pub resource: &'a str,
}

/// Makes a message to be signed, and remembers it, also among the events of the client that wants it. Says how many
/// seconds it may take.
///
/// # Errors
/// 400 if the message must name an account and none was given; 503.
pub async fn ask(state: &State, asked: &Asked<'_>) -> Result<(String, u64), Error> {
    let now = clock::now_micros();
    let lifetime = state.settings.lifetimes.challenge;
    let expires_at_micros = after(now, lifetime);
    let scopes = asked::split(asked.scope);
    let random = |error: opaque::NoRandomness| Error::internal(&error);
    let account = asked.account.map(|account| account.text());
    let message = match state.settings.compatibility {
        OAuthCompatibility::AuthGateway => message::old(&scopes, &opaque::uuid().map_err(random)?.to_string()),
        OAuthCompatibility::Standard => {
            let chain = chain(asked.wallet, &state.settings);
            let client = asked.client.map(|client| Asker {
                id: &client.id,
                name: &client.name,
                redirect_uri: asked.redirect_uri,
            });
            let request = Request {
                public_url: &state.settings.public_url,
                wallet: asked.wallet,
                account: account.as_deref(),
                chain: &chain,
                client,
                scopes: &scopes,
                resources: asked.resource,
                nonce: &opaque::nonce().map_err(random)?,
                issued_at: now.div_euclid(1_000_000),
                expires_at: expires_at_micros.div_euclid(1_000_000),
            };
            message::bound(&request)
                .ok_or_else(|| Error::bad_request("address is required: Ethereum messages name their account"))?
        }
    };
    let challenge = Challenge {
        flow: asked.flow,
        binding: asked.binding,
        account,
        scope: asked.scope.to_owned(),
        expires_at_micros,
    };
    state.store.insert_challenge(&opaque::sha256(message.as_bytes()), &challenge).await?;
    let flow = match asked.flow {
        Flow::Direct => "auth",
        Flow::Code => "oauth",
        Flow::Device => "device",
    };
    let (wallet, detail) = (Some(asked.wallet), Some(("flow", flow)));
    let happened = Happened { scope: asked.scope, wallet, detail, ..Happened::default() };
    match asked.client {
        Some(client) => state.events.record(&client.id, "challenge_issued", "success", happened),
        None => state.events.count("challenge_issued", "success", happened),
    }
    Ok((message, lifetime.as_secs()))
}

/// Takes an answer: from now on the message is used, whatever comes of it.
///
/// # Errors
/// 401 if it was never handed out, is used, or has expired; 400 if it belongs to another flow or another request.
pub async fn answered(state: &State, message: &str, flow: Flow, binding: Option<Digest>) -> Result<Challenge, Error> {
    let digest = opaque::sha256(message.as_bytes());
    let challenge = state.store.consume_challenge(&digest, clock::now_micros()).await?;
    let challenge = challenge.ok_or_else(|| Error::unauthorized("Invalid or expired challenge"))?;
    if challenge.flow != flow {
        return Err(Error::bad_request("The challenge belongs to a different authentication flow"));
    }
    if challenge.binding != binding {
        return Err(Error::bad_request(match flow {
            Flow::Device => "user_code mismatch: the challenge belongs to another device",
            Flow::Code | Flow::Direct => "The challenge belongs to another session",
        }));
    }
    Ok(challenge)
}

/// Who has signed, after all that can be found out about the wallet has been.
///
/// # Errors
/// 401, 403 or 503.
pub async fn signer(
    state: &State,
    account: Account,
    message: &str,
    unverified_signature: &str,
    scope: &str,
) -> Result<Signer, Error> {
    let verified = account.verify(state, message, unverified_signature).await;
    let (outcome, happened) = verification(account, &verified);
    state.events.count("challenge_verified", outcome, happened);
    verified?;
    checked(state, account, scope, Acquaintance::Stranger).await
}

/// What an event says of a signature.
fn verification<'h>(account: Account, verified: &Result<(), Error>) -> (&'static str, Happened<'h>) {
    let happened = Happened { wallet: Some(account.method()), ..Happened::default() };
    match verified {
        Ok(()) => ("success", happened),
        Err(_) => ("failure", Happened { reason: Some("signature_invalid"), ..happened }),
    }
}

/// Who has signed a client's message: as [`signer`], and whether the signature was right is remembered among the client's
/// events.
///
/// # Errors
/// 401, 403 or 503.
pub async fn signer_for(
    state: &State,
    client: &Client,
    account: Account,
    challenge: &Challenge,
    message: &str,
    unverified_signature: &str,
) -> Result<Signer, Error> {
    let address = account.text();
    if challenge.account.as_ref().is_some_and(|bound| *bound != address) {
        return Err(Error::unauthorized("The challenge was issued for another address"));
    }
    let verified = account.verify(state, message, unverified_signature).await;
    let (outcome, happened) = verification(account, &verified);
    let signed_by = verified.is_ok().then_some(&*address);
    let happened = Happened { account: signed_by, scope: &challenge.scope, ..happened };
    state.events.record(&client.id, "challenge_verified", outcome, happened);
    verified?;
    checked(state, account, &challenge.scope, Acquaintance::Stranger).await
}

/// What a wallet is, if all that is asked for is true of it.
///
/// # Errors
/// 400, 403 or 503.
pub async fn checked(
    state: &State,
    account: Account,
    scope: &str,
    acquaintance: Acquaintance,
) -> Result<Signer, Error> {
    let scopes = asked::scopes(&asked::split(scope), state.settings.network)?;
    asked::suit(&scopes, account.method())?;
    let signer = state.facts.signer(account, acquaintance).await?;
    state.facts.check(&scopes, &signer)?;
    Ok(signer)
}

/// This moment and a duration, in microseconds.
#[must_use]
pub fn after(now_micros: i64, duration: std::time::Duration) -> i64 {
    now_micros.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

/// The chain's name in messages. Bittensor's is the beginning of its genesis hash (CAIP-2, `polkadot` namespace;
/// subtensor.md section 1); the test network, which is begun anew at times, goes by its name.
fn chain(wallet: SignMethod, settings: &super::Settings) -> String {
    match (wallet, settings.network) {
        (SignMethod::Evm, _) => settings.wallets.ethereum_chain_id.to_string(),
        (SignMethod::Sr25519, Network::Mainnet) => "polkadot:2f0555cc76fc2840a25a6ea3b9637146".to_owned(),
        (SignMethod::Sr25519, Network::Testnet) => "bittensor:testnet".to_owned(),
    }
}
