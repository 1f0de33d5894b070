//! Nobody makes up an access token, and whatever our own key has signed is read or refused.
#![no_main]

use std::{collections::HashSet, sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollgate::{
    authn::{
        Authorization, Presented,
        jwt::{AccessTokens, revocations::Revocations},
    },
    chain::cache::Clock,
    jose::{Algorithm, KeySet, SigningKey},
    model::{clock::Timestamp, decision::Denial, identity::Identity},
};

const NOW: Timestamp = Timestamp(1_800_000_000);

struct Scene {
    key: SigningKey,
    tokens: AccessTokens,
}

/// The key is new each time, so no input can have been signed with it.
static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let pem = Algorithm::EdDsa.generate().expect("a key");
    let key = || SigningKey::from_pem(&pem).expect("our own key");
    let revocations = Revocations::new(Duration::from_mins(1), Clock::manual());
    revocations.publish(HashSet::new(), Timestamp(0), revocations.now());
    let keys = KeySet::new(vec![key()]);
    let tokens =
        AccessTokens::new(keys.into(), "https://auth.example".into(), Duration::from_mins(15), revocations.into());
    Scene { key: key(), tokens }
});

fn identify(authorization: &[u8]) -> Result<Option<std::sync::Arc<Identity>>, Denial> {
    let presented = Presented { authorization: Authorization::from_values([authorization])? };
    SCENE.tokens.identify(&presented, "api", NOW)
}

fuzz_target!(|input: &[u8]| {
    assert!(identify(input).is_err(), "a forgery counts");
    assert!(identify(&[b"Bearer ", input].concat()).is_err(), "a forgery counts");

    // The same bytes as claims.
    let Ok(claims) = serde_json::from_slice::<Value>(input) else { return };
    let token = SCENE.key.sign_compact("at+jwt", &claims).expect("signing does not fail");
    if let Ok(identity) = identify(format!("Bearer {token}").as_bytes()) {
        let identity = identity.expect("a token was presented");
        let said = identity.access_token.as_ref().expect("it was an access token");
        assert!(identity.expires_at.is_some_and(|moment| moment > NOW));
        for text in [Some(&said.account), Some(&said.scope), said.client.as_ref()].into_iter().flatten() {
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "a header could not have it: {text:?}");
        }
    }
    let other = SCENE.key.sign_compact("JWT", &claims).expect("signing does not fail");
    assert!(identify(format!("Bearer {other}").as_bytes()).is_err(), "a token of another type counts");
});
