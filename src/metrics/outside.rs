//! What became of our questions to others, and how it is with those.

use prometheus::{GaugeVec, IntGaugeVec, Opts};

use super::Declared;

/// The families of outside questions.
pub struct Outside {
    /// Look-ups of facts by dependency (`plans`, `services`, `balances`, `neurons` in no table, `subtensor`, `owners` of
    /// hotkeys) and outcome: `fresh`, `stale`, `negative`, `missing`, `limited`, `remembered` (a failure a moment ago),
    /// `busy`, `answered`, and `failed_` with the fault.
    pub lookups: IntGaugeVec,
    /// What finished look-ups took together, in seconds, by dependency.
    pub lookup_seconds: GaugeVec,
    /// 1 while a node of the chain answers, by who asks it.
    pub chain_connected: IntGaugeVec,
    /// Connections to the database by `state`: `used`, `idle`.
    pub database_connections: IntGaugeVec,
}

impl Outside {
    pub(super) fn declare(declared: &Declared) -> anyhow::Result<Self> {
        let took = Opts::new("tollgate_lookup_seconds", "What look-ups took together since the start.");
        Ok(Self {
            lookups: declared.gauges(
                "tollgate_lookups",
                "Look-ups of facts since the start, by what came of them.",
                &["dependency", "outcome"],
            )?,
            lookup_seconds: declared.family(GaugeVec::new(took, &["dependency"]))?,
            chain_connected: declared.gauges(
                "tollgate_chain_connected",
                "1 while a node of the chain answers.",
                &["dependency"],
            )?,
            database_connections: declared.gauges(
                "tollgate_database_connections",
                "Connections to the database.",
                &["state"],
            )?,
        })
    }
}
