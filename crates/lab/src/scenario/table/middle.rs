//! Scenarios of something between the ends that is neither: a proxy, a narrow path, a forged reset,
//! a next hop that is gone.

use super::path::warned;
use super::{
    BOTH, C, D, DELAYED_ACKNOWLEDGEMENT, GATEWAY, ONE, at_bound, revised, verdict, within,
};
use crate::gateway::Beat;
use crate::judge::Expected;
use crate::peer::Kind;
use crate::scenario::{Fault, Middle, Role, Scenario, Setting, Step};

/// D = 8 s: longer than the kernel asks for the next hop, so its error comes before the bound.
const PATIENT: Beat = Beat { idle_ms: 2_000, interval_ms: 1_500, probes: 4 };
/// D = 12 s: as long again.
const VERY_PATIENT: Beat = Beat { idle_ms: 2_000, interval_ms: 2_500, probes: 4 };
/// Time in which a forged reset arrives.
const RESET: u64 = 100;

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "proxy",
        fault: "proxy acknowledges, path behind it cut",
        about: "Whoever stands in the middle acknowledges too: the peer may be cut off, or hang.",
        long: false,
        roles: BOTH,
        setting: Setting { middle: Middle::Proxies, ..ONE },
        steps: &[
            Step::Do(Fault::CutBehindProxy),
            Step::Verdict(Expected {
                confidence: Some("medium"),
                ..at_bound(&["app_hung", "unknown"], C)
            }),
        ],
    },
    Scenario {
        name: "narrow",
        fault: "packets above 1,200 bytes vanish",
        about: "An MTU black hole: small segments are acknowledged, large ones sent in vain, and \
                heartbeats wait behind them.",
        long: false,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Passive, ..ONE },
        steps: &[
            Step::Do(Fault::LargeVanish),
            Step::Do(Fault::MessageEchoed),
            Step::Verdict(Expected {
                scope: Some("large_packets"),
                ..within(&["path_lost"], D + 500)
            }),
        ],
    },
    Scenario {
        name: "narrow-back",
        fault: "the peer's packets above 1,200 bytes vanish",
        about: "Its kernel acknowledges, its answers are stuck behind a large segment that never \
                comes.",
        long: false,
        roles: &[Role::Client],
        setting: ONE,
        steps: &[
            Step::AfterBeat,
            Step::Do(Fault::LargeVanish),
            Step::Do(Fault::MessageEchoed),
            Step::Verdict(Expected {
                scope: Some("large_packets"),
                confidence: Some("medium"),
                ..within(&["path_lost"], D + 500)
            }),
        ],
    },
    Scenario {
        name: "reset-injected",
        fault: "reset injected, both ends alive",
        about: "Forged while everything is acknowledged; the same instance returns and disproves \
                that the process ended.",
        long: false,
        roles: BOTH,
        setting: Setting { middle: Middle::Delays(0), ..ONE },
        steps: &[
            Step::AfterBeat,
            DELAYED_ACKNOWLEDGEMENT,
            Step::Do(Fault::ResetInjected),
            verdict(&["peer_exited", "peer_reset"], RESET),
            revised(&["middlebox_reset"]),
        ],
    },
    Scenario {
        name: "neighbour-gone",
        fault: "neighbour gone, D = 8 s",
        about: "Our next hop no longer answers; our kernel gives it up within the bound.",
        long: false,
        roles: BOTH,
        setting: Setting { beat: PATIENT, ..ONE },
        steps: &[
            Step::Do(Fault::NeighbourGone),
            warned(&["local_neighbour_gone"], PATIENT.bound_ms()),
            Step::Verdict(at_bound(&["local_neighbour_gone"], PATIENT)),
        ],
    },
    Scenario {
        name: "neighbour-mute",
        fault: "neighbour no longer answers, D = 12 s",
        about: "Our kernel sends to the known address for some seconds more before it gives up.",
        long: false,
        roles: BOTH,
        setting: Setting { beat: VERY_PATIENT, ..ONE },
        steps: &[
            Step::Do(Fault::NeighbourMute),
            warned(&["local_neighbour_gone"], VERY_PATIENT.bound_ms()),
            Step::Verdict(at_bound(&["local_neighbour_gone"], VERY_PATIENT)),
        ],
    },
    Scenario {
        name: "reads-no-more",
        fault: "peer beats and does not read, 250 KB wait",
        about: "A warning and no more: it lives, and less waits than we keep for it.",
        long: false,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Deaf, ..ONE },
        steps: &[
            Step::Do(Fault::ReadsNoMore),
            Step::Reports("warned", within(&["not_reading"], WARNED)),
            // The warning comes later than the kernel's own limit on data, near ten seconds.
            Step::Rest(1_000),
            Step::NoLinkEnds,
        ],
    },
    Scenario {
        name: "slow-consumer",
        fault: "peer beats and does not read, too much waits",
        about: "More waits for the peer than we keep: our own limit ends the link.",
        long: false,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Deaf, ..ONE },
        steps: &[
            Step::Do(Fault::ReadsNoMore),
            Step::Rest(C.idle_ms),
            Step::Do(Fault::BacklogGrows),
            verdict(&["slow_consumer"], SLOW),
        ],
    },
];

/// Time limit of the warning that a peer does not read: two examinations, the first one 8 s after
/// the bytes.
const WARNED: u64 = 18_000;
/// Time in which the gateway has read more than it keeps for one link.
const SLOW: u64 = 500;
