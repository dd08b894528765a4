//! One end of a link over the toy, on a socket whose calls wait for a moment at most.

use std::net::TcpStream;
use std::time::Duration;

use systole_core::cause::Cause;
use systole_core::link::{
    Answer, Closing, Command, Event, Output, SessionKey, Settings, Side, World,
};
use systole_core::wire::{CloseReason, Codec, DataKind};
use systole_core::{Link, Machine, Policy, Span, Time, session};

use super::records::Records;
use super::{Clock, End, ReadOutcome, Socket, Transport};

/// How long a call waits: neither end may block while the other has something to say.
const MOMENT: Duration = Duration::from_millis(2);

/// How long a test waits for what must come.
const SOON: Span = Span::from_secs(20);

/// The limit of what waits to be sent.
const QUEUE: usize = 16 << 20;

pub(crate) struct Peer {
    link: Link,
    socket: Socket<TcpStream, Records>,
    clock: Clock,
    pub(crate) established: bool,
    pub(crate) received: Vec<u8>,
    pub(crate) lost: Option<Cause>,
    /// The end of the other side.
    pub(crate) end: Option<End>,
    /// How often bytes without plaintext came.
    pub(crate) heard: u64,
    is_over: bool,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream, side: Side) -> Peer {
        stream.set_read_timeout(Some(MOMENT)).unwrap();
        stream.set_write_timeout(Some(MOMENT)).unwrap();
        let settings = Settings::new(Codec::Native, side, Policy::standard());
        Peer {
            link: Link::new(Time::ZERO, settings, 1),
            socket: Socket::new(stream, Records::default(), ()),
            clock: Clock::start(),
            established: false,
            received: Vec::new(),
            lost: None,
            end: None,
            heard: 0,
            is_over: false,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.command(Command::Send { bytes, more: false, kind: DataKind::default() });
    }

    pub(crate) fn close(&mut self) {
        self.command(Command::close(CloseReason::Done));
    }

    fn command(&mut self, command: Command<'_>) {
        self.link.handle(Time::ZERO, World::Command(command));
        self.collect();
    }

    /// Writes and reads until `done`.
    pub(crate) fn run_until(&mut self, done: impl Fn(&Peer) -> bool) {
        let until = self.clock.monotonic() + SOON;
        // An odd size, smaller than a record, so that plaintext waits inside.
        let mut buffer = vec![0; 3_001];
        while !done(self) {
            assert!(self.clock.monotonic() < until, "not done in time");
            let was_flushed = self.socket.is_flushed();
            assert_eq!(self.socket.flush().failure, None);
            if self.is_over && !was_flushed && self.socket.is_flushed() {
                self.socket.shutdown_write();
            }
            let input = match self.socket.read(&mut buffer) {
                ReadOutcome::Bytes { count, .. } => World::Received(&buffer[..count]),
                ReadOutcome::Heard { .. } => {
                    self.heard += 1;
                    World::Heard
                }
                ReadOutcome::Ended(end) => {
                    self.end = Some(end);
                    World::Ended
                }
                ReadOutcome::Empty | ReadOutcome::Warned(_) => continue,
                ReadOutcome::Illegal(_) => panic!("illegal bytes"),
                ReadOutcome::Failed(failure) => panic!("{failure:?}"),
            };
            if !self.is_over {
                self.link.handle(Time::ZERO, input);
                self.link.handle(Time::ZERO, self.socket.transport().held().as_input());
                self.collect();
            }
        }
    }

    fn collect(&mut self) {
        let mut asks = false;
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Transmit { bytes, lane } => {
                    self.socket.queue(bytes, &[(bytes.len(), lane)], 0, QUEUE).unwrap();
                }
                Output::Event(Event::Established { .. }) => self.established = true,
                Output::Event(Event::Data { bytes, .. }) => self.received.extend_from_slice(bytes),
                Output::Session(session::Event::Left(verdict)) => self.lost = Some(verdict.cause),
                Output::Admit => asks = true,
                Output::Close(closing) => {
                    assert_eq!(closing, Closing::Flush);
                    self.is_over = true;
                    self.socket.finish();
                }
                Output::Session(_)
                | Output::Event(_)
                | Output::Examine { .. }
                | Output::Patience(_) => {}
            }
        }
        if asks {
            let key = SessionKey { session: 7, epoch: 1 };
            self.link.handle(Time::ZERO, Answer::admitted(key));
            self.collect();
        }
    }
}
