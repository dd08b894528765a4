//! The connection of one client of `systole pong`.

use std::net::SocketAddr;

use systole_core::cause::Cause;
use systole_core::kernel::SocketError;
use systole_core::link::{
    Answer, Command, Event, Lane, Limits, Output, SessionKey, Settings, Side, World,
};
use systole_core::liveness::Role;
use systole_core::policy::MAX_BOUND;
use systole_core::wire::{CloseReason, Codec, Decoder, MAX_DATA, Malformed};
use systole_core::{Link, Machine, Policy, Span, Time, session};
use systole_net::Clock;
use systole_net::examine::socket_error;
use systole_net::transport::{ReadOutcome, Socket, TokioStream, Transport};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::answers::Answers;

/// Size of the read buffer in bytes.
const READ: usize = 16 * 1024;

/// Maximum of answers that wait for the socket, in bytes. A client is read only while none waits,
/// so they are the answers to one read and those that came due together.
const QUEUE: usize = 16 << 20;

/// An event of one client, to be printed.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) peer: SocketAddr,
    pub(crate) at: Span,
    pub(crate) kind: NoticeKind,
}

#[derive(Debug)]
pub(crate) enum NoticeKind {
    Joined,
    /// A frame, with its length in bytes.
    Received(usize),
    Illegal(Malformed),
    Left(Cause),
}

pub(crate) struct Connection {
    link: Link,
    /// The key of the session that the peer gets.
    session: SessionKey,
    meter: Meter,
    answers: Answers,
    delay: Span,
    clock: Clock,
    established: bool,
    /// Whether the program ends, and the client is told.
    leaving: bool,
    lost: Option<Cause>,
}

impl Connection {
    /// Creates a connection without verdicts: its link machine never gets a deadline as input.
    pub(crate) fn new(codec: Codec, session: u64, delay: Span, clock: Clock) -> Connection {
        let now = Time::ZERO + clock.monotonic();
        let settings = Settings {
            role: Role::Watch,
            // Every policy that a client requests is granted.
            limits: Limits { shortest_bound: Span::ZERO, longest_bound: MAX_BOUND },
            ..Settings::new(codec, Side::Accepting, Policy::never())
        };
        Connection {
            link: Link::new(now, settings, session),
            session: SessionKey { session, epoch: session },
            meter: Meter { decoder: Decoder::new(codec, MAX_DATA as u32), partial: 0 },
            answers: Answers::default(),
            delay,
            clock,
            established: false,
            leaving: false,
            lost: None,
        }
    }

    /// Serves the client until it leaves, or `ending` says that the program ends.
    pub(crate) async fn serve(
        mut self,
        stream: TcpStream,
        transport: impl Transport,
        peer: SocketAddr,
        notices: mpsc::Sender<Notice>,
        ending: watch::Receiver<()>,
    ) {
        let kind = NoticeKind::Joined;
        let _ = notices.send(Notice { peer, at: self.clock.monotonic(), kind }).await;
        let cause = match self.converse(stream, transport, peer, &notices, ending).await {
            Ok(()) => self.lost.unwrap_or(Cause::PeerExited),
            Err(Broken(error)) => cause_of(error),
        };
        let at = self.clock.monotonic();
        if let Cause::Protocol(malformed) = cause {
            let _ = notices.send(Notice { peer, at, kind: NoticeKind::Illegal(malformed) }).await;
        }
        // A failure means that the program is ending.
        let _ = notices.send(Notice { peer, at, kind: NoticeKind::Left(cause) }).await;
    }

    async fn converse(
        &mut self,
        stream: TcpStream,
        transport: impl Transport,
        peer: SocketAddr,
        notices: &mpsc::Sender<Notice>,
        mut ending: watch::Receiver<()>,
    ) -> Result<(), Broken> {
        stream.set_nodelay(true).map_err(|error| Broken(socket_error(&error)))?;
        let mut socket = Socket::new(TokioStream(stream), transport, ());
        let mut buffer = vec![0; READ];
        while !socket.has_ended() && (self.lost.is_none() || !socket.is_flushed()) {
            // A client that sends without pause must leave time to the others, and to signals.
            tokio::task::yield_now().await;
            let due = self.answers.next_due().filter(|_| socket.is_flushed());
            let wait = due.map(|due| due.less(self.clock.monotonic()).into());
            let reads = socket.is_flushed() && self.lost.is_none() && !self.answers.is_full();
            let stream = socket.stream();
            tokio::select! {
                _ = stream.writable(), if !socket.is_flushed() => flush(&mut socket)?,
                // Ready until a read finds nothing, in the transport neither.
                _ = stream.readable(), if reads => {
                    self.read(&mut socket, &mut buffer, peer, notices).await?;
                }
                _ = ending.changed(), if !self.leaving => self.leave(&mut socket)?,
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    while let Some(bytes) = self.answers.pop(self.clock.monotonic()) {
                        send(&mut socket, &bytes)?;
                    }
                }
            }
        }
        socket.finish();
        flush(&mut socket)?;
        socket.shutdown_write();
        while self.leaving && !socket.has_ended() {
            // What the client still sends would turn the close into a reset, which destroys the
            // goodbye.
            let _ = socket.stream().readable().await;
            if let ReadOutcome::Failed(failure) = socket.read(&mut buffer) {
                return Err(Broken(failure.error));
            }
        }
        Ok(())
    }

    /// Says goodbye as a gateway that is drained. Delayed answers are dropped: nobody waits for
    /// them any more.
    fn leave(&mut self, socket: &mut Socket<TokioStream, impl Transport>) -> Result<(), Broken> {
        self.leaving = true;
        let now = self.clock.monotonic();
        self.answers = Answers::default();
        let command = Command::close(CloseReason::Drained);
        self.link.handle(Time::ZERO + now, World::Command(command));
        let mut goodbye = Vec::new();
        self.poll_outputs(now, &mut goodbye);
        // Also before the handshake, where there is no session to leave.
        self.lost.get_or_insert(Cause::Drained);
        send(socket, &goodbye)
    }

    /// Reads once, and answers.
    async fn read(
        &mut self,
        socket: &mut Socket<TokioStream, impl Transport>,
        buffer: &mut [u8],
        peer: SocketAddr,
        notices: &mpsc::Sender<Notice>,
    ) -> Result<(), Broken> {
        match socket.read(buffer) {
            ReadOutcome::Bytes { count, .. } => {
                let bytes = buffer.get(..count).unwrap_or_default();
                for len in self.meter.measure(bytes) {
                    let kind = NoticeKind::Received(len);
                    let at = self.clock.monotonic();
                    let _ = notices.send(Notice { peer, at, kind }).await;
                }
                let at_once = self.handle(bytes);
                send(socket, &at_once)
            }
            ReadOutcome::Heard { .. } => {
                self.link.handle(Time::ZERO + self.clock.monotonic(), World::Heard);
                flush(socket)
            }
            ReadOutcome::Illegal(why) => {
                self.link.handle(Time::ZERO + self.clock.monotonic(), World::Illegal(why));
                self.poll_outputs(self.clock.monotonic(), &mut Vec::new());
                flush(socket)
            }
            ReadOutcome::Empty | ReadOutcome::Ended(_) | ReadOutcome::Warned(_) => Ok(()),
            ReadOutcome::Failed(failure) => Err(Broken(failure.error)),
        }
    }

    /// Passes received bytes to the link; returns the bytes to send at once. The delay begins after
    /// the handshake, since it applies to heartbeats only.
    fn handle(&mut self, bytes: &[u8]) -> Vec<u8> {
        let now = self.clock.monotonic();
        let mut at_once = Vec::new();
        self.link.handle(Time::ZERO + now, World::Received(bytes));
        self.poll_outputs(now, &mut at_once);
        // Everybody is admitted; an answer to no question has no effect.
        self.link.handle(Time::ZERO + now, Answer::admitted(self.session));
        self.poll_outputs(now, &mut at_once);
        at_once
    }

    /// Puts what is to be sent into `at_once`, or behind the delayed answers.
    fn poll_outputs(&mut self, now: Span, at_once: &mut Vec<u8>) {
        let delays = !self.leaving && self.delay > Span::ZERO;
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Transmit { bytes, .. } if self.established && delays => {
                    self.answers.push(now + self.delay, bytes.to_vec());
                }
                Output::Transmit { bytes, .. } => at_once.extend_from_slice(bytes),
                Output::Event(Event::Established { .. }) => self.established = true,
                Output::Session(session::Event::Left(verdict)) => self.lost = Some(verdict.cause),
                Output::Session(_)
                | Output::Event(_)
                | Output::Examine { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
    }
}

/// The error of a connection that takes or holds no more bytes.
struct Broken(SocketError);

/// Returns the cause of an end by `error`. Nothing was examined here, so no more is known.
fn cause_of(error: SocketError) -> Cause {
    match error {
        SocketError::Reset => Cause::PeerReset,
        SocketError::Refused | SocketError::HostUnreachable | SocketError::NetworkUnreachable => {
            Cause::Unreachable
        }
        SocketError::TimedOut => Cause::Unknown,
        SocketError::Local => Cause::LocalFault,
    }
}

/// Sends `bytes`, which are whole frames; what the socket does not take now waits.
fn send(socket: &mut Socket<TokioStream, impl Transport>, bytes: &[u8]) -> Result<(), Broken> {
    socket
        .queue(bytes, &[(bytes.len(), Lane::Data)], 0, QUEUE)
        .map_err(|_| Broken(SocketError::Local))?;
    flush(socket)
}

fn flush(socket: &mut Socket<TokioStream, impl Transport>) -> Result<(), Broken> {
    match socket.flush().failure {
        Some(failure) => Err(Broken(failure.error)),
        None => Ok(()),
    }
}

/// Measures the lengths of frames on the wire, heartbeats included, in whatever reads they arrive.
struct Meter {
    decoder: Decoder,
    /// Bytes of the next frame that have arrived.
    partial: usize,
}

impl Meter {
    /// Returns the length of each frame that ends in `bytes`. The link itself reports illegal
    /// bytes.
    fn measure(&mut self, mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        loop {
            let before = bytes.len();
            let whole = match self.decoder.next(&mut bytes) {
                Ok(frame) => frame.is_some(),
                Err(_) => return lengths,
            };
            self.partial += before - bytes.len();
            if !whole {
                return lengths;
            }
            lengths.push(std::mem::take(&mut self.partial));
        }
    }
}

#[cfg(test)]
mod tests;
