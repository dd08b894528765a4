//! The settings of one end of a link: codec, side, policy, limits and identity.

use alloc::boxed::Box;

use crate::kernel::Patience;
use crate::liveness::Role;
use crate::plain::{Damage, Plain, Sink, Source};
use crate::policy::{Detection, LEAST_PATIENCE, Policy};
use crate::time::Span;
use crate::window;
use crate::wire::{Account, BootId, Codec, InstanceId, MAX_DATA};

/// The default time limit of a handshake. Three retransmissions of a lost segment fit in, and a
/// silent peer holds its descriptor no longer.
pub const HANDSHAKE_TIMEOUT: Span = Span::from_secs(10);

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
    /// The patience that sockets have when their links are opened, because the shell has set it on
    /// the listener or before the link was made. A link that needs another emits it.
    pub patience: Patience,
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
    /// What happens when an identity logs in again.
    pub logins: Logins,
    /// How much the peer may send.
    pub rates: Rates,
    /// The windows of sessions; `None` for none. On the accepting side a session has one if its
    /// client can keep one too; the connecting side offers to keep the one that WELCOME brings.
    pub window: Option<Windows>,
}

crate::plain::plain_struct! { Settings {
    codec,
    side,
    role,
    policy,
    patience,
    limits,
    handshake_timeout,
    max_data,
    boot_id,
    instance_id,
    wall_origin_ms,
    report_heartbeats,
    examines,
    hung,
    logins,
    rates,
    window
} }

impl Settings {
    /// Creates settings with defaults for one end that speaks `codec` under `policy`; the ids are
    /// unknown.
    pub fn new(codec: Codec, side: Side, policy: Policy) -> Settings {
        Settings {
            codec,
            side,
            role: Role::Probe,
            policy,
            patience: Patience::of(&policy),
            limits: Limits::default(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_data: MAX_DATA as u32,
            boot_id: BootId::default(),
            instance_id: InstanceId::default(),
            wall_origin_ms: 0,
            report_heartbeats: false,
            examines: false,
            hung: Hung::End,
            logins: Logins::NEWEST,
            rates: Rates::default(),
            window: None,
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

/// The windows of sessions, in which messages are kept until they are acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Windows {
    /// How much either end may send that is not acknowledged. On the connecting side WELCOME
    /// decides.
    pub limits: window::Limits,
    /// When a message counts as taken.
    pub takes: Takes,
    /// For how long a session outlives its link, on the accepting side; zero for not at all. Only a
    /// [`Hub`](crate::hub::Hub) keeps such sessions: leave it zero for a [`Link`](super::Link).
    pub outlives: Span,
    /// What happens when a message to a session that is away finds the window full.
    pub full: WhenFull,
}

crate::plain::plain_struct! { Windows { limits, takes, outlives, full } }

impl Windows {
    /// Windows of sessions that end with their link.
    pub const fn new(limits: window::Limits, takes: Takes) -> Windows {
        Windows { limits, takes, outlives: Span::ZERO, full: WhenFull::End }
    }
}

/// What happens when a message to a session that is away finds the window full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// The session ends as [`Cause::SlowConsumer`](crate::cause::Cause::SlowConsumer).
    #[default]
    End,
    /// The message is dropped, and the client is told how many when it is back.
    Gap,
}

crate::plain::plain_enum! { WhenFull {
    0 => End {}
    1 => Gap {}
} }

/// When a message that arrived counts as taken by the application, and is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// At once: the event is enough.
    AtOnce,
    /// With [`Command::Taken`](super::Command::Taken).
    ByCommand,
}

crate::plain::plain_enum! { Takes {
    0 => AtOnce {}
    1 => ByCommand {}
} }

/// How much a peer may send in a second, on average over ten; 0 for no limit. Beyond that the link
/// ends as [`Cause::Flooding`](crate::cause::Cause::Flooding).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// Messages.
    pub messages: u32,
    /// Bytes, of whatever is sent.
    pub bytes: u32,
    /// Heartbeats. The first time that there are too many, the peer is told its policy again.
    pub heartbeats: u32,
}

crate::plain::plain_struct! { Rates { messages, bytes, heartbeats } }

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

crate::plain::plain_enum! { Hung {
    0 => End {}
    1 => Keep { 0: span }
} }

/// What happens when an identity logs in that has as many sessions as it may have. The rule of the
/// listener at which the newer login arrives is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Logins {
    /// How many sessions an identity may have at once; 0 counts as 1. Beyond that the oldest is
    /// replaced.
    pub limit: u16,
    /// Whether a session that answers keeps its place: beyond the limit, the oldest is sent a
    /// heartbeat, and the newer login is refused if the answer comes before a suspicion would
    /// begin. A session that is suspect never keeps its place.
    pub refuse: bool,
    /// How often an identity may log in within a minute, on average: as many at once, and one more
    /// after each such part of a minute; 0 for no limit. What is more is refused as
    /// [`Denial::TooOften`](crate::denial::Denial::TooOften).
    pub per_minute: u32,
}

crate::plain::plain_struct! { Logins { limit, refuse, per_minute } }

impl Logins {
    /// The newest login replaces the one before it, however often there is one.
    pub const NEWEST: Logins = Logins { limit: 1, refuse: false, per_minute: 0 };

    pub(crate) fn limit(self) -> usize {
        usize::from(self.limit.max(1))
    }
}

/// The side of the handshake that this end is on.
#[derive(Clone, Debug)]
pub enum Side {
    /// This end accepted the connection: it waits for HELLO and answers with WELCOME.
    Accepting,
    /// This end opened the connection: it sends HELLO and waits for WELCOME.
    Connecting(Introduction),
}

/// Only the accepting side has a plain form: the other holds a token, which is never recorded.
impl Plain<'_> for Side {
    fn put(&self, out: &mut Sink<'_>) {
        let tag: u8 = match self {
            Side::Accepting => 0,
            Side::Connecting(_) => 1,
        };
        tag.put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        match u8::take(from)? {
            0 => Ok(Side::Accepting),
            _ => Err(Damage::UnknownTag),
        }
    }
}

/// The content of the HELLO that a connecting end sends.
#[derive(Clone, Default)]
pub struct Introduction {
    /// The identity of this end; cut to at most [`crate::wire::MAX_IDENTITY`] bytes. The peer
    /// refuses one with a control character.
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
    /// The shortest bound; a request for a shorter one is granted this one.
    pub shortest_bound: Span,
    /// The longest bound; a request for a longer one, or for none, is granted this one.
    pub longest_bound: Span,
}

crate::plain::plain_struct! { Limits { shortest_bound, longest_bound } }

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
        let Some(wish) = wish else {
            return own;
        };
        let (shape, never) = match (wish.detection(), own.detection()) {
            (Detection::Never, own) => (own, true),
            (wish @ Detection::Bounded { .. }, _) => (wish, false),
        };
        let granted = self.nearest(shape, never).and_then(|(idle, interval, probes)| {
            // The peer chooses idle, interval and probes alone; the rest is a local matter.
            Some(Policy::new(idle, interval, probes).ok()?.with_conduct_of(&own))
        });
        granted.unwrap_or(own)
    }

    /// Returns idle, interval and probes in the proportions of `shape`, with a bound within these
    /// limits: the nearest, or the longest if `longest` is set. `None` if the limits leave no room
    /// for [`LEAST_PATIENCE`].
    fn nearest(&self, shape: Detection, longest: bool) -> Option<(Span, Span, u8)> {
        let Detection::Bounded { idle, interval, probes } = shape else {
            return None;
        };
        let least = LEAST_PATIENCE.as_millis();
        let (idle, interval) = (idle.as_millis().max(least), interval.as_millis().max(least));
        let bound = idle.saturating_add(interval.saturating_mul(probes.into()));
        let most = self.longest_bound.as_millis();
        let wanted =
            if longest { most } else { bound.max(self.shortest_bound.as_millis()).min(most) };
        if wanted == bound {
            return Some((Span::from_millis(idle), Span::from_millis(interval), probes));
        }
        // Fewer probes where the least interval leaves no room for as many.
        let room = wanted.checked_sub(least)?;
        let probes = u64::from(probes).min(room / least);
        let scaled = u128::from(interval) * u128::from(wanted) / u128::from(bound);
        let interval = u64::try_from(scaled).unwrap_or(u64::MAX).max(least);
        let interval = interval.min(room.checked_div(probes)?);
        let idle = wanted - interval * probes;
        let probes = u8::try_from(probes).ok()?;
        Some((Span::from_millis(idle), Span::from_millis(interval), probes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns idle, interval, probes and bound in milliseconds of what is granted.
    fn granted(wish: Policy, limits: Limits, own: Policy) -> (u64, u64, u8, u64) {
        let granted = limits.grant(Some(wish), own);
        let Detection::Bounded { idle, interval, probes } = granted.detection() else {
            panic!("{granted}");
        };
        let bound = granted.bound().unwrap();
        (idle.as_millis(), interval.as_millis(), probes, bound.as_millis())
    }

    fn wish(idle_ms: u64, interval_ms: u64, probes: u8) -> Policy {
        Policy::new(Span::from_millis(idle_ms), Span::from_millis(interval_ms), probes).unwrap()
    }

    #[test]
    fn a_request_within_the_limits_is_granted_and_one_outside_gets_the_nearer_end() {
        let (limits, own) = (Limits::default(), Policy::default());
        let ask = |idle, interval, probes| granted(wish(idle, interval, probes), limits, own);
        assert_eq!(ask(1_000, 500, 2), (1_000, 500, 2, 2_000));
        assert_eq!(ask(100, 100, 2), (334, 333, 2, 1_000), "the shortest");
        assert_eq!(ask(1_800_000, 600_000, 3), (300_000, 100_000, 3, 600_000), "the longest");
        assert_eq!(ask(1_999, 1, 1), (1_999, 50, 1, 2_049), "the least interval");
        assert_eq!(granted(Policy::never(), limits, own), (300_000, 100_000, 3, 600_000));
        assert_eq!(limits.grant(Some(Policy::never()), Policy::never()), Policy::never());
        assert_eq!(limits.grant(None, own), own);
    }

    #[test]
    fn what_is_granted_lies_within_the_limits_whatever_is_asked() {
        let mut random = crate::random::Random::new(7);
        for _ in 0..20_000 {
            let mut below = |most| random.next_u64() % most;
            let shortest = 1 + below(100_000);
            let longest = shortest + below(1_000_000);
            let limits = Limits {
                shortest_bound: Span::from_millis(shortest),
                longest_bound: Span::from_millis(longest),
            };
            let own = Policy::default();
            let asked = wish(1 + below(2_000_000), 1 + below(500_000), 1 + below(100) as u8);
            let given = limits.grant(Some(asked), own);
            if given == own {
                assert!(longest < 100, "{limits:?} {asked}");
                continue;
            }
            let (idle, interval, _, bound) = granted(asked, limits, own);
            assert!(idle >= 50 && interval >= 50, "{given}");
            assert!((shortest..=longest).contains(&bound), "{limits:?}: {asked} got {given}");
        }
    }
}
