//! The auth gateway's variables (auth-gateway.md section 8).

/// Those that nobody else had: one that is set says that the auth gateway is to be replaced.
pub(super) const ITS_OWN: [&str; 10] = [
    "RSA_PRIVATE_KEY_BASE64",
    "RSA_PRIVATE_KEY_PATH",
    "RSA_PUBLIC_KEY_BASE64",
    "RSA_PUBLIC_KEY_PATH",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "JWT_AUTH_CODE_EXPIRY",
    "ADMIN_API_KEY",
    "ADMIN_API_KEY_FILE",
    "VERIFICATION_URI",
];

/// Every variable that has an effect where there is no file and one of its own is set, and which. Those marked † may
/// instead be given as a file, whose name is in the variable with `_FILE` at its end. An empty variable counts as unset.
/// `DATABASE_URL` and `TOLLGATE_…` count as well.
pub const AUTH_GATEWAY_VARIABLES: [(&str, &str); 34] = [
    ("HOST", "address that everything is served at (0.0.0.0)"),
    ("PORT", "its port (3000)"),
    ("NODE_ENV", "`production` demands https and an admin key (development)"),
    ("TRUST_PROXY", "whose X-Forwarded-For is believed: true, false, a number of proxies, or networks (false)"),
    ("NETWORK", "`mainnet` or `testnet` (mainnet)"),
    ("SUBTENSOR_WS_URL", "node of the chain, which knows whose hotkeys are whose (the public one of NETWORK) †"),
    ("SUBTENSOR_QUERY_TIMEOUT_MS", "how long it may take to answer, in milliseconds (10000)"),
    ("RSA_PRIVATE_KEY_BASE64", "signing key: base64 of a PEM file"),
    ("RSA_PUBLIC_KEY_BASE64", "its public half, the same way"),
    ("RSA_PRIVATE_KEY_PATH", "signing key: PEM file, unless it is given in base64"),
    ("RSA_PUBLIC_KEY_PATH", "its public half, the same way"),
    ("PUBLIC_URL", "where clients and browsers reach it (http://localhost:3000)"),
    ("JWT_ISSUER", "its name in tokens (PUBLIC_URL)"),
    ("JWT_AUDIENCE", "whom access tokens are for (bittensor-apps)"),
    ("JWT_ACCESS_TOKEN_EXPIRY", "lifetime of access tokens in seconds (900)"),
    ("JWT_REFRESH_TOKEN_EXPIRY", "lifetime of refresh tokens in seconds (86400)"),
    ("JWT_AUTH_CODE_EXPIRY", "lifetime of authorization codes in seconds (30)"),
    ("CHALLENGE_TTL_SECONDS", "lifetime of challenges in seconds (120)"),
    ("DEVICE_CODE_TTL_SECONDS", "lifetime of device codes in seconds (300)"),
    ("DEVICE_CODE_POLL_INTERVAL", "seconds between two questions of a device (5)"),
    ("VERIFICATION_URI", "where users enter a device's code (PUBLIC_URL/v1/device/verify)"),
    ("RATE_LIMIT_GLOBAL", "requests of one address in a minute (30)"),
    ("RATE_LIMIT_CHALLENGE", "those for and with signatures, at each endpoint (5)"),
    ("ADMIN_API_KEY", "opens the admin API; without it nobody gets in †"),
    ("ADMIN_PORT", "port of its own for the admin API (0: none)"),
    ("METRICS_PORT", "port of health and metrics (3002); TOLLGATE_LISTEN_ADMIN wins"),
    ("RUN_MIGRATIONS", "anything but `true` leaves the database's schema alone (true)"),
    ("JSON_BODY_LIMIT_BYTES", "largest request body (65536)"),
    ("DEMO_MODE", "`true` makes clients for the demonstration (false)"),
    ("WALLET_BANNER_URL", "where pages send those who have no wallet (nowhere)"),
    ("ENABLE_EVENT_LOG", "anything but `true` remembers no sign-ins (true)"),
    ("EVENT_LOG_RETENTION_DAYS", "how long they are remembered (30)"),
    ("TOLLGATE_OAUTH_COMPATIBILITY", "`standard` for the RFCs' status numbers (auth-gateway)"),
    ("TOLLGATE_SIGNING_KEYS", "folder of signing keys that `tollgate key` keeps, instead of RSA_…"),
];

/// Those that change nothing here, and why. Each that is set is warned of.
pub(in crate::config) const AUTH_GATEWAY_WITHOUT_EFFECT: [(&str, &str); 6] = [
    ("MIGRATIONS_DIR", "the migrations are in the program"),
    ("APP_VERSION", VERSION),
    ("GIT_COMMIT", VERSION),
    ("SUBTENSOR_BLOCK_TIME", "nothing that is remembered ends with an epoch"),
    ("TAOSTATS_API_URL", TAOSTATS),
    ("TAOSTATS_API_KEY", TAOSTATS),
];

const VERSION: &str = "the program knows its version";
const TAOSTATS: &str = "only the chain itself is asked";
