//! Stub.
pub mod serve;
use super::fault::{Failed, Fault};
use crate::model::{
    hotkey::Hotkey,
    neuron::{NetUid, PublishedKey},
    secret::Secret,
};
use std::time::Duration;
#[derive(Debug)]
pub struct Subtensor(subxt::OnlineClient<subxt::SubstrateConfig>);
pub struct Options {
    pub url: Secret,
    pub genesis_hash: Option<[u8; 32]>,
    pub timeout: Duration,
}
impl Subtensor {
    pub fn new(_o: &Options) -> Result<Self, Failed> {
        Err(Failed::new(Fault::Rpc, "stub"))
    }
    pub async fn key(&self, _n: NetUid, _h: &Hotkey) -> Result<Option<PublishedKey>, Failed> {
        Ok(None)
    }
    pub async fn axon(&self, n: NetUid, h: &Hotkey) -> Result<Option<serve::Axon>, Failed> {
        serve::axon(&self.0, n, h).await.map_err(|e| Failed::new(Fault::Rpc, e.to_string()))
    }
    pub async fn publish(
        &self,
        n: NetUid,
        k: &[u8; 32],
        a: serve::Axon,
        s: &serve::Account<'_>,
    ) -> Result<(), serve::NotServed> {
        serve::publish(&self.0, n, k, a, s).await
    }
}
