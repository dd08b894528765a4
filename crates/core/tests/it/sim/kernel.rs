//! A model of the kernel at one end of a link, written from docs/sockets.md: the patience in force,
//! and which bytes of ours the kernel may still hold.

use systole_core::cause::Cause;
use systole_core::kernel::{
    Cap, Examination, LONGEST_OUTAGE, Patience, SendState, SocketError, TcpSnapshot,
};
use systole_core::link::{FLOOR_PER_SECOND, OUTSTANDING, RETRANSMITTING};
use systole_core::random::Random;
use systole_core::{Span, Time};

/// The unit in which the core stores when outstanding bytes are examined, rounded down.
const UNIT: Span = Span::from_millis(125);

/// The latest such time that the core can store: 2^30 - 1 units.
const LATEST: Time = Time::from_millis(((1 << 30) - 1) * 125);

/// The kind of outstanding bytes, in ascending order of what proves that they arrived. A PONG to
/// the latest PING proves it only for `Ping`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Sent {
    /// Only control frames, the latest of them a PING.
    Ping,
    /// Only control frames, the latest of them not a PING.
    Control,
    /// Data, which a PING may overtake.
    Data,
}

/// The model of the kernel at one end of a link.
pub(super) struct Kernel {
    /// The patience that was emitted last.
    pub(super) patience: Patience,
    /// The outstanding bytes: when they are examined, and their kind.
    outstanding: Option<(Time, Sent)>,
    /// The number of examinations in a row that showed bytes stuck behind a closed window.
    closed: u32,
    /// Whether that was reported since the window was last open.
    reported: bool,
    /// The state of the sending side.
    send: SendState,
    /// The cap of the retransmission timeout.
    cap: Cap,
    /// The bytes acknowledged by the latest examination, if it showed a doubled timeout and the
    /// connection has no timestamps.
    backed_off: Option<u64>,
    /// The number of changes of the patience.
    pub(super) changes: u64,
    /// What the examinations showed since bytes wait, whatever the peer said meanwhile.
    look: Findings,
}

impl Kernel {
    pub(super) fn new(patience: Patience) -> Kernel {
        Kernel {
            patience,
            outstanding: None,
            closed: 0,
            reported: false,
            send: SendState::Sending,
            cap: Cap::LEAST,
            backed_off: None,
            changes: 0,
            look: Findings::default(),
        }
    }

    /// Records that a frame was sent.
    pub(super) fn sent(&mut self, now: Time, frame: Sent) {
        self.outstanding = Some(match (self.outstanding, frame) {
            (None, _) => (now + OUTSTANDING, frame),
            // A PING follows all control frames, and may overtake data.
            (Some((due, Sent::Ping | Sent::Control)), Sent::Ping) => (due, Sent::Ping),
            (Some((due, before)), _) => (due, before.max(frame)),
        });
    }

    /// Records that the latest PING was answered.
    pub(super) fn answered(&mut self) {
        self.outstanding = self.outstanding.filter(|(_, sent)| *sent != Sent::Ping);
        self.forget_look_if_delivered();
    }

    fn forget_look_if_delivered(&mut self) {
        if self.outstanding.is_none() {
            self.look = Findings::default();
        }
    }

    /// Returns why the kernel may have given up a peer that was last heard at `heard`, and whose
    /// silence shows no cause: by the last examination, unless evidence refutes it (row 15).
    pub(super) fn cause_of_timeout(
        &self,
        heard: Time,
        interval: Span,
        probed: bool,
        beyond_bound: bool,
    ) -> Cause {
        let cause = self.look.cause(interval, probed, beyond_bound, false);
        let refuted = self.look.last.is_none_or(|(at, _)| at < heard);
        if refuted && cause != Cause::NotReading { Cause::Unknown } else { cause }
    }

    /// Records the result of an examination; `trusted` is whether the peer is not in doubt. Returns
    /// whether the link must warn that it does not read.
    pub(super) fn examined(
        &mut self,
        now: Time,
        shown: &Examination,
        trusted: bool,
        longest_us: Option<u64>,
    ) -> bool {
        let all = shown.tcp.is_some_and(|tcp| tcp.unacked == 0 && tcp.notsent == Some(0));
        let all = all && !shown.queued;
        let pause = match shown.tcp.is_some_and(|tcp| tcp.retransmits > 0) {
            true => RETRANSMITTING,
            false => OUTSTANDING,
        };
        self.outstanding = self.outstanding.filter(|_| !all).map(|(_, sent)| (now + pause, sent));
        self.forget_look_if_delivered();
        let Some(tcp) = shown.tcp else { return false };
        let sends_again = tcp.retransmits > 0 || tcp.backoff > 0 || tcp.probes > 0;
        let held_up = tcp.send_window == Some(0) || tcp.notsent.is_some_and(|bytes| bytes > 0);
        let troubled = sends_again || held_up;
        if self.outstanding.is_some() && (troubled || self.look.last.is_some()) {
            self.look.see(now, tcp);
        }
        self.follow_figures(&tcp, longest_us);
        // What the kernel counts since the window closed counts until everything has arrived.
        let was_closed = self.send == SendState::Closed && !all;
        self.send = if was_closed || tcp.send_window == Some(0) {
            SendState::Closed
        } else if tcp.probes > 1 && tcp.notsent != Some(0) {
            SendState::Stranded
        } else {
            SendState::Sending
        };
        let waiting = tcp.unacked > 0 || tcp.notsent.is_some_and(|bytes| bytes > 0);
        if tcp.send_window != Some(0) {
            (self.closed, self.reported) = (0, false);
        } else if trusted {
            self.closed = if waiting { self.closed + 1 } else { 0 };
            let stuck = self.closed > 1 && tcp.last_sent >= OUTSTANDING;
            let report = stuck && !self.reported;
            self.reported |= report;
            return report;
        }
        false
    }

    /// Sets the cap by the kernel's figures: twice the time within which it expects an
    /// acknowledgement. Without timestamps the figures are wrong once bytes were acknowledged
    /// between two examinations that showed a doubled timeout: until one shows none, the cap is at
    /// most what the latest PONG allows.
    fn follow_figures(&mut self, tcp: &TcpSnapshot, longest_us: Option<u64>) {
        let doubled = !tcp.timestamps && tcp.backoff > 0;
        let sends = tcp.probes == 0 && tcp.send_window != Some(0);
        let acked = tcp.bytes_acked.unwrap_or(0);
        let before = std::mem::replace(&mut self.backed_off, (doubled && sends).then_some(acked));
        let moved = doubled && sends && before.is_some_and(|before| before != acked);
        let bound = longest_us.map_or(Cap::NONE, |us| Cap::at_least(Span::from_micros(2 * us)));
        if moved {
            self.cap = bound;
        } else if doubled && self.cap != Cap::LEAST {
            self.cap = self.cap.min(bound);
        } else if let Some(expected) = Kernel::expected_us(tcp, longest_us) {
            self.cap = Cap::at_least(Span::from_micros(2 * expected));
        }
    }

    /// Returns the microseconds within which an acknowledgement is expected: the kernel's figure,
    /// but no more than any acknowledgement since the latest PONG can have taken. Unknown before a
    /// measurement, and while the kernel waits for one for longer than it expects.
    pub(super) fn expected_us(tcp: &TcpSnapshot, longest_us: Option<u64>) -> Option<u64> {
        let figure = tcp.rtt.as_micros() + 4 * tcp.rttvar.as_micros();
        let expected = longest_us.map_or(figure, |longest| longest.min(figure));
        let waits = tcp.unacked > 0 && tcp.last_ack > Span::from_micros(expected);
        (tcp.rtt > Span::ZERO && !waits).then_some(expected)
    }

    pub(super) fn cap(&self) -> Cap {
        self.cap
    }

    /// Returns whether a round trip is long or short for the cap in force.
    pub(super) fn is_remarkable(&self, round_trip: Span) -> bool {
        let cap = self.cap.span();
        let raised = cap > Span::from_secs(1) && round_trip.times(3) < cap;
        round_trip.times(2) > cap || raised || self.cap == Cap::NONE
    }

    /// Returns whether the kernel measures no round trip of this connection.
    pub(super) fn is_blind(tcp: &TcpSnapshot) -> bool {
        !tcp.timestamps && tcp.backoff > 0
    }

    /// Returns whether outstanding bytes need no examination before or at `now`.
    pub(super) fn needs_no_examination(&self, now: Time) -> bool {
        self.outstanding.is_none_or(|(due, _)| now + UNIT < due)
    }

    /// Returns by when the socket must be examined because of outstanding bytes.
    pub(super) fn examination_due(&self) -> Option<Time> {
        self.outstanding.map(|(due, _)| due).filter(|due| *due < LATEST)
    }

    /// Puts a patience in force, which must differ from the former one.
    pub(super) fn follow(&mut self, name: &str, patience: Patience) {
        assert_ne!(patience, self.patience, "{name}: the same patience was emitted twice");
        self.patience = patience;
        self.changes += 1;
    }

    /// Returns when the kernel may give up a peer whose last evidence came at `heard`.
    pub(super) fn gives_up(&self, heard: Time) -> Option<Time> {
        // No kernel has a timeout as long as the longest outage.
        let outage = self.patience.outage().filter(|outage| *outage < LONGEST_OUTAGE);
        outage.map(|outage| heard + outage)
    }

    /// Checks that the patience in force suits a link whose verdict is due at `due`. `extended` is
    /// whether a hold, a keep or a retune may have made the outage longer than the bound.
    pub(super) fn check(&self, name: &str, heard: Time, due: Option<Time>, extended: bool) {
        let needed = due.map(|due| {
            let nanos = due.since(heard).as_nanos();
            Span::from_secs(nanos.div_ceil(1_000_000_000)).min(LONGEST_OUTAGE)
        });
        let outage = self.patience.outage();
        assert_eq!(self.patience.send(), self.send, "{name}: the sending side");
        assert_eq!(self.patience.cap(), self.cap, "{name}: the cap of the retransmission timeout");
        if extended {
            let suffices = outage.is_none_or(|outage| Some(outage) >= needed);
            assert!(suffices, "{name}: {outage:?}, not {needed:?}");
            assert!(needed.is_some() || outage.is_none(), "{name}: {outage:?} without a verdict");
        } else {
            assert_eq!(outage, needed, "{name}: the kernel's patience");
        }
    }
}

/// What the examinations of a peer in doubt show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doubted {
    /// Nothing.
    Nothing,
    /// A closed window: its application has stopped reading.
    NotReading,
    /// Everything acknowledged: its application hangs, and its machine lives.
    Hung,
    /// Bytes that wait, of which its kernel takes more than the floor rate.
    TakesFast,
    /// Bytes that wait, of which its kernel takes half of the floor rate.
    TakesSlowly,
    /// A closed window in some examinations, and then bytes that are taken fast.
    Wakes,
}

/// The socket of a peer in doubt, as its examinations show it.
pub(super) struct DoubtedSocket {
    shows: Doubted,
    /// The bytes that were given to the kernel and have arrived.
    pub(super) delivered: u64,
    /// The bytes taken of those that wait, and when the socket was examined last.
    taken: u64,
    examined_at: Time,
    examinations: u64,
}

impl DoubtedSocket {
    pub(super) fn new(shows: Doubted) -> DoubtedSocket {
        DoubtedSocket { shows, delivered: 0, taken: 0, examined_at: Time::ZERO, examinations: 0 }
    }

    /// Returns what an examination at `now` shows.
    /// Bytes of ours last left at `sent`.
    pub(super) fn examine(&mut self, now: Time, sent: Time) -> Examination {
        let millis = now.since(self.examined_at).as_millis();
        self.examined_at = self.examined_at.max(now);
        self.examinations += 1;
        let open = TcpSnapshot {
            notsent: Some(0),
            send_window: Some(60_000),
            rtt: Span::from_millis(40),
            last_sent: now.since(sent),
            ..TcpSnapshot::default()
        };
        let waiting = TcpSnapshot { notsent: Some(90_000), unacked: 3, ..open };
        let shows = match self.shows {
            Doubted::Wakes if self.examinations % 8 < 6 => Doubted::NotReading,
            Doubted::Wakes => Doubted::TakesFast,
            Doubted::Nothing
            | Doubted::NotReading
            | Doubted::Hung
            | Doubted::TakesFast
            | Doubted::TakesSlowly => self.shows,
        };
        let tcp = match shows {
            Doubted::Nothing => return Examination::default(),
            Doubted::NotReading => TcpSnapshot {
                notsent: Some(9),
                send_window: Some(0),
                backoff: 2,
                bytes_acked: Some(self.taken),
                ..open
            },
            Doubted::Hung => TcpSnapshot {
                bytes_acked: Some(self.delivered),
                bytes_sent: Some(self.delivered),
                bytes_retrans: Some(0),
                ..open
            },
            Doubted::TakesFast | Doubted::Wakes => {
                // More than all heartbeats that may be among them.
                self.taken += 300_000 + millis * FLOOR_PER_SECOND / 500;
                TcpSnapshot { bytes_acked: Some(self.taken), ..waiting }
            }
            Doubted::TakesSlowly => {
                self.taken += millis * FLOOR_PER_SECOND / 2_000;
                TcpSnapshot { bytes_acked: Some(self.taken), ..waiting }
            }
        };
        Examination { tcp: Some(tcp), ..Examination::default() }
    }
}

/// What the examinations of one silence have shown.
#[derive(Clone, Copy, Default)]
pub(super) struct Findings {
    first: Option<(Time, TcpSnapshot)>,
    last: Option<(Time, TcpSnapshot)>,
    /// Since when all that was sent before the first examination is acknowledged.
    acknowledged: Option<Time>,
}

impl Findings {
    /// Records an examination. Returns whether it shows that the peer takes bytes which wait, and
    /// faster than the floor rate: that is evidence (rule 8).
    pub(super) fn see(&mut self, now: Time, tcp: TcpSnapshot) -> bool {
        self.first = self.first.or(Some((now, tcp)));
        let earlier = self.last.replace((now, tcp));
        let acknowledged = tcp.unacked == 0 && tcp.notsent == Some(0) || self.beyond_first(0);
        self.acknowledged = acknowledged.then(|| self.acknowledged.unwrap_or(now));
        let Some((before, earlier)) = earlier else { return false };
        let taken = tcp.bytes_acked.unwrap_or(0).saturating_sub(earlier.bytes_acked.unwrap_or(0));
        let waits = tcp.unacked > 0 || tcp.notsent != Some(0);
        waits && taken * 1_000 > now.since(before).as_millis().max(1_000) * FLOOR_PER_SECOND
    }

    /// Returns whether this many bytes are acknowledged beyond those sent up to the first
    /// examination.
    fn beyond_first(&self, bytes: u64) -> bool {
        let Some(((_, first), (_, last))) = self.first.zip(self.last) else { return false };
        let sent = first.bytes_sent.map(|bytes| bytes + u64::from(first.notsent.unwrap_or(0)));
        sent.is_some_and(|sent| last.bytes_acked >= Some(sent + bytes))
    }

    /// Returns whether all that has left has arrived, and so what a router's word was about. None
    /// of these sockets counts what it has sent and what is on its way at once.
    pub(super) fn has_delivered(tcp: &TcpSnapshot) -> bool {
        tcp.bytes_acked.is_some() && tcp.unacked == 0
    }

    /// Returns the cause of the silence by rows 6, 7, 8, 10, 11 and 16. `probed` is whether a probe
    /// of this silence was sent, and `warned` whether a router's word stands. Row 10 needs a
    /// silence longer than the bound.
    pub(super) fn cause(
        &self,
        interval: Span,
        probed: bool,
        beyond_bound: bool,
        warned: bool,
    ) -> Cause {
        let word = if warned { Cause::Unreachable } else { Cause::Unknown };
        let Some(((_, first), (now, last))) = self.first.zip(self.last) else {
            return word;
        };
        let unsent = last.notsent.is_some_and(|bytes| bytes > 0);
        if last.unacked == 0 && unsent && last.send_window != Some(0) && last.probes > 1 {
            return Cause::LocalNetworkDown;
        }
        let tried = u32::from(last.retransmits.saturating_sub(first.retransmits));
        let left = last.total_retrans.saturating_sub(first.total_retrans);
        if tried > 0 && (left == 0 || left + 2 <= tried) {
            return Cause::LocalNeighbourGone;
        }
        if warned {
            return word;
        }
        if last.last_ack > interval.times(2).max(Span::from_secs(1)) {
            return Cause::Unknown;
        }
        if last.send_window == Some(0) && last.notsent != Some(0) {
            return Cause::NotReading;
        }
        let nothing_waits = last.unacked == 0 && last.notsent == Some(0);
        // A probe of this silence came before the first examination.
        let acknowledged = match probed {
            true => nothing_waits || self.beyond_first(0),
            false => self.beyond_first(2),
        };
        // A round trip, and a retransmission of the peer's answer.
        let time = last.rtt.max(interval.min(Span::from_secs(1)));
        let had_time = self.acknowledged.is_some_and(|since| now.since(since) >= time);
        let hangs = acknowledged && had_time && last.retransmits == 0;
        match beyond_bound && hangs && last.send_window != Some(0) {
            true => Cause::AppHung,
            false => Cause::Unknown,
        }
    }
}

/// Returns a random examination of a peer that is not in doubt.
pub(super) fn random_examination(random: &mut Random) -> Examination {
    let all = TcpSnapshot { notsent: Some(0), send_window: Some(60_000), ..Default::default() };
    let tcp = match random.below(10) {
        0 | 1 => Some(all),
        2 => Some(TcpSnapshot { unacked: 3, ..all }),
        3 => Some(TcpSnapshot { notsent: Some(9), probes: 4, backoff: 4, ..all }),
        4 => Some(TcpSnapshot { send_window: Some(0), ..all }),
        5 | 6 => {
            let last_sent = Span::from_secs(random.below(3) * 8);
            Some(TcpSnapshot { notsent: Some(9), send_window: Some(0), last_sent, ..all })
        }
        7 | 8 => {
            // A round trip that grows and shrinks, with and without timestamps.
            let millis = [20, 800, 3_000, 15_000][random.below(4) as usize];
            Some(TcpSnapshot {
                rtt: Span::from_millis(1 + random.below(millis)),
                rttvar: Span::from_millis(random.below(millis)),
                timestamps: random.below(2) == 0,
                backoff: random.below(3) as u8,
                retransmits: random.below(2) as u8,
                unacked: random.below(2) as u32,
                bytes_acked: Some(random.below(4)),
                ..all
            })
        }
        _ => None,
    };
    Examination { tcp, queued: random.below(8) == 0, ..Examination::default() }
}

/// Returns an error of a connection that stands.
pub(super) fn soft_error(random: &mut Random) -> SocketError {
    [
        SocketError::HostUnreachable,
        SocketError::Refused,
        SocketError::NetworkUnreachable,
        SocketError::Local,
        SocketError::TimedOut,
        SocketError::Reset,
    ][random.below(6) as usize]
}
