//! The parts of a scenario: a setting, faults at their times, and the expected reports.

mod table;

use serde::Serialize;

use crate::gateway::Beat;
use crate::judge::Expected;
use crate::network::Family;
use crate::peer::Kind;

pub(crate) use table::scenarios;

/// The observer, which is the end whose verdicts are judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The gateway observes a client.
    Gateway,
    /// The client library observes the gateway.
    Client,
}

impl Role {
    /// Returns the role in one word.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Client => "client",
        }
    }
}

/// A scenario: one row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The fault in a few words.
    pub(crate) fault: &'static str,
    /// How the fault is made, and what the scenario shows.
    pub(crate) about: &'static str,
    /// Whether the scenario takes minutes, so that it runs only if it is named.
    pub(crate) long: bool,
    /// The observers that the scenario supports.
    pub(crate) roles: &'static [Role],
    pub(crate) setting: Setting,
    pub(crate) steps: &'static [Step],
}

/// The network and the peers before the fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) beat: Beat,
    pub(crate) kind: Kind,
    /// Number of links of each host.
    pub(crate) hosts: &'static [u32],
    pub(crate) middle: Middle,
    /// The addresses over which the links run.
    pub(crate) family: Family,
    /// Whether both ends' kernels put timestamps into their segments.
    pub(crate) timestamps: bool,
    /// Whether each client sends a message each 20 ms, which the gateway echoes.
    pub(crate) busy: bool,
    /// Time for which both ends keep a hung peer, in milliseconds; 0: it ends at the bound.
    pub(crate) keep_hung_ms: u64,
}

/// What the router does between the ends before any fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Middle {
    /// Forwards packets.
    Forwards,
    /// Translates the hosts' addresses.
    Translates,
    /// Forwards each packet in user space, after this number of milliseconds; a round trip takes
    /// twice that.
    Delays(u64),
    /// Ends the connections in a proxy, which makes its own to the gateway.
    Proxies,
}

/// The word of a router, a firewall or a host that it refuses a packet, as an ICMP message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Nobody listens on the port: what REJECT rules of firewalls say unless told otherwise.
    Port,
    /// The host does not know the protocol.
    Protocol,
    /// Prohibited by an administrator.
    Prohibited,
}

/// Number of links from which on a lab runs alone on this machine.
const HEAVY_LINKS: u32 = 200;

/// A step of a scenario. Times of expectations count from the last [`Step::Do`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Do(Fault),
    /// Waits until the next heartbeat is answered, so that both ends have just been heard.
    AfterBeat,
    /// Waits for this number of milliseconds.
    Rest(u64),
    Repeat(u32, &'static [Step]),
    /// The observer's verdict on the first link.
    Verdict(Expected),
    /// The verdict to which the first one is revised.
    Revised(Expected),
    /// The observer reports an event of this kind on the first link, which goes on.
    Reports(&'static str, Expected),
    /// The revision reports, within a twentieth, how long the link had been idle when the loss of
    /// its mapping was detected.
    IdleReported,
    /// The gateway's metrics show that its loop was late.
    LagReported,
    /// Steps only with the gateway as observer.
    GatewayAlone(&'static [Step]),
    /// The first link has not ended, and a heartbeat is answered on it again.
    Alive {
        within_ms: u64,
    },
    /// The peer is online again, in a new session.
    Returns {
        within_ms: u64,
    },
    /// One outage event with this number of links, and a verdict on each link of the second host.
    Outage {
        links: u64,
        within_ms: u64,
    },
    /// One outage event at our own end, which does not wait for the last link.
    OutageHere {
        within_ms: u64,
    },
    /// Each link of the second host has ended, and none of the first.
    OnlySecondHostEnds {
        links: u64,
        within_ms: u64,
    },
    /// No link of any host has ended.
    NoLinkEnds,
    /// The observer suspects the first link.
    Suspected {
        within_ms: u64,
    },
    /// No link has been suspected more often than this.
    SuspectedAtMost(u64),
    /// At most one verdict per link in two hours, of `links` links in `in_ms` milliseconds.
    FewEnd {
        links: u64,
        in_ms: u64,
    },
    /// Kernel keepalive alone finds the peer dead, from `from_ms` to `to_ms` after the last
    /// segment.
    Keepalive {
        from_ms: u64,
        to_ms: u64,
    },
    /// The kernel ends plain sockets at the computed times: those rows that last from `from_ms` to
    /// below `to_ms`.
    Arithmetic {
        from_ms: u64,
        to_ms: u64,
    },
}

/// A fault, or the end of one, as the observer sees it: "ours" is the observer's, "its" the peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The peer sends CLOSE.
    PeerCloses,
    /// The peer gets SIGKILL.
    PeerKilled,
    /// SIGSTOP.
    PeerStopped,
    /// SIGCONT.
    PeerContinues,
    /// A new peer process starts on the same host.
    PeerStarts,
    /// Data is sent to the peer until its window closes.
    WindowFilled,
    /// The peer goes on sending a heartbeat each second, and reads no more; 250 KB wait for it.
    ReadsNoMore,
    /// More data waits for the peer than we keep for it.
    BacklogGrows,
    /// The router drops both directions between the two hosts.
    DropBoth,
    /// The router drops what we send.
    DropOurs,
    /// The router drops what the peer sends.
    DropIts,
    /// The router drops this one connection.
    DropFlow,
    /// The router drops everything of the second host.
    DropSecondHost,
    /// The router drops this percentage of all packets, at random.
    Loss(u8),
    /// The router answers that the host is unreachable.
    Unreachable,
    /// The router refuses the segments of both ends, and reports it to them.
    Refused(Refusal),
    /// The router has no route to the peer, and reports it.
    NoRoute,
    /// The router drops those packets from the gateway that are longer than 1,200 bytes, silently.
    LargeVanish,
    /// The client sends a message of 8 KB and a short one, which the gateway echoes.
    MessageEchoed,
    /// Our next hop no longer answers, and our kernel has forgotten it.
    NeighbourGone,
    /// Our next hop no longer answers; our kernel finds that out after some seconds.
    NeighbourMute,
    /// The proxy's path to the peer is cut, silently; the proxy lives.
    CutBehindProxy,
    /// Both ends get a reset that neither sent.
    ResetInjected,
    /// A round trip takes this number of milliseconds, half of it each way.
    RoundTrip(u64),
    /// What the peer sends takes this number of milliseconds more, what we send does not.
    AnswersLate(u64),
    /// Packets overtake each other, by up to 50 ms, and each fifth comes twice.
    Scrambled,
    /// The cable between the router and the peer has no carrier.
    CableDown,
    CableUp,
    OurInterfaceDown,
    OurAddressRemoved,
    /// The peer's machine vanishes at once.
    HostCrashes,
    /// The peer's machine is back, with the same address and without processes.
    HostReturns,
    /// The router removes all mappings, and drops packets without one.
    NatForgets,
    /// The router removes a mapping that was idle for a second, and drops packets without one.
    NatExpires,
    /// The router removes all mappings, and maps each flow to another port.
    NatRemaps,
    /// The router removes all mappings, and answers packets without one with RST.
    NatResets,
    /// SIGSTOP.
    ObserverStopped,
    /// SIGCONT.
    ObserverContinues,
    /// The observer runs 50 ms of each 250 ms, for this number of milliseconds.
    ObserverStarved(u64),
    /// All rules of the router are removed.
    Heal,
}

impl Fault {
    /// Returns the name in the timeline.
    pub(crate) fn name(self) -> String {
        match self {
            Fault::Loss(percent) => format!("{percent} % loss"),
            Fault::ObserverStarved(_) => "observer starved".to_owned(),
            Fault::RoundTrip(ms) => format!("round trip {ms} ms"),
            Fault::AnswersLate(ms) => format!("answers {ms} ms late"),
            Fault::Refused(refusal) => words(&format!("{refusal:?}Refused")),
            Fault::PeerCloses
            | Fault::PeerKilled
            | Fault::PeerStopped
            | Fault::PeerContinues
            | Fault::PeerStarts
            | Fault::WindowFilled
            | Fault::ReadsNoMore
            | Fault::BacklogGrows
            | Fault::LargeVanish
            | Fault::MessageEchoed
            | Fault::NeighbourGone
            | Fault::NeighbourMute
            | Fault::CutBehindProxy
            | Fault::ResetInjected
            | Fault::Scrambled
            | Fault::DropBoth
            | Fault::DropOurs
            | Fault::DropIts
            | Fault::DropFlow
            | Fault::DropSecondHost
            | Fault::Unreachable
            | Fault::NoRoute
            | Fault::CableDown
            | Fault::CableUp
            | Fault::OurInterfaceDown
            | Fault::OurAddressRemoved
            | Fault::HostCrashes
            | Fault::HostReturns
            | Fault::NatForgets
            | Fault::NatExpires
            | Fault::NatRemaps
            | Fault::NatResets
            | Fault::ObserverStopped
            | Fault::ObserverContinues
            | Fault::Heal => words(&format!("{self:?}")),
        }
    }
}

impl Setting {
    /// Returns the delay of each packet before any fault, in milliseconds.
    pub(crate) fn delay_ms(&self) -> u64 {
        match self.middle {
            Middle::Delays(ms) => ms,
            Middle::Forwards | Middle::Translates | Middle::Proxies => 0,
        }
    }
}

impl Scenario {
    /// Returns the number of links that have to live: all but those of the second host.
    pub(crate) fn living(&self) -> u64 {
        self.setting.hosts.first().copied().unwrap_or(0).into()
    }

    /// Whether the lab is so large that it would disturb others on the same machine.
    pub(crate) fn is_heavy(&self) -> bool {
        self.setting.hosts.iter().sum::<u32>() >= HEAVY_LINKS
    }

    /// Returns the estimated time of a run in milliseconds, by which the longest starts first.
    pub(crate) fn lasts_ms(&self) -> u64 {
        lasts_ms(self.steps)
    }
}

fn lasts_ms(steps: &[Step]) -> u64 {
    let each = steps.iter().map(|step| match *step {
        Step::Do(Fault::ObserverStarved(ms)) | Step::Rest(ms) => ms,
        Step::Do(_)
        | Step::AfterBeat
        | Step::NoLinkEnds
        | Step::SuspectedAtMost(_)
        | Step::FewEnd { .. }
        | Step::IdleReported
        | Step::LagReported => 0,
        Step::Repeat(times, steps) => u64::from(times) * lasts_ms(steps),
        Step::GatewayAlone(steps) => lasts_ms(steps),
        Step::Verdict(expected) | Step::Revised(expected) | Step::Reports(_, expected) => {
            expected.within_ms
        }
        Step::Alive { within_ms }
        | Step::Suspected { within_ms }
        | Step::Returns { within_ms }
        | Step::Outage { within_ms, .. }
        | Step::OutageHere { within_ms }
        | Step::OnlySecondHostEnds { within_ms, .. } => within_ms,
        Step::Keepalive { to_ms, .. } | Step::Arithmetic { to_ms, .. } => to_ms,
    });
    each.sum()
}

/// Splits a name into words: `DropBoth` becomes `drop both`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_scenario_expects_something() {
        let names: BTreeSet<&str> = scenarios().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), scenarios().count());
        for scenario in scenarios() {
            let silent =
                |step: &&Step| matches!(step, Step::Rest(_) | Step::Do(_) | Step::AfterBeat);
            let expected = scenario.steps.len() - scenario.steps.iter().filter(silent).count();
            assert!(expected > 0 && !scenario.roles.is_empty(), "{}", scenario.name);
        }
    }

    #[test]
    fn only_long_scenarios_take_more_than_a_minute() {
        for scenario in scenarios().filter(|scenario| !scenario.long) {
            assert!(scenario.lasts_ms() <= 60_000, "{} {}", scenario.name, scenario.lasts_ms());
        }
    }

    #[test]
    fn faults_are_named_in_words() {
        assert_eq!(Fault::DropBoth.name(), "drop both");
        assert_eq!(Fault::Loss(30).name(), "30 % loss");
        assert_eq!(Fault::Refused(Refusal::Port).name(), "port refused");
    }
}
