//! One event as subscribers see it.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use systole_core::cause::{Cause, Confidence, Direction, Scope, Verdict};
use systole_core::diagnosis::Ground;
use systole_core::ledger::Note;
use systole_core::policy::Detection;
use systole_core::{Policy, Span};
use utoipa::ToSchema;

use crate::report::{Change, PauseReason, Report, Subject, session_text};

/// One thing that happened, with its number.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// Its place in the order of all events of this gateway process, from 1.
    pub number: u64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A session is online.
    Join {
        /// Which.
        #[serde(flatten)]
        session: Session,
        /// The policy in force.
        policy: PolicyInfo,
    },
    /// A session, or a connection that never became one, is gone.
    Leave {
        /// Which.
        #[serde(flatten)]
        session: Session,
        /// Why, and on what evidence.
        #[serde(flatten)]
        end: End,
    },
    /// A verdict that was told has another cause, as the peer's return or other links showed.
    VerdictRevised {
        /// Whose verdict; long gone.
        #[serde(flatten)]
        session: Session,
        /// From what, to what, and why.
        #[serde(flatten)]
        revision: Revision,
    },
    /// Verdicts that fell together are one outage.
    Outage(OutageInfo),
    /// An outage is over: half of its hosts are back, or it was given up.
    OutageOver(OutageInfo),
    /// A probe is unanswered for longer than it should be.
    Suspect(Session),
    /// A router, our own network or our own neighbour says already why a session's verdict would
    /// fall; nothing ends yet. At most once in a silence.
    Warned {
        /// Which.
        #[serde(flatten)]
        session: Session,
        /// The cause, by name.
        cause: &'static str,
        /// How sure it is: `medium`, `high` or `certain`.
        confidence: &'static str,
        /// The cause for people.
        detail: String,
        /// What it rests on, for people.
        grounds: Vec<&'static str>,
    },
    /// The suspicion is over.
    Recovered(Session),
    /// The bound has passed; the peer hangs or does not read, and is kept for a while.
    Hung {
        /// Which.
        #[serde(flatten)]
        session: Session,
        /// `app_hung` or `not_reading`.
        cause: &'static str,
    },
    /// The bound has passed, and the policy does not enforce it.
    Overdue(Session),
    /// Another policy is in force for a session.
    Retuned {
        /// Which.
        #[serde(flatten)]
        session: Session,
        /// The policy now in force.
        policy: PolicyInfo,
    },
    /// A session is heard from another address than before.
    Moved {
        /// Which, with its new address.
        #[serde(flatten)]
        session: Session,
        /// The address before.
        from: String,
    },
    /// A shard did not run although it should have; all deadlines moved by that.
    Stalled {
        /// Which shard.
        shard: usize,
        /// For how long it was absent.
        absent_ms: u64,
        /// How much of that the host was suspended.
        suspended_ms: u64,
    },
    /// A shard accepts no more connections for now; those that are open are unharmed.
    AcceptingPaused {
        /// Which shard.
        shard: usize,
        /// `descriptor_limit`, `host_limit` or `link_limit`.
        reason: &'static str,
        /// The limit that was met, where it is a number.
        limit: Option<u64>,
        /// How to raise it.
        hint: &'static str,
    },
    /// A shard accepts again.
    AcceptingResumed {
        /// Which shard.
        shard: usize,
    },
    /// Reports of a shard were lost because the control plane was slow: what was learned from
    /// events so far may be wrong, and a new snapshot is needed.
    Missed {
        /// Which shard.
        shard: usize,
        /// How many.
        count: u64,
    },
}

impl Body {
    /// The kind, as in the JSON.
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
            Body::Missed { .. } => "missed",
        }
    }
}

/// The session that an event is about.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Session {
    /// The session's number, 16 hexadecimal digits.
    pub session: String,
    /// Its epoch, in decimal; numbers in JSON would lose its last digits.
    pub epoch: String,
    /// Who it says it is; empty where it did not say.
    pub identity: Box<str>,
    /// The name of its listener.
    #[schema(value_type = String)]
    pub listener: Arc<str>,
    /// Where it comes from.
    pub address: String,
    /// Whether it was ever online: its handshake was complete.
    pub established: bool,
}

impl Session {
    /// The session of `subject`, at the listener of that name.
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

/// What of a path is lost; empty for any cause but `path_lost`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Loss {
    /// Which way: `both`, `outbound` (what we send does not arrive) or `inbound`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "direction_name")]
    #[schema(value_type = Option<String>)]
    pub direction: Option<Direction>,
    /// How much: this `flow` alone, its whole `host`, or `many` hosts; `unknown` where no other
    /// link tells.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "scope_name")]
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
}

impl Loss {
    /// What `cause` says of it.
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

fn direction_name<S: Serializer>(way: &Option<Direction>, to: S) -> Result<S::Ok, S::Error> {
    way.map(Direction::name).serialize(to)
}

fn scope_name<S: Serializer>(scope: &Option<Scope>, to: S) -> Result<S::Ok, S::Error> {
    scope.map(Scope::name).serialize(to)
}

/// How a session ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct End {
    /// Why, by name: one of those that the metric `systole_verdicts_total` counts.
    pub cause: &'static str,
    /// What of a path is lost.
    #[serde(flatten)]
    pub loss: Loss,
    /// How sure that is: `medium`, `high` or `certain`.
    pub confidence: &'static str,
    /// The cause with its particulars, for people.
    pub detail: String,
    /// How long before the verdict the peer was last heard.
    pub last_heard_ago_ms: u64,
    /// When the verdict was due, in milliseconds since 1970-01-01 UTC.
    pub due_ms: u64,
    /// How much later than due it fell.
    pub late_us: u64,
    /// How many probes were unanswered.
    pub probes: u8,
    /// What the cause rests on, for people; empty where it was not diagnosed.
    pub grounds: Vec<&'static str>,
    /// How long the connection was open.
    pub lasted_ms: u64,
}

/// How a verdict was revised.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Revision {
    /// The cause as it was told, by name.
    pub from: &'static str,
    /// The better one.
    pub to: &'static str,
    /// What of a path is lost, by the better cause.
    #[serde(flatten)]
    pub loss: Loss,
    /// How sure that is: `medium`, `high` or `certain`.
    pub confidence: &'static str,
    /// The better cause with its particulars, for people.
    pub detail: Box<str>,
    /// What it rests on, for people.
    pub because: Box<str>,
    /// How long the link had carried nothing when it was found forgotten; absent for other causes.
    pub idle_ms: Option<u64>,
    /// The session's number, its better cause, how sure that is and what showed it, as they are
    /// kept; boxed, since every event takes as much room as the largest.
    #[serde(skip)]
    pub(crate) kept: Box<(u64, Cause, Confidence, Note)>,
}

/// An outage: verdicts that fell together.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OutageInfo {
    /// Its number, from 1.
    pub outage: u64,
    /// The network of the peers, such as `192.0.2.0/24`; absent if our own network is down.
    pub network: Option<String>,
    /// The name of the listener; likewise.
    #[schema(value_type = Option<String>)]
    pub listener: Option<Arc<str>>,
    /// How many verdicts.
    pub affected: u32,
    /// How many sessions were online there before.
    pub of_online: u32,
    /// From how many hosts.
    pub hosts: u32,
    /// How many of these hosts have come back.
    pub returned: u32,
    /// Whether enough came back.
    pub recovered: bool,
    /// When the first verdict fell, in milliseconds since 1970-01-01 UTC.
    pub began_ms: u64,
    /// When the last verdict fell, likewise.
    pub last_ms: u64,
}

impl End {
    /// What the API shows of `verdict`, which fell at `at_ms`.
    pub fn new(at_ms: u64, verdict: &Verdict, lasted: Span) -> End {
        let late = verdict.at.since(verdict.due);
        End {
            cause: verdict.cause.name(),
            loss: Loss::new(verdict.cause),
            confidence: verdict.confidence.name(),
            detail: verdict.cause.to_string(),
            last_heard_ago_ms: verdict.at.since(verdict.last_heard).as_millis(),
            due_ms: at_ms.saturating_sub(late.as_millis()),
            late_us: late.as_micros(),
            probes: verdict.probes,
            grounds: verdict.grounds.iter().map(Ground::text).collect(),
            lasted_ms: lasted.as_millis(),
        }
    }
}

/// A policy in numbers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct PolicyInfo {
    /// D, the detection bound; absent where silence is never judged.
    pub bound_ms: Option<u64>,
    /// Silence before the first probe.
    pub idle_ms: Option<u64>,
    /// From one probe to the next.
    pub interval_ms: Option<u64>,
    /// How many probes may go unanswered.
    pub probes: Option<u8>,
    /// After how long without a byte either way a heartbeat goes out for mappings on the way.
    pub keepalive_ms: Option<u64>,
    /// Whether first probes are spread.
    pub spread: bool,
    /// Whether the verdict ends the link, or is only told.
    pub enforce: bool,
}

impl PolicyInfo {
    /// What the API shows of `policy`.
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

/// What is needed to say a report in full.
#[derive(Clone, Debug)]
pub struct Names {
    /// The names of the listeners, by index.
    pub listeners: Vec<Arc<str>>,
    /// How many descriptors this process may hold open.
    pub descriptors: Option<u64>,
    /// How many links one shard may hold.
    pub max_links: u64,
    /// Whether that follows from the descriptor limit, rather than from the configuration.
    pub links_by_descriptors: bool,
}

impl Names {
    /// The event that `report` of `shard` amounts to, and its time where the report has one. `None`
    /// for what is logged but is no event.
    pub(super) fn body(&self, shard: usize, report: Report) -> Option<(Option<u64>, Body)> {
        let body = match report {
            Report::Session { at_ms, subject, change } => {
                let body = change_body(at_ms, self.session(subject), change)?;
                return Some((Some(at_ms), body));
            }
            Report::Missed(count) => Body::Missed { shard, count },
            Report::Stalled { absent, suspended } => Body::Stalled {
                shard,
                absent_ms: absent.as_millis(),
                suspended_ms: suspended.as_millis(),
            },
            Report::AcceptingPaused(reason) => self.paused(shard, reason),
            Report::AcceptingResumed => Body::AcceptingResumed { shard },
            Report::Stopped => return None,
        };
        Some((None, body))
    }

    pub(crate) fn session(&self, subject: Subject) -> Session {
        let listener = self.listeners.get(usize::from(subject.listener));
        let listener = listener.cloned().unwrap_or_default();
        Session::new(subject, listener)
    }

    fn paused(&self, shard: usize, reason: PauseReason) -> Body {
        let (reason, limit, hint) = match reason {
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
            PauseReason::HostLimit => (
                "host_limit",
                None,
                "the host ran out of descriptors or memory: raise fs.file-max, or give it memory",
            ),
        };
        Body::AcceptingPaused { shard, reason, limit, hint }
    }
}

fn change_body(at_ms: u64, session: Session, change: Change) -> Option<Body> {
    Some(match change {
        Change::Join { policy, account: _ } => {
            Body::Join { session, policy: PolicyInfo::new(&policy) }
        }
        Change::Suspect => Body::Suspect(session),
        Change::Warned { cause, confidence, grounds } => Body::Warned {
            session,
            cause: cause.name(),
            confidence: confidence.name(),
            detail: cause.to_string(),
            grounds: grounds.iter().map(Ground::text).collect(),
        },
        Change::Recovered => Body::Recovered(session),
        Change::Hung(cause) => Body::Hung { session, cause: cause.name() },
        Change::Overdue => Body::Overdue(session),
        Change::Retuned(policy) => Body::Retuned { session, policy: PolicyInfo::new(&policy) },
        Change::Moved { from } => Body::Moved { session, from: from.to_string() },
        Change::Leave { verdict, lasted, .. } => {
            Body::Leave { session, end: End::new(at_ms, &verdict, lasted) }
        }
        Change::Heartbeat { .. } => return None,
    })
}
