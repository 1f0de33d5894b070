//! Every key of the file changes what it should.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_key_has_an_effect() {
    let files = Files::new();
    let (cert, key) = (files.path("tls.crt"), files.path("tls.key"));
    let text = format!(
        r#"
[server]
threads = 3
data_dir = "d"
grace_period = "1s"
trusted_proxies = ["10.0.0.0/8"]
header_timeout = "2s"
body_timeout = "3s"
keepalive_timeout = "4s"
write_timeout = "5s"
max_header_bytes = "6KiB"
max_connections = 7
[[listener]]
name = "l"
address = "127.0.0.1:1"
[listener.tls]
alpn = ["http/1.1"]
client_certificates = "optional"
[[listener.tls.certificate]]
cert = "{cert}"
key = "{key}"
names = ["Gateway.Example"]
[admin]
address = ""
[introspection]
address = "127.0.0.1:2"
[database]
url = "postgres://h/d"
migrate_at_start = false
max_connections = 9
timeout = "8s"
access_tables = false
[usage]
spool_max_bytes = "10MiB"
segment_bytes = "1MiB"
sync_interval = "9ms"
when_full = "serve-unmetered"
retention = "11d"
[usage.report]
url = "http://b.example"
token_file = "{token}"
timeout = "12s"
[nevermined]
key_file = "{key_file}"
previous_key_phrase = "{PHRASE}"
backend = "http://b.example"
proxy_auth_token = "t"
token_cache_entries = 13
max_token_bytes = "14KiB"
[marketplace]
url = "http://m.example"
timeout = "15s"
fresh_for = "16s"
negative_for = "17s"
stale_for = "18s"
max_entries = 19
ca = "{cert}"
max_body_bytes = "20KiB"
[chain]
rpc = "http://r.example"
timeout = "21s"
stale_for = "24s"
ca = "{cert}"
[auth_request]
address = "127.0.0.1:48"
trusted_peers = ["10.9.0.0/16"]
compatibility = "nexus-auth"
health_path = "/alive"
[auth_request.neurons]
netuid = 43
registered = true
validator_permit = true
min_stake = 48
hotkeys = ["5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"]
deny_hotkeys = ["5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"]
[neurons]
netuid = 42
source = "pylon"
refresh = "43s"
stale_for = "44s"
stalled_for = "45s"
[pylon]
url = "http://p.example/base"
identity = "miner"
token_file = "{token}"
timeout = "46s"
ca = "{cert}"
[[pylon.subnet]]
netuid = 43
identity = "second"
token_file = "{token}"
[subtensor]
url = "wss://s.example/key"
genesis_hash = "0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03"
timeout = "47s"
[[service]]
id = "{SERVICE}"
plan = "{SERVICE}"
plan_kind = "time"
charge = "dynamic"
amount = 26
minimum = 27
maximum = 28
required = 29
owner = "o"
credits = "chain"
contract = "0x00000000000000000000000000000000000000c0"
open_endpoints = ["http://h/x"]
[credits]
refresh = "30s"
max_accounts = 31
[egress]
allow = ["10.0.0.0/8"]
extra_ca = "{cert}"
connect_timeout = "32s"
total_connect_timeout = "33s"
read_timeout = "34s"
write_timeout = "35s"
idle_timeout = "36s"
keepalive_pool = 37
resolve_ttl = "38s"
[signed_requests]
receiver = ["5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"]
require_receiver = false
max_age = "47s"
epistula_max_age = "48s"
max_skew = "49s"
max_body_bytes = 50
max_held_bytes = 51
replay = "memory"
[[upstream]]
name = "u"
addresses = ["h:1", "[::1]:2"]
tls = true
server_name = "n.example"
http2 = "always"
read_timeout = "39s"
[[route]]
name = "r"
hosts = ["a.example", "*.b.example"]
path = "/p"
methods = ["GET"]
upstream = "u"
accepts = ["nevermined"]
services = ["{SERVICE}"]
compatibility = "nevermined"
max_body_bytes = 40
hide_credits_header = true
forward = true
preserve_host = false
preserve_header_case = false
[route.cors]
allow_origins = ["https://o.example"]
allow_methods = ["PUT", "GET"]
allow_headers = ["X-A"]
expose_headers = ["NVMCreditsConsumed", "X-B"]
max_age = "41s"
allow_credentials = true
[[route]]
name = "n"
path = "/n"
upstream = "u"
accepts = ["client-certificate", "nevermined"]
services = ["{SERVICE}"]
compatibility = "nexus-auth"
[route.neurons]
netuid = 42
registered = true
validator_permit = true
min_stake = 45.5
hotkeys = ["5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"]
deny_hotkeys = ["5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"]
[[route]]
name = "s"
path = "/s"
upstream = "u"
accepts = ["btauth", "epistula", "epistula-lite"]
[route.neurons]
netuid = 43
[[route]]
name = "t"
upstream = "token"
open_endpoints = true
preserve_header_case = true
[log]
level = "trace"
access = false
format = "text"
"#,
        token = files.path("token"),
        key_file = files.path("key"),
    );
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.subnets(), [(NetUid(42), true), (NetUid(43), true)].into());
    let said = config.summary();
    for part in [
        "client certificates optional",
        "client certificate of one of 1 listed neurons of subnet 42, registered, with validator permit, with stake of 45.5 or more, 1 denied or Nevermined token of did:nv:",
        "Pylon http://p.example/base as miner, second, subnets 42, 43",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let shown = format!("{config:?}");
    for part in [
        "threads: 3, data_dir: \"d\", grace_period: 1s, trusted_proxies: [10.0.0.0/8]",
        "header_timeout: 2s, body_timeout: 3s, keepalive_timeout: 4s, write_timeout: 5s",
        "max_header_bytes: 6144, max_connections: 7",
        "name: \"l\", address: 127.0.0.1:1",
        "names: [\"gateway.example\"] }], alpn_h2: false, client_certificates: Optional",
        "admin: None, introspection: Some(Introspection { address: 127.0.0.1:2 })",
        "Postgres([secret]), migrate_at_start: false, max_connections: 9, timeout: 8s, access_tables: false",
        "spool_max_bytes: 10485760, segment_bytes: 1048576, sync_interval: 9ms, when_full: ServeUnmetered",
        "token: Some([secret]), timeout: 12s }), retention: Some(950400s)",
        "keys: [[secret], [secret]], backend: Some(",
        "proxy_auth_token: Some([secret]), token_cache_entries: 13, max_token_bytes: 14336",
        "timeout: 15s, freshness: Freshness { fresh_for: 16s, negative_for: 17s, stale_for: 18s, max_entries: 19 }, ca: Some(",
        "max_body_bytes: 20480",
        "Some(AuthRequest { address: 127.0.0.1:48, trusted_peers: [10.9.0.0/16], compatibility: NexusAuth, health_path: \"/alive\", \
         neurons: NeuronPolicy { netuid: NetUid(43), registered: true, validator_permit: true, min_stake: 48000000000, \
         hotkeys: Some({5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY}), \
         deny_hotkeys: {5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty} } })",
        "Neurons { netuid: NetUid(42), source: Pylon, refresh: 43s, stale_for: 44s, stalled_for: 45s }",
        "identity: PylonIdentity { name: \"miner\", token: Some([secret]) }, subnets: {NetUid(43): PylonIdentity { \
         name: \"second\", token: Some([secret]) }}, timeout: 46s, ca: Some(",
        "Subtensor { url: wss://s.example, genesis_hash: Some([47, 5, 85,",
        "timeout: 47s",
        "receivers: [5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY, 5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty], \
         require_receiver: false, max_age: 47s, epistula_max_age: 48s, max_skew: 49s, max_body_bytes: 50, \
         max_held_bytes: 51, replay: Some(Memory)",
        "accepts: [Btauth, Epistula, EpistulaLite], services: [], \
         neurons: Some(NeuronPolicy { netuid: NetUid(43), registered: true,",
        "rpc: http://r.example, timeout: 21s, stale_for: 24s, ca: Some(",
        "plan_kind: Time, price: Price { charge_type: Dynamic, amount: Credits(26), minimum: Some(Credits(27)), maximum: Some(Credits(28)), required: Credits(29) }, owner: \"o\"",
        "credits: Chain { contract: 0x00000000000000000000000000000000000000c0 }, open_endpoints: [\"http://h/x\"]",
        "refresh: 30s, max_accounts: 31",
        "allow: [10.0.0.0/8], extra_ca: Some(",
        "Timeouts { connect: 32s, total_connect: 33s, read: 34s, write: 35s, idle: 36s }, keepalive_pool: 37, resolve_ttl: 38s",
        "addresses: [HostPort { host: \"h\", port: 1 }, HostPort { host: \"::1\", port: 2 }], tls: true, server_name: Some(\"n.example\"), http2: Always",
        "Timeouts { connect: 32s, total_connect: 33s, read: 39s, write: 35s, idle: 36s } }]",
        "hosts: [Exact(\"a.example\"), Below(\".b.example\")], path: \"/p\", methods: [GET], target: Upstream(0), accepts: [Nevermined]",
        "compatibility: Nevermined, cors: Some(Cors { allow_origins: List([\"https://o.example\"]), allow_methods: Some(\"PUT,GET\"), allow_headers: Some(\"X-A\"), expose_headers: Some(\"NVMCreditsConsumed,X-B\"), max_age: 41s, allow_credentials: true })",
        "max_body_bytes: 40, hide_credits_header: true, forward: true, preserve_host: false, preserve_header_case: false",
        "accepts: [ClientCertificate, Nevermined]",
        "neurons: Some(NeuronPolicy { netuid: NetUid(42), registered: true, validator_permit: true, min_stake: 45500000000, hotkeys: Some({5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY}), deny_hotkeys: {5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty} }), access_token: None, open_endpoints: false, compatibility: NexusAuth",
        "open_endpoints: true, compatibility: Standard, cors: None, max_body_bytes: 67108864, hide_credits_header: false, forward: true, preserve_host: false, preserve_header_case: true",
        "Log { level: Trace, access: false, format: Text }",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
}
