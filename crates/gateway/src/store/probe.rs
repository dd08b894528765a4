//! Finds out whether a store could be opened, and changes nothing: nothing is created or locked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::StoreSettings;
use super::error::StoreError;
use super::place::FILE;
use super::schema::{APPLICATION, VERSION};

/// How each database of SQLite begins: <https://sqlite.org/fileformat2.html>.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Length of what is read of the file: the head of the database, and that of its first page.
const HEAD: usize = 108;

/// Where SQLite locks the file: its `PENDING_BYTE`, and the 511 bytes after it.
const LOCKS: (u64, u64) = (0x4000_0000, 512);

/// Returns why the store could not be opened now; `None` if nothing is in the way.
///
/// Not for the process that has the store open: closing the file would end its locks. What only a
/// whole read shows, such as damage further on in the file, is not found.
pub(crate) fn probe(settings: &StoreSettings) -> Option<StoreError> {
    let path = match probe_access(&settings.directory) {
        Ok(None) => return None,
        Ok(Some(path)) => path,
        Err(error) => return Some(error),
    };
    match OpenOptions::new().read(true).open(&path) {
        Ok(file) => probe_file(file, path),
        Err(error) => Some(StoreError::Directory { path, error }),
    }
}

/// Checks that this user may read and write the directory and the file in it, and opens nothing.
/// Returns the file, if there is one that holds anything.
pub(super) fn probe_access(directory: &Path) -> Result<Option<PathBuf>, StoreError> {
    let failed = |path: &Path, error| StoreError::Directory { path: path.to_owned(), error };
    probe_directory(directory).map_err(|error| failed(directory, error))?;
    let path = directory.join(FILE);
    let holds_anything = probe_access_to_file(&path).map_err(|error| failed(&path, error))?;
    Ok(holds_anything.then_some(path))
}

/// Checks that the directory can be written, or made in the one above it.
fn probe_directory(directory: &Path) -> io::Result<()> {
    let rights = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => Err(ErrorKind::NotADirectory.into()),
        Ok(_) => Ok(access(directory, rights)?),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
            let above = above.unwrap_or(Path::new("."));
            // A link to nothing is in the way of what is to be made.
            if fs::symlink_metadata(directory).is_ok() || !above.is_dir() {
                return Err(error);
            }
            Ok(access(above, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(error) => Err(error),
    }
}

/// Checks that the file can be read and written; returns whether there is one that holds anything.
fn probe_access_to_file(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        // Opening a pipe would wait for its other end.
        Ok(found) if !found.is_file() => Err(io::Error::other("it is no regular file")),
        Ok(found) => {
            access(path, Access::READ_OK | Access::WRITE_OK)?;
            // Of an empty file a store is made; SQLite takes one of a single byte for empty too.
            Ok(found.len() > 1)
        }
    }
}

fn probe_file(mut file: File, path: PathBuf) -> Option<StoreError> {
    let failed = |error| Some(StoreError::Directory { path: path.clone(), error });
    match is_locked(&file) {
        Ok(false) => {}
        Ok(true) => return Some(StoreError::InUse(path)),
        Err(error) => return failed(error),
    }
    let mut head = [0; HEAD];
    match file.read_exact(&mut head) {
        Ok(()) if head.starts_with(MAGIC) => {}
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return failed(error),
        Ok(()) | Err(_) => {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
            let error = rusqlite::Error::SqliteFailure(code, None);
            return Some(StoreError::Database { path, error });
        }
    }
    let number = |at: usize| i64::from(u32::from_be_bytes([0, 1, 2, 3].map(|i| head[at + i])));
    let is_ours = number(68) == APPLICATION && (1..=VERSION).contains(&number(60));
    // A store that was just made has its tables in the write-ahead log: no cell is in the page.
    let is_without_tables = head[100] == 0x0d && head[103..105] == [0, 0];
    (!is_ours && !is_without_tables).then_some(StoreError::Foreign(path))
}

/// Whether another process has the database open exclusively, as a gateway has.
fn is_locked(file: &File) -> io::Result<bool> {
    let (start, length) = LOCKS;
    let wanted = Flock { start, length, ..Flock::from(FlockType::ReadLock) };
    Ok(fcntl_getlk(file, &wanted)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture::settings;
    use crate::store::{Database, Opening, Place};

    /// Returns what is in a directory, with the contents of the files.
    fn listing(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let found = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap_or_default());
        let mut found: Vec<_> = found.map(read).collect();
        found.sort();
        found
    }

    fn open(settings: &StoreSettings) -> Result<Database, StoreError> {
        let (subscriptions, listeners, trusted) = ([].into(), [].into(), [].into());
        let opening = Opening { subscriptions, listeners, now_ms: 1, remembered: 1, trusted };
        Database::open(settings, opening, Place::Disk)
    }

    /// Probes twice, and checks that nothing has changed and that a start agrees.
    fn shown(directory: &Path, above: &Path) -> String {
        let settings = settings(directory);
        let before = listing(above);
        let found = probe(&settings).map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(listing(above), before, "nothing is changed");
        let opened = open(&settings);
        assert_eq!(opened.is_err(), !found.is_empty(), "{found}: {opened:?}");
        found
    }

    /// Runs `test` in a thread whose user is not the superuser, who may write everything.
    #[cfg(target_os = "linux")]
    fn as_another_user(test: impl FnOnce() + Send) {
        use rustix::process::{Uid, geteuid};
        use rustix::thread::set_thread_uid;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if geteuid().is_root() {
                    set_thread_uid(Uid::from_raw(65_534)).unwrap();
                }
                test();
            });
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_this_user_may_not_write_is_said_by_a_start_as_by_a_check() {
        use std::os::unix::fs::PermissionsExt;
        let above = tempfile::tempdir().unwrap();
        let store = above.path().join("store");
        assert_eq!(shown(&store, above.path()), "");
        let file = store.join(FILE);
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(above.path(), 0o755);
        let settings = settings(&store);
        let refused = |path: &Path| {
            let said = probe(&settings).unwrap().to_string();
            assert_eq!(open(&settings).unwrap_err().to_string(), said);
            let reason = format!("{}: Permission denied", path.display());
            assert!(said.contains(&reason) && said.contains("\nhint: `path`"), "{said}");
        };
        mode(&store, 0o555);
        as_another_user(|| refused(&store));
        mode(&store, 0o777);
        mode(&file, 0o444);
        as_another_user(|| refused(&file));
        // Beside the file stands its write-ahead log, which only SQLite opens.
        mode(&file, 0o666);
        fs::create_dir(store.join("systole.db-wal")).unwrap();
        let said = open(&settings).unwrap_err().to_string();
        assert!(said.contains("\nhint: `path`") && !said.contains(".recover"), "{said}");
    }

    #[test]
    fn what_a_start_would_meet_is_found_and_nothing_is_changed() {
        let above = tempfile::tempdir().unwrap();
        let above = above.path();
        for (name, expected) in [("none/store", "No such file"), ("file/store", "Not a directory")]
        {
            fs::write(above.join("file"), "").unwrap();
            let found = shown(&above.join(name), above);
            assert!(found.contains(expected) && found.contains("\nhint: `path`"), "{found}");
        }
        assert!(shown(&above.join("file"), above).to_lowercase().contains("not a directory"));
        // Made by the start that follows, and found as it is then.
        let store = above.join("store");
        assert_eq!(shown(&store, above), "");
        assert_eq!(shown(&store, above), "");
        let file = store.join(FILE);
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        drop(connection);
        assert!(shown(&store, above).contains("newer version, or not a store"));
        for text in ["not a database, but long enough for the head of one".repeat(9), "no".into()] {
            fs::write(&file, text).unwrap();
            let found = shown(&store, above);
            assert!(found.contains("not a database") && found.contains("\nhint: "), "{found}");
        }
        for empty in ["", "x"] {
            fs::write(&file, empty).unwrap();
            assert_eq!(shown(&store, above), "", "an empty file is a new store");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(shown(&store, above).contains("no regular file"));
    }
}
