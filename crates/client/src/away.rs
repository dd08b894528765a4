//! A session without a link: what is kept of it until it is resumed, or gone.

use systole_core::link::Resumable;
use systole_core::resume::NotResumed;

use crate::Undelivered;
use crate::backlog::Backlog;
use crate::shared::Shared;

/// A session whose link was lost. It belongs to the task of the client, and goes to the next link.
#[derive(Debug)]
pub(crate) struct Away {
    /// Number of the link with which the session began.
    pub(crate) number: u64,
    /// What waits for the server's acknowledgements.
    pub(crate) backlog: Backlog,
    /// The window; `None` while an attempt to resume the session has it.
    resumable: Option<Box<Resumable>>,
    /// How many messages of the session were given to a link.
    left: u64,
}

/// What an attempt to connect needs to resume a session. It is a part of [`Away`] that the attempt
/// has for its time, and gives back unless it has resumed the session.
#[derive(Debug, Default)]
pub(crate) struct Resuming {
    pub(crate) session: Option<Box<Resumable>>,
    /// Number of the link with which the session began.
    pub(crate) number: u64,
    /// Why the session is gone, once the gateway has said so.
    pub(crate) lapsed: Option<NotResumed>,
}

impl Away {
    pub(crate) fn new(number: u64, resumable: Box<Resumable>, mut backlog: Backlog) -> Away {
        backlog.note_progress(Some(resumable.progress()));
        let (left, _) = backlog.progress();
        Away { number, backlog, resumable: Some(resumable), left }
    }

    /// Returns whether the server has acknowledged every message.
    pub(crate) fn is_settled(&self) -> bool {
        self.backlog.is_settled()
    }

    /// Accepts a message. One for which the window has room is kept there, and its queue permits
    /// are released; another one waits, and keeps them.
    pub(crate) fn send(&mut self, bytes: Vec<u8>, cost: usize, shared: &Shared) {
        self.backlog.wait(bytes, cost);
        self.fill_window(shared);
    }

    /// Moves messages that wait to the window, as far as it has room.
    fn fill_window(&mut self, shared: &Shared) {
        let Some(resumable) = &mut self.resumable else {
            return;
        };
        while let Some(length) = self.backlog.next_length()
            && resumable.has_room(length)
            && let Some(next) = self.backlog.take_next()
        {
            // It has room.
            let _ = resumable.send(&next.bytes, false);
            shared.release(next.cost);
        }
        self.backlog.note_progress(Some(resumable.progress()));
    }

    /// Lends the window to an attempt to resume the session.
    pub(crate) fn lend(&mut self) -> Resuming {
        Resuming { session: self.resumable.take(), number: self.number, lapsed: None }
    }

    /// Takes the window back from an attempt that has ended. What has come meanwhile goes there.
    pub(crate) fn take_back(&mut self, resuming: Resuming, shared: &Shared) {
        self.resumable = resuming.session;
        self.fill_window(shared);
    }

    /// Returns what is not acknowledged of a session that is gone, what else waits in its backlog,
    /// and the queue permits that this frees.
    pub(crate) fn give_up(self) -> (Undelivered, Backlog, usize) {
        let Away { mut backlog, resumable, left, .. } = self;
        let (sent, acknowledged) = backlog.progress();
        let kept = resumable.iter().flat_map(|resumable| resumable.unacknowledged());
        let mut messages: Vec<Vec<u8>> = kept.map(<[u8]>::to_vec).collect();
        let waited = backlog.accepted() - sent;
        let mut cost = 0;
        while let Some(waiting) = backlog.take_next() {
            cost += waiting.cost;
            messages.push(waiting.bytes);
        }
        let uncertain = left.saturating_sub(acknowledged);
        let unsent = sent.saturating_sub(left.max(acknowledged)).saturating_add(waited);
        (Undelivered { uncertain, unsent, messages }, backlog, cost)
    }
}
