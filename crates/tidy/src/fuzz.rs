//! Checks that each fuzz target is declared, exists, and has a committed corpus.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::Problem;

const MANIFEST: &str = "fuzz/Cargo.toml";

/// Compares the fuzz manifest (its text, if the file exists) with the paths in the repository.
pub fn check(manifest: Option<&str>, paths: &BTreeSet<String>) -> Vec<Problem> {
    let problem = |what: String| Problem::new(MANIFEST, 1, what);
    let targets = match manifest.map(targets) {
        None => return vec![problem("missing: the decoders must be fuzzed".into())],
        Some(Err(why)) => return vec![problem(why)],
        Some(Ok(targets)) if targets.is_empty() => return vec![problem("no target".into())],
        Some(Ok(targets)) => targets,
    };
    let mut problems = Vec::new();
    for (name, source) in &targets {
        if !paths.contains(source) {
            problems.push(problem(format!("target {name}: {source} does not exist")));
        }
        let corpus = format!("fuzz/corpus/{name}/");
        if !paths.iter().any(|path| path.starts_with(&corpus)) {
            problems.push(problem(format!("target {name}: {corpus} holds no input")));
        }
    }
    for path in paths.iter().filter(|path| path.starts_with("fuzz/fuzz_targets/")) {
        if path.ends_with(".rs") && !targets.iter().any(|(_, source)| source == path) {
            problems.push(problem(format!("{path} is not a declared target, so nothing runs it")));
        }
    }
    problems
}

/// Returns the name and the source path of each target.
fn targets(manifest: &str) -> Result<Vec<(String, String)>, String> {
    let root: Table = manifest.parse().map_err(|error| format!("not TOML: {error}"))?;
    let bins = root.get("bin").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |bin: &Value, key: &str| bin.get(key).and_then(Value::as_str).map(str::to_owned);
    bins.iter()
        .map(|bin| {
            let name = text(bin, "name").ok_or("a [[bin]] without name")?;
            let path = text(bin, "path").ok_or("a [[bin]] without path")?;
            Ok((name, format!("fuzz/{path}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[bin]]\nname = \"wire\"\npath = \"fuzz_targets/wire.rs\"";

    fn what(manifest: Option<&str>, paths: &[&str]) -> String {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        check(manifest, &paths).iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn a_target_with_source_and_corpus_passes() {
        assert_eq!(what(Some(GOOD), &["fuzz/fuzz_targets/wire.rs", "fuzz/corpus/wire/ping"]), "");
    }

    #[test]
    fn missing_parts_are_found() {
        assert!(what(None, &[]).contains("must be fuzzed"));
        assert!(what(Some(""), &[]).contains("no target"));
        assert!(what(Some("[[bin"), &[]).contains("not TOML"));
        assert!(what(Some("[[bin]]\nname = \"a\""), &[]).contains("without path"));
        let found = what(Some(GOOD), &["fuzz/corpus/wire2/a", "fuzz/fuzz_targets/other.rs"]);
        assert!(found.contains("fuzz_targets/wire.rs does not exist"), "{found}");
        assert!(found.contains("fuzz/corpus/wire/ holds no input"), "{found}");
        assert!(found.contains("other.rs is not a declared target"), "{found}");
    }
}
