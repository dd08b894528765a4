//! The reports that a shard sends to the control plane, as plain data.

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

/// Capacity of a shard's report channel. A full channel loses reports instead of delaying the loop;
/// the loss is counted and reported.
pub const REPORTS: usize = 65_536;

/// One report of a shard.
#[derive(Clone, Debug)]
pub enum Report {
    /// Something happened to a session.
    Session {
        /// When it happened, in milliseconds since 1970-01-01 UTC.
        at_ms: u64,
        /// The session.
        subject: Subject,
        /// What happened.
        change: Change,
    },
    /// This many reports were lost because the control plane was slow.
    Missed(u64),
    /// The loop did not run when it should have; all deadlines moved by the stall.
    Stalled {
        /// How long the loop was absent.
        absent: Span,
        /// How long the host was suspended.
        suspended: Span,
    },
    /// No more links can be accepted for now; open links are unharmed.
    AcceptingPaused(PauseReason),
    /// Links are accepted again.
    AcceptingResumed,
    /// The shard and all its links have ended.
    Stopped,
}

/// The reason why accepting pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PauseReason {
    /// The process has no descriptor left (EMFILE).
    DescriptorLimit,
    /// The host has no descriptor or no memory left (ENFILE, ENOBUFS, ENOMEM).
    HostLimit,
    /// The configured number of links is open.
    LinkLimit,
}

/// The session to which a report refers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The session's number.
    pub session: u64,
    /// The session's epoch.
    pub epoch: u64,
    /// The identity that the peer claims.
    pub identity: Box<str>,
    /// The index of the session's listener.
    pub listener: u16,
    /// The peer's address.
    pub address: SocketAddr,
    /// The boot id of the peer's host; zeros if unknown.
    pub boot_id: BootId,
    /// The instance id of the peer's process; zeros if unknown.
    pub instance_id: InstanceId,
    /// Whether the handshake was ever complete, so that the session was online.
    pub established: bool,
}

impl Subject {
    /// Returns the subject of `presence`.
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
    /// The session is online.
    Join {
        /// The policy in force.
        policy: Policy,
        /// The peer's account of its previous link.
        account: Option<Account>,
    },
    /// A probe has gone unanswered longer than it should: the session is suspect.
    Suspect,
    /// The cause of a possible verdict is known before the bound; nothing ends yet.
    Warned {
        /// The cause.
        cause: Cause,
        /// The confidence in the cause.
        confidence: Confidence,
        /// The grounds of the cause.
        grounds: Grounds,
    },
    /// The suspicion is over.
    Recovered,
    /// The bound has passed; the peer hangs or does not read, and the session is kept for a while.
    Hung(Cause),
    /// The bound has passed, and the policy does not enforce it.
    Overdue,
    /// Another policy is in force.
    Retuned(Policy),
    /// The session is heard from a new address.
    Moved {
        /// The address before.
        from: SocketAddr,
    },
    /// The session has ended.
    Leave {
        /// The verdict: its cause, evidence and times.
        verdict: Verdict,
        /// A lower bound of the time for which probes went unanswered.
        asked: Span,
        /// How long the link was open.
        lasted: Span,
        /// The flight recorder; `None` for a beacon, which has none.
        flight: Option<Box<Flight>>,
    },
    /// A heartbeat was sent or received; reported only while heartbeats are logged.
    Heartbeat {
        /// Whether the gateway sent the heartbeat.
        sent: bool,
        /// Whether the heartbeat asks or answers.
        beat: BeatKind,
        /// The sequence number of the heartbeat.
        sequence: u8,
    },
}

/// One session that is online, as the API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct SessionInfo {
    /// The session's number, 16 hexadecimal digits.
    pub session: String,
    /// The session's epoch, in decimal; a JSON number would lose the last digits.
    pub epoch: String,
    /// The identity that the peer claims; empty if the peer gave none.
    pub identity: String,
    /// The index of the session's listener.
    #[serde(skip)]
    pub listener: u16,
    /// The peer's address.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// When the session came online, in milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// How long ago the peer was last heard.
    pub last_heard_ago_ms: u64,
    /// How long ago the gateway last sent anything to the peer.
    pub last_sent_ago_ms: u64,
    /// The round-trip time, a decaying maximum; absent until one was measured.
    pub rtt_us: Option<u64>,
    /// Whether the session is suspect.
    pub suspect: bool,
    /// The rest of a hold; absent without one.
    pub held_for_ms: Option<u64>,
    /// The detection bound in force; absent if silence is never judged.
    pub bound_ms: Option<u64>,
    /// The policy in force, as text for people.
    pub policy: String,
}

impl SessionInfo {
    /// Describes `presence` at vigilant time `now`, which is `wall_ms` on the wall clock.
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
            rtt_us: presence.rtt.map(Span::as_micros),
            suspect: presence.suspect,
            held_for_ms: held.map(|until| until.since(now).as_millis()),
            bound_ms: presence.policy.bound().map(Span::as_millis),
            policy: presence.policy.to_string(),
        }
    }
}

/// Returns a session's number as people and the API write it.
pub fn session_text(session: u64) -> String {
    format!("{session:016x}")
}
