//! The detection policy: idle, interval and probes, which make the bound, and the presets.
//!
//! Every `Policy` value is legal: both ends can hold it, encode it, and compute the same bound
//! from it.

use core::fmt;

use crate::plain::{Damage, Plain, Sink, Source};
use crate::time::Span;

/// The longest bound that a policy may have: 2^40 ms, about 35 years. For anything longer, use
/// [`Detection::Never`].
pub const MAX_BOUND: Span = Span::from_millis(1 << 40);

/// The largest number of probes that a policy may have. Sequence numbers are one byte and compared
/// modulo 256, so fewer than 128 probes may be unanswered at a time.
pub const MAX_PROBES: u8 = 100;

/// The shortest idle time and interval that an operator may set or a peer is granted: 50 ms.
/// Shorter ones are a flood of probes, whatever the bound.
pub const LEAST_PATIENCE: Span = Span::from_millis(50);

/// The longest time by which a probe or a keepalive may leave early. It lets the probes of a few
/// thousand links under the usual policies leave together, and nobody notices it in a silence of
/// many seconds.
pub const LONGEST_SLACK: Span = Span::from_millis(500);

/// The rules that say when a silent peer is probed and when the verdict falls.
///
/// The bound is D = idle + interval × probes: the verdict on a silent peer falls exactly D after
/// the last evidence.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Zero means [`Detection::Never`]: no constructor accepts a zero idle time.
    idle: Millis,
    interval: Millis,
    probes: u8,
    /// Zero means no keepalive: no constructor accepts a zero keepalive.
    keepalive: Millis,
    spread: bool,
    enforce: bool,
}

/// Whole milliseconds below 2^48, in six bytes: each link holds three of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Millis([u8; 6]);

// A part of the memory of an idle link.
const _: () = assert!(size_of::<Policy>() <= 21);

impl Millis {
    const ZERO: Millis = Millis([0; 6]);

    /// Cuts a longer span to the longest that fits, which no constructor accepts.
    const fn of(span: Span) -> Millis {
        let millis = span.as_millis();
        let [a, b, c, d, e, f, 0, 0] = millis.to_le_bytes() else {
            return Millis([u8::MAX; 6]);
        };
        Millis([a, b, c, d, e, f])
    }

    #[inline]
    const fn span(self) -> Span {
        let [a, b, c, d, e, f] = self.0;
        Span::from_millis(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

impl Plain<'_> for Policy {
    fn put(&self, out: &mut Sink<'_>) {
        let (detection, keepalive, spread, enforce) = self.parts();
        detection.put(out);
        keepalive.put(out);
        spread.put(out);
        enforce.put(out);
    }

    /// Decodes through the constructors, so that every policy is legal.
    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        let policy = match Detection::take(from)? {
            Detection::Never => Policy::never(),
            Detection::Bounded { idle, interval, probes } => {
                Policy::new(idle, interval, probes).map_err(|_| Damage::Policy)?
            }
        };
        let policy = match <Option<Span> as Plain>::take(from)? {
            Some(keepalive) => policy.with_keepalive(keepalive).map_err(|_| Damage::Policy)?,
            None => policy,
        };
        Ok(policy.with_spread(bool::take(from)?).with_enforce(bool::take(from)?))
    }
}

/// The part of a policy that says whether and when silence leads to a verdict.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Detection {
    /// Silence never leads to a verdict, and no probe is sent.
    Never,
    /// The first probe is sent after `idle` of silence and another after each `interval`; the
    /// verdict falls one `interval` after the last of `probes` probes.
    Bounded {
        /// The silence before the first probe. A shorter value detects a dead peer sooner and costs
        /// more heartbeats.
        idle: Span,
        /// The time between two probes. A shorter value detects a dead peer sooner and tolerates
        /// less jitter.
        interval: Span,
        /// The number of probes that may go unanswered. A larger value tolerates more loss and
        /// lengthens the bound.
        probes: u8,
    },
}

crate::plain::plain_enum! { Detection {
    0 => Never {}
    1 => Bounded { idle: idle, interval: interval, probes: probes }
} }

impl Policy {
    /// Creates a policy whose bound is `idle + interval × probes`.
    ///
    /// Its first probes are spread, and its bound is enforced; see [`Policy::with_spread`] and
    /// [`Policy::with_enforce`].
    ///
    /// # Errors
    /// Refuses a zero `idle` or `interval`, lengths that are not whole milliseconds (the wire
    /// cannot carry them), `probes` of 0 or above [`MAX_PROBES`], and a bound above [`MAX_BOUND`].
    pub fn new(idle: Span, interval: Span, probes: u8) -> Result<Policy, PolicyError> {
        if idle == Span::ZERO {
            return Err(PolicyError::ZeroIdle);
        }
        if interval == Span::ZERO {
            return Err(PolicyError::ZeroInterval);
        }
        if !whole_millis(idle) || !whole_millis(interval) {
            return Err(PolicyError::NotWholeMillis);
        }
        if probes == 0 {
            return Err(PolicyError::NoProbes);
        }
        if probes > MAX_PROBES {
            return Err(PolicyError::TooManyProbes);
        }
        if idle + interval.times(u64::from(probes)) > MAX_BOUND {
            return Err(PolicyError::BoundTooLong);
        }
        Ok(Policy::ordinary(idle, interval, probes))
    }

    /// Returns the policy under which silence never leads to a verdict.
    pub const fn never() -> Policy {
        Policy::ordinary(Span::ZERO, Span::ZERO, 0)
    }

    /// Preset for links where a false verdict costs more than a late one: D = 40 s
    /// (20 s, 5 s, 4 probes).
    pub const fn relaxed() -> Policy {
        Policy::preset(20_000, 5_000, 4)
    }

    /// Preset for people on the public internet: D = 30 s (15 s, 5 s, 3 probes).
    pub const fn standard() -> Policy {
        Policy::preset(15_000, 5_000, 3)
    }

    /// Preset for games and trading screens, where an undetected dead peer does harm within
    /// seconds: D = 8 s (2 s, 2 s, 3 probes).
    pub const fn demanding() -> Policy {
        Policy::preset(2_000, 2_000, 3)
    }

    /// Preset for machines in one building, RTT below 10 ms: D = 2 s (500 ms, 500 ms, 3 probes).
    pub const fn datacenter() -> Policy {
        Policy::preset(500, 500, 3)
    }

    /// Preset that acts as `tcp_keepalive` with 10/3/3: first probe at 10 s, D = 19 s, no spread.
    pub const fn kernel_like() -> Policy {
        Policy { spread: false, ..Policy::preset(10_000, 3_000, 3) }
    }

    /// Returns the preset called `name`: `relaxed`, `default`, `demanding`, `datacenter` or
    /// `kernel_like`.
    pub fn by_name(name: &str) -> Option<Policy> {
        PRESETS.iter().find(|(known, _)| *known == name).map(|(_, policy)| *policy)
    }

    /// Returns the policy, which an operator or a peer wants in force, unless its idle time or
    /// interval is shorter than [`LEAST_PATIENCE`].
    ///
    /// # Errors
    /// [`PolicyError::TooFast`]; ask again with longer times.
    pub fn patient(self) -> Result<Policy, PolicyError> {
        match self.detection() {
            Detection::Bounded { idle, interval, .. } if idle.min(interval) < LEAST_PATIENCE => {
                Err(PolicyError::TooFast)
            }
            Detection::Bounded { .. } | Detection::Never => Ok(self),
        }
    }

    const fn preset(idle_ms: u64, interval_ms: u64, probes: u8) -> Policy {
        Policy::ordinary(Span::from_millis(idle_ms), Span::from_millis(interval_ms), probes)
    }

    /// Returns a policy without a keepalive, spread and enforced.
    const fn ordinary(idle: Span, interval: Span, probes: u8) -> Policy {
        Policy {
            idle: Millis::of(idle),
            interval: Millis::of(interval),
            probes,
            keepalive: Millis::ZERO,
            spread: true,
            enforce: true,
        }
    }

    /// Returns the same policy with the first probe of each link at a random point in
    /// `[idle/2, idle]` (`true`), so that links accepted together do not send heartbeats together,
    /// or exactly at `idle` (`false`).
    #[must_use]
    pub const fn with_spread(self, spread: bool) -> Policy {
        Policy { spread, ..self }
    }

    /// Returns the same policy with the bound enforced (`true`: the verdict ends the link) or only
    /// reported (`false`).
    #[must_use]
    pub const fn with_enforce(self, enforce: bool) -> Policy {
        Policy { enforce, ..self }
    }

    /// Returns the same policy with an idle time, and so a bound, that is longer by `by`, which is
    /// in whole milliseconds.
    pub(crate) fn lengthened(self, by: Span) -> Policy {
        match self.detection() {
            Detection::Bounded { idle, .. } => Policy { idle: Millis::of(idle + by), ..self },
            Detection::Never => self,
        }
    }

    /// Returns the same policy without a bound.
    pub(crate) const fn unjudged(self) -> Policy {
        Policy { idle: Millis::ZERO, interval: Millis::ZERO, probes: 0, ..self }
    }

    /// Returns the same idle, interval and probes with the spread, keepalive and enforcement of
    /// `other`. These three are local and are not negotiated with the peer.
    #[must_use]
    pub const fn with_conduct_of(self, other: &Policy) -> Policy {
        let Policy { keepalive, spread, enforce, .. } = *other;
        Policy { keepalive, spread, enforce, ..self }
    }

    /// Returns the same policy with a heartbeat whenever neither end has sent anything for
    /// `keepalive`.
    ///
    /// Use a keepalive where a NAT or firewall on the path drops its mapping sooner than `idle`.
    ///
    /// # Errors
    /// Refuses zero, more than [`MAX_BOUND`], and lengths that are not whole milliseconds.
    pub fn with_keepalive(self, keepalive: Span) -> Result<Policy, PolicyError> {
        if keepalive == Span::ZERO {
            return Err(PolicyError::ZeroInterval);
        }
        if !whole_millis(keepalive) {
            return Err(PolicyError::NotWholeMillis);
        }
        if keepalive > MAX_BOUND {
            return Err(PolicyError::BoundTooLong);
        }
        Ok(Policy { keepalive: Millis::of(keepalive), ..self })
    }

    /// Returns every part of the policy (detection, keepalive, spread, enforce), for recording.
    pub(crate) const fn parts(&self) -> (Detection, Option<Span>, bool, bool) {
        (self.detection(), self.keepalive(), self.spread, self.enforce)
    }

    /// Returns whether and when silence leads to a verdict.
    #[inline]
    pub const fn detection(&self) -> Detection {
        match self.idle.span() {
            Span::ZERO => Detection::Never,
            idle => {
                let (interval, probes) = (self.interval.span(), self.probes);
                Detection::Bounded { idle, interval, probes }
            }
        }
    }

    /// Returns the bound D, or `None` if silence never leads to a verdict.
    pub fn bound(&self) -> Option<Span> {
        match self.detection() {
            Detection::Never => None,
            Detection::Bounded { idle, interval, probes } => {
                Some(idle + interval.times(u64::from(probes)))
            }
        }
    }

    /// Returns the time without a byte in either direction after which a keepalive is sent, if any.
    pub const fn keepalive(&self) -> Option<Span> {
        match self.keepalive.span() {
            Span::ZERO => None,
            keepalive => Some(keepalive),
        }
    }

    /// Returns how early a probe may leave: an eighth of the time between two of them, and at most
    /// [`LONGEST_SLACK`]. Zero for a policy without spread, whose probes are exact.
    pub(crate) fn probe_slack(&self) -> Span {
        match self.detection() {
            Detection::Bounded { idle, interval, .. } => self.slack(idle.min(interval)),
            Detection::Never => Span::ZERO,
        }
    }

    /// Returns how early a keepalive may leave, by the same rule.
    pub(crate) fn keepalive_slack(&self) -> Span {
        self.slack(self.keepalive.span())
    }

    fn slack(&self, period: Span) -> Span {
        if !self.spread {
            return Span::ZERO;
        }
        Span::from_nanos(period.as_nanos() / 8).min(LONGEST_SLACK)
    }

    /// Returns whether the first probe of a link is spread.
    pub const fn spread(&self) -> bool {
        self.spread
    }

    /// Returns whether the verdict ends the link (`true`) or is only reported.
    pub const fn enforce(&self) -> bool {
        self.enforce
    }
}

/// Shows the parts, not the bytes.
impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (detection, keepalive, spread, enforce) = self.parts();
        f.debug_struct("Policy")
            .field("detection", &detection)
            .field("keepalive", &keepalive)
            .field("spread", &spread)
            .field("enforce", &enforce)
            .finish()
    }
}

/// All presets with their names, from the longest bound to the shortest.
pub const PRESETS: [(&str, Policy); 5] = [
    ("relaxed", Policy::relaxed()),
    ("default", Policy::standard()),
    ("kernel_like", Policy::kernel_like()),
    ("demanding", Policy::demanding()),
    ("datacenter", Policy::datacenter()),
];

impl Default for Policy {
    /// Returns [`Policy::standard`].
    fn default() -> Policy {
        Policy::standard()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detection() {
            Detection::Never => f.write_str("never"),
            Detection::Bounded { idle, interval, probes } => {
                write!(f, "idle {idle}, interval {interval}, probes {probes}")
            }
        }
    }
}

/// The reason why a policy was refused. The caller's values are at fault and nothing was changed;
/// retry with other values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyError {
    /// `idle` was zero.
    ZeroIdle,
    /// `interval` or `keepalive` was zero.
    ZeroInterval,
    /// A length was not a whole number of milliseconds.
    NotWholeMillis,
    /// `idle` or `interval` was below [`LEAST_PATIENCE`].
    TooFast,
    /// `probes` was zero.
    NoProbes,
    /// `probes` was above [`MAX_PROBES`].
    TooManyProbes,
    /// The bound was above [`MAX_BOUND`].
    BoundTooLong,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PolicyError::ZeroIdle => "idle must be at least 1 ms",
            PolicyError::ZeroInterval => "interval must be at least 1 ms",
            PolicyError::NotWholeMillis => "lengths must be whole milliseconds",
            PolicyError::TooFast => "idle and interval must be at least 50 ms",
            PolicyError::NoProbes => "probes must be at least 1",
            PolicyError::TooManyProbes => "probes must be at most 100",
            PolicyError::BoundTooLong => {
                "idle + interval × probes must be at most 2^40 ms; to judge nobody, use \"never\""
            }
        })
    }
}

impl core::error::Error for PolicyError {}

fn whole_millis(span: Span) -> bool {
    span.as_nanos().is_multiple_of(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    #[test]
    fn each_preset_has_its_documented_bound() {
        let bound = |name| Policy::by_name(name).and_then(|policy| policy.bound());
        assert_eq!(bound("relaxed"), Some(Span::from_secs(40)));
        assert_eq!(bound("default"), Some(Span::from_secs(30)));
        assert_eq!(bound("kernel_like"), Some(Span::from_secs(19)));
        assert_eq!(bound("demanding"), Some(Span::from_secs(8)));
        assert_eq!(bound("datacenter"), Some(Span::from_secs(2)));
        assert_eq!(bound("unknown"), None);
        assert!(!Policy::kernel_like().spread());
        let kernel_like = Policy::new(millis(10_000), millis(3_000), 3).unwrap();
        assert_eq!(Policy::kernel_like(), kernel_like.with_spread(false));
    }

    #[test]
    fn the_constructor_accepts_every_preset() {
        for (name, policy) in PRESETS {
            let Detection::Bounded { idle, interval, probes } = policy.detection() else {
                panic!("{name} has no bound");
            };
            assert!(Policy::new(idle, interval, probes).is_ok(), "{name}");
        }
    }

    #[test]
    fn illegal_policies_are_refused() {
        assert_eq!(Policy::new(Span::ZERO, millis(1), 1), Err(PolicyError::ZeroIdle));
        assert_eq!(Policy::new(millis(1), Span::ZERO, 1), Err(PolicyError::ZeroInterval));
        assert_eq!(Policy::new(millis(1), millis(1), 0), Err(PolicyError::NoProbes));
        assert_eq!(Policy::new(millis(1), millis(1), 101), Err(PolicyError::TooManyProbes));
        let odd = Span::from_micros(1_500);
        assert_eq!(Policy::new(odd, millis(1), 1), Err(PolicyError::NotWholeMillis));
        let longest = millis((1 << 40) - 1);
        assert!(Policy::new(longest, millis(1), 1).is_ok());
        assert_eq!(Policy::new(longest, millis(2), 1), Err(PolicyError::BoundTooLong));
        assert_eq!(
            Policy::new(millis(u64::MAX), millis(u64::MAX), 100),
            Err(PolicyError::NotWholeMillis),
            "saturated, so not whole milliseconds"
        );
        assert!(Policy::default().with_keepalive(Span::ZERO).is_err());
    }

    #[test]
    fn never_has_no_bound() {
        assert_eq!(Policy::never().bound(), None);
        assert_eq!(Policy::default().bound(), Some(Span::from_secs(30)));
    }
}
