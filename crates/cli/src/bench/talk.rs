//! The messages of data of one link: one at a time, each after the answer to the last and a pause.

use systole_core::random::Random;

/// Seed of the pauses: each run has the same.
const SEED: u64 = 7;

/// The state of a talk; times in nanoseconds of one clock.
#[derive(Debug)]
pub(crate) struct Talk {
    pause_ns: (u64, u64),
    random: Random,
    next: Next,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// A message is due.
    Message { due_ns: u64 },
    /// The answer to a message is awaited.
    Answer { asked_ns: u64 },
}

impl Talk {
    /// Begins a talk at `now_ns` whose pauses have a random length between `pause_ns.0` and
    /// `pause_ns.1`.
    pub(crate) fn new(pause_ns: (u64, u64), now_ns: u64) -> Talk {
        Talk { pause_ns, random: Random::new(SEED), next: Next::Message { due_ns: now_ns } }
    }

    /// Returns the time until the next message is due; `None` while an answer is awaited.
    pub(crate) fn due_in(&self, now_ns: u64) -> Option<u64> {
        match self.next {
            Next::Message { due_ns } => Some(due_ns.saturating_sub(now_ns)),
            Next::Answer { .. } => None,
        }
    }

    /// Records that a message is sent now.
    pub(crate) fn sent(&mut self, now_ns: u64) {
        self.next = Next::Answer { asked_ns: now_ns };
    }

    /// Records an answer, and returns the round trip; `None` if no answer was awaited.
    pub(crate) fn answered(&mut self, now_ns: u64) -> Option<u64> {
        let Next::Answer { asked_ns } = self.next else { return None };
        let (least, most) = self.pause_ns;
        let pause = least + self.random.below(most.saturating_sub(least));
        self.next = Next::Message { due_ns: now_ns + pause };
        Some(now_ns.saturating_sub(asked_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_follow_answers_and_pauses() {
        let mut talk = Talk::new((10, 20), 100);
        assert_eq!(talk.due_in(99), Some(1));
        assert_eq!(talk.due_in(100), Some(0));
        assert_eq!(talk.answered(100), None, "nothing was asked");
        talk.sent(103);
        assert_eq!(talk.due_in(500), None);
        assert_eq!(talk.answered(153), Some(50));
        let pause = talk.due_in(153).unwrap();
        assert!((10..20).contains(&pause), "{pause}");
    }
}
