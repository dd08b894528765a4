//! The sending end of a shard's reports; the loop never waits for the control plane.

use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::report::Report;
use crate::stats::ShardStats;

/// Sends a shard's reports without waiting. Counts reports that find the channel full, and sends
/// the count before the next report that finds room.
#[derive(Debug)]
pub(crate) struct ReportSender {
    reports: Sender<Report>,
    missed: u64,
    stats: Arc<ShardStats>,
}

impl ReportSender {
    /// Makes a sender into `reports` that counts missed reports in `stats`.
    pub(crate) fn new(reports: Sender<Report>, stats: Arc<ShardStats>) -> ReportSender {
        ReportSender { reports, missed: 0, stats }
    }

    /// Sends a report, preceded by the count of missed ones. Counts the report as missed if the
    /// channel is full.
    pub(crate) fn send(&mut self, report: Report) {
        if self.missed > 0 {
            match self.reports.try_send(Report::Missed(self.missed)) {
                Ok(()) => self.missed = 0,
                Err(_) => return self.count_missed(),
            }
        }
        if let Err(TrySendError::Full(_)) = self.reports.try_send(report) {
            self.count_missed();
        }
    }

    /// Sends [`Report::Stopped`] at the end of the loop; waits for room.
    pub(crate) fn send_stopped(self) {
        let _ = self.reports.blocking_send(Report::Stopped);
    }

    fn count_missed(&mut self) {
        self.missed += 1;
        self.stats.reports_missed.add(1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;

    use super::*;

    #[test]
    fn missed_reports_are_counted_and_the_count_is_sent_first() {
        let (sender, mut receiver) = channel(2);
        let stats = Arc::new(ShardStats::default());
        let mut report_sender = ReportSender::new(sender, Arc::clone(&stats));
        for _ in 0..5 {
            report_sender.send(Report::AcceptingResumed);
        }
        assert_eq!(stats.reports_missed.get(), 3);
        assert!(matches!(receiver.try_recv(), Ok(Report::AcceptingResumed)));
        assert!(matches!(receiver.try_recv(), Ok(Report::AcceptingResumed)));
        report_sender.send(Report::AcceptingResumed);
        assert!(matches!(receiver.try_recv(), Ok(Report::Missed(3))));
        assert!(matches!(receiver.try_recv(), Ok(Report::AcceptingResumed)));
    }
}
