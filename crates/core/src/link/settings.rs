//! The settings of one end of a link: codec, side, policy, limits and identity.

use alloc::boxed::Box;

use crate::liveness::Role;
use crate::policy::{Detection, Policy};
use crate::time::Span;
use crate::wire::{Account, BootId, Codec, InstanceId, MAX_DATA};

/// The default time limit of a handshake. Three retransmissions of a lost segment fit in, and a
/// silent peer holds its descriptor no longer.
pub const HANDSHAKE_TIMEOUT: Span = Span::from_secs(10);

/// The shortest idle and interval that are granted to a peer. Without this limit, a peer could ask
/// for a flood of probes within a bound that is granted.
const LEAST_PATIENCE: Span = Span::from_millis(50);

/// The settings of one end of a link.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The protocol on the wire.
    pub codec: Codec,
    /// The side of the handshake.
    pub side: Side,
    /// Whether this end sends probes.
    pub role: Role,
    /// The initial policy; on the connecting side, the policy in WELCOME replaces it.
    pub policy: Policy,
    /// The policies that the peer may ask for.
    pub limits: Limits,
    /// The time limit of the handshake.
    pub handshake_timeout: Span,
    /// The longest DATA body accepted, 1 to [`MAX_DATA`] bytes.
    pub max_data: u32,
    /// The id that changes when this machine restarts.
    pub boot_id: BootId,
    /// The id that changes when this process restarts.
    pub instance_id: InstanceId,
    /// The wall clock at [`Time::ZERO`](crate::Time::ZERO), in milliseconds since 1970-01-01 UTC;
    /// for display only.
    pub wall_origin_ms: u64,
    /// Whether each heartbeat is reported as an event.
    pub report_heartbeats: bool,
    /// Whether the shell can examine the socket on [`Output::Examine`](super::Output::Examine).
    /// Without examinations, the verdict on a silence is
    /// [`Cause::Unknown`](crate::cause::Cause::Unknown).
    pub examines: bool,
    /// What happens at the bound to a peer that is hung or does not read.
    pub hung: Hung,
}

impl Settings {
    /// Creates settings with defaults for one end that speaks `codec` under `policy`; the ids are
    /// unknown.
    pub fn new(codec: Codec, side: Side, policy: Policy) -> Settings {
        Settings {
            codec,
            side,
            role: Role::Probe,
            policy,
            limits: Limits::default(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_data: MAX_DATA as u32,
            boot_id: BootId::default(),
            instance_id: InstanceId::default(),
            wall_origin_ms: 0,
            report_heartbeats: false,
            examines: false,
            hung: Hung::End,
        }
    }

    /// Returns whether this end is on the connecting side.
    pub(super) fn connects(&self) -> bool {
        match self.side {
            Side::Connecting(_) => true,
            Side::Accepting => false,
        }
    }
}

/// What happens at the bound to a peer that is hung or does not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hung {
    /// The link ends: its application is of no use to anybody who waits for it.
    #[default]
    End,
    /// The peer is reported as hung and kept for this time beyond the bound; the link ends if it is
    /// still silent then. For peers that are debugged or pause to load, with expensive sessions.
    Keep(Span),
}

/// The side of the handshake that this end is on.
#[derive(Clone, Debug)]
pub enum Side {
    /// This end accepted the connection: it waits for HELLO and answers with WELCOME.
    Accepting,
    /// This end opened the connection: it sends HELLO and waits for WELCOME.
    Connecting(Introduction),
}

/// The content of the HELLO that a connecting end sends.
#[derive(Clone, Default)]
pub struct Introduction {
    /// The identity of this end; cut to at most [`crate::wire::MAX_IDENTITY`] bytes.
    pub identity: Box<str>,
    /// The token that proves the identity; cut to at most [`crate::wire::MAX_TOKEN`] bytes.
    pub token: Box<[u8]>,
    /// The policy that this end asks for, if any.
    pub asks: Option<Policy>,
    /// How the previous link of this process ended, if there was one.
    pub account: Option<Account>,
}

impl core::fmt::Debug for Introduction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Introduction { identity, token: _, asks, account } = self;
        f.debug_struct("Introduction")
            .field("identity", identity)
            .field("asks", asks)
            .field("account", account)
            .finish()
    }
}

/// The range of bounds that a listener grants to a peer that asks for a policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The shortest bound; a request for a shorter one is answered with the listener's own policy.
    pub shortest_bound: Span,
    /// The longest bound; a request for a longer one, or for none, is answered with the listener's
    /// own policy.
    pub longest_bound: Span,
}

impl Default for Limits {
    /// Returns 1 s, below which ordinary jitter ends links, to 10 minutes.
    fn default() -> Limits {
        Limits { shortest_bound: Span::from_secs(1), longest_bound: Span::from_secs(600) }
    }
}

impl Limits {
    /// Returns the policy granted to a peer that asks for `wish` at a listener whose own policy is
    /// `own`.
    pub fn grant(&self, wish: Option<Policy>, own: Policy) -> Policy {
        let within = |wish: &Policy| {
            let patient = match wish.detection() {
                Detection::Never => false,
                Detection::Bounded { idle, interval, .. } => idle.min(interval) >= LEAST_PATIENCE,
            };
            let bound = self.shortest_bound..=self.longest_bound;
            patient && wish.bound().is_some_and(|asked| bound.contains(&asked))
        };
        match wish.filter(within) {
            // The peer chooses idle, interval and probes alone; the rest is a local matter.
            Some(wish) => wish.with_conduct_of(&own),
            None => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_a_flood_of_probes_is_not_granted() {
        let limits = Limits::default();
        let own = Policy::default();
        let ask = |idle_ms, interval_ms, probes| {
            let wish =
                Policy::new(Span::from_millis(idle_ms), Span::from_millis(interval_ms), probes);
            limits.grant(Some(wish.unwrap()), own).bound()
        };
        assert_eq!(ask(1_000, 500, 2), Some(Span::from_secs(2)));
        assert_eq!(ask(1_999, 1, 1), own.bound(), "interval below the least");
        assert_eq!(ask(100, 100, 2), own.bound(), "a bound below the shortest");
        assert_eq!(limits.grant(Some(Policy::never()), own), own);
    }
}
