//! What goes in at the door of the liveness machine, and what comes out.

use crate::policy::Policy;
use crate::time::{Span, Time};

/// What can change the liveness of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// Something proves that the peer lives.
    Heard(Evidence),
    /// We sent something; it keeps mappings on the way alive, and nothing else.
    Sent,
    /// The handshake is complete: from now on silence is judged by the policy.
    Introduced {
        /// Chance, for the point at which the first probe falls.
        seed: u32,
    },
    /// The time of [`super::Liveness::next_deadline`] has come, or may have.
    Deadline,
    /// The policy passed along with this input has replaced another.
    Retuned {
        /// The one that was in force.
        from: Policy,
        /// Chance, as in `Introduced`: links retuned together must not beat together.
        seed: u32,
    },
    /// No suspicion and no verdict before `until`.
    Hold {
        /// When the hold ends; silence counts from there.
        until: Time,
    },
    /// End a hold now; silence counts from now.
    Release,
    /// The verdict that has just fallen is put off: the peer stays suspected, is asked once more an
    /// interval before `until`, and is judged then.
    Keep {
        /// When.
        until: Time,
    },
    /// The peer has closed its side: nothing more is heard of it, its silence counts no longer, and
    /// it is given up at `until`.
    HalfClosed {
        /// When.
        until: Time,
    },
}

/// What proves that the peer lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// Any byte, part of a frame included.
    Bytes,
    /// The answer to a heartbeat of ours.
    Pong {
        /// The heartbeat it answers; `None` in protocols without sequence numbers.
        sequence: Option<u8>,
    },
    /// The peer takes what we send it, if slowly. It may come after the verdict, which it takes
    /// back.
    Progress,
}

/// What the machine wants, or tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send PING `sequence`: the peer has been silent.
    Probe {
        /// Its sequence number.
        sequence: u8,
        /// Which probe of this silence it is, from 1.
        number: u8,
    },
    /// Send PING `sequence`: nothing has passed either way, and mappings on the way may forget.
    Keepalive {
        /// Its sequence number.
        sequence: u8,
    },
    /// Send PING `sequence` to a peer that closed its side: a process that has ended answers with a
    /// reset.
    Confirm {
        /// Its sequence number.
        sequence: u8,
    },
    /// Look at the socket: what was sent is unanswered, and the kernel may be about to give up.
    Examine,
    /// A heartbeat came back after this long.
    RoundTrip(Span),
    /// A probe has been out for longer than it should. Nothing is to be destroyed yet.
    Suspect,
    /// The suspicion is over.
    Recovered,
    /// The bound has passed, and the policy says only to tell.
    Overdue(Silence),
    /// The peer is given up; the machine takes no further input.
    Dead(Silence),
}

/// The silence a verdict rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// The deadline that passed.
    pub due: Time,
    /// The last evidence of the peer.
    pub last_heard: Time,
    /// Probes sent into this silence.
    pub probes: u8,
    /// Whether the peer never introduced itself.
    pub in_handshake: bool,
}

/// When the machine wants to be called, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// When.
    pub at: Time,
    /// What for.
    pub reason: Reason,
}

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The peer must have introduced itself.
    Handshake,
    /// A probe is due.
    Probe,
    /// A keepalive is due.
    Keepalive,
    /// The socket is to be looked at, for what we sent is unanswered.
    Examine,
    /// An unanswered probe becomes a suspicion.
    Suspicion,
    /// The verdict is due.
    Verdict,
    /// A peer that closed its side is given up.
    HalfClose,
}
