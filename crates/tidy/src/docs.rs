//! Checks that link targets and paths in backticks exist, in the documents.

use std::collections::BTreeSet;

use crate::Problem;

/// Endings by which a word in backticks is recognized as a file name.
const ENDINGS: &[&str] = &[".rs", ".toml", ".md", ".sh", ".c", ".py", ".yml", ".yaml", ".json"];

/// Reports the relative links of a Markdown file whose target is not in the repository.
pub fn links(path: &str, text: &str, paths: &BTreeSet<String>) -> Vec<Problem> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut problems = Vec::new();
    for (line, prose) in prose(text) {
        for target in link_targets(&without_code(prose)) {
            let file = target.split(['#', '?']).next().unwrap_or("");
            if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !resolve(folder, file).is_some_and(|file| exists(&file, paths)) {
                problems.push(Problem::new(
                    path,
                    line,
                    format!("the target of link {target} is missing"),
                ));
            }
        }
    }
    problems
}

/// Reports words in backticks that look like a path of this repository but do not exist. A file
/// name alone, or the end of a path, is accepted if any path ends in it.
pub fn backticks(path: &str, text: &str, paths: &BTreeSet<String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, prose) in prose(text) {
        for span in code_spans(prose).filter(|span| looks_like_path(span, paths)) {
            let file = span.trim_start_matches("./").trim_end_matches('/');
            let tail = format!("/{file}");
            let inside = format!("/{file}/");
            let named = |path: &String| path.ends_with(&tail) || path.contains(&inside);
            if !exists(file, paths) && !paths.iter().any(named) {
                problems.push(Problem::new(path, line, format!("`{span}` does not exist")));
            }
        }
    }
    problems
}

/// Returns the lines outside fenced code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

fn link_targets(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()).collect()
}

fn looks_like_path(span: &str, paths: &BTreeSet<String>) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if !span.chars().all(legal) || span.starts_with('/') {
        return false;
    }
    if span.starts_with("./") || ENDINGS.iter().any(|ending| span.ends_with(ending)) {
        return true;
    }
    span.split_once('/').is_some_and(|(first, _)| {
        let folder = format!("{first}/");
        paths.iter().any(|path| path.starts_with(&folder))
    })
}

/// Whether the repository contains this file or folder.
fn exists(path: &str, paths: &BTreeSet<String>) -> bool {
    let folder = format!("{path}/");
    path.is_empty() || paths.contains(path) || paths.iter().any(|other| other.starts_with(&folder))
}

/// Resolves `link` relative to `folder`; `None` if the result is outside the repository.
fn resolve(folder: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo() -> BTreeSet<String> {
        ["README.md", "test", "docs/protocol.md", "crates/core/src/link.rs"]
            .iter()
            .map(|path| (*path).to_owned())
            .collect()
    }

    fn bad_links(path: &str, text: &str) -> usize {
        links(path, text, &repo()).len()
    }

    fn bad_paths(text: &str) -> usize {
        backticks("README.md", text, &repo()).len()
    }

    #[test]
    fn links_with_existing_targets_pass() {
        assert_eq!(bad_links("README.md", "[a](docs/protocol.md#x) [b](docs/) [c](#here)"), 0);
        assert_eq!(bad_links("docs/a.md", "[a](protocol.md) [b](../README.md) [c](../docs)"), 0);
        assert_eq!(bad_links("README.md", "[a](https://example.org/x) ![b](mailto:a@b)"), 0);
        assert_eq!(bad_links("README.md", "```\n[a](nowhere.md)\n```\n`[b](nowhere.md)`"), 0);
    }

    #[test]
    fn links_with_missing_targets_are_found() {
        assert_eq!(bad_links("README.md", "[a](protocol.md) and [b](docs/prot.md)"), 2);
        assert_eq!(bad_links("docs/a.md", "[a](docs/protocol.md) ![b](../../README.md)"), 2);
        assert_eq!(bad_links("README.md", "```\n```\n[a](doc/protocol.md \"title\")"), 1);
    }

    #[test]
    fn the_line_of_a_broken_link_is_reported() {
        assert_eq!(links("README.md", "\n\n[a](x.md)", &repo())[0].line, 3);
    }

    #[test]
    fn existing_paths_in_backticks_pass() {
        assert_eq!(bad_paths("`docs/protocol.md` `crates/core` `link.rs` `./test` `core/src/`"), 0);
    }

    #[test]
    fn words_that_are_no_paths_are_ignored() {
        assert_eq!(bad_paths("`a::b` `/healthz` `HOST:PORT` `text/plain` `x.y` `crates/*`"), 0);
        assert_eq!(bad_paths("```\n`gone.rs`\n```"), 0);
    }

    #[test]
    fn missing_paths_in_backticks_are_found() {
        assert_eq!(bad_paths("`docs/gone.md` `gone.rs` `crates/gone` `./gone` `ink.rs`"), 5);
    }
}
