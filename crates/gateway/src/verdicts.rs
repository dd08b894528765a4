//! The last verdicts with their flight recorders, for queries about the cause.

mod lost;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use systole_core::cause::{Cause, Confidence, Verdict};
use systole_core::flight::Flight;
use systole_core::ledger::Note;
use systole_core::{Span, session};

use crate::identity::Refusal;
use crate::report::{Fact, Parting, Subject};
use lost::Lost;

/// The number of verdicts kept unless the configuration says otherwise; a new one replaces the
/// oldest. Each takes at most 800 bytes including its identity, 8 MB in all. Operators ask within
/// minutes, and this holds the verdicts of minutes even when many sessions fail.
pub const VERDICTS: usize = 10_000;

/// The number of verdicts kept on connections that were never a session, apart from the others:
/// anybody can make such connections by the thousand. Enough to see what strangers do.
pub const STRANGERS: usize = 1_000;

/// The last verdicts of one gateway: on sessions, and apart from them on connections that were
/// never one.
#[derive(Debug)]
pub struct Verdicts {
    sessions: Mutex<Ring>,
    strangers: Mutex<Ring>,
    lost: Mutex<Lost>,
}

/// Verdicts of one kind, in their own order.
#[derive(Debug)]
struct Ring {
    /// The last verdicts; their numbers have no gaps and end at `last`.
    kept: VecDeque<Arc<Ended>>,
    capacity: usize,
    last: u64,
}

/// A session that has ended, or a connection that never became one.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The number of the verdict in the order of all verdicts of its kind, from 1.
    pub number: u64,
    /// When the session or connection ended, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// When the verdict fell: as `at_ms`, or earlier if the session was away.
    pub fell_at_ms: u64,
    /// The session or connection that ended.
    pub subject: Subject,
    /// The verdict, with its cause as known now.
    pub verdict: Verdict,
    /// The first cause and confidence if the verdict was revised, and what showed the better cause.
    pub revised_from: Option<(Cause, Confidence, Note)>,
    /// How long the link was open.
    pub lasted: Span,
    /// The flight recorder; `None` for a beacon, which has none.
    pub flight: Option<Box<Flight>>,
    /// Why the login was refused, as [`Parting::refusal`].
    pub refusal: Option<Refusal>,
}

/// Selects verdicts; a field that is `None` matches all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// Verdicts on connections that were never a session, instead of those on sessions.
    pub strangers: bool,
    /// Verdicts with the cause of this name.
    pub cause: Option<String>,
    /// Verdicts on this identity.
    pub identity: Option<String>,
    /// Verdicts with smaller numbers than this: older ones.
    pub before: Option<u64>,
}

impl Verdicts {
    /// Makes empty rings that keep the last `sessions` and `strangers` verdicts (at least 1).
    pub fn new(sessions: usize, strangers: usize) -> Verdicts {
        let ring = |capacity: usize| {
            Mutex::new(Ring { kept: VecDeque::new(), capacity: capacity.max(1), last: 0 })
        };
        let lost = Mutex::new(Lost::new(sessions.max(1)));
        Verdicts { sessions: ring(sessions), strangers: ring(strangers), lost }
    }

    /// Returns how many verdicts on sessions are kept at most.
    pub fn capacity(&self) -> usize {
        lock(&self.sessions).capacity
    }

    /// Keeps a verdict, among those on sessions or on strangers.
    pub fn keep(&self, at_ms: u64, subject: Subject, verdict: Verdict, parting: &Parting) {
        let lost = parting.was_away.then(|| self.lost().remove(subject.session)).flatten();
        let mut ended = Ended::new(at_ms, subject, verdict, parting);
        // A session whose time is over has ended by the verdict on its link.
        if let Some(lost) = lost.filter(|lost| lost.verdict.at == verdict.at) {
            (ended.fell_at_ms, ended.revised_from) = (lost.fell_at_ms, lost.revised_from);
        }
        let is_session = ended.subject.established;
        let mut ring = lock(if is_session { &self.sessions } else { &self.strangers });
        ring.last += 1;
        ended.number = ring.last;
        if ring.kept.len() == ring.capacity {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Arc::new(ended));
    }

    /// Keeps the verdict on the link of a session that is away.
    pub fn lose(&self, at_ms: u64, subject: Subject, verdict: Verdict, parting: &Parting) {
        self.lost().put(Ended::new(at_ms, subject, verdict, parting));
    }

    /// Forgets the verdict on the link of a session that is away no more.
    pub fn forget_lost(&self, session: u64) {
        self.lost().remove(session);
    }

    /// Returns the verdict on the link of a session that is away, if it is kept.
    pub fn find_lost(&self, session: u64) -> Option<Arc<Ended>> {
        self.lost().get(session).cloned()
    }

    /// Adds to the end of a session that was away what is known of its last link.
    pub(crate) fn complete(&self, fact: &mut Fact) {
        let session::Event::Left(verdict) = &mut fact.event else {
            return;
        };
        if !fact.parting.was_away {
            return;
        }
        let lost = self.lost();
        let Some(lost) = lost.get(fact.subject.session) else {
            return;
        };
        fact.parting.lasted = lost.lasted;
        fact.parting.flight = lost.flight.clone();
        if lost.verdict.at == verdict.at {
            *verdict = lost.verdict;
        }
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the cause of a session's verdict by a better one, which `note` showed, or that of
    /// the verdict on the last link of one that is away. A verdict is revised at most once: returns
    /// `false` if it already was, or is no longer kept.
    pub fn revise(&self, session: u64, cause: Cause, confidence: Confidence, note: Note) -> bool {
        if let Some(lost) = self.lost().get_mut(session) {
            return Arc::make_mut(lost).revise(cause, confidence, note);
        }
        let mut ring = lock(&self.sessions);
        let found = ring.kept.iter_mut().rev().find(|ended| ended.subject.session == session);
        found.is_some_and(|ended| Arc::make_mut(ended).revise(cause, confidence, note))
    }

    /// Returns the verdict on a session, or on a connection that was never one, if still kept.
    pub fn find(&self, session: u64) -> Option<Arc<Ended>> {
        let find = |ring: &Mutex<Ring>| {
            let ring = lock(ring);
            ring.kept.iter().rev().find(|ended| ended.subject.session == session).cloned()
        };
        find(&self.sessions).or_else(|| find(&self.strangers))
    }

    /// Returns for each identity its last session that has ended, if still kept.
    pub fn last_of(&self, identities: &[&str]) -> Vec<Option<Arc<Ended>>> {
        let mut last: HashMap<&str, Option<Arc<Ended>>> =
            identities.iter().map(|identity| (*identity, None)).collect();
        for ended in &lock(&self.sessions).kept {
            // A later epoch counts, whatever was published last.
            if let Some(found) = last.get_mut(&*ended.subject.identity)
                && found.as_ref().is_none_or(|it| it.subject.epoch <= ended.subject.epoch)
            {
                *found = Some(ended.clone());
            }
        }
        identities.iter().map(|identity| last.get(identity).cloned().flatten()).collect()
    }

    /// Returns the latest `limit` verdicts that match `wanted`, latest first, and whether there are
    /// more.
    pub fn page(&self, wanted: &Wanted, limit: usize) -> (Vec<Arc<Ended>>, bool) {
        let ring = lock(if wanted.strangers { &self.strangers } else { &self.sessions });
        let mut found = ring.kept.iter().rev().filter(|ended| wanted.matches(ended));
        let page = found.by_ref().take(limit).cloned().collect();
        (page, found.next().is_some())
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ended {
    /// Returns what is kept of a verdict, still without a number.
    pub(crate) fn new(at_ms: u64, subject: Subject, verdict: Verdict, parting: &Parting) -> Ended {
        let Parting { lasted, flight, refusal, .. } = parting.clone();
        let (number, fell_at_ms, revised_from) = (0, at_ms, None);
        Ended { number, at_ms, fell_at_ms, subject, verdict, revised_from, lasted, flight, refusal }
    }

    /// A session that was kicked or replaced while it was away did not end by what is found out of
    /// its link: only a provisional verdict is revised.
    fn revise(&mut self, cause: Cause, confidence: Confidence, note: Note) -> bool {
        let may_be = self.revised_from.is_none() && self.verdict.cause.is_provisional();
        if may_be {
            self.revised_from = Some((self.verdict.cause, self.verdict.confidence, note));
            self.verdict = Verdict { cause, confidence, ..self.verdict };
        }
        may_be
    }
}

impl Wanted {
    fn matches(&self, ended: &Ended) -> bool {
        self.before.is_none_or(|before| ended.number < before)
            && self.cause.as_ref().is_none_or(|cause| ended.verdict.cause.name() == cause)
            && self.identity.as_ref().is_none_or(|wanted| *ended.subject.identity == **wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use systole_core::Time;

    use super::*;

    fn keep(verdicts: &Verdicts, session: u64, cause: Cause) {
        keep_of(verdicts, session, cause, true);
    }

    fn keep_of(verdicts: &Verdicts, session: u64, cause: Cause, established: bool) {
        let subject = Subject {
            boot_id: Default::default(),
            instance_id: Default::default(),
            session,
            epoch: session,
            identity: format!("user-{}", session % 2).into(),
            listener: 0,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 4_711)),
            established,
        };
        let now = Time::from_millis(session);
        let verdict = Verdict {
            cause,
            confidence: cause.confidence(),
            at: now,
            due: now,
            stretch: Span::ZERO,
            last_heard: now,
            probes: 0,
            grounds: Default::default(),
        };
        verdicts.keep(session, subject, verdict, &Parting::default());
    }

    fn sessions(page: &[Arc<Ended>]) -> Vec<u64> {
        page.iter().map(|ended| ended.subject.session).collect()
    }

    #[test]
    fn a_new_verdict_replaces_the_oldest() {
        let verdicts = Verdicts::new(3, 2);
        for session in 1..=5 {
            keep(&verdicts, session, Cause::Unknown);
        }
        let (page, more) = verdicts.page(&Wanted::default(), 10);
        assert_eq!((sessions(&page), more), (vec![5, 4, 3], false));
        assert!(verdicts.find(2).is_none() && verdicts.find(3).is_some());
    }

    #[test]
    fn strangers_push_no_verdict_on_a_session_out() {
        let verdicts = Verdicts::new(3, 2);
        keep(&verdicts, 1, Cause::Unknown);
        for session in 100..200 {
            keep_of(&verdicts, session, Cause::PeerExited, false);
        }
        keep(&verdicts, 2, Cause::Unknown);
        let strangers = Wanted { strangers: true, ..Wanted::default() };
        assert_eq!(sessions(&verdicts.page(&Wanted::default(), 10).0), [2, 1]);
        assert_eq!(sessions(&verdicts.page(&strangers, 10).0), [199, 198]);
        assert!(verdicts.find(1).is_some() && verdicts.find(199).is_some());
        assert!(verdicts.find(197).is_none());
    }

    #[test]
    fn pages_hold_the_matching_verdicts_latest_first() {
        let verdicts = Verdicts::new(VERDICTS, STRANGERS);
        for session in 1..=9 {
            let cause = if session < 6 { Cause::Unknown } else { Cause::Kicked };
            keep(&verdicts, session, cause);
        }
        let mut wanted = Wanted { identity: Some("user-1".into()), ..Wanted::default() };
        let (page, more) = verdicts.page(&wanted, 3);
        assert_eq!((sessions(&page), more), (vec![9, 7, 5], true));
        wanted.before = page.last().map(|ended| ended.number);
        assert_eq!(sessions(&verdicts.page(&wanted, 2).0), [3, 1]);
        wanted.cause = Some("kicked".into());
        assert_eq!(sessions(&verdicts.page(&wanted, 2).0), [0; 0]);
    }

    #[test]
    fn a_verdict_is_revised_once() {
        let verdicts = Verdicts::new(3, 2);
        keep(&verdicts, 1, Cause::PeerReset);
        let before = verdicts.find(1);
        let (cause, confidence) = (Cause::PeerRebooted, Confidence::Certain);
        let revise = |session| verdicts.revise(session, cause, confidence, Note::NewBoot);
        assert!(revise(1) && !revise(1) && !revise(2));
        let after = verdicts.find(1).unwrap();
        assert_eq!(after.verdict.cause, Cause::PeerRebooted);
        assert_eq!(after.revised_from, Some((Cause::PeerReset, Confidence::High, Note::NewBoot)));
        // A reader of the old verdict keeps the old cause.
        assert_eq!(before.unwrap().verdict.cause, Cause::PeerReset);
    }

    fn parting(was_away: bool, lasted: Span) -> Parting {
        Parting { was_away, lasted, ..Parting::default() }
    }

    fn lose(verdicts: &Verdicts, session: u64, cause: Cause) -> Ended {
        keep(verdicts, session, cause);
        let ended = Arc::unwrap_or_clone(verdicts.find(session).unwrap());
        lock(&verdicts.sessions).kept.clear();
        let Ended { at_ms, subject, verdict, .. } = ended.clone();
        verdicts.lose(at_ms, subject, verdict, &parting(false, Span::from_secs(20)));
        ended
    }

    fn left(of: &Ended, verdict: Verdict) -> Fact {
        let fact = Fact::new(99_000, of.subject.clone(), session::Event::Left(verdict));
        Fact { parting: parting(true, Span::ZERO), ..fact }
    }

    fn end(verdicts: &Verdicts, mut fact: Fact) -> Arc<Ended> {
        verdicts.complete(&mut fact);
        let session::Event::Left(verdict) = fact.event else { panic!("{fact:?}") };
        verdicts.keep(fact.at_ms, fact.subject.clone(), verdict, &fact.parting);
        verdicts.find(fact.subject.session).unwrap()
    }

    #[test]
    fn a_session_that_is_not_resumed_ends_with_all_that_is_known_of_its_link() {
        let verdicts = Verdicts::new(3, 2);
        let lost = lose(&verdicts, 1, Cause::PeerReset);
        assert!(verdicts.find(1).is_none() && verdicts.find_lost(1).is_some(), "it has not ended");
        let (cause, confidence) = (Cause::PeerRebooted, Confidence::Certain);
        assert!(verdicts.revise(1, cause, confidence, Note::NewBoot));
        let ended = end(&verdicts, left(&lost, lost.verdict));
        assert_eq!((ended.verdict.cause, ended.lasted), (cause, Span::from_secs(20)));
        assert_eq!((ended.at_ms, ended.fell_at_ms), (99_000, 1));
        assert!(ended.revised_from.is_some() && verdicts.find_lost(1).is_none());
        assert!(!verdicts.revise(1, Cause::Unknown, confidence, Note::NewBoot), "it was revised");
    }

    #[test]
    fn what_is_found_out_of_its_link_changes_nothing_for_a_session_that_was_kicked_meanwhile() {
        let verdicts = Verdicts::new(3, 2);
        let lost = lose(&verdicts, 1, Cause::PeerReset);
        let verdict = Verdict { cause: Cause::Kicked, at: Time::from_millis(50), ..lost.verdict };
        let ended = end(&verdicts, left(&lost, verdict));
        assert_eq!((ended.verdict.cause, ended.fell_at_ms), (Cause::Kicked, 99_000));
        assert!(!verdicts.revise(1, Cause::PeerRebooted, Confidence::Certain, Note::NewBoot));
    }

    #[test]
    fn verdicts_on_links_are_bounded_and_forgotten_with_the_return() {
        let verdicts = Verdicts::new(3, 2);
        for session in 1..=5 {
            lose(&verdicts, session, Cause::PeerReset);
        }
        let kept: Vec<u64> =
            (1..=5).filter(|session| verdicts.find_lost(*session).is_some()).collect();
        assert_eq!(kept, [3, 4, 5]);
        for _ in 0..100 {
            verdicts.forget_lost(5);
            lose(&verdicts, 5, Cause::PeerReset);
        }
        assert!(verdicts.find_lost(5).is_some());
        verdicts.forget_lost(5);
        assert!(verdicts.find_lost(5).is_none());
    }
}
