//! The rules of revision: which later evidence replaces the cause of a provisional verdict.

use super::{EarlyAccount, Note, PendingVerdict, Who};
use crate::cause::{Cause, Confidence, Direction, Scope};
use crate::time::{Span, Time};
use crate::wire::{BootId, InstanceId, Saw};

/// The time a flow may take to carry data again after its path has healed: a capped retransmission
/// timeout and a round trip. A burst in that time ends a silence, and does not disprove it.
const RECOVERY_TIME: Span = Span::from_millis(1_200);

/// A return is prompt within this fraction (1/8) of the time in which probes went unanswered. A
/// path rarely heals by itself in just that part.
const PROMPT_SHARE: u64 = 8;

/// The tolerance for comparing times that two ends have rounded to milliseconds.
const SKEW: Span = Span::from_millis(50);

/// A better cause, with its confidence and the finding that supports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) to: Cause,
    pub(super) confidence: Confidence,
    pub(super) note: Note,
}

/// The better cause that the peer's own account shows. Only the same process can give an account.
pub(super) fn by_account(held: &PendingVerdict, early: &EarlyAccount) -> Option<Finding> {
    if !is_same_process(held, early) {
        return None;
    }
    let account = &early.account;
    let peer_ended_at = peer_ended_at(early);
    let absent = Span::from_millis(u64::from(account.absent_ms));
    let suspended = Span::from_millis(u64::from(account.suspended_ms));
    let silent = Span::from_millis(u64::from(account.silent_ms));
    if account.saw == Saw::Reset && reset_before_close(held, peer_ended_at) {
        // The end that sent first after the idle time was reset first.
        let ours = held.silent.less(held.asked);
        let idle = ours.min(peer_ended_at.since(held.at - held.silent));
        let (to, confidence) = (Cause::MiddleboxForgot, Confidence::Certain);
        return Some(Finding { to, confidence, note: Note::NeitherClosed { idle } });
    }
    if !is_silence(held.cause) {
        return None;
    }
    if account.saw == Saw::NetworkDown {
        return high(path(Direction::Both, Scope::Host), Note::PeerNetworkDown, held.cause);
    }
    if absent.times(2) >= held.asked {
        return absence(held, absent.less(suspended), suspended);
    }
    let inbound = path(Direction::Inbound, Scope::Unknown);
    match account.saw {
        Saw::Unheard => high(inbound, Note::PeerHeardUs, held.cause),
        Saw::Goodbye if heard_us(held, peer_ended_at, silent) => {
            high(inbound, Note::PeerHeardUs, held.cause)
        }
        Saw::Silence => high(path_lost(), Note::PeerHeardNothing, held.cause),
        Saw::Goodbye
        | Saw::Reset
        | Saw::Ended
        | Saw::Hung
        | Saw::NetworkDown
        | Saw::Unreachable
        | Saw::Own
        | Saw::Other(_) => None,
    }
}

/// Returns true if both ends gave up in silence, neither received a CLOSE, and the same process
/// returned from the same host within a small part of the time in which probes went unanswered.
pub(super) fn new_flow_passed(held: &PendingVerdict, early: &EarlyAccount) -> bool {
    let silently = early.account.saw == Saw::Silence && held.cause == path_lost();
    let first = peer_ended_at(early).min(held.at);
    let promptly = early.at.since(first).times(PROMPT_SHARE) <= held.asked;
    let alike = is_same_process(held, early) && held.address.ip() == early.host;
    let absent = Span::from_millis(u64::from(early.account.absent_ms));
    silently && promptly && alike && absent.times(2) < held.asked
}

fn is_same_process(held: &PendingVerdict, early: &EarlyAccount) -> bool {
    let is_same = held.boot_id == early.boot_id && held.instance_id == early.instance_id;
    let is_known = held.boot_id != BootId::default() && held.instance_id != InstanceId::default();
    is_same && is_known
}

/// The latest time at which the peer's link can have ended: the account aged in transit.
fn peer_ended_at(early: &EarlyAccount) -> Time {
    early.at - Span::from_millis(u64::from(early.account.ended_ms))
}

/// Returns true if a reset reached one end before either end had closed: both ends were reset, or
/// the peer was reset before this end gave up.
fn reset_before_close(held: &PendingVerdict, peer_ended_at: Time) -> bool {
    held.cause == Cause::PeerReset || is_silence(held.cause) && peer_ended_at + SKEW < held.at
}

/// The cause if the peer was suspended or stopped for the whole time in which probes went
/// unanswered; `None` if it was absent for a part, because then its silence proves nothing.
fn absence(held: &PendingVerdict, stopped: Span, suspended: Span) -> Option<Finding> {
    if held.asked == Span::ZERO {
        return None;
    }
    if suspended >= held.asked {
        return high(Cause::Unknown, Note::PeerSuspended(suspended), held.cause);
    }
    // The kernel would have acknowledged, but `Unknown` means that no examination showed it.
    if stopped >= held.asked && held.cause == Cause::Unknown {
        return high(Cause::AppHung, Note::PeerStopped(stopped), held.cause);
    }
    None
}

/// The better cause if a peer of the same identity returns without an account, as a restarted or
/// another process. From another address it may be another machine.
pub(super) fn by_return(held: &PendingVerdict, who: &Who<'_>) -> Option<Finding> {
    let unknown = BootId::default();
    if held.boot_id == unknown || who.boot_id == unknown {
        return None;
    }
    if held.boot_id != who.boot_id {
        if held.address.ip() != who.address.ip() {
            return None;
        }
        let confidence = if held.cause == Cause::PeerReset {
            Confidence::Certain
        } else if is_silence(held.cause) {
            // The machine may have been restarted because its path was lost.
            Confidence::Medium
        } else {
            return None;
        };
        return Some(Finding { to: Cause::PeerRebooted, confidence, note: Note::NewBoot });
    }
    let unknown = InstanceId::default();
    let is_new = held.instance_id != unknown
        && who.instance_id != unknown
        && held.instance_id != who.instance_id;
    if is_new && held.cause == Cause::PeerReset {
        return high(Cause::PeerExited, Note::NewInstance, held.cause);
    }
    None
}

/// The better cause that the scope from other links shows. If a new flow passed at once, the
/// mapping was forgotten, unless another link of the host lives.
pub(super) fn by_siblings(held: &PendingVerdict, scope: Scope) -> Option<Finding> {
    if held.passed && scope != Scope::Flow {
        let note = Note::NewFlowPassed { idle: held.silent.less(held.asked) };
        let (to, confidence) = (Cause::MiddleboxForgot, Confidence::Medium);
        return Some(Finding { to, confidence, note });
    }
    let Cause::PathLost { direction, scope: Scope::Unknown } = held.cause else {
        return None;
    };
    high(path(direction, scope), Note::Siblings, held.cause)
}

/// Returns true if the peer heard our probes until it received our CLOSE: our segments arrived, and
/// its answers did not. After a healed path the CLOSE arrives too, but after a silence as long as
/// ours.
fn heard_us(held: &PendingVerdict, peer_ended_at: Time, silent: Span) -> bool {
    let follows = peer_ended_at + SKEW >= held.at;
    let promptly = peer_ended_at.since(held.at) <= held.silent.less(held.asked);
    follows && promptly && silent + RECOVERY_TIME < held.asked
}

/// Returns true if the verdict rests on silence alone.
fn is_silence(cause: Cause) -> bool {
    cause == Cause::Unknown || cause == path_lost()
}

fn path_lost() -> Cause {
    path(Direction::Both, Scope::Unknown)
}

fn path(direction: Direction, scope: Scope) -> Cause {
    Cause::PathLost { direction, scope }
}

/// A finding of high confidence; `None` if the verdict already has this cause.
fn high(to: Cause, note: Note, from: Cause) -> Option<Finding> {
    (to != from).then_some(Finding { to, confidence: Confidence::High, note })
}
