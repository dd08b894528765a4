//! The only place that prints: data to stdout, messages to stderr.

use std::io::{self, BufWriter, Stderr, Stdout, Write};

/// The stdout and stderr of a command.
#[derive(Debug)]
pub(crate) struct Output {
    data: BufWriter<Stdout>,
    messages: Stderr,
}

impl Output {
    pub(crate) fn new() -> Output {
        Output { data: BufWriter::new(io::stdout()), messages: io::stderr() }
    }

    /// Writes one line of data, which may stay in a buffer until [`Output::flush`].
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.data, "{line}")
    }

    /// Writes data unchanged.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all(bytes)
    }

    /// Flushes the buffered data.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.data.flush()
    }

    /// Prints a message to stderr. A failure is ignored: stderr may be closed.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.messages, "{}", text.trim_end());
    }

    /// Prints an error to stderr. A failure is ignored: there is no other place to report it.
    pub(crate) fn error(&mut self, text: &str) {
        let _ = writeln!(self.messages, "error: {}", text.trim_end());
    }
}
