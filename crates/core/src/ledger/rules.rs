//! The rules of revision: which later evidence replaces the cause of a provisional verdict.

use super::{Note, PendingVerdict, ReceivedAccount, Who};
use crate::cause::{Cause, Confidence, Direction, Scope};
use crate::grounds::{Ground, Grounds};
use crate::time::{Span, Time};
use crate::wire::{BootId, InstanceId, Saw};

/// The time a flow may take to carry data again after its path has healed: a capped retransmission
/// timeout and a round trip. A burst in that time ends a silence, and does not disprove it.
const RECOVERY_TIME: Span = Span::from_millis(1_200);

/// The least time without traffic after which an end on the way shows a forgotten mapping: no NAT
/// or firewall in use forgets sooner. The rule is the same whether the end answered a segment or
/// not: only one of the two ends may know that, and both must give the end the same name.
const LEAST_FORGETTING: Span = Span::from_secs(30);

/// The tolerance for comparing times that two ends have rounded to milliseconds.
const SKEW: Span = Span::from_millis(50);

/// A better cause, with its confidence and the finding that supports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) to: Cause,
    pub(super) confidence: Confidence,
    pub(super) note: Note,
}

/// The better cause that an account shows, before or after the verdict. Only the same process can
/// give an account: any other changes nothing.
pub(super) fn with_account(
    held: &mut PendingVerdict,
    received: &ReceivedAccount,
) -> Option<Finding> {
    if !is_same_process(held, received) {
        return None;
    }
    held.accounted = true;
    held.passed |= new_flow_passed(held, received);
    let settled = held.passed && held.unscoped;
    by_account(held, received).or_else(|| settled.then(|| forgot_silently(held)))
}

/// The better cause that the account of the same process shows.
fn by_account(held: &PendingVerdict, received: &ReceivedAccount) -> Option<Finding> {
    let account = &received.account;
    let peer_ended_at = peer_ended_at(received);
    let absent = Span::from_millis(u64::from(account.absent_ms));
    let suspended = Span::from_millis(u64::from(account.suspended_ms));
    let silent = Span::from_millis(u64::from(account.silent_ms));
    if let Some(confidence) = ended_before_close(held, account.saw, peer_ended_at) {
        // The end that sent first after the idle time was reset first.
        let ours = held.silent.less(held.asked);
        let idle = ours.min(peer_ended_at.since(held.at - held.silent));
        let to = on_the_way(idle);
        return Some(Finding { to, confidence, note: Note::NeitherClosed { idle } });
    }
    if is_reset(held.cause) {
        return gave_up(account.saw);
    }
    if held.cause == Cause::AppHung {
        return hung(held, received, absent, suspended);
    }
    if !is_silence(held.cause) {
        return None;
    }
    if account.saw == Saw::NetworkDown {
        return high(path(Direction::Both, Scope::Host), Note::PeerNetworkDown, held.cause);
    }
    if absent.times(2) >= held.asked {
        return absence(held, peer_ended_at, absent.less(suspended), suspended);
    }
    match account.saw {
        Saw::Unheard | Saw::UnheardReset if !held.arriving => peer_heard_us(),
        // A reset may have destroyed our CLOSE.
        Saw::Goodbye | Saw::Reset | Saw::Ended
            if !held.arriving && heard_us(held, peer_ended_at, silent) =>
        {
            peer_heard_us()
        }
        Saw::Silence | Saw::Blocked => high(path_lost(), Note::PeerHeardNothing, held.cause),
        Saw::Unheard
        | Saw::UnheardReset
        | Saw::Goodbye
        | Saw::Reset
        | Saw::Ended
        | Saw::Hung
        | Saw::NetworkDown
        | Saw::Unreachable
        | Saw::Own
        | Saw::Other(_) => None,
    }
}

/// What shows that our segments arrived, and the peer's did not.
fn peer_heard_us() -> Option<Finding> {
    let (to, confidence) = (path(Direction::Inbound, Scope::Unknown), Confidence::High);
    Some(Finding { to, confidence, note: Note::PeerHeardUs })
}

/// Returns whether `grounds` show that segments of the peer still arrived here: what it sends was
/// not lost as a whole.
pub(super) fn is_arriving(grounds: Grounds) -> bool {
    grounds.contains(Ground::KernelFresh) || grounds.contains(Ground::SegmentMissing)
}

/// Returns true if both ends gave up in silence, and the process returned from the same host by a
/// new connection beside which the old one still passed nothing.
fn new_flow_passed(held: &PendingVerdict, received: &ReceivedAccount) -> bool {
    let blocked = received.account.saw == Saw::Blocked && held.cause == path_lost();
    let alike = held.address.ip() == received.host;
    let absent = Span::from_millis(u64::from(received.account.absent_ms));
    blocked && alike && absent.times(2) < held.asked
}

fn is_same_process(held: &PendingVerdict, received: &ReceivedAccount) -> bool {
    let is_same = held.boot_id == received.boot_id && held.instance_id == received.instance_id;
    let is_known = held.boot_id != BootId::default() && held.instance_id != InstanceId::default();
    is_same && is_known
}

/// The latest time at which the peer's link can have ended: the account aged in transit.
fn peer_ended_at(received: &ReceivedAccount) -> Time {
    received.at - Span::from_millis(u64::from(received.account.ended_ms))
}

/// Returns the cause of an end that came from the way after `idle` without traffic.
pub(crate) fn on_the_way(idle: Span) -> Cause {
    if idle >= LEAST_FORGETTING { Cause::MiddleboxForgot } else { Cause::MiddleboxReset }
}

/// Returns how sure it is that the end of the connection reached one end before either end had
/// closed: both ends were told, or one of them before the other gave up; `None` if that is not so.
fn ended_before_close(held: &PendingVerdict, saw: Saw, peer_ended_at: Time) -> Option<Confidence> {
    let was_told = matches!(saw, Saw::Reset | Saw::UnheardReset | Saw::Ended);
    if !is_reset(held.cause) {
        let first = is_silence(held.cause) && was_told && peer_ended_at + SKEW < held.at;
        return first.then_some(Confidence::Certain);
    }
    if was_told {
        return Some(Confidence::Certain);
    }
    // If only this end was reset, the peer hears nothing from then on, and gives up once it has
    // probed. A peer that gave up before this end was reset seems to have ended later only by the
    // time that its account was on the way.
    let unaware = matches!(saw, Saw::Silence | Saw::Blocked | Saw::Unheard | Saw::Unreachable);
    let later = held.probing.is_some_and(|probing| peer_ended_at.since(held.at).times(2) > probing);
    (unaware && later).then_some(Confidence::High)
}

/// The better cause of a reset by a peer whose process lives and had given up in silence before:
/// its system no longer knew the connection when our segment came through again.
fn gave_up(saw: Saw) -> Option<Finding> {
    let medium = |to, note| Some(Finding { to, confidence: Confidence::Medium, note });
    match saw {
        Saw::Silence | Saw::Blocked | Saw::Unreachable => medium(path_lost(), Note::PeerGaveUp),
        Saw::Unheard => medium(path(Direction::Inbound, Scope::Unknown), Note::PeerGaveUp),
        Saw::NetworkDown => medium(path(Direction::Both, Scope::Host), Note::PeerNetworkDown),
        // It has closed its side for a reason that its account does not state.
        Saw::Goodbye
        | Saw::Reset
        | Saw::UnheardReset
        | Saw::Ended
        | Saw::Hung
        | Saw::Own
        | Saw::Other(_) => None,
    }
}

fn is_reset(cause: Cause) -> bool {
    matches!(cause, Cause::PeerReset | Cause::PeerExited)
}

/// The better cause of an application that was told as hung: its own account says whether it was
/// stopped, or ran. If it ran and heard nothing, something on the way acknowledged in its name; if
/// it ran and heard us, its answers were lost although its acknowledgements arrived.
fn hung(
    held: &PendingVerdict,
    received: &ReceivedAccount,
    absent: Span,
    suspended: Span,
) -> Option<Finding> {
    let (stopped, peer_ended_at) = (absent.less(suspended), peer_ended_at(received));
    if held.asked > Span::ZERO && stopped >= held.asked {
        let (to, confidence) = (Cause::AppHung, Confidence::High);
        return Some(Finding { to, confidence, note: was_stopped(held, peer_ended_at, stopped) });
    }
    if absent.times(2) >= held.asked {
        return None;
    }
    let silent = Span::from_millis(u64::from(received.account.silent_ms));
    match received.account.saw {
        Saw::Silence | Saw::Blocked | Saw::Hung => {
            high(path_lost(), Note::PeerHeardNothing, held.cause)
        }
        Saw::Unheard | Saw::UnheardReset => peer_heard_us(),
        Saw::Goodbye | Saw::Reset | Saw::Ended if heard_us(held, peer_ended_at, silent) => {
            peer_heard_us()
        }
        Saw::Goodbye
        | Saw::Reset
        | Saw::Ended
        | Saw::Unreachable
        | Saw::NetworkDown
        | Saw::Own
        | Saw::Other(_) => None,
    }
}

/// The note that the peer was stopped, for `least` as its own clock shows. It ended its link when
/// it ran again, and cannot have been stopped before it was last heard.
fn was_stopped(held: &PendingVerdict, peer_ended_at: Time, least: Span) -> Note {
    let since_heard = peer_ended_at.since(held.at - held.silent);
    Note::PeerStopped { least, most: since_heard.max(least) }
}

/// The cause if the peer was suspended or stopped for the whole time in which probes went
/// unanswered; `None` if it was absent for a part, because then its silence proves nothing.
fn absence(
    held: &PendingVerdict,
    peer_ended_at: Time,
    stopped: Span,
    suspended: Span,
) -> Option<Finding> {
    if held.asked == Span::ZERO {
        return None;
    }
    if suspended >= held.asked {
        return high(Cause::Unknown, Note::PeerSuspended(suspended), held.cause);
    }
    // The kernel would have acknowledged, but `Unknown` means that no examination showed it.
    if stopped >= held.asked && held.cause == Cause::Unknown {
        return high(Cause::AppHung, was_stopped(held, peer_ended_at, stopped), held.cause);
    }
    None
}

/// The better cause if a peer of the same identity returns without an account, as a restarted or
/// another process. From another address it may be another machine. A process that has given its
/// account did not end with its link, so a later one shows nothing.
pub(super) fn by_return(held: &PendingVerdict, who: &Who<'_>) -> Option<Finding> {
    let unknown = BootId::default();
    if held.accounted || held.boot_id == unknown || who.boot_id == unknown {
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
    if is_new && is_silence(held.cause) {
        // The process may have been started anew because its path was lost.
        let (to, confidence) = (Cause::PeerExited, Confidence::Medium);
        return Some(Finding { to, confidence, note: Note::NewInstance });
    }
    None
}

/// The same cause with a higher confidence, if `former`, a verdict on the same identity and host
/// within [`super::WAITING`], had it too. Chance does not lose the same kind of packets twice.
pub(super) fn by_repetition(held: &PendingVerdict, former: &PendingVerdict) -> Option<Finding> {
    let is_large = matches!(held.cause, Cause::PathLost { scope: Scope::LargePackets, .. });
    let is_same = former.cause == held.cause && former.address.ip() == held.address.ip();
    let (to, confidence) = (held.cause, Confidence::High);
    (is_large && is_same).then_some(Finding { to, confidence, note: Note::Repeated })
}

/// The better cause that the scope from other links shows. If a new flow passed at once, the
/// mapping was forgotten, unless another link of the host lives.
pub(super) fn by_siblings(
    held: &PendingVerdict,
    scope: Scope,
    confidence: Confidence,
) -> Option<Finding> {
    if held.passed && scope != Scope::Flow {
        return Some(forgot_silently(held));
    }
    if held.cause == Cause::AppHung && scope == Scope::Flow {
        let (to, confidence) = (Cause::AppHung, Confidence::High);
        return Some(Finding { to, confidence, note: Note::SiblingsLive });
    }
    let Cause::PathLost { direction, scope: Scope::Unknown } = held.cause else {
        return None;
    };
    let found = high(path(direction, scope), Note::Siblings, held.cause)?;
    Some(Finding { confidence, ..found })
}

/// The cause of a silence if the old connection was blocked while a new one passed. Medium
/// confidence: a filter may block the one flow.
fn forgot_silently(held: &PendingVerdict) -> Finding {
    let note = Note::NewFlowPassed { idle: held.silent.less(held.asked) };
    Finding { to: Cause::MiddleboxForgot, confidence: Confidence::Medium, note }
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
