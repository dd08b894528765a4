//! Scenarios of a router that loses its mappings, silently or not.

use super::{BOTH, C, D, DELAYED_ACKNOWLEDGEMENT, ONE, SEGMENT, revised, silence, verdict, within};
use crate::gateway::Beat;
use crate::scenario::{Fault, Middle, Scenario, Setting, Step};

const BEHIND_NAT: Setting = Setting { middle: Middle::Translates, ..ONE };
const LATE: Beat = Beat { idle_ms: 4_000, interval_ms: 500, probes: 4 };
/// The first probe comes after two seconds of silence or more.
const IDLE_BEHIND_NAT: Setting = Setting { beat: LATE, ..BEHIND_NAT };
/// Short of the 30 s after which a reset is taken for a forgotten mapping.
const RESET: Step = revised(&["middlebox_reset"]);
/// The same revision, where the verdict may take twice the idle time and siblings are probed once
/// more.
const LATE_FORGOT: Step =
    Step::Revised(within(&["middlebox_forgot"], 2 * LATE.idle_ms + LATE.bound_ms() + 1_000));
/// The client was reset; the gateway may learn it from the account only after its own bound.
const LATE_RESET: Step =
    Step::Revised(within(&["middlebox_reset"], 2 * LATE.idle_ms + LATE.bound_ms() + 1_000));
/// Both ends see only silence; the gateway learns the cause from the client's account.
const GATEWAY_LEARNS: Step = Step::GatewayAlone(&[SILENT_FORGOT]);
/// The client waits for a retransmission on its old connection before it gives the account.
const SILENT_FORGOT: Step = Step::Revised(within(&["middlebox_forgot"], D + 500 + 2_000));

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "nat-forgets",
        fault: "NAT mappings flushed, silently",
        about: "The router drops packets without a mapping; both ends live and cannot see it.",
        long: false,
        roles: BOTH,
        setting: BEHIND_NAT,
        steps: &[Step::Do(Fault::NatForgets), silence(D + 200), GATEWAY_LEARNS],
    },
    Scenario {
        name: "nat-expires",
        fault: "NAT mapping expires while idle",
        about: "The mapping expires after a second, and the first probe comes after two: too late.",
        long: false,
        roles: BOTH,
        setting: IDLE_BEHIND_NAT,
        steps: &[
            Step::Do(Fault::NatExpires),
            silence(LATE.idle_ms + LATE.bound_ms() + 200),
            Step::GatewayAlone(&[LATE_FORGOT, Step::IdleReported]),
        ],
    },
    Scenario {
        name: "nat-remaps",
        fault: "NAT gives the flow another port",
        about: "The client's packets arrive from another port, unknown to the gateway: a reset.",
        long: false,
        roles: BOTH,
        setting: IDLE_BEHIND_NAT,
        steps: &[
            Step::Do(Fault::NatRemaps),
            // Depends on the end that sends first: segments of the gateway find no mapping, and get
            // no answer.
            verdict(&["path_lost", "peer_reset"], LATE.bound_ms() + 200),
            LATE_RESET,
            Step::GatewayAlone(&[Step::IdleReported]),
        ],
    },
    Scenario {
        name: "nat-resets",
        fault: "NAT forgets and answers RST",
        about: "As a NAT that was restarted: a reset after a short silence, unknown to the peer.",
        long: false,
        roles: BOTH,
        setting: IDLE_BEHIND_NAT,
        steps: &[
            Step::Do(Fault::NatResets),
            verdict(&["peer_reset"], LATE.idle_ms + 200),
            RESET,
            Step::GatewayAlone(&[Step::IdleReported]),
        ],
    },
    Scenario {
        name: "nat-resets-soon",
        fault: "NAT forgets and answers RST within a second",
        about: "The reset comes while the last acknowledgement is fresh, as from a killed process.",
        long: false,
        roles: BOTH,
        setting: BEHIND_NAT,
        steps: &[
            Step::AfterBeat,
            DELAYED_ACKNOWLEDGEMENT,
            Step::Do(Fault::NatResets),
            verdict(&["peer_reset"], C.idle_ms + SEGMENT),
            RESET,
        ],
    },
];
