//! Scenarios with living peers: a bad path or a late observer must cause no verdict.

use super::{BOTH, D, GATEWAY, ONE, SEGMENT};
use crate::gateway::Beat;
use crate::peer::Kind;
use crate::scenario::{Fault, Middle, Scenario, Setting, Step};

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "observer-stops",
        fault: "observer SIGSTOP 5 s, 1,000 healthy, 50 dead",
        about: "The observer is the first suspect: its own absence must cause no verdict.",
        long: false,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Answering, hosts: &[1_000, 50], ..ONE },
        steps: &[
            Step::Do(Fault::DropSecondHost),
            Step::Do(Fault::ObserverStopped),
            Step::Rest(5_000),
            Step::Do(Fault::ObserverContinues),
            Step::OnlySecondHostEnds { links: 50, within_ms: D + 500 },
            Step::Rest(1_500),
            Step::OnlySecondHostEnds { links: 50, within_ms: D + 2_000 },
        ],
    },
    Scenario {
        name: "observer-starved",
        fault: "observer gets 50 ms of each 250 ms for 30 s",
        about: "A starved loop is late, shows it in its metrics, and gives no wrong verdict.",
        long: false,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Answering, hosts: &[200], ..ONE },
        steps: &[Step::Do(Fault::ObserverStarved(30_000)), Step::NoLinkEnds, Step::LagReported],
    },
    Scenario {
        name: "short-outage",
        fault: "outage 2 s, below D",
        about: "At most a suspicion; the same link goes on. Counted from the last heartbeat.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::AfterBeat,
            Step::Do(Fault::DropBoth),
            Step::Rest(2_000),
            Step::Do(Fault::Heal),
            Step::Alive { within_ms: SEGMENT },
        ],
    },
    Scenario {
        name: "long-outage",
        fault: "outage 30 s with D = 60 s",
        about: "The kernel must not give up before D, nor wait long before it retransmits.",
        long: false,
        roles: BOTH,
        setting: Setting { beat: Beat { idle_ms: 10_000, interval_ms: 5_000, probes: 10 }, ..ONE },
        steps: &[
            Step::Do(Fault::DropBoth),
            Step::Rest(30_000),
            Step::Do(Fault::Heal),
            Step::Alive { within_ms: SEGMENT },
        ],
    },
    Scenario {
        name: "lossy",
        fault: "30 % loss for 5 s, D = 15 s",
        about: "Retransmissions carry the heartbeats through.",
        long: false,
        roles: BOTH,
        setting: Setting {
            beat: Beat { idle_ms: 3_000, interval_ms: 3_000, probes: 4 },
            hosts: &[20],
            ..ONE
        },
        steps: &[
            Step::Do(Fault::Loss(30)),
            Step::Rest(5_000),
            Step::Do(Fault::Heal),
            Step::Rest(4_000),
            Step::NoLinkEnds,
        ],
    },
    Scenario {
        name: "lossy-path",
        fault: "5 % loss, RTT 50 ms, D = 3 s",
        about: "A typical bad path; a run as short as this is only a rough check.",
        long: false,
        roles: BOTH,
        setting: Setting { hosts: &[20], middle: Middle::Delays(25), ..ONE },
        steps: &[
            Step::Do(Fault::Loss(5)),
            Step::Rest(20_000),
            Step::FewEnd { links: 20, in_ms: 20_000 },
        ],
    },
    Scenario {
        name: "lossy-path-long",
        fault: "5 % loss, RTT 50 ms, D = 3 s, for 10 min",
        about: "The same, long enough to count: at most one wrong verdict per link in two hours.",
        long: true,
        roles: BOTH,
        setting: Setting { hosts: &[100], middle: Middle::Delays(25), ..ONE },
        steps: &[
            Step::Do(Fault::Loss(5)),
            Step::Rest(600_000),
            Step::FewEnd { links: 100, in_ms: 600_000 },
        ],
    },
    Scenario {
        name: "flapping",
        fault: "cable flaps 1 s down, 2 s up, for 30 s",
        about: "Each gap is below D: no verdict may fall.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::Repeat(
                10,
                &[
                    Step::Do(Fault::CableDown),
                    Step::Rest(1_000),
                    Step::Do(Fault::CableUp),
                    Step::Rest(2_000),
                ],
            ),
            Step::NoLinkEnds,
        ],
    },
];
