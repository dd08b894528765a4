//! Settings, inputs, outputs, counters and read-only views of the beacon machine.

use core::net::SocketAddr;

use super::datagram::{Reply, Statement};
use crate::machine::{self, kinds_of_input};
use crate::policy::Policy;
use crate::session;
use crate::time::{Span, Time};

/// The settings of a shard's beacon machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The first byte of the session numbers.
    pub shard: u8,
    /// The policy for all devices. The keepalive has no effect: the machine only answers.
    pub policy: Policy,
    /// The maximum number of devices online at once, at most [`super::MAX_BEACONS`]. Statements of
    /// further devices are dropped and counted.
    pub max_beacons: u32,
    /// The wall clock at [`Time::ZERO`], in milliseconds since 1970-01-01 UTC. It makes epochs rise
    /// across restarts.
    pub wall_origin_ms: u64,
    /// The random seed. It must differ at each start: no challenge may repeat under the same keys.
    pub seed: u64,
}

crate::plain::plain_struct! { Settings { shard, policy, max_beacons, wall_origin_ms, seed } }

/// What the world did to the beacon machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// A statement arrived whose tag was right.
    Statement {
        /// The statement.
        statement: Statement,
        /// The sender's address.
        address: SocketAddr,
    },
    /// A command of an operator.
    Command(BeaconCommand),
    /// A statement with a right tag of a device that is banned, or from a banned address.
    Banned {
        /// The statement.
        statement: Statement,
    },
}

crate::plain::plain_enum! { World {
    0 => Statement { statement: statement, address: address }
    1 => Command { 0: command }
    2 => Banned { statement: statement }
} }

/// An answer to a wish of the beacon machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The deadline of a part has come. An early answer does no harm.
    Deadline(Part),
    /// This many places are taken by devices that are gone and whose last event the shell still
    /// has to deliver. New devices are admitted only beyond them.
    PlacesHeld(u32),
}

crate::plain::plain_enum! { Answer {
    0 => Deadline { 0: part }
    1 => PlacesHeld { 0: places }
} }

/// An input of the beacon machine.
pub type Input = machine::Input<World, Answer>;

kinds_of_input!(World, Answer);

/// A part of the beacon machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// What no device owns: counters, random numbers, floors, commands for all devices.
    Common,
    /// The device at this place of the table.
    Device(u32),
}

crate::plain::plain_enum! { Part {
    0 => Common {}
    1 => Device { 0: number }
} }

/// A command to the beacon machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeaconCommand {
    /// Puts a policy in force: for new devices at once, for the others step by step.
    Retune(Policy),
    /// Removes all devices step by step, and ignores all further statements.
    Drain,
    /// Suspends suspicion and verdict for one device.
    Hold {
        /// The device's number.
        device: u64,
        /// The length of the hold.
        span: Span,
    },
    /// Ends a hold.
    Release {
        /// The device's number.
        device: u64,
    },
    /// Removes one device, and refuses its statements for [`KICK_REST`](super::KICK_REST).
    Kick {
        /// The device's number.
        device: u64,
    },
}

crate::plain::plain_enum! { BeaconCommand {
    0 => Retune { 0: policy }
    1 => Drain {}
    2 => Hold { device: device, span: span }
    3 => Release { device: device }
    4 => Kick { device: device }
} }

/// An output of the beacon machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// A reply to be sent with its tag.
    Reply {
        /// The reply.
        reply: Reply,
        /// The address that the statement came from.
        address: SocketAddr,
    },
    /// An event of a device's session.
    Session {
        /// The device as it was at the time of the event.
        subject: Subject,
        /// The event.
        event: session::Event,
    },
    /// The device's status bytes changed.
    Status {
        /// The device with its new status bytes.
        subject: Subject,
        /// The former status bytes.
        from: u16,
    },
}

impl Output {
    /// Returns the number of the device.
    pub const fn device(&self) -> u64 {
        match self {
            Output::Reply { reply, .. } => reply.device,
            Output::Session { subject, .. } | Output::Status { subject, .. } => subject.device,
        }
    }
}

/// The device and session of an event or a presence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subject {
    /// The device's number.
    pub device: u64,
    /// The session's number.
    pub session: u64,
    /// The session's epoch.
    pub epoch: u64,
    /// The address of the newest statement.
    pub address: SocketAddr,
    /// The time at which the device came online.
    pub since: Time,
    /// The status bytes of the newest statement.
    pub status: u16,
}

/// The counters of the beacon machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Online devices.
    pub online: u32,
    /// Suspect devices.
    pub suspects: u32,
    /// Statements that counted as evidence.
    pub heard: u64,
    /// Statements that were answered with a challenge.
    pub challenged: u64,
    /// Statements that were dropped as replays, or because their challenge is used up and the next
    /// one may not begin yet.
    pub replayed: u64,
    /// Statements of new devices that were dropped because the table was full.
    pub full: u64,
    /// Statements of kicked devices that were dropped.
    pub kicked: u64,
    /// Statements that were dropped because their device or their address is banned.
    pub banned: u64,
}

/// A read-only view of an online device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presence {
    /// The device and its session.
    pub subject: Subject,
    /// The time of the last evidence.
    pub last_heard: Time,
    /// Whether the device is suspect or overdue.
    pub suspect: bool,
    /// The end of the last hold, which may be in the past.
    pub held_until: Option<Time>,
    /// The policy in force.
    pub policy: Policy,
}
