//! Connections that ended before they were a session: health checks, scanners, clients of another
//! protocol.
//!
//! Anybody can make them by the thousand, so they share neither the level of the log, nor the event
//! stream, nor the kept verdicts with sessions. The shards count them by cause; here one line of
//! the log a minute sums them up, and one at the end. Subscribers that ask for it see each.

use std::sync::{Arc, PoisonError};

use serde::Serialize;
use systole_core::cause::Cause;
use systole_core::{Span, session};
use tokio::sync::broadcast;
use tracing::{debug, info};
use utoipa::ToSchema;

use super::Gateway;
use crate::events::{End, Session};
use crate::identity::Refusal;
use crate::report::Fact;
use crate::stats::ShardStats;
use crate::throttle::Throttle;

/// Least time between two lines that sum strangers up.
const SUMMARY_EVERY: Span = Span::from_secs(60);

/// Number of strangers that wait for a subscriber that is slow; more are only counted for it. A
/// scan of a few ports fits, and a flood is better read as a count.
const WAITING: usize = 256;

/// A connection that ended before it was a session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stranger {
    /// Time of its end, in milliseconds since 1970-01-01 UTC.
    at_ms: u64,
    /// The connection.
    #[serde(flatten)]
    session: Session,
    /// The verdict: its cause, evidence and times.
    #[serde(flatten)]
    end: End,
}

/// Makes the channel to the subscribers that want to see strangers.
pub(super) fn feed() -> broadcast::Sender<Arc<Stranger>> {
    broadcast::Sender::new(WAITING)
}

/// What the log has said of strangers.
#[derive(Debug)]
pub(super) struct Strangers {
    /// Those summed up so far, by cause, in the order of [`Cause::NAMES`].
    told: Counts,
    throttle: Throttle,
    /// The last one, as an example: its listener and its address.
    last: Option<(Arc<str>, String)>,
}

impl Default for Strangers {
    fn default() -> Strangers {
        let told = [0; Cause::NAMES.len()];
        Strangers { told, throttle: Throttle::new(1, SUMMARY_EVERY), last: None }
    }
}

impl Strangers {
    /// Returns how many came since the last summary: in all, and by cause as text. `None` if there
    /// was none, or if the last summary is not long ago.
    fn sum_up(&mut self, stats: &[Arc<ShardStats>], now: Span) -> Option<(u64, String)> {
        let counts = counts(stats);
        let summary = describe(&counts, &self.told)?;
        self.throttle.admit(now)?;
        self.told = counts;
        Some(summary)
    }
}

/// Strangers by cause, in the order of [`Cause::NAMES`].
type Counts = [u64; Cause::NAMES.len()];

fn counts(stats: &[Arc<ShardStats>]) -> Counts {
    std::array::from_fn(|cause| {
        stats.iter().filter_map(|shard| shard.strangers.get(cause)).map(|cell| cell.get()).sum()
    })
}

/// Returns by how much `counts` exceed `told`: in all, and by cause as text; `None` if not at all.
fn describe(counts: &Counts, told: &Counts) -> Option<(u64, String)> {
    let new = counts.iter().zip(told).map(|(count, told)| count.saturating_sub(*told));
    let new: Vec<(u64, &str)> = new.zip(Cause::NAMES).filter(|(count, _)| *count > 0).collect();
    let causes: Vec<_> = new.iter().map(|(count, name)| format!("{name} {count}")).collect();
    let all: u64 = new.iter().map(|(count, _)| count).sum();
    (all > 0).then(|| (all, causes.join(", ")))
}

impl Gateway {
    /// Processes the end of a connection that was never a session: keeps its verdict apart from
    /// those of sessions, logs it at the level `debug`, and shows it to those who asked for it.
    pub fn note_stranger(&self, fact: Fact) {
        let session::Event::Left(verdict) = &fact.event else {
            return;
        };
        let Fact { at_ms, subject, parting, .. } = &fact;
        let listener = self.listener_name(subject.listener);
        let session = Session::new(subject.clone(), listener);
        // Only verdicts on sessions are revised.
        let end = End::new(*at_ms, verdict, parting.lasted, parting.refusal);
        let end = End { provisional: false, ..end };
        let stranger = Stranger { at_ms: *at_ms, session, end };
        let Stranger { session: Session { session, listener, address, .. }, end, .. } = &stranger;
        let End { cause, refusal, detail, lasted_ms, .. } = end;
        let (detail, refusal) = (&**detail, refusal.map(Refusal::name));
        debug!(session, %listener, address, cause, refusal, detail, lasted_ms, "never a session");
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.last = Some((listener.clone(), address.clone()));
        drop(strangers);
        self.keep_verdict(&fact);
        if self.stranger_feed.receiver_count() > 0 {
            // The last receiver may have gone meanwhile.
            let _ = self.stranger_feed.send(Arc::new(stranger));
        }
    }

    /// Returns each stranger that ends from now on.
    pub(crate) fn strangers(&self) -> broadcast::Receiver<Arc<Stranger>> {
        self.stranger_feed.subscribe()
    }

    /// Logs how many strangers there were since the start, if there were any. Called once the
    /// shards have ended.
    pub(crate) fn tell_all_strangers(&self) {
        if let Some((connections, causes)) = describe(&counts(&self.stats), &Counts::default()) {
            info!(connections, causes, "connections that never became a session, since the start");
        }
    }

    /// Logs a summary of the strangers since the last one, if there is anything to say and the last
    /// one is not long ago. `now` is the time of a monotonic clock.
    pub(crate) fn tell_strangers(&self, now: Span) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((connections, causes)) = strangers.sum_up(&self.stats, now) else {
            return;
        };
        let (listener, address) = strangers.last.take().unzip();
        drop(strangers);
        info!(
            connections,
            causes,
            example_listener = listener.as_deref(),
            example_address = address,
            "connections that never became a session"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_summed_up_at_once_and_then_once_a_minute() {
        let stats: Vec<Arc<ShardStats>> = vec![Arc::default(), Arc::default()];
        let mut strangers = Strangers::default();
        let at = Span::from_secs;
        assert_eq!(strangers.sum_up(&stats, at(1)), None);
        stats[0].strangers[Cause::PeerExited.index()].add(3);
        stats[1].strangers[Cause::PeerExited.index()].add(4);
        stats[1].strangers[Cause::HandshakeTimeout.index()].add(1);
        let all = "peer_exited 7, handshake_timeout 1".to_owned();
        assert_eq!(strangers.sum_up(&stats, at(2)), Some((8, all)));
        assert_eq!(strangers.sum_up(&stats, at(100)), None, "nothing is new");
        stats[0].strangers[Cause::PeerExited.index()].add(1);
        assert_eq!(strangers.sum_up(&stats, at(61)), None, "not a minute ago");
        stats[0].strangers[Cause::PeerExited.index()].add(1);
        assert_eq!(strangers.sum_up(&stats, at(62)), Some((2, "peer_exited 2".to_owned())));
    }
}
