//! Everything together, in virtual time: whatever happens next happens now.

use systole_core::hub;
use systole_core::kernel::SocketError;
use systole_core::link::{Command, Input};
use systole_core::random::Random;
use systole_core::tap::record::ReplaySummary;

use super::gateway::{Gateway, Loop, Making};
use super::network::Parcel;
use super::peer::{NEVER, Peer, Plan};

/// An observer, its peers, and the raw time, which also runs while the observer does not.
pub(super) struct World {
    pub(super) raw: u64,
    pub(super) chance: Random,
    pub(super) gateway: Gateway,
    pub(super) peers: Vec<Peer>,
    pub(super) steps: u64,
    verbose: bool,
}

impl World {
    pub(super) fn new(making: Making, manner: Loop, chance: Random, verbose: bool) -> World {
        let gateway = Gateway::new(making, manner, verbose);
        World { raw: 0, chance, gateway, peers: Vec::new(), steps: 0, verbose }
    }

    /// Another peer connects; its index.
    pub(super) fn connect(&mut self, plan: Plan) -> usize {
        let name = self.peers.len();
        let peer = Peer::connect(self.raw, name, plan, &mut self.chance, self.verbose);
        self.peers.push(peer);
        name
    }

    /// When anything happens next.
    pub(super) fn next(&self) -> u64 {
        let peers = self.peers.iter().filter_map(Peer::next).min().unwrap_or(NEVER);
        peers.min(self.gateway.next(&self.peers).unwrap_or(NEVER)).max(self.raw)
    }

    /// Lets everything happen up to `until`.
    pub(super) fn run_until(&mut self, until: u64) {
        while self.next() <= until {
            self.step();
        }
        self.raw = self.raw.max(until);
    }

    /// What happens next, happens.
    pub(super) fn step(&mut self) {
        self.raw = self.next();
        self.steps += 1;
        let raw = self.raw;
        for peer in &mut self.peers {
            if peer.next().is_some_and(|next| next <= raw) {
                peer.run(raw, &mut self.chance);
            }
        }
        if self.gateway.next(&self.peers).is_some_and(|next| next <= raw) {
            self.gateway.turn(raw, &mut self.peers, &mut self.chance);
        }
    }

    /// The operator, or the application behind the gateway, wants something of a link.
    pub(super) fn command(&mut self, index: usize, command: Command<'_>) {
        self.input(index, Input::Command(command));
    }

    /// The gateway's socket of a link reports something of its own.
    pub(super) fn fail(&mut self, index: usize, failure: SocketError) {
        self.peers[index].healthy = false;
        self.input(index, Input::Failed(failure));
    }

    /// Something happens to a link at the gateway: the loop comes round for it.
    pub(super) fn input(&mut self, index: usize, input: Input<'_>) {
        let is_open = |peer: &Peer| peer.judge.as_ref().is_some_and(|judge| judge.is_open());
        if !self.wake() || !is_open(&self.peers[index]) {
            return;
        }
        self.gateway.command(self.raw, index, input, &mut self.peers, &mut self.chance);
    }

    /// Something is wanted of all links.
    pub(super) fn command_all(&mut self, command: hub::HubCommand) {
        if self.wake() {
            self.gateway.command_all(command);
        }
    }

    /// Nothing moves on the path of a peer for `span`, to it, from it, or both; then all does.
    pub(super) fn outage(&mut self, index: usize, span: u64, up: bool, down: bool) {
        let peer = &mut self.peers[index];
        let until = self.raw + span;
        if up {
            peer.up.outage(until);
        }
        if down {
            peer.down.outage(until);
        }
        peer.healthy = false;
    }

    /// A peer's path vanishes in one direction or both.
    pub(super) fn cut(&mut self, index: usize, up: bool, down: bool) {
        let peer = &mut self.peers[index];
        if up {
            peer.up.cut(self.raw);
        }
        if down {
            peer.down.cut(self.raw);
        }
        peer.healthy = false;
    }

    /// A native peer introduces itself a byte each `pause`, and never comes to the end.
    pub(super) fn trickle(&mut self, index: usize, pause: u64) {
        let peer = &mut self.peers[index];
        peer.exit(self.raw, None, &mut self.chance);
        let Some(Parcel::Bytes(hello)) = peer.up.recall() else { return };
        for (byte, count) in hello.into_iter().zip(0..32) {
            peer.up.send(self.raw + count * pause, Parcel::Bytes(vec![byte]), &mut self.chance);
        }
    }

    /// A peer sends what no protocol allows, or ends.
    pub(super) fn exit(&mut self, index: usize, parcel: Option<Parcel>) {
        self.peers[index].exit(self.raw, parcel, &mut self.chance);
    }

    /// A peer closes its sending side, and reads on.
    pub(super) fn half_close(&mut self, index: usize) {
        self.peers[index].half_close(self.raw, &mut self.chance);
    }

    /// The end: everything that passed the hub's doors must come again from a fresh one.
    pub(super) fn replay(self) -> ReplaySummary {
        match self.gateway.replay() {
            Ok(summary) => {
                assert_eq!(summary.unrecorded, 0, "the replay says something more at the end");
                summary
            }
            Err(error) => panic!("the record gives other outputs: {error}"),
        }
    }

    fn wake(&mut self) -> bool {
        let running = self.gateway.is_running(self.raw);
        if running {
            self.gateway.turn(self.raw, &mut self.peers, &mut self.chance);
        }
        running
    }
}
