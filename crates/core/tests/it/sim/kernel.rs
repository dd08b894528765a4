//! The kernel's side of one end, written from docs/sockets.md: how long it has been told not to
//! give the connection up, and which bytes it may still hold.

use systole_core::kernel::{Examination, LONGEST_OUTAGE, Patience, SendState, TcpSnapshot};
use systole_core::link::OUTSTANDING;
use systole_core::random::Random;
use systole_core::{Span, Time};

/// The core keeps the start of a wait in units of 125 ms, rounded down.
const UNIT: Span = Span::from_millis(125);

/// And 2^30 of them at most.
const LATEST: Time = Time::from_millis(((1 << 30) - 1) * 125);

/// What was sent last, as far as the answer to the latest PING shows that it arrived.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Sent {
    Ping,
    Control,
    Data,
}

pub(super) struct Kernel {
    pub(super) patience: Patience,
    /// Bytes may wait since then, or have been looked after then.
    waits: Option<(Time, Sent)>,
    /// How many looks in a row found bytes behind a closed window.
    closed: u32,
    /// The state that the latest look showed.
    send: SendState,
    /// How often it was told another patience.
    pub(super) changes: u64,
}

impl Kernel {
    pub(super) fn new(patience: Patience) -> Kernel {
        Kernel { patience, waits: None, closed: 0, send: SendState::Sending, changes: 0 }
    }

    pub(super) fn sent(&mut self, now: Time, what: Sent) {
        self.waits = Some(match (self.waits, what) {
            (None, _) => (now, what),
            // A PING follows all control frames, and may overtake data.
            (Some((since, Sent::Ping | Sent::Control)), Sent::Ping) => (since, Sent::Ping),
            (Some((since, before)), _) => (since, before.max(what)),
        });
    }

    /// The latest PING was answered.
    pub(super) fn answered(&mut self) {
        self.waits = self.waits.filter(|(_, sent)| *sent != Sent::Ping);
    }

    /// A look shows this; returns whether a lively peer is to be warned of.
    pub(super) fn look(&mut self, now: Time, seen: &Examination) -> bool {
        let all = seen.tcp.is_some_and(|tcp| tcp.unacked == 0 && tcp.notsent == Some(0));
        self.waits = self.waits.filter(|_| !all || seen.queued).map(|(_, sent)| (now, sent));
        let Some(tcp) = seen.tcp else { return false };
        self.send = if tcp.send_window == Some(0) {
            SendState::Closed
        } else if tcp.probes > 1 && tcp.notsent != Some(0) {
            SendState::Stranded
        } else {
            SendState::Sending
        };
        let waits = tcp.unacked > 0 || tcp.notsent.is_some_and(|bytes| bytes > 0);
        self.closed = if self.send == SendState::Closed && waits { self.closed + 1 } else { 0 };
        self.closed == 2
    }

    /// A look at a link in doubt says nothing about a lively peer.
    pub(super) fn doubt(&mut self) {
        self.closed = 0;
    }

    /// Whether a look before `now` would have come too early.
    pub(super) fn is_looked_after(&self, now: Time) -> bool {
        self.waits.is_none_or(|(since, _)| now + UNIT < since + OUTSTANDING)
    }

    /// When the kernel must have been looked at.
    pub(super) fn look_due(&self) -> Option<Time> {
        let waits = self.waits.filter(|(since, _)| *since < LATEST);
        waits.map(|(since, _)| since + OUTSTANDING)
    }

    /// The core wants this patience from now on.
    pub(super) fn told(&mut self, name: &str, patience: Patience) {
        assert_ne!(patience, self.patience, "{name}: told twice to be as patient");
        self.patience = patience;
        self.changes += 1;
    }

    /// When the kernel gives up a peer that was heard last at `heard`.
    pub(super) fn gives_up(&self, heard: Time) -> Option<Time> {
        // Beyond the longest outage the core and any kernel differ anyway.
        let outage = self.patience.outage().filter(|outage| *outage < LONGEST_OUTAGE);
        outage.map(|outage| heard + outage)
    }

    /// The patience in force suits a link that is given up at `due`.
    pub(super) fn check(&self, name: &str, heard: Time, due: Option<Time>, extended: bool) {
        let needed = due.map(|due| {
            let nanos = due.since(heard).as_nanos();
            Span::from_secs(nanos.div_ceil(1_000_000_000)).min(LONGEST_OUTAGE)
        });
        let has = self.patience.outage();
        assert_eq!(self.patience.send(), self.send, "{name}: the sending side");
        if extended {
            assert!(has.is_none_or(|has| Some(has) >= needed), "{name}: {has:?}, not {needed:?}");
            assert!(needed.is_some() || has.is_none(), "{name}: {has:?} although never given up");
        } else {
            assert_eq!(has, needed, "{name}: the kernel's patience");
        }
    }
}

/// What a look at a peer in doubt shows, whose application has stopped reading.
pub(super) fn shows_unread() -> Examination {
    let tcp =
        TcpSnapshot { notsent: Some(9), send_window: Some(0), backoff: 2, ..Default::default() };
    Examination { tcp: Some(tcp), ..Examination::default() }
}

/// What a look may show while nobody is in doubt.
pub(super) fn shows(chance: &mut Random) -> Examination {
    let all = TcpSnapshot { notsent: Some(0), send_window: Some(60_000), ..Default::default() };
    let tcp = match chance.below(8) {
        0 | 1 => Some(all),
        2 => Some(TcpSnapshot { unacked: 3, ..all }),
        3 => Some(TcpSnapshot { notsent: Some(9), probes: 4, backoff: 4, ..all }),
        4 => Some(TcpSnapshot { send_window: Some(0), ..all }),
        5 | 6 => Some(TcpSnapshot { notsent: Some(9), send_window: Some(0), ..all }),
        _ => None,
    };
    Examination { tcp, queued: chance.below(8) == 0, ..Examination::default() }
}
