//! Applies the checks to this repository.

use std::collections::BTreeMap;
use std::path::Path;

use systole_tidy::repo::Repo;
use systole_tidy::{Problem, arrows, docs, fuzz, rules, source, words};

/// Documents in which every path in backticks must exist.
const GUIDES: &[&str] = &["README.md", "ARCHITECTURE.md"];

/// Opens the repository; returns `None`, and prints why, where the sources are not in git.
fn repo() -> Option<Repo> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match Repo::open(&root) {
        Ok(repo) => Some(repo),
        Err(why) if std::env::var_os("SYSTOLE_REQUIRE_TOOLS").is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn assert_none(problems: &[Problem]) {
    let list: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    assert!(problems.is_empty(), "{} problems:\n{list}", problems.len());
}

#[test]
fn sources_keep_the_rules() {
    let Some(repo) = repo() else { return };
    let sources = repo.texts(".rs");
    assert!(
        sources.contains_key("crates/core/src/lib.rs"),
        "git lists the files of another repository"
    );
    let problems: Vec<_> =
        sources.iter().flat_map(|(path, text)| source::check(path, text)).collect();
    assert_none(&problems);
}

#[test]
fn no_file_contains_a_forbidden_word() {
    let Some(repo) = repo() else { return };
    let problems: Vec<_> =
        repo.texts("").iter().flat_map(|(path, text)| words::check(path, text)).collect();
    assert_none(&problems);
}

#[test]
fn the_arrows_between_crates_equal_the_table() {
    let Some(repo) = repo() else { return };
    let manifests: BTreeMap<String, String> = repo
        .texts("/Cargo.toml")
        .into_iter()
        .filter_map(|(path, text)| {
            let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?.to_owned();
            Some((name, text))
        })
        .collect();
    assert_none(&arrows::check(&manifests));
}

#[test]
fn link_targets_exist() {
    let Some(repo) = repo() else { return };
    let problems: Vec<_> = repo
        .texts(".md")
        .iter()
        .flat_map(|(path, text)| docs::links(path, text, &repo.paths))
        .collect();
    assert_none(&problems);
}

#[test]
fn paths_named_in_the_guides_exist() {
    let Some(repo) = repo() else { return };
    for guide in GUIDES {
        let text = repo.text(guide).unwrap_or_else(|| panic!("{guide} is missing"));
        assert_none(&docs::backticks(guide, &text, &repo.paths));
    }
}

#[test]
fn each_fuzz_target_has_a_corpus() {
    let Some(repo) = repo() else { return };
    assert_none(&fuzz::check(repo.text("fuzz/Cargo.toml").as_deref(), &repo.paths));
}

#[test]
fn each_rule_names_tests_that_exist() {
    let Some(repo) = repo() else { return };
    let text = repo.text(rules::DOCUMENT).expect("the document is there");
    assert_none(&rules::check(&text, &repo.texts(".rs")));
}
