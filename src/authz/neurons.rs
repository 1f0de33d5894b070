//! Which neurons a policy admits. Who calls has been proven by then.

use crate::{
    chain::neurons::Neurons,
    config::NeuronPolicy,
    model::{
        decision::{Denial, Dependency},
        identity::Subject,
    },
};

/// Whether a policy lets somebody in. The lists come first: they ask nobody.
///
/// The gateway's own neuron, whose hotkey nobody has told us, may call where nothing is asked of hotkeys.
///
/// # Errors
/// [`Denial::NotEntitled`], and [`Denial::Unavailable`] when it is not known.
pub fn admit(policy: &NeuronPolicy, neurons: Option<&Neurons>, subject: &Subject) -> Result<(), Denial> {
    let asks = policy.asks_neurons();
    let hotkey = match subject {
        Subject::Hotkey(hotkey) => hotkey,
        Subject::OwnNeuron => {
            let lists = policy.hotkeys.is_some() || !policy.deny_hotkeys.is_empty();
            return if asks || lists { Err(Denial::NotEntitled("hotkey_not_listed")) } else { Ok(()) };
        }
        Subject::Evm(_) | Subject::Coldkey(_) => return Err(Denial::NotEntitled("no_neuron")),
    };
    if policy.deny_hotkeys.contains(hotkey) {
        return Err(Denial::NotEntitled("hotkey_denied"));
    }
    if policy.hotkeys.as_ref().is_some_and(|listed| !listed.contains(hotkey)) {
        return Err(Denial::NotEntitled("hotkey_not_listed"));
    }
    if !asks {
        return Ok(());
    }
    let neurons = neurons.ok_or(Denial::Unavailable(Dependency::Neurons))?;
    let neuron = neurons.neuron(policy.netuid, hotkey)?.ok_or(Denial::NotEntitled("not_registered"))?;
    if policy.validator_permit && !neuron.validator_permit {
        return Err(Denial::NotEntitled("no_validator_permit"));
    }
    if neuron.stake < policy.min_stake {
        return Err(Denial::NotEntitled("insufficient_stake"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;
    use crate::{
        chain::cache::Clock,
        model::{
            address::EvmAddress,
            hotkey::Hotkey,
            neuron::{NetUid, Neuron, Subnet},
        },
    };

    const SUBNET: NetUid = NetUid(2);
    const VALIDATOR: Hotkey = Hotkey([1; 32]);
    const MINER: Hotkey = Hotkey([2; 32]);
    const STRANGER: Hotkey = Hotkey([3; 32]);

    fn anybody() -> NeuronPolicy {
        NeuronPolicy {
            netuid: SUBNET,
            registered: false,
            validator_permit: false,
            min_stake: 0,
            hotkeys: None,
            deny_hotkeys: HashSet::new(),
        }
    }

    fn neurons(known: bool) -> Neurons {
        let neurons = Neurons::new([SUBNET], Duration::from_mins(1), Clock::Steady);
        let neuron = |uid, validator_permit, stake| Neuron { uid, validator_permit, stake };
        let registered = [(VALIDATOR, neuron(0, true, 1_000)), (MINER, neuron(1, false, 999))];
        neurons.publish(SUBNET, Subnet { neurons: known.then(|| registered.into()), ..Subnet::default() });
        neurons
    }

    #[test]
    fn every_rule_has_its_reason() {
        let known = neurons(true);
        let listed = |hotkeys: &[Hotkey]| hotkeys.iter().copied().collect::<HashSet<_>>();
        for (policy, hotkey, expected) in [
            (anybody(), STRANGER, None),
            (NeuronPolicy { registered: true, ..anybody() }, STRANGER, Some("not_registered")),
            (NeuronPolicy { registered: true, ..anybody() }, MINER, None),
            (NeuronPolicy { validator_permit: true, ..anybody() }, MINER, Some("no_validator_permit")),
            (NeuronPolicy { validator_permit: true, ..anybody() }, STRANGER, Some("not_registered")),
            (NeuronPolicy { validator_permit: true, ..anybody() }, VALIDATOR, None),
            (NeuronPolicy { min_stake: 1_000, ..anybody() }, VALIDATOR, None),
            (NeuronPolicy { min_stake: 1_000, ..anybody() }, MINER, Some("insufficient_stake")),
            (NeuronPolicy { min_stake: 1, ..anybody() }, STRANGER, Some("not_registered")),
            (NeuronPolicy { hotkeys: Some(listed(&[VALIDATOR])), ..anybody() }, VALIDATOR, None),
            (NeuronPolicy { hotkeys: Some(listed(&[VALIDATOR])), ..anybody() }, MINER, Some("hotkey_not_listed")),
            (NeuronPolicy { hotkeys: Some(listed(&[])), ..anybody() }, MINER, Some("hotkey_not_listed")),
            (NeuronPolicy { deny_hotkeys: listed(&[MINER]), ..anybody() }, MINER, Some("hotkey_denied")),
            (NeuronPolicy { deny_hotkeys: listed(&[MINER]), ..anybody() }, VALIDATOR, None),
        ] {
            let admitted = admit(&policy, Some(&known), &Subject::Hotkey(hotkey));
            assert_eq!(admitted, expected.map_or(Ok(()), |reason| Err(Denial::NotEntitled(reason))), "{policy:?}");
        }
    }

    #[test]
    fn a_neuron_without_a_hotkey_is_admitted_where_nothing_is_asked() {
        let known = neurons(true);
        assert_eq!(admit(&anybody(), Some(&known), &Subject::OwnNeuron), Ok(()));
        let account = Subject::Evm(EvmAddress([1; 20]));
        assert_eq!(admit(&anybody(), Some(&known), &account), Err(Denial::NotEntitled("no_neuron")));
        for policy in [
            NeuronPolicy { registered: true, ..anybody() },
            NeuronPolicy { min_stake: 1, ..anybody() },
            NeuronPolicy { hotkeys: Some([VALIDATOR].into()), ..anybody() },
            NeuronPolicy { deny_hotkeys: [MINER].into(), ..anybody() },
        ] {
            assert_eq!(
                admit(&policy, Some(&known), &Subject::OwnNeuron),
                Err(Denial::NotEntitled("hotkey_not_listed")),
                "{policy:?}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_neither_yes_nor_no() {
        let unknown = neurons(false);
        let refused = Err(Denial::Unavailable(Dependency::Neurons));
        assert_eq!(
            admit(&NeuronPolicy { registered: true, ..anybody() }, Some(&unknown), &Subject::Hotkey(MINER)),
            refused
        );
        assert_eq!(
            admit(&NeuronPolicy { min_stake: 1, ..anybody() }, Some(&unknown), &Subject::Hotkey(MINER)),
            refused
        );
        assert_eq!(admit(&anybody(), Some(&unknown), &Subject::Hotkey(MINER)), Ok(()));
        assert_eq!(admit(&NeuronPolicy { registered: true, ..anybody() }, None, &Subject::Hotkey(MINER)), refused);
        assert_eq!(admit(&anybody(), None, &Subject::Hotkey(MINER)), Ok(()), "nobody has to be asked");
    }
}
