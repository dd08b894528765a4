//! Policies requested over the admin API.

use std::ops::RangeInclusive;

use systole_core::policy::{
    Detection, LEAST_PATIENCE, MAX_BOUND, MAX_PROBES, PRESETS, PolicyError,
};
use systole_core::{Policy, Span};
use utoipa::ToSchema;

use super::answer::Trouble;
use super::fields::{Fields, FromFields};

/// A requested policy, in the form in which policies are shown. Absent fields leave a value
/// unchanged. `preset`, `never`, and the three numbers of the bound exclude each other.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyWish {
    /// The name of a preset: `relaxed`, `default`, `kernel_like`, `demanding` or `datacenter`.
    preset: Option<String>,
    /// If true, silence never leads to a verdict.
    never: Option<bool>,
    /// The bound that follows from the three numbers, in milliseconds. It need not be given, and
    /// must be right if it is.
    bound_ms: Option<u64>,
    /// Silence before the first probe, in milliseconds.
    idle_ms: Option<u64>,
    /// Time between two probes, in milliseconds.
    interval_ms: Option<u64>,
    /// Unanswered probes before the verdict.
    probes: Option<u8>,
    /// Time without a byte in either direction before a keepalive, in milliseconds; 0 for none.
    keepalive_ms: Option<u64>,
    /// Whether the first probes of links are spread in time.
    spread: Option<bool>,
    /// Whether a verdict ends the link; if not, it is only reported.
    enforce: Option<bool>,
}

impl FromFields for PolicyWish {
    fn names() -> Vec<&'static str> {
        vec![
            "preset",
            "never",
            "bound_ms",
            "idle_ms",
            "interval_ms",
            "probes",
            "keepalive_ms",
            "spread",
            "enforce",
        ]
    }

    fn ranges() -> Vec<(&'static str, RangeInclusive<u64>)> {
        let (least, most) = (LEAST_PATIENCE.as_millis(), MAX_BOUND.as_millis());
        vec![
            // That of the shortest idle time and interval with one probe.
            ("bound_ms", 2 * least..=most),
            ("idle_ms", least..=most),
            ("interval_ms", least..=most),
            ("probes", 1..=u64::from(MAX_PROBES)),
            ("keepalive_ms", 0..=most),
        ]
    }

    fn from_fields(fields: &mut Fields) -> Result<PolicyWish, Trouble> {
        let probes = fields.number("probes")?;
        Ok(PolicyWish {
            preset: fields.text("preset")?,
            never: fields.flag("never")?,
            bound_ms: fields.number("bound_ms")?,
            idle_ms: fields.number("idle_ms")?,
            interval_ms: fields.number("interval_ms")?,
            probes: probes.and_then(|probes| u8::try_from(probes).ok()),
            keepalive_ms: fields.number("keepalive_ms")?,
            spread: fields.flag("spread")?,
            enforce: fields.flag("enforce")?,
        })
    }
}

impl PolicyWish {
    /// Returns `base` with the requested changes.
    pub(super) fn apply_to(self, base: Policy) -> Result<Policy, Trouble> {
        if self == PolicyWish::default() {
            let hint = "for example {\"preset\": \"demanding\"} or {\"idle_ms\": 10000, \
                        \"interval_ms\": 3000, \"probes\": 3}";
            return Err(Trouble::bad("the body asks for nothing", hint));
        }
        let numbers = self.idle_ms.is_some() || self.interval_ms.is_some() || self.probes.is_some();
        let never = self.never == Some(true);
        if u8::from(numbers) + u8::from(never) + u8::from(self.preset.is_some()) > 1 {
            let error = "`preset`, `never` and the numbers of the bound exclude each other";
            return Err(Trouble::bad(error, "keep one of them"));
        }
        let detection = if let Some(name) = &self.preset {
            let names = PRESETS.map(|(name, _)| name).join(", ");
            Policy::by_name(name).ok_or_else(|| {
                Trouble::bad(format!("no preset \"{name}\""), format!("one of {names}"))
            })?
        } else if never {
            Policy::never().with_spread(base.spread())
        } else if numbers {
            self.numbers_over(base)?.with_spread(base.spread())
        } else {
            base
        };
        let keepalive = match self.keepalive_ms {
            None => base.keepalive(),
            Some(0) => None,
            Some(millis) => Some(Span::from_millis(millis)),
        };
        let spread = self.spread.unwrap_or(detection.spread());
        // Built anew, because a policy that has a keepalive cannot drop it.
        let policy = match detection.detection() {
            Detection::Never => Policy::never(),
            Detection::Bounded { idle, interval, probes } => {
                let policy = Policy::new(idle, interval, probes);
                policy.and_then(Policy::patient).map_err(bad_policy)?
            }
        };
        let policy =
            policy.with_spread(spread).with_enforce(self.enforce.unwrap_or(base.enforce()));
        let policy = match keepalive {
            Some(keepalive) => policy.with_keepalive(keepalive).map_err(bad_policy)?,
            None => policy,
        };
        let bound = policy.bound().map(Span::as_millis);
        if self.bound_ms.is_some() && self.bound_ms != bound {
            let bound = bound.map_or("absent".to_owned(), |bound| bound.to_string());
            let error = format!("`bound_ms` is not the bound of this policy, which is {bound}");
            let hint = "leave it out: it is idle_ms + interval_ms · probes";
            return Err(Trouble::bad(error, hint));
        }
        Ok(policy)
    }

    /// Returns the policy of the given numbers; `base` supplies the absent ones.
    fn numbers_over(&self, base: Policy) -> Result<Policy, Trouble> {
        let (idle, interval, probes) = match base.detection() {
            Detection::Bounded { idle, interval, probes } => {
                (Some(idle), Some(interval), Some(probes))
            }
            Detection::Never => (None, None, None),
        };
        let idle = self.idle_ms.map(Span::from_millis).or(idle);
        let interval = self.interval_ms.map(Span::from_millis).or(interval);
        let (Some(idle), Some(interval), Some(probes)) = (idle, interval, self.probes.or(probes))
        else {
            let error = "`idle_ms`, `interval_ms` and `probes` are needed together here";
            return Err(Trouble::bad(error, "the policy in force is `never` and has none of them"));
        };
        Policy::new(idle, interval, probes).map_err(bad_policy)
    }
}

fn bad_policy(error: PolicyError) -> Trouble {
    Trouble::bad(error, "nothing was changed; ask again with other values")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(json: &str, base: Policy) -> Option<Policy> {
        let wish: PolicyWish = Fields::of_body(json.as_bytes()).and_then(Fields::read).ok()?;
        wish.apply_to(base).ok()
    }

    #[test]
    fn absent_fields_stay_unchanged() {
        let base = Policy::kernel_like().with_enforce(false);
        let base = base.with_keepalive(Span::from_secs(9)).unwrap();
        let idle = apply(r#"{"idle_ms": 20000}"#, base).unwrap();
        assert_eq!(idle.bound(), Some(Span::from_secs(29)));
        assert_eq!((idle.enforce(), idle.spread()), (false, false));
        assert_eq!(idle.keepalive(), Some(Span::from_secs(9)));
        let enforced = apply(r#"{"enforce": true, "keepalive_ms": 0}"#, base).unwrap();
        assert_eq!(enforced, Policy::kernel_like());
        let preset = apply(r#"{"preset": "demanding"}"#, base).unwrap();
        assert_eq!(preset.bound(), Some(Span::from_secs(8)));
        assert!(!preset.enforce() && preset.spread());
    }

    #[test]
    fn times_below_the_floor_are_refused() {
        let base = Policy::default();
        assert_eq!(apply(r#"{"idle_ms": 49}"#, base), None);
        assert_eq!(apply(r#"{"interval_ms": 1}"#, base), None);
        assert!(apply(r#"{"idle_ms": 50, "interval_ms": 50}"#, base).is_some());
    }

    #[test]
    fn illegal_policies_are_refused() {
        let base = Policy::default();
        for wrong in [
            "{}",
            r#"{"preset": "lazy"}"#,
            r#"{"preset": "default", "idle_ms": 1}"#,
            r#"{"never": true, "probes": 1}"#,
            r#"{"idle_ms": 0}"#,
            r#"{"probes": 0}"#,
            r#"{"idle": 5}"#,
        ] {
            assert_eq!(apply(wrong, base), None, "{wrong}");
        }
        assert_eq!(apply(r#"{"idle_ms": 5}"#, Policy::never()), None);
        assert_eq!(apply(r#"{"never": true}"#, base).unwrap().bound(), None);
    }
}
