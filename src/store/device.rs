//! Devices that wait for somebody to sign for them (RFC 8628).

use super::{
    Result, Store,
    challenge::Digest,
    grant::{Grant, NewRefreshToken, on},
    postgres, sqlite,
};

/// A device that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What the user types.
    pub user_code: String,
    /// Who asks.
    pub client_id: String,
    /// For which scopes, with a blank between them.
    pub scope: String,
    /// For which resources.
    pub resource: String,
    /// Seconds between two polls.
    pub interval_seconds: u32,
    /// The end of its life, in microseconds since the Unix epoch.
    pub expires_at_micros: i64,
}

/// What a poll found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// No such device.
    Unknown,
    /// It is another client's.
    AnotherClients,
    /// Nobody has signed in time.
    Expired,
    /// Somebody said no.
    Denied,
    /// Nobody has signed yet.
    Pending,
    /// Nobody has signed yet, and the device asks too often.
    TooSoon,
    /// Somebody has signed; this is what they granted.
    Approved(Box<Grant>),
}

/// How polls that come too soon are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The interval grows by five seconds each time (RFC 8628 section 3.5).
    Lengthen,
    /// The interval stays, and the poll does not count, as the replaced server had it (auth-gateway.md section 4.4).
    Keep,
}

/// An interval does not grow beyond this: a device that polled wildly for a while still gets its answer.
pub(super) const LONGEST_INTERVAL_SECONDS: i32 = 60;
/// What is over is kept this long, so that a device learns how it ended.
pub(super) const REMEMBERED_MICROS: i64 = 3_600_000_000;

impl Store {
    /// Keeps a device. False: its user code is taken.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn insert_device(&self, digest: &Digest, device: &Device) -> Result<bool> {
        on!(self, oauth_device::insert(digest, device))
    }

    /// The device that shows this user code and still waits.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn waiting_device(&self, user_code: &str, now_micros: i64) -> Result<Option<Device>> {
        on!(self, oauth_device::waiting(user_code, now_micros))
    }

    /// Somebody signed for the device that shows this user code. False: it does not wait any more.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn approve_device(&self, user_code: &str, grant: &Grant, now_micros: i64) -> Result<bool> {
        on!(self, oauth_device::approve(user_code, grant, now_micros))
    }

    /// Somebody said no to the device that shows this user code. False: it does not wait any more.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn deny_device(&self, user_code: &str, now_micros: i64) -> Result<bool> {
        on!(self, oauth_device::deny(user_code, now_micros))
    }

    /// A device asks how it stands.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn poll_device(&self, digest: &Digest, client_id: &str, pace: Pace, now_micros: i64) -> Result<Poll> {
        on!(self, oauth_device::poll(digest, client_id, pace, now_micros))
    }

    /// Exchanges an approved device's code for the first refresh token of its grant, in one transaction. False: somebody
    /// was faster, or it has expired.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn redeem_device(&self, digest: &Digest, token: &NewRefreshToken, now_micros: i64) -> Result<bool> {
        on!(self, oauth_device::redeem(digest, token, now_micros))
    }
}
