//! One run: builds a lab, makes the faults at their times, and judges what is told.

use std::path::Path;

use systole_core::Span;
use systole_core::random::Random;
use systole_net::Clock;

use crate::judge::{self, Expected, Score, Told};
use crate::log::Seen;
use crate::process::pause;
use crate::record::{Finding, Lane, Mark, Run, seconds};
use crate::scenario::{Fault, Role, Scenario, Step};
use crate::stage::{FIRST_LINK, Stage};
use crate::trouble::Trouble;

/// How much longer than the bound the lab listens, to tell late from never.
const GRACE_MS: u64 = 2_000;
/// After the links are up: the round-trip times settle.
const SETTLE: Span = Span::from_millis(300);
/// The first fault falls at a random point of this: at any phase of the heartbeat.
const PHASE: Span = Span::from_millis(1_000);

/// A pause of the lab may be late by so much; beyond it the machine has no time for a lab.
const LATEST: Span = Span::from_millis(100);
/// How often a run is made where the machine had no time for it.
const ATTEMPTS: u32 = 3;

/// How the causes' texts for people say which way is lost.
const DIRECTIONS: [(&str, &str); 3] = [
    ("nothing comes back", "both"),
    ("what we send does not arrive", "outbound"),
    ("what the peer sends does not arrive", "inbound"),
];
/// And how much.
const SCOPES: [(&str, &str); 3] =
    [("this flow alone", "flow"), ("the whole host", "host"), ("many hosts", "many")];

/// Runs a scenario, and again where the machine was too busy for it.
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
        if !trouble.is_some_and(|trouble| trouble.is_busy()) {
            break;
        }
    }
    if run.trouble.is_none() {
        run.score = judge::overall(run.findings.iter().map(|finding| finding.score));
    }
    run
}

fn attempt(run: &mut Run, scenario: &Scenario, program: &Path) -> Result<(), Trouble> {
    let mut random = Random::new(run.seed);
    let (boots, program, clock) = (random.next_u64(), program.to_owned(), Clock::start());
    let stage = Stage::build(program, scenario.setting, run.role, boots, clock)?;
    Play::new(stage, run).play(scenario, random.up_to(PHASE))
}

/// A run in progress.
struct Play<'a> {
    stage: Stage,
    run: &'a mut Run,
    /// Where the events after the first fault begin, in the observer's log.
    from: usize,
    /// When the first fault came and when the last one did, on the wall clock.
    first_ms: Option<u64>,
    last_ms: u64,
    faults: Vec<(u64, String)>,
    /// Whether counted rules are in force that have not been seen to bite.
    unproven: bool,
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
            unproven: false,
        }
    }

    fn play(mut self, scenario: &Scenario, phase: Span) -> Result<(), Trouble> {
        pause(SETTLE + phase);
        self.from = self.stage.told().len();
        let done = self.steps(scenario.steps).and_then(|()| self.prove());
        let done = done.and_then(|()| self.prove_delay(scenario.setting.delay_ms));
        self.run.keepalive = self.keepalive();
        self.run.marks = self.marks();
        done
    }

    fn steps(&mut self, steps: &[Step]) -> Result<(), Trouble> {
        for step in steps {
            match *step {
                Step::Do(fault) => self.make(fault)?,
                Step::AfterBeat => self.beat()?,
                Step::Rest(ms) => self.rest(ms)?,
                Step::Repeat(times, steps) => {
                    for _ in 0..times {
                        self.steps(steps)?;
                    }
                }
                Step::Verdict(expected) => self.verdict("leave", &expected),
                Step::Revised(expected) => self.verdict("verdict_revised", &expected),
                Step::Alive { within_ms } => self.alive(within_ms),
                Step::Returns { within_ms } => self.returns(within_ms),
                Step::Outage { links, within_ms } => self.outage(links, within_ms),
                Step::OnlySecondHostEnds { links, within_ms } => self.second(links, within_ms),
                Step::NobodyEnds => self.nobody(),
                Step::FewEnd { links, in_ms } => self.few(links, in_ms),
                Step::Keepalive { from_ms, to_ms } => self.kernel(from_ms, to_ms),
            }
        }
        Ok(())
    }

    fn make(&mut self, fault: Fault) -> Result<(), Trouble> {
        if fault == Fault::Heal {
            self.prove()?;
        }
        let now_ms = self.stage.clock.wall_ms();
        self.first_ms.get_or_insert(now_ms);
        self.last_ms = now_ms;
        self.faults.push((now_ms, fault.name()));
        self.unproven |= fault.is_counted();
        self.stage.inject(fault)
    }

    /// Lets a fault last so long, and no longer: an outage that took more would be another one.
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

    fn beat(&self) -> Result<(), Trouble> {
        let (log, from) = (&self.stage.told_by_peers, self.stage.told_by_peers.len());
        let round = |events: &[Seen]| events.iter().any(is_beat).then_some(());
        let beat = log.wait(self.stage.clock, Span::from_millis(GRACE_MS), from, round);
        beat.ok_or_else(|| Trouble::new("no heartbeat went round before the fault"))
    }

    /// A rule that met no packet was no fault.
    fn prove(&mut self) -> Result<(), Trouble> {
        if std::mem::take(&mut self.unproven) && self.stage.network.bitten()? == 0 {
            return Err(Trouble::new("the fault did not bite: no packet met its rules"));
        }
        Ok(())
    }

    /// No heartbeat may have gone round in less than twice the delay.
    fn prove_delay(&self, delay_ms: u64) -> Result<(), Trouble> {
        let told = self.stage.told_by_peers.all();
        let shortest = told.iter().filter_map(|seen| seen.number("rtt_us")).min();
        if delay_ms == 0 || shortest.is_some_and(|rtt_us| rtt_us >= 2_000 * delay_ms) {
            return Ok(());
        }
        Err(Trouble::new(format!("packets are not delayed: shortest round trip {shortest:?} us")))
    }

    /// Waits for an event that satisfies `find`, until a while after the bound.
    fn wait<T>(&self, within_ms: u64, find: impl Fn(&[Seen]) -> Option<T>) -> Option<T> {
        let passed = self.stage.clock.wall_ms().saturating_sub(self.last_ms);
        let left = Span::from_millis((within_ms + GRACE_MS).saturating_sub(passed));
        self.stage.told().wait(self.stage.clock, left, self.from, find)
    }

    fn verdict(&mut self, kind: &str, expected: &Expected) {
        let first = kind == "leave";
        let found = self.wait(expected.within_ms, |events| {
            events.iter().find(|seen| seen.is(kind, self.observed())).cloned()
        });
        let told = found.map(|seen| self.told(&seen));
        let score = judge::judge(expected, told.as_ref());
        let told_text = told.as_ref().map(spell).unwrap_or_default();
        let told = told.unwrap_or_default();
        let particulars = [expected.direction, expected.scope].into_iter().flatten();
        let mut text = expected.causes.join(" or ");
        particulars.for_each(|word| text.extend([" ", word]));
        if !first {
            text.insert_str(0, "then ");
        }
        self.run.findings.push(Finding {
            expected: text,
            after_ms: (!told_text.is_empty()).then_some(told.after_ms),
            verdict: told_text,
            confidence: told.confidence,
            detail: told.detail,
            bound_ms: expected.within_ms,
            score,
            first,
        });
    }

    fn observed(&self) -> &'static str {
        FIRST_LINK
    }

    fn told(&self, seen: &Seen) -> Told {
        let field = |name| Some(seen.text(name).to_owned()).filter(|text| !text.is_empty());
        Told {
            cause: seen.text("cause").to_owned(),
            confidence: seen.text("confidence").to_owned(),
            direction: field("direction").or_else(|| particular(&DIRECTIONS, seen)),
            scope: field("scope").or_else(|| particular(&SCOPES, seen)),
            detail: seen.text("detail").to_owned(),
            after_ms: seen.at_ms.saturating_sub(self.last_ms),
        }
    }

    fn alive(&mut self, within_ms: u64) {
        let last_ms = self.last_ms;
        let round = |events: &[Seen]| {
            let after = |seen: &&Seen| seen.at_ms >= last_ms;
            let mut beats = events.iter().filter(|seen| is_beat(seen));
            beats.find(after).map(|seen| seen.at_ms - last_ms)
        };
        let left = Span::from_millis(within_ms + GRACE_MS);
        let back = self.stage.told_by_peers.wait(self.stage.clock, left, 0, round);
        let ends = self.ends("");
        let score = judge::judge_alive(ends, back, within_ms);
        self.push("same link, alive", &lives(ends), back, within_ms, score);
    }

    fn returns(&mut self, within_ms: u64) {
        let last_ms = self.last_ms;
        let found = self.wait(within_ms, |events| {
            let joins = events.iter().filter(|seen| seen.is("join", FIRST_LINK));
            joins.map(|seen| seen.at_ms.saturating_sub(last_ms)).next()
        });
        let score = judge::judge_alive(0, found, within_ms);
        let verdict = if found.is_some() { "join" } else { "" };
        self.push("then a new session", verdict, found, within_ms, score);
    }

    fn outage(&mut self, links: u64, within_ms: u64) {
        let found = self.wait(within_ms, |events| {
            let mut outages = events.iter().filter(|seen| seen.kind == "outage");
            outages.next_back().map(|seen| (seen.at_ms, seen.number("links")))
        });
        let after = found.map(|(at_ms, _)| at_ms.saturating_sub(self.last_ms));
        let count = found.and_then(|(_, links)| links);
        let score = judge::judge_count(links, count);
        let verdict = count.map(|count| format!("outage of {count}")).unwrap_or_default();
        self.push(&format!("outage of {links}"), &verdict, after, within_ms, score);
    }

    fn second(&mut self, links: u64, within_ms: u64) {
        let find = |events: &[Seen]| {
            let ends: Vec<&Seen> = leaves(events).filter(|seen| is_of_host(seen, 1)).collect();
            (ends.len() as u64 >= links).then(|| ends.iter().map(|seen| seen.at_ms).max())?
        };
        let last = self.wait(within_ms, find);
        let after = last.map(|at_ms| at_ms.saturating_sub(self.last_ms));
        let (dead, living) = (self.ends("10.2.1."), self.ends("10.2.0."));
        let alive = judge::judge_alive(living, after, within_ms);
        let count = after.map_or(Score::Right, |_| judge::judge_count(links, Some(dead as u64)));
        let score = judge::overall([alive, count]);
        let verdict = format!("{dead} ended, {living} of the living");
        self.push(&format!("{links} end, nobody else"), &verdict, after, within_ms, score);
    }

    fn nobody(&mut self) {
        let ends = self.ends("");
        let score = judge::judge_alive(ends, Some(0), 0);
        self.push("nobody ends", &lives(ends), None, 0, score);
    }

    fn few(&mut self, links: u64, in_ms: u64) {
        let ends = self.ends("");
        let score = judge::judge_mistakes(ends as u64, links, in_ms);
        self.push("at most one per link in 2 h", &lives(ends), None, 0, score);
    }

    fn kernel(&mut self, from_ms: u64, to_ms: u64) {
        let until = self.stage.clock.monotonic() + Span::from_millis(to_ms + GRACE_MS);
        let noticed = loop {
            let noticed = self.stage.control.as_ref().and_then(|control| control.noticed());
            if noticed.is_some() || self.stage.clock.monotonic() > until {
                break noticed;
            }
            pause(Span::from_millis(5));
        };
        // Keepalive counts from the last segment; the fault came before the first probe.
        let since_ms = self.stage.control.as_ref().map_or(0, |control| control.since_ms());
        let after = noticed.as_ref().map(|(at_ms, _)| at_ms.saturating_sub(since_ms));
        let score = match after {
            None => Score::Missed,
            Some(after) if after < from_ms => Score::Wrong,
            Some(after) if after > to_ms => Score::Late,
            Some(_) => Score::Right,
        };
        let what = noticed.map(|(_, what)| what).unwrap_or_default();
        self.push("the kernel gives up", &what, after, to_ms, score);
    }

    fn push(
        &mut self,
        expected: &str,
        verdict: &str,
        after_ms: Option<u64>,
        bound_ms: u64,
        score: Score,
    ) {
        self.run.findings.push(Finding {
            expected: expected.to_owned(),
            verdict: verdict.to_owned(),
            confidence: String::new(),
            detail: String::new(),
            after_ms,
            bound_ms,
            score,
            first: false,
        });
    }

    /// How many links whose address begins so have ended since the first fault.
    fn ends(&self, address: &str) -> usize {
        let all = self.stage.told().all();
        let events = all.get(self.from..).unwrap_or_default();
        leaves(events).filter(|seen| seen.text("address").starts_with(address)).count()
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
        let logs = [
            (Lane::Gateway, &self.stage.told_by_gateway),
            (Lane::Client, &self.stage.told_by_peers),
        ];
        for (lane, log) in logs {
            let told = log.all();
            let shown = told.iter().filter(|seen| is_shown(seen) && seen.at_ms + 2_000 > first);
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

/// A heartbeat reached the first client. It is an answer, or it is answered at once.
fn is_beat(seen: &Seen) -> bool {
    seen.is("heard", FIRST_LINK) || seen.is("round_trip", FIRST_LINK)
}

/// What the words for people say where no field does.
fn particular(words: &[(&str, &str)], seen: &Seen) -> Option<String> {
    let said = |(phrase, _): &&(&str, &str)| seen.text("detail").contains(phrase);
    words.iter().find(said).map(|(_, name)| (*name).to_owned())
}

fn leaves(events: &[Seen]) -> impl Iterator<Item = &Seen> {
    events.iter().filter(|seen| seen.kind == "leave")
}

fn is_of_host(seen: &Seen, host: u8) -> bool {
    seen.text("address").starts_with(&format!("10.2.{host}."))
}

/// The first link of each host stands for all in a timeline.
fn is_shown(seen: &Seen) -> bool {
    let first = seen.text("identity").is_empty() || seen.text("identity").ends_with("-0");
    let telling = ["session", "snapshot", "live", "heard", "round_trip"]
        .iter()
        .all(|kind| seen.kind != *kind);
    first && telling
}

fn label(seen: &Seen) -> String {
    match seen.text("cause") {
        "" => seen.kind.clone(),
        cause => format!("{}: {cause}", seen.kind),
    }
}

fn spell(told: &Told) -> String {
    let mut text = told.cause.clone();
    for word in [&told.direction, &told.scope].into_iter().flatten() {
        text.extend([" ", word]);
    }
    text
}

fn lives(ends: usize) -> String {
    if ends == 0 { "alive".to_owned() } else { format!("{ends} ended") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_spelled_with_its_particulars() {
        let told = Told {
            cause: "path_lost".to_owned(),
            direction: Some("outbound".to_owned()),
            scope: Some("flow".to_owned()),
            ..Told::default()
        };
        assert_eq!(spell(&told), "path_lost outbound flow");
    }
}
