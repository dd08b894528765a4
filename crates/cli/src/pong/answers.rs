//! Answers that wait for their time.

use std::collections::VecDeque;

use systole_core::Span;

/// How many answers to one client may wait. When they are too many the client is read no further
/// until one has gone, which is what a slow server does.
pub(crate) const MAX_WAITING: usize = 4_096;

/// The answers to one client, in order.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    waiting: VecDeque<(Span, Vec<u8>)>,
}

impl Answers {
    /// This answer goes out at `due`, and not before those that wait already.
    pub(crate) fn push(&mut self, due: Span, bytes: Vec<u8>) {
        self.waiting.push_back((due, bytes));
    }

    /// When the next one goes out.
    pub(crate) fn next_due(&self) -> Option<Span> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// The next one, if its time has come.
    pub(crate) fn pop(&mut self, now: Span) -> Option<Vec<u8>> {
        self.next_due().filter(|due| *due <= now)?;
        self.waiting.pop_front().map(|(_, bytes)| bytes)
    }

    /// Whether the client should be read no further for now.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_wait_for_their_time_and_for_each_other() {
        let second = Span::from_secs;
        let mut answers = Answers::default();
        answers.push(second(5), vec![1]);
        answers.push(second(6), vec![2]);
        assert_eq!(answers.next_due(), Some(second(5)));
        assert_eq!(answers.pop(second(4)), None);
        assert_eq!(answers.pop(second(7)), Some(vec![1]));
        assert_eq!(answers.pop(second(7)), Some(vec![2]));
        assert_eq!((answers.pop(second(7)), answers.next_due()), (None, None));
    }

    #[test]
    fn too_many_answers_say_so() {
        let mut answers = Answers::default();
        for _ in 0..MAX_WAITING {
            assert!(!answers.is_full());
            answers.push(Span::ZERO, Vec::new());
        }
        assert!(answers.is_full());
        answers.pop(Span::ZERO);
        assert!(!answers.is_full());
    }
}
