//! The confusion matrix: how often each fault got each verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::judge::Score;
use crate::record::{Finding, Run};
use crate::report;

const BEGIN: &str = "<!-- matrix: begin -->";
const END: &str = "<!-- matrix: end -->";

/// Formats the section between the markers of the document.
///
/// `command` is the command line that made the runs, `kernel` the kernel on which they ran.
pub fn markdown(runs: &[Run], command: &str, kernel: &str) -> String {
    let again = runs.iter().filter(|run| run.attempts > 1).count();
    format!(
        "Made by `{command}` on {kernel}.\n\n{}\n{}\n{}{}; {again} were made again because the \
         machine was busy.\n",
        verdicts(runs),
        false_verdicts(runs),
        without_verdict(runs),
        report::summary(runs),
    )
}

/// Formats the first verdicts: one row per fault, one column per verdict.
fn verdicts(runs: &[Run]) -> String {
    let verdicts: BTreeSet<&str> = firsts(runs).map(|(_, finding)| cause(finding)).collect();
    let mut rows: Vec<(&str, BTreeMap<&str, usize>, [usize; Score::ALL.len()])> = Vec::new();
    for (run, finding) in firsts(runs) {
        if rows.last().is_none_or(|row| row.0 != run.fault) {
            rows.push((run.fault, BTreeMap::new(), [0; Score::ALL.len()]));
        }
        if let Some(row) = rows.last_mut() {
            *row.1.entry(cause(finding)).or_default() += 1;
            for (count, score) in row.2.iter_mut().zip(Score::ALL) {
                *count += usize::from(run.score == score);
            }
        }
    }
    let mut text = String::from("| fault |");
    verdicts.iter().for_each(|cause| text.extend([" ", cause, " |"]));
    text.push_str(" right | unknown | late | missed | wrong |\n|---|");
    text.push_str(&"---|".repeat(verdicts.len() + 5));
    for (fault, causes, scores) in &rows {
        let _ = write!(text, "\n| {fault} |");
        for cause in &verdicts {
            match causes.get(cause) {
                Some(count) => drop(write!(text, " {count} |")),
                None => text.push_str("  |"),
            }
        }
        let [right, unknown, late, missed, wrong, _] = scores;
        let _ = write!(text, " {right} | {unknown} | {late} | {missed} | {wrong} |");
    }
    text.push('\n');
    text
}

/// Formats the verdicts on links that had to live: one row per fault.
fn false_verdicts(runs: &[Run]) -> String {
    let mut text = String::from(
        "| healthy or bad path, on which links live | runs | links | false verdicts |\n\
         |---|---|---|---|\n",
    );
    let mut rows: Vec<(&str, u64, u64, u64)> = Vec::new();
    for run in runs {
        let Some(false_verdicts) = run.findings.iter().filter_map(|it| it.condemned).max() else {
            continue;
        };
        if rows.last().is_none_or(|row| row.0 != run.fault) {
            rows.push((run.fault, 0, 0, 0));
        }
        if let Some(row) = rows.last_mut() {
            *row = (row.0, row.1 + 1, row.2 + run.living, row.3 + false_verdicts);
        }
    }
    for (fault, runs, links, false_verdicts) in &rows {
        let _ = writeln!(text, "| {fault} | {runs} | {links} | {false_verdicts} |");
    }
    let all: u64 = rows.iter().map(|row| row.3).sum();
    let _ = writeln!(text, "\nFalse verdicts on links that live: {all}.");
    text
}

/// Formats the runs that are in neither of the other tables, so that the rows of all tables sum to
/// the number of runs: one row per fault. Empty if there are none.
fn without_verdict(runs: &[Run]) -> String {
    let mut rows: Vec<(&str, u64, u64)> = Vec::new();
    for run in runs {
        if run.findings.iter().any(|finding| finding.first || finding.condemned.is_some()) {
            continue;
        }
        if rows.last().is_none_or(|row| row.0 != run.fault) {
            rows.push((run.fault, 0, 0));
        }
        if let Some(row) = rows.last_mut() {
            *row = (row.0, row.1 + 1, row.2 + u64::from(run.score == Score::Right));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from("| without a verdict of Systole | runs | right |\n|---|---|---|\n");
    for (fault, runs, right) in &rows {
        let _ = writeln!(text, "| {fault} | {runs} | {right} |");
    }
    text.push('\n');
    text
}

/// Replaces the text between the two markers of a document by `section`; `None` without markers.
pub fn replace(document: &str, section: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

fn firsts(runs: &[Run]) -> impl Iterator<Item = (&Run, &Finding)> {
    let of = |run: &Run| run.findings.iter().position(|finding| finding.first);
    runs.iter().filter_map(move |run| Some((run, run.findings.get(of(run)?)?)))
}

fn cause(finding: &Finding) -> &str {
    if finding.verdict.is_empty() { "nothing" } else { &finding.verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Role;

    fn run(fault: &'static str, verdict: &str, score: Score) -> Run {
        let finding = Finding {
            expected: String::new(),
            verdict: verdict.to_owned(),
            confidence: String::new(),
            detail: String::new(),
            after_ms: Some(1),
            bound_ms: 2,
            score,
            first: true,
            condemned: None,
        };
        Run {
            living: 1,
            scenario: "x",
            fault,
            role: Role::Gateway,
            repetition: 1,
            seed: 0,
            attempts: 1,
            score,
            findings: vec![finding],
            keepalive: String::new(),
            trouble: None,
            marks: Vec::new(),
        }
    }

    #[test]
    fn verdicts_are_counted_by_fault() {
        let runs = [
            run("drop", "path_lost", Score::Right),
            run("drop", "path_lost", Score::Late),
            run("drop", "unknown", Score::Unknown),
            run("hang", "", Score::Missed),
        ];
        let text = verdicts(&runs);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "| fault | nothing | path_lost | unknown | right | unknown | late | missed | wrong |"
        );
        assert_eq!(lines[2], "| drop |  | 2 | 1 | 1 | 1 | 1 | 0 | 0 |");
        assert_eq!(lines[3], "| hang | 1 |  |  | 0 | 0 | 0 | 1 | 0 |");
    }

    #[test]
    fn verdicts_on_living_links_are_counted() {
        let mut runs = [run("loss", "", Score::Right), run("loss", "", Score::Wrong)];
        runs[1].findings[0].condemned = Some(2);
        runs[1].living = 20;
        let text = false_verdicts(&runs);
        assert!(text.contains("| loss | 1 | 20 | 2 |"), "{text}");
        assert!(text.ends_with("False verdicts on links that live: 2.\n"), "{text}");
        let whole = markdown(&runs, "systole lab", "Linux");
        assert!(whole.starts_with("Made by `systole lab` on Linux.\n"), "{whole}");
        assert!(whole.contains("2 runs: 1 right, 0 unknown"), "{whole}");
    }

    #[test]
    fn runs_without_a_verdict_have_a_table_of_their_own() {
        let mut runs = [run("keepalive", "", Score::Right), run("drop", "unknown", Score::Right)];
        assert_eq!(without_verdict(&runs[1..]), "");
        runs[0].findings[0].first = false;
        assert!(without_verdict(&runs).contains("| keepalive | 1 | 1 |\n\n"));
        assert!(!without_verdict(&runs).contains("drop"));
        assert!(markdown(&runs, "systole lab", "Linux").contains("| keepalive | 1 | 1 |"));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let expected = format!("a\n{BEGIN}\nnew\n{END}\nb\n");
        assert_eq!(replace(&document, "new\n"), Some(expected));
        assert_eq!(replace("nothing", "new"), None);
    }
}
