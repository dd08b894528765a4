//! Scenarios of the kernel alone: with keepalive, timeouts and retransmissions.

use super::{BOTH, GATEWAY, ONE};
use crate::gateway::Beat;
use crate::scenario::{Fault, Scenario, Setting, Step};

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "keepalive-alone",
        fault: "no heartbeats, kernel keepalive 5/3/3",
        about: "What the kernel can do by itself: a dead peer is found after 14.3 s.",
        long: false,
        roles: BOTH,
        setting: Setting { beat: Beat { idle_ms: 0, interval_ms: 0, probes: 0 }, ..ONE },
        steps: &[Step::Do(Fault::DropBoth), Step::Keepalive { from_ms: 14_000, to_ms: 14_600 }],
    },
    Scenario {
        name: "kernel-arithmetic",
        fault: "when plain sockets die, by their options",
        about: "A row for each setting of keepalive, user timeout and retransmission, all at once; \
                three minutes.",
        long: true,
        roles: GATEWAY,
        setting: Setting { hosts: &[], ..ONE },
        steps: &[Step::Arithmetic { from_ms: 0, to_ms: 200_000 }],
    },
    Scenario {
        name: "kernel-arithmetic-long",
        fault: "when a plain socket dies by default",
        about: "One lost send without any option, 16 minutes. Left out: keepalive by default, \
                7,875 s.",
        long: true,
        roles: GATEWAY,
        setting: Setting { hosts: &[], ..ONE },
        steps: &[Step::Arithmetic { from_ms: 200_000, to_ms: 1_000_000 }],
    },
];
