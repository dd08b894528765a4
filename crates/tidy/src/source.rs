//! Rules for Rust sources: an opening `//!`, bounded length and width, tests last, no `mod.rs`.

use crate::Problem;

/// Maximum of production lines in one file: a reader can keep that much in mind.
pub const MAX_PRODUCTION_LINES: usize = 500;
/// Maximum of characters in one line: two files fit side by side on a common screen.
pub const MAX_COLUMNS: usize = 100;

/// Applies all rules to one Rust file.
pub fn check(path: &str, text: &str) -> Vec<Problem> {
    let mut problems = columns(path, text);
    problems.extend(module_doc(path, text));
    problems.extend(no_mod_rs(path));
    problems.extend(length(path, text));
    problems.extend(tests_last(path, text));
    problems
}

/// Requires a first line that says what the file is for.
fn module_doc(path: &str, text: &str) -> Option<Problem> {
    let first = text.lines().next().unwrap_or("");
    let says_something = first.strip_prefix("//!").is_some_and(|rest| rest.trim().len() > 3);
    (!says_something)
        .then(|| Problem::new(path, 1, "the first line must be `//!` and what the file is for"))
}

/// Rejects `mod.rs`: an editor's tab shows the module's name for `session.rs` beside `session/`,
/// but not for `mod.rs`.
fn no_mod_rs(path: &str) -> Option<Problem> {
    let name = path.rsplit('/').next().unwrap_or(path);
    (name == "mod.rs")
        .then(|| Problem::new(path, 1, "use `foo.rs` beside `foo/`, not `foo/mod.rs`"))
}

fn columns(path: &str, text: &str) -> Vec<Problem> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.chars().count() > MAX_COLUMNS)
        .map(|(at, line)| {
            let what = format!("{} columns; at most {MAX_COLUMNS}", line.chars().count());
            Problem::new(path, at + 1, what)
        })
        .collect()
}

/// Limits the production lines of one file. The length of tests is not limited.
fn length(path: &str, text: &str) -> Option<Problem> {
    if is_test_file(path) {
        return None;
    }
    let lines = text.lines().count();
    let in_tests = test_module(text).map_or(0, |(from, to)| to - from);
    let production = lines - in_tests;
    (production > MAX_PRODUCTION_LINES).then(|| {
        let what = format!("{production} production lines; at most {MAX_PRODUCTION_LINES}");
        Problem::new(path, MAX_PRODUCTION_LINES, what)
    })
}

/// Requires that the test module is last, so that its reader has seen all production code.
fn tests_last(path: &str, text: &str) -> Option<Problem> {
    let (_, to) = test_module(text)?;
    let after = text.lines().skip(to).position(|line| !line.trim().is_empty())?;
    Some(Problem::new(path, to + after + 1, "code after the test module; tests come last"))
}

fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Returns the lines of the first inline test module, from its attribute to its closing brace, as a
/// half-open range counted from 0. rustfmt puts that brace alone in the first column.
fn test_module(text: &str) -> Option<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    })?;
    let length = lines[from..].iter().position(|line| *line == "}")?;
    Some((from, from + length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: &str = "#[cfg(test)]\nmod tests {\n    // long\n}\n";

    fn code(lines: usize) -> String {
        format!("//! What it is for.\n{}", "x\n".repeat(lines - 1))
    }

    fn what(path: &str, text: &str) -> String {
        check(path, text).iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn a_good_file_passes() {
        assert_eq!(what("crates/a/src/b.rs", &(code(500) + TESTS)), "");
    }

    #[test]
    fn a_file_without_module_doc_is_found() {
        for text in ["", "use a;\n", "\n//! Late.\n", "//!\n", "// What it is for.\n"] {
            assert!(what("a.rs", text).contains("a.rs:1: the first line"), "{text:?}");
        }
    }

    #[test]
    fn the_501st_production_line_is_found() {
        assert!(what("src/a.rs", &code(501)).contains("501 production lines"));
        assert!(what("src/a.rs", &(code(501) + TESTS)).contains("501 production lines"));
        assert_eq!(what("src/a/tests.rs", &code(501)), "");
        assert_eq!(what("crates/a/tests/it.rs", &code(501)), "");
    }

    #[test]
    fn production_lines_after_the_tests_are_counted_and_reported() {
        let found = what("src/a.rs", &format!("{}{TESTS}\n{}", code(400), "y\n".repeat(150)));
        assert!(found.contains("551 production lines"), "{found}");
        assert!(found.contains("src/a.rs:406: code after the test module"), "{found}");
    }

    #[test]
    fn a_test_attribute_on_a_function_excludes_no_lines() {
        let found = what("src/a.rs", &format!("{}#[cfg(test)]\nfn f() {{\n}}\n", code(498)));
        assert!(found.contains("501 production lines"), "{found}");
    }

    #[test]
    fn the_101st_column_is_found_in_characters() {
        assert_eq!(what("a.rs", &format!("//! {}", "é".repeat(96))), "");
        assert!(
            what("a.rs", &format!("//! Doc.\n{}", "é".repeat(101))).contains("a.rs:2: 101 col")
        );
    }

    #[test]
    fn mod_rs_is_found() {
        assert!(what("src/link/mod.rs", &code(3)).contains("not `foo/mod.rs`"));
        assert_eq!(what("src/link/amod.rs", &code(3)), "");
    }
}
