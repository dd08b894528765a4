//! The configuration file: loaded at the start, and again while the gateway runs.

use std::path::{Path, PathBuf};

use super::file::read_text;
use super::outline::Outline;
use super::{Config, ConfigError, MAX_FILE, Overrides, read};

/// Maximum number of lost settings that an error names.
const MAX_NAMES: usize = 8;

/// A configuration file that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    outline: Outline,
}

impl ConfigFile {
    /// Reads the configuration file at `path` and applies `overrides`.
    ///
    /// Blocks on the file system.
    ///
    /// # Errors
    /// The errors of [`Config::load`], or the file cannot be read.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<(Config, ConfigFile), ConfigError> {
        let help = "name another file with --config, or leave it out to run with the defaults";
        let (config, outline, _) = load(path, overrides, help)?;
        Ok((config, ConfigFile { path: path.to_owned(), outline }))
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again, for a running gateway.
    ///
    /// Blocks on the file system.
    ///
    /// # Errors
    /// The errors of [`ConfigFile::load`]; or the file ends within a line, or lacks settings that
    /// it had, and has no others in their place: it was emptied, or is half written. Their defaults
    /// could disconnect clients.
    pub fn reload(&self, overrides: &Overrides) -> Result<(Config, ConfigFile), ConfigError> {
        let help = "write the new file under another name, then rename it to this one";
        let (config, outline, ends_with_line) = load(&self.path, overrides, help)?;
        if !ends_with_line {
            let what = format!("{} ends within a line, as if half written", self.path.display());
            let help = "end the last line with a line feed".to_owned();
            return Err(ConfigError::single(what, Some(help)));
        }
        let lost = self.outline.lost(&outline);
        if lost.is_empty() {
            return Ok((config, ConfigFile { path: self.path.clone(), outline }));
        }
        let more = match lost.len().saturating_sub(MAX_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = lost.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
        let path = self.path.display();
        let what = format!("{path} has lost settings, as if half written: {names}{more}");
        let help = "to take a default back, write it into the file, or restart; a table whose \
                    settings were replaced must not be the last one"
            .to_owned();
        Err(ConfigError::single(what, Some(help)))
    }
}

/// Returns the configuration, its outline, and whether the file ends with a whole line.
fn load(
    path: &Path,
    overrides: &Overrides,
    help: &str,
) -> Result<(Config, Outline, bool), ConfigError> {
    let shown = path.display().to_string();
    let text = read_text(path, MAX_FILE as u64).map_err(|error| {
        ConfigError::single(format!("{shown} cannot be read: {error}"), Some(help.to_owned()))
    })?;
    let ends_with_line = text.is_empty() || text.ends_with('\n');
    let (config, outline, _) = read(&text, &shown, overrides)?;
    Ok((config, outline, ends_with_line))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_reload_refuses_an_emptied_a_cut_and_a_missing_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("systole.toml");
        let text = "[policy]\npreset = \"relaxed\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
        fs::write(&path, text).unwrap();
        let overrides = Overrides::default();
        let (config, file) = ConfigFile::load(&path, &overrides).unwrap();
        assert_eq!(file.reload(&overrides).unwrap(), (config.clone(), file.clone()));
        for (text, lost) in [
            ("", "[listener \"native\"], [policy]"),
            (" \n# a comment\n", "[listener \"native\"], [policy]"),
            (&text[..text.find("[[").unwrap()], "[listener \"native\"]"),
        ] {
            fs::write(&path, text).unwrap();
            let error = file.reload(&overrides).unwrap_err().to_string();
            assert!(error.contains(&format!("as if half written: {lost}\n")), "{error}");
            assert!(error.contains("or restart") && !error.contains("--config"), "{error}");
        }
        fs::write(&path, &text[..text.len() - 1]).unwrap();
        let error = file.reload(&Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("ends within a line"), "{error}");
        fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert!(file.reload(&overrides).unwrap_err().to_string().contains("not TOML"));
        fs::remove_file(&path).unwrap();
        let error = file.reload(&overrides).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("rename"), "{error}");
        assert!(!error.contains("--config"), "{error}");
        fs::write(&path, format!("{text}[drain]\nlimit = \"9s\"\n")).unwrap();
        let (_, more) = file.reload(&overrides).unwrap();
        fs::write(&path, text).unwrap();
        let error = more.reload(&overrides).unwrap_err().to_string();
        assert!(error.contains("half written: [drain]\n"), "{error}");
    }

    #[test]
    fn long_lists_of_what_is_lost_are_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("systole.toml");
        let listener = |n| format!("[[listener]]\nname = \"l{n:02}\"\naddress = \"127.0.0.1:0\"\n");
        fs::write(&path, (0..10).map(listener).collect::<String>()).unwrap();
        let (_, file) = ConfigFile::load(&path, &Overrides::default()).unwrap();
        fs::write(&path, "").unwrap();
        let error = file.reload(&Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("[listener \"l07\"] and 2 more\n"), "{error}");
    }
}
