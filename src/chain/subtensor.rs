//! Stub.
pub mod serve;
use super::fault::{Failed, Fault};
use crate::model::{
    hotkey::Hotkey,
    neuron::{NetUid, PublishedKey},
    secret::Secret,
};
use std::{sync::Arc, time::Duration};
pub struct Subtensor(Secret);
pub struct Options {
    pub url: Secret,
    pub genesis_hash: Option<[u8; 32]>,
    pub timeout: Duration,
}
#[derive(subxt::ext::scale_decode::DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Cert {
    public_key: Vec<u8>,
    algorithm: u8,
}
fn bad(e: impl std::fmt::Display) -> Failed {
    Failed::new(Fault::Rpc, e.to_string())
}
impl Subtensor {
    pub fn new(o: &Options) -> Result<Self, Failed> {
        Ok(Self(o.url.clone()))
    }
    async fn c(&self) -> Result<subxt::OnlineClient<subxt::SubstrateConfig>, Failed> {
        let rpc = subxt::rpcs::RpcClient::from_insecure_url(self.0.expose()).await.map_err(bad)?;
        subxt::OnlineClient::from_backend(Arc::new(subxt::backend::LegacyBackend::builder().build(rpc)))
            .await
            .map_err(bad)
    }
    pub async fn key(&self, n: NetUid, h: &Hotkey) -> Result<Option<PublishedKey>, Failed> {
        let c = self.c().await?;
        let b = c.at_current_block().await.map_err(bad)?;
        let item = subxt::dynamic::storage::<(u16, [u8; 32]), Cert>("SubtensorModule", "NeuronCertificates");
        let v = b.storage().try_fetch(item, (n.0, h.0)).await.map_err(bad)?;
        Ok(v.map(|v| v.decode().unwrap()).map(|c| PublishedKey::new(c.algorithm.into(), &c.public_key)))
    }
    pub async fn axon(&self, n: NetUid, h: &Hotkey) -> Result<Option<serve::Axon>, Failed> {
        serve::axon(&self.c().await?, n, h).await.map_err(bad)
    }
    pub async fn publish(
        &self,
        n: NetUid,
        k: &[u8; 32],
        a: serve::Axon,
        s: &serve::Account<'_>,
    ) -> Result<(), serve::NotServed> {
        serve::publish(&self.c().await.unwrap(), n, k, a, s).await
    }
}
