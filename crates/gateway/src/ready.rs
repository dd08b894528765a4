//! The ready file, which informs the starter of the gateway that it is ready, and of its addresses.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::json::to_json;

/// The content of the ready file, one JSON object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The process id of the gateway.
    pub pid: u32,
    /// The address of the admin interface.
    pub admin: SocketAddr,
    /// The listeners for clients, with the ports that the system chose.
    pub listeners: Vec<ReadyListener>,
}

/// One listener in the ready file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadyListener {
    /// The listener's name in the configuration.
    pub name: String,
    /// The name of the codec in the configuration.
    pub codec: String,
    /// The address that clients connect to.
    pub address: SocketAddr,
}

/// The ready file of a gateway that starts or runs. Dropping it removes the file.
///
/// It is written at once, so that a reader sees all of it or nothing: as `FILE.tmp`, which is then
/// renamed to `FILE`. Only a gateway that was killed leaves it behind; the next one replaces it.
#[derive(Debug)]
pub(crate) struct ReadyFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl ReadyFile {
    /// Creates `FILE.tmp`, so that a file that cannot be written is known before the gateway
    /// serves. Removes a `FILE` that a killed gateway has left: it would report this one as ready.
    ///
    /// # Errors
    /// The error of the system; or `FILE` exists and is no regular file, which is left alone.
    pub(crate) fn prepare(path: &Path) -> io::Result<ReadyFile> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                let text = "it exists, and is no regular file";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            Ok(_) | Err(_) => {}
        }
        // Never opens what is there: a FIFO would wait for its reader.
        remove(&temporary)?;
        let file = File::create_new(&temporary)?;
        let ready_file = ReadyFile { path: path.to_owned(), temporary, file };
        remove(path)?;
        Ok(ready_file)
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The error of the file system. The gateway is unharmed.
    pub(crate) fn write(&mut self, ready: &Ready) -> io::Result<()> {
        let line = to_json(ready)? + "\n";
        self.file.write_all(line.as_bytes())?;
        fs::rename(&self.temporary, &self.path)
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Another gateway, started with the same path, may have replaced it.
        for path in [&self.path, &self.temporary] {
            if is_same(&self.file, path).unwrap_or(false) {
                // The process ends; there is nobody to report an error to.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Returns whether `path` is the open `file`.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (own, found) = (file.metadata()?, fs::symlink_metadata(path)?);
    Ok((own.dev(), own.ino()) == (found.dev(), found.ino()))
}

/// Assumes so: this system does not tell.
#[cfg(not(unix))]
fn is_same(_file: &File, path: &Path) -> io::Result<bool> {
    fs::exists(path)
}

/// Removes a file that may not exist.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::{HARMFUL, assert_harmless};

    fn ready() -> Ready {
        let listener = ReadyListener {
            name: "native".to_owned(),
            codec: "native".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 7400)),
        };
        let admin = SocketAddr::from(([127, 0, 0, 1], 7480));
        Ready { pid: 7, admin, listeners: vec![listener] }
    }

    #[test]
    fn the_file_is_written_whole_replaced_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        let names = || fs::read_dir(directory.path()).unwrap().count();
        fs::write(&path, "of a gateway that was killed").unwrap();
        fs::write(directory.path().join("ready.json.tmp"), "too").unwrap();
        let mut first = ReadyFile::prepare(&path).unwrap();
        assert!(!path.exists(), "nothing is ready yet");
        first.write(&ready()).unwrap();
        let expected = "{\"pid\":7,\"admin\":\"127.0.0.1:7480\",\"listeners\":[{\"name\":\
                        \"native\",\"codec\":\"native\",\"address\":\"127.0.0.1:7400\"}]}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(names(), 1, "no temporary file is left");

        let mut second = ReadyFile::prepare(&path).unwrap();
        second.write(&Ready { pid: 8, ..ready() }).unwrap();
        drop(first);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<Ready>(&text).unwrap().pid, 8, "it is not the first's");
        drop(second);
        assert_eq!(names(), 0);
        drop(ReadyFile::prepare(&path).unwrap());
        assert_eq!(names(), 0, "not even written");
    }

    #[test]
    fn the_file_holds_no_harmful_character() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        let mut file = ReadyFile::prepare(&path).unwrap();
        let mut ready = ready();
        ready.listeners[0].name = HARMFUL.to_owned();
        file.write(&ready).unwrap();
        assert_harmless(&fs::read_to_string(&path).unwrap(), "/listeners/0/name");
    }

    #[test]
    fn what_cannot_be_replaced_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none").join("ready");
        assert_eq!(ReadyFile::prepare(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        let error = ReadyFile::prepare(directory.path()).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
        assert!(directory.path().exists());
        let device = ReadyFile::prepare(Path::new("/dev/null")).unwrap_err();
        assert_eq!(device.kind(), io::ErrorKind::InvalidInput);
    }
}
