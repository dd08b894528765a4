//! The last verdicts with their flight recorders, for queries about the cause.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use systole_core::Span;
use systole_core::cause::{Cause, Confidence, Verdict};
use systole_core::flight::Flight;
use systole_core::ledger::Note;

use crate::identity::Refusal;
use crate::report::{Parting, Subject};

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
    /// When the verdict fell, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
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
        Verdicts { sessions: ring(sessions), strangers: ring(strangers) }
    }

    /// Returns how many verdicts on sessions are kept at most.
    pub fn capacity(&self) -> usize {
        lock(&self.sessions).capacity
    }

    /// Keeps a verdict, among those on sessions or on strangers.
    pub fn keep(&self, at_ms: u64, subject: Subject, verdict: Verdict, parting: &Parting) {
        let Parting { lasted, flight, refusal, .. } = parting.clone();
        let mut ring = lock(if subject.established { &self.sessions } else { &self.strangers });
        ring.last += 1;
        let number = ring.last;
        if ring.kept.len() == ring.capacity {
            ring.kept.pop_front();
        }
        let revised_from = None;
        let ended =
            Ended { number, at_ms, subject, verdict, revised_from, lasted, flight, refusal };
        ring.kept.push_back(Arc::new(ended));
    }

    /// Replaces the cause of a session's verdict by a better one, which `note` showed. A verdict is
    /// revised at most once: returns `false` if it already was, or is no longer kept.
    pub fn revise(&self, session: u64, cause: Cause, confidence: Confidence, note: Note) -> bool {
        let mut ring = lock(&self.sessions);
        let found = ring.kept.iter_mut().rev().find(|ended| ended.subject.session == session);
        let Some(ended) = found.filter(|ended| ended.revised_from.is_none()) else {
            return false;
        };
        let ended = Arc::make_mut(ended);
        ended.revised_from = Some((ended.verdict.cause, ended.verdict.confidence, note));
        ended.verdict = Verdict { cause, confidence, ..ended.verdict };
        true
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
}
