//! The one place that prints: data to stdout, talk to stderr.

use std::io::{self, BufWriter, Stderr, Stdout, Write};

/// Where a command prints.
#[derive(Debug)]
pub(crate) struct Output {
    data: BufWriter<Stdout>,
    talk: Stderr,
}

impl Output {
    pub(crate) fn new() -> Output {
        Output { data: BufWriter::new(io::stdout()), talk: io::stderr() }
    }

    /// One line of data. It may wait in a buffer until [`Output::flush`].
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.data, "{line}")
    }

    /// Data as it is.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all(bytes)
    }

    /// Sends buffered data on its way.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.data.flush()
    }

    /// Tells what is worth knowing beside the data. Nobody may be listening.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.talk, "{}", text.trim_end());
    }

    /// Tells what went wrong. Nobody may be listening, and there is nobody else to tell.
    pub(crate) fn error(&mut self, text: &str) {
        let _ = writeln!(self.talk, "error: {}", text.trim_end());
    }
}
