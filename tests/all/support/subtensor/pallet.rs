//! What the chain does with `SubtensorModule.serve_axon_tls` (nexus.md sections 5.2 and 5.3).

use sp_core::{
    Pair as _,
    crypto::{AccountId32, ByteArray as _},
    sr25519,
};
use sp_crypto_hashing::blake2_256;
use subxt::ext::{
    codec::{Compact, Decode as _, Encode as _},
    frame_decode::extrinsics::{Extrinsic, decode_extrinsic},
};

use super::{Chain, Storage, hex, of_account, runtime::Runtime, server::RpcError, storage_key};

/// A call, and who signed it.
pub(super) struct ServeAxonTls {
    signer: [u8; 32],
    netuid: u16,
    version: u32,
    ip: u128,
    port: u16,
    ip_type: u8,
    protocol: u8,
    placeholders: [u8; 2],
    certificate: Vec<u8>,
}

/// How `NeuronCertificates` is stored: the key, then the algorithm.
pub(super) fn certificate(algorithm: u8, key: &[u8]) -> String {
    let length = Compact(u32::try_from(key.len()).unwrap()).encode();
    hex(&[&length[..], key, &[algorithm]].concat())
}

fn invalid(why: impl std::fmt::Display) -> RpcError {
    (1010, format!("Invalid Transaction: {why}"))
}

impl ServeAxonTls {
    pub(super) fn decode(bytes: &[u8], runtime: &Runtime) -> Result<Self, RpcError> {
        let metadata = &runtime.metadata;
        let extrinsic = decode_extrinsic(&mut &bytes[..], metadata, metadata.types()).map_err(invalid)?;
        let call = (extrinsic.pallet_name(), extrinsic.call_name());
        if call != ("SubtensorModule", "serve_axon_tls") {
            return Err(invalid(format!("this node knows no {call:?}")));
        }
        let argument = |name: &str| {
            let found = extrinsic.call_data().find(|argument| argument.name() == name);
            &bytes[found.unwrap_or_else(|| panic!("no argument {name}")).range()]
        };
        let byte = |name| argument(name)[0];
        let signature = extrinsic.signature_payload().ok_or_else(|| invalid("it is not signed"))?;
        let address = &bytes[signature.address_range()];
        let [0, account @ ..] = address else { return Err(invalid("the signer is not named by its account")) };
        Ok(Self {
            signer: account.try_into().map_err(invalid)?,
            netuid: u16::decode(&mut argument("netuid")).unwrap(),
            version: u32::decode(&mut argument("version")).unwrap(),
            ip: u128::decode(&mut argument("ip")).unwrap(),
            port: u16::decode(&mut argument("port")).unwrap(),
            ip_type: byte("ip_type"),
            protocol: byte("protocol"),
            placeholders: [byte("placeholder1"), byte("placeholder2")],
            certificate: Vec::decode(&mut argument("certificate")).unwrap(),
        })
    }

    /// What makes the pool refuse it.
    fn check(&self, state: &Storage, next: u64) -> Result<(), RpcError> {
        let error = |name: &str| Err(invalid(name));
        let read = |item: &str, keys: &[u8]| {
            let value = state.get(&storage_key("SubtensorModule", item, keys))?;
            Some(alloy::hex::decode(value).unwrap())
        };
        let account = of_account(self.netuid, &self.signer);
        if read("Uids", &account).is_none() {
            return error("HotKeyNotRegisteredInNetwork");
        }
        if !matches!(self.ip_type, 4 | 6) {
            return error("InvalidIpType");
        }
        let loopback = [u128::from(u32::from_be_bytes([127, 0, 0, 1])), 1];
        let all_ones = [u128::from(u32::MAX), u128::MAX];
        let index = usize::from(self.ip_type == 6);
        if self.ip == loopback[index] || self.ip >= all_ones[index] {
            return error("InvalidIpAddress");
        }
        let limit = read("ServingRateLimit", &self.netuid.to_le_bytes());
        let limit = limit.map_or(50, |value| u64::decode(&mut &value[..]).unwrap());
        let served = read("Axons", &account).map_or(0, |value| u64::decode(&mut &value[..]).unwrap());
        if limit > 0 && served > 0 && next - served < limit {
            return error("ServingRateLimitExceeded");
        }
        if self.port == 0 { error("InvalidPort") } else { Ok(()) }
    }

    /// A certificate that is empty or too long is passed over in silence.
    pub(super) fn apply(&self, state: &mut Storage, block: u64, deaf_to_keys: bool) {
        let account = of_account(self.netuid, &self.signer);
        let key = |item: &str| storage_key("SubtensorModule", item, &account);
        let axon = (block, self.version, self.ip, self.port, self.ip_type, self.protocol, self.placeholders);
        state.insert(key("Axons"), hex(&axon.encode()));
        if let [algorithm, public @ ..] = &self.certificate[..]
            && public.len() <= 64
            && !deaf_to_keys
        {
            state.insert(key("NeuronCertificates"), certificate(*algorithm, public));
        }
    }

    /// `AxonServed` and `ExtrinsicSuccess`, as records of `System.Events`.
    pub(super) fn events(&self, runtime: &Runtime, index: u32, events: &mut Vec<Vec<u8>>) {
        let served = (self.netuid, self.signer).encode();
        events.push(event(runtime, index, "SubtensorModule", "AxonServed", &served));
        events.push(event(runtime, index, "System", "ExtrinsicSuccess", &DISPATCH_INFO));
    }
}

/// Weight, class and whether it pays.
const DISPATCH_INFO: [u8; 4] = [4, 4, 0, 0];

/// A record of `System.Events` about an extrinsic.
fn event(runtime: &Runtime, index: u32, pallet: &str, event: &str, fields: &[u8]) -> Vec<u8> {
    let pallet = runtime.metadata.pallet_by_name(pallet).unwrap();
    let variant = pallet.event_variants().unwrap().iter().find(|it| it.name == event).unwrap();
    let head = [&[0][..], &index.to_le_bytes(), &[pallet.event_index(), variant.index]].concat();
    [&head[..], fields, &[0]].concat()
}

/// `ExtrinsicFailed`, with an error of the pallet.
pub(super) fn failed(runtime: &Runtime, index: u32, error: &str) -> Vec<u8> {
    let pallet = runtime.metadata.pallet_by_name("SubtensorModule").unwrap();
    let variant = pallet.error_variants().unwrap().iter().find(|it| it.name == error).unwrap();
    // `DispatchError::Module`: the pallet, and four bytes for its error.
    let module = [3, pallet.error_index(), variant.index, 0, 0, 0];
    event(runtime, index, "System", "ExtrinsicFailed", &[&module[..], &DISPATCH_INFO].concat())
}

impl Chain {
    /// What `author_submitExtrinsic` does. Returns the extrinsic's hash.
    pub(super) fn submit(&mut self, bytes: &[u8]) -> Result<String, RpcError> {
        let best = self.block(None)?;
        let call = ServeAxonTls::decode(bytes, &best.runtime)?;
        self.verify(bytes, &best.runtime)?;
        call.check(&best.state, best.number + 1)?;
        if self.pool.iter().any(|other| other == bytes) {
            return Err((1013, "Transaction is already imported".to_owned()));
        }
        self.pool.push(bytes.to_vec());
        let nonce = self.nonce(call.signer);
        self.nonces.insert(call.signer, nonce + 1);
        Ok(hex(&blake2_256(bytes)))
    }

    /// What an account's next nonce is.
    pub(super) fn nonce(&self, account: [u8; 32]) -> u32 {
        let recorded = || {
            let answer = self.calls["AccountNonceApi_account_nonce"][hex(&account)].as_str()?;
            u32::decode(&mut &alloy::hex::decode(answer).unwrap()[..]).ok()
        };
        self.nonces.get(&account).copied().or_else(recorded).unwrap_or(0)
    }

    /// Whether the signature is the signer's, over everything that the extensions add to what is sent.
    fn verify(&self, bytes: &[u8], runtime: &Runtime) -> Result<(), RpcError> {
        let metadata = &runtime.metadata;
        let extrinsic = decode_extrinsic(&mut &bytes[..], metadata, metadata.types()).map_err(invalid)?;
        let signature = extrinsic.signature_payload().ok_or_else(|| invalid("it is not signed"))?;
        let account =
            AccountId32::from_slice(&bytes[signature.address_range()][1..]).map_err(|()| invalid("account"))?;
        let [1, signature @ ..] = &bytes[signature.signature_range()] else {
            return Err(invalid("the signature is not of sr25519"));
        };
        let extensions = extrinsic.transaction_extension_payload().unwrap();
        let mut payload = bytes[extrinsic.call_data_range()].to_vec();
        payload.extend(&bytes[extensions.range()]);
        payload.extend(self.additional(&extrinsic, bytes, runtime)?);
        let payload = if payload.len() > 256 { blake2_256(&payload).to_vec() } else { payload };
        let public = sr25519::Public::from_slice(account.as_ref()).unwrap();
        let signature = sr25519::Signature::from_slice(signature).map_err(|()| invalid("signature"))?;
        if !sr25519::Pair::verify(&signature, payload, &public) {
            return Err(invalid("Transaction has a bad signature"));
        }
        let nonce = extensions.iter().find(|it| it.name() == "CheckNonce").unwrap();
        let nonce = Compact::<u32>::decode(&mut &bytes[nonce.range()]).unwrap().0;
        if nonce == self.nonce(account.into()) { Ok(()) } else { Err(invalid("Transaction is outdated")) }
    }

    /// What is signed and not sent.
    fn additional(&self, extrinsic: &Extrinsic<'_, u32>, bytes: &[u8], runtime: &Runtime) -> Result<Vec<u8>, RpcError> {
        let hash = |hash: &str| alloy::hex::decode(hash).unwrap();
        let mut additional = Vec::new();
        for extension in extrinsic.transaction_extension_payload().unwrap().iter() {
            additional.extend(match extension.name() {
                "CheckSpecVersion" => runtime.spec_version.encode(),
                "CheckTxVersion" => 1_u32.encode(),
                "CheckGenesis" => hash(&self.genesis),
                "CheckMortality" => match &bytes[extension.range()] {
                    [0] => hash(&self.genesis),
                    era => hash(&self.birth(era).ok_or_else(|| invalid("Transaction has an ancient birth block"))?),
                },
                // None, as the extension itself says.
                "CheckMetadataHash" => vec![0],
                _ => Vec::new(),
            });
        }
        Ok(additional)
    }

    /// The block from which an extrinsic's era counts.
    fn birth(&self, era: &[u8]) -> Option<String> {
        let era = u64::from(u16::decode(&mut &era[..]).ok()?);
        let period = 2 << (era % 16);
        let phase = (era >> 4) * (period >> 12).max(1);
        let current = self.blocks[&self.best].number;
        self.canonical((current.max(phase) - phase) / period * period + phase)
    }
}
