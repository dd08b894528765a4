//! The reports that a shard sends to the control plane, as plain data.

mod away;

use std::net::SocketAddr;

use serde::Serialize;
use serde_json::{Map, Value};
use systole_core::flight::Flight;
use systole_core::hub::{Absence, Presence};
use systole_core::link::BeatKind;
use systole_core::wire::{BootId, InstanceId};
use systole_core::{Span, Time, session};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use utoipa::ToSchema;

use crate::events::PolicyInfo;
use crate::identity::Refusal;
pub use away::{AwayInfo, Shown};

/// Capacity of a shard's channel of facts: what a shard reports while the control plane handles the
/// events of a second. When it is full, facts wait in the shard.
pub const FACTS: usize = 65_536;

/// Capacity of a shard's channel of strangers, far more than are kept for queries. When it is full,
/// the further ones are only counted.
pub const STRANGERS: usize = 4_096;

/// Capacity of a shard's channel of telemetry. When it is full, telemetry is dropped and counted.
pub const TELEMETRY: usize = 4_096;

/// The sending ends of a shard's three ways to the control plane.
#[derive(Clone, Debug)]
pub struct ReportChannels {
    /// Takes facts about sessions.
    pub facts: Sender<Fact>,
    /// Takes the ends of connections that were never a session.
    pub strangers: Sender<Fact>,
    /// Takes telemetry.
    pub telemetry: Sender<Heartbeat>,
}

/// The receiving ends of a shard's three ways to the control plane.
#[derive(Debug)]
pub struct Reports {
    /// Yields facts about sessions.
    pub facts: Receiver<Fact>,
    /// Yields the ends of connections that were never a session.
    pub strangers: Receiver<Fact>,
    /// Yields telemetry.
    pub telemetry: Receiver<Heartbeat>,
}

/// Makes the channels of one shard, with room for `facts` facts.
pub fn channels(facts: usize) -> (ReportChannels, Reports) {
    let (facts, facts_out) = channel(facts);
    let (strangers, strangers_out) = channel(STRANGERS);
    let (telemetry, telemetry_out) = channel(TELEMETRY);
    let reports = Reports { facts: facts_out, strangers: strangers_out, telemetry: telemetry_out };
    (ReportChannels { facts, strangers, telemetry }, reports)
}

/// A heartbeat that was sent or received; reported only while heartbeats are logged.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The session's number.
    pub session: u64,
    /// The identity that the peer claims.
    pub identity: Box<str>,
    /// Whether the gateway sent it.
    pub sent: bool,
    /// Whether it is a PING or a PONG.
    pub beat: BeatKind,
    /// Its sequence number.
    pub sequence: u8,
}

/// One fact that a shard reports: something happened to a session. Facts are never lost, except
/// those about connections that were never a session.
#[derive(Clone, Debug)]
pub struct Fact {
    /// When it happened, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The session.
    pub subject: Subject,
    /// What happened.
    pub event: session::Event,
    /// What the gateway adds to [`session::Event::Left`] and [`session::Event::Away`]; empty with
    /// any other event.
    pub parting: Parting,
    /// What the gateway adds to [`session::Event::Joined`]: the attributes of the session as a JSON
    /// object, or nothing; empty with any other event.
    pub attributes: Box<str>,
}

impl Fact {
    /// Makes the fact of an event to which the gateway adds nothing.
    pub fn new(at_ms: u64, subject: Subject, event: session::Event) -> Fact {
        let (parting, attributes) = (Parting::default(), Box::default());
        Fact { at_ms, subject, event, parting, attributes }
    }
}

/// The reason why accepting is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PauseReason {
    /// The process has no descriptor left (EMFILE).
    DescriptorLimit,
    /// The host has no descriptor or no memory left (ENFILE, ENOBUFS, ENOMEM).
    HostLimit,
    /// The configured number of links is open.
    LinkLimit,
    /// A beacon listener has no room for another device: its configured number is online.
    BeaconLimit,
    /// Ended sessions hold their places, because the control plane has not taken their last facts.
    ControlPlane,
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

    /// Returns the subject of a session that is away.
    pub fn absent(absence: &Absence<'_>) -> Subject {
        Subject {
            session: absence.session,
            epoch: absence.epoch,
            identity: absence.identity.into(),
            listener: absence.listener,
            address: absence.address,
            boot_id: absence.boot_id,
            instance_id: absence.instance_id,
            established: true,
        }
    }
}

/// What the gateway adds to the verdict on a link, or on a session that was away.
#[derive(Clone, Debug, Default)]
pub struct Parting {
    /// A lower bound of the time for which probes went unanswered.
    pub asked: Span,
    /// The time for which a silent peer is probed: interval × probes; `None` if silence is never
    /// judged, and for a beacon.
    pub probing: Option<Span>,
    /// How long the link was open.
    pub lasted: Span,
    /// The flight recorder; `None` for a beacon, which has none.
    pub flight: Option<Box<Flight>>,
    /// Why the login was refused, if this gateway has looked at its token.
    pub refusal: Option<Refusal>,
    /// Whether the session was away, so that its link had ended before with a verdict of its own.
    pub was_away: bool,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Whether the session is suspect.
    pub suspect: bool,
    /// The rest of a hold; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_for_ms: Option<u64>,
    /// The policy in force.
    pub policy: PolicyInfo,
    /// What else the proof of the identity says of the peer; absent if nothing.
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    #[schema(value_type = Object)]
    pub attributes: Attributes,
}

/// The attributes of a session as the text of a JSON object, or empty. They are read where they are
/// shown: a shard that lists sessions has no time for that.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes(Box<str>);

impl Attributes {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Attributes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        attributes_of(&self.0).serialize(serializer)
    }
}

/// Returns the attributes of a session, which it keeps as text.
pub fn attributes_of(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
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
            policy: PolicyInfo::new(presence.policy),
            attributes: Attributes(presence.attributes.into()),
        }
    }
}

/// Returns a session's number as people and the API write it.
pub fn session_text(session: u64) -> String {
    format!("{session:016x}")
}

#[cfg(test)]
pub(crate) mod tests {
    use systole_core::Policy;
    use systole_core::cause::{Cause, Confidence, Verdict};
    use systole_core::diagnosis::Grounds;
    use systole_core::session::Event;
    use systole_core::wire::{Account, Saw};

    use super::*;

    impl Heartbeat {
        pub(crate) fn example() -> Heartbeat {
            let (session, identity) = (7, "ada".into());
            Heartbeat { session, identity, sent: true, beat: BeatKind::Ping, sequence: 1 }
        }
    }

    pub(crate) fn fact(session: u64, event: Event) -> Fact {
        let subject = Subject {
            session,
            epoch: session,
            identity: "ada".into(),
            listener: 0,
            address: SocketAddr::from(([192, 0, 2, 1], 4_711)),
            boot_id: BootId::default(),
            instance_id: InstanceId::default(),
            established: true,
        };
        Fact::new(5, subject, event)
    }

    pub(crate) fn joined(session: u64) -> Fact {
        fact(session, Event::Joined { policy: Policy::default(), account: None })
    }

    pub(crate) fn suspected(session: u64) -> Fact {
        fact(session, Event::Suspect)
    }

    pub(crate) fn left(session: u64) -> Fact {
        left_by(session, Cause::Unknown)
    }

    pub(crate) fn reset(session: u64) -> Fact {
        left_by(session, Cause::PeerReset)
    }

    /// The join of a peer whose session `before` ended by a reset, as the peer saw it.
    pub(crate) fn returned(session: u64, before: u64) -> Fact {
        let account = Account {
            session: before,
            saw: Saw::Reset,
            silent_ms: 0,
            ended_ms: 0,
            absent_ms: 0,
            suspended_ms: 0,
        };
        fact(session, Event::Joined { policy: Policy::default(), account: Some(account) })
    }

    fn left_by(session: u64, cause: Cause) -> Fact {
        let verdict = Verdict {
            cause,
            confidence: Confidence::Medium,
            at: Time::from_millis(50_000),
            due: Time::from_millis(50_000),
            stretch: Span::ZERO,
            last_heard: Time::from_millis(20_000),
            probes: 3,
            grounds: Grounds::default(),
        };
        let parting = Parting { lasted: Span::from_secs(20), ..Parting::default() };
        Fact { parting, ..fact(session, Event::Left(verdict)) }
    }
}
