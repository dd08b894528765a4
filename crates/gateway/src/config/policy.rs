//! Reads `[policy]` and `[listener.policy]`.

use std::ops::Range;

use systole_core::policy::{Detection, MAX_BOUND, MAX_PROBES, PRESETS};
use systole_core::{Policy, Span};

use super::section::{Given, Reading, Section};
use super::value;

/// Reads a policy from a table in which everything may be absent; what is absent comes from `base`.
///
/// A preset sets when silence is judged and whether probes are spread; so do `idle`, `interval` and
/// `probes`, of which missing ones come from `base`. The two ways exclude each other, for a reader
/// of the file would not know which one holds.
pub(super) fn read(reading: &mut Reading<'_>, mut section: Section<'_>, base: Policy) -> Policy {
    let lengths = Span::from_millis(1)..=MAX_BOUND;
    let preset = section.take(reading, "preset", value::chosen(&PRESETS));
    let idle = section.take(reading, "idle", value::span(lengths.clone()));
    let interval = section.take(reading, "interval", value::span(lengths.clone()));
    let probes = section.take(reading, "probes", value::integer(1..=u64::from(MAX_PROBES)));
    let never = section.take(reading, "never", value::boolean);
    let keepalive = section.take(reading, "keepalive", |value| match value.as_str() {
        Some("off") => Ok(None),
        _ => value::span(lengths)(value).map(Some).map_err(|right| format!("\"off\", or {right}")),
    });
    let spread = section.take(reading, "spread", value::boolean);
    section.finish(reading);

    let lengths = Lengths { idle, interval, probes };
    let mut policy = if Given::or(never, false) {
        refuse_beside(reading, "never = true", &lengths, preset.as_ref());
        Policy::never().with_spread(base.spread())
    } else if let Some(preset) = preset {
        let name = format!("preset = \"{}\"", value::name_of(&preset.value, &PRESETS));
        refuse_beside(reading, &name, &lengths, None);
        preset.value
    } else if lengths.first().is_some() {
        lengths.resolve(reading, base).with_spread(base.spread())
    } else {
        base
    };
    policy = policy.with_spread(Given::or(spread, policy.spread())).with_enforce(base.enforce());
    match Given::or(keepalive, base.keepalive()) {
        // In range by the way it was read, hence accepted.
        Some(keepalive) => policy.with_keepalive(keepalive).unwrap_or(policy),
        None => policy,
    }
}

/// The three numbers of the bound, as far as they were given.
struct Lengths {
    idle: Option<Given<Span>>,
    interval: Option<Given<Span>>,
    probes: Option<Given<u64>>,
}

impl Lengths {
    /// The name and place of the first that was given.
    fn first(&self) -> Option<(&'static str, Range<usize>)> {
        let idle = self.idle.as_ref().map(|given| ("idle", given.span.clone()));
        let interval = self.interval.as_ref().map(|given| ("interval", given.span.clone()));
        let probes = self.probes.as_ref().map(|given| ("probes", given.span.clone()));
        idle.or(interval).or(probes)
    }

    /// The policy of these numbers; missing ones come from `base`.
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
        match Policy::new(idle, interval, probes) {
            Ok(policy) => policy,
            Err(error) => {
                reading.problems.add(place, error.to_string(), None);
                base
            }
        }
    }
}

/// Refuses what says something else about the bound than `leader` does.
fn refuse_beside(
    reading: &mut Reading<'_>,
    leader: &str,
    lengths: &Lengths,
    preset: Option<&Given<Policy>>,
) {
    let preset = preset.map(|preset| ("preset", preset.span.clone()));
    if let Some((key, span)) = preset.or_else(|| lengths.first()) {
        let what = format!("`{key}` and `{leader}` exclude each other");
        let help = match key {
            "preset" => format!("leave out one of the two: {leader} already says all"),
            _ => format!("leave out `{leader}`, or leave out idle, interval and probes"),
        };
        reading.problems.add(Some(span), what, Some(help));
    }
}
