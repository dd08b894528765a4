//! The table: every fault that the lab can make, and what must be told of it.
//!
//! Bounds are in milliseconds from the fault. C is the policy that most rows use: idle 1 s,
//! interval 0.5 s, 4 probes, so D = 3 s. A lost segment is sent again after at most a second.

mod alive;
mod kernel;
mod nat;
mod path;
mod process;

use super::{Role, Scenario, Setting, Step};
use crate::gateway::Beat;
use crate::judge::Expected;
use crate::peer::Kind;

const C: Beat = Beat { idle_ms: 1_000, interval_ms: 500, probes: 4 };
const D: u64 = C.bound_ms();
/// What a verdict that rests on what the peer's kernel says may take.
const AT_ONCE: u64 = 50;
/// From one segment to its last retransmission that may still be on its way, and some.
const SEGMENT: u64 = 1_200;
/// After a heartbeat its acknowledgement may still follow; the next segment is a probe.
const DELAYED_ACKNOWLEDGEMENT: Step = Step::Rest(250);

const BOTH: &[Role] = &[Role::Gateway, Role::Client];
const GATEWAY: &[Role] = &[Role::Gateway];

const ONE: Setting =
    Setting { beat: C, kind: Kind::Client, hosts: &[1], delay_ms: 0, nat: false, keep_hung_ms: 0 };

const fn within(causes: &'static [&'static str], within_ms: u64) -> Expected {
    Expected { causes, direction: None, scope: None, within_ms }
}

const fn verdict(causes: &'static [&'static str], within_ms: u64) -> Step {
    Step::Verdict(within(causes, within_ms))
}

/// Neither end hears the other.
const fn silence(within_ms: u64) -> Step {
    Step::Verdict(Expected { direction: Some("both"), ..within(&["path_lost"], within_ms) })
}

const fn revised(causes: &'static [&'static str]) -> Step {
    Step::Revised(within(causes, 5_000))
}

/// All scenarios, by what is broken.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    let tables =
        [process::SCENARIOS, path::SCENARIOS, nat::SCENARIOS, alive::SCENARIOS, kernel::SCENARIOS];
    tables.into_iter().flatten()
}
