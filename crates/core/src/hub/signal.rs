//! The inputs and outputs of a hub, and its counters.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Login;
use crate::denial::Denied;
use crate::home::Homes;
use crate::kernel::Examination;
use crate::link;
use crate::machine::{self, kinds_of_input};
use crate::policy::Policy;
use crate::resume::{Digest, Fresh};
use crate::session;
use crate::time::Span;
use crate::wire::DataKind;

/// The settings of a [`Hub`](super::Hub).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The number of the shard, which is the first byte of the session numbers.
    pub shard: u8,
    /// The homes of identities.
    pub homes: Homes,
    /// The settings of the links of each listener, all of the accepting side.
    pub listeners: Vec<link::Settings>,
    /// The seed of the spread of probes and of the session numbers: a random number, new at each
    /// start.
    pub seed: u64,
    /// The memory that incomplete frames may take together, in bytes. Beyond that, the links with
    /// the oldest incomplete frames end with
    /// [`Malformed::OldestFrame`](crate::wire::Malformed::OldestFrame), whatever their policy.
    pub frame_memory: usize,
    /// The memory that messages may take together until they are acknowledged, in bytes. Beyond
    /// that, a link that would keep more ends as a slow consumer.
    pub window_memory: usize,
    /// How many sessions may be away at once. Beyond that, the oldest ends of the address that has
    /// most of them.
    pub away: u32,
}

crate::plain::plain_struct! { Settings {
    shard,
    homes,
    listeners,
    seed,
    frame_memory,
    window_memory,
    away
} }

/// What the world did to a [`Hub`](super::Hub).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World<'a> {
    /// A peer connected.
    Opened {
        /// The shell's number for this link: below [`MAX_LINKS`](super::MAX_LINKS), and
        /// best assigned densely. A number may be reused once the link's `Close` was polled. A link
        /// whose number is in use or too large is closed at once.
        link: u32,
        /// The index of the listener. A link of an unknown listener is closed at once.
        listener: u16,
        /// The peer's address.
        address: SocketAddr,
    },
    /// What happened to one link. What happens to an unknown link is ignored.
    Link {
        /// The link's number.
        link: u32,
        /// What happened to the link.
        input: link::World<'a>,
    },
    /// The login that [`Output::Admit`] asked about succeeded: the peer may have a session. Ignored
    /// if the link no longer waits for it. [`Output::Own`] follows, here or, after
    /// [`Output::GoHome`], at the home of the identity.
    Identified {
        /// The link's number.
        link: u32,
        /// The number of the admission.
        admission: u32,
        /// What is known of the peer.
        login: Login<'a>,
    },
    /// The login that [`Output::Admit`] or [`Output::Own`] asked about failed: the peer is sent
    /// away. Ignored if the link no longer waits for it.
    Refused {
        /// The link's number.
        link: u32,
        /// The number of the admission.
        admission: u32,
        /// What the peer is told, and why.
        denied: Denied,
    },
    /// The link gives its place to another one: it ends with
    /// [`Denial::Crowded`](crate::denial::Denial::Crowded). Ignored if it is established.
    Crowded {
        /// The link's number.
        link: u32,
    },
    /// Removes a link that moves to another hub with the same listeners. The hub emits the state of
    /// the link as [`Output::HandedOver`], or nothing if there is no such link. A session that has
    /// an identity and leaves its home is not found by the next login of that identity.
    HandOver {
        /// The link's number.
        link: u32,
    },
    /// Adds a link that comes from another hub. It is closed if its state cannot be used, or if its
    /// number is in use. If it waits for its admission, the hub goes on where the other has
    /// stopped: with [`Output::Admit`], or, once it is known who the peer is, with
    /// [`Output::Own`].
    TakenOver {
        /// The shell's number for the link here; see [`World::Opened`].
        link: u32,
        /// The state from [`Output::HandedOver`], whole.
        state: &'a [u8],
    },
    /// A command for all links. All hubs of a gateway get these in the same order.
    Command(HubCommand<'a>),
    /// A command for one session, wherever its link is. While it is away, [`link::Command::Send`]
    /// keeps a whole message for it, [`link::Command::Close`] ends it,
    /// [`link::Command::Taken`] is noted, and others have no effect.
    Session {
        /// The session's number.
        session: u64,
        /// The command.
        command: link::Command<'a>,
    },
}

crate::plain::plain_enum! { World<'a> {
    0 => Opened { link: link, listener: listener, address: address }
    1 => Link { link: link, input: input }
    2 => Command { 0: command }
    3 => Identified { link: link, admission: admission, login: login }
    4 => Refused { link: link, admission: admission, denied: denied }
    5 => HandOver { link: link }
    6 => TakenOver { link: link, state: state }
    7 => Crowded { link: link }
    8 => Session { session: session, command: command }
} }

/// An answer to a request of a [`Hub`](super::Hub).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The deadline of a part may have come. Silence is judged now, so the socket of the link must
    /// have been read until it was empty, or its unread bytes must have been handed in.
    Deadline(Part),
    /// The answer to [`link::Output::Examine`] of a link, before any other input for it.
    Examined {
        /// The link's number.
        link: u32,
        /// The result.
        examination: Examination,
    },
    /// The answer to [`Output::Own`]: the session exists from now on. A late answer is ignored.
    Owned {
        /// The session's number.
        session: u64,
        /// The session's epoch: higher than any that any shard has given before, and so never 0.
        epoch: u64,
        /// A token with which the session can be resumed: new, from the random numbers of the
        /// system. `None` if it has none.
        fresh: Option<Fresh>,
    },
    /// The answer to [`Output::Resume`]: the peer may have its session again, if the token is the
    /// right one. Ignored if the link no longer waits for it.
    Resumed {
        /// The link's number.
        link: u32,
        /// The number of the admission.
        admission: u32,
        /// The digest of what the peer has shown.
        shown: Digest,
        /// The next token with which the session can be resumed.
        fresh: Fresh,
    },
}

crate::plain::plain_enum! { Answer {
    0 => Deadline { 0: part }
    1 => Examined { link: link, examination: examination }
    2 => Owned { session: session, epoch: epoch, fresh: fresh }
    3 => Resumed { link: link, admission: admission, shown: shown, fresh: fresh }
} }

/// An input of a [`Hub`](super::Hub).
pub type Input<'a> = machine::Input<World<'a>, Answer>;

kinds_of_input!(World<'a>, Answer);

/// A part of a [`Hub`](super::Hub).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The state that no link and no session owns: counters, random numbers, commands for all
    /// links.
    Common,
    /// The session in this place of the hub's table of sessions.
    Session(u32),
    /// The link with this number.
    Link(u32),
}

crate::plain::plain_enum! { Part {
    0 => Common {}
    1 => Link { 0: link }
    2 => Session { 0: place }
} }

/// A command for all links of a hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HubCommand<'a> {
    /// Puts a policy in force for a listener: for new links at once, for the others step by step.
    Retune {
        /// The index of the listener.
        listener: u16,
        /// The policy.
        policy: Policy,
    },
    /// Sends a message on every established link, or on those of one listener, step by step. A link
    /// that is established meanwhile may get it too.
    ///
    /// Each link gets such messages in the order of their commands, and before the CLOSE of a later
    /// drain. A link with a message of which a part is still to be sent is passed over, since
    /// messages must not be interleaved; [`Counters::messages_missed`] counts this. A message that
    /// exceeds [`MAX_MESSAGES`](super::MAX_MESSAGES) or [`MESSAGE_MEMORY`](super::MESSAGE_MEMORY)
    /// is refused, and counted in [`Counters::messages_refused`].
    Send {
        /// The index of the listener; `None` for all.
        listener: Option<u16>,
        /// The whole message, of which the hub keeps a copy until it was sent on the last link.
        bytes: &'a [u8],
        /// The message type, for `message1028`.
        kind: DataKind,
    },
    /// Closes every link with CLOSE, step by step, and each that opens later at once.
    Drain {
        /// How long a link may take from now on to deliver its last bytes.
        limit: Span,
        /// Each peer is asked to reconnect after a random time of at most this span.
        reconnect_within: Span,
    },
    /// Turns the events for single heartbeats on or off.
    ReportHeartbeats(bool),
}

crate::plain::plain_enum! { HubCommand<'a> {
    0 => Retune { listener: listener, policy: policy }
    1 => Drain { limit: limit, reconnect_within: reconnect_within }
    2 => ReportHeartbeats { 0: report }
    3 => Send { listener: listener, bytes: bytes, kind: kind }
} }

/// An output of a [`Hub`](super::Hub).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Output<'a> {
    /// An output of one link, the events of its session included. They are no output of their own:
    /// a session has one link here, by whose number [`Hub::presence`](super::Hub::presence) shows
    /// both, and [`link::Output::Session`] already sets them apart.
    Link {
        /// The link's number.
        link: u32,
        /// The link's output; never [`link::Output::Admit`].
        output: link::Output<'a>,
    },
    /// Decide who the peer is and whether it may have a session, and answer with
    /// [`World::Identified`] or [`World::Refused`]. What the peer claims is in
    /// [`Hub::presence`](super::Hub::presence), and its token is returned by
    /// [`Hub::token`](super::Hub::token) until the answer. Do not read the socket before
    /// [`link::Event::Established`].
    Admit {
        /// The link's number.
        link: u32,
        /// The number of the admission, for the answer: link numbers are used again.
        admission: u32,
    },
    /// Give the session its epoch, and answer with [`Answer::Owned`] or [`World::Refused`].
    Own {
        /// The link's number.
        link: u32,
        /// The number of the admission, for a refusal.
        admission: u32,
        /// The session's number.
        session: u64,
    },
    /// The peer asks for this session, and shows what [`Hub::shown`](super::Hub::shown) returns:
    /// digest that, and say whether the peer may come in, with [`Answer::Resumed`], or with
    /// [`World::Refused`] if it is banned. Nobody need be asked who it is.
    Resume {
        /// The link's number.
        link: u32,
        /// The number of the admission, for the answer.
        admission: u32,
        /// The session's number.
        session: u64,
    },
    /// An event of a session that is away: that it has ended. [`Hub::absence`](super::Hub::absence)
    /// shows it until the outputs were polled and another input comes.
    Session {
        /// The session's number.
        session: u64,
        /// The event.
        event: session::Event,
    },
    /// The home of the peer's identity, or of the session that it resumes, is another shard: give
    /// the link to it with [`World::HandOver`], or answer with [`World::Refused`] if that shard
    /// takes no link now.
    GoHome {
        /// The link's number.
        link: u32,
        /// The number of the admission, for a refusal.
        admission: u32,
        /// The number of the other shard.
        shard: u8,
    },
    /// The link was removed, and takes no further input here. Give its state, its socket and
    /// everything that waits for it to another hub. The number may be reused.
    HandedOver {
        /// The link's number.
        link: u32,
        /// The state for [`World::TakenOver`]. Times are ages, so the clocks may differ. The state
        /// may hold part of a frame of the peer, so it must not be logged.
        state: &'a [u8],
    },
}

impl Output<'_> {
    /// Returns the number of the link; `None` if the output is about a session that is away.
    pub const fn link(&self) -> Option<u32> {
        match self {
            Output::Link { link, .. }
            | Output::Admit { link, .. }
            | Output::Own { link, .. }
            | Output::GoHome { link, .. }
            | Output::Resume { link, .. }
            | Output::HandedOver { link, .. } => Some(*link),
            Output::Session { .. } => None,
        }
    }
}

/// The counters of a hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Open links, in handshake or established.
    pub links: u32,
    /// Established links.
    pub online: u32,
    /// Suspect links.
    pub suspects: u32,
    /// Open links beside which a loop rests only briefly; see
    /// [`is_demanding`](crate::gather::is_demanding).
    pub demanding: u32,
    /// Heartbeats received so far: PINGs and PONGs.
    pub heartbeats_in: u64,
    /// Heartbeats sent so far: PINGs and PONGs.
    pub heartbeats_out: u64,
    /// The memory that incomplete frames take, in bytes.
    pub frame_bytes: u64,
    /// The memory that messages take until they are acknowledged, in bytes.
    pub window_bytes: u64,
    /// Sessions that are away.
    pub away: u32,
    /// Sessions resumed so far.
    pub resumed: u64,
    /// Requests so far to resume a session that was gone.
    pub not_resumed: u64,
    /// Requests so far to resume a session with a token that was not its own.
    pub resumptions_refused: u64,
    /// Links ended so far because their incomplete frame was the oldest when the memory was full.
    pub frames_dropped: u64,
    /// Messages for many links refused so far because too many, or too many bytes, were under way.
    pub messages_refused: u64,
    /// Links that a message for many links has passed over so far, because another message on them
    /// was not complete.
    pub messages_missed: u64,
}
