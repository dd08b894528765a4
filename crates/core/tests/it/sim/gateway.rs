//! The simulated gateway: a recorded hub, the vigilant clock, and a loop like the shell's.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use systole_core::session;

use systole_core::cause::Cause;
use systole_core::denial::{Denial, Denied};
use systole_core::gather::{self, Gather};
use systole_core::hub::{self, Output};
use systole_core::kernel::{Examination, SocketError};
use systole_core::link::{self, Event, SessionKey, Settings};
use systole_core::policy::Detection;
use systole_core::random::Random;
use systole_core::tap::record::ReplaySummary;
use systole_core::vigilance::{TOLERANCE, Turn, Vigilance};
use systole_core::wheel::TICK;
use systole_core::wire::{CloseReason, Codec, DataKind, Decoder, Frame, MAX_DATA, Malformed};
use systole_core::{Span, Time};

use super::farewells::Farewell;
use super::hubs::{HUBS, Hubs};
use super::kernel::{random_examination, soft_error};
use super::logins::refusal;
use super::messages::{MessageStream, broadcast};
use super::model::Model;
use super::network::{Segment, split_randomly};
use super::peer::{NEVER, Peer, closing_segment, is_orderly_close};

/// Links whose bound is at most this are demanding.
const DEMANDING_BOUND: Span = Span::from_secs(8);

/// The configuration of a hub, from which it can be made again for the replay.
#[derive(Clone, Debug)]
pub(super) struct HubConfig {
    pub(super) listeners: Vec<Settings>,
    pub(super) seed: u64,
    /// The memory for incomplete frames in bytes.
    pub(super) frame_memory: usize,
}

/// The timing of the gateway's loop; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoopTiming {
    /// The maximum lateness of a turn.
    pub(super) lag: u64,
    /// The number of sockets read in one turn.
    pub(super) batch: usize,
    /// The duration of a turn when more sockets are ready.
    pub(super) cost: u64,
    /// The longest rest between turns.
    pub(super) rest: u64,
    /// In one of this number of turns a socket of no peer here is ready, and read in the next turn;
    /// 0 for never.
    pub(super) stranger: u64,
    /// Before one of this number of inputs of a link, the link moves to the other hub; 0 for never.
    pub(super) moves: u64,
    /// Before one of this number of inputs, the hubs are saved and go on as new machines; 0 for
    /// never.
    pub(super) reloads: u64,
}

/// A simulated gateway.
pub(super) struct Gateway {
    pub(super) hubs: Hubs,
    /// The hub of each link number.
    homes: Vec<usize>,
    /// The link that goes to the home of its identity.
    going_home: Option<u32>,
    /// The link that moves, and its state.
    moving: Option<(u32, Vec<u8>)>,
    hub_config: HubConfig,
    pub(super) timing: LoopTiming,
    vigilance: Vigilance,
    gather: Gather,
    /// The raw time at which a rest ends: until then readiness of a socket causes no turn.
    rest_until: u64,
    pub(super) rests: u64,
    /// The heartbeats sent before this turn, and whether data moved in it.
    heartbeats_out: u64,
    data_moved: bool,
    /// The expected vigilant time, computed independently.
    clock: u64,
    /// The raw time of the last turn.
    turned: u64,
    planned: u64,
    /// The lateness of the next turn.
    late: u64,
    /// The raw time before which the gateway does not run.
    stopped_until: u64,
    suspended: u64,
    /// The ready sockets, as peers, in the order of the kernel's report.
    ready: VecDeque<usize>,
    /// Whether the socket of a stranger is ready and not read yet.
    stranger: bool,
    /// Vigilant and raw time of each turn since the last one at which everything had been read.
    turns: VecDeque<(Time, u64)>,
    /// The peer whose socket was read for the hub, while it is judged.
    polled: Option<usize>,
    /// The peer of each link number.
    peer_of_link: Vec<Option<usize>>,
    /// The answers to admissions that are under way.
    answers: Vec<Answer>,
    /// The epoch given last.
    epoch: u64,
    pub(super) admissions: Admissions,
    pub(super) draining: bool,
    /// The number of messages for many links.
    broadcasts: u64,
    pub(super) verbose: bool,
}

/// An answer to an admission.
#[derive(Clone, Copy, Debug)]
struct Answer {
    /// The raw time at which it was asked for.
    heard: u64,
    /// The raw time at which it comes.
    at: u64,
    peer: usize,
    link: u32,
    admission: u32,
    /// The session, in the second half of the admission.
    session: Option<u64>,
}

/// The number of answers by their kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Admissions {
    pub(super) delayed: u64,
    pub(super) refused: u64,
    /// Links that went to the home of their identity.
    pub(super) sent_home: u64,
    /// Identities that a certificate proved, and the peers sent away for one.
    pub(super) proved: u64,
    pub(super) disproved: u64,
    /// Peers without an identity although they may have claimed one.
    pub(super) anonymous: u64,
    /// Answers about links that did not wait any more.
    pub(super) late: u64,
}

impl Admissions {
    /// Counts an answer of the first half.
    fn count(&mut self, proof: hub::Proof<'_>, is_identified: bool) {
        self.disproved += u64::from(!is_identified);
        match proof {
            hub::Proof::Proved(_) => self.proved += u64::from(is_identified),
            hub::Proof::Anonymous => self.anonymous += 1,
            hub::Proof::Claim => {}
        }
    }

    pub(super) fn plus(self, other: Admissions) -> Admissions {
        Admissions {
            delayed: self.delayed + other.delayed,
            refused: self.refused + other.refused,
            sent_home: self.sent_home + other.sent_home,
            proved: self.proved + other.proved,
            disproved: self.disproved + other.disproved,
            anonymous: self.anonymous + other.anonymous,
            late: self.late + other.late,
        }
    }
}

impl Gateway {
    pub(super) fn new(hub_config: HubConfig, timing: LoopTiming, verbose: bool) -> Gateway {
        Gateway {
            hubs: Hubs::new(&hub_config.listeners, hub_config.seed, hub_config.frame_memory),
            homes: Vec::new(),
            going_home: None,
            moving: None,
            hub_config,
            timing,
            vigilance: Vigilance::new(Span::ZERO, Span::ZERO),
            gather: Gather::of_links(Time::ZERO, Span::from_nanos(timing.rest)),
            rest_until: 0,
            rests: 0,
            heartbeats_out: 0,
            data_moved: false,
            clock: 0,
            turned: 0,
            planned: 0,
            late: 0,
            stopped_until: 0,
            suspended: 0,
            ready: VecDeque::new(),
            stranger: false,
            turns: VecDeque::from([(Time::ZERO, 0)]),
            polled: None,
            peer_of_link: Vec::new(),
            answers: Vec::new(),
            epoch: 0,
            admissions: Admissions::default(),
            draining: false,
            broadcasts: 0,
            verbose,
        }
    }

    /// Returns the raw time at which vigilant time will be `at`, unless the gateway stops before.
    pub(super) fn raw_at(&self, at: Time) -> u64 {
        self.turned.saturating_add(at.since(self.now()).as_nanos())
    }

    /// Returns vigilant time at the last turn.
    fn now(&self) -> Time {
        self.vigilance.now()
    }

    /// Returns the raw time of the next turn.
    pub(super) fn next(&self, peers: &[Peer]) -> Option<u64> {
        let unread = |peer: &Peer| peer.up.next().filter(|_| self.is_read(peer));
        let arrival = peers.iter().filter_map(unread).min().unwrap_or(NEVER);
        let next_message =
            peers.iter().filter(|peer| peer.gateway_model.is_some()).map(|peer| peer.next_to_peer);
        let next_message = next_message.min().unwrap_or(NEVER);
        let answer = self.answers.iter().map(|answer| answer.at).min().unwrap_or(NEVER);
        let planned = self.turned.saturating_add(self.planned).min(answer);
        // While more sockets are ready, a turn costs its time, whatever arrives.
        let next = if !self.is_busy() {
            planned.min(arrival.min(next_message).max(self.rest_until))
        } else {
            self.turned + self.timing.cost
        };
        let next = next.saturating_add(self.late);
        (next < NEVER).then(|| next.max(self.turned + 1_000).max(self.stopped_until))
    }

    /// Stops the gateway until `until`, or suspends the whole host for that time.
    pub(super) fn stop(&mut self, raw: u64, until: u64, suspend: bool) {
        if suspend {
            // Raw time is the monotonic clock, which does not advance: only boot time does.
            self.suspended += until - raw;
        } else {
            self.stopped_until = self.stopped_until.max(until);
        }
    }

    /// Runs one turn of the loop: read the clock, feed, expire, flush.
    pub(super) fn turn(&mut self, raw: u64, peers: &mut [Peer], random: &mut Random) {
        self.read_clock(raw);
        let now = self.now();
        self.answer_admissions(raw, now, peers, random);
        self.find_ready(raw, peers);
        // Connections that wait for accept count too: they are read as soon as they are accepted.
        let open = peers.iter().filter(|peer| self.is_served(peer)).count();
        let batch = self.timing.batch.min(self.ready.len());
        for _ in 0..batch {
            if let Some(peer) = self.ready.pop_front() {
                self.read(raw, now, peer, peers, random);
            }
        }
        self.answer_admissions(raw, now, peers, random);
        let stranger = usize::from(std::mem::take(&mut self.stranger));
        let chance = self.timing.stranger;
        self.stranger = chance > 0 && random.below(chance) == 0;
        let strangers = usize::from(chance > 0);
        self.vigilance.read(batch + stranger, open + strangers, !self.is_busy());
        for index in 0..peers.len() {
            if peers[index].gateway_model.is_some() && peers[index].is_message_due(raw, random) {
                self.send_message(raw, index, peers, random);
            }
        }
        self.expire(raw, peers, random);
        self.check(peers);
        self.late = random.below(self.timing.lag + 1);
        self.plan();
        self.rest(raw, batch, random);
    }

    /// Rests if the core says so after a turn that read so many sockets, and sometimes without its
    /// word: a few peers beat too rarely for rests, and no invariant may depend on their absence.
    fn rest(&mut self, raw: u64, read: usize, random: &mut Random) {
        let now = self.now();
        let counters = self.hubs.counters();
        let heartbeats_out = counters.iter().map(|counters| counters.heartbeats_out).sum();
        let sent = heartbeats_out - self.heartbeats_out;
        self.heartbeats_out = heartbeats_out;
        let turn = gather::Turn {
            began: now,
            now,
            read,
            sent,
            data: std::mem::take(&mut self.data_moved),
            busy: self.is_busy(),
            demanding: counters.iter().any(|counters| counters.demanding > 0),
            deadline: self.hubs.next_deadline(),
        };
        let rest = self.gather.wait(&turn).rest.as_nanos();
        assert!(rest <= self.timing.rest && (!turn.data || rest == 0), "{turn:?}");
        assert!(rest <= self.planned, "a rest beyond the next deadline: {turn:?}");
        let may_rest = !turn.data && !turn.busy && random.below(4) == 0;
        let rest = if may_rest { self.timing.rest.min(self.planned) } else { rest };
        self.rest_until = raw + rest;
        self.rests += u64::from(rest > 0);
    }

    /// Plans the time until the next turn.
    fn plan(&mut self) {
        self.planned = match self.hubs.next_deadline() {
            _ if self.is_busy() => 0,
            Some(at) => at.since(self.now()).as_nanos(),
            None => NEVER,
        };
    }

    /// Feeds an input to one link.
    pub(super) fn command(
        &mut self,
        raw: u64,
        index: usize,
        input: link::World<'_>,
        peers: &mut [Peer],
        random: &mut Random,
    ) {
        self.input_at(raw, self.now(), index, input, peers, random);
        self.plan();
    }

    fn input_at(
        &mut self,
        raw: u64,
        now: Time,
        index: usize,
        input: link::World<'_>,
        peers: &mut [Peer],
        random: &mut Random,
    ) {
        let Some(link) = peers[index].number else { return };
        self.stir(raw, now, index, peers, random);
        let Some(model) = &mut peers[index].gateway_model else { return };
        model.input(now, &input.into());
        // A command ends a rest.
        self.rest_until = 0;
        self.hubs.handle(now, self.homes[link as usize], hub::World::Link { link, input });
        self.collect(raw, now, peers, random);
        if let Some(model) = &mut peers[index].gateway_model {
            model.check_settled(now);
        }
    }

    /// Saves and loads the hubs, and moves a link from one to the other, as often as the timing
    /// says. Neither makes a difference to the link.
    fn stir(&mut self, raw: u64, now: Time, index: usize, peers: &mut [Peer], random: &mut Random) {
        let LoopTiming { moves, reloads, .. } = self.timing;
        if reloads > 0 && random.below(reloads) == 0 {
            self.hubs.reload(now);
        }
        let Some(link) = peers[index].number.filter(|_| moves > 0 && random.below(moves) == 0)
        else {
            return;
        };
        self.move_link(raw, now, link, index, peers, random);
    }

    /// Moves a link to the other hub.
    fn move_link(
        &mut self,
        raw: u64,
        now: Time,
        link: u32,
        index: usize,
        peers: &mut [Peer],
        random: &mut Random,
    ) {
        let is_open = self.peer_of_link[link as usize] == Some(index);
        let Some(model) = peers[index].gateway_model.as_mut().filter(|_| is_open) else { return };
        // Before it goes, a link gets the commands for all links that it was still to get.
        model.draining = self.draining;
        model.moves();
        // Answers to an admission go to the hub that asked, where nobody waits for them any more.
        self.answers.retain(|answer| answer.link != link);
        let home = self.homes[link as usize];
        self.hubs.handle(now, home, hub::World::HandOver { link });
        self.collect(raw, now, peers, random);
        if let Some(model) = &mut peers[index].gateway_model {
            model.check_settled(now);
        }
    }

    /// Gives a link that moves to the other hub.
    fn take_over(&mut self, now: Time) -> bool {
        let Some((link, state)) = self.moving.take() else { return false };
        let home = (self.homes[link as usize] + 1) % HUBS;
        self.homes[link as usize] = home;
        self.hubs.handle(now, home, hub::World::TakenOver { link, state: &state });
        self.hubs.moves += 1;
        true
    }

    /// Returns whether the gateway is not stopped.
    pub(super) fn is_running(&self, raw: u64) -> bool {
        self.stopped_until <= raw
    }

    /// Feeds a command for all links.
    pub(super) fn command_all(&mut self, command: hub::HubCommand<'_>) {
        match command {
            hub::HubCommand::Drain { .. } => self.draining = true,
            hub::HubCommand::Retune { .. }
            | hub::HubCommand::Send { .. }
            | hub::HubCommand::ReportHeartbeats(_) => {}
        }
        self.rest_until = 0;
        self.hubs.command(self.vigilance.now(), command);
        assert!(self.hubs.is_quiet(), "it takes effect at the next deadline");
        self.plan();
    }

    /// Sends a message on all links, or on those of one listener.
    pub(super) fn broadcast(&mut self, listener: Option<u16>, peers: &mut [Peer]) {
        self.broadcasts += 1;
        let bytes = broadcast(self.broadcasts);
        for peer in peers {
            let concerned = listener.is_none_or(|listener| listener == peer.plan.listener);
            if concerned && peer.gateway_model.as_ref().is_some_and(Model::is_established) {
                peer.to_peer.expect_broadcast(self.broadcasts);
            }
        }
        let kind = DataKind::default();
        self.command_all(hub::HubCommand::Send { listener, bytes: &bytes, kind });
        assert!(self.hubs.counters().iter().all(|counters| counters.messages_refused == 0));
    }

    /// Sends a message to a peer.
    fn send_message(&mut self, raw: u64, index: usize, peers: &mut [Peer], random: &mut Random) {
        if !peers[index].gateway_model.as_ref().is_some_and(Model::is_established) {
            return;
        }
        let codec = peers[index].codec();
        let message = peers[index].to_peer.next_message(codec, random);
        for input in MessageStream::commands(codec, &message, random) {
            self.command(raw, index, input, peers, random);
        }
    }

    /// Reads the clock and checks vigilant time against an independent computation: time beyond
    /// the plan does not count, unless it is within the tolerance.
    fn read_clock(&mut self, raw: u64) {
        let elapsed = raw - self.turned;
        let planned = self.planned.min(NEVER / 4);
        let stalled = elapsed > planned + TOLERANCE.as_nanos();
        self.clock += if stalled { planned } else { elapsed };
        self.turned = raw;
        let turn = Turn {
            monotonic: Span::from_nanos(raw),
            boottime: Span::from_nanos(raw + self.suspended),
            planned: Span::from_nanos(planned),
        };
        let stall = self.vigilance.turn(turn);
        let absent = stall.map_or(Span::ZERO, |stall| stall.absent);
        let expected = if stalled { elapsed - planned } else { 0 };
        assert_eq!(absent.as_nanos(), expected, "the stall is reported");
        assert_eq!(self.now().as_nanos(), self.clock, "deadlines move by exactly the stall");
        self.turns.push_back((self.now(), raw));
    }

    /// Returns whether a socket is ready that was not read yet.
    fn is_busy(&self) -> bool {
        !self.ready.is_empty() || self.stranger
    }

    fn is_served(&self, peer: &Peer) -> bool {
        peer.gateway_model.as_ref().is_none_or(Model::is_open)
    }

    /// Returns whether the socket of a peer is read: not while the peer waits until it is admitted,
    /// except for the end of its stream.
    fn is_read(&self, peer: &Peer) -> bool {
        let waits = peer.gateway_model.as_ref().is_some_and(Model::awaits_admission);
        self.is_served(peer) && (!waits || peer.up.ends_next())
    }

    /// Schedules the answer to an admission: mostly at once, otherwise within a part of the time
    /// limit, or for peers that need not live also after it.
    fn schedule_answer(
        &mut self,
        raw: u64,
        (link, admission, session): (u32, u32, Option<u64>),
        peers: &[Peer],
        random: &mut Random,
    ) {
        // Who floods behind its HELLO has ended already.
        let Some(peer) = self.peer_of_link[link as usize] else { return };
        let settings = &self.hubs.listeners()[usize::from(peers[peer].plan.listener)];
        let limit = settings.handshake_timeout.as_nanos();
        let most = if peers[peer].healthy { limit / 48 } else { limit * 5 / 4 };
        let delay = if random.below(4) == 0 { random.below(most + 1) } else { 0 };
        self.admissions.delayed += u64::from(delay > 0);
        self.answers.push(Answer { heard: raw, at: raw + delay, peer, link, admission, session });
    }

    /// Hands in the answers that have come.
    fn answer_admissions(&mut self, raw: u64, now: Time, peers: &mut [Peer], random: &mut Random) {
        while let Some(index) = self.answers.iter().position(|answer| answer.at <= raw) {
            let Answer { heard, peer, link, admission, session, .. } =
                self.answers.swap_remove(index);
            let refused = !peers[peer].healthy && random.below(16) == 0;
            let why = Denial::ALL.get(link as usize % 16).copied();
            let denied = Denied { goodbye: refusal(random), why };
            let said = peers[peer].answered.clone();
            let claim = peers[peer].claim().to_owned();
            let input: hub::Input<'_> = match session {
                _ if refused => hub::World::Refused { link, admission, denied }.into(),
                None => {
                    let heard_at = Span::from_nanos(heard);
                    let (proof, grant) = (said.proof(), said.grant());
                    let login = hub::Login { heard_at, proof, grant };
                    hub::World::Identified { link, admission, login }.into()
                }
                Some(session) => {
                    self.epoch += 1;
                    hub::Answer::Owned { session, epoch: self.epoch, fresh: None }.into()
                }
            };
            let waits = self.peer_of_link[link as usize] == Some(peer);
            let model = peers[peer].gateway_model.as_mut().filter(|_| waits);
            let Some(model) = model.filter(|model| model.awaits_admission()) else {
                self.hubs.handle(now, self.homes[link as usize], input);
                assert!(self.hubs.is_quiet(), "a late answer changes nothing");
                self.admissions.late += 1;
                continue;
            };
            match session {
                _ if refused => model.input(now, &link::Answer::Refused(denied).into()),
                None => {
                    let is_identified = model.identify(now, &claim, &said);
                    self.admissions.count(said.proof(), is_identified);
                }
                Some(session) => {
                    let key = SessionKey { session, epoch: self.epoch };
                    model.input(now, &link::Answer::admitted(key).into());
                }
            }
            self.admissions.refused += u64::from(refused);
            self.hubs.handle(now, self.homes[link as usize], input);
            self.collect(raw, now, peers, random);
            if let Some(model) = &mut peers[peer].gateway_model {
                model.check_settled(now);
            }
        }
    }

    fn find_ready(&mut self, raw: u64, peers: &[Peer]) {
        let mut found: Vec<(u64, usize)> = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            let arrived = peer.up.next().filter(|arrival| *arrival <= raw && self.is_read(peer));
            if let Some(arrival) = arrived.filter(|_| !self.ready.contains(&index)) {
                found.push((arrival, index));
            }
        }
        found.sort_unstable();
        self.ready.extend(found.into_iter().map(|(_, index)| index));
    }

    /// Reads one socket until it is empty.
    fn read(&mut self, raw: u64, now: Time, index: usize, peers: &mut [Peer], random: &mut Random) {
        while self.is_read(&peers[index]) {
            let Some(segment) = peers[index].up.take(raw) else { break };
            match segment {
                Segment::Open => self.accept(raw, now, index, peers, random),
                Segment::Bytes(bytes) => {
                    for piece in split_randomly(&bytes, random) {
                        if peers[index].plan.sealed && random.below(4) == 0 {
                            let part = Segment::part(random);
                            self.read_without_plaintext(raw, index, part, peers, random);
                        }
                        if self.is_served(&peers[index]) {
                            let input = link::World::Received(piece);
                            self.command(raw, index, input, peers, random);
                        }
                    }
                }
                Segment::NoPlaintext { .. } => {
                    self.read_without_plaintext(raw, index, segment, peers, random);
                }
                Segment::Fin => self.command(raw, index, link::World::Ended, peers, random),
                Segment::Reset => {
                    let input = link::World::Failed(SocketError::Reset);
                    self.command(raw, index, input, peers, random);
                }
            }
        }
    }

    /// Reads bytes without plaintext, after which the transport holds a part of a record or none.
    fn read_without_plaintext(
        &mut self,
        raw: u64,
        index: usize,
        segment: Segment,
        peers: &mut [Peer],
        random: &mut Random,
    ) {
        let Segment::NoPlaintext { memory, length } = segment else { return };
        for input in [link::World::Heard, link::World::Held { memory, length }] {
            if self.is_served(&peers[index]) {
                self.command(raw, index, input, peers, random);
            }
        }
    }

    fn accept(
        &mut self,
        raw: u64,
        now: Time,
        index: usize,
        peers: &mut [Peer],
        random: &mut Random,
    ) {
        let free = self.peer_of_link.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.peer_of_link.push(None);
            self.peer_of_link.len() - 1
        });
        self.peer_of_link[number] = Some(index);
        let peer = &mut peers[index];
        let listener = peer.plan.listener;
        let settings = &self.hubs.listeners()[usize::from(listener)];
        let mut model = Model::new(format!("gateway's {index}"), now, settings, TICK);
        if self.draining {
            model.input(
                now,
                &link::World::Command(link::Command::close(CloseReason::Drained)).into(),
            );
        }
        peer.gateway_model = Some(model.verbose(self.verbose));
        peer.number = Some(number as u32);
        let address = ([127, 0, 0, 1], index as u16).into();
        self.homes.resize(self.homes.len().max(number + 1), 0);
        self.homes[number] = index % HUBS;
        let link = number as u32;
        self.hubs.handle(now, index % HUBS, hub::World::Opened { link, listener, address });
        self.collect(raw, now, peers, random);
    }

    /// Handles what is due in this turn. Links whose deadline has come since every socket was read
    /// are judged by their own sockets.
    fn expire(&mut self, raw: u64, peers: &mut [Peer], random: &mut Random) {
        let (horizon, limit) = (self.vigilance.horizon(), self.vigilance.limit());
        while self.turns.front().is_some_and(|(vigilant, _)| *vigilant < horizon) {
            self.turns.pop_front();
        }
        let mut rounds = 0;
        while self.hubs.next_deadline().is_some_and(|at| at <= limit) {
            for gateway_model in peers.iter_mut().filter_map(|peer| peer.gateway_model.as_mut()) {
                gateway_model.draining = self.draining;
                gateway_model.input_deadline();
            }
            // Commands for all links are executed at the present, deadlines at the horizon.
            while self.hubs.sweep(limit) {
                self.collect(raw, limit, peers, random);
            }
            self.hubs.expire(limit, horizon);
            self.collect(raw, horizon, peers, random);
            for gateway_model in peers.iter_mut().filter_map(|peer| peer.gateway_model.as_mut()) {
                gateway_model.check_settled(horizon);
            }
            while let Some(link) = self.hubs.poll_read() {
                match random.below(8) {
                    0 => self.leave_unanswered(raw, limit, link, peers, random),
                    _ => self.poll(raw, limit, link, peers, random),
                }
            }
            rounds += 1;
            assert!(rounds < 1_000, "endless deadlines");
        }
        for peer in peers.iter() {
            if peer.gateway_model.as_ref().is_some_and(Model::is_open) {
                peer.to_peer.check_broadcasts_sent();
            }
        }
        // A second deadline of a link in one late turn is armed for the next tick, with which the
        // next turn comes.
        if self.hubs.next_deadline().is_some_and(|at| at <= limit + TICK) {
            return;
        }
        // The bound of lateness: no verdict waits for the sockets of other links.
        for gateway_model in peers.iter().filter_map(|peer| peer.gateway_model.as_ref()) {
            gateway_model.check(limit);
        }
    }

    /// Reads the socket of a link, and answers the hub's poll.
    fn poll(&mut self, raw: u64, now: Time, link: u32, peers: &mut [Peer], random: &mut Random) {
        let Some(index) = self.peer_of_link.get(link as usize).copied().flatten() else { return };
        self.read(raw, now, index, peers, random);
        if self.peer_of_link[link as usize] == Some(index) {
            self.polled = Some(index);
            self.judge(raw, now, index, peers, random);
            self.polled = None;
        }
    }

    /// Lets the hub judge a link whose socket was read.
    fn judge(
        &mut self,
        raw: u64,
        now: Time,
        index: usize,
        peers: &mut [Peer],
        random: &mut Random,
    ) {
        let Some(link) = peers[index].number else { return };
        let Some(model) = &mut peers[index].gateway_model else { return };
        model.polled();
        model.input(now, &link::Answer::Deadline.into());
        self.hubs.judge(now, self.homes[link as usize], link);
        self.collect(raw, now, peers, random);
        if let Some(model) = &mut peers[index].gateway_model {
            model.check_settled(now);
        }
    }

    /// Leaves the hub's poll without an answer; the socket may be read all the same.
    fn leave_unanswered(
        &mut self,
        raw: u64,
        now: Time,
        link: u32,
        peers: &mut [Peer],
        random: &mut Random,
    ) {
        let Some(index) = self.peer_of_link.get(link as usize).copied().flatten() else { return };
        if let Some(model) = &mut peers[index].gateway_model {
            model.leave_unanswered(now);
        }
        if random.below(2) == 0 {
            self.read(raw, now, index, peers, random);
        }
    }

    /// Executes the hub's outputs until it requests no more examinations. Sockets of peers in doubt
    /// show what the peer's plan says.
    fn collect(&mut self, raw: u64, now: Time, peers: &mut [Peer], random: &mut Random) {
        let mut examinations = self.execute_outputs(raw, now, peers, random);
        if self.take_over(now) {
            examinations.extend(self.execute_outputs(raw, now, peers, random));
        }
        while let Some(link) = examinations.pop() {
            let index = self.peer_of_link.get(link as usize).copied().flatten();
            let Some(Peer { gateway_model, socket, tcp, .. }) =
                index.map(|index| &mut peers[index])
            else {
                continue;
            };
            if let Some(model) = gateway_model.as_mut().filter(|model| model.is_open()) {
                let shown = match tcp {
                    Some(tcp) => tcp.examine(raw),
                    None if model.is_trusted(now) => random_examination(random),
                    None if model.expects_nothing() => {
                        let shown = socket.examine(now, model.last_sent);
                        let told = random.below(16) == 0;
                        Examination { error: told.then(|| soft_error(random)), ..shown }
                    }
                    None => Examination::default(),
                };
                model.examined(now, &shown);
                let answer = hub::Answer::Examined { link, examination: shown };
                self.hubs.handle(now, self.homes[link as usize], answer);
                examinations.extend(self.execute_outputs(raw, now, peers, random));
            }
        }
        if let Some(link) = self.going_home.take()
            && let Some(index) = self.peer_of_link[link as usize]
        {
            let granted = peers[index].gateway_model.as_ref().and_then(|it| it.granted.as_ref());
            let has_home = granted.is_some_and(|granted| !granted.identity.is_empty());
            assert!(has_home, "gateway's {index}: only an identity has a home");
            self.admissions.sent_home += 1;
            self.move_link(raw, now, link, index, peers, random);
        }
    }

    /// Executes the hub's outputs; returns the links to examine.
    fn execute_outputs(
        &mut self,
        raw: u64,
        now: Time,
        peers: &mut [Peer],
        random: &mut Random,
    ) -> Vec<u32> {
        let mut examinations = Vec::new();
        let mut current: Option<usize> = None;
        let mut asked = Vec::new();
        let mut home = 0;
        while home < HUBS {
            let Some(output) = self.hubs.poll_output(home) else {
                home += 1;
                continue;
            };
            let kept = (&mut asked, &mut self.moving, &mut self.going_home);
            let Some((link, output)) = of_link(output, kept) else {
                continue;
            };
            let index = self.peer_of_link.get(link as usize).copied().flatten();
            let index = index.expect("an output about a link that is not open");
            if let Some(before) = current.replace(index).filter(|before| *before != index) {
                peers[before].flush_down(raw, false, random);
            }
            if let link::Output::Session(session::Event::Left(verdict)) = &output
                && verdict.cause == Cause::Protocol(Malformed::OldestFrame)
            {
                let held = fronts(peers, &self.homes, home);
                check_oldest(index, self.hub_config.frame_memory, &held);
            }
            let peer = &mut peers[index];
            let model = peer.gateway_model.as_mut().expect("accepted");
            // Whoever waits until it is admitted is not read.
            let reads = !model.awaits_admission();
            model.output(now, &output);
            match output {
                link::Output::Transmit { bytes, lane } => {
                    self.data_moved |= lane == link::Lane::Data;
                    send(peer, bytes, lane);
                }
                link::Output::Event(Event::Data { bytes, more, .. }) => {
                    self.data_moved = true;
                    peer.to_gateway.receive(peer.codec(), bytes, more);
                }
                link::Output::Event(Event::HeartbeatData(data)) => {
                    peer.to_gateway.receive_heartbeat_data(data);
                }
                link::Output::Event(Event::Farewell { goodbye, text }) => {
                    let heard = Farewell { goodbye, text: text.into() };
                    assert_eq!(peer.own_model.said.as_ref(), Some(&heard), "what {index} has said");
                }
                link::Output::Session(session::Event::Joined { policy, .. }) => {
                    peer.sent_policies.push(policy.detection());
                }
                link::Output::Session(session::Event::Left(verdict)) => {
                    let first = self.turns.front().map(|(_, raw)| *raw);
                    let polled = self.polled == Some(index);
                    check_verdict(index, verdict.cause, peer, reads, (raw, first, polled));
                }
                link::Output::Examine { .. } => examinations.push(link),
                link::Output::Session(_) | link::Output::Event(_) | link::Output::Admit => {}
                link::Output::Patience(patience) => peer.follow(&patience),
                link::Output::Close(how) => {
                    peer.flush_down(raw, true, random);
                    peer.down.send(raw, closing_segment(how), random);
                    self.peer_of_link[link as usize] = None;
                }
            }
        }
        if let Some(index) = current {
            peers[index].flush_down(raw, false, random);
        }
        for admission in asked {
            self.schedule_answer(raw, admission, peers, random);
        }
        examinations
    }

    /// Checks the hub's presences and counters against the models, and its next deadline against a
    /// linear scan.
    fn check(&self, peers: &[Peer]) {
        let next = self.hubs.next_deadline();
        let (mut links, mut online, mut suspects, mut demanding) = (0, 0, 0, 0);
        for (index, peer) in peers.iter().enumerate() {
            let Some((model, number)) = peer.gateway_model.as_ref().zip(peer.number) else {
                continue;
            };
            if !model.is_open() {
                continue;
            }
            links += 1;
            online += u32::from(model.is_established());
            suspects += u64::from(model.suspect);
            let (known, ahead) = self
                .hubs
                .presence(self.homes[number as usize], number)
                .expect("an open link is known");
            let bound = known.policy.bound();
            demanding += u64::from(bound.is_some_and(|bound| bound <= DEMANDING_BOUND));
            assert_eq!(known.last_heard - ahead, model.last_heard, "gateway's {index}: last heard");
            assert_eq!(known.last_sent - ahead, model.last_sent, "gateway's {index}: last sent");
            assert_eq!(known.suspect, model.suspect, "gateway's {index}: suspicion");
            assert_eq!(known.established.is_some(), model.is_established(), "gateway's {index}");
            if model.is_established() {
                assert_eq!(*known.policy, model.policy, "gateway's {index}: policy");
                let granted = model.granted.as_ref().expect("it was identified");
                assert_eq!(known.identity, granted.identity, "gateway's {index}: identity");
                assert_eq!(known.attributes, granted.attributes, "gateway's {index}: attributes");
            }
            if let Some(deadline) = known.next_deadline {
                // A deadline that did not apply while the peer was in doubt may be past.
                let repeat = if model.is_unanswered(self.now()) { TICK } else { Span::ZERO };
                let latest = (deadline.at - ahead).max(self.now()) + TICK + repeat;
                assert!(
                    next.is_some_and(|next| next <= latest),
                    "gateway's {index}: {deadline:?} is missed, the hub sleeps until {next:?}"
                );
            }
        }
        let counters = self.hubs.counters();
        for (home, counters) in counters.iter().enumerate() {
            let held = fronts(peers, &self.homes, home);
            let least: usize = held.iter().map(|(.., memory)| memory.start()).sum();
            let most: usize = held.iter().map(|(.., memory)| memory.end()).sum();
            let memory = counters.frame_bytes as usize;
            assert!((least..=most).contains(&memory), "{memory} bytes for frames of {least} bytes");
            assert!(memory <= self.hub_config.frame_memory, "frames exceed their memory");
        }
        let sum = |count: fn(&hub::Counters) -> u64| counters.iter().map(count).sum::<u64>();
        assert_eq!(
            (sum(|all| all.links.into()), sum(|all| all.online.into())),
            (links, u64::from(online)),
            "counters"
        );
        assert_eq!(
            (sum(|all| all.suspects.into()), sum(|all| all.demanding.into())),
            (suspects, demanding),
            "counters"
        );
        assert_eq!(self.hubs.online(), online, "presences");
        let beats =
            peers.iter().filter_map(|peer| peer.gateway_model.as_ref()).map(|model| model.beats);
        assert_eq!(sum(|all| all.heartbeats_out), beats.sum::<u64>(), "heartbeats out");
    }

    /// Replays the records on new hubs of the same configuration.
    pub(super) fn replay(self) -> ReplaySummary {
        self.hubs.replay()
    }
}

/// Checks that no verdict falls on the gateway's peer `index` whose bytes are unread, given the raw
/// time, that up to which all sockets were read, and whether the peer's own socket was read for it.
fn check_verdict(
    index: usize,
    cause: Cause,
    peer: &Peer,
    reads: bool,
    (raw, first, polled): (u64, Option<u64>, bool),
) {
    if is_orderly_close(cause) {
        peer.to_gateway.check_complete();
    }
    let unread = peer.up.next().zip(first).filter(|(next, read)| next <= read);
    let judged =
        ["unknown", "not_reading", "app_hung", "handshake_timeout"].contains(&cause.name());
    assert!(!reads || !judged || unread.is_none(), "a verdict with bytes unread");
    let own_unread = peer.up.next().is_some_and(|arrival| arrival <= raw);
    assert!(!reads || !polled || !own_unread, "judged by a socket with bytes unread");
    assert!(!(judged && peer.healthy), "gateway's {index}: a verdict on a healthy peer");
}

/// What a hub itself asks for: answers to admissions, and links that move or go home.
type Kept<'a> =
    (&'a mut Vec<(u32, u32, Option<u64>)>, &'a mut Option<(u32, Vec<u8>)>, &'a mut Option<u32>);

/// Returns the output of a link; keeps what the hub itself asks for.
fn of_link<'a>(
    output: Output<'a>,
    (asked, moving, going_home): Kept<'_>,
) -> Option<(u32, link::Output<'a>)> {
    match output {
        Output::Link { link, output } => return Some((link, output)),
        Output::Admit { link, admission } => {
            asked.push((link, admission, None));
            return Some((link, link::Output::Admit));
        }
        Output::Own { link, admission, session } => asked.push((link, admission, Some(session))),
        Output::GoHome { link, .. } => *going_home = Some(link),
        Output::Resume { .. } | Output::Session { .. } => panic!("no session is away"),
        Output::HandedOver { link, state } => *moving = Some((link, state.to_vec())),
    }
    None
}

/// Sends frames of the gateway to a peer.
fn send(peer: &mut Peer, bytes: &[u8], lane: link::Lane) {
    peer.to_peer.note_sent(bytes);
    peer.sent_policies.extend(retuned_detection(peer.codec(), bytes));
    peer.push_down(bytes, lane);
}

/// An incomplete frame: peer, whether it has logged in and the time from which the frame's time
/// counts, and the least and the most memory that it takes.
type Incomplete = (usize, (bool, Time), RangeInclusive<usize>);

/// Returns the incomplete frames of one hub.
fn fronts(peers: &[Peer], homes: &[usize], home: usize) -> Vec<Incomplete> {
    let mut held = Vec::new();
    for (index, peer) in peers.iter().enumerate() {
        let is_here = peer.number.is_some_and(|link| homes[link as usize] == home);
        let model = peer.gateway_model.as_ref().filter(|model| is_here && model.is_open());
        if let Some(model) = model
            && let Some((since, memory)) = model.held_frame()
        {
            held.push((index, (model.is_established(), since), memory));
        }
    }
    held
}

/// Checks that a link which gave way had the oldest frame, those first that have not logged in, and
/// that the memory of all frames can
/// have been beyond `limit`.
fn check_oldest(index: usize, limit: usize, held: &[Incomplete]) {
    let oldest = held.iter().map(|(_, since, _)| *since).min();
    let (_, since, _) = held.iter().find(|(of, ..)| *of == index).expect("it holds a frame");
    assert_eq!(Some(*since), oldest, "gateway's {index} gave way, and is not the oldest");
    let most: usize = held.iter().map(|(.., memory)| memory.end()).sum();
    assert!(most > limit, "gateway's {index} gave way at {most}");
}

/// Returns the detection of the policy in `bytes`, if they are a RETUNE.
fn retuned_detection(codec: Codec, bytes: &[u8]) -> Option<Detection> {
    let mut rest = bytes;
    match Decoder::new(codec, MAX_DATA as u32).next(&mut rest) {
        Ok(Some(Frame::Retune(policy))) => Some(policy.detection()),
        _ => None,
    }
}
