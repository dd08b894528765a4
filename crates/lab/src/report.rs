//! The table of results, and the number of runs with each score.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::judge::Score;
use crate::record::{Finding, Run, seconds};

/// The width of the table in columns.
const WIDTH: u16 = 160;

/// Formats the results as a table, with the reasons of invalid runs below it.
pub fn table<'a>(runs: impl Iterator<Item = &'a Run> + Clone) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header([
        "fault",
        "observer",
        "expected",
        "verdict",
        "confidence",
        "after",
        "bound",
        "score",
        "keepalive alone",
    ]);
    for run in runs.clone() {
        if run.findings.is_empty() {
            table.add_row([run.fault, run.role.name(), "", "", "", "", "", run.score.name(), ""]);
        }
        for (at, finding) in run.findings.iter().enumerate() {
            table.add_row(row(run, finding, at == 0));
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    for run in runs {
        if let Some(trouble) = &run.trouble {
            let (name, role, seed) = (run.scenario, run.role.name(), run.seed);
            text.push_str(&format!("{name} ({role}, seed {seed}): {trouble}\n"));
        }
    }
    text
}

/// Formats the number of runs with each score, in one line.
pub fn summary(runs: &[Run]) -> String {
    let counts = Score::ALL.map(|score| {
        let count = runs.iter().filter(|run| run.score == score).count();
        format!("{count} {}", score.name())
    });
    format!("{} runs: {}", runs.len(), counts.join(", "))
}

fn row(run: &Run, finding: &Finding, first: bool) -> Vec<Cell> {
    let once = |text: &str| Cell::new(if first { text } else { "" });
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    vec![
        once(run.fault),
        once(run.role.name()),
        Cell::new(&finding.expected),
        Cell::new(if finding.verdict.is_empty() { "nothing" } else { &finding.verdict }),
        Cell::new(&finding.confidence),
        right(finding.after_ms.map(seconds).unwrap_or_default()),
        right(if finding.bound_ms == 0 { String::new() } else { seconds(finding.bound_ms) }),
        Cell::new(finding.score.name()),
        once(&run.keepalive),
    ]
}
