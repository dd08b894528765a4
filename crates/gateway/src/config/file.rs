//! Reads the files of a configuration: bounded, and never waiting for a writer.

use std::fs::{FileType, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Reads a regular file of text with at most `limit` bytes.
///
/// A FIFO would wait for a writer, and a device may never end. Both are refused without a read. A
/// file that grows meanwhile, or has no size, as in `/proc`, is read up to the limit and one byte.
///
/// # Errors
/// The error of the system; or the file is of another kind, too long, or not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Opening a FIFO would wait for a writer. It changes nothing for a regular file.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(flags.bits() as i32);
    }
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() {
        let text = format!("it is {}, and only a regular file is read", name(kind));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut text = Vec::new();
    let length = file.metadata()?.len();
    if length <= limit {
        file.take(limit.saturating_add(1)).read_to_end(&mut text)?;
    }
    if length > limit || text.len() as u64 > limit {
        let text = format!("it is longer than {}", super::value::show_bytes(limit));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    String::from_utf8(text).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let text = format!("it is not text in UTF-8 (byte {place})");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

#[cfg(unix)]
fn name(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "no regular file"
    }
}

#[cfg(not(unix))]
fn name(kind: FileType) -> &'static str {
    if kind.is_dir() { "a directory" } else { "no regular file" }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "12345678").unwrap();
        assert_eq!(read_text(&path, 8).unwrap(), "12345678");
        let error = read_text(&path, 7).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than 7");
        // Sparse: it takes no room on disk, and must take none in memory.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read_text(&path, 1 << 20).unwrap_err().to_string(), "it is longer than 1MiB");
        fs::write(&path, b"ab\xff").unwrap();
        assert_eq!(
            read_text(&path, 8).unwrap_err().to_string(),
            "it is not text in UTF-8 (byte 2)"
        );
        assert_eq!(
            read_text(&directory.path().join("none"), 8).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_may_block_or_never_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
        for (path, kind) in [
            (fifo.as_path(), "a pipe"),
            (Path::new("/dev/zero"), "a device"),
            (directory.path(), "a directory"),
        ] {
            let error = read_text(path, 1 << 20).unwrap_err().to_string();
            assert_eq!(error, format!("it is {kind}, and only a regular file is read"));
        }
        // Endless as far as its size tells.
        let error = read_text(Path::new("/proc/self/status"), 64).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(read_text(Path::new("/proc/self/status"), 1 << 20).unwrap().contains("Threads:"));
    }
}
