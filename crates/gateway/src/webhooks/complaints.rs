//! Which failures of a receiver the log reports: the first one, and when it refuses everything.
//!
//! A receiver that answers is not down, whatever it answers. With a wrong key it would refuse each
//! event until all are dead letters.

use systole_core::Span;

use crate::throttle::Throttle;

/// How many identities in a row must be refused before the receiver is said to refuse everything:
/// more than two, of which both may be unknown to the receiver for a reason of their own.
const SEVERAL: usize = 3;

/// How often the log has a line about one receiver for each of the two reasons: the state lasts,
/// and GET /api/v1/webhooks shows it.
const EVERY: Span = Span::from_secs(60);

/// Why an attempt did not succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// What people read.
    pub(super) text: String,
    /// The status that the receiver has answered; `None` if there was no answer.
    status: Option<u16>,
}

impl Failure {
    /// There was no answer.
    pub(super) fn unreached(text: String) -> Failure {
        Failure { text, status: None }
    }

    /// The receiver has answered that it does not take the event.
    pub(super) fn refused(status: u16) -> Failure {
        let rest = if status == 422 { ": it will never take this" } else { "" };
        Failure { text: format!("status {status}{rest}"), status: Some(status) }
    }

    /// Returns the status if it says that all events fail alike, not this one.
    fn of_all(&self) -> Option<u16> {
        self.status.filter(|status| matches!(status, 401 | 403 | 404))
    }
}

/// A line for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Complaint {
    /// An attempt failed, the one before it did not. So did as many that were not reported.
    First(u64),
    /// The receiver refuses every event with this status.
    RefusesAll(u16),
    /// The receiver takes events again.
    TakesAgain,
}

impl Complaint {
    /// Writes the line. `error` is why the last attempt failed.
    pub(super) fn log(self, receiver: &str, error: Option<&str>) {
        match self {
            Complaint::First(more) => {
                let hint = "the event is tried again; see GET /api/v1/webhooks";
                tracing::warn!(receiver, error, more, hint, "the webhook did not take an event");
            }
            Complaint::RefusesAll(status) => {
                let asked = match status {
                    404 => "is its `url` right?",
                    _ => "is its key that of secret_file?",
                };
                let hint = "what it is owed waits on disk; see GET /api/v1/webhooks";
                tracing::warn!(
                    receiver,
                    hint,
                    "the receiver refuses every event with status {status}; {asked}"
                );
            }
            Complaint::TakesAgain => tracing::info!(receiver, "the webhook takes events again"),
        }
    }
}

/// What is known of the failures of one receiver.
#[derive(Debug)]
pub(super) struct Complaints {
    /// Whether the last attempt failed.
    is_failing: bool,
    /// The keys that were refused with `status` since the last event that was not.
    refused: Vec<Box<str>>,
    status: u16,
    /// Whether it was reported that the receiver refuses everything.
    is_refusing: bool,
    first_lines: Throttle,
    refusing_lines: Throttle,
}

impl Default for Complaints {
    fn default() -> Complaints {
        Complaints {
            is_failing: false,
            refused: Vec::new(),
            status: 0,
            is_refusing: false,
            first_lines: Throttle::new(1, EVERY),
            refusing_lines: Throttle::new(1, EVERY),
        }
    }
}

impl Complaints {
    /// Takes note that an attempt with an event of `key` failed.
    pub(super) fn failed(&mut self, now: Span, key: &str, failure: &Failure) -> Option<Complaint> {
        let is_first = !std::mem::replace(&mut self.is_failing, true);
        let first = is_first.then(|| self.first_lines.admit(now)).flatten();
        self.note_refusal(key, failure);
        if let Some(more) = first {
            return Some(Complaint::First(more));
        }
        if self.is_refusing || self.refused.len() < SEVERAL {
            return None;
        }
        self.refusing_lines.admit(now)?;
        self.is_refusing = true;
        Some(Complaint::RefusesAll(self.status))
    }

    fn note_refusal(&mut self, key: &str, failure: &Failure) {
        let Some(status) = failure.of_all() else {
            // No answer says nothing about the answers; another one ends the row.
            if failure.status.is_some() {
                self.refused.clear();
            }
            return;
        };
        if status != self.status {
            (self.status, self.is_refusing) = (status, false);
            self.refused.clear();
        }
        if self.refused.len() < SEVERAL && !self.refused.iter().any(|known| **known == *key) {
            self.refused.push(key.into());
        }
    }

    /// Takes note that the receiver has taken an event, or will never take it.
    pub(super) fn answered(&mut self) -> Option<Complaint> {
        self.is_failing = false;
        self.refused.clear();
        std::mem::take(&mut self.is_refusing).then_some(Complaint::TakesAgain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each attempt takes a second. `None` is an event that is taken.
    fn lines(attempts: &[Option<(&str, Failure)>]) -> Vec<Option<Complaint>> {
        let mut complaints = Complaints::default();
        let seconds = attempts.iter().zip(1..);
        let lines = seconds.map(|(attempt, second)| match attempt {
            None => complaints.answered(),
            Some((key, failure)) => complaints.failed(Span::from_secs(second), key, failure),
        });
        lines.collect()
    }

    fn refused(key: &str, status: u16) -> Option<(&str, Failure)> {
        Some((key, Failure::refused(status)))
    }

    #[test]
    fn the_first_failure_is_reported_and_those_after_it_are_not() {
        let gone = || Some(("a", Failure::unreached("connection refused".to_owned())));
        let found = lines(&[gone(), gone(), gone(), None, gone(), gone()]);
        let first = Some(Complaint::First(0));
        assert_eq!(found, [first, None, None, None, None, None], "one line a minute");
        let mut found = vec![gone(), None, gone(), None];
        found.extend(std::iter::repeat_with(|| None).take(60));
        found.push(gone());
        assert_eq!(lines(&found).last(), Some(&Some(Complaint::First(1))));
    }

    #[test]
    fn a_receiver_that_refuses_several_identities_refuses_everything() {
        let first = Some(Complaint::First(0));
        for status in [401, 403, 404] {
            let all = ["a", "a", "b", "a", "c", "d"].map(|key| refused(key, status));
            let refuses = Some(Complaint::RefusesAll(status));
            assert_eq!(lines(&all), [first, None, None, None, refuses, None]);
        }
        let found = lines(&["a", "b", "c", "d"].map(|key| refused(key, 500)));
        assert_eq!(found, [first, None, None, None], "the fault is not said to be the key");
    }

    #[test]
    fn one_identity_that_is_taken_ends_the_row() {
        let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|key| refused(key, 401));
        let first = Some(Complaint::First(0));
        let found = lines(&[a.clone(), b.clone(), None, c.clone(), d.clone()]);
        assert_eq!(found, [first, None, None, None, None]);
        let other = refused("x", 500);
        let found = lines(&[a.clone(), b.clone(), other, c.clone(), d.clone(), e.clone()]);
        let refuses = Some(Complaint::RefusesAll(401));
        assert_eq!(found, [first, None, None, None, None, refuses]);
        let found = lines(&[a, b, c, None, d]);
        assert_eq!(found, [first, None, refuses, Some(Complaint::TakesAgain), None]);
    }

    #[test]
    fn as_many_keys_are_remembered_as_are_needed() {
        let mut complaints = Complaints::default();
        for number in 0..100 {
            let failure = Failure::refused(401);
            let _ = complaints.failed(Span::from_secs(1), &number.to_string(), &failure);
        }
        assert_eq!(complaints.refused.len(), SEVERAL);
    }
}
