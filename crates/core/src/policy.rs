//! What the detection bound is made of, and the presets.
//!
//! A policy that exists is legal: both ends can hold it, put it on the wire, and compute the same
//! bound from it.

use core::fmt;

use crate::time::Span;

/// The longest bound a policy may have: 2^40 ms, about 35 years. Beyond it `Never` is meant.
pub const MAX_BOUND: Span = Span::from_millis(1 << 40);

/// The most probes a policy may ask for. Sequence numbers are one byte and compared modulo 256, so
/// fewer than 128 may be unanswered at a time; nobody needs even that.
pub const MAX_PROBES: u8 = 100;

/// When silence becomes a probe, and when it becomes a verdict.
///
/// The bound is D = idle + interval × probes: a peer that falls silent is given up exactly D after
/// the last evidence of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    detection: Detection,
    /// Zero stands for none, which no constructor grants: each link holds a policy.
    keepalive: Span,
    spread: bool,
    enforce: bool,
}

/// Whether silence is ever judged, and by which measure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Detection {
    /// Silence is never judged; no probe is ever sent.
    Never,
    /// Silence of `idle` draws a probe, each further `interval` another, and `interval` after the
    /// last of `probes` the verdict falls.
    Bounded {
        /// Silence tolerated before the first probe. Shorter finds the dead sooner and costs more
        /// heartbeats.
        idle: Span,
        /// From one probe to the next. Shorter finds the dead sooner and forgives less jitter.
        interval: Span,
        /// How many probes may go unanswered. More forgive more loss and lengthen the bound.
        probes: u8,
    },
}

impl Policy {
    /// A policy that gives up a silent peer after `idle + interval × probes`.
    ///
    /// Its probes are spread, and it is enforced; see [`Policy::with_spread`] and
    /// [`Policy::with_enforce`].
    ///
    /// # Errors
    /// Refuses a zero `idle` or `interval`, lengths that are not whole milliseconds (the wire could
    /// not carry them), `probes` of 0 or above [`MAX_PROBES`], and a bound above [`MAX_BOUND`].
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
        let detection = Detection::Bounded { idle, interval, probes };
        Ok(Policy { detection, keepalive: Span::ZERO, spread: true, enforce: true })
    }

    /// The policy that never judges silence.
    pub const fn never() -> Policy {
        Policy { detection: Detection::Never, keepalive: Span::ZERO, spread: true, enforce: true }
    }

    /// For links where a false alarm costs more than a late one: D = 40 s (20 s, 5 s, 4 probes).
    pub const fn relaxed() -> Policy {
        Policy::preset(20_000, 5_000, 4)
    }

    /// For people on the public internet: D = 30 s (15 s, 5 s, 3 probes).
    pub const fn standard() -> Policy {
        Policy::preset(15_000, 5_000, 3)
    }

    /// For games and trading screens, where a ghost hurts within seconds: D = 8 s
    /// (2 s, 2 s, 3 probes).
    pub const fn demanding() -> Policy {
        Policy::preset(2_000, 2_000, 3)
    }

    /// For machines in one building, RTT below 10 ms: D = 2 s (500 ms, 500 ms, 3 probes).
    pub const fn datacenter() -> Policy {
        Policy::preset(500, 500, 3)
    }

    /// As `tcp_keepalive` would do it with 10/3/3: first probe at 10 s, D = 19 s, no spread.
    pub const fn kernel_like() -> Policy {
        Policy { spread: false, ..Policy::preset(10_000, 3_000, 3) }
    }

    /// The preset of that name: `relaxed`, `default`, `demanding`, `datacenter` or `kernel_like`.
    pub fn by_name(name: &str) -> Option<Policy> {
        PRESETS.iter().find(|(known, _)| *known == name).map(|(_, policy)| *policy)
    }

    const fn preset(idle_ms: u64, interval_ms: u64, probes: u8) -> Policy {
        Policy {
            detection: Detection::Bounded {
                idle: Span::from_millis(idle_ms),
                interval: Span::from_millis(interval_ms),
                probes,
            },
            keepalive: Span::ZERO,
            spread: true,
            enforce: true,
        }
    }

    /// The same policy with the first probe of each link at a random point in `[idle/2, idle]`
    /// (`true`), so that links accepted together do not beat together, or exactly at `idle`.
    #[must_use]
    pub const fn with_spread(self, spread: bool) -> Policy {
        Policy { spread, ..self }
    }

    /// The same policy, killing at the bound (`true`) or only telling (`false`).
    #[must_use]
    pub const fn with_enforce(self, enforce: bool) -> Policy {
        Policy { enforce, ..self }
    }

    /// The same numbers, with the conduct of `other`: its spread, keepalive and enforcement, which
    /// are not the peer's business.
    #[must_use]
    pub const fn with_conduct_of(self, other: &Policy) -> Policy {
        Policy { detection: self.detection, ..*other }
    }

    /// The same policy, sending a heartbeat whenever neither end has sent anything for `keepalive`.
    ///
    /// Meant for mappings on the way (NAT, firewalls) that forget sooner than `idle`.
    ///
    /// # Errors
    /// Refuses zero, more than [`MAX_BOUND`], and what is not whole milliseconds.
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
        Ok(Policy { keepalive, ..self })
    }

    /// Everything a policy is made of, for whoever writes one down.
    pub(crate) const fn parts(&self) -> (Detection, Option<Span>, bool, bool) {
        let Policy { detection, keepalive: _, spread, enforce } = *self;
        (detection, self.keepalive(), spread, enforce)
    }

    /// Whether and how silence is judged.
    pub const fn detection(&self) -> Detection {
        self.detection
    }

    /// D, or `None` if silence is never judged.
    pub fn bound(&self) -> Option<Span> {
        match self.detection {
            Detection::Never => None,
            Detection::Bounded { idle, interval, probes } => {
                Some(idle + interval.times(u64::from(probes)))
            }
        }
    }

    /// After how long without a byte either way a heartbeat goes out for the mappings on the way.
    pub const fn keepalive(&self) -> Option<Span> {
        match self.keepalive {
            Span::ZERO => None,
            keepalive => Some(keepalive),
        }
    }

    /// Whether the first probe of a link is spread.
    pub const fn spread(&self) -> bool {
        self.spread
    }

    /// Whether the verdict ends the link, or is only told.
    pub const fn enforce(&self) -> bool {
        self.enforce
    }
}

/// Every preset with its name, in order of falling bound.
pub const PRESETS: [(&str, Policy); 5] = [
    ("relaxed", Policy::relaxed()),
    ("default", Policy::standard()),
    ("kernel_like", Policy::kernel_like()),
    ("demanding", Policy::demanding()),
    ("datacenter", Policy::datacenter()),
];

impl Default for Policy {
    /// [`Policy::standard`].
    fn default() -> Policy {
        Policy::standard()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detection {
            Detection::Never => f.write_str("never"),
            Detection::Bounded { idle, interval, probes } => {
                write!(f, "idle {idle}, interval {interval}, probes {probes}")
            }
        }
    }
}

/// Why a policy was refused. The caller's fault; nothing was changed; ask again with other values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyError {
    /// `idle` was zero.
    ZeroIdle,
    /// `interval` or `keepalive` was zero.
    ZeroInterval,
    /// A length was not a whole number of milliseconds.
    NotWholeMillis,
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
            PolicyError::NoProbes => "probes must be at least 1; to judge nobody, use \"never\"",
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
    fn presets_keep_the_bound_they_declare() {
        let bound = |name| Policy::by_name(name).and_then(|policy| policy.bound());
        assert_eq!(bound("relaxed"), Some(Span::from_secs(40)));
        assert_eq!(bound("default"), Some(Span::from_secs(30)));
        assert_eq!(bound("kernel_like"), Some(Span::from_secs(19)));
        assert_eq!(bound("demanding"), Some(Span::from_secs(8)));
        assert_eq!(bound("datacenter"), Some(Span::from_secs(2)));
        assert_eq!(bound("unheard of"), None);
        assert!(!Policy::kernel_like().spread());
        let kernel_like = Policy::new(millis(10_000), millis(3_000), 3).unwrap();
        assert_eq!(Policy::kernel_like(), kernel_like.with_spread(false));
    }

    #[test]
    fn every_preset_would_be_accepted_by_the_constructor() {
        for (name, policy) in PRESETS {
            let Detection::Bounded { idle, interval, probes } = policy.detection() else {
                panic!("{name} judges nobody");
            };
            assert!(Policy::new(idle, interval, probes).is_ok(), "{name}");
        }
    }

    #[test]
    fn illegal_policies_do_not_exist() {
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
            "saturated, hence not whole"
        );
        assert!(Policy::default().with_keepalive(Span::ZERO).is_err());
    }

    #[test]
    fn never_has_no_bound() {
        assert_eq!(Policy::never().bound(), None);
        assert_eq!(Policy::default().bound(), Some(Span::from_secs(30)));
    }
}
