//! The dependency arrows between our crates, as a table that the manifests must equal.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::Problem;

/// Each crate under `crates/`, with the workspace crates that it depends on. A new arrow changes
/// the architecture, so it is added here first.
pub const ARROWS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("net", &["core"]),
    ("client", &["core", "net"]),
    ("gateway", &["core", "net"]),
    ("lab", &["client", "core", "net"]),
    ("cli", &["client", "core", "gateway", "lab", "net"]),
    ("tidy", &[]),
];

/// Crates that may have no dependency, neither from this workspace nor from outside.
pub const WITHOUT_DEPENDENCIES: &[&str] = &["core"];

const PREFIX: &str = "systole-";

/// Compares the manifests (crate name to text of its `Cargo.toml`) with [`ARROWS`]. Dependencies of
/// tests are not checked: a test may use any crate.
pub fn check(manifests: &BTreeMap<String, String>) -> Vec<Problem> {
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut problems: Vec<Problem> = table
        .keys()
        .filter(|name| !manifests.contains_key(**name))
        .map(|name| Problem::new(&manifest(name), 1, "named in the table of arrows, but missing"))
        .collect();
    for (name, text) in manifests {
        let path = manifest(name);
        match (table.get(name.as_str()), dependencies(text)) {
            (_, Err(why)) => problems.push(Problem::new(&path, 1, why)),
            (None, Ok(_)) => {
                problems.push(Problem::new(&path, 1, "not in the table of arrows"));
            }
            (Some(allowed), Ok(found)) => problems.extend(compare(name, allowed, &found)),
        }
    }
    problems
}

fn manifest(name: &str) -> String {
    format!("crates/{name}/Cargo.toml")
}

fn compare(name: &str, allowed: &[&str], found: &BTreeSet<String>) -> Vec<Problem> {
    let path = manifest(name);
    let ours: BTreeSet<&str> = found.iter().filter_map(|dep| dep.strip_prefix(PREFIX)).collect();
    let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
    let mut problems = Vec::new();
    for dep in ours.difference(&allowed) {
        let what = format!("the arrow {name} → {dep} is not in the table");
        problems.push(Problem::new(&path, 1, what));
    }
    for dep in allowed.difference(&ours) {
        let what = format!("the table says {name} → {dep}, the manifest does not");
        problems.push(Problem::new(&path, 1, what));
    }
    if WITHOUT_DEPENDENCIES.contains(&name) && !found.is_empty() {
        let what = format!("{name} must depend on nothing, and depends on {found:?}");
        problems.push(Problem::new(&path, 1, what));
    }
    problems
}

/// The packages that a manifest's production code depends on, on any platform.
fn dependencies(text: &str) -> Result<BTreeSet<String>, String> {
    let root: Table = text.parse().map_err(|error| format!("not TOML: {error}"))?;
    let mut found = direct(&root);
    if let Some(Value::Table(targets)) = root.get("target") {
        for target in targets.values().filter_map(Value::as_table) {
            found.extend(direct(target));
        }
    }
    Ok(found)
}

fn direct(table: &Table) -> BTreeSet<String> {
    ["dependencies", "build-dependencies"]
        .iter()
        .filter_map(|section| table.get(*section)?.as_table())
        .flatten()
        .map(|(name, value)| {
            let renamed = value.get("package").and_then(Value::as_str);
            renamed.unwrap_or(name).to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> BTreeMap<String, String> {
        ARROWS
            .iter()
            .map(|(name, deps)| {
                let lines = deps.iter().map(|dep| format!("{PREFIX}{dep}.workspace = true\n"));
                ((*name).to_owned(), format!("[dependencies]\n{}", lines.collect::<String>()))
            })
            .collect()
    }

    fn with(name: &str, text: &str) -> String {
        let mut manifests = good();
        manifests.insert(name.to_owned(), text.to_owned());
        check(&manifests).iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn manifests_that_equal_the_table_pass() {
        assert_eq!(check(&good()), []);
    }

    #[test]
    fn a_new_arrow_is_found_in_each_manifest_syntax() {
        for text in [
            "[dependencies]\nsystole-core.workspace = true\nsystole-client = { path = \"x\" }",
            "[dependencies]\nsystole-core = \"1\"\nc = { package = \"systole-client\" }",
            "[dependencies.systole-core]\n[build-dependencies]\nsystole-client = \"1\"",
            "[dependencies.systole-core]\n[target.'cfg(unix)'.dependencies.systole-client]",
        ] {
            assert!(with("net", text).contains("arrow net → client is not"), "{text}");
        }
    }

    #[test]
    fn a_test_may_depend_on_anything() {
        let text = "[dependencies.systole-core]\n[dev-dependencies.systole-client]";
        assert_eq!(with("net", text), "");
    }

    #[test]
    fn a_removed_arrow_is_found() {
        assert!(with("net", "[dependencies]").contains("says net → core"));
    }

    #[test]
    fn core_depends_on_nothing() {
        assert!(with("core", "[dependencies]\nserde = \"1\"").contains("must depend on nothing"));
    }

    #[test]
    fn unknown_missing_and_broken_manifests_are_found() {
        assert!(with("extra", "").contains("crates/extra/Cargo.toml:1: not in the table"));
        assert!(with("net", "[dep").contains("not TOML"));
        let mut manifests = good();
        manifests.remove("cli");
        assert!(check(&manifests)[0].what.contains("but missing"));
    }
}
