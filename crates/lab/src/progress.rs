//! Shows the progress of many runs: a bar on a terminal, a line for each run elsewhere.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use systole_core::Span;
use systole_net::Clock;

use crate::record::Run;

/// Counts finished runs, and shows the progress.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    clock: Clock,
    began: Span,
    done: usize,
    of: usize,
    /// The estimated time of all runs one after the other, in milliseconds, and of the finished
    /// ones.
    work_ms: u64,
    done_ms: u64,
}

impl Progress {
    pub(crate) fn new(clock: Clock, of: usize, work_ms: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg}");
            let bar = ProgressBar::new(of as u64);
            bar.set_style(style.expect("the template is ours and legal"));
            bar
        });
        Progress { bar, clock, began: clock.monotonic(), done: 0, of, work_ms, done_ms: 0 }
    }

    /// Records a finished run, whose estimated time was `lasts_ms`.
    pub(crate) fn done(&mut self, run: &Run, lasts_ms: u64) {
        self.done += 1;
        self.done_ms += lasts_ms;
        let passed_ms = self.clock.monotonic().less(self.began).as_millis();
        let left = left_ms(passed_ms, self.done_ms, self.work_ms).div_ceil(1_000);
        let what = format!("{} ({}) {}", run.scenario, run.role.name(), run.score.name());
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("about {left} s left, {what}"));
                bar.inc(1);
            }
            None => {
                let (done, of) = (self.done, self.of);
                let mut out = std::io::stderr().lock();
                // A closed stderr is no reason to stop.
                let _ = writeln!(out, "{done}/{of}, about {left} s left: {what}");
            }
        }
    }

    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Returns the estimated time left: the remaining work at the pace of the finished work.
fn left_ms(passed_ms: u64, done_ms: u64, work_ms: u64) -> u64 {
    let left = u128::from(work_ms.saturating_sub(done_ms));
    let left = left * u128::from(passed_ms) / u128::from(done_ms.max(1));
    u64::try_from(left).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_work_goes_at_the_same_pace() {
        assert_eq!(left_ms(1_000, 10_000, 40_000), 3_000);
        assert_eq!(left_ms(1_000, 0, 0), 0);
        assert_eq!(left_ms(1_000, 50_000, 40_000), 0);
    }
}
