//! The tables of `docs/rules.md`.

use systole_core::Span;
use systole_core::policy::{Detection, PRESETS};

use crate::document::root;

#[test]
fn the_presets_match_the_document() {
    let text = std::fs::read_to_string(root().join("docs/rules.md")).expect("it is there");
    let seconds = |span: Span| format!("{} s", span.as_millis() as f64 / 1_000.0);
    for (name, policy) in PRESETS {
        let Detection::Bounded { idle, interval, probes } = policy.detection() else {
            panic!("{name} has no bound");
        };
        let bound = policy.bound().expect("a bound");
        let [idle, interval, bound] = [idle, interval, bound].map(seconds);
        let row = format!("| `{name}` | {idle} | {interval} | {probes} | {bound} |");
        assert!(text.lines().any(|line| line == row), "no row {row}");
    }
    let rows = text.lines().skip_while(|line| !line.starts_with("| preset")).skip(2);
    assert_eq!(rows.take_while(|line| line.starts_with('|')).count(), PRESETS.len());
}
