//! Scenarios of living peers behind slow, changing or filtered paths.

use super::{BOTH, GATEWAY, ONE, SEGMENT};
use crate::gateway::Beat;
use crate::peer::Kind;
use crate::scenario::{Fault, Middle, Refusal, Scenario, Setting, Step};

const RELAYED: Setting = Setting { middle: Middle::Delays(0), ..ONE };
/// D = 16 s, with answers that take 10 s.
const QUEUED: Setting =
    Setting { beat: Beat { idle_ms: 4_000, interval_ms: 3_000, probes: 4 }, ..RELAYED };
const QUEUED_WITHOUT_TIMESTAMPS: Setting = Setting { timestamps: false, ..QUEUED };
/// D = 6 s, with round trips of up to 3 s.
const STEPS: Setting = Setting {
    beat: Beat { idle_ms: 1_000, interval_ms: 500, probes: 10 },
    kind: Kind::Passive,
    hosts: &[20],
    ..RELAYED
};
/// Time limit of a suspicion: a probe after the idle time, and a second without an answer.
const SUSPECTED: u64 = 2_300;
/// D = 60 s.
const OUTAGES: Setting =
    Setting { beat: Beat { idle_ms: 1_000, interval_ms: 1_000, probes: 59 }, ..ONE };
/// D = 6 s: longer than the idle time, a filter, and the time until a segment is sent again.
const FILTERED: Setting =
    Setting { beat: Beat { idle_ms: 1_000, interval_ms: 1_000, probes: 5 }, hosts: &[20], ..ONE };
/// D = 30 s, for round trips of up to 10 s.
const ROUGH: Setting = Setting {
    beat: Beat { idle_ms: 4_000, interval_ms: 2_000, probes: 13 },
    hosts: &[20],
    ..RELAYED
};

/// The steps of answers that come 10 s late, for `ms`.
macro_rules! late {
    ($ms:literal) => {
        &[
            Step::Do(Fault::AnswersLate(10_000)),
            Step::Rest($ms),
            Step::NoLinkEnds,
            Step::SuspectedAtMost(1),
        ]
    };
}

/// The steps of two outages, each for `ms`, with ten beats between them.
macro_rules! outages {
    ($ms:literal) => {
        &[
            Step::Do(Fault::DropBoth),
            Step::Suspected { within_ms: SUSPECTED },
            Step::Rest($ms),
            Step::Do(Fault::Heal),
            Step::Alive { within_ms: SEGMENT },
            // The answers to all that waited come at once, so beats are counted by their time.
            Step::Rest(10_000),
            Step::Do(Fault::DropBoth),
            Step::Suspected { within_ms: SUSPECTED },
            Step::Rest($ms),
            Step::Do(Fault::Heal),
            Step::Alive { within_ms: SEGMENT },
        ]
    };
}

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "late-answers",
        fault: "answers 10 s late, D = 16 s",
        about: "A full queue on the way: acknowledgements and answers come, all of them late.",
        long: false,
        roles: BOTH,
        setting: QUEUED,
        steps: late!(40_000),
    },
    Scenario {
        name: "late-answers-plain",
        fault: "answers 10 s late, D = 16 s, no timestamps",
        about: "The same where the kernel cannot measure a segment that it has sent twice.",
        long: false,
        roles: BOTH,
        setting: QUEUED_WITHOUT_TIMESTAMPS,
        steps: late!(40_000),
    },
    Scenario {
        name: "late-answers-long",
        fault: "answers 10 s late for 2 min, D = 16 s",
        about: "Long enough for every timeout of the kernel.",
        long: true,
        roles: BOTH,
        setting: QUEUED,
        steps: late!(120_000),
    },
    Scenario {
        name: "late-answers-plain-long",
        fault: "answers 10 s late for 2 min, D = 16 s, no timestamps",
        about: "Long enough for every timeout of the kernel.",
        long: true,
        roles: BOTH,
        setting: QUEUED_WITHOUT_TIMESTAMPS,
        steps: late!(120_000),
    },
    Scenario {
        name: "round-trip-steps",
        fault: "RTT 20 ms, 800 ms, 3 s, 20 ms",
        about: "Peers that only answer; each step surprises the observer once.",
        long: false,
        roles: GATEWAY,
        setting: STEPS,
        steps: &[
            Step::Do(Fault::RoundTrip(20)),
            Step::Rest(4_000),
            Step::Do(Fault::RoundTrip(800)),
            Step::Rest(10_000),
            Step::SuspectedAtMost(1),
            Step::Do(Fault::RoundTrip(3_000)),
            Step::Rest(15_000),
            Step::SuspectedAtMost(2),
            Step::Do(Fault::RoundTrip(20)),
            Step::Rest(8_000),
            Step::SuspectedAtMost(2),
            Step::NoLinkEnds,
        ],
    },
    Scenario {
        name: "two-outages",
        fault: "two outages of 15 s, ten beats between, D = 60 s",
        about: "The answers to what waited in the first one measure the outage, not the path.",
        long: false,
        roles: BOTH,
        setting: OUTAGES,
        steps: outages!(13_000),
    },
    Scenario {
        name: "two-outages-long",
        fault: "two outages of 30 s, ten beats between, D = 60 s",
        about: "The same, each as long as half of the bound.",
        long: true,
        roles: BOTH,
        setting: OUTAGES,
        steps: outages!(28_000),
    },
    Scenario {
        name: "rough-path",
        fault: "RTT 1 ms to 10 s, loss, reordering, doubles, D = 30 s",
        about: "All that a living path does, one after the other.",
        long: false,
        roles: BOTH,
        setting: ROUGH,
        steps: &[
            Step::Do(Fault::Loss(30)),
            Step::Rest(5_000),
            Step::Do(Fault::Heal),
            Step::Do(Fault::Scrambled),
            Step::Rest(6_000),
            Step::Do(Fault::RoundTrip(1_000)),
            Step::Rest(6_000),
            Step::Do(Fault::RoundTrip(10_000)),
            Step::Rest(28_000),
            Step::Do(Fault::RoundTrip(2)),
            Step::Rest(6_000),
            Step::NoLinkEnds,
        ],
    },
    Scenario {
        name: "filters",
        fault: "filters come and go for 30 s",
        about: "Refused, prohibited, dropped: each for two seconds, which is below D = 6 s.",
        long: false,
        roles: BOTH,
        setting: FILTERED,
        steps: &[
            Step::Repeat(
                3,
                &[
                    Step::Do(Fault::Refused(Refusal::Port)),
                    Step::Rest(2_000),
                    Step::Do(Fault::Heal),
                    Step::Rest(1_500),
                    Step::Do(Fault::Refused(Refusal::Prohibited)),
                    Step::Rest(2_000),
                    Step::Do(Fault::Heal),
                    Step::Rest(1_500),
                    Step::Do(Fault::DropBoth),
                    Step::Rest(2_000),
                    Step::Do(Fault::Heal),
                    Step::Rest(1_500),
                ],
            ),
            Step::NoLinkEnds,
        ],
    },
];
