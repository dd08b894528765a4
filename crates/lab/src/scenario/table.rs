//! The table: every fault that the lab can make, and what must be told of it.
//!
//! Bounds are in milliseconds from the fault. C is the policy that most rows use: idle 1 s,
//! interval 0.5 s, 4 probes, so D = 3 s. A lost segment is sent again after at most a second.

use super::{Fault, Role, Scenario, Setting, Step};
use crate::gateway::Beat;
use crate::judge::Expected;
use crate::peer::Kind;

const C: Beat = Beat { idle_ms: 1_000, interval_ms: 500, probes: 4 };
/// D = 6 s: longer than the fastest restart of a machine.
const PATIENT: Beat = Beat { idle_ms: 1_000, interval_ms: 500, probes: 10 };
const D: u64 = C.bound_ms();
/// What a verdict that rests on what the peer's kernel says may take.
const AT_ONCE: u64 = 50;
/// From one segment to its last retransmission that may still be on its way, and some.
const SEGMENT: u64 = 1_200;

const BOTH: &[Role] = &[Role::Gateway, Role::Client];
const GATEWAY: &[Role] = &[Role::Gateway];

const ONE: Setting = Setting { beat: C, kind: Kind::Client, hosts: &[1], delay_ms: 0, nat: false };
const BEHIND_NAT: Setting = Setting { nat: true, ..ONE };
/// The first probe comes after two seconds of silence or more.
const IDLE_BEHIND_NAT: Setting =
    Setting { beat: Beat { idle_ms: 4_000, interval_ms: 500, probes: 4 }, ..BEHIND_NAT };

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

pub(crate) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "goodbye",
        fault: "peer says CLOSE",
        about: "An orderly end: the verdict repeats what the peer said, at once.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::PeerCloses), verdict(&["peer_closed"], AT_ONCE)],
    },
    Scenario {
        name: "kill",
        fault: "SIGKILL, nothing unread",
        about: "The peer's kernel closes for it: an end of stream without a goodbye.",
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
            Step::Do(Fault::PeerStopped),
            Step::Rest(1_400),
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
        about: "Its probes still arrive until it retransmits: silence begins up to an idle later.",
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
        about: "Silence, as when both ways are lost; only the peer can tell later what it heard.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[
            Step::Do(Fault::DropIts),
            silence(D + 200),
            Step::Rest(1_500),
            Step::Do(Fault::Heal),
            Step::Revised(Expected { direction: Some("inbound"), ..within(&["path_lost"], 5_000) }),
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
            Step::Verdict(Expected { scope: Some("flow"), ..within(&["path_lost"], D + 500) }),
        ],
    },
    Scenario {
        name: "unreachable",
        fault: "router answers unreachable",
        about: "ICMP host unreachable for each of our segments; the socket stays established.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::Unreachable), verdict(&["unreachable"], D + 200)],
    },
    Scenario {
        name: "no-route",
        fault: "router has no route",
        about: "The router's table has lost the peer's network, and the router says so.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::NoRoute), verdict(&["unreachable"], D + 200)],
    },
    Scenario {
        name: "interface-down",
        fault: "own interface down",
        about: "Our own fault: no peer is condemned as such.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::OurInterfaceDown), verdict(&["local_network_down"], D + 1_000)],
    },
    Scenario {
        name: "address-removed",
        fault: "own address removed",
        about: "Our own fault again; send() goes on succeeding.",
        long: false,
        roles: BOTH,
        setting: ONE,
        steps: &[Step::Do(Fault::OurAddressRemoved), verdict(&["local_network_down"], D + 1_000)],
    },
    Scenario {
        name: "reboot",
        fault: "peer host reboots and returns",
        about: "Gone without a word, back with the same address and a kernel that knows nothing.",
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
    Scenario {
        name: "nat-forgets",
        fault: "NAT mappings flushed, silently",
        about: "The router drops what belongs to no mapping; both ends live and do not know.",
        long: false,
        roles: BOTH,
        setting: BEHIND_NAT,
        steps: &[Step::Do(Fault::NatForgets), silence(D + 200), revised(&["middlebox_forgot"])],
    },
    Scenario {
        name: "nat-expires",
        fault: "NAT mapping expires while idle",
        about: "The mapping lives a second, the first probe comes after two: too late.",
        long: false,
        roles: BOTH,
        setting: IDLE_BEHIND_NAT,
        steps: &[Step::Do(Fault::NatExpires), silence(10_200), revised(&["middlebox_forgot"])],
    },
    Scenario {
        name: "nat-resets",
        fault: "NAT forgets and answers RST",
        about: "As some clouds do after 350 s: a reset after silence, unknown to the peer.",
        long: false,
        roles: BOTH,
        setting: IDLE_BEHIND_NAT,
        steps: &[
            Step::Do(Fault::NatResets),
            verdict(&["peer_reset"], 4_000 + 200),
            revised(&["middlebox_forgot"]),
        ],
    },
    Scenario {
        name: "observer-stops",
        fault: "observer SIGSTOP 5 s, 1,000 healthy, 50 dead",
        about: "The observer is the first suspect: nobody is condemned for its absence.",
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
        about: "A starved loop is late, and wrong about nobody.",
        long: false,
        roles: GATEWAY,
        setting: Setting { kind: Kind::Answering, hosts: &[200], ..ONE },
        steps: &[Step::Do(Fault::ObserverStarved(30_000)), Step::NobodyEnds],
    },
    Scenario {
        name: "short-outage",
        fault: "outage 2 s, below D",
        about: "At most a suspicion; the same link carries on. Counted from the last heartbeat.",
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
        about: "The kernel must not give up before D, nor wait long before it tries again.",
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
            Step::NobodyEnds,
        ],
    },
    Scenario {
        name: "lossy-path",
        fault: "5 % loss, RTT 50 ms, D = 3 s",
        about: "An ordinary bad path; so short a run shows only that the bound is not far off.",
        long: false,
        roles: BOTH,
        setting: Setting { hosts: &[20], delay_ms: 25, ..ONE },
        steps: &[
            Step::Do(Fault::Loss(5)),
            Step::Rest(20_000),
            Step::FewEnd { links: 20, in_ms: 20_000 },
        ],
    },
    Scenario {
        name: "lossy-path-long",
        fault: "5 % loss, RTT 50 ms, D = 3 s, for 10 min",
        about: "The same for long enough to count: at most one mistake per link in two hours.",
        long: true,
        roles: BOTH,
        setting: Setting { hosts: &[100], delay_ms: 25, ..ONE },
        steps: &[
            Step::Do(Fault::Loss(5)),
            Step::Rest(600_000),
            Step::FewEnd { links: 100, in_ms: 600_000 },
        ],
    },
    Scenario {
        name: "flapping",
        fault: "cable flaps 1 s down, 2 s up, for 30 s",
        about: "Each gap is below D: nobody may be condemned.",
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
            Step::NobodyEnds,
        ],
    },
    Scenario {
        name: "switch",
        fault: "half of all peers cut at one switch",
        about: "One outage with the count, besides each verdict.",
        long: false,
        roles: GATEWAY,
        setting: Setting { hosts: &[10, 10], ..ONE },
        steps: &[
            Step::Do(Fault::DropSecondHost),
            Step::OnlySecondHostEnds { links: 10, within_ms: D + 1_000 },
            Step::Outage { links: 10, within_ms: D + 1_000 },
        ],
    },
    Scenario {
        name: "keepalive-alone",
        fault: "no heartbeats, kernel keepalive 5/3/3",
        about: "What the kernel can do by itself: a dead peer is found after 14.3 s.",
        long: false,
        roles: BOTH,
        setting: Setting { beat: Beat { idle_ms: 0, interval_ms: 0, probes: 0 }, ..ONE },
        steps: &[Step::Do(Fault::DropBoth), Step::Keepalive { from_ms: 14_000, to_ms: 14_600 }],
    },
];
