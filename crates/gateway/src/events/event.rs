//! The event that subscribers receive.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use systole_core::cause::{Cause, Confidence, Direction, Scope, Verdict};
use systole_core::diagnosis::Ground;
use systole_core::ledger::Note;
use systole_core::policy::Detection;
use systole_core::{Policy, Span, session};
use utoipa::ToSchema;

use crate::report::{Parting, PauseReason, Subject, session_text};

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
            Body::Stalled { .. } => "stalled",
            Body::AcceptingPaused { .. } => "accepting_paused",
            Body::AcceptingResumed { .. } => "accepting_resumed",
        }
    }
}

/// The session to which an event refers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Session {
    /// The session's number, 16 hexadecimal digits.
    pub session: String,
    /// The session's epoch, in decimal; a JSON number would lose the last digits.
    pub epoch: String,
    /// The identity that the peer claims; empty if the peer gave none.
    pub identity: Box<str>,
    /// The name of the session's listener.
    #[schema(value_type = String)]
    pub listener: Arc<str>,
    /// The peer's address.
    pub address: String,
    /// Whether the handshake was ever complete, so that the session was online.
    pub established: bool,
}

impl Session {
    /// Describes `subject`, a session of the listener called `listener`.
    pub fn new(subject: Subject, listener: Arc<str>) -> Session {
        Session {
            session: session_text(subject.session),
            epoch: subject.epoch.to_string(),
            identity: subject.identity,
            listener,
            address: subject.address.to_string(),
            established: subject.established,
        }
    }
}

/// The direction and scope of a lost path; empty for any cause but `path_lost`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Loss {
    /// The lost direction: `both`, `outbound` (bytes from the gateway do not arrive) or `inbound`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "direction_name")]
    #[schema(value_type = Option<String>)]
    pub direction: Option<Direction>,
    /// The scope of the loss: this `flow` alone, its whole `host`, or `many` hosts; `unknown` if no
    /// other link shows it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "scope_name")]
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
}

impl Loss {
    /// Returns the direction and scope in `cause`.
    pub fn new(cause: Cause) -> Loss {
        let (direction, scope) = match cause {
            Cause::PathLost { direction, scope } => (Some(direction), Some(scope)),
            Cause::PeerClosed(_)
            | Cause::PeerExited
            | Cause::PeerReset
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::AppHung
            | Cause::NotReading
            | Cause::SlowConsumer
            | Cause::Unreachable
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::Kicked
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault
            | Cause::Unknown => (None, None),
        };
        Loss { direction, scope }
    }
}

fn direction_name<S: Serializer>(
    direction: &Option<Direction>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    direction.map(Direction::name).serialize(serializer)
}

fn scope_name<S: Serializer>(scope: &Option<Scope>, serializer: S) -> Result<S::Ok, S::Error> {
    scope.map(Scope::name).serialize(serializer)
}

/// How a session ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct End {
    /// The name of the cause, as in the metric `systole_verdicts_total`.
    pub cause: &'static str,
    /// The direction and scope of a lost path.
    #[serde(flatten)]
    pub loss: Loss,
    /// The confidence in the cause: `medium`, `high` or `certain`.
    pub confidence: &'static str,
    /// The cause with its details, as text for people.
    pub detail: String,
    /// How long before the verdict the peer was last heard, in milliseconds.
    pub last_heard_ago_ms: u64,
    /// When the verdict was due, in milliseconds since 1970-01-01 UTC.
    pub due_ms: u64,
    /// How much later than due the verdict fell, in microseconds; negative if the kernel forced it
    /// before the bound.
    pub late_us: i64,
    /// The number of unanswered probes.
    pub probes: u8,
    /// The grounds of the cause, as texts for people; empty if the cause was not diagnosed.
    pub grounds: Vec<&'static str>,
    /// How long the connection was open, in milliseconds.
    pub lasted_ms: u64,
}

/// How a verdict was revised.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Revision {
    /// The name of the cause published first.
    pub from: &'static str,
    /// The name of the better cause.
    pub to: &'static str,
    /// The direction and scope of a lost path, by the better cause.
    #[serde(flatten)]
    pub loss: Loss,
    /// The confidence in the better cause: `medium`, `high` or `certain`.
    pub confidence: &'static str,
    /// The better cause with its details, as text for people.
    pub detail: Box<str>,
    /// The grounds of the cause, as texts for people.
    pub because: Box<str>,
    /// How long the link had been idle when a middlebox had forgotten it, in milliseconds; absent
    /// for other causes.
    pub idle_ms: Option<u64>,
    /// The session's number, better cause, confidence and reason, for the kept verdict. Boxed,
    /// since every event is as large as the largest.
    #[serde(skip)]
    pub(crate) kept: Box<(u64, Cause, Confidence, Note)>,
}

/// An outage: verdicts that fell together.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OutageInfo {
    /// The outage's number, from 1.
    pub outage: u64,
    /// The network of the peers, such as `192.0.2.0/24`; absent if the gateway's network is down.
    pub network: Option<String>,
    /// The name of the listener; absent if the gateway's network is down.
    #[schema(value_type = Option<String>)]
    pub listener: Option<Arc<str>>,
    /// The number of verdicts.
    pub affected: u32,
    /// The number of sessions online before, in the network at the listener.
    pub of_online: u32,
    /// The number of hosts lost.
    pub hosts: u32,
    /// The number of lost hosts that returned.
    pub returned: u32,
    /// Whether enough hosts returned to end the outage.
    pub recovered: bool,
    /// When the first verdict fell, in milliseconds since 1970-01-01 UTC.
    pub began_ms: u64,
    /// When the last verdict fell, in milliseconds since 1970-01-01 UTC.
    pub last_ms: u64,
}

impl End {
    /// Describes `verdict`, which fell at `at_ms`.
    pub fn new(at_ms: u64, verdict: &Verdict, lasted: Span) -> End {
        End {
            cause: verdict.cause.name(),
            loss: Loss::new(verdict.cause),
            confidence: verdict.confidence.name(),
            detail: verdict.cause.to_string(),
            last_heard_ago_ms: verdict.at.since(verdict.last_heard).as_millis(),
            due_ms: at_ms.saturating_add_signed(-verdict.late_us() / 1_000),
            late_us: verdict.late_us(),
            probes: verdict.probes,
            grounds: verdict.grounds.iter().map(Ground::text).collect(),
            lasted_ms: lasted.as_millis(),
        }
    }
}

/// The values of a policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct PolicyInfo {
    /// The detection bound D, in milliseconds; absent if silence is never judged.
    pub bound_ms: Option<u64>,
    /// The silence before the first probe, in milliseconds.
    pub idle_ms: Option<u64>,
    /// The time from one probe to the next, in milliseconds.
    pub interval_ms: Option<u64>,
    /// The number of probes that may go unanswered.
    pub probes: Option<u8>,
    /// The time without a byte in either direction after which a keepalive goes out, in
    /// milliseconds; it keeps mappings on the path alive.
    pub keepalive_ms: Option<u64>,
    /// Whether first probes are spread over time.
    pub spread: bool,
    /// Whether the verdict ends the link, or is only reported.
    pub enforce: bool,
}

impl PolicyInfo {
    /// Describes `policy`.
    pub fn new(policy: &Policy) -> PolicyInfo {
        let (idle, interval, probes) = match policy.detection() {
            Detection::Never => (None, None, None),
            Detection::Bounded { idle, interval, probes } => {
                (Some(idle), Some(interval), Some(probes))
            }
        };
        PolicyInfo {
            bound_ms: policy.bound().map(Span::as_millis),
            idle_ms: idle.map(Span::as_millis),
            interval_ms: interval.map(Span::as_millis),
            probes,
            keepalive_ms: policy.keepalive().map(Span::as_millis),
            spread: policy.spread(),
            enforce: policy.enforce(),
        }
    }
}

/// The names and limits that complete a fact to an event.
#[derive(Clone, Debug)]
pub struct Names {
    /// The names of the listeners, by index.
    pub listeners: Vec<Arc<str>>,
    /// The limit on open descriptors of this process.
    pub descriptors: Option<u64>,
    /// The limit on links per shard.
    pub max_links: u64,
    /// Whether `max_links` follows from the descriptor limit instead of the configuration.
    pub links_by_descriptors: bool,
}

impl Names {
    pub(crate) fn session(&self, subject: Subject) -> Session {
        let listener = self.listeners.get(usize::from(subject.listener));
        let listener = listener.cloned().unwrap_or_default();
        Session::new(subject, listener)
    }

    /// Makes the event of a pause of accepting.
    pub(crate) fn paused(&self, shard: usize, reason: PauseReason) -> Body {
        let Limit { name, limit, hint } = self.limit(reason);
        Body::AcceptingPaused { shard, reason: name, limit, hint }
    }

    /// Describes the limit at which accepting pauses.
    pub(crate) fn limit(&self, reason: PauseReason) -> Limit {
        let (name, limit, hint) = match reason {
            PauseReason::LinkLimit if !self.links_by_descriptors => (
                "link_limit",
                Some(self.max_links),
                "raise max_links in [limits] of the configuration, and restart",
            ),
            PauseReason::DescriptorLimit | PauseReason::LinkLimit => (
                "descriptor_limit",
                self.descriptors,
                "raise the limit on open files: LimitNOFILE= in the systemd unit, --ulimit nofile= \
                 of the container, or `ulimit -Hn` of the shell",
            ),
            PauseReason::ControlPlane => (
                "control_plane",
                None,
                "the control plane is behind with the events of ended sessions: give the gateway \
                 more processor time",
            ),
            PauseReason::BeaconLimit => (
                "beacon_limit",
                None,
                "raise max_beacons of the listener in the configuration, and restart",
            ),
            PauseReason::HostLimit => (
                "host_limit",
                None,
                "the host ran out of descriptors or memory: raise fs.file-max, or give it memory",
            ),
        };
        Limit { name, limit, hint }
    }
}

/// A limit at which accepting pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limit {
    /// The name of the limit.
    pub name: &'static str,
    /// The limit that was reached, if it is a number.
    pub limit: Option<u64>,
    /// How to raise the limit.
    pub hint: &'static str,
}

/// Makes the JSON of an event of a session at `at_ms`.
pub(super) fn session_body(
    at_ms: u64,
    session: Session,
    event: &session::Event,
    parting: &Parting,
) -> Body {
    match event {
        session::Event::Joined { policy, account: _ } => {
            Body::Join { session, policy: PolicyInfo::new(policy) }
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
        session::Event::Left(verdict) => {
            Body::Leave { session, end: End::new(at_ms, verdict, parting.lasted) }
        }
    }
}
