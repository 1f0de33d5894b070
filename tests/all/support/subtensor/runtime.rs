//! What a runtime says of itself, and how it writes down a subnet.

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use subxt::{
    Metadata,
    dynamic::Value as Scale,
    ext::{
        codec::{Compact, Encode as _},
        frame_decode::runtime_apis::{RuntimeApiTypeInfo as _, decode_runtime_api_response},
        scale_decode::{DecodeAsType, IntoVisitor as _},
        scale_value::scale::encode_as_type,
    },
};

/// The runtimes of which there is metadata.
#[derive(Clone, Copy)]
pub enum Release {
    /// Spec 293, from which everything else was recorded.
    Recorded,
    /// Spec 365, of the main network.
    Finney365,
    /// Spec 381, of the development network.
    Devnet381,
}

pub(super) struct Runtime {
    pub spec_version: u32,
    /// The version of the format.
    pub format: u32,
    pub bytes: &'static [u8],
    pub metadata: Metadata,
}

/// A neuron, as a subnet's metagraph shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeuronOnChain {
    pub hotkey: [u8; 32],
    pub validator_permit: bool,
    pub total_stake: u64,
}

const API: &str = "SubnetInfoRuntimeApi";
const METHOD: &str = "get_selective_metagraph";

impl Runtime {
    pub(super) fn of(release: Release) -> Arc<Self> {
        static KNOWN: [OnceLock<Arc<Runtime>>; 3] = [const { OnceLock::new() }; 3];
        let (spec_version, format, bytes): (_, _, &[u8]) = match release {
            Release::Recorded => (293, 15, include_bytes!("../../../data/subtensor/metadata-293-v15.scale")),
            Release::Finney365 => (365, 16, include_bytes!("../../../data/subtensor/metadata-365-v16-finney.scale")),
            Release::Devnet381 => (381, 16, include_bytes!("../../../data/subtensor/metadata-381-v16-devnet.scale")),
        };
        let read = || {
            let metadata = Metadata::decode_from(bytes).unwrap();
            Arc::new(Self { spec_version, format, bytes, metadata })
        };
        Arc::clone(KNOWN[release as usize].get_or_init(read))
    }

    /// `Metadata_metadata_versions`
    pub(super) fn formats(&self) -> Vec<u8> {
        vec![14, self.format, u32::MAX].encode()
    }

    /// `Metadata_metadata_at_version`
    pub(super) fn metadata_at(&self, format: &[u8]) -> Vec<u8> {
        if format != self.format.encode() {
            return vec![0];
        }
        [&[1][..], &Compact(u32::try_from(self.bytes.len()).unwrap()).encode(), self.bytes].concat()
    }

    /// `Core_version`, out of the recorded one: two names of 14 letters, and a number stand before the version.
    pub(super) fn version(&self, recorded: &[u8]) -> Vec<u8> {
        let mut version = recorded.to_vec();
        version[34..38].copy_from_slice(&self.spec_version.to_le_bytes());
        version
    }

    /// `SubnetInfoRuntimeApi_get_selective_metagraph` with some fields; what was not asked for is left out.
    pub(super) fn metagraph(&self, netuid: u16, block: u64, neurons: &[NeuronOnChain]) -> Vec<u8> {
        let types = self.metadata.types();
        let output = self.metadata.runtime_api_info(API, METHOD).unwrap().output_id;
        let list = |values: Vec<Scale>| Scale::unnamed_variant("Some", [Scale::unnamed_composite(values)]);
        let path = types.resolve(inner(types, output)).unwrap();
        let scale_info::TypeDef::Composite(fields) = &path.type_def else { panic!("{path:?}") };
        let fields = fields.fields.iter().map(|field| {
            let name = field.name.clone().unwrap();
            let value = match name.as_str() {
                "netuid" => Scale::u128(netuid.into()),
                "block" => Scale::unnamed_variant("Some", [Scale::u128(block.into())]),
                "hotkeys" => list(neurons.iter().map(|it| Scale::from_bytes(it.hotkey)).collect()),
                "validator_permit" => list(neurons.iter().map(|it| Scale::bool(it.validator_permit)).collect()),
                "total_stake" => list(neurons.iter().map(|it| Scale::u128(it.total_stake.into())).collect()),
                _ => Scale::unnamed_variant("None", []),
            };
            (name, value)
        });
        let metagraph = Scale::unnamed_variant("Some", [Scale::named_composite(fields.collect::<Vec<_>>())]);
        let mut bytes = Vec::new();
        encode_as_type(&metagraph, output, types, &mut bytes).unwrap();
        bytes
    }
}

/// What an option is of.
fn inner(types: &scale_info::PortableRegistry, option: u32) -> u32 {
    types.resolve(option).unwrap().type_params[0].ty.unwrap().id
}

#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Recorded {
    hotkeys: Option<Vec<[u8; 32]>>,
    validator_permit: Option<Vec<bool>>,
    total_stake: Option<Vec<u64>>,
}

pub(super) fn recorded_neurons(calls: &Value) -> Vec<NeuronOnChain> {
    let runtime = Runtime::of(Release::Recorded);
    let answers = calls[format!("{API}_{METHOD}")].as_object().unwrap();
    let (_, answer) = answers.iter().find(|(question, _)| question.starts_with("0x0200")).unwrap();
    let bytes = alloy::hex::decode(answer.as_str().unwrap()).unwrap();
    let visitor = Option::<Recorded>::into_visitor();
    let types = runtime.metadata.types();
    let recorded = decode_runtime_api_response(API, METHOD, &mut &bytes[..], &runtime.metadata, types, visitor);
    let recorded = recorded.unwrap().unwrap();
    let (permits, stakes) = (recorded.validator_permit.unwrap(), recorded.total_stake.unwrap());
    let hotkeys = recorded.hotkeys.unwrap().into_iter();
    let neurons = hotkeys.zip(permits).zip(stakes);
    neurons
        .map(|((hotkey, validator_permit), total_stake)| NeuronOnChain { hotkey, validator_permit, total_stake })
        .collect()
}
