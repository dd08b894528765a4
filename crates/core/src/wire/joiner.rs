//! Joins the pieces of a message, which arrive as separate DATA frames.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::mem;

/// Joins the pieces that arrive on one link into messages of a limited length.
///
/// Of a message that is too long only the length is kept. A joiner between two messages holds no
/// memory, and a message that arrives in one piece is not copied.
#[derive(Clone, Debug)]
pub struct Joiner {
    limit: usize,
    /// The pieces so far of a message whose end has not arrived; empty if it is too long.
    partial: Vec<u8>,
    /// The length of these pieces, whether kept or not.
    length: u64,
}

/// A message whose last piece has arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joined<'a> {
    /// The whole message.
    Message(Cow<'a, [u8]>),
    /// The message was longer than the limit, and was dropped.
    TooLong {
        /// Its length in bytes.
        length: u64,
    },
}

impl Joiner {
    /// Creates a joiner that keeps messages of at most `limit` bytes.
    pub const fn new(limit: usize) -> Joiner {
        Joiner { limit, partial: Vec::new(), length: 0 }
    }

    /// Adds a piece; `more` states whether the message continues in the next one. Returns the
    /// message if this was its last piece.
    pub fn add<'a>(&mut self, piece: &'a [u8], more: bool) -> Option<Joined<'a>> {
        let is_first = self.length == 0;
        self.length = self.length.saturating_add(piece.len() as u64);
        let fits = self.length <= self.limit as u64;
        match (fits, more) {
            (true, false) if is_first => {
                self.length = 0;
                return Some(Joined::Message(Cow::Borrowed(piece)));
            }
            (true, _) => self.keep(piece),
            (false, _) => self.partial = Vec::new(),
        }
        if more {
            return None;
        }
        let length = mem::take(&mut self.length);
        let message = mem::take(&mut self.partial);
        Some(if fits { Joined::Message(Cow::Owned(message)) } else { Joined::TooLong { length } })
    }

    /// Returns the memory that the joiner holds for a message whose end has not arrived, in bytes:
    /// at most the limit.
    pub fn memory(&self) -> usize {
        self.partial.capacity()
    }

    /// Keeps a piece. The buffer doubles when it is full, but not beyond the limit.
    fn keep(&mut self, piece: &[u8]) {
        let length = self.partial.len() + piece.len();
        if length > self.partial.capacity() {
            let doubled = self.partial.capacity().saturating_mul(2).min(self.limit);
            self.partial.reserve_exact(doubled.max(length) - self.partial.len());
        }
        self.partial.extend_from_slice(piece);
    }
}
