//! The record that one end keeps of a link: for its account to the peer on return, and to revise
//! its own verdict by the ids of the process that answers.
//!
//! Silence is recorded in slots, not in times: sixteen slots cover the last interval × probes. A
//! reported silence is too long by at most two slots, and never too short.

use crate::cause::{Cause, Confidence, Direction, Scope};
use crate::diagnosis::{DELAYED_ACK, Ground, Grounds};
use crate::kernel::TcpSnapshot;
use crate::ledger;
use crate::policy::{Detection, Policy};
use crate::time::{Span, Time};
use crate::wire::{Account, BootId, InstanceId, Saw};

/// The number of slots in the recorded time.
const SLOTS: u32 = 16;

/// The recorded time if the policy has no bound.
const UNBOUNDED_RECORD: Span = Span::from_secs(16);

/// The maximum number of separate absences. When full, the two oldest are merged.
const ABSENCES: usize = 8;

/// The slots of recent time in which evidence arrived, from which the longest silence follows.
#[derive(Clone, Copy, Debug)]
pub struct Hearing {
    /// The lowest bit is the newest slot.
    heard: u32,
    newest: Time,
    slot: Span,
}

impl Hearing {
    /// Starts a record at `now`, with a length taken from `policy` and no evidence yet.
    pub fn new(now: Time, policy: &Policy) -> Hearing {
        let span = match policy.detection() {
            Detection::Never => UNBOUNDED_RECORD,
            Detection::Bounded { interval, probes, .. } => interval.times(u64::from(probes)),
        };
        let slot = Span::from_nanos((span.as_nanos() / u64::from(SLOTS)).max(1));
        Hearing { heard: 0, newest: now, slot }
    }

    /// Records evidence of the peer.
    pub fn heard(&mut self, now: Time) {
        self.advance(now);
        self.heard |= 1;
    }

    /// Returns the longest silence within the recorded time.
    pub fn longest_silence(&mut self, now: Time) -> Span {
        self.advance(now);
        let (mut longest, mut run) = (0, 0);
        for slot in 0..SLOTS {
            run = if self.heard >> slot & 1 == 0 { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        self.slot.times(u64::from((longest + 2).min(SLOTS)))
    }

    fn advance(&mut self, now: Time) {
        let slots = now.since(self.newest).as_nanos() / self.slot.as_nanos();
        let shift = u32::try_from(slots).unwrap_or(u32::MAX);
        self.heard = self.heard.checked_shl(shift).unwrap_or(0);
        self.newest = self.newest + self.slot.times(slots);
    }
}

/// The recent times in which this end was not watching.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absences {
    /// Absences, oldest first.
    kept: [Absence; ABSENCES],
    count: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Absence {
    at: Time,
    absent: Span,
    suspended: Span,
}

impl Absences {
    /// Records an absence of length `absent` that ended at `at`; the host was suspended for the
    /// part
    /// `suspended`.
    pub fn note(&mut self, at: Time, absent: Span, suspended: Span) {
        if self.count == ABSENCES {
            let oldest = self.kept[0];
            self.kept.copy_within(1.., 0);
            self.count -= 1;
            self.kept[0].absent = self.kept[0].absent + oldest.absent;
            self.kept[0].suspended = self.kept[0].suspended + oldest.suspended;
        }
        if let Some(free) = self.kept.get_mut(self.count) {
            *free = Absence { at, absent, suspended };
            self.count += 1;
        }
    }

    /// Returns the total absence since `from`, and the part of it that was suspension.
    pub fn since(&self, from: Time) -> (Span, Span) {
        let recent = self.kept.iter().take(self.count).filter(|absence| absence.at >= from);
        recent.fold((Span::ZERO, Span::ZERO), |(absent, suspended), one| {
            (absent + one.absent, suspended + one.suspended)
        })
    }
}

/// The longest time for which a new connection waits for a retransmission on the old one: the cap
/// on the time between two of them, and twice the time for the answer.
pub const OLD_FLOW_LIMIT: Span = Span::from_millis(1_500);

/// The longest time from the verdict to a new connection that tells anything of the old one. A path
/// that is down for longer is not expected to heal in the moment between them.
const PROMPT: Span = Span::from_secs(1);

/// Returns whether the connection of a link that silence ended is blocked, now that a new one to
/// the same peer stands: the kernel has retransmitted since, and had no answer. `None` while
/// that is not known. `tcp` is the kernel's view of the old connection, whose verdict fell `lost`
/// ago; the new one stands since `passed`, and measured the round trip `rtt`. That of the old one
/// is from before the loss.
///
/// If the old connection passes too, or was reset, the path was down and has healed. A path that
/// loses packets may lose this one retransmission, or the answer to it: the finding is no surer
/// than the path.
pub fn is_old_flow_blocked(tcp: &TcpSnapshot, rtt: Span, passed: Span, lost: Span) -> Option<bool> {
    let heard = tcp.last_ack < lost;
    if heard || tcp.unacked == 0 || lost.less(passed) > PROMPT {
        return Some(false);
    }
    let had_time = tcp.last_sent > tcp.rtt.max(rtt) + DELAYED_ACK;
    (tcp.last_sent < passed && had_time).then_some(true)
}

/// The record of a link that ended, as this end saw it.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// The session that the link carried.
    pub session: u64,
    /// The boot id and instance id of the peer.
    pub ids: (BootId, InstanceId),
    /// The cause of this end's verdict.
    pub cause: Cause,
    /// How the link ended, as stated in the account to the peer.
    pub saw: Saw,
    /// The length of the silence when the link ended.
    pub unheard: Span,
    /// The number of probes that were unanswered then.
    pub probes: u8,
    /// The longest silence before the end; see [`Hearing::longest_silence`].
    pub silent: Span,
    /// When the link ended, in vigilant time.
    pub ended: Time,
    /// When the link ended, by a clock that runs during suspension.
    pub ended_at: Span,
    /// The detection bound D of the link.
    pub bound: Span,
    /// Whether the cause was revised; it is revised at most once.
    pub revised: bool,
}

impl Past {
    /// Returns what the account states for a link that ended with `cause`, which has `grounds`.
    pub fn saw(cause: Cause, grounds: Grounds, network_changed: bool) -> Saw {
        let unheard = grounds.contains(Ground::Reset) && grounds.contains(Ground::PeerStillHeard);
        match (network_changed, unheard) {
            (true, _) => Saw::NetworkDown,
            (false, true) => Saw::UnheardReset,
            (false, false) => cause.into(),
        }
    }

    /// Returns a better cause and its confidence, if the `ids` that answer on return show one.
    ///
    /// A reset after silence came from a restarted machine, from a machine whose process had
    /// restarted, or, if the same process still runs, from a middlebox that forgot the connection:
    /// that process cannot have given up before its bound passed. If the connection was in use, a
    /// middlebox has reset it. Medium confidence, because the process may have ended the link
    /// itself, and the reset may have destroyed its CLOSE. If nothing had come back before the
    /// reset, the process has given up, and its system refused what came through when the path had
    /// healed.
    pub fn returned(&self, ids: (BootId, InstanceId)) -> Option<(Cause, Confidence)> {
        if self.revised {
            return None;
        }
        let unknown = (BootId::default(), InstanceId::default());
        let ((old_boot, old_instance), (boot, instance)) = (self.ids, ids);
        if [old_boot, boot].contains(&unknown.0) || [old_instance, instance].contains(&unknown.1) {
            return None;
        }
        let unheard = self.saw == Saw::UnheardReset;
        let reset = self.cause == Cause::PeerReset && (self.saw == Saw::Reset || unheard);
        let silence = self.is_silence();
        let exited = self.cause == Cause::PeerExited && (self.saw == Saw::Ended || unheard);
        match (old_boot == boot, old_instance == instance) {
            (false, _) if reset => Some((Cause::PeerRebooted, Confidence::Certain)),
            // The machine may have been restarted because its path was lost.
            (false, _) if silence => Some((Cause::PeerRebooted, Confidence::Medium)),
            (true, false) if reset => Some((Cause::PeerExited, Confidence::High)),
            // The process may have been started anew because its path was lost.
            (true, false) if silence => Some((Cause::PeerExited, Confidence::Medium)),
            // The path was lost before, so the process may have given up.
            (true, true) if unheard && (reset || exited) => {
                let (direction, scope) = (Direction::Outbound, Scope::Unknown);
                Some((Cause::PathLost { direction, scope }, Confidence::Medium))
            }
            (true, true) if (reset || exited) && self.unheard < self.bound && !self.was_lost() => {
                // A middlebox may also have reset the peer, whose system then reset this end.
                Some((ledger::on_the_way(self.unheard), Confidence::Medium))
            }
            (true, true) if reset => {
                let (direction, scope) = (Direction::Both, Scope::Unknown);
                Some((Cause::PathLost { direction, scope }, Confidence::Medium))
            }
            (_, _) => None,
        }
    }

    /// Returns a better cause and its confidence, if it shows more that a new connection to the
    /// peer's address is refused: its machine answers, and its process is gone. After a reset the
    /// machine may have restarted, which the ids show on return. The confidence is medium, because
    /// a firewall may refuse too.
    pub fn refused(&self) -> Option<(Cause, Confidence)> {
        let is_news = !self.revised && self.is_silence();
        is_news.then_some((Cause::PeerExited, Confidence::Medium))
    }

    /// Returns whether the path was lost before the link ended: the first probe reaches whatever
    /// has forgotten the connection, and its reset is back within a round trip.
    fn was_lost(&self) -> bool {
        self.probes > 1
    }

    /// Returns whether nothing was heard on the link, and nothing shows why.
    fn is_silence(&self) -> bool {
        let large = matches!(self.cause, Cause::PathLost { scope: Scope::LargePackets, .. });
        self.saw == Saw::Silence && !large
    }

    /// Creates the account of this link; `now` is read from the clock of [`Past::ended_at`].
    pub fn account(&self, now: Span, absences: &Absences) -> Account {
        let (absent, suspended) = absences.since(self.ended - self.bound);
        let ms = |span: Span| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        Account {
            session: self.session,
            saw: self.saw,
            silent_ms: ms(self.silent),
            ended_ms: ms(now.less(self.ended_at)),
            absent_ms: ms(absent),
            suspended_ms: ms(suspended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn a_silence_is_never_too_short_and_at_most_two_slots_too_long() {
        let policy = Policy::new(Span::from_secs(10), Span::from_secs(8), 2).unwrap();
        for gap in [1_000, 2_500, 5_000, 9_000] {
            for offset in (0..1_000).step_by(50) {
                let mut hearing = Hearing::new(at(0), &policy);
                let mut now = offset;
                while now < 100_000 {
                    hearing.heard(at(now));
                    now += gap;
                }
                let silent = hearing.longest_silence(at(now - gap)).as_millis();
                assert!(silent >= gap && silent <= gap + 3_000, "{silent} for {gap}");
            }
        }
    }

    /// Bytes delayed for the whole time that then arrive in a burst do not shorten the silence.
    #[test]
    fn a_burst_at_the_end_does_not_hide_the_silence_before_it() {
        let policy = Policy::new(Span::from_secs(10), Span::from_secs(8), 2).unwrap();
        let mut hearing = Hearing::new(at(0), &policy);
        hearing.heard(at(1_000));
        for ms in [40_000, 40_200, 40_400, 40_600, 40_800, 41_000] {
            hearing.heard(at(ms));
        }
        assert!(hearing.longest_silence(at(41_000)) >= Span::from_millis(14_800));
    }

    #[test]
    fn absences_are_summed_and_never_lost() {
        let mut absences = Absences::default();
        let second = Span::from_secs(1);
        for n in 0..20 {
            absences.note(at(n * 1_000), second, Span::from_millis(100));
        }
        assert_eq!(absences.since(at(0)), (Span::from_secs(20), second.times(2)));
        assert_eq!(absences.since(at(18_000)).0, Span::from_secs(2));
    }

    const SAME: (BootId, InstanceId) = (BootId([1; 16]), InstanceId([1; 16]));
    const RESTARTED: (BootId, InstanceId) = (BootId([1; 16]), InstanceId([2; 16]));
    const REBOOTED: (BootId, InstanceId) = (BootId([2; 16]), InstanceId([2; 16]));

    fn past(cause: Cause, unheard_ms: u64) -> Past {
        Past {
            session: 1,
            ids: SAME,
            cause,
            saw: Past::saw(cause, Grounds::default(), false),
            unheard: Span::from_millis(unheard_ms),
            probes: 1,
            silent: Span::ZERO,
            ended: at(10_000),
            ended_at: Span::ZERO,
            bound: Span::from_secs(3),
            revised: false,
        }
    }

    #[test]
    fn the_ids_on_return_show_the_cause_of_a_reset() {
        let reset = past(Cause::PeerReset, 1_000);
        let certain = Some((Cause::PeerRebooted, Confidence::Certain));
        assert_eq!(reset.returned(REBOOTED), certain);
        assert_eq!(reset.returned(RESTARTED), Some((Cause::PeerExited, Confidence::High)));
        assert_eq!(reset.returned(SAME), Some((Cause::MiddleboxReset, Confidence::Medium)));
        // The peer may have given up by then, because nothing had come through.
        let lost = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
        let lost = Some((lost, Confidence::Medium));
        assert_eq!(past(Cause::PeerReset, 3_000).returned(SAME), lost);
        let long = Past { bound: Span::from_secs(90), ..past(Cause::PeerReset, 30_000) };
        assert_eq!(long.returned(SAME), Some((Cause::MiddleboxForgot, Confidence::Medium)));
        assert_eq!(reset.returned((BootId::default(), InstanceId::default())), None);
        // Its path was lost, and then its machine refused what was sent again.
        assert_eq!(Past { probes: 2, ..reset }.returned(SAME), lost);
        let aborted_here = Past { saw: Saw::NetworkDown, ..reset };
        assert_eq!(aborted_here.returned(SAME), None);
    }

    #[test]
    fn a_reset_after_our_direction_was_lost_came_from_a_process_that_had_given_up() {
        let unheard = Grounds::of(&[Ground::Reset, Ground::PeerStillHeard]);
        assert_eq!(Past::saw(Cause::PeerReset, unheard, true), Saw::NetworkDown);
        let outbound = Cause::PathLost { direction: Direction::Outbound, scope: Scope::Unknown };
        for cause in [Cause::PeerReset, Cause::PeerExited] {
            let saw = Past::saw(cause, unheard, false);
            assert_eq!(saw, Saw::UnheardReset);
            let reset = Past { saw, ..past(cause, 1_000) };
            assert_eq!(reset.returned(SAME), Some((outbound, Confidence::Medium)), "{cause}");
        }
    }

    #[test]
    fn the_ids_on_return_show_little_about_silence() {
        let silent = past(Cause::Unknown, 3_000);
        let medium = Some((Cause::PeerRebooted, Confidence::Medium));
        assert_eq!(silent.returned(REBOOTED), medium);
        let exited = Some((Cause::PeerExited, Confidence::Medium));
        assert_eq!(silent.returned(RESTARTED), exited);
        assert_eq!(silent.returned(SAME), None);
        assert_eq!(past(Cause::PeerExited, 0).returned(RESTARTED), None);
    }

    /// An old connection is retransmitted once a second; a new one stands 300 ms after the verdict.
    #[test]
    fn an_old_connection_is_blocked_once_a_retransmission_had_no_answer_beside_a_new_one() {
        let ms = Span::from_millis;
        let seen_by = |new_rtt, sent, heard, passed, unacked| {
            let (last_sent, last_ack, rtt) = (ms(sent), ms(heard), ms(20));
            let tcp = TcpSnapshot { last_sent, last_ack, rtt, unacked, ..TcpSnapshot::default() };
            is_old_flow_blocked(&tcp, ms(new_rtt), ms(passed), ms(passed + 300))
        };
        let seen = |sent, heard, passed, unacked| seen_by(5, sent, heard, passed, unacked);
        assert_eq!(seen(400, 4_000, 0, 1), None, "it left before the new connection stood");
        assert_eq!(seen(900, 4_500, 500, 1), None);
        assert_eq!(seen(220, 4_900, 900, 1), None, "the answer may be on its way");
        assert_eq!(seen(221, 4_901, 901, 1), Some(true));
        assert_eq!(seen_by(90, 221, 4_901, 901, 1), None, "the round trip has grown");
        assert_eq!(seen_by(90, 291, 4_971, 971, 1), Some(true));
        assert_eq!(seen(221, 100, 901, 1), Some(false), "it was heard after the verdict");
        assert_eq!(seen(221, 4_901, 901, 0), Some(false), "nothing asks, or it was reset");
        let tcp = TcpSnapshot { unacked: 1, last_ack: ms(9_000), ..TcpSnapshot::default() };
        assert_eq!(is_old_flow_blocked(&tcp, ms(5), ms(10), ms(1_011)), Some(false), "not at once");
    }

    #[test]
    fn a_process_that_still_runs_was_not_what_ended_the_connection() {
        let medium = |cause| Some((cause, Confidence::Medium));
        let exited = past(Cause::PeerExited, 500);
        assert_eq!(exited.returned(SAME), medium(Cause::MiddleboxReset));
        let long = Past { bound: Span::from_secs(90), ..past(Cause::PeerExited, 60_000) };
        assert_eq!(long.returned(SAME), medium(Cause::MiddleboxForgot));
        assert_eq!(Past { revised: true, ..exited }.returned(SAME), None);
        assert_eq!(past(Cause::PeerExited, 3_000).returned(SAME), None, "it may have given up");
        let left = Past { saw: Saw::NetworkDown, ..exited };
        assert_eq!(left.returned(SAME), None);
        for cause in [Cause::AppHung, Cause::NotReading, Cause::Unreachable] {
            assert_eq!(past(cause, 500).returned(SAME), None, "{cause}");
        }
    }

    #[test]
    fn a_refused_connection_shows_that_the_process_of_a_silent_peer_is_gone() {
        let lost = |direction, scope| Cause::PathLost { direction, scope };
        let exited = Some((Cause::PeerExited, Confidence::Medium));
        for cause in [Cause::Unknown, lost(Direction::Both, Scope::Unknown)] {
            assert_eq!(past(cause, 3_000).refused(), exited);
            assert_eq!(Past { revised: true, ..past(cause, 3_000) }.refused(), None, "once");
        }
        for cause in [
            Cause::PeerReset,
            Cause::PeerExited,
            Cause::Unreachable,
            Cause::AppHung,
            Cause::LocalNetworkDown,
            lost(Direction::Outbound, Scope::Unknown),
            lost(Direction::Inbound, Scope::LargePackets),
        ] {
            assert_eq!(past(cause, 3_000).refused(), None, "{cause}");
        }
    }
}
