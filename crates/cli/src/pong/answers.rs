//! A queue of delayed answers to one client.

use std::collections::VecDeque;

use systole_core::Span;

/// Maximum of answers to one client that wait. While the queue is full the client is not read, as
/// by a slow server.
pub(crate) const MAX_WAITING: usize = 4_096;

/// The delayed answers to one client, in order.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    waiting: VecDeque<(Span, Vec<u8>)>,
}

impl Answers {
    /// Adds an answer that is sent at `due`, but not before the answers already in the queue.
    pub(crate) fn push(&mut self, due: Span, bytes: Vec<u8>) {
        self.waiting.push_back((due, bytes));
    }

    /// Returns the time at which the next answer is due.
    pub(crate) fn next_due(&self) -> Option<Span> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// Removes and returns the next answer if it is due.
    pub(crate) fn pop(&mut self, now: Span) -> Option<Vec<u8>> {
        self.next_due().filter(|due| *due <= now)?;
        self.waiting.pop_front().map(|(_, bytes)| bytes)
    }

    /// Whether reading from the client must pause.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sent_when_due_and_in_order() {
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
    fn a_full_queue_is_reported() {
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
