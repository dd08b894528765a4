//! The messages between the bench and its load workers: one JSON object per line over pipes.

use serde::{Deserialize, Serialize};

use super::codec::Codec;

/// A command from the bench to a worker, on the worker's standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum WorkerCommand {
    /// Opens the links. Answered by [`Event::Connected`].
    Connect(Connect),
    /// Each loud link sends a heartbeat every `period_ns`, phases spread evenly.
    Pace { period_ns: u64 },
    /// The first `active` loud links send the next heartbeat as soon as one is answered.
    Loop { active: usize },
    /// The first `links` links send a message and a heartbeat, and the next pair as soon as that is
    /// answered, whatever the others do.
    Data { links: usize },
    /// The links send only answers.
    Idle,
    /// The first link also sends a message of data, and another after each answer and a pause of
    /// random length between these two; `None` ends this.
    Talk { pause_ns: Option<(u64, u64)> },
    /// The last `count` loud links stop sending and answering, and keep their sockets open. With
    /// `burst` each sends one last heartbeat first, so that all deadlines fall at one instant.
    Silence { count: usize, burst: bool },
    /// Requests an [`Event::Report`], and resets the counts.
    Report,
}

/// The parameters with which a worker opens its links.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Connect {
    /// `HOST:PORT` with a literal address.
    pub(crate) target: String,
    pub(crate) codec: Codec,
    /// Number of this worker's first link, from which identities and source addresses follow.
    pub(crate) first: usize,
    pub(crate) links: usize,
    pub(crate) peer: Peer,
    /// Whether the links speak TLS.
    pub(crate) tls: bool,
    /// Whether all links are opened at once, and not some after the others.
    pub(crate) at_once: bool,
}

/// What the links are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
    /// A gateway, with a handshake where the codec has one.
    Gateway,
    /// A bare echo: no handshake, and our own ping comes back as the answer.
    Echo,
    /// A bare prober: no handshake, and its pings are answered.
    Prober,
}

/// An event from a worker to the bench, on the worker's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// Some more links are up.
    Progress { connected: usize },
    /// All links are up, or have failed.
    Connected { connected: usize, failed: usize, error: Option<String> },
    /// What happened since the last report.
    Report(Report),
}

/// Counts since the last report; times in nanoseconds of the worker's own clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) now_ns: u64,
    /// Time that this report covers.
    pub(crate) span_ns: u64,
    pub(crate) answered: u64,
    /// Messages sent on the links of [`WorkerCommand::Data`]; their heartbeats are not counted.
    pub(crate) messages: u64,
    /// Heartbeats from the target that were answered.
    pub(crate) probes: u64,
    /// Heartbeats that were due while the previous one was unanswered, and were left out.
    pub(crate) overruns: u64,
    /// Links that ended although they were neither silent nor closed by us.
    pub(crate) lost: u64,
    /// The longest time between two turns of the worker's loop.
    pub(crate) gap_ns: u64,
    /// The target's verdicts on silent links.
    pub(crate) verdicts: Vec<Verdict>,
    /// Round-trip times of heartbeats: (nanoseconds, count).
    pub(crate) rtt: Vec<(u64, u64)>,
    /// Round-trip times of messages of data, in nanoseconds.
    pub(crate) talk_ns: Vec<u64>,
}

/// A silent link that the target has closed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Time at which the last byte was sent.
    pub(crate) last_sent_ns: u64,
    /// Time at which the close was detected.
    pub(crate) closed_ns: u64,
}
