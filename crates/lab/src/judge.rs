//! Whether a verdict is right. Pure: no clock, no process, no chance.

use serde::Serialize;

/// How one expectation was met.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// As expected and in time.
    Right,
    /// In time, but the cause, its direction or its scope was not told.
    Unknown,
    /// Told rightly or as unknown, but after the bound.
    Late,
    /// Nothing was told although something should have been.
    Missed,
    /// Something else was told, or a living peer was condemned.
    Wrong,
    /// The fault did not take effect or the lab failed: this says nothing about the program.
    Invalid,
}

impl Score {
    /// All of them.
    pub const ALL: [Score; 6] =
        [Score::Right, Score::Unknown, Score::Late, Score::Missed, Score::Wrong, Score::Invalid];

    /// One word.
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

/// A verdict that is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Any of these causes.
    pub causes: &'static [&'static str],
    /// The direction that must be told, where it matters.
    pub direction: Option<&'static str>,
    /// The scope that must be told, where it matters.
    pub scope: Option<&'static str>,
    /// How long after the fault at most, in milliseconds.
    pub within_ms: u64,
}

/// A verdict as it was told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Told {
    /// The cause by name.
    pub cause: String,
    /// How sure it claims to be.
    pub confidence: String,
    /// Which direction is lost, where that is told.
    pub direction: Option<String>,
    /// How much is lost, where that is told.
    pub scope: Option<String>,
    /// The cause for people.
    pub detail: String,
    /// How long after the fault, in milliseconds.
    pub after_ms: u64,
}

/// Judges a verdict. What is wrong is wrong whenever it is told; what is late is late even where it
/// would have been unknown.
pub fn judge(expected: &Expected, told: Option<&Told>) -> Score {
    let Some(told) = told else { return Score::Missed };
    let what = content(expected, told);
    if what != Score::Wrong && told.after_ms > expected.within_ms { Score::Late } else { what }
}

fn content(expected: &Expected, told: &Told) -> Score {
    if told.cause == "unknown" && !expected.causes.contains(&"unknown") {
        return Score::Unknown;
    }
    if !expected.causes.contains(&told.cause.as_str()) {
        return Score::Wrong;
    }
    let particulars = [(expected.direction, &told.direction), (expected.scope, &told.scope)];
    let scores =
        particulars.into_iter().map(|(expected, told)| match (expected, told.as_deref()) {
            (None, _) => Score::Right,
            (Some(_), None | Some("unknown")) => Score::Unknown,
            (Some(expected), Some(told)) if expected == told => Score::Right,
            (Some(_), Some(_)) => Score::Wrong,
        });
    scores.max().unwrap_or(Score::Right)
}

/// Judges a link that must live through a fault: `ends` is how many verdicts fell on the living,
/// `back_after_ms` when it was heard again after the fault was over.
pub fn judge_alive(ends: usize, back_after_ms: Option<u64>, within_ms: u64) -> Score {
    match back_after_ms {
        _ if ends > 0 => Score::Wrong,
        None => Score::Missed,
        Some(after) if after > within_ms => Score::Late,
        Some(_) => Score::Right,
    }
}

/// Judges a count of something that must be told exactly so often.
pub fn judge_count(expected: u64, told: Option<u64>) -> Score {
    match told {
        None => Score::Missed,
        Some(told) if told == expected => Score::Right,
        Some(_) => Score::Wrong,
    }
}

/// Judges when a socket died, in milliseconds, if it should at all.
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

/// Judges how long a link is said to have been idle, in milliseconds: within a twentieth.
pub fn judge_idle(idle_ms: Option<u64>, told_ms: Option<u64>) -> Score {
    match (idle_ms, told_ms) {
        (None, _) => Score::Invalid,
        (Some(_), None) => Score::Unknown,
        (Some(idle), Some(told)) if idle.abs_diff(told) <= idle / 20 => Score::Right,
        (Some(_), Some(_)) => Score::Wrong,
    }
}

/// Judges how many living links were condemned by mistake, of so many in so many milliseconds: one
/// per link in two hours may be.
pub fn judge_mistakes(ends: u64, links: u64, in_ms: u64) -> Score {
    const TWO_HOURS_MS: u64 = 2 * 60 * 60 * 1_000;
    let allowed = links.saturating_mul(in_ms) / TWO_HOURS_MS;
    if ends <= allowed { Score::Right } else { Score::Wrong }
}

/// The score of a run with several expectations: the worst of them.
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
        within_ms: 3_500,
    };

    fn told(cause: &str, direction: Option<&str>, after_ms: u64) -> Told {
        let direction = direction.map(ToOwned::to_owned);
        Told { cause: cause.to_owned(), direction, after_ms, ..Told::default() }
    }

    fn score(cause: &str, direction: Option<&str>, after_ms: u64) -> Score {
        judge(&LOST, Some(&told(cause, direction, after_ms)))
    }

    #[test]
    fn a_verdict_in_time_and_to_the_point_is_right() {
        assert_eq!(score("path_lost", Some("outbound"), 3_500), Score::Right);
        let any = Expected { causes: &["peer_exited", "peer_reset"], direction: None, ..LOST };
        assert_eq!(judge(&any, Some(&told("peer_reset", Some("x"), 0))), Score::Right);
    }

    #[test]
    fn what_is_not_told_is_unknown() {
        assert_eq!(score("unknown", None, 3_000), Score::Unknown);
        assert_eq!(score("path_lost", None, 3_000), Score::Unknown);
        assert_eq!(score("path_lost", Some("unknown"), 3_000), Score::Unknown);
    }

    #[test]
    fn something_else_is_wrong_at_any_time() {
        assert_eq!(score("app_hung", None, 3_000), Score::Wrong);
        assert_eq!(score("app_hung", None, 9_000), Score::Wrong);
        assert_eq!(score("path_lost", Some("inbound"), 3_000), Score::Wrong);
    }

    #[test]
    fn after_the_bound_is_late_whatever_it_says() {
        assert_eq!(score("path_lost", Some("outbound"), 3_501), Score::Late);
        assert_eq!(score("unknown", None, 3_501), Score::Late);
    }

    #[test]
    fn silence_is_a_miss() {
        assert_eq!(judge(&LOST, None), Score::Missed);
        assert_eq!(judge_count(10, None), Score::Missed);
        assert_eq!(judge_count(10, Some(9)), Score::Wrong);
        assert_eq!(judge_count(10, Some(10)), Score::Right);
    }

    #[test]
    fn the_living_must_stay_and_come_back() {
        assert_eq!(judge_alive(0, Some(1_200), 1_200), Score::Right);
        assert_eq!(judge_alive(0, Some(1_201), 1_200), Score::Late);
        assert_eq!(judge_alive(0, None, 1_200), Score::Missed);
        assert_eq!(judge_alive(1, Some(10), 1_200), Score::Wrong);
    }

    #[test]
    fn a_death_falls_when_the_arithmetic_says() {
        assert_eq!(judge_death(Some(3_400), Some(3_900), 500), Score::Right);
        assert_eq!(judge_death(Some(3_400), Some(2_900), 500), Score::Right);
        assert_eq!(judge_death(Some(3_400), Some(2_899), 500), Score::Wrong);
        assert_eq!(judge_death(Some(3_400), Some(3_901), 500), Score::Late);
        assert_eq!(judge_death(Some(3_400), None, 500), Score::Missed);
        assert_eq!(judge_death(None, Some(1), 500), Score::Wrong);
        assert_eq!(judge_death(None, None, 500), Score::Right);
    }

    #[test]
    fn an_idle_age_is_right_within_a_twentieth() {
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
    fn the_worst_counts() {
        assert_eq!(overall([Score::Right, Score::Late, Score::Unknown]), Score::Late);
        assert_eq!(overall([Score::Right, Score::Right]), Score::Right);
        assert_eq!(overall([Score::Wrong, Score::Invalid]), Score::Invalid);
        assert_eq!(overall([]), Score::Invalid);
    }
}
