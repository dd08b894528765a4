//! What a client tells its application.

use systole_core::cause::{Cause, Confidence, Verdict};
use systole_core::diagnosis::Grounds;
use systole_core::link::{BeatKind, Goodbye};
use systole_core::reconnect::Stop;
use systole_core::{Policy, Span};

use crate::ConnectError;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The link is up for the first time; always the first event.
    Connected {
        /// The session's number; 0 in codecs without one.
        session: u64,
        /// Its epoch; likewise.
        epoch: u64,
        /// The policy in force.
        policy: Policy,
    },
    /// A probe has been out for longer than it should. Nothing is lost yet.
    Suspect,
    /// A router, our own network or our own neighbour says already why the verdict would fall.
    /// Nothing is lost yet, and whatever the server says next outweighs it; at most once in a
    /// silence.
    Warned {
        /// What the verdict would be now.
        cause: Cause,
        /// How sure that is.
        confidence: Confidence,
        /// What it rests on.
        grounds: Grounds,
    },
    /// The suspicion is over.
    Recovered,
    /// The bound has passed, and the policy says only to tell.
    Overdue,
    /// The bound has passed; the server hangs or does not read, and is kept for a while.
    Hung(Cause),
    /// A message, whole.
    Message(Vec<u8>),
    /// A message was longer than [`crate::Options::max_message`] and was dropped; the link lives.
    MessageTooLong {
        /// How long it was, in bytes.
        len: u64,
    },
    /// Business data that rode on a heartbeat.
    HeartbeatData(Vec<u8>),
    /// Another policy is in force: the gateway changed it, or granted what was asked for.
    Retuned(Policy),
    /// A heartbeat came back after this long; told only if the options ask for heartbeats.
    RoundTrip(Span),
    /// A heartbeat left; told only if the options ask for it.
    HeartbeatSent {
        /// Whether it asks or answers.
        beat: BeatKind,
        /// Its sequence number; 0 in codecs without one.
        sequence: u8,
        /// Which probe of this silence it is, from 1; 0 if it is none.
        number: u8,
    },
    /// A heartbeat arrived; told only if the options ask for it.
    HeartbeatReceived {
        /// Whether it asks or answers.
        beat: BeatKind,
        /// Its sequence number; 0 in codecs without one.
        sequence: u8,
    },
    /// The link has ended. What was sent and not answered may or may not have arrived.
    Lost {
        /// Why; its times count vigilant time since the client was made.
        verdict: Verdict,
        /// What the gateway said about coming back, if it said goodbye.
        farewell: Option<Goodbye>,
        /// How long nothing had been heard.
        silent_for: Span,
    },
    /// Another attempt follows after a wait.
    Reconnecting {
        /// Which attempt in a row, from 1.
        attempt: u32,
        /// How long it waits first.
        after: Span,
    },
    /// An attempt to reconnect failed; what follows is told next.
    AttemptFailed(ConnectError),
    /// The link is up again: a new session, and nothing of the old one is repeated.
    Reconnected {
        /// The session's number; 0 in codecs without one.
        session: u64,
        /// Its epoch; likewise.
        epoch: u64,
        /// The policy in force.
        policy: Policy,
        /// Which attempt it was, from 1.
        attempt: u32,
    },
    /// What is known better of the loss before, now that the gateway answers again; follows
    /// [`Event::Reconnected`], at most once for each loss.
    Revised {
        /// The cause that [`Event::Lost`] told.
        from: Cause,
        /// The better one.
        to: Cause,
        /// How sure that is.
        confidence: Confidence,
    },
    /// The last event.
    Closed(Ending),
}

/// Why a client is at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The application closed it.
    Finished,
    /// The link was lost, and the options say not to come back.
    NotReconnecting,
    /// Coming back makes no sense, or was tried too often.
    Stopped(Stop),
}

/// What an event is, without its particulars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Costs memory in proportion to its bytes, is never dropped, and holds up reading.
    Message,
    /// Only the latest of each number is worth keeping when the application falls behind.
    Latest(u8),
}

impl Event {
    pub(crate) fn class(&self) -> Class {
        match self {
            Event::Message(_) => Class::Message,
            Event::Connected { .. } => Class::Latest(0),
            Event::Suspect => Class::Latest(1),
            Event::Recovered => Class::Latest(2),
            Event::Overdue => Class::Latest(3),
            Event::MessageTooLong { .. } => Class::Latest(4),
            Event::HeartbeatData(_) => Class::Latest(5),
            Event::Retuned(_) => Class::Latest(6),
            Event::RoundTrip(_) => Class::Latest(7),
            Event::HeartbeatSent { .. } => Class::Latest(8),
            Event::HeartbeatReceived { .. } => Class::Latest(9),
            Event::Lost { .. } => Class::Latest(10),
            Event::Reconnecting { .. } => Class::Latest(11),
            Event::AttemptFailed(_) => Class::Latest(12),
            Event::Reconnected { .. } => Class::Latest(13),
            Event::Closed(_) => Class::Latest(14),
            Event::Hung(_) => Class::Latest(15),
            Event::Revised { .. } => Class::Latest(16),
            Event::Warned { .. } => Class::Latest(17),
        }
    }
}
