//! Injects the faults, and verifies that they take effect.

use rustix::process::Signal;
use systole_core::Span;

use crate::network::{Family, Node};
use crate::process::pause;
use crate::relay::Shape;
use crate::scenario::{Fault, Refusal, Role};
use crate::stage::Stage;
use crate::trouble::Trouble;

/// Time that a starved observer runs in each cycle.
const RUNS: Span = Span::from_millis(50);
/// Time that a starved observer is stopped in each cycle.
const STOPPED: Span = Span::from_millis(200);
/// Time to fill a window, with a large margin on a path of less than a millisecond.
const FILLING: Span = Span::from_millis(300);
/// Ports for remapped flows, below the range from which a host chooses its own ports.
const OTHER_PORTS: &str = "20000-29999";
/// Unsent bytes that show a closed window: more than waiting heartbeats can be.
const WINDOW_IS_CLOSED: u64 = 4_096;
/// Length of the longest packet that a narrow path lets through.
const SMALL: u32 = 1_200;
/// How far packets overtake each other on a bad path.
const JITTER: Span = Span::from_millis(50);
/// Percentage of packets that a bad path doubles.
const DOUBLED: u8 = 20;

impl Stage {
    /// Injects a fault, or ends one. On return the fault is in force.
    pub(crate) fn inject(&mut self, fault: Fault) -> Result<(), Trouble> {
        let (ours, its, clock) = (self.observer_node(), self.peer_node(), self.clock);
        match fault {
            Fault::PeerCloses => match self.role {
                Role::Gateway => self.order("close"),
                // A gateway that gets SIGTERM sends CLOSE to all clients.
                Role::Client => self.process(its)?.signal(Signal::TERM),
            },
            Fault::PeerKilled => self.process(its)?.kill(),
            Fault::PeerStopped => self.process(its)?.stop(clock),
            Fault::PeerContinues => self.process(its)?.resume(),
            Fault::PeerStarts => self.restart_peer(),
            Fault::WindowFilled => self.fill("fill"),
            Fault::ReadsNoMore => self.fill("backlog"),
            Fault::BacklogGrows => self.order("grow"),
            Fault::DropBoth => self.through(&[drop(ours, its), drop(its, ours)]),
            Fault::DropOurs => self.through(&[drop(ours, its)]),
            Fault::DropIts => self.through(&[drop(its, ours)]),
            Fault::DropFlow => self.drop_flow(),
            Fault::DropSecondHost => {
                let (other, gateway) = (Node::Host(1), Node::Gateway);
                self.through(&[drop(other, gateway), drop(gateway, other)])
            }
            Fault::Loss(percent) => {
                // With a relay each packet passes twice; this rule drops it only the second time.
                let once = "oifname != \"delay0\"";
                self.through(&[format!("{once} numgen random mod 100 < {percent} counter drop")])
            }
            Fault::Unreachable => self.through(&[
                format!("{} counter reject with icmp type host-unreachable", between(ours, its)),
                drop(its, ours),
            ]),
            Fault::Refused(refusal) => self.refuse(refusal),
            Fault::NoRoute => self.no_route(),
            Fault::LargeVanish => {
                let outwards = between(Node::Gateway, Node::Host(0));
                self.through(&[format!("{outwards} meta length > {SMALL} counter drop")])
            }
            Fault::MessageEchoed => self.order("message"),
            Fault::NeighbourGone => self.remove_neighbour(),
            Fault::NeighbourMute => self.mute_neighbour(),
            Fault::CutBehindProxy => self.cut_behind_proxy(),
            Fault::ResetInjected => self.relay()?.reset(),
            Fault::RoundTrip(ms) => {
                let delay = Span::from_millis(ms / 2);
                self.relay()?.shape(Shape { inwards: delay, outwards: delay, ..Shape::default() })
            }
            Fault::AnswersLate(ms) => self.delay_answers(Span::from_millis(ms)),
            Fault::Scrambled => {
                let shape = Shape { jitter: JITTER, doubled: DOUBLED, ..Shape::default() };
                self.relay()?.shape(shape)
            }
            Fault::CableDown => self.cable("down"),
            Fault::CableUp => self.cable("up"),
            Fault::OurInterfaceDown => self.interface_down(),
            Fault::OurAddressRemoved => self.remove_address(),
            Fault::HostCrashes => self.crash_peer_host(),
            Fault::HostReturns => self.restore_peer_host(),
            Fault::NatForgets => self.forget(true),
            Fault::NatRemaps => self.remap(),
            Fault::NatResets => self.forget(false),
            Fault::NatExpires => self.expire(),
            Fault::ObserverStopped => self.process(ours)?.stop(clock),
            Fault::ObserverContinues => self.process(ours)?.resume(),
            Fault::ObserverStarved(ms) => self.starve(Span::from_millis(ms)),
            Fault::Heal => self.heal(),
        }
    }

    /// Sends until the peer's window is closed, so that many bytes stay in our kernel's send queue.
    fn fill(&mut self, order: &str) -> Result<(), Trouble> {
        self.order(order)?;
        pause(FILLING);
        let output = self.network.at(self.observer_node())?.run("ss", &["-Htn"], "")?;
        (waiting(&output) > WINDOW_IS_CLOSED).then_some(()).ok_or_else(|| no_effect(&output))
    }

    /// Removes all rules, and what a relay refuses; its delays are no rules.
    fn heal(&self) -> Result<(), Trouble> {
        if self.family() == Family::V6 && self.has_relay() {
            self.relay()?.shape(Shape::default())?;
        }
        self.network.flush()
    }

    fn drop_flow(&self) -> Result<(), Trouble> {
        let port = self.first_port()?;
        self.through(&[
            format!("tcp sport {port} counter drop"),
            format!("tcp dport {port} counter drop"),
        ])
    }

    fn refuse(&self, refusal: Refusal) -> Result<(), Trouble> {
        let family = self.family();
        let Some(answer) = refusal.answer(family) else {
            return self.relay()?.shape(Shape { refuses: true, ..Shape::default() });
        };
        let (ours, its) = (self.observer_node(), self.peer_node());
        let reject = |from, to| format!("{} counter {answer}", between_in(family, from, to));
        self.through(&[reject(ours, its), reject(its, ours)])
    }

    /// Delays what the peer sends; what we send passes at once.
    fn delay_answers(&self, late: Span) -> Result<(), Trouble> {
        let (inwards, outwards) = match self.role {
            Role::Gateway => (late, Span::ZERO),
            Role::Client => (Span::ZERO, late),
        };
        self.relay()?.shape(Shape { inwards, outwards, ..Shape::default() })
    }

    fn interface_down(&self) -> Result<(), Trouble> {
        let ours = self.observer_node();
        self.network.interface(ours, false)?;
        let output = self.network.at(ours)?.ip_output("link show eth0")?;
        output.contains("state DOWN").then_some(()).ok_or_else(|| no_effect(&output))
    }

    fn remove_address(&self) -> Result<(), Trouble> {
        let ours = self.observer_node();
        self.network.remove_address(ours)?;
        let output = self.network.at(ours)?.ip_output("-4 addr show eth0")?;
        (!output.contains("inet ")).then_some(()).ok_or_else(|| no_effect(&output))
    }

    fn remove_neighbour(&self) -> Result<(), Trouble> {
        let ours = self.observer_node();
        self.network.mute_next_hop(ours)?;
        self.network.at(ours)?.ip(&["neigh flush dev eth0"])?;
        let output = self.network.at(ours)?.ip_output("neigh show dev eth0")?;
        let known = ["REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"];
        let knows = known.iter().any(|state| output.contains(state));
        (!knows).then_some(()).ok_or_else(|| no_effect(&output))
    }

    /// Silences the next hop first: an answer to the first question would end the kernel's doubt.
    fn mute_neighbour(&self) -> Result<(), Trouble> {
        let (ours, its) = (self.observer_node(), self.peer_node());
        self.through(&[drop(ours, its), drop(its, ours)])?;
        self.network.mute_next_hop(ours)?;
        self.network.doubt_next_hop(ours)?;
        let output = self.network.at(ours)?.ip_output("neigh show dev eth0")?;
        output.contains("PROBE").then_some(()).ok_or_else(|| no_effect(&output))
    }

    fn cut_behind_proxy(&self) -> Result<(), Trouble> {
        let port = self.peer_node().port();
        self.network
            .rules("inside", &[format!("iifname \"{port}\" ip protocol tcp counter drop")])?;
        self.network.rules("outside", &[format!("oifname \"{port}\" ip protocol tcp counter drop")])
    }

    fn through(&self, rules: &[String]) -> Result<(), Trouble> {
        self.network.rules("through", rules)
    }

    /// Removes the router's route to the peer, so that it answers "network unreachable".
    fn no_route(&self) -> Result<(), Trouble> {
        let (ours, its) = (self.observer_node(), self.peer_node());
        // Packets from the peer would still pass: the cable works.
        self.through(&[drop(its, ours)])?;
        let network = match its {
            Node::Gateway => "10.1.0.0/24".to_owned(),
            Node::Host(host) => format!("10.2.{host}.0/24"),
        };
        self.network.router().ip(&[&format!("route del {network} dev {}", its.port())])
    }

    /// Sets the cable between router and peer up or down, at the router's end.
    fn cable(&self, state: &str) -> Result<(), Trouble> {
        let (port, router) = (self.peer_node().port(), self.network.router());
        router.ip(&[&format!("link set {port} {state}")])?;
        let output = router.ip_output(&format!("link show {port}"))?;
        let down = output.contains("state DOWN");
        (down == (state == "down")).then_some(()).ok_or_else(|| no_effect(&output))
    }

    /// Empties the router's table of mappings. Packets without a mapping are dropped silently, or
    /// answered with RST; the router's own kernel answers those addressed to the router.
    fn forget(&self, silently: bool) -> Result<(), Trouble> {
        self.unmapped(silently)?;
        self.network.router().run("conntrack", &["-F"], "").map(std::mem::drop)
    }

    /// Empties the table of mappings, and maps packets from inside to another port, like new flows.
    fn remap(&self) -> Result<(), Trouble> {
        let router = self.network.router();
        self.network
            .rules("inside", &["iifname \"gw0\" ip protocol tcp counter drop".to_owned()])?;
        router.run("nft", &["flush", "chain", "inet", "lab", "behind"], "")?;
        let elsewhere = format!("ip protocol tcp counter masquerade to :{OTHER_PORTS}");
        self.network.rules("behind", &[format!("oifname \"gw0\" {elsewhere}")])?;
        router.set(&[("netfilter/nf_conntrack_tcp_loose", "1")])?;
        router.run("conntrack", &["-F"], "").map(std::mem::drop)
    }

    fn expire(&self) -> Result<(), Trouble> {
        self.unmapped(true)?;
        let timeout = ("netfilter/nf_conntrack_tcp_timeout_established", "1");
        self.network.router().set(&[timeout])
    }

    fn unmapped(&self, silently: bool) -> Result<(), Trouble> {
        let (inside, through) = if silently {
            ("counter drop", "counter drop")
        } else {
            ("counter accept", "counter reject with tcp reset")
        };
        self.network.rules("inside", &[format!("iifname \"gw0\" ip protocol tcp {inside}")])?;
        self.through(&[format!("ip protocol tcp ct state invalid {through}")])
    }

    fn starve(&mut self, length: Span) -> Result<(), Trouble> {
        let (ours, clock) = (self.observer_node(), self.clock);
        let until = clock.monotonic() + length;
        while clock.monotonic() < until {
            self.process(ours)?.stop(clock)?;
            pause(STOPPED);
            self.process(ours)?.resume()?;
            pause(RUNS);
        }
        Ok(())
    }
}

/// Returns the length of the longest send queue in bytes, from the output of `ss -tn`.
fn waiting(listing: &str) -> u64 {
    let queues = listing.lines().filter_map(|line| line.split_whitespace().nth(2));
    queues.filter_map(|queue| queue.parse().ok()).max().unwrap_or(0)
}

impl Fault {
    /// Whether the router's counters show that the fault takes effect.
    pub(crate) fn is_counted(self) -> bool {
        match self {
            Fault::DropBoth
            | Fault::NeighbourMute
            | Fault::DropOurs
            | Fault::DropIts
            | Fault::DropFlow
            | Fault::DropSecondHost
            | Fault::Loss(_)
            | Fault::Unreachable
            | Fault::Refused(_)
            | Fault::NoRoute
            | Fault::LargeVanish
            | Fault::CutBehindProxy
            | Fault::ResetInjected
            | Fault::RoundTrip(_)
            | Fault::AnswersLate(_)
            | Fault::Scrambled
            | Fault::NatForgets
            | Fault::NatExpires
            | Fault::NatRemaps
            | Fault::NatResets => true,
            Fault::PeerCloses
            | Fault::PeerKilled
            | Fault::PeerStopped
            | Fault::PeerContinues
            | Fault::PeerStarts
            | Fault::WindowFilled
            | Fault::ReadsNoMore
            | Fault::BacklogGrows
            | Fault::MessageEchoed
            | Fault::NeighbourGone
            | Fault::CableDown
            | Fault::CableUp
            | Fault::OurInterfaceDown
            | Fault::OurAddressRemoved
            | Fault::HostCrashes
            | Fault::HostReturns
            | Fault::ObserverStopped
            | Fault::ObserverContinues
            | Fault::ObserverStarved(_)
            | Fault::Heal => false,
        }
    }
}

impl Refusal {
    /// Returns the statement of nftables that sends this word to the sender, if it has one.
    fn answer(self, family: Family) -> Option<&'static str> {
        match (self, family) {
            (Refusal::Port, Family::V4) => Some("reject with icmp type port-unreachable"),
            (Refusal::Port, Family::V6) => Some("reject with icmpv6 type port-unreachable"),
            (Refusal::Protocol, Family::V4) => Some("reject with icmp type prot-unreachable"),
            (Refusal::Prohibited, Family::V4) => Some("reject with icmp type admin-prohibited"),
            (Refusal::Prohibited, Family::V6) => Some("reject with icmpv6 type admin-prohibited"),
            (Refusal::Protocol, Family::V6) => None,
        }
    }
}

fn between(from: Node, to: Node) -> String {
    between_in(Family::V4, from, to)
}

fn between_in(family: Family, from: Node, to: Node) -> String {
    let (from, to) = (from.address_in(family), to.address_in(family));
    match family {
        Family::V4 => format!("ip saddr {from} ip daddr {to}"),
        Family::V6 => format!("ip6 saddr {from} ip6 daddr {to}"),
    }
}

fn drop(from: Node, to: Node) -> String {
    format!("{} counter drop", between(from, to))
}

fn no_effect(output: &str) -> Trouble {
    Trouble::new(format!("the fault has no effect: {}", output.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_send_queue_is_found() {
        let listing = "ESTAB 0 0     10.1.0.1:7400 10.2.0.1:40000\n\
                       ESTAB 0 81920 10.1.0.1:7400 10.2.0.1:40002\n";
        assert_eq!(waiting(listing), 81_920);
        assert_eq!(waiting(""), 0);
    }
}
