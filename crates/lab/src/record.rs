//! The results of a run.

use serde::Serialize;

use crate::judge::Score;
use crate::scenario::Role;

/// The results of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The fault in words.
    pub fault: &'static str,
    /// The end whose verdicts were judged.
    pub role: Role,
    /// Number of the repetition, from 1.
    pub repetition: u32,
    /// Seed of the random choices.
    pub seed: u64,
    /// Number of links that had to live.
    pub living: u64,
    /// Number of attempts: a run is repeated where the machine was too busy for it.
    pub attempts: u32,
    /// The worst of the findings.
    pub score: Score,
    /// The findings, one per expectation.
    pub findings: Vec<Finding>,
    /// What kernel keepalive alone had detected at the end of the run.
    pub keepalive: String,
    /// Why the run is invalid.
    pub trouble: Option<String>,
    /// The points of the timeline.
    pub marks: Vec<Mark>,
}

/// One expectation, and the report on it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The expected report.
    pub expected: String,
    /// The verdict that was reported; empty if none.
    pub verdict: String,
    /// The confidence of the verdict.
    pub confidence: String,
    /// The cause as a sentence.
    pub detail: String,
    /// Time after the fault, in milliseconds.
    pub after_ms: Option<u64>,
    /// Time limit in milliseconds.
    pub bound_ms: u64,
    /// The score of this expectation.
    pub score: Score,
    /// Whether this is a first verdict, which belongs in the confusion matrix.
    pub first: bool,
    /// Number of verdicts on living links, where that is the expectation.
    pub condemned: Option<u64>,
}

/// A point on the timeline.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Milliseconds since the first fault; negative before it.
    pub at_ms: i64,
    /// The lane of the timeline.
    pub lane: Lane,
    /// What happened.
    pub what: String,
}

/// A lane of the timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// A fault was injected or ended.
    Fault,
    /// An event of the gateway.
    Gateway,
    /// An event of a client.
    Client,
    /// A report of the kernel's keepalive.
    Keepalive,
}

/// Formats milliseconds as seconds.
pub(crate) fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_seconds_with_two_digits() {
        assert_eq!(seconds(14_309), "14.30 s");
        assert_eq!(seconds(7), "0.00 s");
    }
}
