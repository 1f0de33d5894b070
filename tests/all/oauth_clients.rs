//! Clients and limits of the authorization server in both databases, and how clients prove that they are themselves.

use std::{net::IpAddr, sync::Arc};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tollgate::{
    config::{Config, Environment, Flags, Sources},
    metrics::Metrics,
    model::{
        client::{Client, ClientAuthentication, GrantType, SignMethod},
        clock,
        secret::Secret,
    },
    oauth::{self, Code, Limit, RateKey, SigningKeys, client::Credentials, secret},
    store::Store,
};

use crate::{store::stores, support::oauth::data};

const THEN: i64 = 1_795_000_000_000_000;
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn client(id: &str) -> Client {
    Client {
        id: id.to_owned(),
        name: "Wetter \u{2600}".to_owned(),
        authentication: ClientAuthentication::None,
        redirect_uris: vec!["https://app.example/a,b\"c".to_owned(), String::new()],
        grant_types: GrantType::ALL.to_vec(),
        allowed_scopes: vec!["subnet:*:miner".to_owned()],
        allowed_origins: vec!["https://app.example".to_owned()],
        sign_method: SignMethod::Evm,
        rate_limit: -1,
        active: true,
        created_at_micros: THEN,
        updated_at_micros: THEN,
    }
}

#[tokio::test]
async fn a_client_comes_back_as_it_went_in() {
    for fixture in stores().await {
        let store = &fixture.store;
        let one = client("one");
        let authentication = ClientAuthentication::Secret("scrypt$x".to_owned());
        let two = Client { authentication, created_at_micros: THEN + 1, updated_at_micros: THEN + 1, ..client("two") };
        store.insert_client(&one).await.unwrap();
        store.insert_client(&two).await.unwrap();
        assert!(store.insert_client(&one).await.is_err(), "{}", fixture.name);
        assert!(store.client("one").await.unwrap().unwrap() == one, "{}", fixture.name);
        assert!(store.clients().await.unwrap() == [two, one], "{}", fixture.name);
        for nobody in ["", "One", "one ", "o\0ne", "' or 1=1 --"] {
            assert!(store.client(nobody).await.unwrap().is_none(), "{nobody:?}");
        }
        assert_eq!(store.client_origins().await.unwrap(), ["https://app.example"]);
    }
}

#[tokio::test]
async fn of_changes_at_the_same_time_one_counts() {
    for fixture in stores().await {
        let store = &fixture.store;
        store.insert_client(&client("one")).await.unwrap();
        let changes = (0..16).map(|number| {
            let (store, changed) = (store.clone(), Client { name: format!("{number}"), ..client("one") });
            async move { store.replace_client(&changed, THEN).await.unwrap() }
        });
        let won = changes.collect::<tokio::task::JoinSet<_>>().join_all().await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{}", fixture.name);
        let after = store.client("one").await.unwrap().unwrap();
        assert!(after.updated_at_micros > THEN && after.created_at_micros == THEN);
        assert!(!store.replace_client(&after, THEN).await.unwrap(), "it was read before");

        assert!(!store.set_client_secret("one", "hash").await.unwrap(), "a public client has none");
        assert!(store.deactivate_client("one").await.unwrap() && store.deactivate_client("one").await.unwrap());
        assert!(!store.deactivate_client("nobody").await.unwrap());
        let gone = store.client("one").await.unwrap().unwrap();
        assert!(!gone.active && store.client_origins().await.unwrap().is_empty());
        assert!(!store.replace_client(&gone, gone.updated_at_micros).await.unwrap(), "it is not active");
    }
}

#[tokio::test]
async fn what_is_taken_at_the_same_time_is_counted_once_each() {
    for fixture in stores().await {
        let takes = (0..50).map(|_| {
            let store = fixture.store.clone();
            async move { store.take_rate("key", THEN, 3).await.unwrap() }
        });
        let mut totals = takes.collect::<tokio::task::JoinSet<_>>().join_all().await;
        totals.sort_unstable();
        assert_eq!(totals, (1..=50).map(|number| number * 3).collect::<Vec<u64>>(), "{}", fixture.name);
        assert_eq!(fixture.store.take_rate("key", THEN + 60_000_000, 1).await.unwrap(), 1);
        assert_eq!(fixture.store.take_rate("other", THEN, 1).await.unwrap(), 1);
        assert_eq!(fixture.store.delete_rates_before(THEN + 1, 1).await.unwrap(), 1);
        assert_eq!(fixture.store.delete_rates_before(THEN + 1, 100).await.unwrap(), 1);
        assert_eq!(fixture.store.take_rate("key", THEN + 60_000_000, 1).await.unwrap(), 2);
    }
}

/// An authorization server over a store, as the environment describes it.
fn server(store: &Store, more: &[(&str, &str)]) -> oauth::State {
    let path = |name: &str| data(name).to_str().unwrap().to_owned();
    let base = [("RSA_PRIVATE_KEY_PATH", path("rsa.pem")), ("RSA_PUBLIC_KEY_PATH", path("rsa.pub.pem"))];
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let environment: Environment = base.into_iter().chain(more).collect();
    let config = Config::load(&Sources { file: None, environment, flags: Flags::default() }).unwrap();
    let settings = config.oauth.unwrap();
    let keys = SigningKeys::load(settings.keys.clone()).unwrap();
    let facts = oauth::WalletFacts { ethereum: None, owners: None };
    let events = oauth::Events::start(
        store.clone(),
        false,
        &tokio::runtime::Handle::current(),
        Arc::clone(&Metrics::new().unwrap().oauth),
    );
    oauth::State::new(settings, Arc::clone(keys.set()), store.clone(), facts, events)
}

fn basic(text: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap();
    HeaderMap::from_iter([(header::AUTHORIZATION, value)])
}

fn body(id: Option<&str>, secret: Option<&str>) -> Credentials {
    Credentials { client_id: id.map(str::to_owned), client_secret: secret.map(str::to_owned) }
}

/// A public client `public`, and a confidential one `private` whose secret is `s%:t`.
async fn registered(store: &Store) {
    store.insert_client(&client("public")).await.unwrap();
    let authentication = ClientAuthentication::Secret(secret::hash(&Secret::new("s%:t".into())).unwrap());
    store.insert_client(&Client { authentication, ..client("private") }).await.unwrap();
    store.insert_client(&client("gone")).await.unwrap();
    store.deactivate_client("gone").await.unwrap();
}

#[tokio::test]
async fn a_client_is_itself_by_basic_by_post_or_by_nothing() {
    for fixture in stores().await {
        registered(&fixture.store).await;
        for standard in [false, true] {
            let mode = if standard { "standard" } else { "auth-gateway" };
            let state = server(&fixture.store, &[("TOLLGATE_OAUTH_COMPATIBILITY", mode)]);
            let nothing = HeaderMap::new;
            //   headers, body, who in the old way, and who as the RFC has it
            for (headers, credentials, old, rfc) in [
                (nothing(), body(Some("public"), None), Some("public"), Some("public")),
                (nothing(), body(Some("public"), Some("x")), Some("public"), Some("public")),
                (nothing(), body(Some("private"), Some("s%:t")), Some("private"), Some("private")),
                (basic("private:s%25%3At"), body(None, None), Some("private"), Some("private")),
                (basic("private:s%25%3At"), body(Some("private"), None), Some("private"), Some("private")),
                (basic("private:s%25%3At"), body(Some("public"), None), Some("private"), None),
                (basic("private:s%25%3At"), body(None, Some("other")), Some("private"), None),
                (basic("private:s%:t"), body(None, None), None, None),
                (basic("private:s%:t"), body(Some("public"), None), Some("public"), None),
                (nothing(), body(None, None), None, None),
                (nothing(), body(Some(""), None), None, None),
                (nothing(), body(Some("private"), None), None, None),
                (nothing(), body(Some("private"), Some("")), None, None),
                (nothing(), body(Some("gone"), None), None, None),
                (nothing(), body(Some("nobody"), None), None, None),
                (nothing(), body(Some("public\0"), None), None, None),
            ] {
                let expected = if standard { rfc } else { old };
                let found = state.clients.authenticate(&headers, credentials.clone(), HERE).await;
                let who = found.as_ref().ok().map(|client| client.id.as_str());
                assert_eq!(who, expected, "{mode} {headers:?} {:?}", credentials.client_id);
                if let Err(error) = found {
                    assert!(error.is(Code::InvalidClient) || error.is(Code::InvalidRequest), "{error:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn secrets_cannot_be_tried_without_end_and_right_ones_are_not_counted() {
    let fixtures = stores().await;
    let store = &fixtures[0].store;
    registered(store).await;
    let state = server(store, &[]);
    let tries = |secret: &'static str, from: IpAddr| {
        let clients = Arc::clone(&state.clients);
        async move { clients.authenticate(&HeaderMap::new(), body(Some("private"), Some(secret)), from).await }
    };
    for _ in 0..40 {
        assert!(tries("s%:t", HERE).await.is_ok(), "a right secret is hashed once");
    }
    let mut limited = 0;
    // A minute may end in between.
    for _ in 0..21 {
        let error = tries("wrong", HERE).await.unwrap_err();
        limited += u32::from(!error.is(Code::InvalidClient));
    }
    assert!(limited > 0, "the hash is computed however often one asks");
    assert!(tries("s%:t", HERE).await.is_ok(), "who is known is not locked out");
    assert!(tries("wrong", IpAddr::from([127, 0, 0, 2])).await.unwrap_err().is(Code::InvalidClient));
}

#[tokio::test]
async fn an_old_secret_dies_with_its_rotation() {
    for fixture in stores().await {
        registered(&fixture.store).await;
        let state = server(&fixture.store, &[]);
        let nothing = HeaderMap::new();
        let ask = || state.clients.authenticate(&nothing, body(Some("private"), Some("s%:t")), HERE);
        assert!(ask().await.is_ok());
        let other = secret::hash(&Secret::new("other".into())).unwrap();
        assert!(fixture.store.set_client_secret("private", &other).await.unwrap());
        state.clients.forget("private").await;
        assert!(ask().await.unwrap_err().is(Code::InvalidClient), "{}", fixture.name);
        fixture.store.deactivate_client("private").await.unwrap();
        state.clients.forget("private").await;
        assert!(state.clients.active("private").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn never_more_pass_than_the_limit_and_all_of_a_small_one_do() {
    for fixture in stores().await {
        let [one, two] = [(); 2].map(|()| server(&fixture.store, &[]).rates);
        for limit in [1, 5, 30, 64] {
            // Not over the end of a minute.
            while clock::now_micros().rem_euclid(60_000_000) > 50_000_000 {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            let takes = (0..200).map(|number| {
                let rates = Arc::clone(if number % 2 == 0 { &one } else { &two });
                let key = RateKey::address("test", &limit.to_string(), HERE);
                async move { rates.take(key, Limit(limit)).await.is_ok() }
            });
            let passed =
                takes.collect::<tokio::task::JoinSet<_>>().join_all().await.into_iter().filter(|it| *it).count();
            assert_eq!(passed, usize::try_from(limit).unwrap(), "{}", fixture.name);
        }
    }
}
