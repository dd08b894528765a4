//! Compares each expectation of a scenario with the logs.

use std::collections::BTreeMap;

use systole_core::Span;

use super::{GRACE_MS, Play, is_beat};
use crate::judge::{self, Expected, Reported, Score};
use crate::log::{Log, Seen};
use crate::process::pause;
use crate::record::{Finding, seconds};
use crate::stage::FIRST_LINK;
use crate::trouble::Trouble;

impl Play<'_> {
    /// Waits for an event that satisfies `find`, until [`GRACE_MS`] after the bound.
    fn wait<T>(&self, within_ms: u64, find: impl Fn(&[Seen]) -> Option<T>) -> Option<T> {
        let passed = self.stage.clock.wall_ms().saturating_sub(self.last_ms);
        let left = Span::from_millis((within_ms + GRACE_MS).saturating_sub(passed));
        self.stage.observer_log().wait(self.stage.clock, left, self.from, find)
    }

    /// Judges the first event of this kind on the first link.
    pub(super) fn verdict(&mut self, kind: &str, expected: &Expected) {
        let first = kind == "leave";
        let found = self.wait(expected.within_ms, |events| {
            events.iter().find(|seen| seen.is(kind, FIRST_LINK)).cloned()
        });
        let reported = found.map(|seen| self.reported(&seen));
        let mut score = judge::judge(expected, reported.as_ref());
        if score == Score::Missed && kind == "verdict_revised" {
            // The first verdict stands: not wrong, but less precise than expected.
            score = Score::Unknown;
        }
        let reported_text = reported.as_ref().map(describe).unwrap_or_default();
        let reported = reported.unwrap_or_default();
        let particulars =
            [expected.direction, expected.scope, expected.confidence].into_iter().flatten();
        let mut text = expected.causes.join(" or ");
        particulars.for_each(|word| text.extend([" ", word]));
        match kind {
            "leave" => {}
            "verdict_revised" => text.insert_str(0, "then "),
            other => text.insert_str(0, &format!("{other}: ")),
        }
        self.run.findings.push(Finding {
            expected: text,
            after_ms: (!reported_text.is_empty()).then_some(reported.after_ms),
            verdict: reported_text,
            confidence: reported.confidence,
            detail: reported.detail,
            bound_ms: expected.within_ms,
            score,
            first,
            condemned: None,
        });
    }

    fn reported(&self, seen: &Seen) -> Reported {
        let field = |name| Some(seen.text(name).to_owned()).filter(|text| !text.is_empty());
        Reported {
            cause: cause(seen).to_owned(),
            confidence: seen.text("confidence").to_owned(),
            direction: field("direction"),
            scope: field("scope"),
            detail: seen.text("detail").to_owned(),
            after_ms: seen.at_ms.saturating_sub(self.last_ms),
        }
    }

    pub(super) fn alive(&mut self, within_ms: u64) {
        let last_ms = self.last_ms;
        let round = |events: &[Seen]| {
            let after = |seen: &&Seen| seen.at_ms >= last_ms;
            let mut beats = events.iter().filter(|seen| is_beat(seen));
            beats.find(after).map(|seen| seen.at_ms - last_ms)
        };
        let left = Span::from_millis(within_ms + GRACE_MS);
        let back = self.stage.peer_log.wait(self.stage.clock, left, 0, round);
        let (ends, lives) = (self.ends(""), self.lives());
        let score = judge::judge_alive(ends, back, within_ms);
        self.push("same link, alive", &lives, back, within_ms, score);
        self.record_condemned(ends);
    }

    pub(super) fn returns(&mut self, within_ms: u64) {
        let last_ms = self.last_ms;
        let found = self.wait(within_ms, |events| {
            let joins = events.iter().filter(|seen| seen.is("join", FIRST_LINK));
            joins.map(|seen| seen.at_ms.saturating_sub(last_ms)).next()
        });
        let score = judge::judge_alive(0, found, within_ms);
        let verdict = if found.is_some() { "join" } else { "" };
        self.push("then a new session", verdict, found, within_ms, score);
    }

    /// Expects exactly one outage event. Without `links` the outage is at our own end, which is
    /// reported at once, with the number of links that have ended by then.
    pub(super) fn outage(&mut self, links: Option<u64>, within_ms: u64) {
        let here = links.is_none();
        let is_it = |seen: &&Seen| {
            let network = seen.body.get("network").filter(|network| !network.is_null());
            seen.kind == "outage" && network.is_none() == here
        };
        // Waits for the whole time, since a second event would be an error.
        let second = |events: &[Seen]| events.iter().filter(is_it).nth(1).map(drop);
        let _ = self.wait(within_ms, second);
        let all = self.stage.observer_log().all();
        let outages: Vec<&Seen> =
            all.get(self.from..).unwrap_or_default().iter().filter(is_it).collect();
        let affected: Vec<u64> =
            outages.iter().filter_map(|seen| seen.number("affected")).collect();
        let first = outages.first();
        let after = first.map(|seen| seen.at_ms.saturating_sub(self.last_ms));
        let count = match affected.as_slice() {
            [] => None,
            [one] => Some(*one),
            [_, _, ..] => Some(0),
        };
        let expected = links.or(count.filter(|count| *count > 0)).unwrap_or(1);
        let mut score = judge::judge_count(expected, count);
        if score == Score::Right && after.is_some_and(|after| after > within_ms) {
            score = Score::Late;
        }
        let place = if here { " here" } else { "" };
        let verdicts = affected.iter().map(|count| format!("outage of {count}{place}"));
        let verdict = verdicts.collect::<Vec<_>>().join(", ");
        let what =
            links.map_or("one outage here".to_owned(), |links| format!("one outage of {links}"));
        self.push(&what, &verdict, after, within_ms, score);
    }

    /// Judges the reported idle time: from the link's last heartbeat to the first segment that was
    /// reset, or that began the probing of a silence.
    pub(super) fn idle_reported(&mut self) {
        let probing_ms = self.stage.probing_ms();
        let leave = |log: &Log| {
            let all = log.all();
            let seen = all.iter().rev().find(|seen| seen.is("leave", FIRST_LINK))?;
            let asked_ms = if cause(seen) == "path_lost" { probing_ms } else { 0 };
            Some(seen.at_ms.saturating_sub(asked_ms))
        };
        let ends = [leave(&self.stage.gateway_log), leave(&self.stage.peer_log)];
        let found_ms = ends.into_iter().flatten().min();
        let beats = self.stage.peer_log.all();
        let carried = |seen: &&Seen| is_beat(seen) || seen.is("join", FIRST_LINK);
        let beats = beats.iter().filter(carried).map(|seen| seen.at_ms);
        let last_ms =
            beats.filter(|at_ms| found_ms.is_some_and(|found_ms| *at_ms < found_ms)).max();
        let idle_ms = found_ms.zip(last_ms).map(|(found_ms, last_ms)| found_ms - last_ms);
        let reported = self.stage.observer_log().all();
        let revised = reported.iter().find(|seen| seen.is("verdict_revised", FIRST_LINK));
        let reported_ms = revised.and_then(|seen| seen.number("idle_ms"));
        let score = judge::judge_idle(idle_ms, reported_ms);
        let reported =
            reported_ms.map(|ms| format!("idle for {}", seconds(ms))).unwrap_or_default();
        let expected = idle_ms.map_or("?".to_owned(), seconds);
        self.push(&format!("idle for {expected}"), &reported, None, 0, score);
    }

    pub(super) fn lag_reported(&mut self) -> Result<(), Trouble> {
        let stalls = self.stage.metric("systole_stalls_total")?;
        let lag = self.stage.metric("systole_loop_lag_seconds_sum")?;
        let score = if stalls > 0.0 && lag > 0.0 { Score::Right } else { Score::Missed };
        let reported = format!("{stalls} stalls, {lag:.1} s late in all");
        self.push("stalls and lag in the metrics", &reported, None, 0, score);
        Ok(())
    }

    pub(super) fn second(&mut self, links: u64, within_ms: u64) {
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
        self.record_condemned(living);
    }

    pub(super) fn no_link_ends(&mut self) {
        let (ends, lives) = (self.ends(""), self.lives());
        let score = judge::judge_alive(ends, Some(0), 0);
        self.push("nobody ends", &lives, None, 0, score);
        self.record_condemned(ends);
    }

    /// Judges when the first link is suspected after the last fault.
    pub(super) fn suspects(&mut self, within_ms: u64) {
        let last_ms = self.last_ms;
        let found = self.wait(within_ms, |events| {
            let mut doubts = events.iter().filter(|seen| seen.is("suspect", FIRST_LINK));
            doubts.find_map(|seen| seen.at_ms.checked_sub(last_ms))
        });
        let score = judge::judge_alive(0, found, within_ms);
        let verdict = if found.is_some() { "suspect" } else { "" };
        self.push("suspected", verdict, found, within_ms, score);
    }

    /// Judges how often each link was suspected since the first fault.
    pub(super) fn suspected(&mut self, allowed: u64) {
        let all = self.stage.observer_log().all();
        let mut times: BTreeMap<String, u64> = BTreeMap::new();
        for seen in all.get(self.from..).unwrap_or_default() {
            if seen.kind == "suspect" {
                // The line codec has no identities.
                let fields = ["identity", "session"].map(|name| seen.body.get(name));
                let link = fields.into_iter().flatten().map(ToString::to_string).collect();
                *times.entry(link).or_default() += 1;
            }
        }
        let most = times.into_values().max().unwrap_or(0);
        let score = judge::judge_suspicions(most, allowed);
        let expected = format!("each suspected at most {allowed} times");
        self.push(&expected, &format!("at most {most} times"), None, 0, score);
    }

    pub(super) fn few(&mut self, links: u64, in_ms: u64) {
        let (ends, lives) = (self.ends(""), self.lives());
        let score = judge::judge_mistakes(ends as u64, links, in_ms);
        self.push("at most one per link in 2 h", &lives, None, 0, score);
        self.record_condemned(ends);
    }

    pub(super) fn kernel(&mut self, from_ms: u64, to_ms: u64) {
        let until = self.stage.clock.monotonic() + Span::from_millis(to_ms + GRACE_MS);
        let noticed = loop {
            let noticed = self.stage.control.as_ref().and_then(|control| control.noticed());
            if noticed.is_some() || self.stage.clock.monotonic() > until {
                break noticed;
            }
            pause(Span::from_millis(5));
        };
        // Keepalive counts from the last segment; the fault occurred before the first probe.
        let since_ms = self.stage.control.as_ref().map_or(0, |control| control.since_ms());
        let after = noticed.as_ref().map(|(at_ms, _)| at_ms.saturating_sub(since_ms));
        let tolerance_ms = (to_ms - from_ms) / 2;
        let score = judge::judge_death(Some(from_ms + tolerance_ms), after, tolerance_ms);
        let what = noticed.map(|(_, what)| what).unwrap_or_default();
        self.push("the kernel gives up", &what, after, to_ms, score);
    }

    /// Records the number of verdicts on living links in the last finding.
    fn record_condemned(&mut self, ends: usize) {
        if let Some(finding) = self.run.findings.last_mut() {
            finding.condemned = Some(ends as u64);
        }
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
            condemned: None,
        });
    }

    /// Describes the ends since the first fault.
    fn lives(&self) -> String {
        let all = self.stage.observer_log().all();
        lives(leaves(all.get(self.from..).unwrap_or_default()))
    }

    /// Returns the number of links that ended since the first fault, and whose address begins with
    /// `address`.
    fn ends(&self, address: &str) -> usize {
        let all = self.stage.observer_log().all();
        let events = all.get(self.from..).unwrap_or_default();
        leaves(events).filter(|seen| seen.text("address").starts_with(address)).count()
    }
}

/// Describes the verdicts that should not have fallen.
fn lives<'a>(leaves: impl Iterator<Item = &'a Seen>) -> String {
    let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
    leaves.for_each(|seen| *causes.entry(seen.text("cause")).or_default() += 1);
    let ended: Vec<String> =
        causes.into_iter().map(|(cause, links)| format!("{links} ended: {cause}")).collect();
    if ended.is_empty() { "alive".to_owned() } else { ended.join(", ") }
}

/// Returns the cause in an event; for a revision, the new cause.
pub(super) fn cause(seen: &Seen) -> &str {
    match seen.kind.as_str() {
        "verdict_revised" => seen.text("to"),
        _ => seen.text("cause"),
    }
}

fn leaves(events: &[Seen]) -> impl Iterator<Item = &Seen> {
    events.iter().filter(|seen| seen.kind == "leave")
}

fn is_of_host(seen: &Seen, host: u8) -> bool {
    seen.text("address").starts_with(&format!("10.2.{host}."))
}

fn describe(reported: &Reported) -> String {
    let mut text = reported.cause.clone();
    let particulars = [&reported.direction, &reported.scope].into_iter().flatten();
    for word in particulars.filter(|word| *word != "unknown") {
        text.extend([" ", word]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_described_with_their_causes() {
        let leave = |cause: &str| Seen::parse(&format!("{{\"cause\":\"{cause}\"}}"), "leave", 0);
        let ends: Vec<Seen> =
            ["peer_reset", "unknown", "unknown"].map(leave).into_iter().flatten().collect();
        assert_eq!(lives(ends.iter()), "1 ended: peer_reset, 2 ended: unknown");
        assert_eq!(lives([].iter()), "alive");
    }

    #[test]
    fn a_verdict_is_described_with_direction_and_scope() {
        let reported = Reported {
            cause: "path_lost".to_owned(),
            direction: Some("outbound".to_owned()),
            scope: Some("flow".to_owned()),
            ..Reported::default()
        };
        assert_eq!(describe(&reported), "path_lost outbound flow");
        let reported = Reported { scope: Some("unknown".to_owned()), ..reported };
        assert_eq!(describe(&reported), "path_lost outbound");
    }
}
