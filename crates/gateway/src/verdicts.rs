//! The last verdicts, each with what led to it, for whoever asks why.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use systole_core::Span;
use systole_core::cause::{Cause, Confidence, Verdict};
use systole_core::flight::Flight;
use systole_core::ledger::Note;

use crate::report::Subject;

/// How many verdicts are kept; the oldest gives way. Each takes at most 800 bytes, its identity
/// included: 8 MB when all are taken. An operator who asks why does so within minutes, and within
/// these even a failure of many is not forgotten.
pub const VERDICTS: usize = 10_000;

/// The last verdicts of one gateway.
#[derive(Debug)]
pub struct Verdicts {
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    /// Their numbers are without gaps and end at `last`.
    kept: VecDeque<Arc<Ended>>,
    capacity: usize,
    last: u64,
}

/// A session that has ended, or a connection that never became one.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its place in the order of the verdicts, from 1.
    pub number: u64,
    /// When the verdict fell, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Whose it is.
    pub subject: Subject,
    /// Why, as far as is known now.
    pub verdict: Verdict,
    /// Why, as it seemed at first, if something better was found out, and what showed that.
    pub revised_from: Option<(Cause, Confidence, Note)>,
    /// How long it was open.
    pub lasted: Span,
    /// What led to it; `None` for a beacon, which keeps no flight.
    pub flight: Option<Box<Flight>>,
}

/// Which verdicts are wanted; what is `None` does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// Those of the cause of this name.
    pub cause: Option<String>,
    /// Those of this identity.
    pub identity: Option<String>,
    /// Those with smaller numbers: older ones.
    pub before: Option<u64>,
}

impl Verdicts {
    /// None yet. The last `capacity` (at least 1) will be kept.
    pub fn new(capacity: usize) -> Verdicts {
        let ring = Ring { kept: VecDeque::new(), capacity: capacity.max(1), last: 0 };
        Verdicts { ring: Mutex::new(ring) }
    }

    /// Keeps one more.
    pub fn keep(
        &self,
        at_ms: u64,
        subject: Subject,
        verdict: Verdict,
        lasted: Span,
        flight: Option<Box<Flight>>,
    ) {
        let mut ring = self.lock();
        ring.last += 1;
        let number = ring.last;
        if ring.kept.len() == ring.capacity {
            ring.kept.pop_front();
        }
        let revised_from = None;
        let ended = Ended { number, at_ms, subject, verdict, revised_from, lasted, flight };
        ring.kept.push_back(Arc::new(ended));
    }

    /// Puts a better cause, which `note` showed, in the place of the one that a session's verdict
    /// had at first. A verdict is revised once: `false` if it was already, or is not kept.
    pub fn revise(&self, session: u64, cause: Cause, confidence: Confidence, note: Note) -> bool {
        let mut ring = self.lock();
        let found = ring.kept.iter_mut().rev().find(|ended| ended.subject.session == session);
        let Some(ended) = found.filter(|ended| ended.revised_from.is_none()) else {
            return false;
        };
        let ended = Arc::make_mut(ended);
        ended.revised_from = Some((ended.verdict.cause, ended.verdict.confidence, note));
        ended.verdict = Verdict { cause, confidence, ..ended.verdict };
        true
    }

    /// The verdict of a session, if it is still kept.
    pub fn find(&self, session: u64) -> Option<Arc<Ended>> {
        let ring = self.lock();
        ring.kept.iter().rev().find(|ended| ended.subject.session == session).cloned()
    }

    /// The latest `limit` that are wanted, latest first, and whether there are more.
    pub fn page(&self, wanted: &Wanted, limit: usize) -> (Vec<Arc<Ended>>, bool) {
        let ring = self.lock();
        let mut found = ring.kept.iter().rev().filter(|ended| wanted.takes(ended));
        let page = found.by_ref().take(limit).cloned().collect();
        (page, found.next().is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn takes(&self, ended: &Ended) -> bool {
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
        let subject = Subject {
            boot_id: Default::default(),
            instance_id: Default::default(),
            session,
            epoch: session,
            identity: format!("user-{}", session % 2).into(),
            listener: 0,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 4_711)),
            established: true,
        };
        let now = Time::from_millis(session);
        let verdict = Verdict {
            cause,
            confidence: cause.confidence(),
            at: now,
            due: now,
            last_heard: now,
            probes: 0,
            grounds: Default::default(),
        };
        verdicts.keep(session, subject, verdict, Span::ZERO, None);
    }

    fn sessions(page: &[Arc<Ended>]) -> Vec<u64> {
        page.iter().map(|ended| ended.subject.session).collect()
    }

    #[test]
    fn the_oldest_gives_way_when_all_are_taken() {
        let verdicts = Verdicts::new(3);
        for session in 1..=5 {
            keep(&verdicts, session, Cause::Unknown);
        }
        let (page, more) = verdicts.page(&Wanted::default(), 10);
        assert_eq!((sessions(&page), more), (vec![5, 4, 3], false));
        assert!(verdicts.find(2).is_none() && verdicts.find(3).is_some());
    }

    #[test]
    fn pages_are_the_wanted_ones_latest_first() {
        let verdicts = Verdicts::new(VERDICTS);
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
        let verdicts = Verdicts::new(3);
        keep(&verdicts, 1, Cause::PeerReset);
        let before = verdicts.find(1);
        let (cause, confidence) = (Cause::PeerRebooted, Confidence::Certain);
        let revise = |session| verdicts.revise(session, cause, confidence, Note::NewBoot);
        assert!(revise(1) && !revise(1) && !revise(2));
        let after = verdicts.find(1).unwrap();
        assert_eq!(after.verdict.cause, Cause::PeerRebooted);
        assert_eq!(after.revised_from, Some((Cause::PeerReset, Confidence::High, Note::NewBoot)));
        // Whoever was reading the old one goes on reading it.
        assert_eq!(before.unwrap().verdict.cause, Cause::PeerReset);
    }
}
