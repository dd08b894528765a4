//! Judges verdicts. Pure: no clock, no process, no random numbers.

use serde::Serialize;

/// The result of one expectation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// The expected report, in time.
    Right,
    /// A report in time, but without the cause, its direction or its scope.
    Unknown,
    /// A right or unknown report, but after the bound.
    Late,
    /// No report although one was expected.
    Missed,
    /// Another report, or a verdict on a living peer.
    Wrong,
    /// The fault did not take effect or the lab failed: no result for the program.
    Invalid,
}

impl Score {
    /// All scores.
    pub const ALL: [Score; 6] =
        [Score::Right, Score::Unknown, Score::Late, Score::Missed, Score::Wrong, Score::Invalid];

    /// Returns the score in one word.
    pub const fn name(self) -> &'static str {
        match self {
            Score::Right => "right",
            Score::Unknown => "unknown",
            Score::Late => "late",
            Score::Missed => "missed",
            Score::Wrong => "wrong",
            Score::Invalid => "invalid",
        }
    }
}

/// An expected verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The accepted causes.
    pub causes: &'static [&'static str],
    /// The direction that must be reported, if any.
    pub direction: Option<&'static str>,
    /// The scope that must be reported, if any.
    pub scope: Option<&'static str>,
    /// The confidence that must be reported, if any.
    pub confidence: Option<&'static str>,
    /// The time after the fault before which the verdict must not fall, in milliseconds.
    pub not_before_ms: u64,
    /// Time limit after the fault, in milliseconds.
    pub within_ms: u64,
}

/// A verdict as an observer reported it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Reported {
    /// The name of the cause.
    pub cause: String,
    /// The confidence of the verdict.
    pub confidence: String,
    /// The lost direction, if reported.
    pub direction: Option<String>,
    /// The scope of the loss, if reported.
    pub scope: Option<String>,
    /// The cause as a sentence.
    pub detail: String,
    /// Time after the fault, in milliseconds.
    pub after_ms: u64,
}

/// Judges a verdict. A wrong one is wrong at any time, and so is one on a peer whose bound has not
/// passed; a late one is late even if it is unknown.
pub fn judge(expected: &Expected, reported: Option<&Reported>) -> Score {
    let Some(reported) = reported else { return Score::Missed };
    if reported.after_ms < expected.not_before_ms {
        return Score::Wrong;
    }
    let what = score_in_time(expected, reported);
    if what != Score::Wrong && reported.after_ms > expected.within_ms { Score::Late } else { what }
}

fn score_in_time(expected: &Expected, reported: &Reported) -> Score {
    if reported.cause == "unknown" && !expected.causes.contains(&"unknown") {
        return Score::Unknown;
    }
    if !expected.causes.contains(&reported.cause.as_str()) {
        return Score::Wrong;
    }
    if expected.confidence.is_some_and(|confidence| confidence != reported.confidence) {
        return Score::Wrong;
    }
    let particulars =
        [(expected.direction, &reported.direction), (expected.scope, &reported.scope)];
    let scores =
        particulars.into_iter().map(|(expected, reported)| match (expected, reported.as_deref()) {
            (None, _) => Score::Right,
            (Some(_), None | Some("unknown")) => Score::Unknown,
            (Some(expected), Some(reported)) if expected == reported => Score::Right,
            (Some(_), Some(_)) => Score::Wrong,
        });
    scores.max().unwrap_or(Score::Right)
}

/// Judges a link that must survive a fault: `ends` is the number of verdicts on living links,
/// `back_after_ms` the time from the end of the fault until the link is heard again.
pub fn judge_alive(ends: usize, back_after_ms: Option<u64>, within_ms: u64) -> Score {
    match back_after_ms {
        _ if ends > 0 => Score::Wrong,
        None => Score::Missed,
        Some(after) if after > within_ms => Score::Late,
        Some(_) => Score::Right,
    }
}

/// Judges a count that must be reported exactly.
pub fn judge_count(expected: u64, reported: Option<u64>) -> Score {
    match reported {
        None => Score::Missed,
        Some(reported) if reported == expected => Score::Right,
        Some(_) => Score::Wrong,
    }
}

/// Judges the time at which the kernel ended a socket, in milliseconds; `None`: never.
pub fn judge_death(dies_ms: Option<u64>, died_ms: Option<u64>, tolerance_ms: u64) -> Score {
    match (dies_ms, died_ms) {
        (None, None) => Score::Right,
        (None, Some(_)) => Score::Wrong,
        (Some(_), None) => Score::Missed,
        (Some(dies), Some(died)) if died + tolerance_ms < dies => Score::Wrong,
        (Some(dies), Some(died)) if died > dies + tolerance_ms => Score::Late,
        (Some(_), Some(_)) => Score::Right,
    }
}

/// Judges the reported idle time of a link, in milliseconds: it must be right within a twentieth.
pub fn judge_idle(idle_ms: Option<u64>, reported_ms: Option<u64>) -> Score {
    match (idle_ms, reported_ms) {
        (None, _) => Score::Invalid,
        (Some(_), None) => Score::Unknown,
        (Some(idle), Some(reported)) if idle.abs_diff(reported) <= idle / 20 => Score::Right,
        (Some(_), Some(_)) => Score::Wrong,
    }
}

/// Judges how often the link was suspected that was suspected most.
pub fn judge_suspicions(most: u64, allowed: u64) -> Score {
    if most <= allowed { Score::Right } else { Score::Wrong }
}

/// Judges the number of verdicts on living links, of `links` in `in_ms`: one per link in two hours
/// is allowed.
pub fn judge_mistakes(ends: u64, links: u64, in_ms: u64) -> Score {
    const TWO_HOURS_MS: u64 = 2 * 60 * 60 * 1_000;
    let allowed = links.saturating_mul(in_ms) / TWO_HOURS_MS;
    if ends <= allowed { Score::Right } else { Score::Wrong }
}

/// Returns the score of a run: the worst score of its expectations.
pub fn overall(scores: impl IntoIterator<Item = Score>) -> Score {
    scores.into_iter().max().unwrap_or(Score::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Expected = Expected {
        causes: &["path_lost"],
        direction: Some("outbound"),
        scope: None,
        confidence: None,
        not_before_ms: 0,
        within_ms: 3_500,
    };

    fn reported(cause: &str, direction: Option<&str>, after_ms: u64) -> Reported {
        let direction = direction.map(ToOwned::to_owned);
        Reported { cause: cause.to_owned(), direction, after_ms, ..Reported::default() }
    }

    fn score(cause: &str, direction: Option<&str>, after_ms: u64) -> Score {
        judge(&LOST, Some(&reported(cause, direction, after_ms)))
    }

    #[test]
    fn an_expected_verdict_in_time_is_right() {
        assert_eq!(score("path_lost", Some("outbound"), 3_500), Score::Right);
        let any = Expected { causes: &["peer_exited", "peer_reset"], direction: None, ..LOST };
        assert_eq!(judge(&any, Some(&reported("peer_reset", Some("x"), 0))), Score::Right);
    }

    #[test]
    fn a_right_cause_with_another_confidence_is_wrong() {
        let doubted =
            Expected { causes: &["app_hung"], direction: None, confidence: Some("medium"), ..LOST };
        let as_sure_as = |confidence: &str| {
            let confidence = confidence.to_owned();
            judge(&doubted, Some(&Reported { confidence, ..reported("app_hung", None, 0) }))
        };
        assert_eq!(as_sure_as("medium"), Score::Right);
        assert_eq!(as_sure_as("high"), Score::Wrong);
    }

    #[test]
    fn a_missing_cause_or_direction_is_unknown() {
        assert_eq!(score("unknown", None, 3_000), Score::Unknown);
        assert_eq!(score("path_lost", None, 3_000), Score::Unknown);
        assert_eq!(score("path_lost", Some("unknown"), 3_000), Score::Unknown);
    }

    #[test]
    fn another_verdict_is_wrong_at_any_time() {
        assert_eq!(score("app_hung", None, 3_000), Score::Wrong);
        assert_eq!(score("app_hung", None, 9_000), Score::Wrong);
        assert_eq!(score("path_lost", Some("inbound"), 3_000), Score::Wrong);
    }

    #[test]
    fn a_verdict_after_the_bound_is_late() {
        assert_eq!(score("path_lost", Some("outbound"), 3_501), Score::Late);
        assert_eq!(score("unknown", None, 3_501), Score::Late);
    }

    #[test]
    fn a_verdict_before_the_bound_is_wrong() {
        let patient = Expected { not_before_ms: 2_000, ..LOST };
        let judged =
            |after_ms| judge(&patient, Some(&reported("path_lost", Some("outbound"), after_ms)));
        assert_eq!(judged(1_999), Score::Wrong);
        assert_eq!(judged(2_000), Score::Right);
    }

    #[test]
    fn no_report_is_a_miss() {
        assert_eq!(judge(&LOST, None), Score::Missed);
        assert_eq!(judge_count(10, None), Score::Missed);
        assert_eq!(judge_count(10, Some(9)), Score::Wrong);
        assert_eq!(judge_count(10, Some(10)), Score::Right);
    }

    #[test]
    fn living_links_must_stay_and_be_heard_again() {
        assert_eq!(judge_alive(0, Some(1_200), 1_200), Score::Right);
        assert_eq!(judge_alive(0, Some(1_201), 1_200), Score::Late);
        assert_eq!(judge_alive(0, None, 1_200), Score::Missed);
        assert_eq!(judge_alive(1, Some(10), 1_200), Score::Wrong);
    }

    #[test]
    fn a_socket_ends_at_the_computed_time() {
        assert_eq!(judge_death(Some(3_400), Some(3_900), 500), Score::Right);
        assert_eq!(judge_death(Some(3_400), Some(2_900), 500), Score::Right);
        assert_eq!(judge_death(Some(3_400), Some(2_899), 500), Score::Wrong);
        assert_eq!(judge_death(Some(3_400), Some(3_901), 500), Score::Late);
        assert_eq!(judge_death(Some(3_400), None, 500), Score::Missed);
        assert_eq!(judge_death(None, Some(1), 500), Score::Wrong);
        assert_eq!(judge_death(None, None, 500), Score::Right);
    }

    #[test]
    fn an_idle_time_is_right_within_a_twentieth() {
        assert_eq!(judge_idle(Some(4_000), Some(4_200)), Score::Right);
        assert_eq!(judge_idle(Some(4_000), Some(4_201)), Score::Wrong);
        assert_eq!(judge_idle(Some(4_000), Some(3_799)), Score::Wrong);
        assert_eq!(judge_idle(Some(4_000), None), Score::Unknown);
        assert_eq!(judge_idle(None, Some(4_000)), Score::Invalid);
    }

    #[test]
    fn one_mistake_per_link_in_two_hours_is_allowed() {
        assert_eq!(judge_mistakes(0, 20, 20_000), Score::Right);
        assert_eq!(judge_mistakes(1, 20, 20_000), Score::Wrong);
        assert_eq!(judge_mistakes(8, 100, 600_000), Score::Right);
        assert_eq!(judge_mistakes(9, 100, 600_000), Score::Wrong);
    }

    #[test]
    fn more_suspicions_than_allowed_are_wrong() {
        assert_eq!(judge_suspicions(1, 1), Score::Right);
        assert_eq!(judge_suspicions(2, 1), Score::Wrong);
    }

    #[test]
    fn the_worst_score_counts() {
        assert_eq!(overall([Score::Right, Score::Late, Score::Unknown]), Score::Late);
        assert_eq!(overall([Score::Right, Score::Right]), Score::Right);
        assert_eq!(overall([Score::Wrong, Score::Invalid]), Score::Invalid);
        assert_eq!(overall([]), Score::Invalid);
    }
}
