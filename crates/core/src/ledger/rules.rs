//! The table: from a provisional verdict and what came to light to the better cause.

use super::{Early, Held, Note, Who};
use crate::cause::{Cause, Confidence, Direction, Scope};
use crate::time::{Span, Time};
use crate::wire::{BootId, InstanceId, Saw};

/// How long a flow may take to carry data again once its path is healed: a capped retransmission
/// and a round trip. A burst that arrives then ends a silence, and does not disprove it.
const HEALING: Span = Span::from_millis(1_200);

/// The return is prompt within one in so many parts of the time in which we asked in vain: a path
/// that heals by itself rarely does so in just that part.
const PROMPTLY: u64 = 8;

/// How far two clocks that count the same milliseconds may lie apart when rounded.
const SKEW: Span = Span::from_millis(50);

/// A better cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) to: Cause,
    pub(super) confidence: Confidence,
    pub(super) note: Note,
}

/// What the peer's own account shows. Only its successor can give it: the same process.
pub(super) fn by_account(held: &Held, told: &Early) -> Option<Finding> {
    if !is_same_process(held, told) {
        return None;
    }
    let account = &told.account;
    let left = left(told);
    let absent = Span::from_millis(u64::from(account.absent_ms));
    let suspended = Span::from_millis(u64::from(account.suspended_ms));
    let silent = Span::from_millis(u64::from(account.silent_ms));
    if account.saw == Saw::Reset && reset_unclosed(held, left) {
        // Whoever sent first found it forgotten.
        let ours = held.silent.less(held.asked);
        let idle = ours.min(left.since(held.at - held.silent));
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
        Saw::Goodbye if heard_us(held, left, silent) => {
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

/// Both ends gave up in silence, nobody heard the other's goodbye, and the same process was back
/// from the same host within a small part of the time in which we had asked in vain.
pub(super) fn new_flow_passed(held: &Held, told: &Early) -> bool {
    let silently = told.account.saw == Saw::Silence && held.cause == path_lost();
    let first = left(told).min(held.at);
    let promptly = told.at.since(first).times(PROMPTLY) <= held.asked;
    let alike = is_same_process(held, told) && held.address.ip() == told.host;
    let absent = Span::from_millis(u64::from(told.account.absent_ms));
    silently && promptly && alike && absent.times(2) < held.asked
}

fn is_same_process(held: &Held, told: &Early) -> bool {
    let is_same = held.boot_id == told.boot_id && held.instance_id == told.instance_id;
    let is_known = held.boot_id != BootId::default() && held.instance_id != InstanceId::default();
    is_same && is_known
}

/// When the peer's link ended. On its way here the account grew older, so that it was no later.
fn left(told: &Early) -> Time {
    told.at - Span::from_millis(u64::from(told.account.ended_ms))
}

/// A reset reached the peer while neither end had closed. Where we were reset as well, the first
/// of the two was; where we fell silent, the peer's was, if it came before we gave up.
fn reset_unclosed(held: &Held, left: Time) -> bool {
    held.cause == Cause::PeerReset || is_silence(held.cause) && left + SKEW < held.at
}

/// The peer was not watching for much of the time in which we asked in vain. Its silence proves
/// nothing about the path, and if it was away for all of that time, that is the cause.
fn absence(held: &Held, stopped: Span, suspended: Span) -> Option<Finding> {
    if held.asked == Span::ZERO {
        return None;
    }
    if suspended >= held.asked {
        return high(Cause::Unknown, Note::PeerSuspended(suspended), held.cause);
    }
    // An acknowledging kernel would have been seen, had anybody looked.
    if stopped >= held.asked && held.cause == Cause::Unknown {
        return high(Cause::AppHung, Note::PeerStopped(stopped), held.cause);
    }
    None
}

/// What it shows that somebody of this identity comes back without an account: a process that is
/// new, or another one. From another address it may as well be another machine.
pub(super) fn by_return(held: &Held, who: &Who<'_>) -> Option<Finding> {
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
            // It may have been restarted because its path was lost.
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

/// What other links show, or that they show nothing: one that lives beside a flow that is lost, or
/// others that died, and then whether a new flow passed at once.
pub(super) fn by_siblings(held: &Held, scope: Scope) -> Option<Finding> {
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

/// The goodbye followed our verdict, and until it came the peer had heard us while we asked in
/// vain: what we sent arrived, and its answers did not. Behind a healed path a goodbye arrives as
/// well, after a silence as long as ours.
fn heard_us(held: &Held, left: Time, silent: Span) -> bool {
    let follows = left + SKEW >= held.at;
    let promptly = left.since(held.at) <= held.silent.less(held.asked);
    follows && promptly && silent + HEALING < held.asked
}

/// Whether the verdict says no more than that nothing came back.
fn is_silence(cause: Cause) -> bool {
    cause == Cause::Unknown || cause == path_lost()
}

fn path_lost() -> Cause {
    path(Direction::Both, Scope::Unknown)
}

fn path(direction: Direction, scope: Scope) -> Cause {
    Cause::PathLost { direction, scope }
}

/// A finding of high confidence; none if it is what was said already.
fn high(to: Cause, note: Note, from: Cause) -> Option<Finding> {
    (to != from).then_some(Finding { to, confidence: Confidence::High, note })
}
