use std::sync::atomic::AtomicUsize;

use tokio::runtime::Handle;

use super::{super::cache, *};

const SUBNET: NetUid = NetUid(2);
const MINUTE: Duration = Duration::from_mins(1);

fn hotkey(number: u32) -> Hotkey {
    let mut account = [7; 32];
    account[..4].copy_from_slice(&number.to_le_bytes());
    Hotkey(account)
}

fn table(block: u64, keys: &[(u32, u8)]) -> Subnet {
    let keys = keys.iter().map(|(number, key)| (hotkey(*number), PublishedKey::Ed25519([*key; 32]))).collect();
    Subnet { block, keys, neurons: None }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what is asked for")]
fn key(key: u8) -> Result<Option<PublishedKey>, Denial> {
    Ok(Some(PublishedKey::Ed25519([key; 32])))
}

#[tokio::test]
async fn a_table_is_believed_for_as_long_as_is_said() {
    let clock = Clock::manual();
    let neurons = Neurons::new([SUBNET], 10 * MINUTE, clock.clone()).believed_of_absent(MINUTE);
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, Err(UNAVAILABLE), "there is no table yet");
    neurons.publish(SUBNET, table(1, &[(1, 1)]));
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, key(1));
    assert_eq!(neurons.key(SUBNET, &hotkey(2)).await, Ok(None));
    assert_eq!(neurons.key(NetUid(3), &hotkey(1)).await, Err(UNAVAILABLE), "another subnet");
    assert_eq!(neurons.neuron(SUBNET, &hotkey(1)), Err(UNAVAILABLE), "the source did not say");

    clock.advance(2 * MINUTE);
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, key(1));
    assert_eq!(neurons.key(SUBNET, &hotkey(2)).await, Err(UNAVAILABLE), "it may have come since");
    clock.advance(9 * MINUTE);
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, Err(UNAVAILABLE), "too old");
    neurons.publish(SUBNET, table(2, &[(1, 1)]));
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, key(1));
}

#[tokio::test]
async fn a_chain_that_does_not_move_on_is_not_believed_for_ever() {
    let clock = Clock::manual();
    let neurons = Neurons::new([SUBNET], 10 * MINUTE, clock.clone()).believed_while_stalled(5 * MINUTE);
    for _ in 0..6 {
        neurons.publish(SUBNET, table(7, &[(1, 1)]));
        assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, key(1));
        clock.advance(Duration::from_secs(59));
    }
    neurons.publish(SUBNET, table(7, &[(1, 1)]));
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, Err(UNAVAILABLE));
    neurons.publish(SUBNET, table(8, &[(1, 1)]));
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, key(1));
    for _ in 0..10 {
        neurons.publish(SUBNET, table(0, &[(1, 1)]));
        clock.advance(MINUTE);
        assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, key(1), "a source that names no block is believed");
    }
}

#[tokio::test]
async fn a_source_does_not_go_back() {
    let clock = Clock::manual();
    let neurons = Neurons::new([SUBNET], MINUTE, clock.clone());
    neurons.refresh(SUBNET, async { Ok(table(9, &[(1, 2)])) }).await.unwrap();
    let failed = neurons.refresh(SUBNET, async { Ok(table(8, &[(1, 1)])) }).await.unwrap_err();
    assert_eq!(failed.fault, Fault::Behind, "{failed}");
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, key(2));
    // A chain that was made anew has low numbers again, once the old table is forgotten.
    clock.advance(2 * MINUTE);
    neurons.refresh(SUBNET, async { Ok(table(1, &[(1, 3)])) }).await.unwrap();
    assert_eq!(neurons.key(SUBNET, &hotkey(1)).await, key(3));
    let glance = neurons.glances().next().unwrap();
    assert_eq!((glance.block, glance.keys, glance.readings.failed(Fault::Behind)), (1, 1, 1));
}

#[tokio::test]
async fn what_is_known_of_a_subnet_is_shared_and_what_is_missing_stays_missing() {
    const OTHER: NetUid = NetUid(3);
    let clock = Clock::manual();
    let before = Neurons::new([SUBNET, OTHER], MINUTE, clock.clone());
    before.publish(SUBNET, table(1, &[(1, 1)]));
    assert_eq!(before.key(OTHER, &hotkey(1)).await, Err(UNAVAILABLE), "another subnet's table says nothing of it");

    clock.advance(MINUTE / 2);
    let after = Neurons::new([SUBNET, NetUid(4)], 2 * MINUTE, clock.clone()).sharing(&before);
    assert_eq!(after.key(SUBNET, &hotkey(1)).await, key(1));
    for netuid in [OTHER, NetUid(4)] {
        assert_eq!(after.key(netuid, &hotkey(1)).await, Err(UNAVAILABLE), "{netuid}");
    }
    after.publish(SUBNET, table(2, &[(1, 2)]));
    assert_eq!(before.key(SUBNET, &hotkey(1)).await, key(2), "who still asks the one before is told the same");
    let ages: HashMap<_, _> = after.glances().map(|glance| (glance.netuid, glance.age)).collect();
    assert_eq!(ages, HashMap::from([(SUBNET, Duration::ZERO), (NetUid(4), Duration::ZERO)]));
    clock.advance(MINUTE + MINUTE / 2);
    assert_eq!((before.key(SUBNET, &hotkey(1)).await, after.key(SUBNET, &hotkey(1)).await), (Err(UNAVAILABLE), key(2)));
}

/// Single look-ups that are counted. Even hotkeys have a key.
fn counted(limit: cache::Limit, clock: &Clock) -> (LookUps, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let options = cache::Options { unvouched: limit, capacity: 50_000, ..cache::Options::default() };
    let counter = Arc::clone(&asked);
    let look_ups = Cache::new(
        Dependency::Neurons,
        options,
        clock.clone(),
        Handle::current(),
        move |(_, hotkey): (NetUid, Option<Hotkey>)| {
            counter.fetch_add(1, Relaxed);
            let even = hotkey.is_none_or(|Hotkey([first, ..])| first % 2 == 0);
            Box::pin(async move { Ok(even.then_some(PublishedKey::Ed25519([9; 32]))) })
        },
    );
    (look_ups, asked)
}

#[tokio::test]
async fn strangers_are_asked_for_once_and_cost_the_known_nothing() {
    let clock = Clock::manual();
    let limit = cache::Limit { per_second: 5.try_into().unwrap(), burst: 50 };
    let (look_ups, asked) = counted(limit, &clock);
    let neurons = Neurons::new([SUBNET], MINUTE, clock.clone()).with_look_ups(look_ups);
    assert_eq!(neurons.key(SUBNET, &hotkey(4)).await, Err(UNAVAILABLE), "nobody is asked for without a table");
    assert_eq!(neurons.own_key(SUBNET).await, Err(UNAVAILABLE));
    assert_eq!(asked.load(Relaxed), 0);

    neurons.publish(SUBNET, table(1, &[(3, 3)]));
    assert_eq!(neurons.key(SUBNET, &hotkey(4)).await, key(9));
    assert_eq!(neurons.key(SUBNET, &hotkey(5)).await, Ok(None));
    assert_eq!(neurons.own_key(SUBNET).await, key(9));
    assert_eq!(asked.load(Relaxed), 3);
    let mut limited = 0;
    for stranger in 1_000..11_000 {
        match neurons.key(SUBNET, &hotkey(stranger)).await {
            Ok(_) => {}
            Err(Denial::TooManyRequests { .. }) => limited += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!(neurons.key(SUBNET, &hotkey(3)).await, key(3), "a known one is not kept waiting");
    }
    assert_eq!((asked.load(Relaxed), limited), (51, 9_952));
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_read_again_but_not_for_everybody() {
    let clock = Clock::manual();
    let limit = cache::Limit { per_second: 5.try_into().unwrap(), burst: 50 };
    let neurons = Neurons::new([SUBNET], 10 * MINUTE, clock.clone()).with_look_ups(counted(limit, &clock).0);
    let neurons = Arc::new(neurons);
    neurons.publish(SUBNET, table(1, &[(1, 1)]));
    let readings = Arc::<AtomicUsize>::default();
    tokio::spawn({
        let (neurons, readings) = (Arc::clone(&neurons), Arc::clone(&readings));
        async move {
            loop {
                neurons.subnets[&SUBNET].wake.notified().await;
                let reading = readings.fetch_add(1, Relaxed) as u64 + 2;
                neurons.refresh(SUBNET, async { Ok(table(reading, &[(1, 2)])) }).await.unwrap();
            }
        }
    });
    assert_eq!(neurons.key_again(SUBNET, &hotkey(1)).await, key(1), "the table is young");
    clock.advance(Duration::from_secs(2));
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let neurons = Arc::clone(&neurons);
            tokio::spawn(async move { neurons.key_again(SUBNET, &hotkey(1)).await })
        })
        .collect();
    for caller in crowd {
        assert_eq!(caller.await.unwrap(), key(2));
    }
    assert_eq!(readings.load(Relaxed), 1);
    clock.advance(Duration::from_secs(2));
    assert_eq!(neurons.key_again(SUBNET, &hotkey(1)).await, key(2));
    assert_eq!(readings.load(Relaxed), 1, "not so soon");
    clock.advance(AGAIN_EVERY);
    assert_eq!(neurons.key_again(SUBNET, &hotkey(1)).await, key(2));
    assert_eq!(readings.load(Relaxed), 2);
}
