//! Leave-taking: what becomes of a connection between the end of its link and its close.
//!
//! What was queued is still delivered as long as the peer takes bytes. Then this end closes its
//! side, and the socket is closed once everything was acknowledged and the peer has closed its
//! side too: an earlier close could turn into a reset, which destroys bytes on their way.

use alloc::vec::Vec;

use crate::kernel::{Patience, SendState, TcpSnapshot};
use crate::machine::{self, Deadline, InputOf, Machine, Reason, kinds_of_input, saved_whole};
use crate::plain::{Damage, Plain, Sink, Source, plain_enum, plain_struct};
use crate::time::{Span, Time};

/// The longest time without a single byte taken by the socket or acknowledged by the peer, as far
/// as the examinations show. A peer that reads slowly opens its window in steps, which may be
/// seconds apart.
pub const STALL: Span = Span::from_secs(5);

/// The longest leave-taking outside a drain: a peer that reads slowly but steadily holds the
/// connection and its queued bytes no longer.
pub const LEAVE_LIMIT: Span = Span::from_secs(60);

/// The longest wait for the peer to close its side once it has acknowledged everything. Bytes that
/// it sends until then would turn a close into a reset.
pub const FIN_WAIT: Span = Span::from_secs(1);

/// The time between two examinations.
pub const EXAMINE_INTERVAL: Span = Span::from_secs(1);

/// The time to the first examination after the peer has closed its side: only acknowledgements are
/// missing, which take a round trip. The time doubles up to [`EXAMINE_INTERVAL`].
pub const FIRST_EXAMINE_INTERVAL: Span = Span::from_millis(20);

/// What the world did to the connection of a [`Departure`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// The socket took some of the queued bytes.
    Taken,
    /// The socket took the last queued bytes, or none were queued. May be repeated.
    Flushed,
    /// The peer sends nothing more: its side is closed, or its CLOSE arrived. May be repeated.
    Ended,
    /// The socket failed.
    Failed,
}

/// An answer to a request of a [`Departure`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The answer to [`Output::Examine`], before any other input; `None` where the system shows
    /// nothing.
    Examined(Option<TcpSnapshot>),
    /// The deadline has come. An early answer does no harm.
    Deadline,
}

/// An input of a [`Departure`].
pub type Input = machine::Input<World, Answer>;

kinds_of_input!(World, Answer);

/// An output of a [`Departure`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Read the kernel's view of the connection, and hand it in with [`Answer::Examined`] at once.
    Examine,
    /// Close our side of the stream.
    ShutdownWrite,
    /// Put this patience in force: the kernel goes on to deliver what the peer has not
    /// acknowledged, after the close that comes next.
    Patience(Patience),
    /// Make the close that comes next a reset: bytes are still queued, and the peer must not take
    /// the end of the stream for the end of the data.
    Reset,
    /// Close the socket; the departure takes no further input.
    Close,
}

/// The machine for the last part of one connection. The link has ended, and its last frames are
/// queued.
#[derive(Clone, Debug)]
pub struct Departure {
    phase: Phase,
    /// When the socket is closed, whatever the peer does.
    until: Time,
    /// When the socket last took a byte or the peer was last seen to acknowledge one.
    progress: Time,
    /// The number of acknowledged bytes at the last examination.
    acknowledged: Option<u64>,
    next_examination: Time,
    examine_interval: Span,
    /// Whether the peer sends nothing more.
    peer_ended: bool,
    pending: Pending,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Bytes are queued.
    Sending,
    /// Everything was given to the kernel, and may not have been acknowledged.
    Unacknowledged {
        flushed: Time,
    },
    /// Everything was acknowledged; the peer has until this time to close its side.
    Acknowledged {
        until: Time,
    },
    Over {
        acknowledged: bool,
    },
}

/// The outputs that wait to be polled.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    examine: bool,
    shutdown: bool,
    orphan: bool,
    reset: bool,
    close: bool,
}

plain_struct! { Departure {
    phase,
    until,
    progress,
    acknowledged,
    next_examination,
    examine_interval,
    peer_ended,
    pending
} if Departure::is_legal }

plain_enum! { Phase {
    0 => Sending {}
    1 => Unacknowledged { flushed: flushed }
    2 => Acknowledged { until: until }
    3 => Over { acknowledged: acknowledged }
} }

plain_struct! { Pending { examine, shutdown, orphan, reset, close } }

impl Departure {
    /// Starts the leave-taking of a link that ended at `now`; it lasts at most `limit`.
    pub fn new(now: Time, limit: Span) -> Departure {
        Departure {
            phase: Phase::Sending,
            until: now + limit,
            progress: now,
            acknowledged: None,
            next_examination: now + EXAMINE_INTERVAL,
            examine_interval: EXAMINE_INTERVAL,
            peer_ended: false,
            pending: Pending::default(),
        }
    }

    /// Appends the state at `now` to `out`, with every time as an age or a time to come, so that
    /// [`Departure::load`] can go on from it on another clock. Unpolled outputs are part of it.
    pub fn save(&self, now: Time, out: &mut Vec<u8>) {
        self.put(&mut Sink::state(now, out));
    }

    /// Loads a departure from the front of `state`, at `now` of the clock that drives it from here
    /// on. What lies before [`Time::ZERO`] of this clock counts as if it had happened there.
    ///
    /// # Errors
    /// The state is damaged.
    pub fn load(now: Time, state: &mut &[u8]) -> Result<Departure, Damage> {
        let mut from = Source::state(now, state);
        let departure = Departure::take(&mut from)?;
        *state = from.rest();
        Ok(departure)
    }

    /// Returns whether a decoded departure examines neither all the time nor never.
    fn is_legal(&self) -> bool {
        (FIRST_EXAMINE_INTERVAL..=EXAMINE_INTERVAL).contains(&self.examine_interval)
    }

    /// Returns whether the peer's system has acknowledged everything that was queued, as far as
    /// ours shows it. A failure takes that back: a reset says that the peer did not read to the
    /// end.
    pub fn is_acknowledged(&self) -> bool {
        match self.phase {
            Phase::Sending | Phase::Unacknowledged { .. } => false,
            Phase::Acknowledged { .. } => true,
            Phase::Over { acknowledged } => acknowledged,
        }
    }

    fn flushed(&mut self, now: Time) {
        match self.phase {
            Phase::Sending => {
                self.phase = Phase::Unacknowledged { flushed: now };
                self.progress = now;
                self.pending.shutdown = true;
                if self.peer_ended {
                    self.await_acknowledgement(now);
                }
            }
            Phase::Unacknowledged { .. } | Phase::Acknowledged { .. } | Phase::Over { .. } => {}
        }
    }

    fn peer_ended(&mut self, now: Time) {
        let again = core::mem::replace(&mut self.peer_ended, true);
        match self.phase {
            Phase::Unacknowledged { .. } if again => self.pending.examine = true,
            Phase::Unacknowledged { .. } => self.await_acknowledgement(now),
            Phase::Acknowledged { .. } => self.close(),
            Phase::Sending | Phase::Over { .. } => {}
        }
    }

    /// Examines the socket at once and then at short intervals: only acknowledgements are missing.
    fn await_acknowledgement(&mut self, now: Time) {
        self.pending.examine = true;
        self.examine_interval = FIRST_EXAMINE_INTERVAL;
        self.next_examination = now + FIRST_EXAMINE_INTERVAL;
    }

    fn examined(&mut self, now: Time, tcp: Option<TcpSnapshot>) {
        let acknowledged = tcp.and_then(|tcp| tcp.bytes_acked);
        if self.acknowledged.zip(acknowledged).is_some_and(|(before, after)| before < after) {
            self.progress = now;
        }
        self.acknowledged = acknowledged.or(self.acknowledged);
        match self.phase {
            Phase::Unacknowledged { flushed } => {
                if is_all_acknowledged(tcp) {
                    // The last acknowledgement may have come long before this examination.
                    let last_ack = tcp.map_or(flushed, |tcp| now - tcp.last_ack);
                    let since = flushed.max(last_ack);
                    self.phase = Phase::Acknowledged { until: since + FIN_WAIT };
                    if self.peer_ended || since + FIN_WAIT <= now {
                        self.close();
                    }
                    return;
                }
            }
            Phase::Sending => {}
            Phase::Acknowledged { .. } | Phase::Over { .. } => return,
        }
        if self.progress + STALL <= now {
            self.close();
        }
    }

    fn expire(&mut self, now: Time) {
        let over = match self.phase {
            Phase::Sending | Phase::Unacknowledged { .. } => self.until <= now,
            Phase::Acknowledged { until } => self.until.min(until) <= now,
            Phase::Over { .. } => return,
        };
        if over {
            self.close();
        } else if self.next_examination <= now {
            self.examine_interval = self.examine_interval.times(2).min(EXAMINE_INTERVAL);
            self.next_examination = now + self.examine_interval;
            self.pending.examine = true;
        }
    }

    fn close(&mut self) {
        let (orphan, reset) = match self.phase {
            Phase::Sending => (false, true),
            Phase::Unacknowledged { .. } => (true, false),
            Phase::Acknowledged { .. } | Phase::Over { .. } => (false, false),
        };
        self.phase = Phase::Over { acknowledged: self.is_acknowledged() };
        self.pending = Pending { orphan, reset, close: true, ..Pending::default() };
    }

    fn fail(&mut self) {
        self.close();
        self.phase = Phase::Over { acknowledged: false };
    }
}

impl Machine for Departure {
    type World<'a> = World;
    type Answer = Answer;
    type Output<'a> = Output;
    type Part = ();

    fn handle<'a>(&mut self, now: Time, input: impl Into<InputOf<'a, Self>>) {
        if let Phase::Over { .. } = self.phase {
            return;
        }
        match input.into() {
            Input::World(World::Taken) => self.progress = now,
            Input::World(World::Flushed) => self.flushed(now),
            Input::World(World::Ended) => self.peer_ended(now),
            Input::World(World::Failed) => self.fail(),
            Input::Answer(Answer::Examined(tcp)) => self.examined(now, tcp),
            Input::Answer(Answer::Deadline) => self.expire(now),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        let Pending { examine, shutdown, orphan, reset, close } = &mut self.pending;
        // The examination first: if nothing is missing, the close ends our side too.
        let patience = Patience::new(None, SendState::Orphaned);
        let outputs = [
            (examine, Output::Examine),
            (shutdown, Output::ShutdownWrite),
            (orphan, Output::Patience(patience)),
            (reset, Output::Reset),
            (close, Output::Close),
        ];
        outputs.into_iter().find_map(|(flag, output)| core::mem::take(flag).then_some(output))
    }

    fn deadline_of(&self, (): ()) -> Option<Deadline> {
        let exact = |at| Some(Deadline::exact(at, Reason::Leave));
        match self.phase {
            Phase::Sending | Phase::Unacknowledged { .. } => {
                exact(self.until.min(self.next_examination))
            }
            Phase::Acknowledged { until } => exact(self.until.min(until)),
            Phase::Over { .. } => None,
        }
    }

    saved_whole!(machine, now, state, Departure::load(now, state)?);
}

/// Returns whether the peer has acknowledged everything that the kernel was given, as far as this
/// system shows it. What it does not show must be left to the kernel.
fn is_all_acknowledged(tcp: Option<TcpSnapshot>) -> bool {
    tcp.is_none_or(|tcp| tcp.unacked == 0 && tcp.notsent.unwrap_or(0) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Handles the deadlines of a departure that began at time zero and whose last bytes the socket
    /// takes at `flushed`. Each examination shows `tcp`. Returns when the socket is closed.
    fn closed_at(flushed: Time, tcp: TcpSnapshot) -> Time {
        let mut departure = Departure::new(Time::ZERO, LEAVE_LIMIT);
        let mut is_flushed = false;
        for _ in 0..1_000 {
            let next = departure.next_deadline().expect("a deadline until it is closed").at;
            let first = !is_flushed && flushed <= next;
            let (now, input): (Time, Input) = if first {
                (flushed, World::Flushed.into())
            } else {
                (next, Answer::Deadline.into())
            };
            is_flushed |= first;
            departure.handle(now, input);
            while let Some(output) = departure.poll_output() {
                match output {
                    Output::Examine => departure.handle(now, Answer::Examined(Some(tcp))),
                    Output::Close => return now,
                    Output::ShutdownWrite | Output::Patience(_) | Output::Reset => {}
                }
            }
        }
        panic!("never closed");
    }

    #[test]
    fn the_last_bytes_that_the_socket_takes_are_progress() {
        let stuck = TcpSnapshot { unacked: 1, bytes_acked: Some(9), ..TcpSnapshot::default() };
        assert_eq!(closed_at(ms(500), stuck), ms(6_000), "at the first examination after 5.5 s");
        assert_eq!(closed_at(ms(4_500), stuck), ms(10_000));
    }

    #[test]
    fn the_peer_has_a_second_for_its_end_from_our_end_on() {
        let last_ack = Span::from_secs(8);
        let all = TcpSnapshot { last_ack, notsent: Some(0), ..TcpSnapshot::default() };
        assert_eq!(closed_at(ms(500), all), ms(1_500), "not from an acknowledgement before");
    }

    fn any_input(random: &mut Random) -> Input {
        let tcp = TcpSnapshot {
            unacked: random.below(3) as u32,
            notsent: Some(random.below(2) as u32),
            bytes_acked: (random.below(4) != 0).then(|| random.below(8)),
            last_ack: Span::from_millis(random.below(3_000)),
            ..TcpSnapshot::default()
        };
        match random.below(32) {
            0 => World::Taken.into(),
            1 | 2 => World::Flushed.into(),
            3 => World::Ended.into(),
            4 if random.below(8) == 0 => World::Failed.into(),
            5..16 => Answer::Examined((random.below(4) != 0).then_some(tcp)).into(),
            _ => Answer::Deadline.into(),
        }
    }

    #[test]
    fn a_departure_that_moves_to_another_clock_at_every_input_goes_on_the_same() {
        let (mut closed, mut in_time) = (0, 0);
        for seed in 0..2_000 {
            let mut random = Random::new(seed);
            let mut now = Time::from_millis(100_000);
            let mut departure = Departure::new(now, LEAVE_LIMIT);
            let mut copy = departure.clone();
            let mut lead = Span::ZERO;
            for _ in 0..60 {
                now = match departure.next_deadline() {
                    Some(next) if random.below(2) == 0 => next.at.max(now),
                    Some(_) | None => now + Span::from_nanos(random.below(500_000_000)),
                };
                let mut state = Vec::new();
                copy.save(now + lead, &mut state);
                lead = Span::from_nanos(random.next_u64() >> 2);
                let mut rest = state.as_slice();
                copy = Departure::load(now + lead, &mut rest).unwrap();
                assert!(rest.is_empty());
                let input = any_input(&mut random);
                departure.handle(now, input);
                copy.handle(now + lead, input);
                // Not all outputs are polled before the next input.
                for _ in 0..random.below(4) {
                    let output = departure.poll_output();
                    assert_eq!(copy.poll_output(), output, "seed {seed}");
                    closed += u32::from(output == Some(Output::Close));
                }
                let next = copy.next_deadline().map(|next| Deadline { at: next.at - lead, ..next });
                assert_eq!(next, departure.next_deadline(), "seed {seed}");
                assert_eq!(copy.is_acknowledged(), departure.is_acknowledged());
                in_time += u32::from(next.is_some());
            }
        }
        assert!(closed > 1_000 && in_time > 10_000, "{closed} {in_time}");
    }

    #[test]
    fn damaged_departures_are_refused_or_do_no_harm() {
        let now = Time::from_millis(100_000);
        let mut departure = Departure::new(now, LEAVE_LIMIT);
        departure.handle(now, World::Flushed);
        let mut state = Vec::new();
        departure.save(now, &mut state);
        for length in 0..state.len() {
            assert_eq!(Departure::load(now, &mut &state[..length]).err(), Some(Damage::Truncated));
        }
        let mut random = Random::new(5);
        for round in 0..2_000 {
            let mut damaged = state.clone();
            let place = round % state.len();
            damaged[place] ^= 1 + random.below(255) as u8;
            let Ok(mut loaded) = Departure::load(now, &mut damaged.as_slice()) else { continue };
            let mut now = now;
            for _ in 0..20 {
                let next = loaded.next_deadline().map_or(now, |next| next.at);
                now = if random.below(2) == 0 { next.max(now) } else { now };
                loaded.handle(now, any_input(&mut random));
                while loaded.poll_output().is_some() {}
            }
        }
        // An interval of zero would examine the socket without end.
        let interval = EXAMINE_INTERVAL.as_nanos().to_le_bytes();
        let at = state.windows(8).rposition(|bytes| bytes == interval).unwrap();
        state[at..at + 8].copy_from_slice(&[0; 8]);
        assert_eq!(Departure::load(now, &mut state.as_slice()).err(), Some(Damage::Illegal));
    }
}
