//! Who is online: what a hub knows of one session, to look at.

use core::net::SocketAddr;

use super::Slot;
use crate::flight::Flight;
use crate::liveness::Deadline;
use crate::policy::Policy;
use crate::time::{Span, Time};
use crate::wire::{BootId, InstanceId};

/// What is known of one link and its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presence<'a> {
    /// The shell's number for the link.
    pub link: u32,
    /// The index of its listener.
    pub listener: u16,
    /// Where it comes from.
    pub address: SocketAddr,
    /// The session's number, never used twice.
    pub session: u64,
    /// Higher than that of any earlier session of this shard.
    pub epoch: u64,
    /// Who it says it is; empty where it did not say.
    pub identity: &'a str,
    /// The peer's boot id; zeros where unknown.
    pub boot_id: BootId,
    /// The peer's instance id; zeros where unknown.
    pub instance_id: InstanceId,
    /// When the link was opened.
    pub opened: Time,
    /// When the handshake was complete, if it is or was.
    pub established: Option<Time>,
    /// The last evidence of the peer.
    pub last_heard: Time,
    /// When we last sent anything.
    pub last_sent: Time,
    /// The smoothed round-trip time, once one was measured.
    pub smoothed_rtt: Option<Span>,
    /// Whether the peer is suspected or overdue.
    pub suspect: bool,
    /// The end of a hold, which may be past.
    pub held_until: Option<Time>,
    /// What happens next unless something is heard or sent before; `None` if no time matters.
    pub next_deadline: Option<Deadline>,
    /// The policy in force.
    pub policy: &'a Policy,
    /// What happened lately, the verdict included once it has fallen.
    pub flight: &'a Flight,
}

impl<'a> Presence<'a> {
    pub(super) fn of(link: u32, slot: &'a Slot) -> Presence<'a> {
        let liveness = slot.peer.liveness();
        let introduced = slot.peer.introduced();
        let key = slot.peer.session();
        Presence {
            link,
            listener: slot.listener,
            address: slot.address.get(),
            session: key.session,
            epoch: key.epoch,
            identity: introduced.map_or("", |introduced| &introduced.identity),
            boot_id: introduced.map_or(BootId::default(), |introduced| introduced.boot_id),
            instance_id: introduced.map_or(InstanceId::default(), |known| known.instance_id),
            opened: slot.peer.flight().opened(),
            established: slot
                .established
                .checked_sub(1)
                .map(|after| slot.peer.flight().opened() + Span::from_millis(u64::from(after))),
            last_heard: liveness.last_heard(),
            last_sent: liveness.last_sent(),
            smoothed_rtt: liveness.smoothed_rtt(),
            suspect: slot.peer.is_suspect(),
            held_until: liveness.held_until(),
            next_deadline: slot.peer.next_deadline(),
            policy: slot.peer.policy(),
            flight: slot.peer.flight(),
        }
    }
}
