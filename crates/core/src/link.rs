//! The link: one connection with its bytes, handshake, liveness and inquiry, in one machine.
//!
//! [`Link`] is for programs that handle each connection alone: a client, a tool, a blocking server
//! with one thread per peer. A gateway holds many links in a [`crate::hub::Hub`].

mod conversation;
pub mod departure;
mod outbound;
mod outstanding;
mod patience;
mod peer;
mod settings;
mod signal;

pub use conversation::{FLOOR_PER_SECOND, HALF_CLOSED, Resumable};
pub(crate) use conversation::{Introduced, cause_of};
pub use departure::Departure;
pub(crate) use outbound::{Outbound, Writer};
pub use outstanding::{OUTSTANDING, RETRANSMITTING};
pub(crate) use peer::{Context, Effect, Peer};
pub use settings::{
    HANDSHAKE_TIMEOUT, Hung, Introduction, Limits, Logins, Rates, Settings, Side, Takes, WhenFull,
    Windows,
};
pub use signal::{Answer, BeatKind, Closing, Command, Event, Goodbye, Input, Lane, Output, World};

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::flight::Flight;
use crate::machine::{Deadline, Machine, saved_whole};
use crate::plain::{Damage, Plain, Sink, Source};
use crate::policy::Policy;
use crate::random::Random;
use crate::time::{Span, Time};
use crate::wire::{BootId, InstanceId};

/// The longest piece into which DATA is cut: 8 KiB, which take 65 ms at 1 Mbit/s. A heartbeat is
/// sent at the next frame boundary, so a boundary must be near.
pub const PIECE: usize = 8 * 1024;

/// The machine of one connection.
#[derive(Debug)]
pub struct Link {
    settings: Settings,
    peer: Peer,
    outbound: Outbound,
    random: Random,
}

impl Link {
    /// Creates a link that was opened at `now`. On the connecting side HELLO is the first output.
    ///
    /// `seed` spreads the probes.
    pub fn new(now: Time, settings: Settings, seed: u64) -> Link {
        let mut outbound = Outbound::default();
        let mut random = Random::new(seed);
        let mut context = Context { settings: &settings, random: &mut random };
        let peer = Peer::open(now, &mut context, &mut outbound.to(0));
        Link { settings, peer, outbound, random }
    }

    /// Creates a link that resumes a session with its handshake. `settings` are of the connecting
    /// side. If the link ends before that is decided, [`Link::take_resumable`] returns the session
    /// for the next attempt.
    pub fn resume(now: Time, settings: Settings, seed: u64, session: Box<Resumable>) -> Link {
        let mut outbound = Outbound::default();
        let mut random = Random::new(seed);
        let mut context = Context { settings: &settings, random: &mut random };
        let mut peer = Peer::new(now, &context);
        peer.set_resumable(session);
        peer.begin(now, &mut context, &mut outbound.to(0));
        Link { settings, peer, outbound, random }
    }

    /// Takes the session that this link was to resume and that is gone ([`Event::NotResumed`]).
    /// What it has sent and is not acknowledged has arrived or not.
    pub fn take_lapsed(&mut self) -> Option<Box<Resumable>> {
        self.peer.take_lapsed()
    }

    /// Takes the session that this link has left behind ([`session::Event::Away`]), or that it was
    /// to resume when it ended.
    ///
    /// [`session::Event::Away`]: crate::session::Event::Away
    pub fn take_resumable(&mut self) -> Option<Box<Resumable>> {
        self.peer.take_resumable()
    }

    /// Appends the state of the link at `now` to `out`. [`Link::load`] makes the same link of it,
    /// on another clock too: each time in the state is an age or a time to come.
    ///
    /// Poll all outputs before. The settings are not part of the state. Its form belongs to this
    /// version of the program, and it may hold secrets: keep the version and a checksum with it,
    /// and protect it.
    pub fn save(&self, now: Time, out: &mut Vec<u8>) {
        let Link { settings: _, peer, outbound, random } = self;
        debug_assert!(outbound.is_empty(), "outputs that were not polled are lost");
        peer.save(now, out);
        random.put(&mut Sink::state(now, out));
    }

    /// Loads a link from the front of `state`, at `now` of the clock that drives it from here on.
    /// `settings` are those with which it was made, except for what may differ on this machine.
    ///
    /// An event that lies before [`Time::ZERO`] of this clock counts as if it had happened there: a
    /// silence is then judged late, never early.
    ///
    /// # Errors
    /// The state is damaged, or `settings` have another codec. Damage that is not noticed may lead
    /// to a wrong verdict; no bytes cause a panic.
    pub fn load(now: Time, settings: Settings, state: &mut &[u8]) -> Result<Link, Damage> {
        let peer = Peer::load(now, &settings, state)?;
        let mut from = Source::state(now, state);
        let random = Random::take(&mut from)?;
        *state = from.rest();
        Ok(Link { settings, peer, outbound: Outbound::default(), random })
    }

    /// Returns the boot and instance ids that the peer sent in its handshake (zeros mean unknown);
    /// `None` before the handshake and in codecs without one.
    pub fn peer_ids(&self) -> Option<(BootId, InstanceId)> {
        self.peer.introduced().map(|introduced| (introduced.boot_id, introduced.instance_id))
    }

    /// Returns the policy in force.
    pub fn policy(&self) -> &Policy {
        self.peer.policy()
    }

    /// Returns the longest piece into which a message is cut, in bytes: [`PIECE`] or less if
    /// WELCOME says so; the longest message in codecs that cannot mark a message as continued.
    pub fn piece(&self) -> usize {
        self.peer.piece()
    }

    /// Returns whether a message of this length may be sent now. In a session with a window that is
    /// full, [`Event::Acknowledged`] says when to try again.
    pub fn has_room(&self, length: usize) -> bool {
        self.peer.has_room(length)
    }

    /// Returns how many messages of the session were sent, and how many of them the peer has
    /// acknowledged; `None` if it has no window.
    pub fn progress(&self) -> Option<(u64, u64)> {
        self.peer.progress()
    }

    /// Returns the round-trip time, a decaying maximum; `None` before the first sample.
    pub fn rtt(&self) -> Option<Span> {
        self.peer.liveness().rtt()
    }

    /// Returns the flight recorder: the latest events, and the verdict once it has fallen.
    pub fn flight(&self) -> &Flight {
        self.peer.flight()
    }

    /// Returns the time of the last evidence.
    pub fn last_heard(&self) -> Time {
        self.peer.liveness().last_heard()
    }
}

/// The number and epoch of a session, which an accepting end gives to a peer that it admits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionKey {
    /// The session's number; printed in 16 hexadecimal digits, as the gateway prints it.
    pub session: u64,
    /// The session's epoch.
    pub epoch: u64,
}

crate::plain::plain_struct! { SessionKey { session, epoch } }

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionKey { session, epoch } = self;
        write!(f, "SessionKey {{ session: {session:016x}, epoch: {epoch} }}")
    }
}

impl Machine for Link {
    type World<'a> = World<'a>;
    type Answer = Answer;
    type Output<'a> = Output<'a>;
    type Part = ();

    fn handle<'a>(&mut self, now: Time, input: impl Into<Input<'a>>) {
        let mut context = Context { settings: &self.settings, random: &mut self.random };
        let mut out = self.outbound.to(0);
        let _ = self.peer.handle(now, input.into(), &mut context, &mut out);
    }

    fn poll_output(&mut self) -> Option<Output<'_>> {
        self.outbound.poll().map(|(_, output)| output)
    }

    fn deadline_of(&self, (): ()) -> Option<Deadline> {
        self.peer.next_deadline()
    }

    saved_whole!(machine, now, state, Link::load(now, machine.settings.clone(), state)?);
}

#[cfg(test)]
mod tests;
