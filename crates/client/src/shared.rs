//! What the application's handle and the driver of the link have in common.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use systole_core::Policy;
use systole_core::link::PIECE;
use systole_core::wire::outbox::BOUNDARY;
use systole_core::wire::{CloseReason, Codec, line, message1028};
use tokio::sync::{Notify, Semaphore};

use crate::mailbox::Mailbox;
use crate::{Event, SendError};

/// How many commands may wait for the driver, which takes them at every turn: enough that a burst
/// of small messages does not switch tasks for each.
pub(crate) const COMMANDS: usize = 64;

/// The longest queue of bytes to send: a count of permits must fit 32 bits.
pub(crate) const LONGEST_QUEUE: usize = 1 << 30;

/// What the application asks of the driver.
#[derive(Debug)]
pub(crate) enum Request {
    /// Send this on the link of that number, if it still stands; `cost` was taken off the queue.
    Send { bytes: Vec<u8>, cost: usize, link: u64 },
    /// Let this ride on heartbeats.
    HeartbeatData(Vec<u8>),
    /// Ask for this policy.
    AskPolicy(Policy),
    /// Say goodbye.
    Close(CloseReason),
}

/// The mailbox, the room in the queue, and which link stands.
#[derive(Debug)]
pub(crate) struct Shared {
    mailbox: Mutex<Mailbox>,
    arrived: Notify,
    taken: Notify,
    queue: Semaphore,
    queue_len: usize,
    codec: Codec,
    /// The longest piece into which the link cuts a message.
    piece: AtomicUsize,
    /// The number of the link that stands, from 1; 0 if none does.
    link: AtomicU64,
    ended: AtomicBool,
}

impl Shared {
    pub(crate) fn new(codec: Codec, queue_len: usize) -> Shared {
        let queue_len = queue_len.min(LONGEST_QUEUE);
        Shared {
            mailbox: Mutex::default(),
            arrived: Notify::new(),
            taken: Notify::new(),
            queue: Semaphore::new(queue_len),
            queue_len,
            codec,
            piece: AtomicUsize::new(PIECE),
            link: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Tells the application; never waits.
    pub(crate) fn tell(&self, event: Event) {
        self.mailbox().push(event);
        self.arrived.notify_one();
    }

    /// The next event; `None` once the last was taken and no more can come.
    pub(crate) async fn next_event(&self) -> Option<Event> {
        loop {
            // Read before looking, so that what is told last is not missed.
            let ended = self.ended.load(Ordering::Acquire);
            let (event, was_full) = {
                let mut mailbox = self.mailbox();
                let was_full = mailbox.is_full();
                (mailbox.pop(), was_full && !mailbox.is_full())
            };
            if was_full {
                self.taken.notify_one();
            }
            if event.is_some() || ended {
                // Others may be waiting for the rest, or for the end.
                self.arrived.notify_one();
                return event;
            }
            self.arrived.notified().await;
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.mailbox().is_full()
    }

    /// Waits until the mailbox may no longer be full.
    pub(crate) async fn taken(&self) {
        self.taken.notified().await;
    }

    /// Messages are cut into pieces of this length from now on.
    pub(crate) fn cut_into(&self, piece: usize) {
        self.piece.store(piece, Ordering::Relaxed);
    }

    /// The link of that number stands from now on; none does if it is 0.
    pub(crate) fn stand(&self, link: u64) {
        self.link.store(link, Ordering::Release);
    }

    /// Nothing more will happen.
    pub(crate) fn end(&self) {
        self.stand(0);
        self.ended.store(true, Ordering::Release);
        self.queue.close();
        self.arrived.notify_one();
    }

    /// Gives back what was taken off the queue.
    pub(crate) fn release(&self, cost: usize) {
        self.queue.add_permits(cost);
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.queue_len
    }

    /// The number of the link that stands.
    pub(crate) fn standing(&self) -> Result<u64, SendError> {
        match self.link.load(Ordering::Acquire) {
            0 if self.ended.load(Ordering::Acquire) => Err(SendError::Closed),
            0 => Err(SendError::NotConnected),
            link => Ok(link),
        }
    }

    pub(crate) fn queue(&self) -> &Semaphore {
        &self.queue
    }

    /// What a message of this length takes of the queue: no less than the outbox counts for it.
    pub(crate) fn cost(&self, len: usize) -> Result<u32, SendError> {
        let (cost, longest) = match self.codec {
            Codec::Native => {
                let framing = native::FRAMING + BOUNDARY;
                let piece = self.piece.load(Ordering::Relaxed).max(1);
                let pieces = len.div_ceil(piece).max(1);
                let longest = self.queue_len / (piece + framing) * piece;
                (len.saturating_add(pieces * framing), longest)
            }
            Codec::Message1028 => (message1028::MESSAGE + BOUNDARY, message1028::MAX_DATA),
            Codec::Line => (len.saturating_add(2 + BOUNDARY), line::MAX_LINE - 2),
        };
        // Not even an empty queue would hold it.
        let longest = longest.min(self.queue_len);
        if len > longest || cost > self.queue_len {
            return Err(SendError::TooLong { longest });
        }
        u32::try_from(cost).map_err(|_| SendError::TooLong { longest })
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        // A mailbox is whole after every step, whatever its holder did next.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The native protocol's framing.
mod native {
    /// The kind, and up to three bytes of length, of one DATA frame.
    pub(super) const FRAMING: usize = 4;
}
