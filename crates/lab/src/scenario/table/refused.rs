//! Scenarios of a router, a firewall or a host that refuses packets by ICMP: a connection that
//! still stands is not dead before the bound.

use super::path::warned;
use super::{BOTH, C, ONE, SEGMENT, at_bound};
use crate::network::Family;
use crate::scenario::{Fault, Refusal, Scenario, Setting, Step};

const V4: Setting = ONE;
/// Errors meet a write, and not only a read.
const BUSY: Setting = Setting { busy: true, ..ONE };
const V6: Setting = Setting { family: Family::V6, ..ONE };

/// Refused until the bound: the message is a warning, and the cause of the verdict.
const fn for_good(
    name: &'static str,
    fault: &'static str,
    setting: Setting,
    steps: &'static [Step],
) -> Scenario {
    let about = "Each segment of both ends is answered by ICMP; the connections stand.";
    Scenario { name, fault, about, long: false, roles: BOTH, setting, steps }
}

/// Refused for half of the bound: the link goes on.
const fn for_a_while(
    name: &'static str,
    fault: &'static str,
    setting: Setting,
    steps: &'static [Step],
) -> Scenario {
    let about = "As above, but the rule is removed again: the same link goes on.";
    Scenario { name, fault, about, long: false, roles: BOTH, setting, steps }
}

macro_rules! until_the_bound {
    ($refusal:ident) => {
        &[
            Step::Do(Fault::Refused(Refusal::$refusal)),
            warned(&["unreachable"], C.idle_ms + 500),
            Step::Verdict(at_bound(&["unreachable"], C)),
        ]
    };
}

macro_rules! and_healed {
    ($refusal:ident) => {
        &[
            Step::AfterBeat,
            Step::Do(Fault::Refused(Refusal::$refusal)),
            Step::Rest(1_500),
            Step::Do(Fault::Heal),
            Step::Alive { within_ms: SEGMENT },
        ]
    };
}

pub(super) static SCENARIOS: &[Scenario] = &[
    for_good("port-refused", "ICMP port unreachable", V4, until_the_bound!(Port)),
    for_a_while("port-refused-soon", "ICMP port unreachable for 1.5 s", V4, and_healed!(Port)),
    for_good("port-refused-busy", "ICMP port unreachable, busy link", BUSY, until_the_bound!(Port)),
    for_a_while(
        "port-refused-busy-soon",
        "ICMP port unreachable for 1.5 s, busy link",
        BUSY,
        and_healed!(Port),
    ),
    for_good("port-refused-v6", "ICMPv6 port unreachable", V6, until_the_bound!(Port)),
    for_a_while("port-refused-v6-soon", "ICMPv6 port unreachable for 1.5 s", V6, and_healed!(Port)),
    for_good("protocol-refused", "ICMP protocol unreachable", V4, until_the_bound!(Protocol)),
    for_a_while(
        "protocol-refused-soon",
        "ICMP protocol unreachable for 1.5 s",
        V4,
        and_healed!(Protocol),
    ),
    for_good("prohibited", "ICMP prohibited", V4, until_the_bound!(Prohibited)),
    for_a_while("prohibited-soon", "ICMP prohibited for 1.5 s", V4, and_healed!(Prohibited)),
    for_good("prohibited-v6", "ICMPv6 prohibited", V6, until_the_bound!(Prohibited)),
    for_a_while("prohibited-v6-soon", "ICMPv6 prohibited for 1.5 s", V6, and_healed!(Prohibited)),
];
