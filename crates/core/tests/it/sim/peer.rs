//! One peer: a connecting link, the connection's two directions, and who watches both ends.

use systole_core::link::{Closing, Command, Event, Input, Link, Output, SessionKey, Settings};
use systole_core::policy::Detection;
use systole_core::random::Random;
use systole_core::tap::Machine;
use systole_core::wire::Codec;
use systole_core::{Span, Time};

use super::model::Model;
use super::network::{Lanes, Parcel, Path, Quality, pieces};
use super::talk::Talk;

/// Never.
pub(super) const NEVER: u64 = u64::MAX;

/// How a peer behaves; lengths in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) listener: u16,
    pub(super) settings: Settings,
    pub(super) quality: Quality,
    /// From one message to the next, each way; [`NEVER`] for none.
    pub(super) talks: u64,
    pub(super) hears: u64,
}

/// One peer, both ends of its connection.
pub(super) struct Peer {
    pub(super) plan: Plan,
    link: Link,
    /// What this end must do.
    pub(super) own: Model,
    /// What the gateway must do about it; from the moment it knows.
    pub(super) judge: Option<Model>,
    /// The gateway's number for it.
    pub(super) number: Option<u32>,
    pub(super) up: Path,
    pub(super) down: Path,
    pub(super) to_gateway: Talk,
    pub(super) to_peer: Talk,
    /// The policies the gateway said, and this end has not yet heard.
    pub(super) agreed: Vec<Detection>,
    /// This end still has its socket.
    pub(super) open: bool,
    /// Its kernel is there, and answers with a reset what comes for a process that is not.
    refuses: bool,
    /// Nothing bad ever happened to it.
    pub(super) healthy: bool,
    /// It does not run before this.
    asleep_until: u64,
    /// How long it did not run, in all: its clock stands still meanwhile.
    slept: u64,
    pub(super) next_talk: u64,
    pub(super) next_hear: u64,
    lanes: Lanes,
}

impl Peer {
    pub(super) fn connect(
        raw: u64,
        name: usize,
        plan: Plan,
        chance: &mut Random,
        verbose: bool,
    ) -> Peer {
        let now = Time::from_nanos(raw);
        let own = Model::new(format!("peer {name}"), now, &plan.settings, Span::ZERO);
        let seed = chance.next_u64();
        let mut peer = Peer {
            link: Link::new(now, plan.settings.clone(), SessionKey::default(), seed),
            own: own.verbose(verbose),
            judge: None,
            number: None,
            up: Path::new(plan.quality),
            down: Path::new(plan.quality),
            to_gateway: Talk::default(),
            to_peer: Talk::default(),
            agreed: Vec::new(),
            open: true,
            refuses: false,
            healthy: true,
            asleep_until: 0,
            slept: 0,
            next_talk: later(raw, plan.talks, chance),
            next_hear: later(raw, plan.hears, chance),
            lanes: Lanes::default(),
            plan,
        };
        peer.up.send(raw, Parcel::Open, chance);
        peer.collect(raw, now, chance);
        peer
    }

    pub(super) fn codec(&self) -> Codec {
        self.plan.settings.codec
    }

    /// When something happens at this end.
    pub(super) fn next(&self) -> Option<u64> {
        if !self.open {
            return self.down.next().filter(|_| self.refuses);
        }
        let deadline = self.link.next_deadline().map(|deadline| deadline.at.as_nanos());
        let deadline = deadline.map(|at| at.saturating_add(self.slept));
        let parcel = self.down.next().unwrap_or(NEVER);
        let next = deadline.unwrap_or(NEVER).min(parcel).min(self.next_talk);
        (next < NEVER).then_some(next.max(self.asleep_until))
    }

    /// What has happened at this end by `raw`: first what arrived, then what is due.
    pub(super) fn run(&mut self, raw: u64, chance: &mut Random) {
        while self.refuses {
            let Some(parcel) = self.down.take(raw) else { break };
            if let Parcel::Bytes(_) = parcel {
                self.up.send(raw, Parcel::Reset, chance);
            }
            self.refuses = parcel == Parcel::Open;
        }
        while self.open {
            let Some(parcel) = self.down.take(raw) else { break };
            match parcel {
                Parcel::Open => {}
                Parcel::Bytes(bytes) => {
                    for piece in pieces(&bytes, chance) {
                        if self.open {
                            self.tell(raw, Input::Received(piece), chance);
                        }
                    }
                }
                Parcel::Fin => self.tell(raw, Input::Ended, chance),
                Parcel::Reset => {
                    self.tell(raw, Input::Failed(systole_core::kernel::SocketError::Reset), chance);
                }
            }
        }
        if self.open && self.next_talk <= raw {
            self.next_talk = later(raw, self.plan.talks, chance);
            self.say(raw, chance);
        }
        let now = self.now(raw);
        if self.open && self.link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
            self.tell(raw, Input::Deadline, chance);
            self.own.check(now);
        }
    }

    /// Sends a message to the gateway.
    pub(super) fn say(&mut self, raw: u64, chance: &mut Random) {
        if self.own.is_established() {
            let message = self.to_gateway.say(self.codec(), chance);
            for input in Talk::commands(self.codec(), &message, chance) {
                self.tell(raw, input, chance);
            }
        }
    }

    /// Says something to the machine of this end, if it runs.
    pub(super) fn command(&mut self, raw: u64, command: Command<'_>, chance: &mut Random) {
        if self.open && self.asleep_until <= raw {
            self.tell(raw, Input::Command(command), chance);
        }
    }

    /// The application hangs: its kernel goes on, it does not.
    pub(super) fn sleep(&mut self, raw: u64, until: u64) {
        self.healthy = false;
        let from = raw.max(self.asleep_until);
        if until > from {
            self.slept = self.slept.saturating_add(until - from);
            self.asleep_until = until;
        }
    }

    /// The process ends: with a FIN, a reset, or without a word.
    pub(super) fn exit(&mut self, raw: u64, parcel: Option<Parcel>, chance: &mut Random) {
        if let Some(parcel) = parcel.filter(|_| self.open) {
            self.refuses = parcel == Parcel::Fin;
            self.up.send(raw, parcel, chance);
        }
        self.healthy = false;
        self.open = false;
    }

    /// The process closes its sending side, and reads on.
    pub(super) fn half_close(&mut self, raw: u64, chance: &mut Random) {
        self.healthy = false;
        if self.open {
            self.up.send(raw, Parcel::Fin, chance);
            self.up.close();
        }
    }

    /// The gateway's next message, if it wants to send one now.
    pub(super) fn due_to_hear(&mut self, raw: u64, chance: &mut Random) -> bool {
        let due = self.next_hear <= raw;
        if due {
            self.next_hear = later(raw, self.plan.hears, chance);
        }
        due
    }

    fn now(&self, raw: u64) -> Time {
        Time::from_nanos(raw - self.slept.min(raw))
    }

    fn tell(&mut self, raw: u64, input: Input<'_>, chance: &mut Random) {
        let now = self.now(raw);
        self.own.input(now, &input);
        self.link.handle(now, input);
        self.collect(raw, now, chance);
        self.own.settled();
    }

    fn collect(&mut self, raw: u64, now: Time, chance: &mut Random) {
        let codec = self.plan.settings.codec;
        let mut closing = None;
        while let Some(output) = self.link.poll_output() {
            self.own.output(now, &output);
            match output {
                Output::Transmit { bytes, lane } => self.lanes.put(bytes, lane),
                Output::Event(Event::Data { bytes, more, .. }) => {
                    self.to_peer.hear(codec, bytes, more);
                }
                Output::Event(Event::HeartbeatData(data)) => self.to_peer.hear_riding(data),
                Output::Event(Event::Established { policy, .. } | Event::Retuned(policy))
                    if codec.has_handshake() =>
                {
                    let said = self.agreed.remove(0);
                    assert_eq!(policy.detection(), said, "both ends hold the same policy");
                }
                Output::Event(_) | Output::Examine => {}
                Output::Close(how) => closing = Some(how),
            }
        }
        self.lanes.flush(raw, &mut self.up, chance);
        if let Some(how) = closing {
            self.open = false;
            self.up.send(raw, farewell(how), chance);
        }
    }
}

/// What the other end sees of a closed socket.
pub(super) fn farewell(how: Closing) -> Parcel {
    match how {
        Closing::Flush => Parcel::Fin,
        Closing::Abort => Parcel::Reset,
    }
}

/// About one `period` after `raw`.
pub(super) fn later(raw: u64, period: u64, chance: &mut Random) -> u64 {
    if period == NEVER { NEVER } else { raw + period / 2 + chance.below(period + 1) }
}
