//! The results of a run as tables and as JSON, and the budgets.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::BenchError;
use super::args::{Mode, Plan, Role};
use super::codec::Codec;
use super::measure::{Quantiles, Round, SilenceRun, Talk, Window};
use super::spread::Spread;
use super::target::Kind;

/// Budget of CPU per heartbeat, as a multiple of the baseline's.
const CPU_RATIO: f64 = 1.15;
/// The same over TLS, as a multiple of a bare echo of rustls.
const CPU_RATIO_TLS: f64 = 1.2;
/// Budgets of CPU per heartbeat of an idle fleet, as multiples of the baseline's.
const CPU_RATIO_PROBE: f64 = 0.5;
const CPU_RATIO_WATCH: f64 = 0.8;
/// Budgets of the time that rests add to the round trip of a message of data, at p99, in
/// milliseconds: in a conversation no more than the scheduler does, after a silence one rest.
const ADDED_IN_CONVERSATION: f64 = 0.5;
const ADDED_AFTER_SILENCE: f64 = 4.0;
/// Budget of anonymous memory per idle native link, its flight recorder included, in bytes.
const MEMORY: f64 = 680.0;
/// Fewest links at which that budget is judged, which are those of a run with the defaults. The
/// gateway's fixed memory of about 0.7 MB is part of the measurement; fewer links have a larger
/// share of it each.
pub(super) const MEMORY_JUDGED_FROM: usize = 15_000;
/// Budgets of the lateness of verdicts, in milliseconds.
const LATE_P99: f64 = 2.0;
const LATE_P999: f64 = 5.0;

/// CPU use of other processes, in cores, above which the report warns of noisy figures.
const OTHERS: f64 = 0.25;

/// The results of a run for each role.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Reports(pub(crate) Vec<Report>);

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|report| writeln!(f, "{report}"))
    }
}

/// The results of a whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// The gateway's role, if an idle fleet was measured.
    pub(crate) role: Option<Role>,
    pub(crate) links: usize,
    pub(crate) workers: usize,
    pub(crate) cores: usize,
    /// How many of the cores only the target may use; null if it shares all with the load.
    pub(crate) target_cores: Option<usize>,
    pub(crate) codec: Codec,
    pub(crate) period_ms: f64,
    /// The bound D: the silence after which a verdict falls.
    pub(crate) bound_ms: f64,
    pub(crate) rounds: Vec<Round>,
    pub(crate) ratios: Vec<Ratio>,
    /// The same for the bare echo that rests: what rests can save at this frequency.
    pub(crate) resting: Option<Ratio>,
    /// The same for a bare loop that probes: what batches of probes can save.
    pub(crate) prober: Option<Ratio>,
    pub(crate) budgets: Vec<Budget>,
    pub(crate) ok: bool,
}

/// CPU per heartbeat of a target over that of the baseline.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) mode: Mode,
    /// The ratio of the medians.
    pub(crate) median: f64,
    /// The target's best round over the baseline's worst.
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// A limit, the measured value, and the outcome.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Budget {
    pub(crate) what: String,
    /// Null if it could not be measured, which counts as missed.
    pub(crate) value: Option<f64>,
    pub(crate) limit: f64,
    pub(crate) unit: &'static str,
    pub(crate) note: String,
    /// Why the budget is not judged, so that `ok` is true whatever the value is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_verdict: Option<String>,
    pub(crate) ok: bool,
}

impl Report {
    /// Compares the rounds with the budgets.
    pub(crate) fn new(plan: &Plan, rounds: Vec<Round>) -> Report {
        let ratios: Vec<Ratio> = plan
            .modes
            .iter()
            .filter_map(|mode| Ratio::new(*mode, Kind::Gateway, &rounds))
            .collect();
        let resting = Ratio::new(Mode::Paced, Kind::RestingBaseline, &rounds);
        let prober = Ratio::new(Mode::Paced, Kind::BareProber, &rounds);
        let budgets = budgets(plan, &rounds, &ratios);
        Report {
            role: plan.role,
            links: plan.links,
            workers: plan.workers,
            cores: plan.cores,
            target_cores: plan.halves.map(|halves| halves.target_cores()),
            codec: plan.args.codec,
            period_ms: plan.period.as_secs_f64() * 1e3,
            bound_ms: plan.bound().as_secs_f64() * 1e3,
            ok: budgets.iter().all(|budget| budget.ok),
            rounds,
            ratios,
            resting,
            prober,
            budgets,
        }
    }
}

impl Ratio {
    /// Returns `None` unless both targets were measured.
    fn new(mode: Mode, kind: Kind, rounds: &[Round]) -> Option<Ratio> {
        let of = |kind: Kind| {
            let windows = rounds.iter().filter(|round| round.target == kind);
            let windows = windows.flat_map(|round| &round.windows).filter(|w| w.mode == mode);
            Spread::new(windows.map(|window| window.cpu_ns_per_heartbeat))
        };
        let (target, baseline) = (of(kind)?, of(Kind::Baseline)?);
        Some(Ratio {
            mode,
            median: target.median / baseline.median,
            min: target.min / baseline.max,
            max: target.max / baseline.min,
        })
    }
}

impl Budget {
    fn new(
        what: impl Into<String>,
        value: Option<f64>,
        limit: f64,
        unit: &'static str,
        note: impl Into<String>,
    ) -> Budget {
        let ok = value.is_some_and(|value| value <= limit);
        Budget { what: what.into(), value, limit, unit, note: note.into(), no_verdict: None, ok }
    }

    /// Returns the budget of the memory per idle link, which is judged only with enough links.
    fn memory(measured: Spread, links: usize, over: &str) -> Budget {
        let Spread { median, min, max } = measured;
        let note = format!("{min:.0} to {max:.0} at {links} links{over}");
        let budget = Budget::new("memory per idle link", Some(median), MEMORY, "B", note);
        if links >= MEMORY_JUDGED_FROM {
            return budget;
        }
        let why =
            format!("judged from {MEMORY_JUDGED_FROM} links on; fewer share the fixed memory");
        Budget { no_verdict: Some(why), ok: true, ..budget }
    }
}

fn budgets(plan: &Plan, rounds: &[Round], ratios: &[Ratio]) -> Vec<Budget> {
    let limit = match plan.role {
        None if plan.args.tls => CPU_RATIO_TLS,
        None => CPU_RATIO,
        Some(Role::Probe) => CPU_RATIO_PROBE,
        Some(Role::Watch) => CPU_RATIO_WATCH,
    };
    let mut budgets: Vec<Budget> = ratios
        .iter()
        .map(|ratio| {
            let what = format!("CPU per heartbeat, {}", ratio.mode.name());
            let note = format!("{:.2} to {:.2}", ratio.min, ratio.max);
            Budget::new(what, Some(ratio.median), limit, "x baseline", note)
        })
        .collect();
    budgets.extend(talk_budgets(rounds));
    let gateways = || rounds.iter().filter(|round| round.target == Kind::Gateway);
    // Over TLS, only what exceeds the bare echo counts, where rustls has buffers too.
    let bare = rounds.iter().filter(|round| round.target == Kind::Baseline && plan.args.tls);
    let bare = Spread::new(bare.map(|round| round.memory.idle_bytes_per_link));
    let bare = bare.map_or(if plan.args.tls { f64::NAN } else { 0.0 }, |it| it.median);
    let own = gateways().map(|round| round.memory.idle_bytes_per_link - bare);
    let memory = Spread::new(own.filter(|bytes| bytes.is_finite()));
    if let (Some(memory), Codec::Native, None) = (memory, plan.args.codec, plan.role) {
        let over = if plan.args.tls { ", beyond the bare echo of rustls" } else { "" };
        budgets.push(Budget::memory(memory, plan.links, over));
    }
    let silences: Vec<&SilenceRun> =
        gateways().filter_map(|round| round.silence.as_ref()).collect();
    if !silences.is_empty() {
        budgets.extend(verdict_budgets(&silences));
    }
    let lost: u64 = gateways().map(|round| round.lost).sum();
    if gateways().next().is_some() {
        let what = "live links closed";
        budgets.push(Budget::new(what, Some(lost as f64), 0.0, "", "all rounds"));
    }
    budgets
}

/// Returns the budgets of messages of data; none without an idle fleet.
fn talk_budgets(rounds: &[Round]) -> Vec<Budget> {
    let added = |what: &str, limit: f64, of: fn(&Talk) -> Quantiles| {
        let p99 = |kind: Kind| {
            let rounds = rounds.iter().filter(|round| round.target == kind);
            let spread = Spread::new(rounds.filter_map(|round| Some(of(round.talk.as_ref()?).p99)));
            spread.map(|spread| spread.median / 1e3)
        };
        let (with, without) = (p99(Kind::Gateway)?, p99(Kind::NoRests)?);
        let what = format!("data {what}, p99 added by rests");
        let note = format!("{with:.2} ms with, {without:.2} ms without");
        Some(Budget::new(what, Some(with - without), limit, "ms", note))
    };
    let budgets = [
        added("in a conversation", ADDED_IN_CONVERSATION, |talk| talk.conversation_us),
        added("after a silence", ADDED_AFTER_SILENCE, |talk| talk.after_silence_us),
    ];
    budgets.into_iter().flatten().collect()
}

fn verdict_budgets(silences: &[&SilenceRun]) -> Vec<Budget> {
    let lateness =
        |what: &str, limit: f64, of: fn(&SilenceRun) -> Option<f64>, seen: Option<f64>| {
            // A round without a figure has it in the last bucket: then the budget has no value.
            let values: Option<Vec<f64>> = silences.iter().map(|silence| of(silence)).collect();
            let spread = values.and_then(|values| Spread::new(values.into_iter()));
            let seen = seen.map_or(String::new(), |ms| format!("; {ms:.2} as clients see it"));
            let note = format!("upper bound of the gateway's histogram{seen}");
            Budget::new(what, spread.map(|spread| spread.median), limit, "ms", note)
        };
    let seen = |of: fn(&SilenceRun) -> f64| {
        Spread::new(silences.iter().map(|silence| of(silence))).map(|spread| spread.median)
    };
    let p99 = lateness(
        "verdict lateness p99",
        LATE_P99,
        |silence| silence.gateway_ms.and_then(|ms| ms.p99),
        seen(|silence| silence.client_ms.p99),
    );
    let p999 = lateness(
        "verdict lateness p99.9",
        LATE_P999,
        |silence| silence.gateway_ms.and_then(|ms| ms.p999),
        seen(|silence| silence.client_ms.p999),
    );
    let sum = |of: fn(&SilenceRun) -> f64| Some(silences.iter().map(|silence| of(silence)).sum());
    let wrong = sum(|silence| silence.false_verdicts as f64);
    let missing = sum(|silence| silence.missing as f64);
    vec![
        p99,
        p999,
        Budget::new("false verdicts", wrong, 0.0, "", "all rounds"),
        Budget::new("silent links not found", missing, 0.0, "", "all rounds"),
    ]
}

/// Formats a result as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, BenchError> {
    serde_json::to_string_pretty(value)
        .map_err(|error| BenchError::new(format!("cannot write the result as JSON: {error}")))
}

/// Creates a table without borders; all columns but the first `left` are numbers.
pub(crate) fn table<const N: usize>(header: [&str; N], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { role, links, workers, cores, target_cores, codec, .. } = self;
        let Report { period_ms, bound_ms, .. } = self;
        let pinned = target_cores.map_or(String::new(), |target| {
            format!(" ({target} for the target, {} for the load)", cores - target)
        });
        if let Some(role) = role {
            writeln!(f, "role {}: an idle fleet", role.name())?;
        }
        writeln!(
            f,
            "{links} links ({}) from {workers} processes, {cores} cores{pinned}; \
             period {period_ms} ms, bound {bound_ms} ms\n",
            codec.name()
        )?;
        writeln!(f, "{}\n", self.load())?;
        let others = self.rounds.iter().flat_map(|round| &round.windows);
        let others = others.map(|window| window.others_cores).fold(0.0, f64::max);
        if others > OTHERS {
            writeln!(
                f,
                "other processes used up to {others:.1} cores during the run: the figures are \
                noisy, a quiet machine gives better ones\n"
            )?;
        }
        let talk = self.talk();
        if talk.row_count() > 0 {
            writeln!(f, "{talk}\n")?;
        }
        writeln!(f, "{}\n", self.memory())?;
        let silent = self.silent();
        if silent.row_count() > 0 {
            writeln!(f, "{silent}\n")?;
        }
        self.meanwhile(f)?;
        for round in &self.rounds {
            let error = round.silence.as_ref().and_then(|silence| silence.gateway_error.as_ref());
            if let Some(error) = error {
                writeln!(f, "{}: its own lateness could not be read: {error}", name(round))?;
            }
        }
        let bare = [
            (self.resting, "echo that rests as long as the gateway may", "below 1, rests pay"),
            (self.prober, "loop that sends probes in batches", "no gateway can cost less"),
        ];
        for (ratio, what, meaning) in bare {
            let Some(Ratio { median, min, max, .. }) = ratio else { continue };
            let spread = format!("{min:.2} to {max:.2}");
            writeln!(f, "a bare {what}: {median:.2} x baseline ({spread}); {meaning}")?;
        }
        self.budgets.iter().try_for_each(|budget| writeln!(f, "{budget}"))
    }
}

impl Report {
    fn load(&self) -> Table {
        let mut table = table(
            [
                "target",
                "mode",
                "beats/s",
                "CPU us/beat",
                "cores",
                "RTT us p50",
                "p99",
                "p99.9",
                "overruns",
            ],
            2,
        );
        for round in &self.rounds {
            for window in &round.windows {
                table.add_row(load_row(round, window));
            }
        }
        table
    }

    fn talk(&self) -> Table {
        let header =
            ["data", "conversation us p50", "p99", "p99.9", "after silence us p50", "p99", "max"];
        let mut table = table(header, 1);
        for round in &self.rounds {
            let Some(Talk { conversation_us, after_silence_us }) = round.talk else { continue };
            let times = [
                conversation_us.p50,
                conversation_us.p99,
                conversation_us.p999,
                after_silence_us.p50,
                after_silence_us.p99,
                after_silence_us.max,
            ];
            table.add_row([name(round)].into_iter().chain(times.map(|us| format!("{us:.0}"))));
        }
        table
    }

    fn memory(&self) -> Table {
        let mut table =
            table(["target", "memory kB", "idle", "loaded", "B/idle link", "connect s"], 1);
        for round in &self.rounds {
            let memory = round.memory;
            table.add_row([
                name(round),
                (memory.before_bytes / 1024).to_string(),
                (memory.idle_bytes / 1024).to_string(),
                (memory.loaded_bytes / 1024).to_string(),
                format!("{:.0}", memory.idle_bytes_per_link),
                format!("{:.1}", round.connect_seconds),
            ]);
        }
        table
    }

    /// Prints what happened while the verdicts fell.
    fn meanwhile(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for round in &self.rounds {
            let Some(silence) = &round.silence else { continue };
            let SilenceRun { data_links, messages_per_second, handshakes, .. } = silence;
            let name = name(round);
            if *data_links > 0 {
                let sent = format!("{data_links} links sent {messages_per_second:.0} messages/s");
                writeln!(f, "{name}: meanwhile {sent}")?;
            }
            if let Some(burst) = handshakes {
                writeln!(f, "{name}: meanwhile {burst}")?;
            }
        }
        Ok(())
    }

    fn silent(&self) -> Table {
        let mut table = table(
            [
                "verdicts",
                "silent",
                "found",
                "false",
                "late ms p99",
                "p99.9",
                "seen p50",
                "p99",
                "p99.9",
                "max",
            ],
            1,
        );
        for round in &self.rounds {
            let Some(silence) = &round.silence else { continue };
            let seen = silence.client_ms;
            let bound = |of: Option<f64>| of.map_or("-".to_owned(), |ms| format!("<= {ms}"));
            table.add_row([
                name(round),
                silence.silenced.to_string(),
                silence.found.to_string(),
                silence.false_verdicts.to_string(),
                bound(silence.gateway_ms.and_then(|ms| ms.p99)),
                bound(silence.gateway_ms.and_then(|ms| ms.p999)),
                format!("{:.2}", seen.p50),
                format!("{:.2}", seen.p99),
                format!("{:.2}", seen.p999),
                format!("{:.2}", seen.max),
            ]);
        }
        table
    }
}

fn name(round: &Round) -> String {
    format!("{} {}", round.target.name(), round.round)
}

fn load_row(round: &Round, window: &Window) -> [String; 9] {
    [
        name(round),
        window.mode.name().to_owned(),
        format!("{:.0}", window.heartbeats_per_second),
        format!("{:.2}", window.cpu_ns_per_heartbeat / 1e3),
        format!("{:.2}", window.cores),
        format!("{:.0}", window.rtt_us.p50),
        format!("{:.0}", window.rtt_us.p99),
        format!("{:.0}", window.rtt_us.p999),
        window.overruns.to_string(),
    ]
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Budget { what, value, limit, unit, note, no_verdict, ok } = self;
        let value = value.map_or("unknown".to_owned(), short);
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        write!(f, "{what}: {value}{unit} (budget {}; {note}) ", short(*limit))?;
        match no_verdict {
            Some(why) => write!(f, "no verdict: {why}"),
            None => f.write_str(if *ok { "ok" } else { "MISSED" }),
        }
    }
}

/// Formats with two decimals, without zeros at the end.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_even_and_odd_counts() {
        let spread = Spread::new([3.0, 1.0, 2.0].into_iter()).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::new([4.0, 1.0].into_iter()).unwrap().median, 2.5);
        assert!(Spread::new(std::iter::empty()).is_none());
    }

    #[test]
    fn a_budget_shows_value_limit_and_outcome() {
        let kept = Budget::new("CPU", Some(1.02), 1.15, "x baseline", "0.99 to 1.05");
        assert_eq!(kept.to_string(), "CPU: 1.02 x baseline (budget 1.15; 0.99 to 1.05) ok");
        assert!(Budget::new("a", Some(480.01), 480.0, "B", "").to_string().ends_with("MISSED"));
        assert!(!Budget::new("a", None, 5.0, "ms", "").ok);
    }

    #[test]
    fn memory_per_link_is_judged_only_with_enough_links() {
        let measured = |bytes| Spread::new([bytes].into_iter()).unwrap();
        let few = Budget::memory(measured(1_270.0), 1_000, "");
        assert!(few.ok);
        assert_eq!(
            few.to_string(),
            "memory per idle link: 1270 B (budget 680; 1270 to 1270 at 1000 links) no verdict: \
             judged from 15000 links on; fewer share the fixed memory"
        );
        let json = serde_json::to_value(&few).unwrap();
        assert!(json["no_verdict"].is_string() && json["value"] == 1_270.0, "{json}");
        let enough = Budget::memory(measured(700.0), MEMORY_JUDGED_FROM, "");
        assert!(!enough.ok && enough.to_string().ends_with(" MISSED"));
    }
}
