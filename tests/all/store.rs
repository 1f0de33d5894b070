//! The contract of the store: every operation, against both databases.
//!
//! Postgres is the one at `TOLLGATE_TEST_POSTGRES`, the URL of a superuser; each test makes a database of its own there
//! and removes it. Without the variable the tests fail: a contract that was not tested on one side is not tested.

use std::{future::Future, sync::Arc, time::Duration};

use sqlx::{Connection, Executor, PgConnection};
use tollgate::{
    model::{
        address::EvmAddress,
        clock,
        credits::{CreditSource, Credits},
        did::Did,
        nonce::Nonce,
        secret::Secret,
        usage::{Terms, UsageEvent},
    },
    store::{Appended, GroupBy, Snapshot, Store, StoreOptions, StoreTarget, UsageFilter},
};
use uuid::Uuid;

const PLAN: Did = Did([0xaa; 32]);
const SERVICE: Did = Did([0x55; 32]);
const HOLDER: EvmAddress = EvmAddress([0x3c; 20]);
const CHAIN: CreditSource = CreditSource::Chain { contract: EvmAddress([0xc0; 20]) };
const DAY: i64 = 86_400_000_000;
/// 2026-11-18 11:06:40 UTC.
const THEN: i64 = 1_795_000_000_000_000;

/// An ordinary event; `number` makes it distinct, and is its time.
pub fn event(number: u64) -> UsageEvent {
    UsageEvent {
        event_id: Uuid::from_u64_pair(0x0192_0000_0000_7000, 0x8000_0000_0000_0000 | number),
        at_micros: THEN + i64::try_from(number).unwrap(),
        request_id: Some(format!("request-{number}").into()),
        terms: Arc::new(Terms {
            route: "weather".into(),
            listener: Some("public".into()),
            service: SERVICE,
            plan: Some(PLAN),
            holder: Some(HOLDER),
            user_id: HOLDER.checksummed().into(),
            owner: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into(),
            source: CHAIN,
        }),
        endpoint: "https://api.example.com/v1/forecast".into(),
        method: "GET".into(),
        status: 200,
        upstream_status: Some(200),
        reported: Some(Credits::new(3)),
        charged: Credits::new(3),
        duration_micros: 12_345,
        open: false,
    }
}

/// The same on other terms.
fn on(mut event: UsageEvent, change: impl FnOnce(&mut Terms)) -> UsageEvent {
    change(Arc::make_mut(&mut event.terms));
    event
}

fn held_by(event: UsageEvent, account: u8) -> UsageEvent {
    on(event, |terms| terms.holder = Some(EvmAddress([account; 20])))
}

fn on_plan(event: UsageEvent, plan: u8) -> UsageEvent {
    on(event, |terms| terms.plan = Some(Did([plan; 32])))
}

/// At a service that anybody may call.
fn open(event: UsageEvent) -> UsageEvent {
    let event = UsageEvent { open: true, charged: Credits::ZERO, ..event };
    on(event, |terms| (terms.plan, terms.holder) = (None, None))
}

fn local(number: u64, charged: u64) -> UsageEvent {
    let event = UsageEvent { charged: Credits::new(charged), ..event(number) };
    on(event, |terms| terms.source = CreditSource::Local)
}

/// A store of its own, gone when dropped.
pub struct Fixture {
    pub name: &'static str,
    pub store: Store,
    /// The database's URL; empty for `SQLite`.
    pub url: String,
    directory: Option<tempfile::TempDir>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let Some((server, database)) =
            self.url.rsplit_once('/').map(|(server, database)| (server.to_owned(), database.to_owned()))
        else {
            return;
        };
        // A thread with a runtime of its own, because a `drop` cannot wait for ours.
        let removed = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
                admin.execute(sqlx::AssertSqlSafe(format!("drop database {database} with (force)"))).await.unwrap();
            });
        });
        let _ = removed.join();
    }
}

fn options(target: StoreTarget) -> StoreOptions {
    StoreOptions { target, max_connections: 8, timeout: Duration::from_secs(10), access_tables: false, reports: true }
}

pub async fn sqlite() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&options(StoreTarget::Sqlite(directory.path().join("new/tollgate.db")))).unwrap();
    store.migrate().await.unwrap();
    Fixture { name: "sqlite", store, url: String::new(), directory: Some(directory) }
}

#[expect(clippy::disallowed_methods, reason = "a test's environment is no configuration")]
fn server() -> String {
    std::env::var("TOLLGATE_TEST_POSTGRES")
        .expect("TOLLGATE_TEST_POSTGRES: the URL of a Postgres superuser (scripts/test-env sets it)")
}

/// A fresh Postgres database in which `before` has run before the migrations.
pub async fn postgres(access_tables: bool, before: &'static str) -> Fixture {
    let server = server();
    let database = format!(
        "tollgate_test_{}",
        Uuid::from_u64_pair(u64::from(std::process::id()), u64::try_from(clock::now_micros()).unwrap()).simple()
    );
    let mut admin = PgConnection::connect(&server).await.unwrap();
    admin.execute(sqlx::AssertSqlSafe(format!("create database {database}"))).await.unwrap();
    let url = format!("{}/{database}", server.rsplit_once('/').unwrap().0);
    PgConnection::connect(&url).await.unwrap().execute(before).await.unwrap();
    let store =
        Store::open(&StoreOptions { access_tables, ..options(StoreTarget::Postgres(Secret::new(url.clone()))) })
            .unwrap();
    store.migrate().await.unwrap();
    Fixture { name: "postgres", store, url, directory: None }
}

/// One of each kind.
pub async fn stores() -> Vec<Fixture> {
    vec![sqlite().await, postgres(false, "").await]
}

async fn snapshot(store: &Store, source: CreditSource) -> Snapshot {
    store.snapshot(&source, &PLAN, &HOLDER).await.unwrap()
}

async fn balance(store: &Store) -> Option<i64> {
    store.balances(Some(&HOLDER), Some(&PLAN)).await.unwrap().first().map(|balance| balance.balance)
}

/// Waits for all of them at the same time.
async fn together<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    tasks.into_iter().collect::<tokio::task::JoinSet<_>>().join_all().await
}

#[tokio::test]
async fn migrations_may_be_applied_again_and_by_several_at_once() {
    for fixture in stores().await {
        fixture.store.migrate().await.unwrap();
        fixture.store.health().await.unwrap();
        let again = (0..4)
            .map(|_| fixture.store.clone())
            .map(|store| async move { store.migrate().await.map_err(|error| error.to_string()) });
        for result in together(again).await {
            assert_eq!(result, Ok(()), "{}", fixture.name);
        }
    }
}

#[tokio::test]
async fn an_event_comes_back_as_it_went_in() {
    for fixture in stores().await {
        let events = [
            event(1),
            on(open(UsageEvent { reported: None, upstream_status: None, ..event(2) }), |terms| {
                (terms.listener, terms.user_id, terms.owner) = (None, "".into(), "".into());
            }),
            UsageEvent {
                endpoint: "https://h/\u{1F600}'\"\\;--\u{7f}\n".into(),
                method: "WEIRD'".into(),
                reported: Some(Credits::MAX),
                ..event(3)
            },
            local(4, 0),
        ];
        assert_eq!(fixture.store.append_usage(&events).await.unwrap(), Appended { inserted: 4, known: 0 });
        let mut rows = fixture.store.list_usage(&UsageFilter::default(), 100).await.unwrap();
        rows.reverse();
        let back: Vec<_> = rows.iter().map(|row| row.event.clone()).collect();
        assert_eq!(back, events, "{}", fixture.name);
        for row in rows {
            assert!(row.recorded_at_micros > THEN - 400 * DAY, "{row:?}");
            assert_eq!((row.burned_at_micros, row.burn), (None, None), "nothing of this is burned");
        }
    }
}

#[tokio::test]
async fn a_nul_which_no_text_of_postgres_may_hold_does_not_make_an_event_unwritable() {
    for fixture in stores().await {
        fixture.store.append_usage(&[UsageEvent { endpoint: "https://h/\0x".into(), ..event(1) }]).await.unwrap();
        assert_eq!(&*fixture.store.show_usage("request-1").await.unwrap()[0].event.endpoint, "https://h/\u{fffd}x");
    }
}

#[tokio::test]
async fn a_batch_written_twice_counts_once() {
    for fixture in stores().await {
        let store = &fixture.store;
        store.grant(&HOLDER, &PLAN, Credits::new(100)).await.unwrap();
        let events = [local(1, 3), local(2, 4), event(3), local(1, 3)];
        assert_eq!(store.append_usage(&events).await.unwrap(), Appended { inserted: 3, known: 1 }, "{}", fixture.name);
        assert_eq!(store.append_usage(&events).await.unwrap(), Appended { inserted: 0, known: 4 });
        assert_eq!(store.append_usage(&[]).await.unwrap(), Appended::default());
        assert_eq!(balance(store).await, Some(93));
        assert_eq!(snapshot(store, CHAIN).await, Snapshot { balance: None, unburned: Credits::new(3) });
        assert_eq!(
            snapshot(store, CreditSource::Local).await,
            Snapshot { balance: Some(Credits::new(93)), unburned: Credits::ZERO }
        );
        let row = &store.show_usage(&local(1, 3).event_id.to_string()).await.unwrap()[0];
        assert_eq!(row.burn.as_deref(), Some("local"));
        assert!(row.burned_at_micros.is_some());
    }
}

#[tokio::test]
async fn writers_with_the_same_batch_at_the_same_time_burn_each_event_once() {
    for fixture in stores().await {
        fixture.store.grant(&HOLDER, &PLAN, Credits::new(10_000)).await.unwrap();
        let writers = (0..8).map(|writer| {
            let store = fixture.store.clone();
            async move {
                let mut inserted = 0;
                for batch in 0..5 {
                    // Overlapping, and in another order for every other writer.
                    let mut events: Vec<_> = (0..40)
                        .map(|number| held_by(local(batch * 20 + number, 1), u8::try_from(number % 3).unwrap()))
                        .collect();
                    if writer % 2 == 0 {
                        events.reverse();
                    }
                    inserted += store.append_usage(&events).await.unwrap().inserted;
                }
                inserted
            }
        });
        let inserted: u64 = together(writers).await.into_iter().sum();
        let rows = fixture.store.list_usage(&UsageFilter::default(), 1000).await.unwrap();
        assert_eq!((inserted, rows.len()), (120, 120), "{}", fixture.name);
        let debts: i64 = fixture
            .store
            .balances(None, Some(&PLAN))
            .await
            .unwrap()
            .iter()
            .filter(|account| account.holder != HOLDER)
            .map(|account| account.balance)
            .sum();
        assert_eq!(debts, -120, "{}", fixture.name);
    }
}

#[tokio::test]
async fn what_was_served_is_charged_even_into_debt() {
    for fixture in stores().await {
        let store = &fixture.store;
        store.append_usage(&[local(1, 5)]).await.unwrap();
        assert_eq!(balance(store).await, Some(-5), "{}", fixture.name);
        assert_eq!(snapshot(store, CreditSource::Local).await.balance, Some(Credits::ZERO));
        assert_eq!(store.grant(&HOLDER, &PLAN, Credits::new(7)).await.unwrap(), 2);
        assert_eq!(snapshot(store, CreditSource::Local).await.balance, Some(Credits::new(2)));
    }
}

#[tokio::test]
async fn an_account_is_its_source_its_plan_and_its_holder() {
    for fixture in stores().await {
        let store = &fixture.store;
        let other = CreditSource::Chain { contract: EvmAddress([0xc1; 20]) };
        store
            .append_usage(&[
                event(1),
                event(2),
                on(event(3), |terms| terms.source = other),
                on_plan(event(4), 1),
                held_by(event(5), 1),
                UsageEvent { charged: Credits::ZERO, ..event(6) },
                local(7, 3),
            ])
            .await
            .unwrap();
        for (source, unburned) in
            [(CHAIN, 6), (other, 3), (CreditSource::Local, 0), (CreditSource::Chain { contract: HOLDER }, 0)]
        {
            assert_eq!(snapshot(store, source).await.unburned, Credits::new(unburned), "{} {source:?}", fixture.name);
        }
        assert_eq!(
            store.snapshot(&CreditSource::Local, &PLAN, &EvmAddress([9; 20])).await.unwrap(),
            Snapshot { balance: None, unburned: Credits::ZERO }
        );
    }
}

#[tokio::test]
async fn sums_larger_than_a_number_are_the_largest_number() {
    for fixture in stores().await {
        let events = [1, 2, 3].map(|number| UsageEvent { charged: Credits::MAX, ..event(number) });
        fixture.store.append_usage(&events).await.unwrap();
        assert_eq!(snapshot(&fixture.store, CHAIN).await.unburned, Credits::MAX, "{}", fixture.name);
        assert_eq!(
            fixture.store.sum_usage(GroupBy::Route, &UsageFilter::default()).await.unwrap()[0].charged,
            Credits::MAX
        );
    }
}

#[tokio::test]
async fn usage_is_found_by_each_of_its_properties() {
    for fixture in stores().await {
        let store = &fixture.store;
        store
            .append_usage(&[
                event(1),
                held_by(event(2), 1),
                on_plan(event(3), 2),
                on(event(4), |terms| terms.service = Did([3; 32])),
                on(event(5), |terms| terms.route = "other".into()),
                UsageEvent { at_micros: THEN + DAY, request_id: Some("request-1".into()), ..event(6) },
            ])
            .await
            .unwrap();
        let all = UsageFilter::default;
        for (filter, found) in [
            (all(), vec![6, 5, 4, 3, 2, 1]),
            (UsageFilter { holder: Some(EvmAddress([1; 20])), ..all() }, vec![2]),
            (UsageFilter { plan: Some(Did([2; 32])), ..all() }, vec![3]),
            (UsageFilter { service: Some(Did([3; 32])), ..all() }, vec![4]),
            (UsageFilter { route: Some("other".into()), ..all() }, vec![5]),
            (UsageFilter { since_micros: Some(THEN + 5), ..all() }, vec![6, 5]),
            (UsageFilter { until_micros: Some(THEN + 3), ..all() }, vec![2, 1]),
            (UsageFilter { route: Some("other".into()), holder: Some(EvmAddress([1; 20])), ..all() }, vec![]),
        ] {
            let rows = store.list_usage(&filter, 100).await.unwrap();
            let numbers: Vec<_> = rows.iter().map(|row| row.event.event_id.as_u64_pair().1 & 0xff).collect();
            assert_eq!(numbers, found, "{} {filter:?}", fixture.name);
        }
        assert_eq!(store.list_usage(&all(), 2).await.unwrap().len(), 2);
        assert_eq!(store.show_usage("request-1").await.unwrap().len(), 2);
        assert_eq!(
            store.show_usage(&event(4).event_id.to_string()).await.unwrap()[0].event.terms.service,
            Did([3; 32])
        );
        assert_eq!(store.show_usage("' or true --").await.unwrap(), vec![]);
    }
}

#[tokio::test]
async fn sums_are_by_what_was_asked() {
    for fixture in stores().await {
        let store = &fixture.store;
        let open = open(UsageEvent { at_micros: THEN + DAY, ..event(3) });
        store.append_usage(&[event(1), local(2, 5), open]).await.unwrap();
        let holder = HOLDER.to_string();
        let (plan, service) = (PLAN.to_string(), SERVICE.to_string());
        for (by, expected) in [
            (GroupBy::Holder, vec![(holder.as_str(), 2, 8, 3), ("", 1, 0, 0)]),
            (GroupBy::Plan, vec![(plan.as_str(), 2, 8, 3), ("", 1, 0, 0)]),
            (GroupBy::Service, vec![(service.as_str(), 3, 8, 3)]),
            (GroupBy::Route, vec![("weather", 3, 8, 3)]),
            (GroupBy::Day, vec![("2026-11-18", 2, 8, 3), ("2026-11-19", 1, 0, 0)]),
        ] {
            let sums = store.sum_usage(by, &UsageFilter::default()).await.unwrap();
            let sums: Vec<_> =
                sums.iter().map(|sum| (sum.key.as_str(), sum.events, sum.charged.get(), sum.unburned.get())).collect();
            assert_eq!(sums, expected, "{} {by:?}", fixture.name);
        }
        let until = UsageFilter { until_micros: Some(THEN + 2), ..UsageFilter::default() };
        assert_eq!(store.sum_usage(GroupBy::Route, &until).await.unwrap()[0].events, 1);
    }
}

#[tokio::test]
async fn a_poisoned_event_is_the_fault_of_the_data_and_takes_nothing_with_it() {
    for fixture in stores().await {
        let store = &fixture.store;
        for poison in [
            UsageEvent { status: 1000, ..event(2) },
            on(event(2), |terms| terms.plan = None),
            // -(2^63 - 1) - 2 is not a balance.
            held_by(local(2, u64::MAX), 7),
        ] {
            let other = held_by(local(3, u64::MAX), 7);
            let error = store.append_usage(&[local(1, 3), poison, other]).await.unwrap_err();
            assert!(error.is_data() && !error.is_retryable(), "{} {error:?}", fixture.name);
            assert_eq!(store.list_usage(&UsageFilter::default(), 10).await.unwrap(), vec![], "all or nothing");
            assert_eq!(balance(store).await, None);
        }
        for _ in 0..2 {
            store.reject_usage("{\"a\":\"\0\"}", "the error").await.unwrap();
        }
        let rejected = store.rejected_usage(10).await.unwrap();
        assert_eq!(rejected.len(), 1, "the same record once");
        assert_eq!((rejected[0].raw.as_str(), rejected[0].error.as_str()), ("{\"a\":\"\u{fffd}\"}", "the error"));
    }
}

#[tokio::test]
async fn each_report_is_claimed_by_one_and_due_again_when_its_lease_ends() {
    for fixture in stores().await {
        let store = &fixture.store;
        let mut events: Vec<_> = (1..=40).map(event).collect();
        events.push(UsageEvent { status: 302, charged: Credits::ZERO, ..event(41) });
        events.push(open(event(42)));
        store.append_usage(&events).await.unwrap();
        store.append_usage(&events).await.unwrap();
        let (now, lease) = (THEN + DAY, Duration::from_mins(1));
        assert_eq!(store.claim_reports(10, THEN - 1, lease).await.unwrap(), vec![], "not due yet");

        let claims =
            (0..8).map(|_| store.clone()).map(|store| async move { store.claim_reports(5, now, lease).await.unwrap() });
        let mut claimed: Vec<_> =
            together(claims).await.into_iter().flatten().map(|job| (job.event.event_id, job.attempts)).collect();
        // Rows that another claimed at that moment are skipped, not waited for.
        loop {
            let more = store.claim_reports(5, now, lease).await.unwrap();
            if more.is_empty() {
                break;
            }
            claimed.extend(more.into_iter().map(|job| (job.event.event_id, job.attempts)));
        }
        claimed.sort();
        assert_eq!(claimed, (1..=40).map(|number| (event(number).event_id, 1)).collect::<Vec<_>>(), "{}", fixture.name);

        let done: Vec<_> = claimed.iter().skip(3).map(|(id, _)| *id).collect();
        store.mark_reported(&done).await.unwrap();
        store.fail_reports(&[claimed[1].0], Some(now + 1000), "status 500").await.unwrap();
        store.fail_reports(&[claimed[2].0], None, "status 400").await.unwrap();
        let sooner = store.claim_reports(10, now + 1000, lease).await.unwrap();
        assert_eq!(sooner.iter().map(|job| (job.event.clone(), job.attempts)).collect::<Vec<_>>(), vec![(event(2), 2)]);
        let later = store.claim_reports(10, now + 2 * 60_000_000, lease).await.unwrap();
        assert_eq!(
            later.iter().map(|job| job.event.clone()).collect::<Vec<_>>(),
            vec![event(1), event(2)],
            "the given-up one never"
        );
    }
}

#[tokio::test]
async fn retention_keeps_what_is_owed_and_what_is_not_reported() {
    for fixture in stores().await {
        let store = &fixture.store;
        let unreported = UsageEvent { charged: Credits::ZERO, ..event(4) };
        let young = UsageEvent { status: 500, charged: Credits::ZERO, at_micros: THEN + DAY, ..event(5) };
        store
            .append_usage(&[
                event(1),
                local(2, 1),
                UsageEvent { status: 500, charged: Credits::ZERO, ..event(3) },
                unreported,
                young,
            ])
            .await
            .unwrap();
        store.mark_reported(&[event(1).event_id, event(2).event_id]).await.unwrap();
        let mut deleted = Vec::new();
        while deleted.last() != Some(&0) {
            deleted.push(store.delete_usage_before(THEN + DAY, 1).await.unwrap());
        }
        assert_eq!(deleted, if fixture.name == "sqlite" { vec![2, 0] } else { vec![1, 1, 0] }, "{}", fixture.name);
        let left: Vec<_> =
            store.list_usage(&UsageFilter::default(), 10).await.unwrap().iter().map(|row| row.event.event_id).collect();
        assert_eq!(left, [5, 4, 1].map(|number| event(number).event_id));
        assert_eq!(balance(store).await, Some(-1), "the balance does not depend on old usage");
    }
}

/// Ids of version 7 of this second, of requests that began in it.
fn at_second(second: u64, number: u64) -> Uuid {
    Uuid::from_u64_pair(((1_795_000_000 + second) * 1000) << 16 | 0x7000, 0x8000_0000_0000_0000 | number)
}

#[tokio::test]
async fn an_event_counts_once_in_whatever_order_and_company_it_comes_again() {
    for fixture in stores().await {
        let store = &fixture.store;
        // Requests of a minute, some of which ended much later than they began, in batches that overlap.
        let events: Vec<_> = (0..600)
            .map(|number| {
                let began = if number % 50 == 7 { 0 } else { number / 10 };
                UsageEvent { event_id: at_second(began, number), ..local(number, 1) }
            })
            .collect();
        let mut known = std::collections::HashSet::new();
        for (from, to) in [(0, 200), (150, 350), (0, 100), (340, 600), (0, 600), (599, 600)] {
            let mut batch = events[from..to].to_vec();
            batch.reverse();
            let new = batch.iter().filter(|event| known.insert(event.event_id)).count();
            let expected = Appended { inserted: new as u64, known: (to - from - new) as u64 };
            assert_eq!(store.append_usage(&batch).await.unwrap(), expected, "{} {from}..{to}", fixture.name);
        }
        assert_eq!(balance(store).await, Some(-600), "{}", fixture.name);
        for number in [0, 7, 57, 58, 599] {
            let id = events[number].event_id.to_string();
            let rows = store.show_usage(&id).await.unwrap();
            assert_eq!(rows.iter().map(|row| &row.event).collect::<Vec<_>>(), [&events[number]], "{}", fixture.name);
        }
        assert_eq!(store.show_usage(&at_second(3, 9999).to_string()).await.unwrap(), vec![]);
        let latest = store.list_usage(&UsageFilter::default(), 7).await.unwrap();
        let expected: Vec<_> = events.iter().rev().take(7).collect();
        assert_eq!(latest.iter().map(|row| &row.event).collect::<Vec<_>>(), expected, "{}", fixture.name);
        let sums = store.sum_usage(GroupBy::Plan, &UsageFilter::default()).await.unwrap();
        assert_eq!((sums[0].events, sums[0].charged), (600, Credits::new(600)), "{}", fixture.name);
    }
}

#[tokio::test]
async fn rows_of_an_earlier_version_become_batches() {
    let fixture = sqlite().await;
    let store = &fixture.store;
    let file = fixture.directory.as_ref().unwrap().path().join("new/tollgate.db");
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    for (number, source, contract, burn) in
        [(1, "chain", Some(EvmAddress([0xc0; 20])), None), (2, "local", None, Some("local"))]
    {
        sqlx::query(
            "insert into usage (event_id, occurred_at, recorded_at, request_id, route, listener, service, plan, holder, user_id, owner,
                                endpoint, method, status, upstream_status, reported, charged, source, contract,
                                duration_micros, open, burned_at, burn)
             values ($1, $2, 77, $3, 'weather', 'public', $4, $5, $6, $7, $8, 'https://api.example.com/v1/forecast', 'GET', 200, 200,
                     3, 3, $9, $10, 12345, 0, case when $11 is null then null else 77 end, $11)",
        )
        .bind(event(number).event_id.to_string())
        .bind(event(number).at_micros)
        .bind(format!("request-{number}"))
        .bind(SERVICE.to_string())
        .bind(PLAN.to_string())
        .bind(HOLDER.to_string())
        .bind(HOLDER.checksummed())
        .bind(&*event(number).terms.owner)
        .bind(source)
        .bind(contract.map(|contract: EvmAddress| contract.to_string()))
        .bind(burn)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    sqlx::query("insert into usage_report (event_id, due_at, attempts, error) values ($1, $2, 4, 'status 500')")
        .bind(event(1).event_id.to_string())
        .bind(THEN)
        .execute(&mut connection)
        .await
        .unwrap();

    for _ in 0..2 {
        store.migrate().await.unwrap();
        let rows = store.list_usage(&UsageFilter::default(), 10).await.unwrap();
        let found: Vec<_> = rows.iter().map(|row| (&row.event, row.recorded_at_micros, row.burn.as_deref())).collect();
        assert_eq!(found, [(&local(2, 3), 77, Some("local")), (&event(1), 77, None)]);
        assert_eq!(snapshot(store, CHAIN).await.unburned, Credits::new(3));
        assert_eq!(balance(store).await, None, "it was burned when it was recorded");
    }
    assert_eq!(store.append_usage(&[event(1), local(2, 3)]).await.unwrap(), Appended { inserted: 0, known: 2 });
    let reports = store.claim_reports(10, THEN, Duration::from_mins(1)).await.unwrap();
    assert_eq!(reports.iter().map(|job| (&job.event, job.attempts)).collect::<Vec<_>>(), [(&event(1), 5)]);
}

#[tokio::test]
async fn a_request_is_used_once_and_forgotten_after_its_end() {
    for fixture in stores().await {
        let store = &fixture.store;
        let nonce = |number: u8, until_micros| Nonce { id: [number; 32], signed_at_micros: THEN, until_micros };
        let request = nonce(1, THEN);
        let uses = futures_util::future::join_all((0..40).map(|_| store.use_nonce(&request))).await;
        let new = uses.into_iter().filter(|new| *new.as_ref().unwrap()).count();
        assert_eq!(new, 1, "{}", fixture.name);
        for number in 2..6 {
            assert!(store.use_nonce(&nonce(number, THEN + i64::from(number))).await.unwrap());
        }
        assert_eq!(store.delete_nonces_before(THEN + 3, 1).await.unwrap(), 1);
        assert!(store.use_nonce(&nonce(1, THEN)).await.unwrap(), "the oldest is forgotten first");
        assert_eq!(store.delete_nonces_before(THEN + 3, 100).await.unwrap(), 2, "1 and 2");
        assert!(!store.use_nonce(&nonce(3, THEN + 3)).await.unwrap(), "what ends now has not ended");
        assert_eq!(store.delete_nonces_before(THEN + 100, 100).await.unwrap(), 3);
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_worth_trying_again() {
    let target = StoreTarget::Postgres(Secret::new("postgres://nobody@127.0.0.1:1/none".into()));
    let store = Store::open(&StoreOptions { timeout: Duration::from_millis(200), ..options(target) }).unwrap();
    let error = store.append_usage(&[event(1)]).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_data(), "{error:?}");
}

#[tokio::test]
async fn access_tables_need_postgres() {
    let target = StoreTarget::Sqlite("/nonexistent/tollgate.db".into());
    assert!(Store::open(&StoreOptions { access_tables: true, ..options(target) }).is_err());
}

/// The replaced system's tables in the types they might have: the ones our migration makes, and two that were there.
const ACCESS_TABLES: [&str; 3] = [
    "",
    r#"
    create table "accessTransactions" (
        "atxId" text primary key, did text, owner text, consumer text, "assetType" text, endpoint varchar(30), "accessResult" integer,
        "nvmCredits" integer, "createdAt" timestamptz not null, "updatedAt" timestamptz not null);
    create table "accessProcessorQueue" (
        "atxId" text primary key references "accessTransactions", status text not null default 'Pending', retried int not null default 0,
        "errorMessage" text not null default '', "createdAt" timestamptz not null, "updatedAt" timestamptz not null);
    "#,
    r#"
    create type queue_status as enum ('Pending', 'Done', 'Error');
    create table "accessTransactions" (
        extra serial, "atxId" uuid not null unique, did varchar not null, owner varchar, consumer varchar(42), "assetType" varchar, endpoint varchar, "accessResult" text,
        "nvmCredits" numeric(12, 2), "createdAt" timestamp not null, "updatedAt" timestamp not null, primary key (extra));
    create table "accessProcessorQueue" (
        "atxId" uuid primary key references "accessTransactions" ("atxId"), status queue_status not null, retried smallint not null,
        "errorMessage" varchar, "createdAt" timestamp not null, "updatedAt" timestamp not null);
    "#,
];

#[tokio::test]
async fn the_replaced_system_finds_each_delivered_request_once_whatever_types_its_tables_have() {
    for before in ACCESS_TABLES {
        let fixture = postgres(true, before).await;
        let store = &fixture.store;
        let events = [
            event(1),
            UsageEvent { reported: None, charged: Credits::ZERO, upstream_status: None, status: 201, ..event(2) },
            UsageEvent { charged: Credits::MAX, endpoint: format!("https://h/{}", "x".repeat(500)).into(), ..event(3) },
            UsageEvent { status: 404, charged: Credits::ZERO, ..event(4) },
            open(event(5)),
            local(6, 2),
        ];
        store.append_usage(&events).await.unwrap();
        store.append_usage(&events).await.unwrap();

        let mut connection = PgConnection::connect(&fixture.url).await.unwrap();
        let lines: Vec<String> = sqlx::query_scalar(
            r#"select concat_ws('|', right("atxId"::text, 1), left(did, 9), left(owner, 6), left(consumer, 6), "assetType", left(endpoint, 30), "accessResult",
                                     "nvmCredits", "createdAt" = to_timestamp(1795000000) at time zone 'UTC' + right("atxId"::text, 1)::int * interval '1 microsecond')
                 from "accessTransactions" order by "atxId""#,
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let (most, cents) = match before {
            "" => ("9223372036854775807", ""),
            integer if integer.contains("integer") => ("2147483647", ""),
            _ => ("9999999999", ".00"),
        };
        assert_eq!(
            lines,
            [
                format!("1|did:nv:55|0x7099|0x3C3C|Service|https://api.example.com/v1/for|200|3{cents}|t"),
                format!("2|did:nv:55|0x7099|0x3C3C|Service|https://api.example.com/v1/for|201|0{cents}|t"),
                format!("3|did:nv:55|0x7099|0x3C3C|Service|https://h/xxxxxxxxxxxxxxxxxxxx|200|{most}{cents}|t"),
                format!("6|did:nv:55|0x7099|0x3C3C|Service|https://api.example.com/v1/for|200|2{cents}|t"),
            ]
        );
        let queued = r#"select concat_ws('|', right("atxId"::text, 1), status, retried, "errorMessage") from "accessProcessorQueue" order by "createdAt""#;
        let queue: Vec<String> = sqlx::query_scalar(queued).fetch_all(&mut connection).await.unwrap();
        assert_eq!(
            queue,
            ["1|Pending|0|", "2|Pending|0|", "3|Pending|0|"],
            "what our own ledger paid is not burned on chain"
        );

        assert_eq!(store.adopt_burns(100).await.unwrap(), 0);
        assert_eq!(snapshot(store, CHAIN).await.unburned, Credits::MAX);
        connection
            .execute(r#"update "accessProcessorQueue" set status = 'Done' where right("atxId"::text, 1) = '3'"#)
            .await
            .unwrap();
        connection
            .execute(r#"update "accessProcessorQueue" set status = 'Error' where right("atxId"::text, 1) = '1'"#)
            .await
            .unwrap();
        assert_eq!(store.adopt_burns(100).await.unwrap(), 2);
        assert_eq!(store.adopt_burns(100).await.unwrap(), 0);
        assert_eq!(snapshot(store, CHAIN).await.unburned, Credits::ZERO);
        let burns = [1, 3].map(async |number| {
            store.show_usage(&event(number).event_id.to_string()).await.unwrap()[0].burn.clone().unwrap()
        });
        let [error, done] = burns;
        assert_eq!((error.await.as_str(), done.await.as_str()), ("queue-error", "queue"));
    }
}

#[tokio::test]
async fn a_table_of_the_replaced_system_that_we_cannot_fill_loses_no_usage() {
    let fixture =
        postgres(true, r#"create table "accessTransactions" ("atxId" uuid primary key, unheard_of text not null);"#)
            .await;
    let error = fixture.store.append_usage(&[event(1)]).await.unwrap_err();
    assert!(!error.is_data(), "it is the table's fault, and concerns every event: {error:?}");
    assert_eq!(fixture.store.list_usage(&UsageFilter::default(), 10).await.unwrap(), vec![]);
    let mut connection = PgConnection::connect(&fixture.url).await.unwrap();
    let wrong_type = r#"
        drop table "accessTransactions";
        create table "accessTransactions" (
            "atxId" bigint primary key, did text, owner text, consumer text, "assetType" text, endpoint text, "accessResult" text,
            "nvmCredits" bigint, "createdAt" timestamptz, "updatedAt" timestamptz);
    "#;
    connection.execute(wrong_type).await.unwrap();
    let error = fixture.store.append_usage(&[event(1)]).await.unwrap_err();
    assert!(!error.is_data(), "{error:?}");
    let repair = r#"
        drop table "accessTransactions";
        create table "accessTransactions" (
            "atxId" uuid primary key, did text, owner text, consumer text, "assetType" text, endpoint text, "accessResult" text,
            "nvmCredits" bigint, "createdAt" timestamptz, "updatedAt" timestamptz, added_by_somebody text not null);
    "#;
    connection.execute(repair).await.unwrap();
    let error = fixture.store.append_usage(&[event(1)]).await.unwrap_err();
    assert!(!error.is_data(), "{error:?}");
    connection.execute(r#"alter table "accessTransactions" drop added_by_somebody"#).await.unwrap();
    assert_eq!(fixture.store.append_usage(&[event(1)]).await.unwrap().inserted, 1);
}
