//! Test server for one connection at a time, with the link machine of the core, controlled by the
//! test.

use std::fmt;

use socket2::SockRef;
use systole_core::link::{
    Answer, Command, Event, Goodbye, Limits, Output, SessionKey, Settings, Side, Windows, World,
};
use systole_core::wire::{Account, Codec, DataKind};
use systole_core::{Link, Machine, Policy, Span, Time, session};
use systole_net::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::soon;

/// Test server: a listening socket on a free port.
pub(crate) struct Server {
    listener: TcpListener,
    codec: Codec,
    policy: Policy,
    pub(crate) max_data: u32,
    /// The windows of sessions.
    pub(crate) window: Option<Windows>,
}

impl Server {
    pub(crate) async fn bind(codec: Codec, policy: Policy) -> Server {
        Server {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
            codec,
            policy,
            max_data: 65_536,
            window: None,
        }
    }

    pub(crate) fn addr(&self) -> String {
        self.listener.local_addr().expect("bound").to_string()
    }

    /// Accepts the next connection, without its handshake.
    pub(crate) async fn accept(&self, session: u64) -> Peer {
        let (stream, _) = soon(self.listener.accept()).await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        let clock = Clock::start();
        let limits = Limits { shortest_bound: Span::from_millis(10), ..Limits::default() };
        let settings = Settings {
            limits,
            max_data: self.max_data,
            window: self.window,
            ..Settings::new(self.codec, Side::Accepting, self.policy)
        };
        Peer {
            stream,
            link: Link::new(Time::ZERO, settings, 7),
            session: SessionKey { session, epoch: session },
            clock,
            heard: Vec::new(),
            round_trips: 0,
            account: None,
            partial: Vec::new(),
            single_bytes: false,
        }
    }

    /// Accepts the next connection and completes its handshake.
    pub(crate) async fn welcome(&self, session: u64) -> Peer {
        self.complete(self.accept(session).await).await
    }

    /// Completes the handshake of an accepted connection.
    pub(crate) async fn complete(&self, mut peer: Peer) -> Peer {
        if self.codec.has_handshake() {
            soon(async {
                while !peer.heard.iter().any(|heard| matches!(heard, Heard::Established)) {
                    peer.turn().await;
                }
            })
            .await;
        }
        peer
    }
}

/// An event of a peer's link machine.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Established,
    Message(Vec<u8>),
    HeartbeatData(Vec<u8>),
    Retuned(Policy),
    Lost,
}

impl fmt::Debug for Heard {
    /// Formats messages by length only: some have megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Heard::Established => f.write_str("Established"),
            Heard::Message(bytes) => write!(f, "Message of {} bytes", bytes.len()),
            Heard::HeartbeatData(bytes) => write!(f, "HeartbeatData({bytes:?})"),
            Heard::Retuned(policy) => write!(f, "Retuned({policy})"),
            Heard::Lost => f.write_str("Lost"),
        }
    }
}

/// One accepted connection, which acts only when the test calls it.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) link: Link,
    session: SessionKey,
    clock: Clock,
    pub(crate) heard: Vec<Heard>,
    /// The answers of the client to heartbeats.
    pub(crate) round_trips: usize,
    /// The client's account of its previous link.
    pub(crate) account: Option<Account>,
    partial: Vec<u8>,
    /// Whether each byte is written separately.
    pub(crate) single_bytes: bool,
}

impl Peer {
    /// Reads once, passes the bytes to the machine, and writes its answers. False at end of file.
    pub(crate) async fn turn(&mut self) -> bool {
        let mut buffer = vec![0; 65_536];
        let n = self.stream.read(&mut buffer).await.unwrap_or(0);
        let now = self.now();
        self.link.handle(now, if n == 0 { World::Ended } else { World::Received(&buffer[..n]) });
        self.pump().await;
        n > 0
    }

    /// Waits for the client's HELLO and leaves it unread; returns the token, its last field.
    pub(crate) async fn token(&self) -> String {
        let mut seen = vec![0; 2_048];
        soon(async {
            loop {
                let n = self.stream.peek(&mut seen).await.expect("a connection");
                if let Some(token) = token(&seen[..n]) {
                    return String::from_utf8_lossy(token).into_owned();
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// Answers HELLO with CLOSE, "unauthorized" and "do not come back", as a gateway answers a bad
    /// token.
    pub(crate) async fn refuse(mut self) {
        let close = [0x70, 7, 4, 1, 0, 0, 0, 0, 0];
        self.stream.write_all(&close).await.expect("room in the socket");
        let _ = self.stream.shutdown().await;
        // A HELLO that nobody has read would make a reset of the end.
        while self.stream.read(&mut [0; 2_048]).await.is_ok_and(|n| n > 0) {}
    }

    /// Serves the client until it closes its side.
    pub(crate) async fn serve(mut self) {
        while self.turn().await {}
    }

    /// Serves the client until the machine has reported `wanted`.
    pub(crate) async fn until(&mut self, wanted: &Heard) {
        soon(async {
            while !self.heard.contains(wanted) {
                assert!(self.turn().await, "ended before {wanted:?}, after {:?}", self.heard);
            }
        })
        .await;
    }

    /// Sends bytes past the link machine; the last one is urgent.
    pub(crate) fn send_urgent(&self, bytes: &[u8]) {
        let sent = SockRef::from(&self.stream).send_out_of_band(bytes).expect("room in the socket");
        assert_eq!(sent, bytes.len());
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.command(Command::Send { bytes, more: false, kind: DataKind::Eleven }).await;
    }

    pub(crate) async fn close(&mut self, goodbye: Goodbye) {
        self.command(Command::close(goodbye)).await;
        let _ = self.stream.shutdown().await;
    }

    pub(crate) async fn command(&mut self, command: Command<'_>) {
        let now = self.now();
        self.link.handle(now, World::Command(command));
        self.pump().await;
    }

    fn now(&self) -> Time {
        Time::ZERO + self.clock.monotonic()
    }

    async fn pump(&mut self) {
        let mut bytes_out = Vec::new();
        self.poll_outputs(&mut bytes_out);
        // An answer to no question has no effect.
        self.link.handle(self.now(), Answer::admitted(self.session));
        self.poll_outputs(&mut bytes_out);
        self.write(&bytes_out).await;
    }

    fn poll_outputs(&mut self, bytes_out: &mut Vec<u8>) {
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => bytes_out.extend_from_slice(bytes),
                Output::Session(session::Event::Joined { account, .. }) => {
                    self.account = account;
                    self.heard.push(Heard::Established);
                }
                Output::Event(Event::Data { bytes, more, .. }) => {
                    self.partial.extend_from_slice(bytes);
                    if !more {
                        self.heard.push(Heard::Message(std::mem::take(&mut self.partial)));
                    }
                }
                Output::Event(Event::HeartbeatData(bytes)) => {
                    self.heard.push(Heard::HeartbeatData(bytes.to_vec()));
                }
                Output::Event(Event::RoundTrip(_)) => self.round_trips += 1,
                Output::Session(session::Event::Retuned(policy)) => {
                    self.heard.push(Heard::Retuned(policy))
                }
                Output::Session(session::Event::Left(_)) => self.heard.push(Heard::Lost),
                Output::Session(_)
                | Output::Event(_)
                | Output::Examine { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
    }

    async fn write(&mut self, bytes_out: &[u8]) {
        let step = if self.single_bytes { 1 } else { bytes_out.len().max(1) };
        for piece in bytes_out.chunks(step) {
            if self.stream.write_all(piece).await.is_err() {
                return;
            }
            if self.single_bytes {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Returns the token in a whole HELLO.
fn token(hello: &[u8]) -> Option<&[u8]> {
    /// The length of the fields before the resume token.
    const FIXED: usize = 109;
    let mut at = 1;
    let length = varint(hello, &mut at)?;
    let body = hello.get(at..at + length)?;
    let mut at = FIXED;
    for _ in 0..2 {
        at += varint(body, &mut at)?;
    }
    let length = varint(body, &mut at)?;
    body.get(at..at + length)
}

/// Reads a varint of one or two bytes.
fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let low = usize::from(*bytes.get(*at)?);
    *at += 1;
    if low < 0x80 {
        return Some(low);
    }
    let high = usize::from(*bytes.get(*at)?);
    *at += 1;
    Some(low & 0x7f | high << 7)
}
