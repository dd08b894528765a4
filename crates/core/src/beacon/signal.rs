//! What goes in at the door of the beacons' machine, what comes out, and what can be seen of it.

use core::net::SocketAddr;

use super::datagram::{Answer, Statement};
use crate::cause::Verdict;
use crate::policy::Policy;
use crate::time::{Span, Time};

/// How a shard's beacons are judged.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The first byte of its sessions' numbers.
    pub shard: u8,
    /// The policy of all devices. Nothing is ever sent unasked, so that its keepalive is without
    /// effect.
    pub policy: Policy,
    /// The most devices online at once; statements of more are dropped and counted. Never more than
    /// [`super::MAX_BEACONS`].
    pub max_beacons: u32,
    /// The wall clock at [`Time::ZERO`], in milliseconds since 1970-01-01 UTC: from it the epochs
    /// rise across restarts.
    pub wall_origin_ms: u64,
    /// Chance. It must differ at each start: no challenge may ever come twice under the same keys.
    pub seed: u64,
}

/// What can change the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// A statement arrived, and its tag was right.
    Statement {
        /// What it says.
        statement: Statement,
        /// Where it comes from.
        address: SocketAddr,
    },
    /// The time of the next deadline has come, or may have.
    Deadline,
    /// Something is wanted.
    Command(BeaconCommand),
}

/// What may be wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeaconCommand {
    /// Put this policy in force, for new devices at once, for the others in turn.
    Retune(Policy),
    /// Let all devices go, in turn, and take no statement any more.
    Drain,
    /// No suspicion and no verdict for this device for this long.
    Hold {
        /// Which.
        device: u64,
        /// How long.
        span: Span,
    },
    /// End a hold.
    Release {
        /// Of which device.
        device: u64,
    },
    /// Let this device go. Its next statement brings it back.
    Kick {
        /// Which.
        device: u64,
    },
}

/// What the machine wants, or tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Send this, with its tag.
    Answer {
        /// What.
        answer: Answer,
        /// Where to: where the statement came from.
        address: SocketAddr,
    },
    /// Something happened to a device.
    Event {
        /// Which, and as what it was known then.
        subject: Subject,
        /// What.
        event: Event,
    },
}

/// The device that an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subject {
    /// Its number among its owner's devices.
    pub device: u64,
    /// Its session's number.
    pub session: u64,
    /// Its session's epoch.
    pub epoch: u64,
    /// Where it was last heard from.
    pub address: SocketAddr,
    /// When it came online.
    pub since: Time,
    /// Its last status bytes.
    pub status: u16,
}

/// What happened to a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// It is online.
    Online(Policy),
    /// It has been silent for longer than it should.
    Suspect,
    /// The suspicion is over.
    Recovered,
    /// The bound has passed, and the policy says only to tell.
    Overdue {
        /// When the verdict would have fallen.
        due: Time,
    },
    /// It is heard from another address.
    Moved {
        /// Where it was heard from before.
        from: SocketAddr,
    },
    /// Its status bytes have changed.
    Status {
        /// What they were.
        from: u16,
    },
    /// Another policy is in force.
    Retuned(Policy),
    /// It is gone.
    Lost(Verdict),
}

/// What was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Devices now online.
    pub online: u32,
    /// Devices now suspected.
    pub suspects: u32,
    /// Statements that counted as a sign of life.
    pub heard: u64,
    /// Statements that were answered with a challenge.
    pub challenged: u64,
    /// Statements that were dropped because they had been heard before.
    pub replayed: u64,
    /// Statements of new devices that were dropped because there was no room.
    pub full: u64,
}

/// What is known of a device that is online.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presence {
    /// Its place in the table, for going on from there.
    pub number: u32,
    /// Who it is.
    pub subject: Subject,
    /// When it was last heard.
    pub last_heard: Time,
    /// Whether it is suspected or overdue.
    pub suspect: bool,
    /// The end of a hold, which may be past.
    pub held_until: Option<Time>,
    /// The policy in force.
    pub policy: Policy,
}
