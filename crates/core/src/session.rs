//! The events of a session: the one vocabulary in which links and beacons, the gateway and the
//! client say what happened to it.
//!
//! A session is the relation with a peer; a link is one connection. A machine wraps an event of
//! this module in its output beside the events that it alone knows, as bytes that arrived; a
//! program passes it on unchanged, and asks [`Event::topic`] instead of matching what it does not
//! care about.

use core::net::SocketAddr;

use crate::cause::{Cause, Confidence, Verdict};
use crate::grounds::Grounds;
use crate::policy::Policy;
use crate::time::Time;
use crate::wire::Account;

/// An event of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The session is online.
    Joined {
        /// The policy in force.
        policy: Policy,
        /// The account that a connecting peer gives of its previous link.
        account: Option<Account>,
    },
    /// The peer is suspect: a probe is unanswered for longer than it should be.
    Suspect,
    /// The cause of the verdict is known before the bound: a router, the local network or the local
    /// neighbour table explains the silence. The session does not end, and evidence outweighs the
    /// warning. Reported at most once in a silence, and only while a probe is out.
    ///
    /// With [`Cause::NotReading`]: the peer is heard, and two examinations in a row show bytes
    /// behind its closed window. Reported once until the window opens.
    Warned {
        /// The cause that the verdict would have now.
        cause: Cause,
        /// The confidence in the cause.
        confidence: Confidence,
        /// The evidence for the cause.
        grounds: Grounds,
    },
    /// The suspicion has ended on evidence, or what a warning told before any suspicion is over.
    Recovered,
    /// The bound has passed, and the policy does not enforce it.
    Overdue {
        /// When the verdict would have fallen.
        due: Time,
    },
    /// The bound has passed; the peer is hung or does not read, and is kept for a time.
    Hung {
        /// [`Cause::AppHung`] or [`Cause::NotReading`].
        cause: Cause,
        /// When the verdict falls unless there is evidence.
        until: Time,
    },
    /// Another policy is in force.
    Retuned(Policy),
    /// The peer is heard from a new address.
    Moved {
        /// The former address.
        from: SocketAddr,
    },
    /// The link has ended with this verdict, and the session waits for another one.
    Away {
        /// The verdict on the link.
        verdict: Verdict,
        /// When the session ends unless it is resumed.
        until: Time,
    },
    /// The session goes on on another link.
    Resumed {
        /// The account that a connecting peer gives of its previous link.
        account: Option<Account>,
        /// The number of messages to the client that were dropped while it was away.
        gap: u32,
        /// The number of messages that this end sends again.
        redelivered: u32,
    },
    /// The session has ended with this verdict. Also the end of a link whose handshake was never
    /// complete, so that no [`Event::Joined`] came before.
    Left(Verdict),
}

impl Event {
    /// Returns the name of the event, as the gateway's JSON and log have it.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::Joined { .. } => "join",
            Event::Suspect => "suspect",
            Event::Warned { .. } => "warned",
            Event::Recovered => "recovered",
            Event::Overdue { .. } => "overdue",
            Event::Hung { .. } => "hung",
            Event::Retuned(_) => "retuned",
            Event::Moved { .. } => "moved",
            Event::Away { .. } => "away",
            Event::Resumed { .. } => "resumed",
            Event::Left(_) => "leave",
        }
    }

    /// Returns the cause that the event names, of a verdict that fell or may fall.
    pub const fn cause(&self) -> Option<Cause> {
        if let Event::Warned { cause, .. }
        | Event::Hung { cause, .. }
        | Event::Away { verdict: Verdict { cause, .. }, .. }
        | Event::Left(Verdict { cause, .. }) = self
        {
            return Some(*cause);
        }
        None
    }

    /// Returns what the event is about.
    pub const fn topic(&self) -> Topic {
        match self {
            Event::Joined { .. } => Topic::Join,
            Event::Left(_) => Topic::Leave,
            Event::Away { .. } | Event::Resumed { .. } => Topic::Link,
            Event::Retuned(_) => Topic::Policy,
            Event::Moved { .. } => Topic::Address,
            Event::Suspect | Event::Hung { .. } | Event::Overdue { .. } => Topic::Doubt,
            Event::Warned { .. } => Topic::Warning,
            Event::Recovered => Topic::Recovery,
        }
    }
}

/// What an event of a session is about. Where events wait, a later one may replace an earlier one
/// of its own topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    /// The session came online.
    Join,
    /// The session ended.
    Leave,
    /// Whether the session has a link.
    Link,
    /// The policy in force.
    Policy,
    /// The peer's address.
    Address,
    /// The peer is in doubt, or past its bound.
    Doubt,
    /// The cause of a possible verdict is known.
    Warning,
    /// The end of doubt and warning.
    Recovery,
}

impl Topic {
    /// Returns whether an event of this topic makes a waiting one of topic `earlier` obsolete,
    /// besides one of its own topic.
    pub const fn ends(self, earlier: Topic) -> bool {
        matches!((self, earlier), (Topic::Recovery, Topic::Doubt | Topic::Warning))
    }
}
