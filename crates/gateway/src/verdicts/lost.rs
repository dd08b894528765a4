//! The verdicts on the links of sessions that are away.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Ended;

/// The verdict on the link of each session that is away, until it is resumed or ends. When full,
/// the oldest gives way, and then nothing is left of the link but what the shard knows.
#[derive(Debug)]
pub(super) struct Lost {
    kept: HashMap<u64, (u64, Arc<Ended>)>,
    /// The numbers of all verdicts that may be kept, with their sessions, in order.
    order: VecDeque<(u64, u64)>,
    capacity: usize,
    last: u64,
}

impl Lost {
    pub(super) fn new(capacity: usize) -> Lost {
        Lost { kept: HashMap::new(), order: VecDeque::new(), capacity, last: 0 }
    }

    pub(super) fn put(&mut self, ended: Ended) {
        self.last += 1;
        let session = ended.subject.session;
        self.order.push_back((self.last, session));
        self.kept.insert(session, (self.last, Arc::new(ended)));
        if self.order.len() > self.capacity
            && let Some((number, oldest)) = self.order.pop_front()
            && self.kept.get(&oldest).is_some_and(|(of, _)| *of == number)
        {
            self.kept.remove(&oldest);
        }
    }

    pub(super) fn get(&self, session: u64) -> Option<&Arc<Ended>> {
        self.kept.get(&session).map(|(_, ended)| ended)
    }

    pub(super) fn get_mut(&mut self, session: u64) -> Option<&mut Arc<Ended>> {
        self.kept.get_mut(&session).map(|(_, ended)| ended)
    }

    pub(super) fn remove(&mut self, session: u64) -> Option<Arc<Ended>> {
        self.kept.remove(&session).map(|(_, ended)| ended)
    }
}
