//! The window of a session: the messages of both directions that outlive a link.
//!
//! Whoever sends keeps each message until the peer has acknowledged it, and sends what is kept
//! again on the next link. Whoever receives counts whole messages, and acknowledges those that its
//! application has taken. Both counts begin with the session, so that after a resumption both ends
//! know exactly what the other one has: nothing is lost, doubled or reordered.
//!
//! An acknowledgement rides on what goes the other way anyway. It goes alone where half of the
//! window is used, and where the peer asks for it; so a quiet link carries none.

mod incoming;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

pub use incoming::Incoming;

use crate::plain::plain_struct;
use crate::wire::Malformed;

/// The longest message of a session with a window, in bytes. Whoever sends keeps a message whole
/// until it is acknowledged, so there must be a limit; lists and pictures fit.
pub const MAX_MESSAGE: u32 = 16 * 1024 * 1024;

/// The memory that a kept message takes beside its bytes, about: its place in a queue that doubles,
/// and what an allocator adds. Without it, short messages would fill the memory uncounted.
pub const KEPT_MEMORY: usize = 64;

/// How much one end may send that is not acknowledged yet, as WELCOME has told.
///
/// A message that is longer than `bytes` may go too, when no other is unacknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// The number of messages, at least 1.
    pub messages: u32,
    /// The sum of their lengths in bytes.
    pub bytes: u32,
}

plain_struct! { Limits { messages, bytes } if Limits::is_legal }

impl Limits {
    /// Returns whether anything may be sent.
    pub const fn is_legal(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    /// Returns whether a message of this length may follow these that are unacknowledged.
    const fn allow(self, messages: usize, bytes: usize, length: usize) -> bool {
        messages == 0
            || (messages < self.messages as usize
                && bytes.saturating_add(length) <= self.bytes as usize)
    }
}

/// A message that waits for its acknowledgement.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept(Box<[u8]>);

impl Kept {
    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Without the bytes, which belong to the application alone.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The window is full, or the message is longer than [`MAX_MESSAGE`]. Nothing was changed; a
/// message that is not too long can be offered again once the peer has acknowledged an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer has not acknowledged enough of what was sent before")
    }
}

impl core::error::Error for Full {}

/// The outgoing half of a window.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// The messages that the peer has acknowledged, of all in the session.
    acknowledged: u64,
    /// The unacknowledged messages, the oldest first; `None` if there is none, as on a quiet link.
    kept: Option<Box<Queue>>,
}

#[derive(Clone, Default)]
struct Queue {
    messages: VecDeque<Kept>,
    /// The parts so far of a message that is not whole yet.
    parts: Vec<u8>,
    /// The bytes of all, of the parts too.
    bytes: usize,
    /// The bytes of the whole messages, of which each counts as one window at most.
    weight: usize,
    /// The bytes of a window.
    window: usize,
    /// How many of the messages have left on the present link.
    left: usize,
    /// The bytes of those that have left.
    left_bytes: usize,
    /// How many of the messages are to be acknowledged at once; 0 if none.
    hurried: usize,
    /// How many of the messages the peer was asked to acknowledge at once, on the present link.
    asked: usize,
    /// Whether the peer is to be asked for that without a message.
    asks: bool,
}

/// Without the bytes, which belong to the application alone.
impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, left) = (self.messages.len(), self.left);
        write!(f, "{messages} messages, {} bytes, {left} left", self.bytes)
    }
}

plain_struct! { Outgoing { acknowledged, kept } if Outgoing::is_legal }
plain_struct! { Queue {
    messages,
    parts,
    bytes,
    weight,
    window,
    left,
    left_bytes,
    hurried,
    asked,
    asks
} }
plain_struct! { Kept { 0: bytes } }

/// A message that leaves on the present link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Departure<'a> {
    /// The message.
    pub bytes: &'a [u8],
    /// Whether the peer is asked to acknowledge it at once.
    pub hurried: bool,
}

impl Outgoing {
    fn is_legal(&self) -> bool {
        let Some(kept) = &self.kept else {
            return true;
        };
        let bytes: usize = kept.messages.iter().map(|message| message.0.len()).sum();
        let left: usize = kept.messages.iter().take(kept.left).map(|it| it.0.len()).sum();
        let count = kept.messages.len();
        let weight: usize = kept.messages.iter().map(|it| it.0.len().min(kept.window)).sum();
        let counts_fit = kept.left <= count && kept.hurried <= count && kept.asked <= kept.left;
        let bytes_fit = bytes.saturating_add(kept.parts.len()) == kept.bytes;
        bytes_fit && weight == kept.weight && left == kept.left_bytes && counts_fit
    }

    /// Returns how many messages of the session were accepted so far.
    pub fn sent(&self) -> u64 {
        self.acknowledged.saturating_add(self.unacknowledged() as u64)
    }

    /// Returns how many messages of the session the peer has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Returns how many messages are kept.
    pub fn unacknowledged(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.messages.len())
    }

    /// Returns how many messages are kept that have not left on the present link.
    pub fn waiting(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.messages.len() - kept.left)
    }

    /// Returns the bytes of the messages that are kept.
    pub fn bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes)
    }

    /// Returns the memory that the messages take which are kept.
    pub fn memory(&self) -> usize {
        self.bytes() + self.unacknowledged() * KEPT_MEMORY
    }

    /// Returns the messages that are kept, the oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().flat_map(|kept| &kept.messages)
    }

    /// Returns whether so many bytes more would be accepted: a message, or the next part of one.
    pub fn has_room(&self, window: Limits, windows: u32, length: usize) -> bool {
        let parts = self.kept.as_ref().map_or(0, |kept| kept.parts.len());
        let length = parts.saturating_add(length);
        if length > MAX_MESSAGE as usize {
            return false;
        }
        let messages = self.unacknowledged();
        if windows == 1 {
            return window.allow(messages, self.bytes() - parts, length);
        }
        let (windows, bytes) = (windows as usize, window.bytes as usize);
        messages < windows.saturating_mul(window.messages as usize)
            && self.weight() + length.min(bytes) <= windows.saturating_mul(bytes)
    }

    /// Returns the bytes of the messages that are kept, of which each counts as one window at most.
    pub fn weight(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.weight)
    }

    /// Accepts a message, or a part of one if there is more of it. It is kept until the peer has
    /// acknowledged it. At most so many `windows` are kept: one, or more if messages may wait here
    /// for room in the window. Of several, each message takes one at most.
    ///
    /// # Errors
    /// [`Full`]: the peer is asked for an acknowledgement; wait for it, and try again.
    pub fn accept(
        &mut self,
        window: Limits,
        windows: u32,
        bytes: &[u8],
        more: bool,
    ) -> Result<(), Full> {
        if !self.has_room(window, windows, bytes.len()) {
            self.flush();
            return Err(Full);
        }
        let kept = self.kept.get_or_insert_default();
        kept.bytes += bytes.len();
        if more {
            kept.parts.extend_from_slice(bytes);
            return Ok(());
        }
        let message: Box<[u8]> = if kept.parts.is_empty() {
            bytes.into()
        } else {
            kept.parts.extend_from_slice(bytes);
            core::mem::take(&mut kept.parts).into_boxed_slice()
        };
        kept.window = window.bytes as usize;
        kept.weight += message.len().min(kept.window);
        kept.messages.push_back(Kept(message));
        Ok(())
    }

    /// Asks for an acknowledgement of all that was accepted, at once.
    pub fn flush(&mut self) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        kept.hurried = kept.messages.len();
        // If not all have left, the last one asks.
        kept.asks |= kept.left == kept.hurried && kept.asked < kept.left;
    }

    /// Returns whether the peer is now to be asked for an acknowledgement without a message.
    pub fn take_ask(&mut self) -> bool {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.asks) else {
            return false;
        };
        (kept.asks, kept.asked) = (false, kept.left);
        true
    }

    /// Returns the next message that leaves on the present link, within the window; `None` if all
    /// have left, or if the next one must wait for an acknowledgement.
    pub fn depart(&mut self, window: Limits) -> Option<Departure<'_>> {
        let kept = self.kept.as_mut()?;
        let message = kept.messages.get(kept.left)?;
        if !window.allow(kept.left, kept.left_bytes, message.0.len()) {
            // The peer may wait with its acknowledgement as long as it thinks there is room.
            kept.hurried = kept.hurried.max(kept.left);
            kept.asks |= kept.asked < kept.left;
            return None;
        }
        kept.left += 1;
        kept.left_bytes += message.0.len();
        let next = kept.messages.get(kept.left).map_or(1, |next| next.0.len());
        // One that fills the window asks, whatever later one is to ask too: that one cannot go.
        let fills = !window.allow(kept.left, kept.left_bytes, next);
        let hurried = fills || kept.hurried == kept.left;
        if hurried {
            (kept.hurried, kept.asked, kept.asks) = (kept.hurried.max(kept.left), kept.left, false);
        }
        Some(Departure { bytes: &message.0, hurried })
    }

    /// Takes an acknowledgement of the peer: how many messages of the session it has taken, modulo
    /// 2^32. Returns how many messages that frees; none if the peer has said more before, since an
    /// acknowledgement on a heartbeat overtakes one on DATA.
    ///
    /// # Errors
    /// [`Malformed::Acknowledgement`] if as many have not left on the present link.
    pub fn acknowledge(&mut self, count: u32) -> Result<usize, Malformed> {
        let more = count.wrapping_sub(self.acknowledged as u32);
        if more > i32::MAX as u32 {
            return Ok(0);
        }
        let more = more as usize;
        let left = self.kept.as_ref().map_or(0, |kept| kept.left);
        if more > left {
            return Err(Malformed::Acknowledgement);
        }
        self.free(more);
        Ok(more)
    }

    fn free(&mut self, count: usize) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        for message in kept.messages.drain(..count.min(kept.messages.len())) {
            kept.bytes -= message.0.len();
            kept.weight -= message.0.len().min(kept.window);
            if kept.left > 0 {
                (kept.left, kept.left_bytes) = (kept.left - 1, kept.left_bytes - message.0.len());
            }
            self.acknowledged += 1;
        }
        kept.hurried = kept.hurried.saturating_sub(count);
        kept.asked = kept.asked.saturating_sub(count);
        if kept.messages.is_empty() && kept.parts.is_empty() {
            self.kept = None;
        }
    }

    /// Drops the part of a message that is not whole: what a link's end has cut begins anew.
    pub fn cut(&mut self) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        kept.bytes -= kept.parts.len();
        kept.parts = Vec::new();
        if kept.messages.is_empty() {
            self.kept = None;
        }
    }

    /// Begins a new link, whose peer has received this many messages of the session. What is kept
    /// leaves again. Returns how many messages had to be sent again.
    ///
    /// # Errors
    /// [`Malformed::Acknowledgement`] if the peer cannot have received as many.
    pub fn resume(&mut self, received: u64) -> Result<usize, Malformed> {
        if !(self.acknowledged..=self.sent()).contains(&received) {
            return Err(Malformed::Acknowledgement);
        }
        // What is received and not taken yet is not acknowledged: if that end's process is lost,
        // its session is lost too. It need not be sent again, though.
        let again = (self.sent() - received) as usize;
        let Some(kept) = &mut self.kept else {
            return Ok(0);
        };
        kept.left = kept.messages.len() - again;
        kept.left_bytes = kept.messages.iter().take(kept.left).map(|it| it.0.len()).sum();
        kept.asked = 0;
        kept.asks = (1..=kept.left).contains(&kept.hurried);
        Ok(again)
    }
}
