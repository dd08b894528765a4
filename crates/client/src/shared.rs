//! State shared by the application's handle and the driver task.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use systole_core::Policy;
use systole_core::link::PIECE;
use systole_core::window::MAX_MESSAGE;
use systole_core::wire::outbox::BOUNDARY;
use systole_core::wire::{CloseReason, Codec, line, message1028};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::mailbox::Mailbox;
use crate::{Ending, Event, SendError};

/// Capacity of the request channel: large enough that a burst of small messages does not switch
/// tasks for each.
pub(crate) const MAX_REQUESTS: usize = 64;

/// Maximum length of the send queue in bytes: a number of permits must fit 32 bits.
pub(crate) const MAX_QUEUE_LEN: usize = 1 << 30;

/// In place of a link's number: the application has asked to close the client.
const CLOSING: u64 = u64::MAX;

/// Where the answer to a flush goes.
pub(crate) type FlushReply = oneshot::Sender<FlushAnswer>;

/// The answer to a flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlushAnswer {
    /// The server has acknowledged all messages before the flush.
    Acknowledged,
    /// The session has no window.
    NoWindow,
    /// Messages were lost with a link. `losses` is how often that has happened so far, which the
    /// flush reports to [`Shared::set_reported_losses`] when it returns: a canceled flush may have
    /// its answer already, and its caller does not know of it. `messages` is their number, if it is
    /// known.
    Lost { losses: u64, messages: Option<u64> },
}

/// A request of the application to the driver.
#[derive(Debug)]
pub(crate) enum Request {
    /// Send a message in the session that began with link number `link`, unless that has ended;
    /// `cost` is its queue permits.
    Send { bytes: Vec<u8>, cost: usize, link: u64 },
    /// Answer when the server has acknowledged all messages before this request, in the session
    /// that began with link number `link`.
    Flush { reply: FlushReply, link: u64 },
    /// Attach these bytes to heartbeats.
    HeartbeatData(Vec<u8>),
    /// Ask the gateway for this policy.
    AskPolicy(Policy),
    /// Send a heartbeat on the current link, if there is one.
    Heartbeat,
    /// Send CLOSE and end the client.
    Close(CloseReason),
}

/// The mailbox, the permits of the send queue, and the number of the current link.
#[derive(Debug)]
pub(crate) struct Shared {
    mailbox: Mutex<Mailbox>,
    arrived: Notify,
    mailbox_room: Notify,
    /// The application has taken messages that are to be acknowledged.
    taken: Notify,
    queue: Semaphore,
    queue_len: usize,
    codec: Codec,
    /// Maximum length of the pieces into which the link cuts messages.
    piece_len: AtomicUsize,
    /// Maximum length of a message on the link, apart from what the queue holds.
    max_message: AtomicUsize,
    /// Number of the established link, from 1; of the link with which a session began that was
    /// resumed, or is away; 0 if there is none, [`CLOSING`] at the end.
    link: AtomicU64,
    /// Number of losses of messages of which the application knows.
    reported_losses: AtomicU64,
    closed: AtomicBool,
    /// How the client ended; not set by a task that was canceled.
    ending: OnceLock<Ending>,
}

impl Shared {
    pub(crate) fn new(codec: Codec, queue_len: usize) -> Shared {
        let queue_len = queue_len.min(MAX_QUEUE_LEN);
        Shared {
            mailbox: Mutex::default(),
            arrived: Notify::new(),
            mailbox_room: Notify::new(),
            taken: Notify::new(),
            queue: Semaphore::new(queue_len),
            queue_len,
            codec,
            piece_len: AtomicUsize::new(PIECE),
            max_message: AtomicUsize::new(usize::MAX),
            link: AtomicU64::new(0),
            reported_losses: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            ending: OnceLock::new(),
        }
    }

    /// Adds an event to the mailbox. Never waits.
    pub(crate) fn publish(&self, event: Event) {
        let report = {
            let mut mailbox = self.mailbox();
            mailbox.push(event);
            // The new event may have pushed out the report of a message.
            mailbox.should_report()
        };
        if report {
            self.taken.notify_one();
        }
        self.arrived.notify_one();
    }

    /// Records how the client ended, and reports it as the last event.
    pub(crate) fn finish(&self, ending: Ending) {
        // A client ends once.
        let _ = self.ending.set(ending);
        self.publish(Event::Closed(ending));
    }

    /// Returns how the client ended; `None` before that, or if its runtime was dropped.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }

    /// Waits for the next event; `None` after the last.
    pub(crate) async fn next_event(&self) -> Option<Event> {
        loop {
            // Read before the mailbox, so that the last event is not missed.
            let closed = self.closed.load(Ordering::Acquire);
            let (event, was_full, report) = {
                let mut mailbox = self.mailbox();
                let was_full = mailbox.is_full();
                let event = mailbox.pop();
                (event, was_full && !mailbox.is_full(), mailbox.should_report())
            };
            if was_full {
                self.mailbox_room.notify_one();
            }
            if report {
                self.taken.notify_one();
            }
            if event.is_some() || closed {
                // Other callers may be waiting for the remaining events or for the end.
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
    pub(crate) async fn mailbox_room(&self) {
        self.mailbox_room.notified().await;
    }

    /// Waits until the application has taken messages that [`Shared::report_taken`] returns.
    pub(crate) async fn taken(&self) {
        self.taken.notified().await;
    }

    /// Moves the lengths of the messages that the application has taken in the present window, and
    /// that were not reported before, to the end of `to`.
    pub(crate) fn report_taken(&self, to: &mut Vec<usize>) {
        self.mailbox().report_taken(to);
    }

    /// Begins the window of this number, or a time without one: what arrives from here on counts
    /// as taken there.
    pub(crate) fn set_window(&self, window: Option<u64>) {
        self.mailbox().set_window(window);
    }

    /// Sets the maximum length of the pieces into which the link cuts messages, and whether its
    /// session has a window.
    pub(crate) fn set_lengths(&self, piece_len: usize, has_window: bool) {
        let max_message = if has_window { MAX_MESSAGE as usize } else { usize::MAX };
        self.piece_len.store(piece_len, Ordering::Relaxed);
        self.max_message.store(max_message, Ordering::Relaxed);
    }

    /// Sets the number of the established link; 0 if there is none. A client that is being closed
    /// has none any more.
    pub(crate) fn set_link(&self, link: u64) {
        let unless_closing = |present| (present != CLOSING).then_some(link);
        let _ = self.link.fetch_update(Ordering::Release, Ordering::Relaxed, unless_closing);
    }

    /// Records that the application has asked to close the client: no message is taken any more.
    pub(crate) fn set_closing(&self) {
        self.link.store(CLOSING, Ordering::Release);
    }

    /// Marks the client as closed and wakes all waiting callers.
    pub(crate) fn close(&self) {
        self.set_link(0);
        self.closed.store(true, Ordering::Release);
        self.queue.close();
        self.arrived.notify_one();
    }

    /// Records that the application knows of this many losses of messages, or of more.
    pub(crate) fn set_reported_losses(&self, losses: u64) {
        self.reported_losses.fetch_max(losses, Ordering::Relaxed);
    }

    /// Returns the number of losses of messages of which the application knows.
    pub(crate) fn reported_losses(&self) -> u64 {
        self.reported_losses.load(Ordering::Relaxed)
    }

    /// Returns `cost` permits to the send queue.
    pub(crate) fn release(&self, cost: usize) {
        self.queue.add_permits(cost);
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.queue_len
    }

    /// Returns the number of the established link.
    pub(crate) fn current_link(&self) -> Result<u64, SendError> {
        match self.link.load(Ordering::Acquire) {
            0 if self.closed.load(Ordering::Acquire) => Err(SendError::Closed),
            0 => Err(SendError::NotConnected),
            CLOSING => Err(SendError::Closed),
            link => Ok(link),
        }
    }

    pub(crate) fn queue(&self) -> &Semaphore {
        &self.queue
    }

    /// Returns the queue permits for a message of length `len`: at least what the outbox counts.
    pub(crate) fn cost(&self, len: usize) -> Result<u32, SendError> {
        let (cost, longest) = match self.codec {
            Codec::Native => {
                let framing = native::FRAMING + BOUNDARY;
                let piece = self.piece_len.load(Ordering::Relaxed).max(1);
                let pieces = len.div_ceil(piece).max(1);
                let longest = self.queue_len / (piece + framing) * piece;
                (len.saturating_add(pieces * framing), longest)
            }
            Codec::Message1028 => (message1028::MESSAGE + BOUNDARY, message1028::MAX_DATA),
            Codec::Line => (len.saturating_add(2 + BOUNDARY), line::MAX_LINE - 2),
        };
        // A message that does not fit an empty queue can never be sent.
        let longest = longest.min(self.queue_len).min(self.max_message.load(Ordering::Relaxed));
        if len > longest || cost > self.queue_len {
            return Err(SendError::TooLong { longest });
        }
        u32::try_from(cost).map_err(|_| SendError::TooLong { longest })
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        // A panic of a holder cannot leave the mailbox half changed.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Framing of the native protocol.
pub(crate) mod native {
    /// Bytes before the data of a DATA frame: its kind, and up to three bytes of length.
    pub(crate) const FRAMING: usize = 4;
}
