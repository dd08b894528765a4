//! Reads `[policy]` and `[listener.policy]`.

use std::ops::Range;

use systole_core::policy::{Detection, LEAST_PATIENCE, MAX_BOUND, MAX_PROBES, PRESETS};
use systole_core::{Policy, Span};

use super::section::{Given, Reading, Section};
use super::value;

/// Reads a policy; `base` supplies absent settings.
///
/// The bound is set by `preset`, by `never`, or by `idle`, `interval` and `probes`. These exclude
/// each other, because a reader of the file could not see which one is in force. A preset also sets
/// `spread`.
pub(super) fn read(reading: &mut Reading<'_>, mut section: Section<'_>, base: Policy) -> Policy {
    let lengths = LEAST_PATIENCE..=MAX_BOUND;
    let preset = section.take(reading, "preset", value::chosen(&PRESETS));
    let idle = section.take(reading, "idle", value::span(lengths.clone()));
    let interval = section.take(reading, "interval", value::span(lengths));
    let probes = section.take(reading, "probes", value::integer(1..=u64::from(MAX_PROBES)));
    let never = section.take(reading, "never", value::boolean);
    let keepalive = section.take(reading, "keepalive", |value| match value.as_str() {
        Some("off") => Ok(None),
        _ => value::span(Span::from_millis(1)..=MAX_BOUND)(value)
            .map(Some)
            .map_err(|refused| refused.or("\"off\"")),
    });
    let spread = section.take(reading, "spread", value::boolean);
    section.finish(reading);

    let numbers = BoundNumbers { idle, interval, probes };
    let mut policy = if Given::or(never, false) {
        refuse_conflict(reading, "never = true", &numbers, preset.as_ref());
        Policy::never().with_spread(base.spread())
    } else if let Some(preset) = preset {
        let name = format!("preset = \"{}\"", value::name_of(&preset.value, &PRESETS));
        refuse_conflict(reading, &name, &numbers, None);
        preset.value
    } else if numbers.first().is_some() {
        numbers.resolve(reading, base).with_spread(base.spread())
    } else {
        base
    };
    policy = policy.with_spread(Given::or(spread, policy.spread())).with_enforce(base.enforce());
    match Given::or(keepalive, base.keepalive()) {
        // Always accepted: `take` has checked the range.
        Some(keepalive) => policy.with_keepalive(keepalive).unwrap_or(policy),
        None => policy,
    }
}

/// The three numbers of the bound; absent ones are `None`.
struct BoundNumbers {
    idle: Option<Given<Span>>,
    interval: Option<Given<Span>>,
    probes: Option<Given<u64>>,
}

impl BoundNumbers {
    /// Returns the name and the place of the first number that was given.
    fn first(&self) -> Option<(&'static str, Range<usize>)> {
        let idle = self.idle.as_ref().map(|given| ("idle", given.span.clone()));
        let interval = self.interval.as_ref().map(|given| ("interval", given.span.clone()));
        let probes = self.probes.as_ref().map(|given| ("probes", given.span.clone()));
        idle.or(interval).or(probes)
    }

    /// Returns the policy of these numbers; `base` supplies absent ones.
    fn resolve(self, reading: &mut Reading<'_>, base: Policy) -> Policy {
        let place = self.first().map(|(_, span)| span);
        let (idle, interval, probes) = match base.detection() {
            Detection::Bounded { idle, interval, probes } => (idle, interval, probes),
            Detection::Never => {
                if self.idle.is_none() || self.interval.is_none() || self.probes.is_none() {
                    let what = "`idle`, `interval` and `probes` are needed together here";
                    let help = "the policy that this one starts from judges nobody and has none";
                    reading.problems.add(place, what.to_owned(), Some(help.to_owned()));
                    return base;
                }
                (Span::ZERO, Span::ZERO, 0)
            }
        };
        let idle = Given::or(self.idle, idle);
        let interval = Given::or(self.interval, interval);
        let probes =
            self.probes.and_then(|probes| u8::try_from(probes.value).ok()).unwrap_or(probes);
        match Policy::new(idle, interval, probes).and_then(Policy::patient) {
            Ok(policy) => policy,
            Err(error) => {
                reading.problems.add(place, error.to_string(), None);
                base
            }
        }
    }
}

/// Refuses settings that contradict `winner`, which sets the bound.
fn refuse_conflict(
    reading: &mut Reading<'_>,
    winner: &str,
    numbers: &BoundNumbers,
    preset: Option<&Given<Policy>>,
) {
    let preset = preset.map(|preset| ("preset", preset.span.clone()));
    if let Some((key, span)) = preset.or_else(|| numbers.first()) {
        let what = format!("`{key}` and `{winner}` exclude each other");
        let help = match key {
            "preset" => format!("leave out one of the two: {winner} already says all"),
            _ => format!("leave out `{winner}`, or leave out idle, interval and probes"),
        };
        reading.problems.add(Some(span), what, Some(help));
    }
}
