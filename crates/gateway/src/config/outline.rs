//! Which settings a file gives, to recognise at a reload a file that was emptied or half written.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use super::listener::default_name;

/// The settings that a file gives, without their values.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Outline {
    /// The keys of each table, by its path such as `policy`; the top of the file has an empty path.
    tables: BTreeMap<String, BTreeSet<String>>,
    /// The names of the listeners, whose tables have paths such as `listener "games"`.
    listeners: BTreeSet<String>,
    /// The path of the table that the file ends with, and where its last setting ends.
    last: (String, usize),
}

impl Outline {
    /// Returns the outline of a document whose values are legal.
    pub(super) fn of(document: &DeTable<'_>) -> Outline {
        let mut outline = Outline::default();
        outline.add(String::new(), document);
        outline
    }

    fn add(&mut self, path: String, table: &DeTable<'_>) {
        let mut keys = BTreeSet::new();
        for (key, value) in table {
            let end = key.span().end;
            let key: &str = key.get_ref();
            let value = value.get_ref();
            if let Some(table) = value.as_table() {
                self.add(join(&path, key), table);
            } else if let (true, "listener", Some(entries)) =
                (path.is_empty(), key, value.as_array())
            {
                for table in entries.iter().filter_map(|entry| entry.get_ref().as_table()) {
                    let name = name_of(table);
                    self.add(listener_path(&name), table);
                    self.listeners.insert(name);
                }
            } else {
                if end > self.last.1 {
                    self.last = (path.clone(), end);
                }
                keys.insert(key.to_owned());
            }
        }
        self.tables.insert(path, keys);
    }

    /// Returns what this file had and `now` has lost: each table that is gone, and the settings
    /// that are gone from a table that has none in their place, or with which the file ends: it may
    /// have been cut there. A listener that has another in its place was renamed.
    pub(super) fn lost(&self, now: &Outline) -> Vec<String> {
        let gone: Vec<_> = self.listeners.difference(&now.listeners).collect();
        let new = now.listeners.difference(&self.listeners).count();
        let renamed = |path: &str| gone.iter().any(|name| path.starts_with(&listener_path(name)));
        let mut lost: Vec<String> = Vec::new();
        for (path, keys) in &self.tables {
            if gone.len() <= new && renamed(path) {
                continue;
            }
            match now.tables.get(path) {
                Some(present) => {
                    if keys.is_superset(present) || *path == now.last.0 {
                        lost.extend(keys.difference(present).map(|key| join(path, key)));
                    }
                }
                None if keys.is_empty() => {}
                None => lost.push(format!("[{path}]")),
            }
        }
        lost
    }
}

/// Returns the name of a listener, which may be that of its codec.
fn name_of(table: &DeTable<'_>) -> String {
    let text = |key| table.get(key).and_then(|value| value.get_ref().as_str());
    text("name").or(text("codec")).unwrap_or(default_name()).to_owned()
}

fn listener_path(name: &str) -> String {
    format!("listener \"{name}\"")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &str) -> Outline {
        Outline::of(DeTable::parse(text).unwrap().get_ref())
    }

    fn lost(before: &str, now: &str) -> Vec<String> {
        outline(before).lost(&outline(now))
    }

    const FILE: &str = "\
shards = 2
rest = \"1ms\"
policy.preset = \"relaxed\"
[[listener]]
address = \"127.0.0.1:1\"
[[listener]]
name = \"b\"
address = \"127.0.0.1:2\"
policy = { idle = \"1s\", interval = \"1s\" }
[drain]
limit = \"1s\"
";

    #[test]
    fn each_cut_at_the_end_of_a_line_is_a_loss() {
        let ends: Vec<_> = FILE.match_indices('\n').map(|(at, _)| at + 1).collect();
        for end in ends.iter().rev().skip(1).chain([&0]) {
            assert_ne!(lost(FILE, &FILE[..*end]), [""; 0], "{}", &FILE[..*end]);
        }
        let all = ["rest", "shards", "[drain]", "[listener \"b\"]", "[listener \"b\".policy]"];
        let found = lost(FILE, "# nothing\n");
        assert_eq!(found[..5], all, "{found:?}");
        assert_eq!(found[5..], ["[listener \"native\"]", "[policy]"]);
    }

    #[test]
    fn a_table_that_the_file_ends_with_may_be_cut_whatever_it_gained() {
        let old = "[policy]\nidle = 60\ninterval = 20\nprobes = 10\n";
        assert_eq!(
            lost(old, "[policy]\nspread = false\n"),
            ["policy.idle", "policy.interval", "policy.probes"]
        );
        let numbers = "[policy]\nidle = 60\n";
        assert_eq!(lost("[policy]\npreset = 1\n", numbers), ["policy.preset"]);
        assert_eq!(lost("[policy]\npreset = 1\n", &format!("{numbers}[log]\nlevel = 1")), [""; 0]);
    }

    #[test]
    fn an_edit_is_no_loss() {
        for (old, new) in [
            ("", ""),
            ("shards = 2", "shards = 3"),
            (
                "policy.preset = \"relaxed\"",
                "[policy]\nidle = \"7s\"\nprobes = 9\n[log]\nlevel = 1",
            ),
            (
                "[policy]\nidle = \"7s\"\nprobes = 9",
                "policy.preset = \"relaxed\"\nlog.level = \"info\"",
            ),
            ("[[listener]]\nname = \"a\"", "[[listener]]\nname = \"b\"\n[drain]"),
            ("[[listener]]\nname = \"a\"\npolicy.idle = 1", "[[listener]]\nname = \"b\""),
            ("[[listener]]\ncodec = \"line\"", "[[listener]]\nname = \"line\"\ncodec = \"line\""),
            ("[drain]", ""),
            ("[drain]\nlimit = 1", "[drain]\nlimit = 2\nreconnect_within = 3\n[log]\nlevel = 1"),
        ] {
            assert_eq!(lost(old, new), [""; 0], "{old} {new}");
        }
        assert_eq!(lost("[drain]\nlimit = 1", "[drain]\n"), ["drain.limit"]);
        let listeners = "[[listener]]\nname = \"a\"\n[[listener]]\nname = \"b\"\n";
        let one = "[[listener]]\nname = \"c\"\n";
        assert_eq!(lost(listeners, one), ["[listener \"a\"]", "[listener \"b\"]"]);
    }
}
