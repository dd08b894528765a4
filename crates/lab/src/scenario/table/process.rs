//! Scenarios of the peer's process or its machine: ended, stopped, restarted.

use super::{
    AT_ONCE, BOTH, C, D, DELAYED_ACKNOWLEDGEMENT, GATEWAY, ONE, SEGMENT, revised, verdict, within,
};
use crate::gateway::Beat;
use crate::peer::Kind;
use crate::scenario::{Fault, Role, Scenario, Setting, Step};

/// D = 6 s: longer than the fastest restart of a machine.
const PATIENT: Beat = Beat { idle_ms: 1_000, interval_ms: 500, probes: 10 };
/// A setting in which a hung peer is kept for longer than any run lasts.
const KEPT: Setting = Setting { keep_hung_ms: 600_000, ..ONE };
/// Longer than the kernel's own limit on unacknowledged data, which is near ten seconds with this
/// D: the run shows that the limit has no effect.
const BEYOND_THE_KERNEL_MS: u64 = 16_000;

const fn reported_as_hung(causes: &'static [&'static str], within_ms: u64) -> Step {
    Step::Reports("hung", within(causes, within_ms))
}

pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "goodbye",
        fault: "peer says CLOSE",
        about: "An orderly end: the verdict repeats the peer's reason, at once.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::PeerCloses), verdict(&["peer_closed"], AT_ONCE)],
    },
    Scenario {
        name: "kill",
        fault: "SIGKILL, nothing unread",
        about: "The peer's kernel closes the socket: an end of stream without a goodbye.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::PeerKilled), verdict(&["peer_exited"], AT_ONCE)],
    },
    Scenario {
        name: "kill-unread",
        fault: "SIGKILL with unread data",
        about: "Stopped until a probe lies unread in its socket, then killed: its kernel resets.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::AfterBeat,
            Step::Do(Fault::PeerStopped),
            // A probe has gone out by then, and none is on its way while the process dies.
            Step::Rest(1_250),
            Step::Do(Fault::PeerKilled),
            verdict(&["peer_exited"], AT_ONCE),
        ],
    },
    Scenario {
        name: "hang",
        fault: "SIGSTOP, small beats",
        about: "The application hangs; its kernel goes on acknowledging our probes.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::PeerStopped), verdict(&["app_hung"], D + 200)],
    },
    Scenario {
        name: "not-reading",
        fault: "reader stops, we fill its window",
        about: "Its kernel acknowledges window probes, and has no room for more.",
        long: false,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Deaf, ..ONE },
        steps: &[Step::Do(Fault::WindowFilled), verdict(&["not_reading"], D + 1_000)],
    },
    Scenario {
        name: "hang-full",
        fault: "SIGSTOP while we fill its window",
        about: "The application hangs, and what we send fills its buffers.",
        long: false,
        roles: &[Role::Client],
        setting: ONE,
        steps: &[
            Step::Do(Fault::PeerStopped),
            Step::Do(Fault::WindowFilled),
            verdict(&["not_reading"], D + 1_000),
        ],
    },
    Scenario {
        name: "hang-kept",
        fault: "SIGSTOP, then SIGCONT, hung = \"10m\"",
        about: "A hang is reported at the bound and the link is kept; after SIGCONT it goes on.",
        long: false,
        roles: BOTH,
        setting: KEPT,
        steps: &[
            Step::Do(Fault::PeerStopped),
            reported_as_hung(&["app_hung"], D + 200),
            Step::Rest(2_000),
            Step::Do(Fault::PeerContinues),
            Step::Alive { within_ms: C.idle_ms },
        ],
    },
    Scenario {
        name: "full-kept",
        fault: "reader stops, window full for 20 s, hung = \"10m\"",
        about: "A closed window is reported, the link kept beyond the kernel's own limit on data.",
        long: false,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Deaf, ..KEPT },
        steps: &[
            Step::Do(Fault::WindowFilled),
            reported_as_hung(&["not_reading"], D + 1_000),
            Step::Rest(BEYOND_THE_KERNEL_MS),
            Step::NoLinkEnds,
        ],
    },
    Scenario {
        name: "hang-full-kept",
        fault: "SIGSTOP, window full for 20 s, hung = \"10m\"",
        about: "The same seen by the client; after SIGCONT the gateway reads and the link lives.",
        long: false,
        roles: &[Role::Client],
        setting: KEPT,
        steps: &[
            Step::Do(Fault::PeerStopped),
            Step::Do(Fault::WindowFilled),
            reported_as_hung(&["not_reading"], D + 1_000),
            Step::Rest(BEYOND_THE_KERNEL_MS),
            Step::NoLinkEnds,
            Step::Do(Fault::PeerContinues),
            // The window opens with the kernel's next window probe, at most a second later.
            Step::Alive { within_ms: C.idle_ms + SEGMENT },
        ],
    },
    Scenario {
        name: "full-kept-long",
        fault: "reader stops, window full for 60 s, hung = \"10m\"",
        about: "No timeout of the kernel for a minute, since each window probe is answered.",
        long: true,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Deaf, ..KEPT },
        steps: &[
            Step::Do(Fault::WindowFilled),
            reported_as_hung(&["not_reading"], D + 1_000),
            Step::Rest(60_000),
            Step::NoLinkEnds,
        ],
    },
    Scenario {
        name: "reboot",
        fault: "peer host reboots and returns",
        about: "The host vanishes without a packet, and returns with its address, no connections.",
        long: false,
        roles: BOTH,
        setting: Setting { beat: PATIENT, ..ONE },
        steps: &[
            Step::Do(Fault::HostCrashes),
            Step::Rest(2_000),
            Step::Do(Fault::HostReturns),
            verdict(&["peer_reset"], SEGMENT),
            Step::Do(Fault::PeerStarts),
            revised(&["peer_rebooted"]),
        ],
    },
    Scenario {
        name: "reboot-soon",
        fault: "peer host reboots within a second",
        about: "The reset comes while the last acknowledgement is fresh, as from a killed process.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::AfterBeat,
            DELAYED_ACKNOWLEDGEMENT,
            Step::Do(Fault::HostCrashes),
            Step::Do(Fault::HostReturns),
            verdict(&["peer_reset"], C.idle_ms + SEGMENT),
            Step::Do(Fault::PeerStarts),
            revised(&["peer_rebooted"]),
        ],
    },
    Scenario {
        name: "restart",
        fault: "peer process restarts on the same host",
        about: "An end without a goodbye, then a new instance on the same boot.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::Do(Fault::PeerKilled),
            verdict(&["peer_exited"], AT_ONCE),
            Step::Do(Fault::PeerStarts),
            Step::Returns { within_ms: 5_000 },
        ],
    },
];
