//! A client of the native protocol for tests and benches: a socket, and the decoder of the core.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use systole_core::wire::{Beat, Close, CloseReason, Codec, Decoder, Frame, Hello};

/// Length of the read buffer: enough for any answer to a login, in one read.
const READ: usize = 4_096;

/// A connection that has sent HELLO.
pub(crate) struct Client {
    stream: TcpStream,
    decoder: Decoder,
    received: Vec<u8>,
    /// How much of `received` is decoded.
    at: usize,
    /// The session and its epoch; zeros before WELCOME.
    pub(crate) session: (u64, u64),
}

/// What the gateway says when it ends a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Goodbye {
    pub(crate) reason: CloseReason,
    /// Whether the client is not to come back.
    pub(crate) stay_away: bool,
    /// After how many milliseconds it may come back.
    pub(crate) return_after_ms: u32,
    pub(crate) text: String,
}

impl From<Close<'_>> for Goodbye {
    fn from(close: Close<'_>) -> Goodbye {
        Goodbye {
            reason: close.reason,
            stay_away: close.final_,
            return_after_ms: close.return_after_ms,
            text: close.text.to_owned(),
        }
    }
}

/// Returns the HELLO of a client that claims an identity.
pub(crate) fn named(identity: &str) -> Hello<'_> {
    Hello { identity, ..Hello::default() }
}

impl Client {
    /// Sends HELLO over a connected socket. No read waits longer than `limit`.
    pub(crate) fn greet(stream: TcpStream, hello: Hello<'_>, limit: Duration) -> Option<Client> {
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        let decoder = Decoder::new(Codec::Native, 65_536);
        let mut client = Client { stream, decoder, received: Vec::new(), at: 0, session: (0, 0) };
        client.send(&[Frame::Hello(hello)]).then_some(client)
    }

    /// Sends HELLO over a connected socket, and returns the answer: WELCOME or CLOSE; `None` if
    /// the connection ends without one.
    pub(crate) fn ask(
        stream: TcpStream,
        hello: Hello<'_>,
        limit: Duration,
    ) -> Option<Result<Client, Goodbye>> {
        let mut client = Client::greet(stream, hello, limit)?;
        let answer = client.find(|frame| {
            if let Frame::Welcome(welcome) = frame {
                return Some(Ok((welcome.session, welcome.epoch)));
            }
            let Frame::Close(close) = frame else { return None };
            Some(Err(close.into()))
        })?;
        Some(answer.map(|session| Client { session, ..client }))
    }

    /// Logs in over a connected socket; `None` if the gateway sends the client away.
    pub(crate) fn log_in(stream: TcpStream, hello: Hello<'_>, limit: Duration) -> Option<Client> {
        Client::ask(stream, hello, limit)?.ok()
    }

    /// Sends frames; returns whether the socket took them.
    pub(crate) fn send(&mut self, frames: &[Frame<'_>]) -> bool {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| Codec::Native.encode(frame, &mut bytes));
        self.stream.write_all(&bytes).is_ok()
    }

    /// Reads frames until `wanted` returns something; `None` if the stream ends before, nothing
    /// comes in time, or the bytes are illegal.
    pub(crate) fn find<T>(&mut self, mut wanted: impl FnMut(Frame<'_>) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = self.find_received(&mut wanted)? {
                return Some(found);
            }
            self.receive()?;
        }
    }

    /// Reads once from the socket.
    pub(crate) fn receive(&mut self) -> Option<()> {
        self.received.resize(READ, 0);
        let read = self.stream.read(&mut self.received).unwrap_or(0);
        self.received.truncate(read);
        self.at = 0;
        (read > 0).then_some(())
    }

    /// Looks for a frame among those that are received already; `None` if the bytes are illegal.
    pub(crate) fn find_received<T>(
        &mut self,
        mut wanted: impl FnMut(Frame<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        let mut rest = self.received.get(self.at..).unwrap_or_default();
        let mut found = None;
        while found.is_none()
            && let Some(frame) = self.decoder.next(&mut rest).ok()?
        {
            found = wanted(frame);
        }
        self.at = self.received.len() - rest.len();
        Some(found)
    }
}

/// What tests alone do with a client.
impl Client {
    /// Reads frames as [`Client::find`] does, and panics where nothing is found.
    pub(crate) fn until<T>(&mut self, wanted: impl FnMut(Frame<'_>) -> Option<T>) -> T {
        self.find(wanted).expect("a frame, in time")
    }

    /// Waits for CLOSE.
    pub(crate) fn goodbye(&mut self) -> Goodbye {
        self.until(|frame| {
            let Frame::Close(close) = frame else { return None };
            Some(close.into())
        })
    }

    /// Returns the next message, put together from its parts.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        self.until(|frame| {
            let Frame::Data { bytes, more, .. } = frame else { return None };
            whole.extend_from_slice(bytes);
            (!more).then_some(())
        });
        whole
    }

    /// Answers each heartbeat until the gateway ends the link.
    pub(crate) fn live(mut self) {
        loop {
            let sequence = self.find(|frame| {
                if let Frame::Ping(beat) = frame {
                    return Some(Some(beat.sequence));
                }
                matches!(frame, Frame::Close(_)).then_some(None)
            });
            let Some(Some(sequence)) = sequence else { return };
            if !self.send(&[Frame::Pong(Beat::bare(sequence))]) {
                return;
            }
        }
    }
}
