//! What the control plane wants of a shard.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use mio::Waker;
use systole_core::flight::Flight;
use systole_core::{Policy, Span, Time, hub};
use tokio::sync::oneshot;

use crate::report::{SessionInfo, Subject};

/// How many requests may wait for a shard: people and scripts ask, not traffic. A full channel
/// refuses, and whoever asked is told to try again.
pub const REQUESTS: usize = 256;

/// The most sessions one request may return, which bounds what a question costs the loop to about
/// 0.2 ms.
pub const SESSIONS_PER_PAGE: usize = 500;

/// The most links one request may look through in search of matches, for the same reason.
pub const LINKS_PER_SEARCH: usize = 5_000;

/// One thing wanted of a shard.
#[derive(Debug)]
pub enum Request {
    /// A page of sessions.
    Sessions {
        /// From this link number on.
        from: u32,
        /// At most so many; never more than [`SESSIONS_PER_PAGE`].
        limit: usize,
        /// Only these.
        filter: Filter,
        /// Where the answer goes.
        reply: oneshot::Sender<Page>,
    },
    /// One session.
    Session {
        /// Its number.
        session: u64,
        /// Where the answer goes; `None` if it is not online here.
        reply: oneshot::Sender<Option<SessionInfo>>,
    },
    /// How one session is doing.
    Story {
        /// Its number.
        session: u64,
        /// Where the answer goes; `None` if it is not online here.
        reply: oneshot::Sender<Option<Box<Story>>>,
    },
    /// Something is wanted of one session.
    Order {
        /// Its number.
        session: u64,
        /// What.
        order: Order,
        /// Whether it was online here.
        reply: oneshot::Sender<bool>,
    },
    /// Something is wanted of all links.
    Command(hub::HubCommand),
    /// Accept no more links.
    StopAccepting,
    /// Close what is open, and end.
    Stop,
}

/// What may be wanted of one session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// End it.
    Kick {
        /// Whether it should stay away.
        stay_away: bool,
    },
    /// No suspicion and no verdict for this long.
    Hold(Span),
    /// End a hold.
    Release,
    /// Put this policy in force.
    Retune(Policy),
}

/// Which sessions are wanted; what is `None` does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Those whose identity is this.
    pub identity: Option<String>,
    /// Those of this listener.
    pub listener: Option<u16>,
    /// Those that are suspected, or those that are not.
    pub suspect: Option<bool>,
}

/// What happened lately to a session that is online.
#[derive(Clone, Debug)]
pub struct Story {
    /// Which.
    pub subject: Subject,
    /// Whether it is suspected.
    pub suspect: bool,
    /// What happened; `None` for a beacon, which keeps no flight.
    pub flight: Option<Flight>,
    /// The present, in vigilant time.
    pub now: Time,
    /// The present, in milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
}

/// Some sessions of one shard.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The sessions, in order of their link's number.
    pub sessions: Vec<SessionInfo>,
    /// Where to go on; `None` at the end.
    pub next: Option<u32>,
}

/// Sends requests to one shard.
#[derive(Clone, Debug)]
pub struct Requests {
    sender: SyncSender<Request>,
    waker: Arc<Waker>,
}

impl Requests {
    /// Requests that go into `sender` and wake the loop through `waker`.
    pub fn new(sender: SyncSender<Request>, waker: Arc<Waker>) -> Requests {
        Requests { sender, waker }
    }

    /// Hands over a request and wakes the shard.
    ///
    /// # Errors
    /// Refuses when the shard is busy (try again) or gone (do not).
    pub fn send(&self, request: Request) -> Result<(), Refused> {
        self.sender.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Busy,
            TrySendError::Disconnected(_) => Refused::Gone,
        })?;
        self.waker.wake().map_err(|_| Refused::Gone)
    }
}

/// Why a shard took no request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Too many wait already; try again.
    Busy,
    /// The shard has ended.
    Gone,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refused::Busy => "the shard is busy; try again",
            Refused::Gone => "the shard has ended",
        })
    }
}

impl std::error::Error for Refused {}
