//! The facts that wait for the control plane, coalesced per session.

use std::collections::{HashMap, VecDeque};

use crate::report::{Change, Report};

/// Facts that wait, in the order of the first one of each session.
///
/// Of each session the first and the last fact wait, and its last change of address between them:
/// at most three. The sessions are bounded by the shard's table, in which an ended session holds
/// its place as long as its last fact is here.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    order: VecDeque<u64>,
    sessions: HashMap<u64, Waiting>,
    /// The last fact about accepting, and the stalls in all.
    accepting: Option<Report>,
    stalled: Option<Report>,
    left: usize,
}

#[derive(Debug)]
struct Waiting {
    first: Report,
    moved: Option<Report>,
    last: Option<Report>,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.accepting.is_none() && self.stalled.is_none()
    }

    /// Returns the number of sessions that have left and whose last fact waits.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn push(&mut self, fact: Report) {
        match fact {
            Report::Session { ref subject, .. } => {
                let session = subject.session;
                self.left += usize::from(leaves(&fact));
                match self.sessions.get_mut(&session) {
                    Some(waiting) => waiting.add(fact),
                    None => {
                        self.order.push_back(session);
                        let waiting = Waiting { first: fact, moved: None, last: None };
                        self.sessions.insert(session, waiting);
                    }
                }
            }
            Report::Stalled { absent, suspended } => {
                let (mut absent, mut suspended) = (absent, suspended);
                if let Some(Report::Stalled { absent: before, suspended: slept }) = self.stalled {
                    (absent, suspended) = (absent + before, suspended + slept);
                }
                self.stalled = Some(Report::Stalled { absent, suspended });
            }
            Report::AcceptingPaused(_) | Report::AcceptingResumed => self.accepting = Some(fact),
            // Sent at the end of the loop alone, after all that waited.
            Report::Stopped => {}
        }
    }

    /// Takes the fact that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Report> {
        if let Some(fact) = self.accepting.take().or_else(|| self.stalled.take()) {
            return Some(fact);
        }
        let session = self.order.front().copied()?;
        let waiting = self.sessions.get_mut(&session)?;
        let fact = match waiting.moved.take().or_else(|| waiting.last.take()) {
            Some(next) => std::mem::replace(&mut waiting.first, next),
            None => {
                self.order.pop_front();
                self.sessions.remove(&session)?.first
            }
        };
        self.left -= usize::from(leaves(&fact));
        Some(fact)
    }
}

impl Waiting {
    fn add(&mut self, fact: Report) {
        match (&fact, &mut self.moved) {
            // Of several changes of address, the first address and the last one count.
            (
                Report::Session { change: Change::Moved { .. }, subject, .. },
                Some(Report::Session { subject: known, .. }),
            ) => known.address = subject.address,
            (Report::Session { change: Change::Moved { .. }, .. }, moved) => *moved = Some(fact),
            _ => self.last = Some(fact),
        }
    }
}

fn leaves(fact: &Report) -> bool {
    matches!(fact, Report::Session { change: Change::Leave { .. }, .. })
}
