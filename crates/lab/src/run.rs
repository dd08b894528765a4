//! One run: builds a lab, injects the faults at their times, and judges the reports.

mod expect;

use std::path::Path;

use systole_core::Span;
use systole_core::random::Random;
use systole_net::Clock;

use crate::arithmetic;
use crate::busy::CpuMonitor;
use crate::judge::{self, Score};
use crate::log::Seen;
use crate::process::pause;
use crate::record::{Lane, Mark, Run, seconds};
use crate::scenario::{Fault, Role, Scenario, Step};
use crate::stage::{FIRST_LINK, Stage};
use crate::trouble::Trouble;

/// Time that the lab waits after the bound, to distinguish late from missed.
const GRACE_MS: u64 = 2_000;
/// Time for the round-trip times to settle after the links are up.
const SETTLE: Span = Span::from_millis(300);
/// Range of the random delay before the first fault, so that it occurs at any phase of the
/// heartbeat.
const PHASE: Span = Span::from_millis(1_000);

/// Tolerated lateness of a pause of the lab; beyond it the machine is too busy for a lab.
const LATEST: Span = Span::from_millis(100);
/// Lateness of the lab itself, beyond which a late or missing verdict is no result: half of the
/// shortest bound.
const DISTURBED: Span = Span::from_millis(25);
/// Maximum of attempts at a run while the machine is too busy for it.
const ATTEMPTS: u32 = 3;

/// Runs a scenario, and repeats it if the machine was too busy for it.
pub(crate) fn run(
    scenario: &'static Scenario,
    role: Role,
    repetition: u32,
    seed: u64,
    program: &Path,
) -> Run {
    let mut run = Run {
        scenario: scenario.name,
        fault: scenario.fault,
        role,
        repetition,
        seed,
        living: scenario.living(),
        attempts: 0,
        score: Score::Invalid,
        findings: Vec::new(),
        keepalive: String::new(),
        trouble: None,
        marks: Vec::new(),
    };
    while run.attempts < ATTEMPTS {
        run.attempts += 1;
        run.findings.clear();
        let trouble = attempt(&mut run, scenario, program).err();
        run.trouble = trouble.as_ref().map(ToString::to_string);
        run.score = match trouble {
            Some(_) => Score::Invalid,
            None => judge::overall(run.findings.iter().map(|finding| finding.score)),
        };
        if !trouble.is_some_and(|trouble| trouble.is_busy()) {
            break;
        }
    }
    run
}

/// Refuses a late or missing verdict if this machine was too busy. A wrong cause, or a verdict on a
/// living peer, counts on any machine.
fn check_disturbance(run: &Run, worst: Span) -> Result<(), Trouble> {
    let score = judge::overall(run.findings.iter().map(|finding| finding.score));
    if matches!(score, Score::Late | Score::Missed) && worst > DISTURBED {
        let score = score.name();
        return Err(Trouble::busy(format!("{score}, but this machine was busy: {worst} late")));
    }
    Ok(())
}

fn attempt(run: &mut Run, scenario: &Scenario, program: &Path) -> Result<(), Trouble> {
    let mut random = Random::new(run.seed);
    let (boots, program, clock) = (random.next_u64(), program.to_owned(), Clock::start());
    let monitor = CpuMonitor::start(clock)?;
    if let [Step::Arithmetic { from_ms, to_ms }] = *scenario.steps {
        run.findings = arithmetic::measure((from_ms, to_ms), clock)?;
        return Ok(());
    }
    let stage = Stage::build(program, scenario.setting, run.role, boots, clock)?;
    Play::new(stage, run).play(scenario, random.up_to(PHASE))?;
    check_disturbance(run, monitor.worst())
}

/// A run in progress.
struct Play<'a> {
    stage: Stage,
    run: &'a mut Run,
    /// Index of the first event after the first fault, in the observer's log.
    from: usize,
    /// Times of the first and the last fault, on the wall clock.
    first_ms: Option<u64>,
    last_ms: u64,
    faults: Vec<(u64, String)>,
    /// Whether faults with counters are in force that have not been checked for an effect.
    unchecked: bool,
}

impl Play<'_> {
    fn new(stage: Stage, run: &mut Run) -> Play<'_> {
        Play {
            stage,
            run,
            from: 0,
            first_ms: None,
            last_ms: 0,
            faults: Vec::new(),
            unchecked: false,
        }
    }

    fn play(mut self, scenario: &Scenario, phase: Span) -> Result<(), Trouble> {
        pause(SETTLE + phase);
        self.from = self.stage.observer_log().len();
        let done = self.steps(scenario.steps).and_then(|()| self.check_effect());
        let done = done.and_then(|()| self.check_delay(scenario.setting.delay_ms()));
        self.run.keepalive = self.keepalive();
        self.run.marks = self.marks();
        done
    }

    fn steps(&mut self, steps: &[Step]) -> Result<(), Trouble> {
        for step in steps {
            match *step {
                Step::Do(fault) => self.inject(fault)?,
                Step::AfterBeat => self.await_heartbeat()?,
                Step::Rest(ms) => self.rest(ms)?,
                Step::Repeat(times, steps) => {
                    for _ in 0..times {
                        self.steps(steps)?;
                    }
                }
                Step::GatewayAlone(steps) if self.run.role == Role::Gateway => self.steps(steps)?,
                Step::GatewayAlone(_) => {}
                Step::Revised(expected) => self.verdict("verdict_revised", &expected),
                Step::IdleReported => self.idle_reported(),
                Step::Verdict(expected) => self.verdict("leave", &expected),
                Step::Reports(kind, expected) => self.verdict(kind, &expected),
                Step::LagReported => self.lag_reported()?,
                Step::Alive { within_ms } => self.alive(within_ms),
                Step::Returns { within_ms } => self.returns(within_ms),
                Step::Outage { links, within_ms } => self.outage(Some(links), within_ms),
                Step::OutageHere { within_ms } => self.outage(None, within_ms),
                Step::OnlySecondHostEnds { links, within_ms } => self.second(links, within_ms),
                Step::NoLinkEnds => self.no_link_ends(),
                Step::Suspected { within_ms } => self.suspects(within_ms),
                Step::SuspectedAtMost(times) => self.suspected(times),
                Step::FewEnd { links, in_ms } => self.few(links, in_ms),
                Step::Keepalive { from_ms, to_ms } => self.kernel(from_ms, to_ms),
                Step::Arithmetic { .. } => {
                    return Err(Trouble::new("arithmetic has no other steps"));
                }
            }
        }
        Ok(())
    }

    fn inject(&mut self, fault: Fault) -> Result<(), Trouble> {
        if fault == Fault::Heal {
            self.check_effect()?;
        }
        let now_ms = self.stage.clock.wall_ms();
        self.first_ms.get_or_insert(now_ms);
        self.last_ms = now_ms;
        self.faults.push((now_ms, fault.name()));
        self.unchecked |= fault.is_counted();
        self.stage.inject(fault)
    }

    /// Lets a fault last for `ms`, and fails if the pause was much longer, since that would be
    /// another fault.
    fn rest(&self, ms: u64) -> Result<(), Trouble> {
        let (clock, length) = (self.stage.clock, Span::from_millis(ms));
        let since = clock.monotonic();
        pause(length);
        let late = clock.monotonic().less(since).less(length);
        if late > LATEST {
            return Err(Trouble::busy(format!("this machine is too busy: {late} late")));
        }
        Ok(())
    }

    fn await_heartbeat(&self) -> Result<(), Trouble> {
        let (log, from) = (&self.stage.peer_log, self.stage.peer_log.len());
        let round = |events: &[Seen]| events.iter().any(is_beat).then_some(());
        let within = Span::from_millis(self.stage.idle_ms() + GRACE_MS);
        let beat = log.wait(self.stage.clock, within, from, round);
        beat.ok_or_else(|| Trouble::new("no heartbeat was answered before the fault"))
    }

    /// Checks that a rule with a counter matched a packet, or that the relay changed one: otherwise
    /// there was no fault.
    fn check_effect(&mut self) -> Result<(), Trouble> {
        if std::mem::take(&mut self.unchecked) && self.stage.effects()? == 0 {
            return Err(Trouble::new("the fault had no effect on any packet"));
        }
        Ok(())
    }

    /// Checks that no round trip was shorter than twice the delay.
    fn check_delay(&self, delay_ms: u64) -> Result<(), Trouble> {
        let reported = self.stage.peer_log.all();
        let shortest = reported.iter().filter_map(|seen| seen.number("rtt_us")).min();
        if delay_ms == 0 || shortest.is_some_and(|rtt_us| rtt_us >= 2_000 * delay_ms) {
            return Ok(());
        }
        Err(Trouble::new(format!("packets are not delayed: shortest round trip {shortest:?} us")))
    }

    fn keepalive(&self) -> String {
        let now_ms = self.stage.clock.wall_ms();
        let since = |at_ms: u64| at_ms.saturating_sub(self.first_ms.unwrap_or(at_ms));
        match self.stage.control.as_ref().map(|control| control.noticed()) {
            None => String::new(),
            Some(None) => format!("nothing in {}", seconds(since(now_ms))),
            Some(Some((at_ms, what))) => format!("{what} after {}", seconds(since(at_ms))),
        }
    }

    fn marks(&self) -> Vec<Mark> {
        let Some(first) = self.first_ms else { return Vec::new() };
        let mark = |at_ms: u64, lane, what: String| {
            let at_ms = i64::try_from(at_ms).unwrap_or(0) - i64::try_from(first).unwrap_or(0);
            Mark { at_ms, lane, what }
        };
        let mut marks: Vec<Mark> =
            self.faults.iter().map(|(at, what)| mark(*at, Lane::Fault, what.clone())).collect();
        let logs = [(Lane::Gateway, &self.stage.gateway_log), (Lane::Client, &self.stage.peer_log)];
        for (lane, log) in logs {
            let reported = log.all();
            let shown = reported.iter().filter(|seen| is_shown(seen) && seen.at_ms + 2_000 > first);
            marks.extend(shown.map(|seen| mark(seen.at_ms, lane, label(seen))));
        }
        if let Some((at, what)) = self.stage.control.as_ref().and_then(|control| control.noticed())
        {
            marks.push(mark(at, Lane::Keepalive, what));
        }
        marks.sort_by_key(|mark| mark.at_ms);
        marks
    }
}

/// Whether a heartbeat reached the first client: either an answer, or a ping that is answered at
/// once.
fn is_beat(seen: &Seen) -> bool {
    seen.is("heard", FIRST_LINK) || seen.is("round_trip", FIRST_LINK)
}

/// Whether an event is shown in a timeline, where the first link of each host stands for all.
fn is_shown(seen: &Seen) -> bool {
    let first = seen.text("identity").is_empty() || seen.text("identity").ends_with("-0");
    let relevant = ["session", "snapshot", "live", "heard", "round_trip"]
        .iter()
        .all(|kind| seen.kind != *kind);
    first && relevant
}

fn label(seen: &Seen) -> String {
    match expect::cause(seen) {
        "" => seen.kind.clone(),
        cause => format!("{}: {cause}", seen.kind),
    }
}
