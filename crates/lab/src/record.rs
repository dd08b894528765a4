//! What is known of a run when it is over.

use serde::Serialize;

use crate::judge::Score;
use crate::scenario::Role;

/// What became of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The fault in words.
    pub fault: &'static str,
    /// Whose verdicts were judged.
    pub role: Role,
    /// Which repetition, from 1.
    pub repetition: u32,
    /// What chance was drawn from.
    pub seed: u64,
    /// How many links there were that had to live.
    pub living: u64,
    /// How often it was begun: again where the machine was too busy for it.
    pub attempts: u32,
    /// The worst of the findings.
    pub score: Score,
    /// One per expectation.
    pub findings: Vec<Finding>,
    /// What kernel keepalive alone had noticed when the run was over.
    pub keepalive: String,
    /// Why the run says nothing.
    pub trouble: Option<String>,
    /// What happened when.
    pub marks: Vec<Mark>,
}

/// One expectation and what was told.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was expected.
    pub expected: String,
    /// What was told; empty if nothing.
    pub verdict: String,
    /// How sure the verdict claims to be.
    pub confidence: String,
    /// The verdict in full.
    pub detail: String,
    /// How long after the fault, in milliseconds.
    pub after_ms: Option<u64>,
    /// How long it might take.
    pub bound_ms: u64,
    /// How that is judged.
    pub score: Score,
    /// Whether it belongs in the confusion matrix: it is a first verdict.
    pub first: bool,
    /// How many links that lived were condemned, where that was to be shown.
    pub condemned: Option<u64>,
}

/// A point on the timeline.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Milliseconds since the first fault; negative before it.
    pub at_ms: i64,
    /// Who.
    pub lane: Lane,
    /// What.
    pub what: String,
}

/// Whose point on the timeline it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// A fault was made or ended.
    Fault,
    /// The gateway told something.
    Gateway,
    /// A client told something.
    Client,
    /// The kernel's keepalive noticed something.
    Keepalive,
}

/// Milliseconds as seconds, for people.
pub(crate) fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_seconds_with_two_digits() {
        assert_eq!(seconds(14_309), "14.30 s");
        assert_eq!(seconds(7), "0.00 s");
    }
}
