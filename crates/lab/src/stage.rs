//! A running lab: network, gateway, peers, and their logs.

use std::path::PathBuf;

use serde_json::Value;
use systole_core::Span;
use systole_core::random::Random;
use systole_net::Clock;

use crate::control::{self, Control};
use crate::gateway::{Gateway, LINE_PORT, NATIVE_PORT};
use crate::log::Log;
use crate::namespace::Workspace;
use crate::network::{Family, GATEWAY, Network, Node};
use crate::peer::{Kind, Peer, Spec};
use crate::process::Process;
use crate::proxy::Proxy;
use crate::relay::{Relay, Shape};
use crate::scenario::{Middle, Role, Setting};
use crate::trouble::Trouble;

/// Identity of the first link of the first host.
pub(crate) const FIRST_LINK: &str = "h0-0";

/// Everything of one run. When dropped, it ends the processes first and then deletes the
/// namespaces.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) role: Role,
    pub(crate) clock: Clock,
    /// The events of the gateway.
    pub(crate) gateway_log: Log,
    /// The events of the peers.
    pub(crate) peer_log: Log,
    gateway: Option<Gateway>,
    peers: Vec<Option<Peer>>,
    pub(crate) control: Option<Control>,
    pub(crate) network: Network,
    relay: Option<Relay>,
    _proxy: Option<Proxy>,
    program: PathBuf,
    setting: Setting,
    boots: Random,
    /// The boot ids of gateway and first host.
    boot: [String; 2],
    place: Workspace,
}

impl Stage {
    /// Builds the lab and waits until all links are up.
    pub(crate) fn build(
        program: PathBuf,
        setting: Setting,
        role: Role,
        seed: u64,
        clock: Clock,
    ) -> Result<Stage, Trouble> {
        let place = Workspace::new()?;
        let hosts = u8::try_from(setting.hosts.len()).unwrap_or(u8::MAX);
        let nat = setting.middle == Middle::Translates;
        let network = Network::new(&place, hosts, nat, setting.family)?;
        let mut boots = Random::new(seed);
        let (relay, proxy) = middle(&network, setting, hosts, (boots.next_u64(), clock))?;
        if !setting.timestamps {
            for node in (0..hosts).map(Node::Host).chain([Node::Gateway]) {
                network.at(node)?.set(&[("ipv4/tcp_timestamps", "0")])?;
            }
        }
        let boot = [boot_id(&mut boots), boot_id(&mut boots)];
        let mut stage = Stage {
            role,
            clock,
            gateway_log: Log::default(),
            peer_log: Log::default(),
            control: None,
            network,
            relay,
            _proxy: proxy,
            gateway: None,
            peers: setting.hosts.iter().map(|_| None).collect(),
            program,
            setting,
            boots,
            boot,
            place,
        };
        stage.start_gateway()?;
        for host in 0..hosts {
            stage.start_peer(host, host == 0)?;
        }
        Ok(stage)
    }

    /// Returns the observer's log.
    pub(crate) fn observer_log(&self) -> &Log {
        match self.role {
            Role::Gateway => &self.gateway_log,
            Role::Client => &self.peer_log,
        }
    }

    /// Returns the observer's node.
    pub(crate) fn observer_node(&self) -> Node {
        match self.role {
            Role::Gateway => Node::Gateway,
            Role::Client => Node::Host(0),
        }
    }

    /// Returns the node of the observer's peer.
    pub(crate) fn peer_node(&self) -> Node {
        match self.role {
            Role::Gateway => Node::Host(0),
            Role::Client => Node::Gateway,
        }
    }

    pub(crate) fn process(&mut self, node: Node) -> Result<&mut Process, Trouble> {
        let process = match node {
            Node::Gateway => self.gateway.as_mut().map(|gateway| &mut gateway.process),
            Node::Host(host) => self.peer(host).map(|peer| &mut peer.process),
        };
        process.ok_or_else(|| Trouble::new("the process has ended already"))
    }

    /// Sends an order to the process on the first host.
    pub(crate) fn order(&mut self, order: &str) -> Result<(), Trouble> {
        let peer = self.peer(0).ok_or_else(|| Trouble::new("no peer"))?;
        peer.order(order)
    }

    /// Returns the longest silence before a probe.
    pub(crate) fn idle_ms(&self) -> u64 {
        self.setting.beat.idle_ms
    }

    /// Returns the time from the first probe of a silence to the verdict.
    pub(crate) fn probing_ms(&self) -> u64 {
        self.setting.beat.bound_ms() - self.setting.beat.idle_ms
    }

    /// Returns the sum of all samples of one of the gateway's metrics.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, Trouble> {
        let gateway = self.gateway.as_ref().ok_or_else(|| Trouble::new("no gateway"))?;
        gateway.metric(self.network.at(Node::Gateway)?, name)
    }

    /// Returns the relay that passes the packets on.
    pub(crate) fn relay(&self) -> Result<&Relay, Trouble> {
        self.relay.as_ref().ok_or_else(|| Trouble::new("the router has no relay"))
    }

    pub(crate) fn has_relay(&self) -> bool {
        self.relay.is_some()
    }

    /// Returns the family of the addresses over which the links run.
    pub(crate) fn family(&self) -> Family {
        self.setting.family
    }

    /// Returns the number of packets that the faults in force have dropped, answered or changed.
    pub(crate) fn effects(&self) -> Result<u64, Trouble> {
        let relayed = self.relay.as_ref().map_or(0, Relay::effects);
        Ok(self.network.matched_packets()? + relayed)
    }

    /// Starts the process of the observer's peer again.
    pub(crate) fn restart_peer(&mut self) -> Result<(), Trouble> {
        match self.peer_node() {
            Node::Gateway => self.start_gateway(),
            Node::Host(host) => self.start_peer(host, false),
        }
    }

    /// Removes the peer's machine with its processes, without a packet to the other end.
    pub(crate) fn crash_peer_host(&mut self) -> Result<(), Trouble> {
        let its = self.peer_node();
        self.network.detach(its)?;
        match its {
            Node::Gateway => self.gateway = None,
            Node::Host(host) => {
                if let Some(slot) = self.peers.get_mut(usize::from(host)) {
                    *slot = None;
                }
            }
        }
        Ok(())
    }

    /// Restores the peer's machine with a new boot id and the old address.
    pub(crate) fn restore_peer_host(&mut self) -> Result<(), Trouble> {
        let its = self.peer_node();
        let boot = boot_id(&mut self.boots);
        match its {
            Node::Gateway => self.boot[0] = boot,
            Node::Host(_) => self.boot[1] = boot,
        }
        self.network.attach(&self.place, its)
    }

    /// Returns the port of the first link at the first host, as the gateway reports it.
    pub(crate) fn first_port(&self) -> Result<u16, Trouble> {
        let all = self.gateway_log.all();
        let join = all.iter().rev().find(|seen| seen.is("join", FIRST_LINK));
        let address = join.and_then(|seen| seen.body.get("address")).and_then(Value::as_str);
        let port = address.and_then(|address| address.rsplit_once(':')?.1.parse().ok());
        port.ok_or_else(|| Trouble::new("the gateway reported no address of the first link"))
    }

    fn peer(&mut self, host: u8) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(host))?.as_mut()
    }

    fn start_gateway(&mut self) -> Result<(), Trouble> {
        // A predecessor that was killed is removed first, so that its port is free.
        self.gateway = None;
        let gateway = Gateway::start(
            &self.program,
            &self.place,
            self.network.at(Node::Gateway)?,
            (Node::Gateway.address_in(self.setting.family), self.setting),
            &self.boot[0],
            (&self.gateway_log, self.clock),
        )?;
        self.gateway = Some(gateway);
        Ok(())
    }

    /// Starts the peer process of a host. `controlled` adds a control connection, which the lab
    /// watches at the observer's end.
    fn start_peer(&mut self, host: u8, controlled: bool) -> Result<(), Trouble> {
        let port = match self.setting.kind {
            Kind::Client | Kind::Deaf | Kind::Passive => NATIVE_PORT,
            Kind::Answering => LINE_PORT,
        };
        let listener = match self.role {
            Role::Gateway if controlled => Some(Control::listen(self.network.at(Node::Gateway)?)?),
            Role::Gateway | Role::Client => None,
        };
        let spec = Spec {
            kind: self.setting.kind,
            gateway: match self.setting.middle {
                Middle::Proxies => (Node::Host(host).router(), port).into(),
                Middle::Forwards | Middle::Translates | Middle::Delays(_) => {
                    (Node::Gateway.address_in(self.setting.family), port).into()
                }
            },
            identity: format!("h{host}"),
            links: self.setting.hosts.get(usize::from(host)).copied().unwrap_or(0),
            control: listener.as_ref().map(|_| (GATEWAY, control::PORT).into()),
            keep_hung_ms: self.setting.keep_hung_ms,
            busy: self.setting.busy,
        };
        let namespace = self.network.at(Node::Host(host))?;
        let logs = (&self.peer_log, self.clock);
        let peer = Peer::start(&self.program, namespace, &spec, &self.boot[1], logs)?;
        if let Some(listener) = listener {
            self.control = Some(Control::accept(&listener, self.clock)?);
        } else if controlled {
            self.control = Some(Control::connect(namespace, self.clock)?);
        }
        if let Some(slot) = self.peers.get_mut(usize::from(host)) {
            *slot = Some(peer);
        }
        Ok(())
    }
}

/// Starts what the router runs in user space.
fn middle(
    network: &Network,
    setting: Setting,
    hosts: u8,
    (seed, clock): (u64, Clock),
) -> Result<(Option<Relay>, Option<Proxy>), Trouble> {
    let router = network.router();
    match setting.middle {
        Middle::Forwards | Middle::Translates => Ok((None, None)),
        Middle::Delays(ms) => {
            let nodes = (0..hosts).map(Node::Host).chain([Node::Gateway]);
            let ports: Vec<String> = nodes.map(Node::port).collect();
            let delay = Span::from_millis(ms);
            let shape = Shape { inwards: delay, outwards: delay, ..Shape::default() };
            Ok((Some(Relay::start(router, &ports, (shape, seed), clock)?), None))
        }
        Middle::Proxies => {
            let target = (GATEWAY, NATIVE_PORT).into();
            Ok((None, Some(Proxy::start(router, NATIVE_PORT, target)?)))
        }
    }
}

/// Returns a random boot id.
fn boot_id(random: &mut Random) -> String {
    format!("{:016x}{:016x}", random.next_u64(), random.next_u64())
}
