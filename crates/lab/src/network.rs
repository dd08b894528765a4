//! The network of a lab: gateway, router and hosts, which are namespaces joined by virtual cables.
//!
//! ```text
//!   gateway 10.1.0.1 ── 10.1.0.254 router 10.2.i.254 ── 10.2.i.1 host i
//! ```
//!
//! Path faults are rules in the router, which neither end's kernel can see. IPv6, where a scenario
//! needs it, has the same shape: fd00:1::1, fd00:1::fe, fd00:2:i::fe, fd00:2:i::1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use systole_core::Span;
use systole_net::Clock;

use crate::namespace::{Namespace, Workspace};
use crate::process::pause;
use crate::trouble::Trouble;

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The router's address on the gateway's side; with NAT it is the address of all clients.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);

/// Time in which a kernel notices a new cable; it may wait for a second.
const UP_WITHIN: Span = Span::from_secs(5);
const POLL: Span = Span::from_millis(5);

/// The initial rules of a router. Chain `through` filters forwarded packets, chain `inside` packets
/// to the router itself (with NAT, those without a mapping), chain `outside` its own packets.
const CHAINS: &str = "
table inet lab {
    chain through { type filter hook forward priority 0; }
    chain inside { type filter hook input priority 0; }
    chain outside { type filter hook output priority 0; }
}
";
const NAT: &str = "
table inet lab {
    chain behind {
        type nat hook postrouting priority 100;
        oifname \"gw0\" masquerade;
    }
}
";

/// The family of addresses over which the links run. IPv4 always exists, for the lab itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Family {
    V4,
    V6,
}

/// One end of the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    Gateway,
    /// The host with this number.
    Host(u8),
}

impl Node {
    pub(crate) fn address(self) -> Ipv4Addr {
        match self {
            Node::Gateway => GATEWAY,
            Node::Host(host) => Ipv4Addr::new(10, 2, host, 1),
        }
    }

    /// Returns the node's address in a family.
    pub(crate) fn address_in(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.address().into(),
            Family::V6 => self.network_v6(1).into(),
        }
    }

    /// Returns the address of the router on the cable to this node.
    pub(crate) fn router(self) -> Ipv4Addr {
        match self {
            Node::Gateway => ROUTER,
            Node::Host(host) => Ipv4Addr::new(10, 2, host, 254),
        }
    }

    fn network_v6(self, last: u16) -> Ipv6Addr {
        match self {
            Node::Gateway => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last),
            Node::Host(host) => Ipv6Addr::new(0xfd00, 2, host.into(), 0, 0, 0, 0, last),
        }
    }

    /// Returns the name of the router's interface towards this node.
    pub(crate) fn port(self) -> String {
        match self {
            Node::Gateway => "gw0".to_owned(),
            Node::Host(host) => format!("host{host}"),
        }
    }

    fn role(self) -> String {
        match self {
            Node::Gateway => "gw".to_owned(),
            Node::Host(host) => format!("h{host}"),
        }
    }
}

/// The network of one lab.
#[derive(Debug)]
pub(crate) struct Network {
    gateway: Option<Namespace>,
    hosts: Vec<Option<Namespace>>,
    router: Namespace,
    family: Family,
}

impl Network {
    pub(crate) fn new(
        place: &Workspace,
        hosts: u8,
        nat: bool,
        family: Family,
    ) -> Result<Network, Trouble> {
        let router = place.namespace("router")?;
        router.set(&[("ipv4/ip_forward", "1")])?;
        if family == Family::V6 {
            router.set(&[("ipv6/conf/all/forwarding", "1")])?;
        }
        router.run("nft", &["-f", "-"], CHAINS)?;
        if nat {
            router.run("nft", &["-f", "-"], NAT)?;
            // A mapping that was removed must not be created again by a packet in mid-stream.
            router.set(&[("netfilter/nf_conntrack_tcp_loose", "0")])?;
        }
        let hosts: Vec<Node> = (0..hosts).map(Node::Host).collect();
        let mut network =
            Network { gateway: None, hosts: hosts.iter().map(|_| None).collect(), router, family };
        for node in [Node::Gateway].into_iter().chain(hosts) {
            network.attach(place, node)?;
        }
        Ok(network)
    }

    pub(crate) fn router(&self) -> &Namespace {
        &self.router
    }

    pub(crate) fn at(&self, node: Node) -> Result<&Namespace, Trouble> {
        let namespace = match node {
            Node::Gateway => self.gateway.as_ref(),
            Node::Host(host) => self.hosts.get(usize::from(host)).and_then(Option::as_ref),
        };
        namespace.ok_or_else(|| Trouble::new(format!("{node:?} does not exist at the moment")))
    }

    /// Creates a node and its cable.
    pub(crate) fn attach(&mut self, place: &Workspace, node: Node) -> Result<(), Trouble> {
        let namespace = place.namespace(&node.role())?;
        let (port, name) = (node.port(), namespace.name());
        self.router.ip(&[
            &format!("link add {port} type veth peer name eth0 netns {name}"),
            &format!("addr add {}/24 dev {port}", node.router()),
            &format!("link set {port} up"),
        ])?;
        namespace.ip(&[
            // The kernel would give the router many segments as one packet, which no cable carries.
            "link set eth0 gso_max_segs 1",
            &format!("addr add {}/24 dev eth0", node.address()),
            "link set eth0 up",
            &format!("route add default via {}", node.router()),
        ])?;
        if self.family == Family::V6 {
            // Without duplicate address detection, which takes a second.
            let (ours, routers) = (node.network_v6(1), node.network_v6(0xfe));
            self.router.ip(&[&format!("addr add {routers}/64 dev {port} nodad")])?;
            namespace.ip(&[
                &format!("addr add {ours}/64 dev eth0 nodad"),
                &format!("route add default via {routers} dev eth0"),
            ])?;
            await_up(&self.router, &port)?;
            await_up(&namespace, "eth0")?;
            // The first solicitation may be lost, and then a connection takes a second to open,
            // which the kernel takes for its round trip.
            let theirs = hardware_address(&self.router, &port)?;
            namespace.ip(&[&format!("neigh replace {routers} lladdr {theirs} dev eth0")])?;
            let mine = hardware_address(&namespace, "eth0")?;
            self.router.ip(&[&format!("neigh replace {ours} lladdr {mine} dev {port}")])?;
        }
        match node {
            Node::Gateway => self.gateway = Some(namespace),
            Node::Host(host) => {
                if let Some(slot) = self.hosts.get_mut(usize::from(host)) {
                    *slot = Some(namespace);
                }
            }
        }
        Ok(())
    }

    /// Removes the cable, then deletes the node with its processes. Their last packets are lost,
    /// since a crashing machine sends none either.
    pub(crate) fn detach(&mut self, node: Node) -> Result<(), Trouble> {
        self.router.ip(&[&format!("link del {}", node.port())])?;
        match node {
            Node::Gateway => self.gateway = None,
            Node::Host(host) => {
                if let Some(slot) = self.hosts.get_mut(usize::from(host)) {
                    *slot = None;
                }
            }
        }
        Ok(())
    }

    /// Sets the node's own interface up or down. Up restores the route that down removed.
    pub(crate) fn interface(&self, node: Node, up: bool) -> Result<(), Trouble> {
        let namespace = self.at(node)?;
        if !up {
            return namespace.ip(&["link set eth0 down"]);
        }
        let route = format!("route add default via {}", node.router());
        namespace.ip(&["link set eth0 up", &route])
    }

    /// Removes the node's own address, and with it the routes that need it.
    pub(crate) fn remove_address(&self, node: Node) -> Result<(), Trouble> {
        self.at(node)?.ip(&[&format!("addr del {}/24 dev eth0", node.address())])
    }

    /// Makes the next hop of a node mute: the router no longer answers who has its address.
    pub(crate) fn mute_next_hop(&self, node: Node) -> Result<(), Trouble> {
        self.router.ip(&[&format!("link set {} arp off", node.port())])
    }

    /// Has a node's kernel doubt its next hop, which it does by itself within half a minute: it
    /// asks for the address, and still sends to it until it gives up after three seconds.
    pub(crate) fn doubt_next_hop(&self, node: Node) -> Result<(), Trouble> {
        self.at(node)?.ip(&[&format!("neigh change {} dev eth0 nud probe", node.router())])
    }

    /// Adds rules to a chain of the router. `counter` in a rule shows later whether it matched.
    pub(crate) fn rules(&self, chain: &str, rules: &[String]) -> Result<(), Trouble> {
        let lines: String =
            rules.iter().map(|rule| format!("add rule inet lab {chain} {rule}\n")).collect();
        self.router.run("nft", &["-f", "-"], &lines).map(drop)
    }

    /// Removes all rules.
    pub(crate) fn flush(&self) -> Result<(), Trouble> {
        let chains = ["through", "inside", "outside"];
        let script = chains.map(|chain| format!("flush chain inet lab {chain}\n")).concat();
        self.router.run("nft", &["-f", "-"], &script).map(drop)
    }

    /// Returns the number of packets that matched the rules with a counter.
    pub(crate) fn matched_packets(&self) -> Result<u64, Trouble> {
        let text = self.router.run("nft", &["list", "table", "inet", "lab"], "")?;
        Ok(sum_of_counters(&text))
    }
}

/// Waits until a kernel has noticed that a cable is plugged in: only then do the IPv6 addresses of
/// the interface count.
fn await_up(namespace: &Namespace, device: &str) -> Result<(), Trouble> {
    let clock = Clock::start();
    while !namespace.ip_output(&format!("link show {device}"))?.contains("state UP") {
        if clock.monotonic() > UP_WITHIN {
            return Err(Trouble::new(format!("{device} did not come up")));
        }
        pause(POLL);
    }
    Ok(())
}

/// Returns the hardware address of a device.
fn hardware_address(namespace: &Namespace, device: &str) -> Result<String, Trouble> {
    let shown = namespace.ip_output(&format!("link show {device}"))?;
    let address = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    address
        .map(str::to_owned)
        .ok_or_else(|| Trouble::new(format!("{device} has no hardware address: {shown}")))
}

/// Returns the sum of the packet counters in nft's listing.
fn sum_of_counters(listing: &str) -> u64 {
    let after = listing.split("counter packets ").skip(1);
    after.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed() {
        let listing = "
            ip saddr 10.1.0.1 counter packets 3 bytes 180 drop
            ct state invalid counter packets 12 bytes 7 drop
            masquerade";
        assert_eq!(sum_of_counters(listing), 15);
        assert_eq!(sum_of_counters(""), 0);
    }
}
