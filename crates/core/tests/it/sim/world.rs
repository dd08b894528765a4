//! The simulated world: a gateway and its peers, driven event by event in virtual time.

use systole_core::hub;
use systole_core::kernel::SocketError;
use systole_core::link::{self, Command};
use systole_core::random::Random;
use systole_core::tap::record::ReplaySummary;
use systole_core::wire::{DataKind, Frame};

use super::gateway::{Gateway, HubConfig, LoopTiming};
use super::logins::Answered;
use super::network::Segment;
use super::peer::{NEVER, Peer, Plan};

/// A gateway, its peers, and raw time in nanoseconds, which also runs while the gateway is stopped.
pub(super) struct World {
    pub(super) raw: u64,
    pub(super) random: Random,
    pub(super) gateway: Gateway,
    pub(super) peers: Vec<Peer>,
    pub(super) steps: u64,
    verbose: bool,
}

impl World {
    pub(super) fn new(
        hub_config: HubConfig,
        timing: LoopTiming,
        random: Random,
        verbose: bool,
    ) -> World {
        let gateway = Gateway::new(hub_config, timing, verbose);
        World { raw: 0, random, gateway, peers: Vec::new(), steps: 0, verbose }
    }

    /// Connects another peer and returns its index.
    pub(super) fn connect(&mut self, plan: Plan) -> usize {
        let name = self.peers.len();
        let peer = Peer::connect(self.raw, name, plan, &mut self.random, self.verbose);
        self.peers.push(peer);
        name
    }

    /// Returns the time of the next event.
    pub(super) fn next(&self) -> u64 {
        let peers = self.peers.iter().filter_map(Peer::next).min().unwrap_or(NEVER);
        peers.min(self.gateway.next(&self.peers).unwrap_or(NEVER)).max(self.raw)
    }

    /// Runs all events up to `until`.
    pub(super) fn run_until(&mut self, until: u64) {
        while self.next() <= until {
            self.step();
        }
        self.raw = self.raw.max(until);
    }

    /// Runs the next event.
    pub(super) fn step(&mut self) {
        self.raw = self.next();
        self.steps += 1;
        let raw = self.raw;
        for peer in &mut self.peers {
            if peer.next().is_some_and(|next| next <= raw) {
                peer.run(raw, &mut self.random);
            }
        }
        if self.gateway.next(&self.peers).is_some_and(|next| next <= raw) {
            self.gateway.turn(raw, &mut self.peers, &mut self.random);
        }
    }

    /// Gives a command to the gateway's end of a link.
    pub(super) fn command(&mut self, index: usize, command: Command<'_>) {
        self.input(index, link::World::Command(command));
    }

    /// Reports an error of the gateway's socket of a link.
    pub(super) fn fail(&mut self, index: usize, failure: SocketError) {
        self.peers[index].healthy = false;
        self.input(index, link::World::Failed(failure));
    }

    /// Feeds an input to the gateway's end of a link, in an extra turn of its loop.
    pub(super) fn input(&mut self, index: usize, input: link::World<'_>) {
        let is_open =
            |peer: &Peer| peer.gateway_model.as_ref().is_some_and(|model| model.is_open());
        if !self.turn_gateway() || !is_open(&self.peers[index]) {
            return;
        }
        self.gateway.command(self.raw, index, input, &mut self.peers, &mut self.random);
    }

    /// Gives the gateway a command for all links.
    pub(super) fn command_all(&mut self, command: hub::HubCommand<'_>) {
        if self.turn_gateway() {
            self.gateway.command_all(command);
        }
    }

    /// Lets the gateway send a message on all links, or on those of one listener.
    pub(super) fn broadcast(&mut self, listener: Option<u16>) {
        if self.turn_gateway() {
            self.gateway.broadcast(listener, &mut self.peers);
        }
    }

    /// Starts an outage of `span` on a peer's path, in one direction or both.
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

    /// Cuts a peer's path for ever, in one direction or both.
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

    /// Draws what is said of a peer when its login is looked at.
    pub(super) fn draw_answer(&mut self, index: usize, unit: u64) {
        let peer = &mut self.peers[index];
        peer.answered = Answered::new(index, peer.healthy, unit, &mut self.random);
    }

    /// Lets a peer send messages or heartbeats, one after the other at the same time.
    pub(super) fn burst(&mut self, index: usize, count: u64, heartbeats: bool) {
        for _ in 0..count {
            match heartbeats {
                true => {
                    self.peers[index].command(self.raw, Command::Heartbeat, &mut self.random);
                }
                false => self.peers[index].send_burst(self.raw, &mut self.random),
            }
        }
    }

    /// Lets a native peer send its HELLO one byte per `pause`, without ever completing it.
    pub(super) fn trickle(&mut self, index: usize, pause: u64) {
        let peer = &mut self.peers[index];
        peer.exit(self.raw, None, &mut self.random);
        let Some(Segment::Bytes(hello)) = peer.up.recall() else { return };
        for (byte, count) in hello.into_iter().zip(0..32) {
            peer.up.send(self.raw + count * pause, Segment::Bytes(vec![byte]), &mut self.random);
        }
    }

    /// Lets a peer send a byte of a sealed record each `pause`, never the last, and nothing after.
    pub(super) fn drip_record(&mut self, index: usize, pieces: u32, pause: u64) {
        let peer = &mut self.peers[index];
        if !peer.open || !peer.own_model.is_established() {
            return;
        }
        peer.flush_up(self.raw, &mut self.random);
        peer.exit(self.raw, None, &mut self.random);
        let length = pieces + 1 + self.random.below(1_000) as u32;
        for memory in 1..=pieces {
            let part = Segment::NoPlaintext { memory, length };
            peer.up.send(self.raw + u64::from(memory) * pause, part, &mut self.random);
        }
    }

    /// Lets a peer send its next message in `pieces` pieces, one per `pause`, and nothing after.
    pub(super) fn drip(&mut self, index: usize, pieces: usize, pause: u64) {
        let peer = &mut self.peers[index];
        if !peer.open || !peer.own_model.is_established() {
            return;
        }
        peer.flush_up(self.raw, &mut self.random);
        peer.exit(self.raw, None, &mut self.random);
        let codec = peer.codec();
        let message = peer.to_gateway.next_message(codec, &mut self.random);
        let mut bytes = Vec::new();
        let kind = DataKind::default();
        codec.encode(&Frame::data(&message, false, kind), &mut bytes);
        let mut at = self.raw;
        for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
            peer.up.send(at, Segment::Bytes(piece.to_vec()), &mut self.random);
            at += pause;
        }
    }

    /// Ends a peer's process, perhaps with illegal bytes.
    pub(super) fn exit(&mut self, index: usize, segment: Option<Segment>) {
        self.peers[index].exit(self.raw, segment, &mut self.random);
    }

    /// Closes a peer's sending side; the peer continues to read.
    pub(super) fn half_close(&mut self, index: usize) {
        self.peers[index].half_close(self.raw, &mut self.random);
    }

    /// Ends the world: a replay of its record on a new hub must give the same outputs.
    pub(super) fn replay(self) -> ReplaySummary {
        let summary = self.gateway.replay();
        assert_eq!(summary.unrecorded, 0, "the replay has extra outputs at the end");
        summary
    }

    /// Runs one turn of the gateway's loop; returns false if the gateway is stopped.
    fn turn_gateway(&mut self) -> bool {
        let running = self.gateway.is_running(self.raw);
        if running {
            self.gateway.turn(self.raw, &mut self.peers, &mut self.random);
        }
        running
    }
}
