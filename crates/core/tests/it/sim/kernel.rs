//! A model of the kernel at one end of a link, written from docs/sockets.md: the patience in force,
//! and which bytes of ours the kernel may still hold.

use systole_core::kernel::{Examination, LONGEST_OUTAGE, Patience, SendState, TcpSnapshot};
use systole_core::link::OUTSTANDING;
use systole_core::random::Random;
use systole_core::{Span, Time};

/// The unit in which the core stores the time since when bytes are outstanding, rounded down.
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
    /// The outstanding bytes: the time of the first byte or of the latest examination, whichever is
    /// later, and their kind.
    outstanding: Option<(Time, Sent)>,
    /// The number of examinations in a row that showed bytes stuck behind a closed window.
    closed: u32,
    /// Whether that was reported since the window was last open.
    reported: bool,
    /// The state of the sending side.
    send: SendState,
    /// The number of changes of the patience.
    pub(super) changes: u64,
}

impl Kernel {
    pub(super) fn new(patience: Patience) -> Kernel {
        Kernel {
            patience,
            outstanding: None,
            closed: 0,
            reported: false,
            send: SendState::Sending,
            changes: 0,
        }
    }

    /// Records that a frame was sent.
    pub(super) fn sent(&mut self, now: Time, frame: Sent) {
        self.outstanding = Some(match (self.outstanding, frame) {
            (None, _) => (now, frame),
            // A PING follows all control frames, and may overtake data.
            (Some((since, Sent::Ping | Sent::Control)), Sent::Ping) => (since, Sent::Ping),
            (Some((since, before)), _) => (since, before.max(frame)),
        });
    }

    /// Records that the latest PING was answered.
    pub(super) fn answered(&mut self) {
        self.outstanding = self.outstanding.filter(|(_, sent)| *sent != Sent::Ping);
    }

    /// Records the result of an examination; `trusted` is whether the peer is not in doubt. Returns
    /// whether the link must warn that it does not read.
    pub(super) fn examined(&mut self, now: Time, shown: &Examination, trusted: bool) -> bool {
        let all = shown.tcp.is_some_and(|tcp| tcp.unacked == 0 && tcp.notsent == Some(0));
        let all = all && !shown.queued;
        self.outstanding = self.outstanding.filter(|_| !all).map(|(_, sent)| (now, sent));
        let Some(tcp) = shown.tcp else { return false };
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
            let stuck = waiting && tcp.last_sent >= OUTSTANDING;
            self.closed = if stuck { self.closed + 1 } else { 0 };
            let report = self.closed > 1 && !self.reported;
            self.reported |= report;
            return report;
        }
        false
    }

    /// Returns whether outstanding bytes need no examination before or at `now`.
    pub(super) fn needs_no_examination(&self, now: Time) -> bool {
        self.outstanding.is_none_or(|(since, _)| now + UNIT < since + OUTSTANDING)
    }

    /// Returns by when the socket must be examined because of outstanding bytes.
    pub(super) fn examination_due(&self) -> Option<Time> {
        let outstanding = self.outstanding.filter(|(since, _)| *since < LATEST);
        outstanding.map(|(since, _)| since + OUTSTANDING)
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
        if extended {
            let suffices = outage.is_none_or(|outage| Some(outage) >= needed);
            assert!(suffices, "{name}: {outage:?}, not {needed:?}");
            assert!(needed.is_some() || outage.is_none(), "{name}: {outage:?} without a verdict");
        } else {
            assert_eq!(outage, needed, "{name}: the kernel's patience");
        }
    }
}

/// Returns an examination of a peer in doubt whose application has stopped reading.
pub(super) fn examination_of_unread() -> Examination {
    let tcp =
        TcpSnapshot { notsent: Some(9), send_window: Some(0), backoff: 2, ..Default::default() };
    Examination { tcp: Some(tcp), ..Examination::default() }
}

/// Returns a random examination of a peer that is not in doubt.
pub(super) fn random_examination(random: &mut Random) -> Examination {
    let all = TcpSnapshot { notsent: Some(0), send_window: Some(60_000), ..Default::default() };
    let tcp = match random.below(8) {
        0 | 1 => Some(all),
        2 => Some(TcpSnapshot { unacked: 3, ..all }),
        3 => Some(TcpSnapshot { notsent: Some(9), probes: 4, backoff: 4, ..all }),
        4 => Some(TcpSnapshot { send_window: Some(0), ..all }),
        5 | 6 => {
            let last_sent = Span::from_secs(random.below(3) * 8);
            Some(TcpSnapshot { notsent: Some(9), send_window: Some(0), last_sent, ..all })
        }
        _ => None,
    };
    Examination { tcp, queued: random.below(8) == 0, ..Examination::default() }
}
