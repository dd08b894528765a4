//! What a shard tells the control plane, as plain data.

use std::net::SocketAddr;

use serde::Serialize;
use systole_core::cause::{Cause, Confidence, Verdict};
use systole_core::diagnosis::Grounds;
use systole_core::flight::Flight;
use systole_core::hub::Presence;
use systole_core::link::BeatKind;
use systole_core::wire::{Account, BootId, InstanceId};
use systole_core::{Policy, Span, Time};
use utoipa::ToSchema;

/// How many reports may wait for the control plane, per shard. A full channel loses reports, never
/// the loop's time; the loss is counted and told.
pub const REPORTS: usize = 65_536;

/// One thing a shard has to tell.
#[derive(Clone, Debug)]
pub enum Report {
    /// Something happened to a session.
    Session {
        /// When, in milliseconds since 1970-01-01 UTC.
        at_ms: u64,
        /// Whose.
        subject: Subject,
        /// What.
        change: Change,
    },
    /// Reports were lost because the control plane was slow.
    Missed(u64),
    /// The loop did not run although it should have; all deadlines moved by that.
    Stalled {
        /// How long the loop was absent.
        absent: Span,
        /// How long the host was suspended.
        suspended: Span,
    },
    /// No more links can be accepted for now; those that are open are unharmed.
    AcceptingPaused(PauseReason),
    /// Links are accepted again.
    AcceptingResumed,
    /// The shard has ended, and with it all its links.
    Stopped,
}

/// Why accepting pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PauseReason {
    /// The process has no descriptor left (EMFILE).
    DescriptorLimit,
    /// The host has no descriptor or no memory left (ENFILE, ENOBUFS, ENOMEM).
    HostLimit,
    /// The configured number of links is open.
    LinkLimit,
}

/// The session a report is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The session's number.
    pub session: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Who it says it is.
    pub identity: Box<str>,
    /// The index of its listener.
    pub listener: u16,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Its machine; zeros where unknown.
    pub boot_id: BootId,
    /// Its process; zeros where unknown.
    pub instance_id: InstanceId,
    /// Whether it was ever online: its handshake was complete.
    pub established: bool,
}

impl Subject {
    /// The session of `presence`.
    pub fn new(presence: &Presence<'_>) -> Subject {
        Subject {
            session: presence.session,
            epoch: presence.epoch,
            identity: presence.identity.into(),
            listener: presence.listener,
            address: presence.address,
            boot_id: presence.boot_id,
            instance_id: presence.instance_id,
            established: presence.established.is_some(),
        }
    }
}

/// What happened to a session.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is online.
    Join {
        /// The policy in force.
        policy: Policy,
        /// What it says of its link before this one.
        account: Option<Account>,
    },
    /// A probe is unanswered for longer than it should be.
    Suspect,
    /// What its verdict would be is known before its time; nothing ends yet.
    Warned {
        /// The cause.
        cause: Cause,
        /// How sure it is.
        confidence: Confidence,
        /// What it rests on.
        grounds: Grounds,
    },
    /// The suspicion is over.
    Recovered,
    /// The bound has passed; it hangs or does not read, and is kept for a while.
    Hung(Cause),
    /// The bound has passed, unenforced.
    Overdue,
    /// Another policy is in force.
    Retuned(Policy),
    /// It is heard from another address than before.
    Moved {
        /// The address before.
        from: SocketAddr,
    },
    /// It is gone.
    Leave {
        /// Why, and when.
        verdict: Verdict,
        /// For how long it was asked in vain; rather less than more.
        asked: Span,
        /// How long it was open.
        lasted: Span,
        /// What led to it; `None` for a beacon, which keeps no flight.
        flight: Option<Box<Flight>>,
    },
    /// A heartbeat was sent or received; told only while heartbeats are logged.
    Heartbeat {
        /// Whether we sent it.
        sent: bool,
        /// Whether it asks or answers.
        beat: BeatKind,
        /// Its sequence number.
        sequence: u8,
    },
}

/// One session, as the API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct SessionInfo {
    /// The session's number, 16 hexadecimal digits.
    pub session: String,
    /// Its epoch, in decimal; numbers in JSON would lose its last digits.
    pub epoch: String,
    /// Who it says it is; empty where it did not say.
    pub identity: String,
    /// The index of its listener.
    #[serde(skip)]
    pub listener: u16,
    /// Where it comes from.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// Since when it is online, in milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// How long ago it was last heard.
    pub last_heard_ago_ms: u64,
    /// How long ago we last sent it anything.
    pub last_sent_ago_ms: u64,
    /// The smoothed round-trip time, once one was measured.
    pub rtt_us: Option<u64>,
    /// Whether it is suspected.
    pub suspect: bool,
    /// How long it is still on hold.
    pub held_for_ms: Option<u64>,
    /// The detection bound in force; absent where silence is never judged.
    pub bound_ms: Option<u64>,
    /// The policy in force, for people.
    pub policy: String,
}

impl SessionInfo {
    /// What the API shows of `presence` at vigilant time `now`, which is `wall_ms` on the clock.
    pub fn new(presence: &Presence<'_>, now: Time, wall_ms: u64) -> SessionInfo {
        let since = presence.established.unwrap_or(presence.opened);
        let held = presence.held_until.filter(|until| *until > now);
        SessionInfo {
            session: session_text(presence.session),
            epoch: presence.epoch.to_string(),
            identity: presence.identity.to_owned(),
            listener: presence.listener,
            address: presence.address,
            since_ms: wall_ms.saturating_sub(now.since(since).as_millis()),
            last_heard_ago_ms: now.since(presence.last_heard).as_millis(),
            last_sent_ago_ms: now.since(presence.last_sent).as_millis(),
            rtt_us: presence.smoothed_rtt.map(Span::as_micros),
            suspect: presence.suspect,
            held_for_ms: held.map(|until| until.since(now).as_millis()),
            bound_ms: presence.policy.bound().map(Span::as_millis),
            policy: presence.policy.to_string(),
        }
    }
}

/// A session's number as people and the API write it.
pub fn session_text(session: u64) -> String {
    format!("{session:016x}")
}
