//! What a scenario is made of: a setting, faults at their times, and what must be told of them.

mod table;

use serde::Serialize;

use crate::gateway::Beat;
use crate::judge::Expected;
use crate::peer::Kind;

pub(crate) use table::scenarios;

/// Who observes: whose verdicts are judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The gateway observes a client.
    Gateway,
    /// The client library observes the gateway.
    Client,
}

impl Role {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Client => "client",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The fault in a few words.
    pub(crate) fault: &'static str,
    /// What it is made of, and what it shows.
    pub(crate) about: &'static str,
    /// Whether it is left out unless asked for by name: it takes minutes.
    pub(crate) long: bool,
    /// With which observers it makes sense.
    pub(crate) roles: &'static [Role],
    pub(crate) setting: Setting,
    pub(crate) steps: &'static [Step],
}

/// Who is there when the fault comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) beat: Beat,
    pub(crate) kind: Kind,
    /// Links from each host: the first has so many, the second so many, …
    pub(crate) hosts: &'static [u32],
    /// How long each packet is on its way, in milliseconds; a round trip takes twice that.
    pub(crate) delay_ms: u64,
    /// Whether the router translates the hosts' addresses.
    pub(crate) nat: bool,
    /// For how long both ends keep a peer that hangs, in milliseconds; 0: it ends at the bound.
    pub(crate) keep_hung_ms: u64,
}

/// A lab of so many links has this machine to itself.
const HEAVY_LINKS: u32 = 200;

/// What happens next. Times of expectations count from the last [`Step::Do`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Do(Fault),
    /// The next heartbeat goes round, so that both ends have just been heard.
    AfterBeat,
    /// So many milliseconds pass.
    Rest(u64),
    Repeat(u32, &'static [Step]),
    /// The observer's verdict on the first link.
    Verdict(Expected),
    /// What that verdict is revised to.
    Revised(Expected),
    /// The observer tells an event of that kind of the first link, which goes on.
    Tells(&'static str, Expected),
    /// The revision says, within a twentieth, how long the link had been idle when it was found
    /// forgotten.
    IdleTold,
    /// The gateway's metrics show that its loop came late.
    LagTold,
    /// Only with the gateway as observer.
    GatewayAlone(&'static [Step]),
    /// The first link has not ended, and a heartbeat goes round on it again.
    Alive {
        within_ms: u64,
    },
    /// The peer is online again, in a new session.
    Returns {
        within_ms: u64,
    },
    /// One outage event that tells so many links, and a verdict on each link of the second host.
    Outage {
        links: u64,
        within_ms: u64,
    },
    /// One outage event whose place is here, our own end; it does not wait for the last link.
    OutageHere {
        within_ms: u64,
    },
    /// Each link of the second host has ended, and none of the first.
    OnlySecondHostEnds {
        links: u64,
        within_ms: u64,
    },
    /// No link of any host has ended.
    NobodyEnds,
    /// At most one link in two hours has ended, of so many links in so many milliseconds.
    FewEnd {
        links: u64,
        in_ms: u64,
    },
    /// The kernel's keepalive alone finds the peer dead so long after the last segment.
    Keepalive {
        from_ms: u64,
        to_ms: u64,
    },
    /// Plain sockets with all sorts of options die when the arithmetic says: those that last from
    /// so long to below so long.
    Arithmetic {
        from_ms: u64,
        to_ms: u64,
    },
}

/// A fault, or the end of one, as the observer sees it: "ours" is the observer's, "its" the peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The peer says CLOSE.
    PeerCloses,
    /// SIGKILL.
    PeerKilled,
    /// SIGSTOP.
    PeerStopped,
    /// SIGCONT.
    PeerContinues,
    /// A new process at the peer's place.
    PeerStarts,
    /// So much is sent to the peer that its window closes.
    WindowFilled,
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
    /// The router drops so many percent of all packets, by chance.
    Loss(u8),
    /// The router answers that the host is unreachable.
    Unreachable,
    /// The router has no route to the peer, and says so.
    NoRoute,
    /// The cable between the router and the peer has no carrier.
    CableDown,
    CableUp,
    OurInterfaceDown,
    OurAddressRemoved,
    /// The peer's machine is gone from one moment to the next.
    HostCrashes,
    /// It is back, with the same address and nothing running.
    HostReturns,
    /// The router forgets all mappings, and drops what belongs to none.
    NatForgets,
    /// The same, because the mapping was idle for a second.
    NatExpires,
    /// The router forgets all mappings, and gives the next one of each flow another port.
    NatRemaps,
    /// The router forgets all mappings, and answers with RST.
    NatResets,
    /// SIGSTOP.
    ObserverStopped,
    /// SIGCONT.
    ObserverContinues,
    /// For so many milliseconds the observer runs 50 ms of each 250 ms.
    ObserverStarved(u64),
    /// All rules of the router are taken away.
    Heal,
}

impl Fault {
    /// For the timeline.
    pub(crate) fn name(self) -> String {
        match self {
            Fault::Loss(percent) => format!("{percent} % loss"),
            Fault::ObserverStarved(_) => "observer starved".to_owned(),
            Fault::PeerCloses
            | Fault::PeerKilled
            | Fault::PeerStopped
            | Fault::PeerContinues
            | Fault::PeerStarts
            | Fault::WindowFilled
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

impl Scenario {
    /// How many links have to live; all but those of the second host.
    pub(crate) fn living(&self) -> u64 {
        self.setting.hosts.first().copied().unwrap_or(0).into()
    }

    /// Whether it disturbs, and is disturbed by, others that run beside it.
    pub(crate) fn is_heavy(&self) -> bool {
        self.setting.hosts.iter().sum::<u32>() >= HEAVY_LINKS
    }

    /// About how long a run takes, in milliseconds; for starting the longest first.
    pub(crate) fn lasts_ms(&self) -> u64 {
        lasts_ms(self.steps)
    }
}

fn lasts_ms(steps: &[Step]) -> u64 {
    let each = steps.iter().map(|step| match *step {
        Step::Do(Fault::ObserverStarved(ms)) | Step::Rest(ms) => ms,
        Step::Do(_)
        | Step::AfterBeat
        | Step::NobodyEnds
        | Step::FewEnd { .. }
        | Step::IdleTold
        | Step::LagTold => 0,
        Step::Repeat(times, steps) => u64::from(times) * lasts_ms(steps),
        Step::GatewayAlone(steps) => lasts_ms(steps),
        Step::Verdict(expected) | Step::Revised(expected) | Step::Tells(_, expected) => {
            expected.within_ms
        }
        Step::Alive { within_ms }
        | Step::Returns { within_ms }
        | Step::Outage { within_ms, .. }
        | Step::OutageHere { within_ms }
        | Step::OnlySecondHostEnds { within_ms, .. } => within_ms,
        Step::Keepalive { to_ms, .. } | Step::Arithmetic { to_ms, .. } => to_ms,
    });
    each.sum()
}

/// `DropBoth` as `drop both`.
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
    }
}
