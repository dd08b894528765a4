//! The inputs and outputs of the liveness machine.

use crate::policy::Policy;
use crate::time::{Span, Time};

/// An input of the liveness machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// Evidence that the peer is alive.
    Heard(Evidence),
    /// This end sent something. That postpones the keepalive and is no evidence.
    Sent,
    /// The handshake is complete: the policy applies from now on.
    Introduced {
        /// A random number, for the spread of the first probe.
        seed: u32,
    },
    /// The time of [`super::Liveness::next_deadline`] may have come.
    Deadline,
    /// The application wants a heartbeat now, whatever the silence. It is not a probe: it changes
    /// neither the suspicion nor the bound, only its answer is evidence.
    Heartbeat,
    /// The policy passed with this input has replaced another.
    Retuned {
        /// The policy that was in force.
        from: Policy,
        /// A random number, as in `Introduced`: links retuned together must not send heartbeats
        /// together.
        seed: u32,
    },
    /// A hold begins: no suspicion and no verdict before `until`.
    Hold {
        /// When the hold ends; silence counts from there.
        until: Time,
    },
    /// The hold ends; silence counts from now.
    Release,
    /// The verdict that has just fallen is withdrawn and the hung peer is kept: it stays suspect
    /// and is probed once more, one interval before `until`.
    Keep {
        /// When the verdict falls unless there is evidence.
        until: Time,
    },
    /// The kernel's own figure of the round trip, as an examination shows it. It replaces what
    /// pongs have shown: the pong that ends a suspicion may answer a retransmission. During a
    /// silence it only lengthens the round trip.
    KernelRoundTrip(Span),
    /// The peer has closed its side: it sends no more evidence, and its silence no longer counts.
    HalfClosed {
        /// When the verdict falls.
        until: Time,
    },
}

/// A proof that the peer is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// Bytes arrived, at least part of a frame.
    Bytes,
    /// The answer to one of our heartbeats arrived.
    Pong {
        /// The sequence number of that heartbeat; `None` in protocols without sequence numbers.
        sequence: Option<u8>,
    },
    /// The peer's kernel acknowledges our data, if slowly. This evidence may follow the verdict,
    /// and then withdraws it.
    Progress,
}

/// A request or report of the liveness machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send PING `sequence`: the peer has been silent.
    Probe {
        /// The sequence number of the PING.
        sequence: u8,
        /// The number of the probe in this silence, from 1.
        number: u8,
    },
    /// Send PING `sequence`: no byte has passed in either direction, and mappings (NAT, firewalls)
    /// on the path may expire; or the answer to [`Input::Heartbeat`].
    Keepalive {
        /// The sequence number of the PING.
        sequence: u8,
    },
    /// Send PING `sequence` to a peer that closed its side: if its process has ended, its kernel
    /// answers with a reset.
    Confirm {
        /// The sequence number of the PING.
        sequence: u8,
    },
    /// The pong to a heartbeat arrived after this time.
    RoundTrip(Span),
    /// A probe is unanswered for longer than it should be. Nothing is to be cleaned up yet.
    Suspect,
    /// The suspicion has ended.
    Recovered,
    /// The bound has passed, and the policy says to report only.
    Overdue(Silence),
    /// The verdict has fallen; the machine takes no further input.
    Dead(Silence),
}

/// The silence that led to a verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// The deadline that passed.
    pub due: Time,
    /// By how much the deadline was later than the bound, because of a long round trip; in whole
    /// milliseconds.
    pub stretch: Span,
    /// The time of the last evidence.
    pub last_heard: Time,
    /// The number of probes sent in this silence.
    pub probes: u8,
    /// Whether the handshake was not complete.
    pub in_handshake: bool,
}

crate::plain::plain_struct! { Silence { due, stretch, last_heard, probes, in_handshake } }
