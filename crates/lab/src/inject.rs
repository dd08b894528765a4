//! Makes the faults, and makes sure that they bite.

use rustix::process::Signal;
use systole_core::Span;

use crate::network::Node;
use crate::process::pause;
use crate::scenario::{Fault, Role};
use crate::stage::Stage;
use crate::trouble::Trouble;

/// A starved observer runs so long …
const RUNS: Span = Span::from_millis(50);
/// … and is stopped so long.
const STOPPED: Span = Span::from_millis(200);
/// What fits into a window has long arrived by then, on a path of less than a millisecond.
const FILLING: Span = Span::from_millis(300);
/// Below those from which a host chooses the ports of its own connections.
const OTHER_PORTS: &str = "20000-29999";
/// More than any heartbeats that wait.
const ENOUGH: u64 = 4_096;

impl Stage {
    /// Makes a fault, or ends one. When it returns the fault is in force.
    pub(crate) fn inject(&mut self, fault: Fault) -> Result<(), Trouble> {
        let (ours, its, clock) = (self.ours(), self.its(), self.clock);
        match fault {
            Fault::PeerCloses => match self.role {
                Role::Gateway => self.order("close"),
                // A gateway that is asked to stop says goodbye to everybody.
                Role::Client => self.process(its)?.signal(Signal::TERM),
            },
            Fault::PeerKilled => self.process(its)?.kill(),
            Fault::PeerStopped => self.process(its)?.stop(clock),
            Fault::PeerContinues => self.process(its)?.go_on(),
            Fault::PeerStarts => self.start_its(),
            Fault::WindowFilled => self.fill(),
            Fault::DropBoth => self.through(&[drop(ours, its), drop(its, ours)]),
            Fault::DropOurs => self.through(&[drop(ours, its)]),
            Fault::DropIts => self.through(&[drop(its, ours)]),
            Fault::DropFlow => {
                let port = self.first_port()?;
                self.through(&[
                    format!("tcp sport {port} counter drop"),
                    format!("tcp dport {port} counter drop"),
                ])
            }
            Fault::DropSecondHost => {
                let (other, gateway) = (Node::Host(1), Node::Gateway);
                self.through(&[drop(other, gateway), drop(gateway, other)])
            }
            Fault::Loss(percent) => {
                // With a relay a packet comes by twice; it is lost before the second time.
                let once = "oifname != \"delay0\"";
                self.through(&[format!("{once} numgen random mod 100 < {percent} counter drop")])
            }
            Fault::Unreachable => self.through(&[
                format!("{} counter reject with icmp type host-unreachable", between(ours, its)),
                drop(its, ours),
            ]),
            Fault::NoRoute => self.no_route(),
            Fault::CableDown => self.cable("down"),
            Fault::CableUp => self.cable("up"),
            Fault::OurInterfaceDown => {
                self.network.interface(ours, false)?;
                let said = self.network.at(ours)?.ip_says("link show eth0")?;
                said.contains("state DOWN").then_some(()).ok_or_else(|| not_biting(&said))
            }
            Fault::OurAddressRemoved => {
                self.network.remove_address(ours)?;
                let said = self.network.at(ours)?.ip_says("-4 addr show eth0")?;
                (!said.contains("inet ")).then_some(()).ok_or_else(|| not_biting(&said))
            }
            Fault::HostCrashes => self.crash_its(),
            Fault::HostReturns => self.return_its(),
            Fault::NatForgets => self.forget(true),
            Fault::NatRemaps => self.remap(),
            Fault::NatResets => self.forget(false),
            Fault::NatExpires => self.expire(),
            Fault::ObserverStopped => self.process(ours)?.stop(clock),
            Fault::ObserverContinues => self.process(ours)?.go_on(),
            Fault::ObserverStarved(ms) => self.starve(Span::from_millis(ms)),
            Fault::Heal => self.network.flush(),
        }
    }

    /// Sends until the peer's window is closed: until much waits in our kernel and stays there.
    fn fill(&mut self) -> Result<(), Trouble> {
        self.order("fill")?;
        pause(FILLING);
        let said = self.network.at(self.ours())?.run("ss", &["-Htn"], "")?;
        (waiting(&said) > ENOUGH).then_some(()).ok_or_else(|| not_biting(&said))
    }

    fn through(&self, rules: &[String]) -> Result<(), Trouble> {
        self.network.rules("through", rules)
    }

    /// Without its own route the router answers "network unreachable" to whoever sends there.
    fn no_route(&self) -> Result<(), Trouble> {
        let (ours, its) = (self.ours(), self.its());
        // What comes from the peer would still pass: its cable is whole.
        self.through(&[drop(its, ours)])?;
        let network = match its {
            Node::Gateway => "10.1.0.0/24".to_owned(),
            Node::Host(host) => format!("10.2.{host}.0/24"),
        };
        self.network.router().ip(&[&format!("route del {network} dev {}", its.port())])
    }

    /// The cable between the router and the peer: the router's end decides.
    fn cable(&self, state: &str) -> Result<(), Trouble> {
        let (port, router) = (self.its().port(), self.network.router());
        router.ip(&[&format!("link set {port} {state}")])?;
        let said = router.ip_says(&format!("link show {port}"))?;
        let down = said.contains("state DOWN");
        (down == (state == "down")).then_some(()).ok_or_else(|| not_biting(&said))
    }

    /// Empties the router's table of mappings. What belongs to none is dropped silently, or
    /// answered with RST: where it is for the router itself, the router's own kernel does that.
    fn forget(&self, silently: bool) -> Result<(), Trouble> {
        self.unmapped(silently)?;
        self.network.router().run("conntrack", &["-F"], "").map(std::mem::drop)
    }

    /// Forgets, and takes up what goes on from inside as if it were new, from another port.
    fn remap(&self) -> Result<(), Trouble> {
        let router = self.network.router();
        self.network
            .rules("inside", &["iifname \"gw0\" ip protocol tcp counter drop".to_owned()])?;
        router.run("nft", &["flush", "chain", "ip", "lab", "behind"], "")?;
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
        let (ours, clock) = (self.ours(), self.clock);
        let until = clock.monotonic() + length;
        while clock.monotonic() < until {
            self.process(ours)?.stop(clock)?;
            pause(STOPPED);
            self.process(ours)?.go_on()?;
            pause(RUNS);
        }
        Ok(())
    }
}

/// The most bytes that wait in one of the kernel's send queues, as `ss -tn` lists them.
fn waiting(listing: &str) -> u64 {
    let queues = listing.lines().filter_map(|line| line.split_whitespace().nth(2));
    queues.filter_map(|queue| queue.parse().ok()).max().unwrap_or(0)
}

impl Fault {
    /// Whether the router's counters show that it bites.
    pub(crate) fn is_counted(self) -> bool {
        match self {
            Fault::DropBoth
            | Fault::DropOurs
            | Fault::DropIts
            | Fault::DropFlow
            | Fault::DropSecondHost
            | Fault::Loss(_)
            | Fault::Unreachable
            | Fault::NoRoute
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

fn between(from: Node, to: Node) -> String {
    format!("ip saddr {} ip daddr {}", from.address(), to.address())
}

fn drop(from: Node, to: Node) -> String {
    format!("{} counter drop", between(from, to))
}

fn not_biting(said: &str) -> Trouble {
    Trouble::new(format!("the fault does not bite: {}", said.trim()))
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
