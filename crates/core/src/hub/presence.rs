//! A read-only view of one link and its session.

use alloc::collections::BTreeMap;
use core::net::SocketAddr;

use super::Slot;
use super::granted::Granted;
use super::sessions::{Session, Sessions};
use crate::flight::Flight;
use crate::machine::Deadline;
use crate::pages::Scan;
use crate::policy::Policy;
use crate::time::{Span, Time};
use crate::wire::{BootId, InstanceId};

/// A read-only view of one link and its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presence<'a> {
    /// The shell's number for the link.
    pub link: u32,
    /// The index of the link's listener.
    pub listener: u16,
    /// The peer's address.
    pub address: SocketAddr,
    /// The session's number; before the session is open, a number that no session has.
    pub session: u64,
    /// The session's epoch, higher than that of any earlier session of this gateway; 0 before the
    /// session is owned.
    pub epoch: u64,
    /// The identity that the peer claims; empty if it claims none.
    pub identity: &'a str,
    /// What else the answer to the login has said of the peer; see
    /// [`Grant::attributes`](super::Grant::attributes).
    pub attributes: &'a str,
    /// The peer's boot id; zeros if unknown.
    pub boot_id: BootId,
    /// The peer's instance id; zeros if unknown.
    pub instance_id: InstanceId,
    /// The time at which the link was opened.
    pub opened: Time,
    /// The time at which the handshake was complete; `None` before.
    pub established: Option<Time>,
    /// The time of the last evidence from the peer.
    pub last_heard: Time,
    /// The time at which the gateway last sent anything.
    pub last_sent: Time,
    /// The round-trip time, a decaying maximum; `None` until one was measured.
    pub rtt: Option<Span>,
    /// Whether the peer is suspect or overdue.
    pub suspect: bool,
    /// The end of the last hold, which may be in the past.
    pub held_until: Option<Time>,
    /// The next deadline unless something is received or sent before; `None` if there is none.
    pub next_deadline: Option<Deadline>,
    /// The policy in force.
    pub policy: &'a Policy,
    /// The flight recorder, with the verdict once it has fallen.
    pub flight: &'a Flight,
}

/// A search for established links in a bounded number of slots, in the order of their numbers.
#[derive(Debug)]
pub struct Presences<'a> {
    scan: Scan<'a, Slot>,
    sessions: &'a Sessions,
    granted: &'a BTreeMap<u32, Granted>,
}

impl<'a> Presences<'a> {
    pub(super) fn new(
        scan: Scan<'a, Slot>,
        sessions: &'a Sessions,
        granted: &'a BTreeMap<u32, Granted>,
    ) -> Presences<'a> {
        Presences { scan, sessions, granted }
    }

    /// Returns the number at which the next search continues; `None` if nothing is left.
    pub fn cursor(&self) -> Option<u32> {
        self.scan.cursor()
    }
}

impl<'a> Iterator for Presences<'a> {
    type Item = Presence<'a>;

    fn next(&mut self) -> Option<Presence<'a>> {
        let (link, slot) = self.scan.find(|(_, slot)| slot.peer.is_established())?;
        Some(Presence::of(link, slot, self.sessions, self.granted))
    }
}

impl<'a> Presence<'a> {
    pub(super) fn of(
        link: u32,
        slot: &'a Slot,
        sessions: &Sessions,
        granted: &'a BTreeMap<u32, Granted>,
    ) -> Presence<'a> {
        let liveness = slot.peer.liveness();
        let introduced = slot.peer.introduced();
        Presence {
            link,
            listener: slot.listener,
            address: slot.address.get(),
            session: sessions.number(slot.generation, slot.place, link),
            epoch: slot.place.and_then(|place| sessions.get(place)).map_or(0, Session::epoch),
            identity: introduced.map_or("", |introduced| &introduced.identity),
            attributes: granted.get(&link).map_or("", |granted| &granted.attributes),
            boot_id: introduced.map_or(BootId::default(), |introduced| introduced.boot_id),
            instance_id: introduced.map_or(InstanceId::default(), |known| known.instance_id),
            opened: slot.peer.flight().opened(),
            established: slot
                .established
                .checked_sub(1)
                .map(|after| slot.peer.flight().opened() + Span::from_millis(u64::from(after))),
            last_heard: liveness.last_heard(),
            last_sent: liveness.last_sent(),
            rtt: liveness.rtt(),
            suspect: slot.peer.is_suspect(),
            held_until: liveness.held_until(),
            next_deadline: slot.peer.next_deadline(),
            policy: slot.peer.policy(),
            flight: slot.peer.flight(),
        }
    }
}
