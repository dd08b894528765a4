//! Leave-taking: what becomes of a connection between the end of its link and its close.
//!
//! What was queued is still delivered as long as the peer takes bytes. Then this end closes its
//! side, and the socket is closed once everything was acknowledged and the peer has closed its
//! side too: an earlier close could turn into a reset, which destroys bytes on their way.

use crate::kernel::{Patience, SendState, TcpSnapshot};
use crate::machine::{self, Deadline, InputOf, Machine, Reason, kinds_of_input};
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

/// An answer to a wish of a [`Departure`].
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
}

/// Returns whether the peer has acknowledged everything that the kernel was given, as far as this
/// system shows it. What it does not show must be left to the kernel.
fn is_all_acknowledged(tcp: Option<TcpSnapshot>) -> bool {
    tcp.is_none_or(|tcp| tcp.unacked == 0 && tcp.notsent.unwrap_or(0) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
