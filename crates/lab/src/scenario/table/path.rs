//! Scenarios of the path between two living ends: lost both ways or one, refused by routers, lost
//! at our own end.

use super::{BOTH, C, D, GATEWAY, ONE, at_bound, silence, verdict, within};
use crate::judge::Expected;
use crate::scenario::{Fault, Scenario, Setting, Step};

/// A setting with enough links for an outage event.
const MANY: Setting = Setting { hosts: &[20], ..ONE };

/// Expects a warning before the bound. The next heartbeat comes within the idle time; then a
/// router's answer takes half a second. A loss at our own end shows after two retransmission times
/// of 200 ms, at an examination each second.
pub(super) const fn warned(causes: &'static [&'static str], within_ms: u64) -> Step {
    Step::Reports("warned", within(causes, within_ms))
}

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "drop",
        fault: "drop both ways, silently",
        about: "A firewall, a cable beyond the first hop, a crashed host: nothing comes back.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::DropBoth), silence(D + 200)],
    },
    Scenario {
        name: "drop-ours",
        fault: "drop our direction only",
        about: "Its probes still arrive until it retransmits; silence begins up to idle later.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::Do(Fault::DropOurs),
            Step::Verdict(Expected {
                direction: Some("outbound"),
                ..within(&["path_lost"], C.idle_ms + D + 500)
            }),
        ],
    },
    Scenario {
        name: "drop-its",
        fault: "drop the peer's direction only",
        about: "Silence, as when both ways are lost; only the peer can report later what it heard.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::Do(Fault::DropIts),
            silence(D + 200),
            Step::Rest(1_500),
            Step::Do(Fault::Heal),
            Step::GatewayAlone(&[Step::Revised(Expected {
                direction: Some("inbound"),
                ..within(&["path_lost"], 5_000)
            })]),
        ],
    },
    Scenario {
        name: "drop-flow",
        fault: "drop this flow only, others of the host fine",
        about: "A stale rule or a broken middlebox: another link of the same host lives.",
        long: false,
        roles: GATEWAY,
        setting: Setting { hosts: &[2], ..ONE },
        steps: &[
            Step::Do(Fault::DropFlow),
            silence(D + 500),
            // The link's siblings are probed when it has ended; they answer at once.
            Step::Revised(Expected { scope: Some("flow"), ..within(&["path_lost"], D + 500) }),
        ],
    },
    Scenario {
        name: "unreachable",
        fault: "router answers unreachable",
        about: "ICMP host unreachable for each of our segments; the socket stays established.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::Do(Fault::Unreachable),
            warned(&["unreachable"], C.idle_ms + 500),
            Step::Verdict(at_bound(&["unreachable"], C)),
        ],
    },
    Scenario {
        name: "no-route",
        fault: "router has no route",
        about: "The router's table has lost the peer's network, and the router reports it.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::Do(Fault::NoRoute),
            warned(&["unreachable"], C.idle_ms + 500),
            Step::Verdict(at_bound(&["unreachable"], C)),
        ],
    },
    Scenario {
        name: "interface-down",
        fault: "own interface down",
        about: "Our own fault: the verdicts must not blame the peers.",
        long: false,
        roles: BOTH,
        setting: MANY,
        steps: &[
            Step::Do(Fault::OurInterfaceDown),
            warned(&["local_network_down"], C.idle_ms + 1_400),
            verdict(&["local_network_down"], D + 1_000),
            Step::GatewayAlone(&[Step::OutageHere { within_ms: D + 2_000 }]),
        ],
    },
    Scenario {
        name: "address-removed",
        fault: "own address removed",
        about: "Our own fault again; send() goes on succeeding.",
        long: false,
        roles: BOTH,
        setting: MANY,
        steps: &[
            Step::Do(Fault::OurAddressRemoved),
            warned(&["local_network_down"], C.idle_ms + 1_400),
            verdict(&["local_network_down"], D + 1_000),
            Step::GatewayAlone(&[Step::OutageHere { within_ms: D + 2_000 }]),
        ],
    },
    Scenario {
        name: "switch",
        fault: "half of all peers cut at one switch",
        about: "One outage event with the count, in addition to each verdict.",
        long: false,
        roles: GATEWAY,
        setting: Setting { hosts: &[20, 20], ..ONE },
        steps: &[
            Step::Do(Fault::DropSecondHost),
            Step::OnlySecondHostEnds { links: 20, within_ms: D + 1_000 },
            Step::Outage { links: 20, within_ms: D + 1_000 },
        ],
    },
];
