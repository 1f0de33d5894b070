//! The contract of the authorization server's tables: every operation, against both databases, and whatever is good for
//! one use raced for by many.

use std::{future::Future, time::Duration};

use tollgate::model::{
    client::{Client, ClientAuthentication, GrantType, SignMethod},
    secret::Secret,
};
use tollgate::store::{
    Store, StoreOptions, StoreTarget,
    challenge::{Challenge, Flow},
    device::{Device, Pace, Poll},
    event::{ClientStats, Counts, Event},
    grant::{Digest, Grant, NewCode, NewRefreshToken, Session, Signer, SignerKind},
};
use uuid::Uuid;

use crate::store::{Fixture, stores};

/// 2026-11-18 11:06:40 UTC.
const NOW: i64 = 1_795_000_000_000_000;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const CLIENT: &str = "weather-app";

fn digest(number: u64) -> Digest {
    let mut digest = [0x5a; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    digest
}

fn challenge() -> Challenge {
    Challenge {
        flow: Flow::Code,
        binding: Some(digest(7)),
        account: Some("5Grw".into()),
        scope: "openid subnet:1:miner".into(),
        expires_at_micros: NOW + 120 * SECOND,
    }
}

fn grant(number: u64) -> Grant {
    Grant {
        id: Uuid::from_u64_pair(0x0192_0000_0000_7000, 0x8000_0000_0000_0000 | number),
        client_id: CLIENT.into(),
        signer: Signer {
            account: "5Grw".into(),
            kind: SignerKind::Hotkey,
            hotkey: Some("5Grw".into()),
            coldkey: Some("5FHn".into()),
        },
        scope: "openid subnet:1:miner".into(),
        resource: String::new(),
        nonce: Some("n-0S6_WzA2Mj".into()),
        auth_time: NOW / SECOND,
        expires_at_micros: NOW + 30 * DAY,
    }
}

fn session() -> Session {
    Session {
        browser: digest(8),
        client_id: CLIENT.into(),
        redirect_uri: "https://app.example/cb?x=1".into(),
        scope: "openid".into(),
        resource: "https://api.example/".into(),
        state: Some("é \" \\ &".into()),
        nonce: None,
        code_challenge: Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".into()),
        expires_at_micros: NOW + 600 * SECOND,
    }
}

fn refresh(number: u64) -> NewRefreshToken {
    NewRefreshToken { digest: digest(number), expires_at_micros: NOW + DAY }
}

fn code(number: u64) -> NewCode {
    NewCode { digest: digest(number), expires_at_micros: NOW + 30 * SECOND }
}

fn device(number: u64) -> Device {
    Device {
        user_code: format!("ABCD-{number:04}"),
        client_id: CLIENT.into(),
        scope: "openid".into(),
        resource: String::new(),
        interval_seconds: 5,
        expires_at_micros: NOW + 300 * SECOND,
    }
}

async fn register(store: &Store) {
    let client = Client {
        id: CLIENT.into(),
        name: "Weather".into(),
        authentication: ClientAuthentication::None,
        redirect_uris: vec!["https://app.example/cb".into()],
        grant_types: GrantType::ALL.to_vec(),
        allowed_scopes: Vec::new(),
        allowed_origins: Vec::new(),
        sign_method: SignMethod::Sr25519,
        rate_limit: 60,
        active: true,
        created_at_micros: NOW,
        updated_at_micros: NOW,
    };
    store.insert_client(&client).await.unwrap();
}

/// A grant with a code.
async fn granted(store: &Store, number: u64) -> Grant {
    let (id, grant) = (digest(1_000_000 + number), grant(number));
    store.insert_session(&id, &session()).await.unwrap();
    assert!(store.approve_session(&id, &grant, &code(number), NOW).await.unwrap());
    grant
}

/// Waits for all of them at the same time.
async fn together<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    tasks.into_iter().collect::<tokio::task::JoinSet<_>>().join_all().await
}

/// The same database through two stores, as two gateways have it. `SQLite` is for one.
fn gateways(fixture: &Fixture) -> Vec<Store> {
    if fixture.url.is_empty() {
        return vec![fixture.store.clone(), fixture.store.clone()];
    }
    let other = StoreOptions {
        target: StoreTarget::Postgres(Secret::new(fixture.url.clone())),
        max_connections: 8,
        timeout: Duration::from_secs(10),
        access_tables: false,
        reports: false,
    };
    vec![fixture.store.clone(), Store::open(&other).unwrap()]
}

#[tokio::test]
async fn a_challenge_is_answered_once_and_in_time() {
    for fixture in stores().await {
        let store = &fixture.store;
        store.insert_challenge(&digest(1), &challenge()).await.unwrap();
        let bare = Challenge { flow: Flow::Direct, binding: None, account: None, scope: String::new(), ..challenge() };
        store.insert_challenge(&digest(2), &bare).await.unwrap();
        assert_eq!(store.consume_challenge(&digest(3), NOW).await.unwrap(), None, "{}", fixture.name);
        let late = challenge().expires_at_micros;
        assert_eq!(store.consume_challenge(&digest(1), late).await.unwrap(), None, "the last moment is too late");
        assert_eq!(store.consume_challenge(&digest(1), late - 1).await.unwrap(), Some(challenge()));
        assert_eq!(store.consume_challenge(&digest(1), NOW).await.unwrap(), None, "used");
        assert_eq!(store.consume_challenge(&digest(2), NOW).await.unwrap(), Some(bare));
        assert!(store.insert_challenge(&digest(3), &challenge()).await.is_ok());
        assert!(store.insert_challenge(&digest(3), &challenge()).await.is_err(), "never twice the same message");
    }
}

#[tokio::test]
async fn a_session_ends_with_one_code() {
    for fixture in stores().await {
        let store = &fixture.store;
        store.insert_session(&digest(1), &session()).await.unwrap();
        assert_eq!(store.session(&digest(1), NOW).await.unwrap(), Some(session()), "{}", fixture.name);
        assert_eq!(store.session(&digest(2), NOW).await.unwrap(), None);
        let late = session().expires_at_micros;
        assert_eq!(store.session(&digest(1), late).await.unwrap(), None);
        assert!(!store.approve_session(&digest(1), &grant(1), &code(1), late).await.unwrap(), "expired");
        assert!(store.approve_session(&digest(1), &grant(1), &code(1), NOW).await.unwrap());
        assert!(!store.approve_session(&digest(1), &grant(2), &code(2), NOW).await.unwrap(), "over");
        assert!(!store.end_session(&digest(1), NOW).await.unwrap());
        assert_eq!(store.session(&digest(1), NOW).await.unwrap(), None);
        let found = store.code(&digest(1)).await.unwrap().unwrap();
        assert_eq!((found.grant, found.redirect_uri), (grant(1), session().redirect_uri));
        assert_eq!(found.code_challenge, session().code_challenge);
        assert_eq!((found.expires_at_micros, found.redeemed), (code(1).expires_at_micros, false));
        assert_eq!(store.code(&digest(2)).await.unwrap(), None, "no code without a session");

        store.insert_session(&digest(3), &session()).await.unwrap();
        assert!(store.end_session(&digest(3), NOW).await.unwrap(), "denied");
        assert!(!store.approve_session(&digest(3), &grant(3), &code(3), NOW).await.unwrap());
    }
}

#[tokio::test]
async fn a_code_is_exchanged_once_and_in_time() {
    for fixture in stores().await {
        let store = &fixture.store;
        granted(store, 1).await;
        let late = code(1).expires_at_micros;
        assert!(!store.redeem_code(&digest(1), &refresh(11), late).await.unwrap(), "{}: expired", fixture.name);
        assert!(!store.redeem_code(&digest(2), &refresh(11), NOW).await.unwrap(), "unknown");
        assert_eq!(store.refresh_token(&digest(11)).await.unwrap(), None);
        assert!(store.redeem_code(&digest(1), &refresh(11), NOW).await.unwrap());
        assert!(!store.redeem_code(&digest(1), &refresh(12), NOW).await.unwrap(), "used");
        assert!(store.code(&digest(1)).await.unwrap().unwrap().redeemed);
        assert_eq!(store.refresh_token(&digest(12)).await.unwrap(), None);
        let token = store.refresh_token(&digest(11)).await.unwrap().unwrap();
        assert_eq!((token.grant, token.used_at_micros, token.revoked), (grant(1), None, false));
        assert_eq!(token.expires_at_micros, NOW + DAY);

        let taken_back = granted(store, 3).await;
        assert!(store.revoke_grant(taken_back.id, NOW).await.unwrap());
        assert!(!store.redeem_code(&digest(3), &refresh(13), NOW).await.unwrap(), "taken back");
    }
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_once_and_in_time() {
    for fixture in stores().await {
        let store = &fixture.store;
        granted(store, 1).await;
        assert!(store.redeem_code(&digest(1), &refresh(11), NOW).await.unwrap());
        assert!(!store.rotate_refresh_token(&digest(11), &refresh(12), NOW + DAY).await.unwrap(), "{}", fixture.name);
        assert!(!store.rotate_refresh_token(&digest(10), &refresh(12), NOW).await.unwrap(), "unknown");
        assert!(store.rotate_refresh_token(&digest(11), &refresh(12), NOW).await.unwrap());
        assert!(!store.rotate_refresh_token(&digest(11), &refresh(13), NOW).await.unwrap(), "used");
        assert_eq!(store.refresh_token(&digest(11)).await.unwrap().unwrap().used_at_micros, Some(NOW));
        assert_eq!(store.refresh_token(&digest(13)).await.unwrap(), None);
        assert!(store.rotate_refresh_token(&digest(12), &refresh(13), NOW).await.unwrap());
        // The family ends with its grant: taken back, or of old age.
        let endless = NewRefreshToken { expires_at_micros: NOW + 60 * DAY, ..refresh(14) };
        assert!(store.rotate_refresh_token(&digest(13), &endless, NOW).await.unwrap());
        assert!(!store.rotate_refresh_token(&digest(14), &refresh(15), NOW + 30 * DAY).await.unwrap(), "too old");
        assert!(store.revoke_grant(grant(1).id, NOW).await.unwrap());
        assert!(!store.revoke_grant(grant(1).id, NOW).await.unwrap());
        assert!(!store.rotate_refresh_token(&digest(14), &refresh(15), NOW).await.unwrap());
        assert!(store.refresh_token(&digest(14)).await.unwrap().unwrap().revoked);
    }
}

#[tokio::test]
async fn a_lost_answer_is_forgiven_once_if_nobody_has_used_it() {
    for fixture in stores().await {
        let store = &fixture.store;
        granted(store, 1).await;
        assert!(store.redeem_code(&digest(1), &refresh(11), NOW).await.unwrap());
        let since = NOW - 10 * SECOND;
        assert!(!store.forgive_refresh_token(&digest(11), &refresh(13), since, NOW).await.unwrap(), "never used");
        assert!(store.rotate_refresh_token(&digest(11), &refresh(12), NOW).await.unwrap());
        assert!(
            !store.forgive_refresh_token(&digest(11), &refresh(13), NOW + 1, NOW + 1).await.unwrap(),
            "too long ago"
        );
        assert!(store.forgive_refresh_token(&digest(11), &refresh(13), since, NOW).await.unwrap(), "{}", fixture.name);
        assert_eq!(store.refresh_token(&digest(12)).await.unwrap(), None, "in place of the lost one");
        assert!(!store.forgive_refresh_token(&digest(11), &refresh(14), since, NOW).await.unwrap(), "once");
        assert!(store.rotate_refresh_token(&digest(13), &refresh(14), NOW).await.unwrap());

        // Its successor is in use, so it was not lost; and trying leaves no trace.
        assert!(store.rotate_refresh_token(&digest(14), &refresh(15), NOW).await.unwrap());
        assert!(!store.forgive_refresh_token(&digest(13), &refresh(16), since, NOW).await.unwrap());
        assert!(store.forgive_refresh_token(&digest(14), &refresh(16), since, NOW).await.unwrap());
        assert!(store.revoke_grant(grant(1).id, NOW).await.unwrap());
        assert!(store.rotate_refresh_token(&digest(16), &refresh(17), NOW).await.is_ok_and(|done| !done));
        assert!(!store.forgive_refresh_token(&digest(16), &refresh(17), since, NOW).await.unwrap(), "taken back");
    }
}

#[tokio::test]
async fn grants_that_were_taken_back_lately_are_listed() {
    for fixture in stores().await {
        let store = &fixture.store;
        let listed = async |since| {
            let mut ids = store.revoked_grants(since).await.unwrap();
            ids.sort_unstable();
            ids
        };
        register(store).await;
        let mut ids = Vec::new();
        for number in 1..=4 {
            ids.push(granted(store, number).await.id);
        }
        assert!(listed(0).await.is_empty(), "{}", fixture.name);
        store.revoke_grant(ids[0], NOW - HOUR).await.unwrap();
        store.revoke_grant(ids[1], NOW).await.unwrap();
        assert_eq!(listed(0).await, ids[..2]);
        assert_eq!(listed(NOW - HOUR).await, ids[..2], "the first moment counts");
        assert_eq!(listed(NOW - HOUR + 1).await, ids[1..2]);
        assert!(listed(NOW + 1).await.is_empty());
        // A client that is deactivated loses all it has, also what it was given after its grants were taken back.
        store.revoke_client(CLIENT, NOW + SECOND).await.unwrap();
        let late = granted(store, 5).await.id;
        assert_eq!(listed(NOW + SECOND).await, ids[2..4]);
        store.deactivate_client(CLIENT).await.unwrap();
        ids.push(late);
        assert_eq!(listed(NOW + SECOND).await, ids[2..], "{}", fixture.name);
        assert_eq!(listed(NOW + 60 * DAY).await, [late]);
    }
}

#[tokio::test]
async fn a_grant_stands_while_nobody_takes_it_or_its_client_back() {
    for fixture in stores().await {
        let store = &fixture.store;
        register(store).await;
        let (one, two, three) = (granted(store, 1).await, granted(store, 2).await, granted(store, 3).await);
        assert!(store.grant_stands(one.id, NOW).await.unwrap(), "{}", fixture.name);
        assert!(!store.grant_stands(one.id, one.expires_at_micros).await.unwrap());
        assert!(!store.grant_stands(grant(9).id, NOW).await.unwrap(), "unknown");
        store.revoke_grant(one.id, NOW).await.unwrap();
        assert!(!store.grant_stands(one.id, NOW).await.unwrap());
        assert_eq!(store.revoke_client(CLIENT, NOW).await.unwrap(), 2);
        assert_eq!(store.revoke_client(CLIENT, NOW).await.unwrap(), 0);
        assert_eq!(store.revoke_client("nobody", NOW).await.unwrap(), 0);
        assert!(!store.grant_stands(two.id, NOW).await.unwrap());
        let four = granted(store, 4).await;
        assert!(store.grant_stands(four.id, NOW).await.unwrap());
        assert!(store.deactivate_client(CLIENT).await.unwrap());
        assert!(!store.grant_stands(four.id, NOW).await.unwrap(), "its client is gone");
        assert!(!store.grant_stands(three.id, NOW).await.unwrap());
    }
}

#[tokio::test]
async fn a_device_waits_until_somebody_says_yes_or_no() {
    for fixture in stores().await {
        let store = &fixture.store;
        let poll =
            async |number: u64, at: i64| store.poll_device(&digest(number), CLIENT, Pace::Lengthen, at).await.unwrap();
        for number in 1..=3 {
            assert!(store.insert_device(&digest(number), &device(number)).await.unwrap());
        }
        assert!(!store.insert_device(&digest(4), &device(1)).await.unwrap(), "{}: the code is taken", fixture.name);
        assert_eq!(store.waiting_device("ABCD-0001", NOW).await.unwrap(), Some(device(1)));
        for unknown in ["ABCD-0009", "abcd-0001", "", "' or 1=1"] {
            assert_eq!(store.waiting_device(unknown, NOW).await.unwrap(), None);
        }
        assert_eq!(poll(9, NOW).await, Poll::Unknown);
        assert_eq!(store.poll_device(&digest(1), "other", Pace::Keep, NOW).await.unwrap(), Poll::AnotherClients);
        assert_eq!(poll(1, NOW).await, Poll::Pending);
        assert!(!store.redeem_device(&digest(1), &refresh(11), NOW).await.unwrap(), "nobody signed");

        assert!(!store.approve_device("ABCD-0009", &grant(1), NOW).await.unwrap());
        assert!(!store.approve_device("ABCD-0001", &grant(1), NOW + 300 * SECOND).await.unwrap(), "too late");
        let foreign = Grant { client_id: "other".into(), ..grant(1) };
        assert!(!store.approve_device("ABCD-0001", &foreign, NOW).await.unwrap());
        assert!(store.approve_device("ABCD-0001", &grant(1), NOW).await.unwrap());
        assert!(!store.approve_device("ABCD-0001", &grant(2), NOW).await.unwrap(), "once");
        assert!(!store.deny_device("ABCD-0001", NOW).await.unwrap());
        assert_eq!(store.waiting_device("ABCD-0001", NOW).await.unwrap(), None);
        assert_eq!(poll(1, NOW + 1).await, Poll::Approved(Box::new(grant(1))), "it does not matter how soon");
        assert!(!store.redeem_device(&digest(1), &refresh(11), NOW + 300 * SECOND).await.unwrap(), "too late");
        assert!(store.redeem_device(&digest(1), &refresh(11), NOW).await.unwrap());
        assert!(!store.redeem_device(&digest(1), &refresh(12), NOW).await.unwrap(), "once");
        assert_eq!(poll(1, NOW).await, Poll::Unknown);
        assert_eq!(store.refresh_token(&digest(11)).await.unwrap().unwrap().grant, grant(1));

        assert!(store.deny_device("ABCD-0002", NOW).await.unwrap());
        assert!(!store.deny_device("ABCD-0002", NOW).await.unwrap());
        assert!(!store.approve_device("ABCD-0002", &grant(2), NOW).await.unwrap());
        assert_eq!(poll(2, NOW).await, Poll::Denied);
        assert_eq!(poll(3, NOW + 300 * SECOND).await, Poll::Expired, "and it is not forgotten at once");
        assert_eq!(store.sweep_oauth(NOW + 400 * SECOND, 100).await.unwrap(), 0);
        assert_eq!(poll(3, NOW + 400 * SECOND).await, Poll::Expired);
    }
}

#[tokio::test]
async fn a_device_that_polls_too_soon_has_to_wait_longer() {
    for fixture in stores().await {
        let store = &fixture.store;
        let poll = async |number: u64, pace: Pace, seconds: i64| {
            store.poll_device(&digest(number), CLIENT, pace, NOW + seconds * SECOND).await.unwrap()
        };
        store.insert_device(&digest(1), &device(1)).await.unwrap();
        //  after seconds, RFC 8628
        for (seconds, expected) in [
            (0, Poll::Pending),
            (4, Poll::TooSoon), // now 10
            (9, Poll::TooSoon), // now 15
            (24, Poll::Pending),
            (38, Poll::TooSoon), // now 20
            (58, Poll::Pending),
        ] {
            assert_eq!(poll(1, Pace::Lengthen, seconds).await, expected, "{} after {seconds} s", fixture.name);
        }
        assert_eq!(store.waiting_device("ABCD-0001", NOW).await.unwrap().unwrap().interval_seconds, 20);
        for _ in 0..20 {
            assert_eq!(poll(1, Pace::Lengthen, 59).await, Poll::TooSoon);
        }
        assert_eq!(
            store.waiting_device("ABCD-0001", NOW).await.unwrap().unwrap().interval_seconds,
            60,
            "and not for ever"
        );

        store.insert_device(&digest(2), &device(2)).await.unwrap();
        for (seconds, expected) in [(0, Poll::Pending), (4, Poll::TooSoon), (5, Poll::Pending), (9, Poll::TooSoon)] {
            assert_eq!(poll(2, Pace::Keep, seconds).await, expected, "{} after {seconds} s", fixture.name);
        }
        assert_eq!(store.waiting_device("ABCD-0002", NOW).await.unwrap().unwrap().interval_seconds, 5);
    }
}

/// Codes, nonces, refresh tokens, sessions and device codes, each presented by sixteen at the same time, eight at each of
/// two gateways.
#[tokio::test]
async fn whatever_is_good_for_one_use_has_one_winner() {
    for fixture in stores().await {
        let gateways = gateways(&fixture);
        for round in 0..25 {
            let (id, number) = (digest(500_000 + round), 2 * round);
            fixture.store.insert_challenge(&id, &challenge()).await.unwrap();
            fixture.store.insert_session(&id, &session()).await.unwrap();
            granted(&fixture.store, number).await;
            granted(&fixture.store, number + 1).await;
            assert!(fixture.store.redeem_code(&digest(number + 1), &refresh(10_000 + number), NOW).await.unwrap());
            fixture.store.insert_device(&digest(number), &device(round)).await.unwrap();
            assert!(
                fixture.store.approve_device(&device(round).user_code, &grant(800_000 + round), NOW).await.unwrap()
            );
            let racers = (0..16).map(|racer| {
                let store = gateways[racer % 2].clone();
                let racer = u64::try_from(racer).unwrap();
                let own = move |kind: u64| 1_000 * (1_000 * (round + 1) + 10 * racer + kind);
                async move {
                    let id = digest(500_000 + round);
                    let (number, token) = (2 * round, 10_000 + 2 * round);
                    [
                        store.consume_challenge(&id, NOW).await.unwrap().is_some(),
                        store.approve_session(&id, &grant(own(1)), &code(own(2)), NOW).await.unwrap(),
                        store.redeem_code(&digest(number), &refresh(own(3)), NOW).await.unwrap(),
                        store.rotate_refresh_token(&digest(token), &refresh(own(4)), NOW).await.unwrap(),
                        store.redeem_device(&digest(number), &refresh(own(5)), NOW).await.unwrap(),
                    ]
                }
            });
            let outcomes = together(racers).await;
            for kind in 0..5 {
                let winners = outcomes.iter().filter(|won| won[kind]).count();
                assert_eq!(winners, 1, "{} round {round} kind {kind}", fixture.name);
            }
        }
    }
}

#[tokio::test]
async fn a_forgiven_token_and_its_successor_are_never_both_exchanged() {
    for fixture in stores().await {
        let gateways = gateways(&fixture);
        for round in 0..25 {
            granted(&fixture.store, round).await;
            let number = 10_000 + 10 * round;
            assert!(fixture.store.redeem_code(&digest(round), &refresh(number), NOW).await.unwrap());
            assert!(fixture.store.rotate_refresh_token(&digest(number), &refresh(number + 1), NOW).await.unwrap());
            let (one, two) = (gateways[0].clone(), gateways[1].clone());
            let (forgiven, rotated) = tokio::join!(
                async { one.forgive_refresh_token(&digest(number), &refresh(number + 2), NOW, NOW).await.unwrap() },
                async { two.rotate_refresh_token(&digest(number + 1), &refresh(number + 3), NOW).await.unwrap() },
            );
            assert!(forgiven != rotated, "{} round {round}: {forgiven} {rotated}", fixture.name);
        }
    }
}

fn event(number: u64, at_micros: i64, kind: &str, outcome: &str) -> Event {
    Event {
        id: Uuid::from_u64_pair(number, number),
        at_micros,
        client_id: CLIENT.into(),
        kind: kind.into(),
        outcome: outcome.into(),
        reason: (outcome == "failure").then(|| "invalid_grant".into()),
        wallet: Some("evm".into()),
        subject: (outcome == "success").then(|| digest(number % 2)),
        scope: "openid tao:holder".into(),
        detail: r#"{"flow":"oauth"}"#.into(),
    }
}

#[tokio::test]
async fn events_are_listed_page_by_page_without_losing_one_of_the_same_microsecond() {
    for fixture in stores().await {
        let store = &fixture.store;
        let events: Vec<Event> = (0..10)
            .map(|number| event(number, NOW + i64::try_from(number / 4).unwrap(), "authorize", "success"))
            .collect();
        store.append_oauth_events(&events).await.unwrap();
        store.append_oauth_events(&events).await.unwrap();
        store
            .append_oauth_events(&[Event { client_id: "other".into(), ..event(99, NOW, "authorize", "success") }])
            .await
            .unwrap();
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let page = store.oauth_events(CLIENT, before, 3).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some((last.at_micros, last.id));
            found.extend(page);
        }
        found.reverse();
        assert_eq!(found, events, "{}", fixture.name);
        assert_eq!(store.delete_oauth_events_before(NOW + 2, 100).await.unwrap(), 9);
        assert_eq!(store.oauth_events(CLIENT, None, 100).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn statistics_count_exchanges_and_each_wallet_once() {
    for fixture in stores().await {
        let store = &fixture.store;
        let mut other = event(8, NOW, "token_exchange", "success");
        other.client_id = "other".into();
        store
            .append_oauth_events(&[
                event(1, NOW - DAY, "token_exchange", "success"),
                event(2, NOW, "token_exchange", "success"),
                event(4, NOW, "token_refresh", "success"),
                event(3, NOW + HOUR, "token_exchange", "success"),
                event(5, NOW + HOUR, "token_refresh", "failure"),
                event(6, NOW, "device_code_polled", "pending"),
                event(7, NOW, "authorize", "success"),
                other,
            ])
            .await
            .unwrap();
        let stats = store.oauth_stats(CLIENT, NOW - 1, 3600).await.unwrap();
        let counts = |successes, failures, distinct_users| Counts {
            exchanges: successes + failures,
            successes,
            failures,
            distinct_users,
        };
        assert_eq!(stats.totals, counts(3, 1, 2), "{}", fixture.name);
        assert_eq!(stats.reasons, [("invalid_grant".to_owned(), 1)]);
        assert_eq!(stats.scopes, [("openid tao:holder".to_owned(), 2)]);
        let hour = NOW / HOUR * 3600;
        assert_eq!(stats.buckets, [(hour, counts(2, 0, 1)), (hour + 3600, counts(1, 1, 1))]);
        let (total, mut clients) = store.oauth_overview(NOW - 1).await.unwrap();
        clients.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(total, counts(4, 1, 2));
        assert_eq!(clients, [("other".to_owned(), counts(1, 0, 1)), (CLIENT.to_owned(), counts(3, 1, 2))]);
        assert_eq!(store.oauth_stats("nobody", 0, 3600).await.unwrap(), ClientStats::default());
    }
}

#[tokio::test]
async fn what_nobody_can_present_any_more_is_removed_and_nothing_else() {
    for fixture in stores().await {
        let store = &fixture.store;
        let fill = async |base: u64| {
            store.insert_challenge(&digest(base), &challenge()).await.unwrap();
            store.insert_session(&digest(base), &session()).await.unwrap();
            granted(store, base + 1).await;
            assert!(store.redeem_code(&digest(base + 1), &refresh(base + 2), NOW).await.unwrap());
            store.insert_device(&digest(base), &device(base)).await.unwrap();
        };
        fill(100).await;
        assert_eq!(store.sweep_oauth(NOW + SECOND, 100).await.unwrap(), 0, "{}", fixture.name);
        assert_eq!(store.sweep_oauth(NOW + HOUR, 100).await.unwrap(), 2, "challenge, session");
        assert_eq!(store.sweep_oauth(NOW + 2 * HOUR, 100).await.unwrap(), 1, "device");
        assert!(store.code(&digest(101)).await.unwrap().is_some(), "kept, to recognise its second use");
        assert_eq!(store.sweep_oauth(NOW + DAY + HOUR, 100).await.unwrap(), 1, "code");
        assert!(store.refresh_token(&digest(102)).await.unwrap().is_some());
        assert_eq!(store.usable_refresh_tokens(NOW).await.unwrap(), 1, "{}", fixture.name);
        assert_eq!(store.usable_refresh_tokens(NOW + 2 * DAY).await.unwrap(), 0, "expired");
        assert_eq!(store.sweep_oauth(NOW + 3 * DAY, 100).await.unwrap(), 2, "refresh token and grant");
        assert_eq!(store.sweep_oauth(NOW + 3 * DAY, 100).await.unwrap(), 0);
        for base in [200, 300, 400] {
            fill(base).await;
        }
        assert_eq!(store.sweep_oauth(NOW + 99 * DAY, 1).await.unwrap(), 6, "few at a time");
    }
}
