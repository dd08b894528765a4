//! The files of the repository: the paths that git tracks or would add, and their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All files of the repository, by path relative to its root.
#[derive(Debug)]
pub struct Repo {
    root: PathBuf,
    /// Paths relative to the root, with `/` as separator.
    pub paths: BTreeSet<String>,
}

impl Repo {
    /// Lists the files of the repository at `root` that git tracks or would add.
    ///
    /// # Errors
    ///
    /// The error if git is missing, or git's message if `root` is not a repository, as in an
    /// unpacked source archive.
    pub fn open(root: &Path) -> Result<Self, String> {
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("git does not run: {error}"))?;
        if !listing.status.success() {
            return Err(String::from_utf8_lossy(&listing.stderr).trim().to_owned());
        }
        let paths = String::from_utf8_lossy(&listing.stdout)
            .split_terminator('\0')
            .filter(|path| root.join(path).is_file())
            .map(str::to_owned)
            .collect();
        Ok(Self { root: root.to_owned(), paths })
    }

    /// Returns the text of a file, or `None` if it is absent or not UTF-8.
    pub fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    /// Returns the texts of all files whose path has this ending, by path.
    pub fn texts(&self, ending: &str) -> BTreeMap<String, String> {
        let paths = self.paths.iter().filter(|path| path.ends_with(ending));
        paths.filter_map(|path| Some((path.clone(), self.text(path)?))).collect()
    }
}
