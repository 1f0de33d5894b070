//! Publishing a neuron's key: the call `serve_axon_tls`, signed by its hotkey (nexus.md sections 5.2 and 5.3).
//!
//! The call states where the neuron is reached and, beside that, its key. A key that the chain does not like is ignored
//! while the call succeeds, so whoever publishes reads back.

use std::net::IpAddr;

use subxt::{
    SubstrateConfig,
    client::OnlineClientAtBlockT,
    config::{
        SubstrateExtrinsicParamsBuilder,
        substrate::{AccountId32, MultiSignature},
    },
    dynamic,
    error::{BackendError, DispatchError, ExtrinsicError, RpcError, TransactionEventsError},
    ext::{scale_decode::DecodeAsType, scale_encode::EncodeAsType},
    rpcs,
    tx::{Signer, StaticPayload, TransactionProgress, TransactionStatus},
};

use super::Subtensor;
use crate::{
    chain::fault::Failed,
    model::{
        hotkey::Hotkey,
        neuron::{NetUid, PublishedKey},
    },
};

/// Where the chain says a neuron is reached. Its fields are those of the storage item `Axons`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub struct Axon {
    version: u32,
    ip: u128,
    port: u16,
    ip_type: u8,
    protocol: u8,
    placeholder1: u8,
    placeholder2: u8,
}

/// The call, by the names of its arguments: the metadata says their order and their widths.
#[derive(EncodeAsType)]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
struct ServeAxonTls {
    netuid: u16,
    version: u32,
    ip: u128,
    port: u16,
    ip_type: u8,
    protocol: u8,
    placeholder1: u8,
    placeholder2: u8,
    /// The algorithm, then the key.
    certificate: Vec<u8>,
}

/// Why a key was not published.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// The chain refuses: it has what it had.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows whether it will still be published.
    #[error("{0}")]
    Unknown(String),
}

/// Signs for a hotkey: bytes in, an sr25519 signature out.
pub type Sign<'a> = &'a (dyn Fn(&[u8]) -> [u8; 64] + Sync);

const PALLET: &str = "SubtensorModule";
const CALL: &str = "serve_axon_tls";
/// What Pylon states, and the SDK of its time.
const VERSION: u32 = 9_003_000;
/// TCP, as Pylon states.
const PROTOCOL: u8 = 4;
/// Ed25519, in `NeuronCertificates`.
const ALGORITHM: u8 = 1;
/// If no block takes the transaction within so many, none will: some six minutes.
const MORTAL_BLOCKS: u64 = 32;
/// What the pool's numbers mean, which stand for the errors of the call.
const POOL_CODES: [(&str, &str); 5] = [
    ("3", "SubnetNotExists"),
    ("10", "HotKeyNotRegisteredInNetwork"),
    ("11", "InvalidIpAddress"),
    ("12", "ServingRateLimitExceeded"),
    ("13", "InvalidPort"),
];
/// So much of a node's text is repeated.
const TEXT_CHARACTERS: usize = 200;

impl Axon {
    /// A neuron that has not said yet where it is.
    #[must_use]
    pub fn new(address: IpAddr, port: u16) -> Self {
        let blank =
            Self { version: VERSION, ip: 0, port: 0, ip_type: 4, protocol: PROTOCOL, placeholder1: 0, placeholder2: 0 };
        blank.moved(Some(address), Some(port))
    }

    /// This axon with another address or port.
    #[must_use]
    pub fn moved(mut self, address: Option<IpAddr>, port: Option<u16>) -> Self {
        match address {
            Some(IpAddr::V4(address)) => (self.ip, self.ip_type) = (u32::from(address).into(), 4),
            Some(IpAddr::V6(address)) => (self.ip, self.ip_type) = (address.into(), 6),
            None => {}
        }
        self.port = port.unwrap_or(self.port);
        self
    }

    /// Its port; the chain takes none that is 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn call(self, netuid: NetUid, key: &[u8; 32]) -> ServeAxonTls {
        let Self { version, ip, port, ip_type, protocol, placeholder1, placeholder2 } = self;
        let certificate = std::iter::once(ALGORITHM).chain(*key).collect();
        ServeAxonTls { netuid: netuid.0, version, ip, port, ip_type, protocol, placeholder1, placeholder2, certificate }
    }
}

/// A hotkey that signs.
pub struct Account<'a> {
    /// Whose call it is.
    pub hotkey: Hotkey,
    /// Signs for it.
    pub sign: Sign<'a>,
}

impl Signer<SubstrateConfig> for Account<'_> {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.hotkey.0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519((self.sign)(payload))
    }
}

/// The call. Not checked against a recorded form of it: the metadata of the runtime decides.
fn payload(netuid: NetUid, key: &[u8; 32], axon: Axon) -> StaticPayload<ServeAxonTls> {
    StaticPayload::new(PALLET, CALL, axon.call(netuid, key))
}

/// What `NeuronCertificates` has.
#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Certificate {
    public_key: Vec<u8>,
    algorithm: u8,
}

impl Subtensor {
    /// The key that a hotkey has published, at the last block that will stay. None: none.
    ///
    /// # Errors
    /// When the node cannot be asked, or its runtime has no such item.
    pub async fn key(&self, netuid: NetUid, hotkey: &Hotkey) -> Result<Option<PublishedKey>, Failed> {
        let found: Option<Certificate> = self.of_neuron("NeuronCertificates", netuid, hotkey).await?;
        Ok(found.map(|found| PublishedKey::new(found.algorithm.into(), &found.public_key)))
    }

    /// Where the chain says that a neuron is reached, at the last block that will stay. None: it has never said so.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub async fn axon(&self, netuid: NetUid, hotkey: &Hotkey) -> Result<Option<Axon>, Failed> {
        self.of_neuron("Axons", netuid, hotkey).await
    }

    async fn of_neuron<T: DecodeAsType>(
        &self,
        item: &str,
        netuid: NetUid,
        hotkey: &Hotkey,
    ) -> Result<Option<T>, Failed> {
        let block = self.at(self.finalized().await?).await?;
        let item = dynamic::storage::<(u16, [u8; 32]), T>(PALLET, item);
        let found =
            block.storage().try_fetch(item, (netuid.0, hotkey.0)).await.map_err(|error| self.explain(&error))?;
        found.map(|value| value.decode()).transpose().map_err(|error| self.explain(&error))
    }

    /// Publishes a key, and waits until the block with it is final, for as long as that takes.
    ///
    /// # Errors
    /// See [`NotServed`].
    pub async fn publish(
        &self,
        netuid: NetUid,
        key: &[u8; 32],
        axon: Axon,
        account: &Account<'_>,
    ) -> Result<(), NotServed> {
        let mut progress = self.submit(&payload(netuid, key, axon), account).await?;
        loop {
            let unknown =
                |why: &str| NotServed::Unknown(format!("the node does not say what became of the transaction: {why}"));
            match progress.next().await {
                None => return Err(unknown("it has stopped telling")),
                Some(Err(error)) => return Err(unknown(&self.explain(&error).to_string())),
                Some(Ok(TransactionStatus::InFinalizedBlock(block))) => {
                    return match block.wait_for_success().await {
                        Err(TransactionEventsError::ExtrinsicFailed(error)) => Err(NotServed::Refused(failed(&error))),
                        // It is in. Whether the key is, too, is seen when it is read back, also if its events cannot be
                        // read.
                        Ok(_) | Err(_) => Ok(()),
                    };
                }
                Some(Ok(
                    TransactionStatus::Error { message }
                    | TransactionStatus::Invalid { message }
                    | TransactionStatus::Dropped { message },
                )) => return Err(unknown(&message)),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Signs, and hands over to the node.
    async fn submit(
        &self,
        payload: &StaticPayload<ServeAxonTls>,
        account: &Account<'_>,
    ) -> Result<TransactionProgress<SubstrateConfig, impl OnlineClientAtBlockT<SubstrateConfig> + use<>>, NotServed>
    {
        let refused = |failed: Failed| NotServed::Refused(format!("the node cannot be asked: {failed}"));
        let of_subxt = |error: ExtrinsicError| refused(self.explain(&error));
        let block = self.at(self.finalized().await.map_err(refused)?).await.map_err(refused)?;
        let transactions = block.transactions();
        // With what waits in the pool counted in. A node that does not tell is asked for the account's state instead.
        let nonce = self.methods.system_account_next_index(&account.account_id()).await.ok();
        let params = SubstrateExtrinsicParamsBuilder::new().mortal(MORTAL_BLOCKS);
        let params = nonce.into_iter().fold(params, SubstrateExtrinsicParamsBuilder::nonce).build();
        let signable = transactions.create_signable(payload, &account.account_id(), params).await;
        let signed = signable.map_err(of_subxt)?.sign(account).map_err(of_subxt)?;
        signed.submit_and_watch().await.map_err(|error| not_taken(&error, &self.explain(&error)))
    }
}

/// What a refusal by the node's pool means.
fn not_taken(error: &ExtrinsicError, explained: &Failed) -> NotServed {
    let ExtrinsicError::ErrorSubmittingTransaction(BackendError::Rpc(RpcError::ClientError(rpcs::Error::User(error)))) =
        error
    else {
        return NotServed::Unknown(format!("the transaction may not have reached the node: {explained}"));
    };
    let data = error.data.as_ref().map_or("", |data| data.get());
    let text: String = format!("{} {data}", error.message).chars().take(TEXT_CHARACTERS).collect();
    let code = text.split_once("Custom error: ").map(|(_, rest)| {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        rest.split_at(digits).0
    });
    if let Some((_, name)) = POOL_CODES.iter().find(|(number, name)| code == Some(number) || text.contains(name)) {
        return NotServed::Refused(in_words(name));
    }
    // 1013: the pool has it already; 1014: another one with the same number is in its way.
    if matches!(error.code, 1013 | 1014) || text.contains("outdated") {
        return NotServed::Refused(format!(
            "another transaction of this hotkey is on its way, so try again in a minute ({text:?})"
        ));
    }
    NotServed::Refused(format!("the node does not take the transaction: {text:?}"))
}

/// What the runtime says of a call that did nothing.
fn failed(error: &DispatchError) -> String {
    match error {
        DispatchError::Module(error) => match error.details() {
            Ok(details) => in_words(&details.variant.name),
            Err(_) => format!("the chain refuses the call: {error}"),
        },
        error => format!("the chain refuses the call: {error}"),
    }
}

/// The runtime's errors, for people who want to know what to do.
fn in_words(name: &str) -> String {
    let words = match name {
        "ServingRateLimitExceeded" => {
            "a neuron may publish its address and key only once in a while (50 blocks, ten minutes, by default): try again \
             later"
        }
        "HotKeyNotRegisteredInNetwork" => "the hotkey is not registered in this subnet",
        "InvalidIpAddress" | "InvalidIpType" => {
            "the chain does not take this IP address (none of the machine itself, none for everybody): name the public one \
             with --ip"
        }
        "InvalidPort" => "the chain takes no port 0: name the real one with --port",
        "SubnetNotExists" | "SubNetworkDoesNotExist" | "MechanismDoesNotExist" => "there is no such subnet",
        _ => return format!("the chain refuses the call: {name}"),
    };
    format!("{words} ({name})")
}

#[cfg(test)]
mod tests {
    use sp_core::{Pair as _, sr25519};
    use subxt::{
        ArcMetadata, Metadata, OfflineClient, OfflineClientAtBlock,
        config::substrate::{H256, SpecVersionForRange, SubstrateConfigBuilder},
        ext::{
            codec::{Decode as _, Encode as _},
            frame_decode::extrinsics::decode_extrinsic,
        },
        rpcs::UserError,
    };

    use super::*;
    use crate::chain::fault::Fault;

    /// The runtimes whose metadata was recorded: ours to replay, mainnet's, the development network's.
    const RUNTIMES: [(u32, &str); 3] = [
        (293, "metadata-293-v15.scale"),
        (365, "metadata-365-v16-finney.scale"),
        (381, "metadata-381-v16-devnet.scale"),
    ];
    /// nexus.md section 5, `chain.json`: the call with which Pylon publishes Alice's key on subnet 2.
    const CALL_BYTES: &str = "07280200f85f8900077100cb000000000000000000000000fb2004040000\
                              8401d7f9d34322f92a04584ffdea6d45209f8571cb615850ab7534872a9787a59d3d";
    const KEY: &str = "d7f9d34322f92a04584ffdea6d45209f8571cb615850ab7534872a9787a59d3d";

    fn metadata(file: &str) -> ArcMetadata {
        let path = format!("{}/tests/data/subtensor/{file}", env!("CARGO_MANIFEST_DIR"));
        Metadata::decode(&mut &*std::fs::read(path).unwrap()).unwrap().into()
    }

    fn offline(spec: u32, metadata: ArcMetadata) -> OfflineClientAtBlock<SubstrateConfig> {
        let config = SubstrateConfigBuilder::new()
            .set_genesis_hash(H256([0x45; 32]))
            .set_metadata_for_spec_versions([(spec, metadata)])
            .set_spec_version_for_block_ranges([SpecVersionForRange {
                block_range: 0..100,
                spec_version: spec,
                transaction_version: 1,
            }])
            .build();
        OfflineClient::new_with_config(config).at_block(63_u64).unwrap()
    }

    fn unhex<const BYTES: usize>(text: &str) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        crate::model::address::hex_decode(text, &mut bytes).unwrap();
        bytes
    }

    fn axon() -> Axon {
        Axon::new("203.0.113.7".parse().unwrap(), 8443)
    }

    #[test]
    fn every_runtime_gets_the_call_that_pylon_sends() {
        for (spec, file) in RUNTIMES {
            let at = offline(spec, metadata(file));
            let bytes = at.transactions().call_data(&payload(NetUid(2), &unhex(KEY), axon())).unwrap();
            assert_eq!(bytes, unhex::<64>(CALL_BYTES), "{file}");
        }
    }

    #[test]
    fn every_runtime_s_transactions_can_be_signed() {
        let pair = sr25519::Pair::from_string("//Charlie//hot", None).unwrap();
        let sign = |payload: &[u8]| pair.sign(payload).0;
        let account = Account { hotkey: Hotkey(pair.public().0), sign: &sign };
        for (spec, file) in RUNTIMES {
            let metadata = metadata(file);
            let at = offline(spec, metadata.clone());
            let params = SubstrateExtrinsicParamsBuilder::new().nonce(7);
            let params = params.mortal_from_unchecked(MORTAL_BLOCKS, 63, H256([9; 32])).build();
            let payload = payload(NetUid(2), &unhex(KEY), axon());
            let mut signable = at.transactions().create_signable_offline(&payload, params).unwrap();
            let signed_bytes = signable.signer_payload().unwrap();
            let bytes = signable.sign(&account).unwrap().into_encoded();

            let extrinsic = decode_extrinsic(&mut &*bytes, &*metadata, metadata.types()).unwrap();
            assert_eq!((extrinsic.pallet_name(), extrinsic.call_name()), (PALLET, CALL), "{file}");
            assert_eq!(bytes[extrinsic.call_data_range()], unhex::<64>(CALL_BYTES), "{file}");
            let signature = extrinsic.signature_payload().unwrap();
            assert_eq!(bytes[signature.address_range()], [&[0], account.hotkey.0.as_slice()].concat(), "{file}");
            let signature = MultiSignature::decode(&mut &bytes[signature.signature_range()]).unwrap();
            let MultiSignature::Sr25519(signature) = signature else { panic!("{file}: {signature:?}") };
            let verified = sr25519::Pair::verify(&signature.into(), &signed_bytes, &pair.public());
            assert!(verified, "{file}");
            // What is signed names the runtime and the chain, after the call and its extensions.
            let implicit = (spec, 1_u32, [0x45_u8; 32], [9_u8; 32]).encode();
            assert!(signed_bytes.windows(implicit.len()).any(|window| window == implicit), "{file}");
        }
    }

    #[test]
    fn an_axon_moves_and_keeps_the_rest() {
        let axon = Axon { version: 5, protocol: 3, placeholder1: 1, ..axon() };
        let moved = axon.moved(Some("2001:db8::1".parse().unwrap()), None);
        assert_eq!((moved.ip >> 96, moved.ip_type, moved.port), (0x2001_0db8, 6, 8443));
        assert_eq!((moved.version, moved.protocol, moved.placeholder1), (5, 3, 1));
        assert_eq!(axon.moved(None, Some(1)), Axon { port: 1, ..axon });
    }

    #[test]
    fn refusals_of_the_pool_are_told_in_words() {
        let user = |code: i32, message: &str, data: Option<&str>| {
            let data = data.map(|data| serde_json::value::to_raw_value(data).unwrap());
            let error = rpcs::Error::User(UserError { code, message: message.to_owned(), data });
            let unseen = Failed::new(Fault::Rpc, "unseen");
            not_taken(&ExtrinsicError::ErrorSubmittingTransaction(error.into()), &unseen).to_string()
        };
        for (code, data, said) in [
            (1010, "Custom error: 12", "(ServingRateLimitExceeded)"),
            (1010, "Custom error: 10", "not registered"),
            (1010, "Custom error: 13", "--port"),
            (1010, "Custom error: 11", "--ip"),
            (1010, "Custom error: 120", "Custom error: 120"),
            (1010, "Transaction is outdated", "another transaction"),
            (1014, "The transaction has too low priority", "another transaction"),
            (1010, "Transaction has a bad signature", "bad signature"),
        ] {
            let text = user(code, "Invalid Transaction", Some(data));
            assert!(text.contains(said), "{text}");
        }
        assert!(user(1, &"x".repeat(9000), None).len() < 300);
    }

    #[test]
    fn refusals_of_the_runtime_are_told_in_words() {
        for (spec, file) in RUNTIMES {
            let metadata = metadata(file);
            let pallet = metadata.pallet_by_name(PALLET).unwrap();
            for (name, said) in [
                ("ServingRateLimitExceeded", "once in a while"),
                ("HotKeyNotRegisteredInNetwork", "not registered"),
                ("InvalidIpAddress", "--ip"),
                ("InvalidIpType", "--ip"),
                ("InvalidPort", "--port"),
                ("NotEnoughBalanceToStake", "refuses"),
            ] {
                let variant = pallet.error_variants().unwrap().iter().find(|variant| variant.name == name);
                let variant = variant.unwrap_or_else(|| panic!("{spec} has no {name}"));
                let bytes = (3_u8, pallet.error_index(), variant.index, [0_u8; 3]).encode();
                let error = DispatchError::decode_from(bytes, metadata.clone()).unwrap();
                let text = failed(&error);
                assert!(text.contains(said) && text.contains(name), "{spec}: {text}");
            }
        }
    }
}
