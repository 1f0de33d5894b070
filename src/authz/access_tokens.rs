//! Which access tokens a route admits. That they are genuine and valid now has been verified by then.

use crate::{
    config::AccessTokenPolicy,
    model::{decision::Denial, identity::AccessToken},
};

/// Whether a route's policy lets the bearer of a token in. What asking for another token cannot mend comes first.
pub(super) fn admit(policy: &AccessTokenPolicy, token: &AccessToken) -> Result<(), Denial> {
    if let Some(welcome) = &policy.clients
        && !token.client.as_deref().is_some_and(|client| welcome.contains(client))
    {
        return Err(Denial::NotEntitled("client_not_listed"));
    }
    if !policy.signers.is_empty() && !policy.signers.contains(&token.signer) {
        return Err(Denial::InsufficientScope("wrong_signer"));
    }
    if !policy.scopes.iter().all(|demanded| token.scopes.iter().any(|granted| demanded.met_by(granted))) {
        return Err(Denial::InsufficientScope("insufficient_scope"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::identity::SignerKind::{self, Coldkey, Evm, Hotkey};

    fn anybody() -> AccessTokenPolicy {
        AccessTokenPolicy {
            audience: "api".into(),
            scopes: Vec::new(),
            clients: None,
            signers: Vec::new(),
            scope_to_ask_for: None,
        }
    }

    fn token(client: Option<&str>, signer: SignerKind, scope: &str) -> AccessToken {
        AccessToken {
            account: "5Grw".into(),
            signer,
            client: client.map(Into::into),
            scopes: scope.split(' ').filter_map(|text| text.parse().ok()).collect(),
            scope: scope.into(),
            grant: None,
        }
    }

    fn demanding(scopes: &[&str]) -> AccessTokenPolicy {
        AccessTokenPolicy { scopes: scopes.iter().map(|text| text.parse().unwrap()).collect(), ..anybody() }
    }

    #[test]
    fn every_rule_has_its_reason() {
        let of = |clients: &[&str]| AccessTokenPolicy {
            clients: Some(clients.iter().map(ToString::to_string).collect()),
            ..anybody()
        };
        let signed_by = |signers: &[SignerKind]| AccessTokenPolicy { signers: signers.to_vec(), ..anybody() };
        let (client, signer, scope) = (
            Denial::NotEntitled("client_not_listed"),
            Denial::InsufficientScope("wrong_signer"),
            Denial::InsufficientScope("insufficient_scope"),
        );
        for (policy, token, expected) in [
            (anybody(), token(None, Evm, ""), None),
            (anybody(), token(Some("app"), Hotkey, "openid nonsense"), None),
            (of(&["app"]), token(Some("app"), Evm, ""), None),
            (of(&["app", "other"]), token(Some("other"), Evm, ""), None),
            (of(&["app"]), token(Some("App"), Evm, ""), Some(client.clone())),
            (of(&["app"]), token(None, Evm, ""), Some(client.clone())),
            (of(&[]), token(Some("app"), Evm, ""), Some(client)),
            (signed_by(&[Hotkey]), token(None, Hotkey, ""), None),
            (signed_by(&[Coldkey, Evm]), token(None, Evm, ""), None),
            (signed_by(&[Coldkey]), token(None, Hotkey, "signer:coldkey"), Some(signer.clone())),
            (signed_by(&[Hotkey, Coldkey]), token(None, Evm, ""), Some(signer)),
            (demanding(&["openid"]), token(None, Evm, "openid"), None),
            (demanding(&["openid", "tao:holder"]), token(None, Evm, "tao:holder openid"), None),
            (demanding(&["openid", "tao:holder"]), token(None, Evm, "openid"), Some(scope.clone())),
            (demanding(&["openid"]), token(None, Evm, ""), Some(scope.clone())),
            (demanding(&["openid"]), token(None, Evm, "OPENID openidx"), Some(scope.clone())),
            (demanding(&["signer:hotkey"]), token(None, Hotkey, "openid"), Some(scope)),
        ] {
            assert_eq!(admit(&policy, &token).err(), expected, "{policy:?} {token:?}");
        }
    }
}
