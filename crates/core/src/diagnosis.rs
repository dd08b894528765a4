//! Why a peer is silent: what two looks at its socket say about it.
//!
//! Two freshnesses decide, not one: that of the application, which its bytes show, and that of its
//! kernel, which acknowledges without asking the application. A peer is dead only if both are
//! stale; where the kernel answers and the application does not, it hangs or does not read.
//!
//! [`diagnose`] is one table, read from the top, of which the first row that fits decides. A row
//! that rests on a field the kernel does not have does not fit, so that what cannot be known comes
//! out as [`Cause::Unknown`] and never as a guess.

mod reset;

pub use crate::grounds::{Ground, Grounds};
pub use reset::{DELAYED_ACK, Reset, diagnose_reset};

use crate::cause::{Cause, Confidence, Direction, Scope};
use crate::kernel::{Examination, SocketError, TcpSnapshot};
use crate::time::{Span, Time};

/// The least time for which an acknowledgement counts as fresh, whatever the interval.
pub const LEAST_FRESHNESS: Span = Span::from_secs(1);

/// Retransmissions of one segment without an answer that make a path suspicious: one is lost now
/// and then, two in a row rarely.
const LOST: u8 = 2;

/// What a peer's socket showed since its silence became suspicious.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doubts {
    first: TcpSnapshot,
    last: TcpSnapshot,
    first_at: Time,
    last_at: Time,
    seen: bool,
    /// The peer's kernel was heard after the first retransmission: its segments come through, and
    /// ours do not.
    heard_since_retransmission: bool,
    retransmitting_since: Option<Time>,
    error: Option<SocketError>,
    local_down: bool,
}

/// A cause, how sure it is, and what it rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diagnosis {
    /// The cause.
    pub cause: Cause,
    /// How sure it is.
    pub confidence: Confidence,
    /// What it rests on.
    pub grounds: Grounds,
}

/// The silence that is to be explained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// How long the application has said nothing.
    pub lasted: Span,
    /// From one probe to the next.
    pub interval: Span,
}

impl Doubts {
    /// Nothing seen yet.
    pub const fn new(now: Time) -> Doubts {
        const NOTHING: TcpSnapshot = TcpSnapshot {
            unacked: 0,
            notsent: None,
            retransmits: 0,
            backoff: 0,
            probes: 0,
            last_ack: Span::ZERO,
            last_data: Span::ZERO,
            rtt: Span::ZERO,
            total_retrans: 0,
            bytes_acked: None,
            bytes_sent: None,
            bytes_retrans: None,
            bytes_received: None,
            send_window: None,
            window_limited: None,
        };
        Doubts {
            first: NOTHING,
            last: NOTHING,
            first_at: now,
            last_at: now,
            seen: false,
            heard_since_retransmission: false,
            retransmitting_since: None,
            error: None,
            local_down: false,
        }
    }

    /// Takes one more look into account. Returns how many bytes the peer's kernel acknowledged
    /// since the look before.
    pub fn see(&mut self, now: Time, examination: &Examination) -> u64 {
        self.error = examination.error.or(self.error);
        self.local_down = examination.local_down.unwrap_or(self.local_down);
        let Some(tcp) = examination.tcp else {
            return 0;
        };
        let before = if self.seen { self.last } else { tcp };
        if !self.seen {
            (self.first, self.first_at, self.seen) = (tcp, now, true);
        }
        if tcp.retransmits == 0 {
            self.retransmitting_since = None;
            self.heard_since_retransmission = false;
        } else {
            // The first retransmission may have left at any time since the look before.
            let since = *self.retransmitting_since.get_or_insert(now);
            if tcp.last_ack < now.since(since) {
                self.heard_since_retransmission = true;
            }
        }
        (self.last, self.last_at) = (tcp, now);
        tcp.bytes_acked.unwrap_or(0).saturating_sub(before.bytes_acked.unwrap_or(0))
    }

    /// What the socket reported.
    pub const fn error(&self) -> Option<SocketError> {
        self.error
    }

    /// When the last look was taken.
    pub const fn last_at(&self) -> Time {
        self.last_at
    }

    /// Bytes acknowledged between the first look and the last; `None` if the kernel does not say.
    fn acknowledged(&self) -> Option<u64> {
        Some(self.last.bytes_acked?.saturating_sub(self.first.bytes_acked?))
    }
}

/// The rows that need no silence to be told: what a router, our own network or our own neighbour
/// shows long before the bound has passed. Provisional: whoever is heard after all was not lost.
pub fn early_word(doubts: &Doubts) -> Option<Diagnosis> {
    use Ground as G;
    if doubts.local_down {
        return Some(high(Cause::LocalNetworkDown, &[G::InterfaceDown]));
    }
    match doubts.error {
        Some(SocketError::HostUnreachable | SocketError::NetworkUnreachable) => {
            return Some(high(Cause::Unreachable, &[G::RouterSaidUnreachable]));
        }
        Some(SocketError::Reset | SocketError::Refused) => return None,
        Some(SocketError::TimedOut | SocketError::Local) | None => {}
    }
    let tcp = &doubts.last;
    let open = !tcp.is_window_closed() && tcp.send_window.is_some();
    if open && tcp.is_stranded() && tcp.backoff > 0 && tcp.probes > 1 {
        return Some(high(Cause::LocalNetworkDown, &[G::BytesWaiting, G::NothingLeft]));
    }
    // What is counted per segment is counted when it is tried, and in all when it has left.
    let tried = u32::from(tcp.retransmits.saturating_sub(doubts.first.retransmits));
    let left = tcp.total_retrans.saturating_sub(doubts.first.total_retrans);
    if tried > 0 && left.saturating_mul(2) <= tried {
        return Some(high(Cause::LocalNeighbourGone, &[G::Retransmitting, G::NeighbourSilent]));
    }
    None
}

/// The table: from what was seen of a silent peer to the cause.
pub fn diagnose(silence: &Case, doubts: &Doubts) -> Diagnosis {
    use Ground as G;
    let tcp = &doubts.last;
    let fresh = tcp.last_ack <= silence.interval.times(2).max(LEAST_FRESHNESS);
    let waiting = tcp.notsent.is_some_and(|bytes| bytes > 0);
    let closed = tcp.is_window_closed();
    let open = !closed && tcp.send_window.is_some();
    let acknowledged = doubts.acknowledged();
    let lost = tcp.unacked > 0 && tcp.retransmits >= LOST;
    let silent = Ground::ApplicationSilent;

    if let Some(found) = early_word(doubts) {
        return Diagnosis { grounds: found.grounds.with(silent), ..found };
    }
    if let Some(SocketError::Reset | SocketError::Refused) = doubts.error {
        return high(Cause::PeerReset, &[silent, G::Reset]);
    }
    if !doubts.seen {
        return unknown(&[silent]);
    }
    // One probe may be one that the peer leaves unanswered: Linux answers two a second.
    if open && tcp.is_stranded() && tcp.backoff > 0 && (!fresh || tcp.probes > 1) {
        return high(Cause::LocalNetworkDown, &[silent, G::BytesWaiting, G::NothingLeft]);
    }
    // Window probes come ever more rarely, so that the last answer may be old without anything
    // being unanswered.
    let asked = tcp.unacked == 0 && tcp.backoff > 0;
    let answers = asked && tcp.probes == 0 && tcp.last_ack < silence.lasted;
    if (fresh || answers) && closed && waiting {
        let grounds = [silent, G::KernelFresh, G::WindowClosed, G::BytesWaiting];
        return high(Cause::NotReading, &grounds);
    }
    if fresh && open && acknowledged.is_some_and(|bytes| bytes > 0) {
        return high(Cause::AppHung, &[silent, G::KernelFresh, G::BytesAcknowledged]);
    }
    if lost && acknowledged == Some(0) && doubts.heard_since_retransmission {
        let cause = Cause::PathLost { direction: Direction::Outbound, scope: Scope::Unknown };
        let grounds = [silent, G::Retransmitting, G::NothingAcknowledged, G::PeerStillHeard];
        return high(cause, &grounds);
    }
    if lost && !fresh {
        let cause = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
        let confidence = Confidence::Medium;
        let grounds = Grounds::of(&[silent, G::Retransmitting, G::KernelSilent]);
        return Diagnosis { cause, confidence, grounds };
    }
    unknown(&[silent])
}

fn high(cause: Cause, grounds: &[Ground]) -> Diagnosis {
    Diagnosis { cause, confidence: Confidence::High, grounds: Grounds::of(grounds) }
}

fn unknown(grounds: &[Ground]) -> Diagnosis {
    Diagnosis {
        cause: Cause::Unknown,
        confidence: Confidence::Medium,
        grounds: Grounds::of(grounds),
    }
}

#[cfg(test)]
mod tests;
