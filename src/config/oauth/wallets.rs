//! `[oauth.wallets]`: whose signatures count; and which resource servers there are.

use url::Url;

use super::super::reader::Section;

/// Whose signatures count.
#[derive(Clone, Copy, Debug)]
pub struct Wallets {
    /// `ed25519`: Bittensor accounts with such a key may sign in. Default false: sr25519 alone.
    pub ed25519: bool,
    /// `ecdsa`: Bittensor accounts with such a key may sign in. Default false.
    pub ecdsa: bool,
    /// `ethereum_chain_id`: the chain that Ethereum messages name (EIP-155). Default 1.
    pub ethereum_chain_id: u64,
}

impl Wallets {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            ed25519: section.or("ed25519", false),
            ecdsa: section.or("ecdsa", false),
            ethereum_chain_id: section.or("ethereum_chain_id", 1),
        }
    }
}

/// `resources`: absolute URIs without a fragment (RFC 8707 §2), as clients write them.
pub(super) fn resources(section: &Section<'_>) -> Vec<String> {
    let mut resources = Vec::new();
    for found in section.list::<String>("resources", &[]).unwrap_or_default() {
        let written = found.value;
        let uri = Url::parse(&written).is_ok_and(|url| url.fragment().is_none());
        if uri && !written.contains(char::is_whitespace) {
            resources.push(written);
        } else {
            section.context.mistake(&found.at, "must be an absolute URI without a fragment");
        }
    }
    resources
}
