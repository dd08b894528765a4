//! Scenarios of a router, a firewall or a host that refuses packets by ICMP: a connection that
//! still stands is not dead before the bound.

use super::path::warned;
use super::{BOTH, C, ONE, SEGMENT, at_bound};
use crate::network::Family;
use crate::scenario::{Fault, Middle, Refusal, Scenario, Setting, Step};

const V4: Setting = ONE;
/// Errors meet a write, and not only a read.
const BUSY: Setting = Setting { busy: true, ..ONE };
const V6: Setting = Setting { family: Family::V6, ..ONE };
/// With a relay, which forges what nftables cannot say.
const RELAYED_V6: Setting = Setting { middle: Middle::Delays(0), ..V6 };

/// Refused until the bound: the message is a warning, and the cause of the verdict.
const FOR_GOOD: Scenario = Scenario {
    name: "",
    fault: "",
    about: "Each segment of both ends is answered by ICMP; the connections stand.",
    long: false,
    roles: BOTH,
    setting: V4,
    steps: &[],
};
/// Refused for half of the bound: the link goes on.
const FOR_A_WHILE: Scenario = Scenario {
    about: "As above, but the rule is removed again: the same link goes on.",
    ..FOR_GOOD
};

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
    Scenario {
        name: "port-refused",
        fault: "ICMP port unreachable",
        steps: until_the_bound!(Port),
        ..FOR_GOOD
    },
    Scenario {
        name: "port-refused-soon",
        fault: "ICMP port unreachable for 1.5 s",
        steps: and_healed!(Port),
        ..FOR_A_WHILE
    },
    Scenario {
        name: "port-refused-busy",
        fault: "ICMP port unreachable, busy link",
        setting: BUSY,
        steps: until_the_bound!(Port),
        ..FOR_GOOD
    },
    Scenario {
        name: "port-refused-busy-soon",
        fault: "ICMP port unreachable for 1.5 s, busy link",
        setting: BUSY,
        steps: and_healed!(Port),
        ..FOR_A_WHILE
    },
    Scenario {
        name: "port-refused-v6",
        fault: "ICMPv6 port unreachable",
        setting: V6,
        steps: until_the_bound!(Port),
        ..FOR_GOOD
    },
    Scenario {
        name: "port-refused-v6-soon",
        fault: "ICMPv6 port unreachable for 1.5 s",
        setting: V6,
        steps: and_healed!(Port),
        ..FOR_A_WHILE
    },
    Scenario {
        name: "protocol-refused",
        fault: "ICMP protocol unreachable",
        steps: until_the_bound!(Protocol),
        ..FOR_GOOD
    },
    Scenario {
        name: "protocol-refused-soon",
        fault: "ICMP protocol unreachable for 1.5 s",
        steps: and_healed!(Protocol),
        ..FOR_A_WHILE
    },
    Scenario {
        name: "protocol-refused-v6",
        fault: "ICMPv6 protocol unknown",
        setting: RELAYED_V6,
        steps: until_the_bound!(Protocol),
        ..FOR_GOOD
    },
    Scenario {
        name: "protocol-refused-v6-soon",
        fault: "ICMPv6 protocol unknown for 1.5 s",
        setting: RELAYED_V6,
        steps: and_healed!(Protocol),
        ..FOR_A_WHILE
    },
    Scenario {
        name: "prohibited",
        fault: "ICMP prohibited",
        steps: until_the_bound!(Prohibited),
        ..FOR_GOOD
    },
    Scenario {
        name: "prohibited-soon",
        fault: "ICMP prohibited for 1.5 s",
        steps: and_healed!(Prohibited),
        ..FOR_A_WHILE
    },
    Scenario {
        name: "prohibited-v6",
        fault: "ICMPv6 prohibited",
        setting: V6,
        steps: until_the_bound!(Prohibited),
        ..FOR_GOOD
    },
    Scenario {
        name: "prohibited-v6-soon",
        fault: "ICMPv6 prohibited for 1.5 s",
        setting: V6,
        steps: and_healed!(Prohibited),
        ..FOR_A_WHILE
    },
];
