//! Checks that each rule, cause and row of `docs/rules.md` has a test, and that the test exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::Problem;

/// The document that lists the rules with their tests.
pub const DOCUMENT: &str = "docs/rules.md";
/// The file with the names of all causes, in an array `NAMES`.
pub const CAUSES: &str = "crates/core/src/cause.rs";

/// The number of the last rule of liveness.
const RULES: u32 = 14;
/// The number of the last row of the table from signals to verdict.
const ROWS: u32 = 16;
/// The words of a section whose subject is not built, or not in full.
const MISSING: [&str; 2] = ["Not yet", "not yet"];
/// The folder whose files name scenarios of the fault lab instead of test functions.
const SCENARIOS: &str = "crates/lab/src/scenario/";

/// A section of the document: a rule, a cause or a row.
struct Section {
    line: usize,
    /// The heading up to its colon: `Rule 1`.
    name: String,
    is_missing: bool,
    /// The tests that the section names: line, path and name.
    tests: Vec<(usize, String, String)>,
}

/// Checks the document against `sources`, the texts of all Rust files by path.
pub fn check(document: &str, sources: &BTreeMap<String, String>) -> Vec<Problem> {
    let sections = sections(document);
    let mut problems = Vec::new();
    for section in &sections {
        if section.tests.is_empty() && !section.is_missing {
            let what = format!("{} names no test, and does not say \"not yet\"", section.name);
            problems.push(Problem::new(DOCUMENT, section.line, what));
        }
        for (line, path, test) in &section.tests {
            if !sources.get(path).is_some_and(|text| has_test(path, text, test)) {
                let what = format!("{}: {path} has no test {test}", section.name);
                problems.push(Problem::new(DOCUMENT, *line, what));
            }
        }
    }
    let found: BTreeSet<&str> = sections.iter().map(|section| section.name.as_str()).collect();
    let causes = cause_names(sources.get(CAUSES).map_or("", String::as_str));
    if causes.is_empty() {
        problems.push(Problem::new(CAUSES, 1, "the array NAMES of all causes is missing"));
    }
    let rules = (1..=RULES).map(|number| format!("Rule {number}"));
    let rows = (1..=ROWS).map(|number| format!("Row {number}"));
    let causes = causes.iter().map(|name| format!("Cause `{name}`"));
    for wanted in rules.chain(rows).chain(causes) {
        if !found.contains(wanted.as_str()) {
            problems.push(Problem::new(DOCUMENT, 1, format!("{wanted} is missing")));
        }
    }
    problems
}

/// Returns the sections of the document, which begin with a heading of the third level.
fn sections(document: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    // The file of the list item that the line belongs to.
    let mut file: Option<String> = None;
    for (at, text) in document.lines().enumerate() {
        let line = at + 1;
        if text.starts_with('#') {
            file = None;
            let Some(heading) = text.strip_prefix("### ") else { continue };
            let name = heading.split(':').next().unwrap_or(heading).to_owned();
            sections.push(Section { line, name, is_missing: false, tests: Vec::new() });
            continue;
        }
        let Some(section) = sections.last_mut() else { continue };
        let mut names = text.split('`').skip(1).step_by(2);
        if text.starts_with("- `") {
            file = names.next().map(str::to_owned);
        } else if !text.starts_with("  ") {
            file = None;
        }
        if let Some(path) = &file {
            section.tests.extend(names.map(|name| (line, path.clone(), name.to_owned())));
        } else {
            section.is_missing |= MISSING.iter().any(|words| text.contains(words));
        }
    }
    sections
}

/// Returns whether a file has a test function, or the lab a scenario, of this name.
fn has_test(path: &str, text: &str, name: &str) -> bool {
    if path.starts_with(SCENARIOS) {
        let field = format!("name: \"{name}\",");
        return text.lines().any(|line| line.trim() == field);
    }
    let signatures = [format!("fn {name}("), format!("async fn {name}(")];
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let is_it = signatures.iter().any(|signature| line.starts_with(signature.as_str()));
        let above = lines.iter().take(at).rev();
        let mut attributes = above.take_while(|line| line.starts_with("#["));
        is_it && attributes.any(|line| line.ends_with("test]") || line.contains("test("))
    })
}

/// Returns the names in the array `NAMES` of a source text.
fn cause_names(text: &str) -> Vec<&str> {
    let array = text.split_once("NAMES: [").and_then(|(_, rest)| rest.split_once("];"));
    array.map_or(Vec::new(), |(names, _)| names.split('"').skip(1).step_by(2).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "crates/a/src/b.rs";
    const TABLE: &str = "crates/lab/src/scenario/table/a.rs";

    fn sources() -> BTreeMap<String, String> {
        let tests = "#[test]\nfn holds() {}\n\n#[tokio::test(flavor = \"x\")]\nasync fn waits()\n\
                     fn helper() {}\n#[cfg(a)]\n#[test]\nfn both() {}";
        let causes = "NAMES: [&'static str; 2] = [\n    \"hung\",\n    \"lost\",\n];";
        [(FILE, tests), (TABLE, "        name: \"cut-off\","), (CAUSES, causes)]
            .into_iter()
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .collect()
    }

    /// A document with all sections, each with `body`.
    fn document(body: &str) -> String {
        let rules = (1..=RULES).map(|number| format!("### Rule {number}: it holds\n{body}\n"));
        let rows = (1..=ROWS).map(|number| format!("### Row {number}: a signal\n{body}\n"));
        let causes = ["hung", "lost"].map(|name| format!("### Cause `{name}`\n{body}\n"));
        format!("# Top\n{}", rules.chain(causes).chain(rows).collect::<String>())
    }

    fn found(document: &str) -> String {
        check(document, &sources()).iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn sections_with_existing_tests_or_not_yet_pass() {
        for body in [
            "- `crates/a/src/b.rs`: `holds`",
            "The `word` is no test.\n\n- `crates/a/src/b.rs`:\n  `holds`, `waits`,\n  `both`",
            "- `crates/lab/src/scenario/table/a.rs`: `cut-off`",
            "Not yet.",
        ] {
            assert_eq!(found(&document(body)), "", "{body}");
        }
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        for (file, name) in [(FILE, "gone"), (FILE, "helper"), ("c.rs", "holds"), (TABLE, "cut")] {
            let named = document(&format!("- `{FILE}`: `holds`\n- `{file}`:\n  `{name}`"));
            let wanted = format!("docs/rules.md:4: Rule 1: {file} has no test {name}");
            let found = found(&named).replace("docs/rules.md:5", "docs/rules.md:4");
            assert!(found.contains(&wanted), "{found}");
            assert_eq!(found.lines().count(), 14 + 16 + 2);
        }
    }

    #[test]
    fn a_section_without_test_is_found() {
        let found = found(&document("It `holds`."));
        assert!(found.contains("docs/rules.md:2: Rule 1 names no test"), "{found}");
        assert_eq!(found.lines().count(), 14 + 16 + 2);
    }

    #[test]
    fn a_missing_rule_row_or_cause_is_found() {
        let all = document("Not yet.");
        for name in ["Rule 1", "Rule 14", "Row 1", "Row 16", "Cause `lost`"] {
            for end in [":", "\n"] {
                let without = all.replace(&format!("### {name}{end}"), "### Other:");
                let missing = format!("{name} is missing\n");
                assert_eq!(found(&without).contains(&missing), without != all, "{name}");
            }
        }
    }

    #[test]
    fn a_file_without_causes_is_found() {
        let mut sources = sources();
        sources.remove(CAUSES);
        let problems = check(&document("Not yet."), &sources);
        assert!(problems.iter().any(|problem| problem.path == CAUSES));
    }
}
