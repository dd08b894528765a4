//! Requests from the control plane to a shard.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use serde_json::Value;
use systole_core::cause::Verdict;
use systole_core::flight::Flight;
use systole_core::hub::Unsendable;
use systole_core::kernel::TcpSnapshot;
use systole_core::link::{Command, Goodbye};
use systole_core::wire::CloseReason;
use systole_core::{Policy, Span, Time, hub};
use tokio::sync::oneshot;

use crate::bans::Banned;
use crate::identity;
use crate::report::{AwayInfo, SessionInfo, Shown, Subject};
use crate::wake::LoopWaker;

/// Capacity of a shard's request channel: requests come from people and scripts, not from traffic.
/// A full channel refuses, and the caller is asked to try again.
pub const REQUESTS: usize = 256;

/// Maximum number of requests that a shard answers in one turn; more wait for the next.
const REQUESTS_PER_TURN: usize = 16;

/// Capacity of the channel of the links that come from other shards: with it full, a shard has work
/// for some 20 ms, and a peer that would come is sent away to come back later.
pub const ARRIVALS: usize = 1_024;

/// Maximum number of links that a shard takes over in one turn, for about 0.3 ms.
const ARRIVALS_PER_TURN: usize = 16;

/// Maximum number of sessions that one request returns. Bounds the cost of a request for the loop
/// to about 0.2 ms.
pub const SESSIONS_PER_PAGE: usize = 500;

/// Maximum number of identities in one request, for the same reason.
pub const IDENTITIES_PER_REQUEST: usize = 64;

/// Maximum number of sessions to which one request sends: each costs a write of some 5 µs.
pub const SENDS_PER_REQUEST: usize = 48;

/// Maximum number of places of a shard's table, empty ones included, that one request searches for
/// matches, for the same reason.
pub const SLOTS_PER_SEARCH: usize = 5_000;

/// One request to a shard.
#[derive(Debug)]
pub enum Request {
    /// Asks for a page of sessions.
    Sessions {
        /// The first link number of the page, or place of a session that is away.
        from: u32,
        /// Maximum number of sessions; never more than [`SESSIONS_PER_PAGE`].
        limit: usize,
        /// Which sessions are wanted.
        filter: Filter,
        /// The channel for the answer.
        reply: oneshot::Sender<Page>,
    },
    /// Asks for one session.
    Session {
        /// The session's number.
        session: u64,
        /// The channel for the answer; `None` if the session is neither online nor away here.
        reply: oneshot::Sender<Option<Shown>>,
    },
    /// Asks how a session lives whose host has just lost another one.
    Sibling {
        /// The session's number.
        session: u64,
        /// The channel for the answer; `None` if the session is not online here.
        reply: oneshot::Sender<Option<Sibling>>,
    },
    /// Asks for the recent history of one session.
    Story {
        /// The session's number.
        session: u64,
        /// The channel for the answer; `None` if the session is neither online nor away here.
        reply: oneshot::Sender<Option<Box<Story>>>,
    },
    /// Gives an order to one session.
    Order {
        /// The session's number.
        session: u64,
        /// The order.
        order: Order,
        /// The channel for the answer: whether the session was online here, or away if the order
        /// ends it.
        reply: oneshot::Sender<bool>,
    },
    /// Sends a message that comes from outside.
    Deliver {
        /// Whom it is for.
        to: Target,
        /// The message.
        message: Arc<[u8]>,
        /// Who is first: the shard that sends it, or the caller that waits no longer.
        claim: Claim,
        /// The channel for the answer.
        reply: oneshot::Sender<Delivered>,
    },
    /// Asks for the sessions of identities, which are at most [`IDENTITIES_PER_REQUEST`].
    Identities {
        /// The identities.
        identities: Vec<Arc<str>>,
        /// Maximum number of sessions of each that are described.
        limit: usize,
        /// The channel for the answer, in the same order.
        reply: oneshot::Sender<Vec<SessionsOf>>,
    },
    /// Moves a session with its link to another shard of the same listeners.
    Move {
        /// The session's number.
        session: u64,
        /// The other shard.
        to: Arrivals,
        /// The channel for the answer: whether the session was moved. If not, it stays here, or it
        /// was not online here.
        reply: oneshot::Sender<bool>,
    },
    /// Answers a login whose token the shard has given away to be verified.
    LoggedIn(identity::Answer),
    /// Gives a command to all links.
    Command(hub::HubCommand<'static>),
    /// Stops listening, once the peers that have queued at the shard's own sockets are accepted.
    StopAccepting,
    /// Ends the shard and closes its sockets.
    Stop,
}

/// A link that moves: what one shard packs, another of the same kind unpacks.
pub struct Parcel(pub(crate) Box<dyn Any + Send>);

impl std::fmt::Debug for Parcel {
    /// Without the content, which includes bytes of the peer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parcel")
    }
}

/// An order to one session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Ends the session.
    Kick {
        /// Whether the peer is asked not to return.
        stay_away: bool,
        /// What the peer's people are told, at most
        /// [`MAX_CLOSE_TEXT`](systole_core::wire::MAX_CLOSE_TEXT) bytes; empty for nothing.
        text: Box<str>,
    },
    /// Ends the session of a peer that is banned.
    KeepOut {
        /// The time after which it may come back.
        lasts: Span,
        /// As for [`Order::Kick`].
        stay_away: bool,
        /// As for [`Order::Kick`].
        text: Box<str>,
    },
    /// Suspends suspicion and verdict for this long.
    Hold(Span),
    /// Ends a hold.
    Release,
    /// Puts this policy in force.
    Retune(Policy),
}

impl<'a> From<&'a Order> for Command<'a> {
    fn from(order: &'a Order) -> Command<'a> {
        match order {
            Order::Kick { stay_away, text } => kick(Span::ZERO, *stay_away, text),
            Order::KeepOut { lasts, stay_away, text } => kick(*lasts, *stay_away, text),
            Order::Hold(span) => Command::Hold(*span),
            Order::Release => Command::Release,
            Order::Retune(policy) => Command::Retune(*policy),
        }
    }
}

fn kick(return_after: Span, stay_away: bool, text: &str) -> Command<'_> {
    let goodbye = Goodbye { reason: CloseReason::Kicked, stay_away, return_after };
    Command::Close { goodbye, text }
}

/// Whom a message from outside is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// One session.
    Session(u64),
    /// The sessions of an identity.
    Identity(Arc<str>),
    /// All sessions that match, from a link number on.
    All {
        /// The number.
        from: u32,
        /// Only sessions of this listener.
        listener: Option<u16>,
        /// Only sessions with this attribute.
        attribute: Option<Arc<(String, Value)>>,
    },
}

/// The sessions of an identity that are online or away.
#[derive(Clone, Debug, Default)]
pub struct SessionsOf {
    /// Some or all of those online.
    pub shown: Vec<SessionInfo>,
    /// Some or all of those that are away.
    pub away: Vec<AwayInfo>,
    /// How many more there are.
    pub more: u64,
}

/// The right to carry a request out, or to withdraw it: whoever claims it first has it. So a
/// request that its caller has given up is never carried out later.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Returns whether this is the first call.
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// How many sessions a message was sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delivered {
    /// Shards that gave no answer: their sessions, or some of them, were not reached.
    pub unreached: u64,
    /// Sessions to which it was sent, or for which it waits behind earlier messages.
    pub queued: u64,
    /// Sessions that are away, for which it is kept until they are resumed.
    pub away: u64,
    /// Sessions whose codec cannot carry it: it is too long, or no line. All beacons.
    pub unfit: u64,
    /// Sessions that read too slowly for another message, or are being sent one in parts; and those
    /// that are away and have no room for it.
    pub busy: u64,
    /// Where the next request continues; `None` if all sessions were looked at.
    pub next: Option<u32>,
}

impl Delivered {
    /// Counts what one session has not got, and why; returns 1 if it has got it.
    pub(crate) fn count(&mut self, sent: Result<(), Unsendable>) -> u64 {
        match sent {
            Ok(()) => return 1,
            Err(Unsendable::Unfit) => self.unfit += 1,
            Err(Unsendable::Busy) => self.busy += 1,
            Err(Unsendable::Gone) => {}
        }
        0
    }
}

/// Selects sessions; a field that is `None` matches all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Sessions of this identity.
    pub identity: Option<String>,
    /// Sessions of this listener.
    pub listener: Option<u16>,
    /// Sessions that are suspect, or those that are not.
    pub suspect: Option<bool>,
    /// Sessions of whom this ban keeps out.
    pub banned: Option<Banned>,
    /// Those that are away, instead of those online.
    pub away: bool,
}

/// How a session lives whose host has just lost another one.
#[derive(Clone, Copy, Debug)]
pub struct Sibling {
    /// How long ago the peer was last heard.
    pub heard_ago: Span,
    /// Whether the session is suspect.
    pub suspect: bool,
    /// The kernel's view of the connection; `None` where the kernel has none.
    pub tcp: Option<TcpSnapshot>,
}

/// The recent history of a session that is online or away.
#[derive(Clone, Debug)]
pub struct Story {
    /// The session.
    pub subject: Subject,
    /// Whether the session is suspect.
    pub suspect: bool,
    /// The flight recorder; `None` for a beacon, which has none, and for a session that is away.
    pub flight: Option<Flight>,
    /// The verdict on the link of a session that is away, and how it is shown; else `None`.
    pub away: Option<(Verdict, AwayInfo)>,
    /// The time of the answer, in vigilant time.
    pub now: Time,
    /// The time of the answer, in milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
}

/// A page of the sessions of one shard.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The sessions online, in the order of their link numbers.
    pub sessions: Vec<SessionInfo>,
    /// The sessions that are away, if they were asked for, in the order of their places.
    pub away: Vec<AwayInfo>,
    /// The first link number, or place, of the next page; `None` at the end.
    pub next: Option<u32>,
}

/// The sending end of one shard's requests.
#[derive(Clone, Debug)]
pub struct Requests {
    sender: SyncSender<Request>,
    waker: LoopWaker,
}

impl Requests {
    /// Makes a sender into `sender` that wakes the loop through `waker`.
    pub(crate) fn new(sender: SyncSender<Request>, waker: LoopWaker) -> Requests {
        Requests { sender, waker }
    }

    /// Returns what wakes the shard.
    pub(crate) fn waker(&self) -> LoopWaker {
        self.waker.clone()
    }

    /// Sends a request and wakes the shard.
    ///
    /// # Errors
    /// The shard is busy (try again) or has ended (do not).
    pub fn send(&self, request: Request) -> Result<(), Refused> {
        self.sender.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Busy,
            TrySendError::Disconnected(_) => Refused::Gone,
        })?;
        self.waker.wake().map_err(|_| Refused::Gone)
    }

    /// Sends a request and wakes the shard. Waits while the shard has no room, for a thread that
    /// may wait.
    ///
    /// # Errors
    /// The shard has ended.
    pub(crate) fn send_and_wait(&self, request: Request) -> Result<(), Refused> {
        self.sender.send(request).map_err(|_| Refused::Gone)?;
        self.waker.wake().map_err(|_| Refused::Gone)
    }
}

/// The way for links from other shards into one.
#[derive(Clone, Debug)]
pub struct Arrivals {
    sender: SyncSender<Parcel>,
    waker: LoopWaker,
}

impl Arrivals {
    pub(crate) fn new(sender: SyncSender<Parcel>, waker: LoopWaker) -> Arrivals {
        Arrivals { sender, waker }
    }

    /// Sends a link and wakes the shard; gives the link back if the shard is full or has ended.
    pub(crate) fn deliver(&self, parcel: Parcel) -> Result<(), Parcel> {
        self.sender.try_send(parcel).map_err(|error| match error {
            TrySendError::Full(parcel) | TrySendError::Disconnected(parcel) => parcel,
        })?;
        // A shard that has ended while the link came in takes it over and ends it.
        let _ = self.waker.wake();
        Ok(())
    }
}

/// The receiving end of one shard's requests.
#[derive(Debug)]
pub(crate) struct RequestQueue {
    receiver: Receiver<Request>,
    arrivals: Receiver<Parcel>,
    /// How many more requests may be taken in this turn.
    left: usize,
    /// How many more links may be taken over in this turn.
    arrivals_left: usize,
}

impl RequestQueue {
    /// Makes the queue of a shard to which no links come.
    pub(crate) fn new(receiver: Receiver<Request>) -> RequestQueue {
        RequestQueue::with_arrivals(receiver, sync_channel(0).1)
    }

    pub(crate) fn with_arrivals(
        receiver: Receiver<Request>,
        arrivals: Receiver<Parcel>,
    ) -> RequestQueue {
        let (left, arrivals_left) = (REQUESTS_PER_TURN, ARRIVALS_PER_TURN);
        RequestQueue { receiver, arrivals, left, arrivals_left }
    }

    /// Begins a turn of the loop, once its wake-ups are taken.
    pub(crate) fn begin_turn(&mut self) {
        self.left = REQUESTS_PER_TURN;
        self.arrivals_left = ARRIVALS_PER_TURN;
    }

    /// Takes the next request of this turn. A shard to which nobody can send any more is to end.
    pub(crate) fn next(&mut self) -> Option<Request> {
        self.left = self.left.checked_sub(1)?;
        match self.receiver.try_recv() {
            Ok(request) => Some(request),
            Err(TryRecvError::Disconnected) => Some(Request::Stop),
            Err(TryRecvError::Empty) => {
                self.left = REQUESTS_PER_TURN;
                None
            }
        }
    }

    /// Takes over the next link of this turn that comes from another shard.
    pub(crate) fn next_arrival(&mut self) -> Option<Parcel> {
        let left = self.arrivals_left.checked_sub(1)?;
        let parcel = self.arrivals.try_recv().ok()?;
        self.arrivals_left = left;
        Some(parcel)
    }

    /// Takes the next link that comes from another shard. For a shard that ends.
    pub(crate) fn last_arrival(&mut self) -> Option<Parcel> {
        self.arrivals.try_recv().ok()
    }

    /// Whether more requests or links may wait, for which no further wake-up will come.
    pub(crate) fn may_hold_more(&self) -> bool {
        self.left == 0 || self.arrivals_left == 0
    }
}

/// The reason why a shard refused a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The request channel is full; try again.
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
