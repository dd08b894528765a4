//! The table of scenarios: every fault that the lab can inject, and the expected reports.
//!
//! Bounds are in milliseconds from the fault. C is the policy that most rows use: idle 1 s,
//! interval 0.5 s, 4 probes, so D = 3 s. A lost segment is sent again after at most a second.

mod alive;
mod kernel;
mod middle;
mod nat;
mod path;
mod process;
mod refused;
mod slow;

use super::{Middle, Role, Scenario, Setting, Step};
use crate::gateway::Beat;
use crate::judge::Expected;
use crate::network::Family;
use crate::peer::Kind;

const C: Beat = Beat { idle_ms: 1_000, interval_ms: 500, probes: 4 };
const D: u64 = C.bound_ms();
/// Time limit of a verdict on a CLOSE, a FIN or a RST from the peer.
const AT_ONCE: u64 = 50;
/// Longest time between two transmissions of a segment, with a margin.
const SEGMENT: u64 = 1_200;
/// A pause after a heartbeat for its delayed acknowledgement, so that the next segment is a probe.
const DELAYED_ACKNOWLEDGEMENT: Step = Step::Rest(250);

const BOTH: &[Role] = &[Role::Gateway, Role::Client];
const GATEWAY: &[Role] = &[Role::Gateway];

const ONE: Setting = Setting {
    beat: C,
    kind: Kind::Client,
    hosts: &[1],
    middle: Middle::Forwards,
    family: Family::V4,
    timestamps: true,
    busy: false,
    keep_hung_ms: 0,
};

const fn within(causes: &'static [&'static str], within_ms: u64) -> Expected {
    Expected { causes, direction: None, scope: None, confidence: None, not_before_ms: 0, within_ms }
}

const fn verdict(causes: &'static [&'static str], within_ms: u64) -> Step {
    Step::Verdict(within(causes, within_ms))
}

/// Expects the verdict of a peer that was silent for the whole bound, which began with the last
/// heartbeat before the fault.
const fn at_bound(causes: &'static [&'static str], beat: Beat) -> Expected {
    let bound_ms = beat.bound_ms();
    // A heartbeat is heard a little later than the idle time.
    let not_before_ms = bound_ms - beat.idle_ms - 100;
    Expected { not_before_ms, ..within(causes, bound_ms + 200) }
}

/// Expects the verdict that the path is lost in both directions.
const fn silence(within_ms: u64) -> Step {
    Step::Verdict(Expected { direction: Some("both"), ..within(&["path_lost"], within_ms) })
}

const fn revised(causes: &'static [&'static str]) -> Step {
    Step::Revised(within(causes, 5_000))
}

/// Returns all scenarios, grouped by the kind of fault.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    let tables = [
        process::SCENARIOS,
        path::SCENARIOS,
        refused::SCENARIOS,
        middle::SCENARIOS,
        nat::SCENARIOS,
        alive::SCENARIOS,
        slow::SCENARIOS,
        kernel::SCENARIOS,
    ];
    tables.into_iter().flatten()
}
