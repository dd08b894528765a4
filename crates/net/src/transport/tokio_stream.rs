//! A stream of Tokio as the stream of a socket half, with calls that do not wait.

use std::io::{self, Read, Write};
use std::ops::Deref;

use tokio::net::TcpStream;

/// A stream of Tokio whose reads and writes do not block, and clear the readiness that the runtime
/// holds for the socket once there is nothing left to do.
#[derive(Debug)]
pub struct TokioStream(pub TcpStream);

impl Deref for TokioStream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl Read for &TokioStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for &TokioStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for TokioStream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsSocket for TokioStream {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        self.0.as_socket()
    }
}
