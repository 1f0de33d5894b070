//! The message that a wallet is asked to sign.
//!
//! Two forms. The replaced server's says nothing about who asks, so whoever gets hold of one can have anybody sign it
//! (auth-gateway.md section 14.1, 1). The other is bound to this server and to the client: ERC-4361 ("SIWE") for Ethereum
//! accounts, which their wallets know and check against the page they are on, and the same lines for Bittensor accounts
//! (CAIP-122). Whatever its form, the whole message is the `nonce` of the API, and is signed byte by byte.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::model::client::SignMethod;

/// What a domain-bound message says.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Where we are reached, without a final slash.
    pub public_url: &'a str,
    /// With what kind of wallet.
    pub wallet: SignMethod,
    /// The account, if it is known: Ethereum messages must name it.
    pub account: Option<&'a str>,
    /// The chain's name: a number for Ethereum (EIP-155), CAIP-2's `polkadot:…` for Bittensor.
    pub chain: &'a str,
    /// Who asks; none in the direct flow.
    pub client: Option<Client<'a>>,
    /// For which scopes.
    pub scopes: &'a [String],
    /// For which resources (RFC 8707), with a blank between them.
    pub resources: &'a str,
    /// Random letters and digits.
    pub nonce: &'a str,
    /// When, in seconds since the Unix epoch.
    pub issued_at: i64,
    /// Until when, in seconds since the Unix epoch.
    pub expires_at: i64,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// `client_id`.
    pub id: &'a str,
    /// What users are told.
    pub name: &'a str,
    /// Where the answer goes; none for devices.
    pub redirect_uri: Option<&'a str>,
}

/// The replaced server's message (auth-gateway.md section 2.1): `scopes` in the order of the request, and a random UUID in
/// lower case.
#[must_use]
pub fn old(scopes: &[String], uuid: &str) -> String {
    let scopes = if scopes.is_empty() { "none".to_owned() } else { scopes.join(",") };
    format!("taostats-auth:{scopes}:{uuid}")
}

/// The domain-bound message. None for an Ethereum message without an account: ERC-4361 has no such thing.
#[must_use]
pub fn bound(request: &Request<'_>) -> Option<String> {
    let (scheme, domain) = request.public_url.split_once("://")?;
    let domain = domain.split('/').next()?;
    // ERC-4361: the scheme is written when the wallet should not take it for https.
    let domain = if scheme == "https" { domain.to_owned() } else { format!("{scheme}://{domain}") };
    let who = match (request.wallet, request.account) {
        (SignMethod::Evm, Some(account)) => format!("your Ethereum account:\n{account}"),
        (SignMethod::Evm, None) => return None,
        (SignMethod::Sr25519, Some(account)) => format!("your Bittensor account:\n{account}"),
        (SignMethod::Sr25519, None) => "your Bittensor account.".to_owned(),
    };
    let mut message = format!(
        "{domain} wants you to sign in with {who}\n\n{}\n\nURI: {}\nVersion: 1\nChain ID: {}\nNonce: {}\nIssued At: {}\n\
         Expiration Time: {}",
        statement(request.client, request.scopes),
        request.public_url,
        request.chain,
        request.nonce,
        rfc3339(request.issued_at)?,
        rfc3339(request.expires_at)?,
    );
    if let Some(client) = request.client {
        message.push_str("\nRequest ID: ");
        message.extend(client.id.chars().map(|c| if is_path(c) { c } else { '_' }));
    }
    let redirect_uri = request.client.and_then(|client| client.redirect_uri);
    let mut links = redirect_uri.into_iter().chain(request.resources.split_ascii_whitespace()).peekable();
    if links.peek().is_some() {
        message.push_str("\nResources:");
    }
    for link in links {
        message.push_str("\n- ");
        message.push_str(link);
    }
    Some(message)
}

/// One line of what ERC-4361 allows: letters, digits, reserved characters and blanks.
fn statement(client: Option<Client<'_>>, scopes: &[String]) -> String {
    let scopes = if scopes.is_empty() { "nothing but who you are".to_owned() } else { scopes.join(" ") };
    let Some(client) = client else { return format!("Sign in. This proves: {scopes}.") };
    let name: String = client.name.chars().take(80).map(|c| if is_statement(c) { c } else { '?' }).collect();
    format!("Sign in to {name}. This proves to it: {scopes}.")
}

fn is_statement(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;= ".contains(c)
}

/// RFC 3986 `pchar`, without percent-encoding.
fn is_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c)
}

fn rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0f3c1a2b-0000-4000-8000-000000000001";

    fn scopes(list: &[&str]) -> Vec<String> {
        list.iter().map(|scope| (*scope).to_owned()).collect()
    }

    fn request(scopes: &[String]) -> Request<'_> {
        Request {
            public_url: "https://auth.example.com",
            wallet: SignMethod::Evm,
            account: Some("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
            chain: "1",
            client: Some(Client {
                id: "b3b9d5d2",
                name: "Demo App",
                redirect_uri: Some("https://app.example.com/callback"),
            }),
            scopes,
            resources: "",
            nonce: "Zm9vYmFyYmF6",
            issued_at: 1_795_000_000,
            expires_at: 1_795_000_120,
        }
    }

    #[test]
    fn the_old_message_is_that_of_the_reference() {
        assert_eq!(old(&[], UUID), format!("taostats-auth:none:{UUID}"));
        assert_eq!(
            old(&scopes(&["openid", "subnet:1:miner"]), UUID),
            format!("taostats-auth:openid,subnet:1:miner:{UUID}")
        );
    }

    #[test]
    fn an_ethereum_message_is_that_of_erc_4361() {
        let scopes = scopes(&["openid"]);
        assert_eq!(
            bound(&request(&scopes)).unwrap(),
            "auth.example.com wants you to sign in with your Ethereum account:\n\
             0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC\n\
             \n\
             Sign in to Demo App. This proves to it: openid.\n\
             \n\
             URI: https://auth.example.com\n\
             Version: 1\n\
             Chain ID: 1\n\
             Nonce: Zm9vYmFyYmF6\n\
             Issued At: 2026-11-18T11:06:40Z\n\
             Expiration Time: 2026-11-18T11:08:40Z\n\
             Request ID: b3b9d5d2\n\
             Resources:\n\
             - https://app.example.com/callback"
        );
    }

    #[test]
    fn an_ethereum_message_names_its_account_and_a_bittensor_message_may() {
        let scopes = scopes(&["openid", "subnet:1:miner"]);
        assert_eq!(bound(&Request { account: None, ..request(&scopes) }), None);
        let bittensor = Request {
            wallet: SignMethod::Sr25519,
            account: None,
            chain: "polkadot:2f0555cc76fc2840a25a6ea3b9637146",
            client: None,
            public_url: "http://localhost:3000",
            ..request(&scopes)
        };
        let message = bound(&bittensor).unwrap();
        assert!(
            message.starts_with(
                "http://localhost:3000 wants you to sign in with your Bittensor account.\n\n\
                 Sign in. This proves: openid subnet:1:miner.\n\nURI: http://localhost:3000\n"
            ),
            "{message}"
        );
        assert!(message.contains("\nChain ID: polkadot:2f0555cc76fc2840a25a6ea3b9637146\n"));
        assert!(message.ends_with("\nExpiration Time: 2026-11-18T11:08:40Z"));
        let named = bound(&Request { account: Some("5Grw"), ..bittensor }).unwrap();
        assert!(named.contains("your Bittensor account:\n5Grw\n\nSign in."));
    }

    #[test]
    fn a_client_cannot_write_lines_of_its_own() {
        let scopes = scopes(&[]);
        let client =
            Client { id: "id\nNonce: x", name: "Good\n\nURI: https://evil.example\r\u{202e}\"\\%", redirect_uri: None };
        let message = bound(&Request { client: Some(client), ..request(&scopes) }).unwrap();
        assert_eq!(message.lines().count(), 12, "{message}");
        assert!(message.contains("Sign in to Good??URI: https://evil.example?????. This proves to it: nothing but"));
        assert!(message.contains("\nRequest ID: id_Nonce:_x"));
    }

    #[test]
    fn what_differs_makes_another_message() {
        let one = scopes(&["openid"]);
        let two = scopes(&["openid", "openid"]);
        let message = bound(&request(&one)).unwrap();
        for other in [
            Request { public_url: "https://other.example.com", ..request(&one) },
            Request { account: Some("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"), ..request(&one) },
            Request { scopes: &two, ..request(&one) },
            Request { client: None, ..request(&one) },
            Request { resources: "https://api.example.com/", ..request(&one) },
            Request { nonce: "other1234", ..request(&one) },
            Request { issued_at: 1, ..request(&one) },
            Request { expires_at: 1, ..request(&one) },
            Request { chain: "2", ..request(&one) },
        ] {
            assert_ne!(bound(&other).unwrap(), message);
        }
    }
}
