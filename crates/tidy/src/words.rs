//! Finds words that no file of the repository may contain: markers of unfinished work, merge
//! conflict markers, and paths that exist on one machine only.

use crate::Problem;

// Each word is split in halves, so that this file passes its own check.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];
const MERGE: &[&str] = &[concat!("<<<<", "<<< "), concat!(">>>>", ">>> ")];
const ONE_MACHINE: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/tm", "p/wt"),
    concat!("/tm", "p/plan"),
    concat!("/tm", "p/target-"),
];

/// Generated or third-party files, which are not checked.
const FOREIGN: &[&str] = &["Cargo.lock", "fuzz/Cargo.lock", "LICENSE-APACHE"];

/// Finds the forbidden words in a text file.
pub fn check(path: &str, text: &str) -> Vec<Problem> {
    if FOREIGN.contains(&path) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            let what = format!("`{word}`: finish it, or write down why it is left out");
            problems.push(Problem::new(path, at + 1, what));
        }
        if MERGE.iter().any(|mark| line.starts_with(mark)) {
            problems.push(Problem::new(path, at + 1, "unresolved merge conflict"));
        }
        for word in ONE_MACHINE.iter().filter(|word| has_path(line, word)) {
            let what = format!("`{word}` exists on one machine only");
            problems.push(Problem::new(path, at + 1, what));
        }
    }
    problems
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !is_name(line[..at].chars().next_back()) && !is_name(line[at + word.len()..].chars().next())
    })
}

/// Whether `line` contains the absolute path `path`. A name before its first slash makes the path
/// relative, as in `net/work/`.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !is_name(before) && !matches!(before, Some('.' | '~' | '}' | ')' | '-'))
    })
}

fn is_name(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_forbidden_word_is_found_with_its_line() {
        for word in UNFINISHED.iter().chain(ONE_MACHINE) {
            let found = check("a.md", &format!("fine\nsee \"{word}\" there\n"));
            assert_eq!(found.len(), 1, "{word}");
            assert_eq!(found[0].line, 2);
        }
    }

    #[test]
    fn merge_conflict_markers_are_found() {
        assert_eq!(check("a.toml", &format!("{}HEAD\na\n{}b\n", MERGE[0], MERGE[1])).len(), 2);
        assert_eq!(check("a.sh", &format!("cat <<E\n echo {}\n", MERGE[0])), []);
    }

    #[test]
    fn longer_words_that_contain_a_forbidden_word_pass() {
        let words = format!("{0}S my{0} todo net{1}x {{}}{1}", UNFINISHED[0], ONE_MACHINE[1]);
        assert_eq!(check("a.md", &words), []);
    }

    #[test]
    fn foreign_files_are_ignored() {
        assert_eq!(check("Cargo.lock", UNFINISHED[0]), []);
        assert_eq!(check("docs/Cargo.lock", UNFINISHED[0]).len(), 1);
    }
}
