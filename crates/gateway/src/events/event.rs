//! The events that subscribers receive: of each kind its JSON and its line in the log, both in this
//! file, so that a new event is described in one place.

use serde::Serialize;
use serde_json::{Map, Value};
use systole_core::cause::{Direction, Scope};
use systole_core::diagnosis::Ground;
use systole_core::session;
use tracing::{info, warn};
use utoipa::ToSchema;

use super::details::{End, OutageInfo, PolicyInfo, Revision, Session};
use crate::report::{Parting, attributes_of};

/// One event, with its number and time.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// The event's number in the order of all events of this gateway process, from 1.
    pub number: u64,
    /// The time of the event, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

/// What happened, by kind.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A session is online.
    Join {
        /// The session.
        #[serde(flatten)]
        session: Session,
        /// The policy in force.
        policy: PolicyInfo,
        /// What else the proof of the identity says of the peer; absent if nothing.
        #[serde(skip_serializing_if = "Map::is_empty")]
        #[schema(value_type = Object)]
        attributes: Map<String, Value>,
    },
    /// A session, or a connection that never became one, has ended.
    Leave {
        /// The session.
        #[serde(flatten)]
        session: Session,
        /// The verdict: its cause, evidence and times.
        #[serde(flatten)]
        end: End,
    },
    /// A published verdict has another cause, as the peer's return or other links showed.
    VerdictRevised {
        /// The ended session.
        #[serde(flatten)]
        session: Session,
        /// The old cause, the new cause, and the reason.
        #[serde(flatten)]
        revision: Revision,
    },
    /// An outage began: verdicts fell together.
    Outage(OutageInfo),
    /// An outage is over: half of its hosts are back, or the wait for them ended.
    OutageOver(OutageInfo),
    /// A probe has gone unanswered longer than it should: the session is suspect.
    Suspect(Session),
    /// The cause of a possible verdict is known before the bound, from a router, the gateway's own
    /// network or its neighbour; nothing ends yet. At most once in a silence.
    Warned {
        /// The session.
        #[serde(flatten)]
        session: Session,
        /// The cause, by name.
        cause: &'static str,
        /// The confidence in the cause: `medium`, `high` or `certain`.
        confidence: &'static str,
        /// The cause, as text for people.
        detail: String,
        /// The grounds of the cause, as phrases for people.
        grounds: Vec<&'static str>,
    },
    /// The suspicion is over.
    Recovered(Session),
    /// The bound has passed; the peer hangs or does not read, and the session is kept for a while.
    Hung {
        /// The session.
        #[serde(flatten)]
        session: Session,
        /// `app_hung` or `not_reading`.
        cause: &'static str,
    },
    /// The bound has passed, and the policy does not enforce it.
    Overdue(Session),
    /// Another policy is in force for a session.
    Retuned {
        /// The session.
        #[serde(flatten)]
        session: Session,
        /// The policy in force now.
        policy: PolicyInfo,
    },
    /// A session is heard from a new address.
    Moved {
        /// The session, with its new address.
        #[serde(flatten)]
        session: Session,
        /// The address before.
        from: String,
    },
    /// The connection of a session has ended, and the session waits for another one.
    Away {
        /// The session, with the address of the connection.
        #[serde(flatten)]
        session: Session,
        /// The verdict on the connection.
        #[serde(flatten)]
        end: End,
        /// How long the session waits, in milliseconds.
        lasts_ms: u64,
    },
    /// A session goes on on another connection.
    Resumed {
        /// The session, with its new address.
        #[serde(flatten)]
        session: Session,
        /// How many messages to the client were dropped while it was away.
        gap: u32,
        /// How many messages the gateway sends again.
        redelivered: u32,
    },
    /// A shard did not run when it should have; all deadlines moved by the stall.
    Stalled {
        /// The index of the shard.
        shard: usize,
        /// How long the shard was absent, in milliseconds.
        absent_ms: u64,
        /// How long the host was suspended within that time, in milliseconds.
        suspended_ms: u64,
    },
    /// A shard accepts no more connections for now; open connections are unharmed.
    AcceptingPaused {
        /// The index of the shard.
        shard: usize,
        /// `descriptor_limit`, `host_limit`, `link_limit`, `beacon_limit` or `control_plane`.
        reason: &'static str,
        /// The limit that was reached, if it is a number.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        /// How to raise the limit.
        hint: &'static str,
    },
    /// A shard accepts connections again.
    AcceptingResumed {
        /// The index of the shard.
        shard: usize,
    },
}

impl Body {
    /// The kinds of events that are about one session.
    pub const OF_SESSIONS: [&'static str; 12] = [
        "join",
        "leave",
        "verdict_revised",
        "suspect",
        "warned",
        "recovered",
        "hung",
        "overdue",
        "retuned",
        "moved",
        "away",
        "resumed",
    ];

    /// Returns the kind, as in the JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Body::Join { .. } => "join",
            Body::Leave { .. } => "leave",
            Body::VerdictRevised { .. } => "verdict_revised",
            Body::Outage(_) => "outage",
            Body::OutageOver(_) => "outage_over",
            Body::Suspect(_) => "suspect",
            Body::Warned { .. } => "warned",
            Body::Recovered(_) => "recovered",
            Body::Hung { .. } => "hung",
            Body::Overdue(_) => "overdue",
            Body::Retuned { .. } => "retuned",
            Body::Moved { .. } => "moved",
            Body::Away { .. } => "away",
            Body::Resumed { .. } => "resumed",
            Body::Stalled { .. } => "stalled",
            Body::AcceptingPaused { .. } => "accepting_paused",
            Body::AcceptingResumed { .. } => "accepting_resumed",
        }
    }

    /// Returns the session that it is about, if there is one.
    pub const fn session(&self) -> Option<&Session> {
        match self {
            Body::Join { session, .. }
            | Body::Leave { session, .. }
            | Body::VerdictRevised { session, .. }
            | Body::Suspect(session)
            | Body::Warned { session, .. }
            | Body::Recovered(session)
            | Body::Hung { session, .. }
            | Body::Overdue(session)
            | Body::Retuned { session, .. }
            | Body::Moved { session, .. }
            | Body::Away { session, .. }
            | Body::Resumed { session, .. } => Some(session),
            Body::Outage(_)
            | Body::OutageOver(_)
            | Body::Stalled { .. }
            | Body::AcceptingPaused { .. }
            | Body::AcceptingResumed { .. } => None,
        }
    }

    /// Describes an event of a session at `at_ms`.
    pub(super) fn of_session(
        at_ms: u64,
        session: Session,
        event: &session::Event,
        parting: &Parting,
        attributes: &str,
    ) -> Body {
        match event {
            session::Event::Joined { policy, account: _ } => {
                let attributes = attributes_of(attributes);
                Body::Join { session, policy: PolicyInfo::new(policy), attributes }
            }
            session::Event::Suspect => Body::Suspect(session),
            session::Event::Warned { cause, confidence, grounds } => Body::Warned {
                session,
                cause: cause.name(),
                confidence: confidence.name(),
                detail: cause.to_string(),
                grounds: grounds.iter().map(Ground::text).collect(),
            },
            session::Event::Recovered => Body::Recovered(session),
            session::Event::Hung { cause, until: _ } => Body::Hung { session, cause: cause.name() },
            session::Event::Overdue { due: _ } => Body::Overdue(session),
            session::Event::Retuned(policy) => {
                Body::Retuned { session, policy: PolicyInfo::new(policy) }
            }
            session::Event::Moved { from } => Body::Moved { session, from: from.to_string() },
            session::Event::Away { verdict, until } => {
                let Parting { lasted, refusal, .. } = *parting;
                let end = End::new(at_ms, verdict, lasted, refusal);
                Body::Away { session, end, lasts_ms: until.since(verdict.at).as_millis() }
            }
            session::Event::Resumed { account: _, gap, redelivered } => {
                Body::Resumed { session, gap: *gap, redelivered: *redelivered }
            }
            session::Event::Left(verdict) => {
                let Parting { lasted, refusal, .. } = *parting;
                Body::Leave { session, end: End::new(at_ms, verdict, lasted, refusal) }
            }
        }
    }

    /// Writes the event's line to the log.
    pub(crate) fn log(&self) {
        match self {
            Body::Stalled { shard, absent_ms, suspended_ms } => {
                warn!(shard, absent_ms, suspended_ms, "stalled: all deadlines moved by as much");
            }
            Body::AcceptingPaused { shard, reason, limit, hint } => {
                warn!(shard, reason, limit, hint, "accepting is paused; open links are unharmed");
            }
            Body::AcceptingResumed { shard } => info!(shard, "accepting again"),
            Body::Join { session, policy, attributes: _ } => {
                let Session { session, identity, listener, address, .. } = session;
                let (bound_ms, bound) = bound_of(policy);
                info!(session, %identity, %listener, address, bound_ms, bound, "join");
            }
            Body::Leave { session, end } => {
                let Session { session, identity, listener, address, .. } = session;
                info!(
                    session,
                    %identity,
                    %listener,
                    address,
                    cause = end.cause,
                    direction = end.loss.direction.map(Direction::name),
                    scope = end.loss.scope.map(Scope::name),
                    confidence = end.confidence,
                    detail = &*end.detail,
                    last_heard_ago_ms = end.last_heard_ago_ms,
                    late_us = end.late_us,
                    probes = end.probes,
                    lasted_ms = end.lasted_ms,
                    provisional = end.provisional.then_some(true),
                    "leave"
                );
            }
            Body::VerdictRevised { session, revision } => log_revision(session, revision),
            Body::Outage(info) => log_outage(info),
            Body::OutageOver(info) => log_outage_over(info),
            Body::Suspect(session) => log_session(session, "suspect"),
            Body::Recovered(session) => log_session(session, "recovered"),
            Body::Warned { session, cause, confidence, detail, .. } => {
                let Session { session, identity, listener, address, .. } = session;
                info!(session, %identity, %listener, address, cause, confidence, detail, "warned");
            }
            Body::Hung { session, cause } => {
                let Session { session, identity, listener, address, .. } = session;
                info!(session, %identity, %listener, address, cause, "hung: kept for a while");
            }
            Body::Overdue(session) => {
                log_session(session, "overdue: the bound has passed, unenforced")
            }
            Body::Retuned { session, policy } => {
                let Session { session, identity, listener, address, .. } = session;
                let (bound_ms, bound) = bound_of(policy);
                info!(session, %identity, %listener, address, bound_ms, bound, "retuned");
            }
            Body::Away { session, end, lasts_ms } => {
                let Session { session, identity, listener, address, .. } = session;
                let (cause, detail) = (end.cause, &*end.detail);
                info!(session, %identity, %listener, address, cause, detail, lasts_ms, "away");
            }
            Body::Resumed { session, gap, redelivered } => {
                let Session { session, identity, listener, address, .. } = session;
                info!(session, %identity, %listener, address, gap, redelivered, "resumed");
            }
            Body::Moved { session, from } => {
                let Session { session, identity, listener, address, .. } = session;
                info!(session, %identity, %listener, address, from, "moved");
            }
        }
    }
}

/// Returns the bound of a policy: a number, or a word if silence is never judged.
fn bound_of(policy: &PolicyInfo) -> (Option<u64>, Option<&'static str>) {
    (policy.bound_ms, policy.never.then_some("never"))
}

fn log_revision(session: &Session, revision: &Revision) {
    let Session { session, identity, listener, address, .. } = session;
    let Revision { from, to, loss, confidence, detail, because, idle_ms, .. } = revision;
    let (direction, scope) = (loss.direction.map(Direction::name), loss.scope.map(Scope::name));
    info!(
        session,
        %identity,
        %listener,
        address,
        from,
        to,
        direction,
        scope,
        confidence,
        detail,
        because,
        idle_ms,
        "verdict revised"
    );
}

fn log_outage(info: &OutageInfo) {
    let (network, listener) = location(info);
    let OutageInfo { outage, affected, of_online, hosts, .. } = *info;
    warn!(outage, network, listener, affected, of_online, hosts, "outage");
}

fn log_outage_over(info: &OutageInfo) {
    let (network, listener) = location(info);
    let OutageInfo { outage, affected, hosts, returned, recovered, .. } = *info;
    info!(outage, network, listener, affected, hosts, returned, recovered, "outage over");
}

/// Logs a line about one session.
fn log_session(session: &Session, what: &str) {
    let Session { session, identity, listener, address, .. } = session;
    info!(session, %identity, %listener, address, "{what}");
}

/// Returns the network and the listener of an outage.
fn location(outage: &OutageInfo) -> (&str, &str) {
    let network = outage.network.as_deref().unwrap_or("our own");
    (network, outage.listener.as_deref().unwrap_or("all"))
}
