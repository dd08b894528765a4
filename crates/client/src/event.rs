//! Events that a client reports to the application.

use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::net::SocketAddr;

use systole_core::cause::{Cause, Confidence, Verdict};
use systole_core::link::{BeatKind, Goodbye};
use systole_core::reconnect::Stop;
use systole_core::resume::NotResumed;
use systole_core::session::{self, Topic};
use systole_core::{Policy, Span, Time};

use crate::{ConnectError, Undelivered};

/// Event of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An address has accepted the connection, and the handshake begins; reported only with
    /// [`crate::Options::report_accepted`].
    Accepted {
        /// The address.
        address: SocketAddr,
    },
    /// The link is established for the first time; always the first event, except for those of
    /// attempts.
    Connected {
        /// The session's number; 0 in codecs without sessions.
        session: SessionId,
        /// The session's epoch; 0 in codecs without sessions.
        epoch: u64,
        /// The policy in force.
        policy: Policy,
    },
    /// Something happened to the session while the link stands: the server became suspect or
    /// recovered, is overdue or hangs, a cause is known early, or a new policy is in force. What
    /// happens to the link itself is [`Event::Connected`], [`Event::Lost`] and
    /// [`Event::Reconnected`], [`Event::Away`] and [`Event::Resumed`] instead, which say more.
    Session(session::Event),
    /// A complete message arrived.
    Message(Vec<u8>),
    /// A message longer than [`crate::Options::max_message`] was dropped; the link continues.
    MessageTooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// Application data arrived with a heartbeat.
    HeartbeatData(Vec<u8>),
    /// The answer to a heartbeat took this long; reported only with
    /// [`crate::Options::report_heartbeats`].
    RoundTrip(Span),
    /// A heartbeat was sent; reported only with [`crate::Options::report_heartbeats`].
    HeartbeatSent {
        /// Whether it is a PING or an answer.
        beat: BeatKind,
        /// Its sequence number; 0 in codecs without sequence numbers.
        sequence: u8,
        /// Number of the probe in this silence, from 1; 0 if the heartbeat is not a probe.
        number: u8,
    },
    /// A heartbeat arrived; reported only with [`crate::Options::report_heartbeats`].
    HeartbeatReceived {
        /// Whether it is a PING or an answer.
        beat: BeatKind,
        /// Its sequence number; 0 in codecs without sequence numbers.
        sequence: u8,
    },
    /// A heartbeat was answered, possibly by the answer to a later one; reported only with
    /// [`crate::Options::report_heartbeats`]. Unlike [`Event::RoundTrip`], which leaves out what
    /// would mislead a timeout, there is one for each heartbeat.
    HeartbeatAnswered {
        /// The sequence number that [`Event::HeartbeatSent`] reported.
        sequence: u8,
        /// Number of the probe in this silence, from 1; 0 if the heartbeat is not a probe.
        number: u8,
        /// Time from its sending to the answer.
        rtt: Span,
    },
    /// The link has ended, and the session waits for the next one: [`Event::Resumed`] or
    /// [`Event::NotResumed`] follows. What is sent meanwhile is kept. Reported instead of
    /// [`Event::Lost`] if the gateway lets sessions outlive their links and the client reconnects.
    Away {
        /// Why the link ended; times are vigilant time since the client was created.
        verdict: Verdict,
        /// When the gateway ends the session unless it is resumed, as far as this end can know.
        until: Time,
        /// The gateway's CLOSE, if one arrived, which says when to reconnect.
        farewell: Option<Goodbye>,
        /// What that CLOSE says to people; empty without. Escape it where it is shown: the server
        /// wrote it.
        text: Box<str>,
        /// Time since the last evidence from the server.
        silent_for: Span,
    },
    /// The session goes on on another link: every message of both directions arrives once, and in
    /// order.
    Resumed {
        /// The session's number, the same as before.
        session: SessionId,
        /// The session's epoch, the same as before.
        epoch: u64,
        /// Number of messages to this client that the gateway has dropped meanwhile; 0 unless it
        /// is configured to drop them.
        gap: u32,
        /// Number of messages that this client sends again.
        redelivered: u32,
        /// Number of the attempt that succeeded, from 1 since the last stable link.
        attempt: u32,
    },
    /// The session that was away is gone. A new one follows with [`Event::Reconnected`], or the
    /// client ends or tries again.
    NotResumed {
        /// What the gateway says; `None` if the client ends before it could be asked.
        why: Option<NotResumed>,
        /// The messages of which the server has acknowledged none.
        undelivered: Undelivered,
    },
    /// The link has ended, and its session with it. Messages sent but not answered may or may not
    /// have arrived.
    Lost {
        /// Why the link ended; times are vigilant time since the client was created.
        verdict: Verdict,
        /// The gateway's CLOSE, if one arrived, which says whether to reconnect.
        farewell: Option<Goodbye>,
        /// What that CLOSE says to people; empty without. Escape it where it is shown: the server
        /// wrote it.
        text: Box<str>,
        /// Time since the last evidence from the server.
        silent_for: Span,
    },
    /// Another attempt to connect follows after a wait.
    Reconnecting {
        /// Number of the attempt since the last stable link, from 1; see
        /// [`Backoff`](crate::reconnect::Backoff).
        attempt: u32,
        /// Time until the attempt.
        after: Span,
    },
    /// An attempt to connect failed; the next event reports what follows.
    AttemptFailed(ConnectError),
    /// The link is established again, with a new session; nothing of the old one is repeated.
    Reconnected {
        /// The session's number; 0 in codecs without sessions.
        session: SessionId,
        /// The session's epoch; 0 in codecs without sessions.
        epoch: u64,
        /// The policy in force.
        policy: Policy,
        /// Number of the attempt that succeeded, from 1 since the last stable link.
        attempt: u32,
    },
    /// The cause of the previous loss was revised, at most once per loss. Follows
    /// [`Event::Reconnected`], by what the process that answers again shows; or
    /// [`Event::AttemptFailed`], because the server's machine refused the connection.
    Revised {
        /// The cause that [`Event::Lost`] reported.
        from: Cause,
        /// The revised cause.
        to: Cause,
        /// Confidence in the revised cause.
        confidence: Confidence,
    },
    /// The client has ended; always the last event.
    Closed(Ending),
}

/// The number of a session. It is printed as the gateway's log and admin API print it, in 16
/// hexadecimal digits, so that it can be passed to `systole why` and to the admin API.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reason why a client ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The application closed it, and all messages of the last link were acknowledged.
    Finished,
    /// The application closed it, but the last link failed, or the server took no more bytes,
    /// before all its messages were acknowledged. Any part of them may have arrived.
    Undelivered,
    /// The link was lost or did not come about, and the options do not allow to reconnect.
    NotReconnecting,
    /// Reconnecting is useless, or all attempts failed.
    Stopped(Stop),
}

/// Class of an event, which decides what is dropped when the mailbox is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// A message: never dropped. Reading pauses while too many bytes wait.
    Message,
    /// Another event: older ones of the same kind are dropped if the application is slow; of
    /// events of the session, those of the same topic.
    Latest(Discriminant<Event>, Option<Topic>),
}

impl Event {
    pub(crate) fn class(&self) -> Class {
        if let Event::Message(_) = self {
            return Class::Message;
        }
        let topic = if let Event::Session(event) = self { Some(event.topic()) } else { None };
        Class::Latest(discriminant(self), topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_printed_as_the_gateway_prints_it() {
        let (session, policy) = (SessionId(0x0076_8000_0100_0000), Policy::standard());
        assert_eq!(session.to_string(), "0076800001000000");
        let event = format!("{:?}", Event::Connected { session, epoch: 1, policy });
        assert!(event.starts_with("Connected { session: 0076800001000000, epoch: 1,"), "{event}");
    }
}
