//! A gateway that was just started: waits until it is ready, and reads its metrics. The bench
//! starts gateways too.

use std::fs;
use std::path::Path;
use std::process::Child;

use systole_core::Span;
use systole_net::Clock;

use crate::process::pause;

/// Time limit from the start of the process to its ready file, on a machine under load.
pub(crate) const READY_WITHIN: Span = Span::from_secs(20);
const POLL: Span = Span::from_millis(5);

/// Waits for the ready file of the gateway `child`, and returns its text; `None` if the gateway
/// ended or took too long.
pub fn await_ready(child: &mut Child, file: &Path, clock: Clock) -> Option<String> {
    let until = clock.monotonic() + READY_WITHIN;
    while clock.monotonic() < until && matches!(child.try_wait(), Ok(None)) {
        // The gateway writes the file at once, so it is complete.
        if let Ok(text) = fs::read_to_string(file) {
            return Some(text);
        }
        pause(POLL);
    }
    None
}

/// Returns the values of all samples in a page of metrics whose line begins with `name`, which may
/// include labels.
pub fn samples(page: &str, name: &str) -> Vec<f64> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let lines = lines.filter(|rest| rest.starts_with(['{', ' ']));
    lines.filter_map(|rest| rest.rsplit(' ').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_a_metric_have_its_whole_name() {
        let page = "# TYPE a counter\na_total{shard=\"0\"} 1.5\na_total{shard=\"1\"} 2\nb 7\n";
        assert_eq!(samples(page, "a_total"), [1.5, 2.0]);
        assert_eq!(samples(page, "a_total{shard=\"1\"}"), [2.0]);
        assert_eq!(samples(page, "b"), [7.0]);
        assert!(samples(page, "a").is_empty());
    }
}
