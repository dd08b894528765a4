//! The ways out of a shard, of which the loop waits for none.
//!
//! Facts (a session joined, left, was suspected, was retuned) are never lost: while the control
//! plane is behind they wait in a backlog, coalesced per session. Telemetry (heartbeats) may be
//! dropped, and is counted when it is. Connections that were never a session are counted first and
//! may be dropped then, so that strangers hold up no fact.

mod backlog;

use std::sync::Arc;

use systole_core::cause::Cause;
use systole_core::session::Event;
use systole_core::{Span, Time};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::identity::Refusal;
use crate::report::{Fact, Heartbeat, ReportChannels};
use crate::stats::ShardStats;
use backlog::Backlog;

/// How soon a loop with facts that wait looks for room again. A full channel holds 65,536 facts,
/// which takes the control plane far longer.
const RETRY: Span = Span::from_millis(10);

/// Sends a shard's facts and telemetry without waiting.
#[derive(Debug)]
pub(crate) struct ReportSender {
    facts: Sender<Fact>,
    backlog: Backlog,
    strangers: Sender<Fact>,
    telemetry: Sender<Heartbeat>,
    stats: Arc<ShardStats>,
}

impl ReportSender {
    /// Makes a sender into the channels; strangers and dropped telemetry are counted in `stats`.
    pub(crate) fn new(
        ReportChannels { facts, strangers, telemetry }: ReportChannels,
        stats: Arc<ShardStats>,
    ) -> ReportSender {
        ReportSender { facts, backlog: Backlog::default(), strangers, telemetry, stats }
    }

    /// Sends a fact, or keeps it until [`ReportSender::flush`] finds room for it. A fact about a
    /// connection that was never a session is counted, and dropped if it finds no room.
    pub(crate) fn send(&mut self, fact: Fact) {
        if !fact.subject.established {
            if let Event::Left(verdict) = &fact.event {
                self.stats.strangers.get(verdict.cause.index()).iter().for_each(|cell| cell.add(1));
                if let Cause::Refused(denial) = verdict.cause
                    && let Some(refusal) = Refusal::of_known(denial)
                {
                    self.stats.refused[refusal.index()].add(1);
                }
            }
            let _ = self.strangers.try_send(fact);
            return;
        }
        if !self.backlog.is_empty() {
            return self.backlog.push(fact);
        }
        match self.facts.try_send(fact) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(fact)) => self.backlog.push(fact),
        }
    }

    /// Sends telemetry, or drops and counts it.
    pub(crate) fn send_heartbeat(&mut self, heartbeat: Heartbeat) {
        if let Err(TrySendError::Full(_)) = self.telemetry.try_send(heartbeat) {
            self.stats.telemetry_dropped.add(1);
            self.stats.changed.notify_one();
        }
    }

    /// Sends facts that wait, as many as the channel takes. Returns whether any still wait.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.backlog.is_empty() {
            match self.facts.try_reserve() {
                Ok(room) => {
                    if let Some(fact) = self.backlog.pop() {
                        room.send(fact);
                    }
                }
                Err(TrySendError::Full(())) => return true,
                // Nobody will ever read them.
                Err(TrySendError::Closed(())) => self.backlog = Backlog::default(),
            }
        }
        false
    }

    /// Returns when a loop with facts that wait looks for room again; `None` if none waits.
    pub(crate) fn retry_at(&self, now: Time) -> Option<Time> {
        (!self.backlog.is_empty()).then(|| now + RETRY)
    }

    /// Returns whether facts about a session wait.
    pub(crate) fn holds(&self, session: u64) -> bool {
        self.backlog.holds(session)
    }

    /// Returns how many ended sessions hold their places, because their last fact still waits.
    pub(crate) fn places_held(&self) -> usize {
        self.backlog.left()
    }

    /// Returns the number of sessions of which facts wait.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.sessions()
    }

    /// Sends all facts that wait, and waits for room. Only for a loop that has ended.
    pub(crate) fn flush_blocking(&mut self) {
        while let Some(fact) = self.backlog.pop() {
            if self.facts.blocking_send(fact).is_err() {
                self.backlog = Backlog::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{joined, left, suspected};
    use crate::report::{STRANGERS, TELEMETRY, channels};
    use systole_core::session::Topic;

    /// Returns the topics of all facts that arrive, with the numbers of their sessions.
    fn arrivals(
        sender: &mut ReportSender,
        facts: &mut tokio::sync::mpsc::Receiver<Fact>,
    ) -> Vec<(u64, Topic)> {
        let mut arrived = Vec::new();
        loop {
            let waits = sender.flush();
            while let Ok(fact) = facts.try_recv() {
                arrived.push((fact.subject.session, fact.event.topic()));
            }
            if !waits {
                return arrived;
            }
        }
    }

    #[test]
    fn facts_that_find_no_room_arrive_later_and_none_is_lost() {
        let (channels, mut reports) = channels(2);
        let facts = &mut reports.facts;
        let mut sender = ReportSender::new(channels, Arc::default());
        for session in 0..1_000 {
            sender.send(joined(session));
            sender.send(suspected(session));
            sender.send(left(session));
        }
        assert_eq!(sender.places_held(), 1_000, "each holds its place until its leave is taken");
        let arrived = arrivals(&mut sender, facts);
        for session in 0..1_000 {
            let of: Vec<_> =
                arrived.iter().filter(|(of, _)| *of == session).map(|(_, what)| *what).collect();
            assert_eq!(
                (of.first(), of.last()),
                (Some(&Topic::Join), Some(&Topic::Leave)),
                "{session}"
            );
            assert!(of.len() <= 3);
        }
        assert_eq!(sender.places_held(), 0);
    }

    #[test]
    fn strangers_are_counted_and_hold_up_no_fact_however_many_they_are() {
        let (channels, mut reports) = channels(8);
        let stats = Arc::new(ShardStats::default());
        let mut sender = ReportSender::new(channels, Arc::clone(&stats));
        for number in 0..STRANGERS as u64 + 3 {
            let mut fact = left(number);
            fact.subject.established = false;
            sender.send(fact);
        }
        sender.send(left(7));
        assert_eq!((sender.places_held(), sender.waiting()), (0, 0));
        assert_eq!(arrivals(&mut sender, &mut reports.facts), [(7, Topic::Leave)]);
        assert_eq!(stats.strangers[Cause::Unknown.index()].get(), STRANGERS as u64 + 3);
        assert_eq!(reports.strangers.len(), STRANGERS);
    }

    #[test]
    fn telemetry_that_finds_no_room_is_counted_and_holds_up_no_fact() {
        let (channels, mut reports) = channels(8);
        let stats = Arc::new(ShardStats::default());
        let mut sender = ReportSender::new(channels, Arc::clone(&stats));
        for _ in 0..TELEMETRY + 3 {
            sender.send_heartbeat(Heartbeat::example());
        }
        assert_eq!(stats.telemetry_dropped.get(), 3);
        sender.send(joined(1));
        assert_eq!(arrivals(&mut sender, &mut reports.facts), [(1, Topic::Join)]);
    }
}
