//! `[route.access_token]`: whose access tokens let a caller in.

use std::collections::HashSet;

use crate::{
    config::{
        CredentialKind, OAuth,
        reader::Section,
        value::{Parse, Raw, word},
    },
    model::{
        identity::SignerKind,
        scope::{RequiredScope, Scope},
    },
};

/// Which of the access tokens that our authorization server has issued let their bearer in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenPolicy {
    /// `audience`: whom a token must be for. Default: `oauth.audience`.
    pub audience: String,
    /// `scopes`: what a token must have, all of it. Default: nothing.
    pub scopes: Vec<RequiredScope>,
    /// `clients`: whom a token must have been issued to. None (the default): any client, or none.
    pub clients: Option<HashSet<String>>,
    /// `signer`: which kind of key must have signed, one of these. Default: any.
    pub signers: Vec<SignerKind>,
    /// What a client would ask for to get such a token, as refusals tell it. None: nothing, or it cannot be said.
    pub scope_to_ask_for: Option<String>,
}

impl AccessTokenPolicy {
    /// The policy of a route, if it accepts access tokens. No `oauth` is a mistake that is reported elsewhere.
    pub(super) fn read(section: &Section<'_>, accepts: &[CredentialKind], oauth: Option<&OAuth>) -> Option<Self> {
        let audience = section.optional::<String>("audience", &[]);
        if let (Some(found), Some(oauth)) = (&audience, oauth)
            && found.value != oauth.audience
            && !oauth.resources.contains(&found.value)
        {
            let message = "is neither `audience` nor one of `resources` of [oauth]: no token would be for it";
            section.context.mistake(&found.at, message);
        }
        let scopes = section.list::<RequiredScope>("scopes", &[]).unwrap_or_default();
        for found in &scopes {
            if oauth.is_some_and(|oauth| !found.value.exists_on(oauth.network)) {
                section.context.mistake(&found.at, format!("{} is available on mainnet only", found.value));
            }
        }
        let scopes: Vec<_> = scopes.into_iter().map(|found| found.value).collect();
        let clients = section.list::<String>("clients", &[]);
        for key in ["clients", "signer"] {
            if section.is_empty_list(key) {
                section.mistake(key, "is a list of nobody; leave it out to admit any");
            }
        }
        let signers: Vec<SignerKind> = section.values("signer", &[]);
        accepts.contains(&CredentialKind::AccessToken).then(|| Self {
            audience: audience
                .map(|found| found.value)
                .or_else(|| oauth.map(|oauth| oauth.audience.clone()))
                .unwrap_or_default(),
            clients: clients.map(|list| list.into_iter().map(|found| found.value).collect()),
            scope_to_ask_for: scope_to_ask_for(&scopes, &signers),
            scopes,
            signers,
        })
    }
}

/// Scopes with a blank between them. A `*` is none that anybody could ask for, and leaving it out would send clients for
/// tokens that are refused as well.
fn scope_to_ask_for(scopes: &[RequiredScope], signers: &[SignerKind]) -> Option<String> {
    let mut texts = scopes.iter().map(|it| it.scope().map(|scope| scope.to_string())).collect::<Option<Vec<_>>>()?;
    if let [signer] = signers
        && let Ok(scope) = format!("signer:{}", signer.as_str()).parse::<Scope>()
        && !texts.iter().any(|text| text == scope.as_str())
    {
        texts.push(scope.to_string());
    }
    (!texts.is_empty()).then(|| texts.join(" "))
}

impl Parse for RequiredScope {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let text = String::parse(raw)?;
        text.parse()
            .map_err(|_| format!("must be a scope like \"subnet:1:miner\" or \"subnet:*:miner\", and is {text:?}"))
    }
}

impl Parse for SignerKind {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("hotkey", Self::Hotkey), ("coldkey", Self::Coldkey), ("evm", Self::Evm)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_what_it_can_ask_for() {
        use SignerKind::{Coldkey, Evm, Hotkey};
        for (scopes, signers, expected) in [
            (&[][..], &[][..], None),
            (&["openid"], &[], Some("openid")),
            (&["openid", "subnet:1:miner"], &[], Some("openid subnet:1:miner")),
            (&["openid", "subnet:*:miner"], &[], None),
            (&[], &[Hotkey], Some("signer:hotkey")),
            (&["openid"], &[Coldkey], Some("openid signer:coldkey")),
            (&["signer:hotkey"], &[Hotkey], Some("signer:hotkey")),
            (&["openid"], &[Evm], Some("openid")),
            (&["openid"], &[Hotkey, Evm], Some("openid")),
            (&[], &[Hotkey, Coldkey], None),
        ] {
            let scopes: Vec<RequiredScope> = scopes.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(scope_to_ask_for(&scopes, signers).as_deref(), expected, "{scopes:?} {signers:?}");
        }
    }
}
