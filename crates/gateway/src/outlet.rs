//! Where a shard's reports leave its loop, which never waits for the control plane.

use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::report::Report;
use crate::stats::ShardStats;

/// A shard's end of its reports. One that finds no room is counted, and the count is told before
/// the next that does.
#[derive(Debug)]
pub(crate) struct Outlet {
    reports: Sender<Report>,
    missed: u64,
    stats: Arc<ShardStats>,
}

impl Outlet {
    /// Reports go into `reports`; those that are missed are counted in `stats`.
    pub(crate) fn new(reports: Sender<Report>, stats: Arc<ShardStats>) -> Outlet {
        Outlet { reports, missed: 0, stats }
    }

    /// Tells the control plane; if it is too slow, counts what it missed and tells that first.
    pub(crate) fn tell(&mut self, report: Report) {
        if self.missed > 0 {
            match self.reports.try_send(Report::Missed(self.missed)) {
                Ok(()) => self.missed = 0,
                Err(_) => return self.miss(),
            }
        }
        if let Err(TrySendError::Full(_)) = self.reports.try_send(report) {
            self.miss();
        }
    }

    /// The last report, for which the loop, at its end, does wait.
    pub(crate) fn end(self) {
        let _ = self.reports.blocking_send(Report::Stopped);
    }

    fn miss(&mut self) {
        self.missed += 1;
        self.stats.reports_missed.add(1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_told_first() {
        let (sender, mut receiver) = channel(2);
        let stats = Arc::new(ShardStats::default());
        let mut outlet = Outlet::new(sender, Arc::clone(&stats));
        for _ in 0..5 {
            outlet.tell(Report::AcceptingResumed);
        }
        assert_eq!(stats.reports_missed.get(), 3);
        assert!(matches!(receiver.try_recv(), Ok(Report::AcceptingResumed)));
        assert!(matches!(receiver.try_recv(), Ok(Report::AcceptingResumed)));
        outlet.tell(Report::AcceptingResumed);
        assert!(matches!(receiver.try_recv(), Ok(Report::Missed(3))));
        assert!(matches!(receiver.try_recv(), Ok(Report::AcceptingResumed)));
    }
}
