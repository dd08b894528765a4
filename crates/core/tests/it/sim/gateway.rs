//! The observer: a recorded hub, the vigilant clock, and one loop as a shell would run it.

use std::collections::VecDeque;

use systole_core::hub::{self, Hub, Input, Output};
use systole_core::kernel::{Examination, SocketError};
use systole_core::link::{self, Event, Settings};
use systole_core::policy::Detection;
use systole_core::random::Random;
use systole_core::tap::record::{Recorder, ReplayError, ReplaySummary, replay};
use systole_core::tap::{Machine, Tapped};
use systole_core::vigilance::{TOLERANCE, Turn, Vigilance};
use systole_core::wheel::TICK;
use systole_core::wire::{Codec, Decoder, Frame, MAX_DATA};
use systole_core::{Span, Time};

use super::model::Model;
use super::network::{Lanes, Parcel, pieces};
use super::peer::{NEVER, Peer, farewell};
use super::talk::Talk;

/// What a hub is made of, to make it again.
#[derive(Clone, Debug)]
pub(super) struct Making {
    pub(super) listeners: Vec<Settings>,
    pub(super) seed: u64,
}

impl Making {
    fn hub(&self) -> Hub {
        Hub::new(Time::ZERO, 1, self.listeners.clone(), self.seed)
    }
}

/// How well the observer's loop runs; lengths in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loop {
    /// It comes round up to this late.
    pub(super) lag: u64,
    /// How many sockets it reads in one turn.
    pub(super) batch: usize,
    /// What a turn costs when more is ready.
    pub(super) cost: u64,
}

/// The observer.
pub(super) struct Gateway {
    pub(super) hub: Tapped<Hub, Recorder>,
    making: Making,
    pub(super) manner: Loop,
    vigilance: Vigilance,
    /// Vigilant time, reckoned the simple way.
    clock: u64,
    turned: u64,
    planned: u64,
    /// How much later than it should it comes round next time.
    late: u64,
    /// Nothing runs before this.
    stopped_until: u64,
    suspended: u64,
    /// Sockets the kernel would report, in its order, as peers.
    ready: VecDeque<usize>,
    /// Turns, as vigilant and raw time, since the last time up to which all was read.
    turns: VecDeque<(Time, u64)>,
    /// The peer behind each link.
    numbers: Vec<Option<usize>>,
    pub(super) draining: bool,
    pub(super) verbose: bool,
    lanes: Lanes,
}

impl Gateway {
    pub(super) fn new(making: Making, manner: Loop, verbose: bool) -> Gateway {
        Gateway {
            hub: Tapped::new(making.hub(), Recorder::new()),
            making,
            manner,
            vigilance: Vigilance::new(Span::ZERO, Span::ZERO),
            clock: 0,
            turned: 0,
            planned: 0,
            late: 0,
            stopped_until: 0,
            suspended: 0,
            ready: VecDeque::new(),
            turns: VecDeque::from([(Time::ZERO, 0)]),
            numbers: Vec::new(),
            draining: false,
            verbose,
            lanes: Lanes::default(),
        }
    }

    /// The raw time at which vigilant time will be `at`, unless the observer stops before.
    pub(super) fn raw_at(&self, at: Time) -> u64 {
        self.turned.saturating_add(at.since(self.now()).as_nanos())
    }

    /// Vigilant time at the last turn.
    fn now(&self) -> Time {
        self.vigilance.now()
    }

    /// When the loop comes round next.
    pub(super) fn next(&self, peers: &[Peer]) -> Option<u64> {
        let unread = |peer: &Peer| peer.up.next().filter(|_| self.is_served(peer));
        let arrival = peers.iter().filter_map(unread).min().unwrap_or(NEVER);
        let spoken = peers.iter().filter(|peer| peer.judge.is_some()).map(|peer| peer.next_hear);
        let spoken = spoken.min().unwrap_or(NEVER);
        let planned = self.turned.saturating_add(self.planned);
        let busy = if self.ready.is_empty() { NEVER } else { self.turned + self.manner.cost };
        let next = planned.min(arrival).min(busy).min(spoken);
        let next = next.saturating_add(self.late);
        (next < NEVER).then(|| next.max(self.turned + 1_000).max(self.stopped_until))
    }

    /// The observer does not run until `until`; if suspended, the whole host does not.
    pub(super) fn stop(&mut self, raw: u64, until: u64, suspend: bool) {
        if suspend {
            // Raw time is the monotonic clock, which stands still: only boot time jumps.
            self.suspended += until - raw;
        } else {
            self.stopped_until = self.stopped_until.max(until);
        }
    }

    /// One turn of the loop: clock, feed, expire, flush.
    pub(super) fn turn(&mut self, raw: u64, peers: &mut [Peer], chance: &mut Random) {
        self.tick(raw);
        let now = self.now();
        self.find_ready(raw, peers);
        // Those that wait to be accepted are read as soon as they are.
        let open = peers.iter().filter(|peer| self.is_served(peer)).count();
        let batch = self.manner.batch.min(self.ready.len());
        for _ in 0..batch {
            if let Some(peer) = self.ready.pop_front() {
                self.read(raw, now, peer, peers, chance);
            }
        }
        self.vigilance.read(batch, open, self.ready.is_empty());
        for index in 0..peers.len() {
            if peers[index].judge.is_some() && peers[index].due_to_hear(raw, chance) {
                self.say(raw, index, peers, chance);
            }
        }
        self.expire(raw, peers, chance);
        self.check(peers);
        self.late = chance.below(self.manner.lag + 1);
        self.plan();
    }

    /// How long the loop means to be away.
    fn plan(&mut self) {
        self.planned = match self.hub.machine().next_deadline() {
            _ if !self.ready.is_empty() => 0,
            Some(at) => at.since(self.now()).as_nanos(),
            None => NEVER,
        };
    }

    /// A command for one link.
    pub(super) fn command(
        &mut self,
        raw: u64,
        index: usize,
        input: link::Input<'_>,
        peers: &mut [Peer],
        chance: &mut Random,
    ) {
        let now = self.now();
        let Some(link) = peers[index].number else { return };
        let Some(judge) = &mut peers[index].judge else { return };
        judge.input(now, &input);
        self.hub.handle(now, Input::Link { link, input });
        self.collect(raw, now, peers, chance);
        if let Some(judge) = &mut peers[index].judge {
            judge.settled();
        }
        self.plan();
    }

    /// Whether the observer runs.
    pub(super) fn is_running(&self, raw: u64) -> bool {
        self.stopped_until <= raw
    }

    /// A command for all links.
    pub(super) fn command_all(&mut self, command: hub::HubCommand) {
        match command {
            hub::HubCommand::Drain { .. } => self.draining = true,
            hub::HubCommand::Retune { .. } | hub::HubCommand::ReportHeartbeats(_) => {}
        }
        self.hub.handle(self.vigilance.now(), Input::Command(command));
        assert!(self.hub.poll_output().is_none(), "it is done at the next deadline");
        self.plan();
    }

    /// Sends a message to a peer.
    fn say(&mut self, raw: u64, index: usize, peers: &mut [Peer], chance: &mut Random) {
        if !peers[index].judge.as_ref().is_some_and(Model::is_established) {
            return;
        }
        let codec = peers[index].codec();
        let message = peers[index].to_peer.say(codec, chance);
        for input in Talk::commands(codec, &message, chance) {
            self.command(raw, index, input, peers, chance);
        }
    }

    /// The clock, once each turn; and what it must say, reckoned the simple way: what lies beyond
    /// the plan does not count, unless it is little.
    fn tick(&mut self, raw: u64) {
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
        let told = self.vigilance.turn(turn);
        let absent = told.map_or(Span::ZERO, |stall| stall.absent);
        let expected = if stalled { elapsed - planned } else { 0 };
        assert_eq!(absent.as_nanos(), expected, "the stall is told");
        assert_eq!(self.now().as_nanos(), self.clock, "and moves the deadlines by exactly itself");
        self.turns.push_back((self.now(), raw));
    }

    fn is_served(&self, peer: &Peer) -> bool {
        peer.judge.as_ref().is_none_or(Model::is_open)
    }

    fn find_ready(&mut self, raw: u64, peers: &[Peer]) {
        let mut found: Vec<(u64, usize)> = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            let arrived = peer.up.next().filter(|arrival| *arrival <= raw && self.is_served(peer));
            if let Some(arrival) = arrived.filter(|_| !self.ready.contains(&index)) {
                found.push((arrival, index));
            }
        }
        found.sort_unstable();
        self.ready.extend(found.into_iter().map(|(_, index)| index));
    }

    /// Reads one socket until it is empty.
    fn read(&mut self, raw: u64, now: Time, index: usize, peers: &mut [Peer], chance: &mut Random) {
        while self.is_served(&peers[index]) {
            let Some(parcel) = peers[index].up.take(raw) else { break };
            match parcel {
                Parcel::Open => self.accept(raw, now, index, peers, chance),
                Parcel::Bytes(bytes) => {
                    for piece in pieces(&bytes, chance) {
                        if self.is_served(&peers[index]) {
                            let input = link::Input::Received(piece);
                            self.command(raw, index, input, peers, chance);
                        }
                    }
                }
                Parcel::Fin => self.command(raw, index, link::Input::Ended, peers, chance),
                Parcel::Reset => {
                    let input = link::Input::Failed(SocketError::Reset);
                    self.command(raw, index, input, peers, chance);
                }
            }
        }
    }

    fn accept(
        &mut self,
        raw: u64,
        now: Time,
        index: usize,
        peers: &mut [Peer],
        chance: &mut Random,
    ) {
        let free = self.numbers.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.numbers.push(None);
            self.numbers.len() - 1
        });
        self.numbers[number] = Some(index);
        let peer = &mut peers[index];
        let listener = peer.plan.listener;
        let settings = &self.hub.machine().listeners()[usize::from(listener)];
        let judge = Model::new(format!("gateway's {index}"), now, settings, TICK);
        peer.judge = Some(judge.verbose(self.verbose));
        peer.number = Some(number as u32);
        let address = ([127, 0, 0, 1], index as u16).into();
        let (link, epoch) = (number as u32, index as u64);
        self.hub.handle(now, Input::Opened { link, listener, address, epoch });
        self.collect(raw, now, peers, chance);
    }

    /// What is due up to the time at which every socket had been read.
    fn expire(&mut self, raw: u64, peers: &mut [Peer], chance: &mut Random) {
        let horizon = self.vigilance.horizon();
        while self.turns.front().is_some_and(|(vigilant, _)| *vigilant < horizon) {
            self.turns.pop_front();
        }
        let mut rounds = 0;
        while self.hub.machine().next_deadline().is_some_and(|at| at <= horizon) {
            for judge in peers.iter_mut().filter_map(|peer| peer.judge.as_mut()) {
                judge.draining = self.draining;
                judge.input_deadline();
            }
            self.hub.handle(horizon, Input::Deadline);
            self.collect(raw, horizon, peers, chance);
            for judge in peers.iter_mut().filter_map(|peer| peer.judge.as_mut()) {
                judge.settled();
            }
            rounds += 1;
            assert!(rounds < 1_000, "deadlines that never end");
        }
        for judge in peers.iter().filter_map(|peer| peer.judge.as_ref()) {
            judge.check(horizon);
        }
    }

    /// Carries out what the hub wants, until it wants no further look. Sockets here show nothing.
    fn collect(&mut self, raw: u64, now: Time, peers: &mut [Peer], chance: &mut Random) {
        let mut looks = self.carry(raw, now, peers, chance);
        while let Some(link) = looks.pop() {
            let index = self.numbers.get(link as usize).copied().flatten();
            let judge = index.and_then(|index| peers[index].judge.as_mut());
            if judge.is_some_and(|judge| judge.is_open()) {
                let input = link::Input::Examined(Examination::default());
                self.hub.handle(now, Input::Link { link, input });
                looks.extend(self.carry(raw, now, peers, chance));
            }
        }
    }

    /// Returns the links at which it wants a look.
    fn carry(&mut self, raw: u64, now: Time, peers: &mut [Peer], chance: &mut Random) -> Vec<u32> {
        let mut looks = Vec::new();
        let mut current: Option<usize> = None;
        while let Some(Output { link, output }) = self.hub.poll_output() {
            let index = self.numbers.get(link as usize).copied().flatten();
            let index = index.expect("an output about a link that is not open");
            if let Some(before) = current.replace(index).filter(|before| *before != index) {
                self.lanes.flush(raw, &mut peers[before].down, chance);
            }
            let peer = &mut peers[index];
            let codec = peer.codec();
            peer.judge.as_mut().expect("accepted").output(now, &output);
            match output {
                link::Output::Transmit { bytes, lane } => {
                    peer.agreed.extend(retuned(codec, bytes));
                    self.lanes.put(bytes, lane);
                }
                link::Output::Event(Event::Data { bytes, more, .. }) => {
                    peer.to_gateway.hear(codec, bytes, more);
                }
                link::Output::Event(Event::HeartbeatData(data)) => {
                    peer.to_gateway.hear_riding(data);
                }
                link::Output::Event(Event::Established { policy, .. }) => {
                    peer.agreed.push(policy.detection());
                }
                link::Output::Event(Event::Lost { verdict, .. }) => {
                    let cause = verdict.cause.name();
                    let first = self.turns.front().map(|(_, raw)| *raw);
                    let unread = peer.up.next().zip(first).filter(|(next, read)| next <= read);
                    let judged = cause == "unknown" || cause == "handshake_timeout";
                    assert!(!judged || unread.is_none(), "condemned with bytes unread");
                    assert!(!(judged && peer.healthy), "gateway's {index}: condemned in health");
                }
                link::Output::Examine => looks.push(link),
                link::Output::Event(_) => {}
                link::Output::Close(how) => {
                    self.lanes.flush(raw, &mut peer.down, chance);
                    peer.down.send(raw, farewell(how), chance);
                    self.numbers[link as usize] = None;
                }
            }
        }
        if let Some(index) = current {
            self.lanes.flush(raw, &mut peers[index].down, chance);
        }
        looks
    }

    /// What can be looked at agrees with the model, and the next deadline with a linear scan.
    fn check(&self, peers: &[Peer]) {
        let hub = self.hub.machine();
        let next = hub.next_deadline();
        let (mut links, mut online, mut suspects) = (0, 0, 0);
        for (index, peer) in peers.iter().enumerate() {
            let Some((judge, number)) = peer.judge.as_ref().zip(peer.number) else { continue };
            if !judge.is_open() {
                continue;
            }
            links += 1;
            online += u32::from(judge.is_established());
            suspects += u32::from(judge.suspect);
            let known = hub.presence(number).expect("an open link is known");
            assert_eq!(known.last_heard, judge.heard, "gateway's {index}: last heard");
            assert_eq!(known.last_sent, judge.sent, "gateway's {index}: last sent");
            assert_eq!(known.suspect, judge.suspect, "gateway's {index}: suspicion");
            assert_eq!(known.established.is_some(), judge.is_established(), "gateway's {index}");
            if judge.is_established() {
                assert_eq!(*known.policy, judge.policy, "gateway's {index}: policy");
            }
            if let Some(deadline) = known.next_deadline {
                let latest = deadline.at + TICK;
                assert!(
                    next.is_some_and(|next| next <= latest),
                    "gateway's {index}: {deadline:?} is missed, the hub sleeps until {next:?}"
                );
            }
        }
        let told = hub.counters();
        assert_eq!((told.links, told.online, told.suspects), (links, online, suspects), "counters");
        assert_eq!(hub.presences(0).count() as u32, online, "presences");
        let beats = peers.iter().filter_map(|peer| peer.judge.as_ref()).map(|judge| judge.beats);
        assert_eq!(told.heartbeats_out, beats.sum::<u64>(), "heartbeats out");
    }

    /// The end: the record, fed to a hub made alike, must give the same outputs.
    pub(super) fn replay(self) -> Result<ReplaySummary, ReplayError> {
        let fresh = self.making.hub();
        replay(fresh, self.hub.into_tap().record())
    }
}

/// What a RETUNE on its way puts in force at the other end.
fn retuned(codec: Codec, bytes: &[u8]) -> Option<Detection> {
    let mut rest = bytes;
    match Decoder::new(codec, MAX_DATA as u32).next(&mut rest) {
        Ok(Some(Frame::Retune(policy))) => Some(policy.detection()),
        _ => None,
    }
}
