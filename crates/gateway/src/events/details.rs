//! The parts of which the JSON of events is made: sessions, verdicts, outages, policies.

use std::sync::Arc;

use crate::identity::Refusal;
use serde::{Serialize, Serializer};
use systole_core::cause::{Cause, Confidence, Direction, Scope, Verdict};
use systole_core::diagnosis::Ground;
use systole_core::ledger::Note;
use systole_core::policy::Detection;
use systole_core::{Policy, Span};
use utoipa::ToSchema;

use crate::report::{Subject, session_text};

/// The session to which an event refers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Session {
    /// The session's number, 16 hexadecimal digits.
    pub session: String,
    /// The session's epoch, in decimal; a JSON number would lose the last digits.
    pub epoch: Box<str>,
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
            epoch: subject.epoch.to_string().into(),
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
    /// The scope of the loss: this `flow` alone, its whole `host`, `many` hosts, or
    /// `large_packets` alone; `unknown` if nothing shows it.
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
            | Cause::MiddleboxReset
            | Cause::AppHung
            | Cause::NotReading
            | Cause::SlowConsumer
            | Cause::Unreachable
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::Kicked
            | Cause::Replaced
            | Cause::Unauthorized
            | Cause::Refused(_)
            | Cause::Flooding
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault
            | Cause::GatewayLost
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

fn refusal_name<S: Serializer>(it: &Option<Refusal>, serializer: S) -> Result<S::Ok, S::Error> {
    it.map(Refusal::name).serialize(serializer)
}

/// How a session ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct End {
    /// The name of the cause, as in the metric `systole_verdicts_total`.
    pub cause: &'static str,
    /// The direction and scope of a lost path.
    #[serde(flatten)]
    pub loss: Loss,
    /// Why the login was refused, as in the metric `systole_logins_refused_total`; only with the
    /// causes `refused` and `unauthorized`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "refusal_name")]
    #[schema(value_type = Option<String>)]
    pub refusal: Option<Refusal>,
    /// The confidence in the cause: `medium`, `high` or `certain`.
    pub confidence: &'static str,
    /// The cause with its details, as text for people.
    pub detail: Box<str>,
    /// What an operator can do about the cause.
    pub advice: &'static str,
    /// How long before the verdict the peer was last heard, in milliseconds.
    pub last_heard_ago_ms: u64,
    /// When the verdict was due, in milliseconds since 1970-01-01 UTC.
    pub due_ms: u64,
    /// How much later than due the verdict fell, in microseconds; negative if the kernel forced it
    /// before the bound.
    pub late_us: i64,
    /// By how much the bound was stretched for a long round trip, in milliseconds.
    pub stretch_ms: u64,
    /// The number of unanswered probes.
    pub probes: u8,
    /// The grounds of the cause, as texts for people; empty if the cause was not diagnosed. After a
    /// revision they are still those of the first cause.
    pub grounds: Box<[&'static str]>,
    /// How long the connection was open, in milliseconds.
    pub lasted_ms: u64,
    /// Whether the cause may still be revised, when the peer returns or other sessions settle the
    /// scope.
    pub provisional: bool,
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
    /// What an operator can do about the better cause.
    pub advice: &'static str,
    /// How long the link had been idle when a middlebox had forgotten it, in milliseconds; absent
    /// for other causes.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The name of the listener; absent if the gateway's network is down.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    /// Describes `verdict`, which fell at `at_ms`. `refusal` is why the gateway has refused a
    /// token; other reasons to refuse a login are in the cause.
    pub fn new(at_ms: u64, verdict: &Verdict, lasted: Span, refusal: Option<Refusal>) -> End {
        let cause = verdict.cause;
        let denied =
            if let Cause::Refused(denial) = cause { Some(Refusal::of(denial)) } else { None };
        End {
            cause: verdict.cause.name(),
            loss: Loss::new(verdict.cause),
            refusal: denied.or(refusal),
            confidence: verdict.confidence.name(),
            detail: verdict.cause.to_string().into(),
            advice: verdict.cause.advice(),
            last_heard_ago_ms: verdict.at.since(verdict.last_heard).as_millis(),
            due_ms: at_ms.saturating_add_signed(-verdict.late_us() / 1_000),
            late_us: verdict.late_us(),
            stretch_ms: verdict.stretch.as_millis(),
            probes: verdict.probes,
            grounds: verdict.grounds.iter().map(Ground::text).collect(),
            lasted_ms: lasted.as_millis(),
            provisional: verdict.cause.is_provisional(),
        }
    }
}

/// The values of a policy, in the form in which a policy is requested.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct PolicyInfo {
    /// Whether silence is never judged.
    pub never: bool,
    /// The detection bound D, in milliseconds; absent if silence is never judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_ms: Option<u64>,
    /// The silence before the first probe, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// The time from one probe to the next, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// The number of probes that may go unanswered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<u8>,
    /// The time without a byte in either direction after which a keepalive goes out, in
    /// milliseconds, to keep mappings on the path alive; 0 for none.
    pub keepalive_ms: u64,
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
            never: policy.bound().is_none(),
            bound_ms: policy.bound().map(Span::as_millis),
            idle_ms: idle.map(Span::as_millis),
            interval_ms: interval.map(Span::as_millis),
            probes,
            keepalive_ms: policy.keepalive().map_or(0, Span::as_millis),
            spread: policy.spread(),
            enforce: policy.enforce(),
        }
    }
}
