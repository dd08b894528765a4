//! A socket whose results the test chooses. The connection behind it stands, so that a router's
//! error is a soft one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// The result of one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Given {
    Bytes(Vec<u8>),
    End,
    Interrupted,
    Unreachable,
    Reset,
    Aborted,
    BrokenPipe,
}

#[derive(Debug)]
pub(super) struct Scripted {
    connection: TcpStream,
    /// The other end, while the connection stands.
    peer: RefCell<Option<TcpStream>>,
    reads: RefCell<VecDeque<Given>>,
    /// Whether the last read left a part of its piece.
    is_partial: Cell<bool>,
    /// The errors of the next writes.
    refusals: RefCell<VecDeque<Given>>,
    written: RefCell<Vec<u8>>,
    /// How much more the socket takes.
    room: Cell<usize>,
    writes: Cell<usize>,
}

impl Scripted {
    pub(super) fn new() -> Scripted {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Scripted {
            connection: listener.accept().unwrap().0,
            peer: RefCell::new(Some(peer)),
            reads: RefCell::default(),
            is_partial: Cell::new(false),
            refusals: RefCell::default(),
            written: RefCell::default(),
            room: Cell::new(usize::MAX),
            writes: Cell::new(0),
        }
    }

    /// Adds the result of a read.
    pub(super) fn give(&self, given: Given) {
        self.reads.borrow_mut().push_back(given);
    }

    pub(super) fn refuse_writes(&self, refusals: &[Given]) {
        self.refusals.borrow_mut().extend(refusals.iter().cloned());
    }

    /// Takes no more than `room` bytes from now on.
    pub(super) fn accept_at_most(&self, room: usize) {
        self.room.set(room);
    }

    pub(super) fn take_written(&self) -> Vec<u8> {
        self.written.take()
    }

    pub(super) fn writes(&self) -> usize {
        self.writes.get()
    }

    /// Returns the error of `given`. A reset ends the connection.
    fn error(&self, given: &Given) -> io::Error {
        if matches!(given, Given::Reset | Given::Aborted | Given::BrokenPipe)
            && let Some(peer) = self.peer.take()
        {
            SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        }
        error(given)
    }

    /// Returns whether the piece that was read last was read to its end.
    pub(super) fn is_drained(&self) -> bool {
        !self.is_partial.get()
    }
}

fn error(given: &Given) -> io::Error {
    match given {
        Given::Interrupted => ErrorKind::Interrupted.into(),
        Given::Unreachable => ErrorKind::HostUnreachable.into(),
        Given::Reset => ErrorKind::ConnectionReset.into(),
        Given::Aborted => ErrorKind::ConnectionAborted.into(),
        Given::BrokenPipe => ErrorKind::BrokenPipe.into(),
        Given::Bytes(_) | Given::End => ErrorKind::WouldBlock.into(),
    }
}

impl Read for &Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut reads = self.reads.borrow_mut();
        match reads.pop_front() {
            None => Err(ErrorKind::WouldBlock.into()),
            Some(Given::Bytes(mut bytes)) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                self.is_partial.set(count < bytes.len());
                if count < bytes.len() {
                    reads.push_front(Given::Bytes(bytes.split_off(count)));
                }
                Ok(count)
            }
            Some(Given::End) => {
                reads.push_front(Given::End);
                Ok(0)
            }
            Some(given) => Err(self.error(&given)),
        }
    }
}

impl Write for &Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.set(self.writes.get() + 1);
        if let Some(refusal) = self.refusals.borrow_mut().pop_front() {
            return Err(self.error(&refusal));
        }
        let count = bytes.len().min(self.room.get());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room.set(self.room.get() - count);
        self.written.borrow_mut().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Scripted {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsSocket for Scripted {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        self.connection.as_socket()
    }
}
