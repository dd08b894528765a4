//! One client of `systole pong`.

use std::io;
use std::net::SocketAddr;

use systole_core::cause::Cause;
use systole_core::link::{Event, Input, Limits, Output, SessionKey, Settings, Side};
use systole_core::liveness::Role;
use systole_core::policy::MAX_BOUND;
use systole_core::wire::{Codec, Decoder, MAX_DATA, Malformed};
use systole_core::{Link, Machine, Policy, Span, Time};
use systole_net::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::answers::Answers;

/// What one read takes.
const READ: usize = 16 * 1024;

/// What happened, to be printed.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) peer: SocketAddr,
    pub(crate) at: Span,
    pub(crate) told: Told,
}

#[derive(Debug)]
pub(crate) enum Told {
    Joined,
    /// A message of that many bytes.
    Received(usize),
    Illegal(Malformed),
    Left(Cause),
}

pub(crate) struct Connection {
    link: Link,
    meter: Meter,
    answers: Answers,
    delay: Span,
    clock: Clock,
    established: bool,
    lost: Option<Cause>,
}

impl Connection {
    /// Judges nobody: no deadline of this machine is ever handed to it.
    pub(crate) fn new(codec: Codec, session: u64, delay: Span, clock: Clock) -> Connection {
        let now = Time::ZERO + clock.monotonic();
        let settings = Settings {
            role: Role::Watch,
            // Whatever a client asks for is its own business.
            limits: Limits { shortest_bound: Span::ZERO, longest_bound: MAX_BOUND },
            ..Settings::new(codec, Side::Accepting, Policy::never())
        };
        let key = SessionKey { session, epoch: session };
        Connection {
            link: Link::new(now, settings, key, session),
            meter: Meter { decoder: Decoder::new(codec, MAX_DATA as u32), begun: 0 },
            answers: Answers::default(),
            delay,
            clock,
            established: false,
            lost: None,
        }
    }

    pub(crate) async fn serve(
        mut self,
        stream: TcpStream,
        peer: SocketAddr,
        news: mpsc::Sender<News>,
    ) {
        let told = Told::Joined;
        let _ = news.send(News { peer, at: self.clock.monotonic(), told }).await;
        let cause = match self.converse(stream, peer, &news).await {
            Ok(()) => self.lost.unwrap_or(Cause::PeerExited),
            Err(_) => Cause::PeerReset,
        };
        let at = self.clock.monotonic();
        if let Cause::Protocol(malformed) = cause {
            let _ = news.send(News { peer, at, told: Told::Illegal(malformed) }).await;
        }
        // Nobody prints any more if it fails: the program is ending.
        let _ = news.send(News { peer, at, told: Told::Left(cause) }).await;
    }

    async fn converse(
        &mut self,
        mut stream: TcpStream,
        peer: SocketAddr,
        news: &mpsc::Sender<News>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; READ];
        while self.lost.is_none() {
            let due = self.answers.next_due();
            let wait = due.map(|due| due.less(self.clock.monotonic()).into());
            tokio::select! {
                read = stream.read(&mut buffer), if !self.answers.is_full() => {
                    let bytes = buffer.get(..read?).unwrap_or_default();
                    if bytes.is_empty() {
                        break;
                    }
                    for len in self.meter.measure(bytes) {
                        let told = Told::Received(len);
                        let _ = news.send(News { peer, at: self.clock.monotonic(), told }).await;
                    }
                    let at_once = self.handle(bytes);
                    stream.write_all(&at_once).await?;
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    while let Some(bytes) = self.answers.pop(self.clock.monotonic()) {
                        stream.write_all(&bytes).await?;
                    }
                }
            }
        }
        stream.shutdown().await
    }

    /// Hands over what was read; returns what goes out at once. Until the handshake is complete
    /// that is everything: the delay is one of heartbeats.
    fn handle(&mut self, bytes: &[u8]) -> Vec<u8> {
        let now = self.clock.monotonic();
        self.link.handle(Time::ZERO + now, Input::Received(bytes));
        let mut at_once = Vec::new();
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Transmit { bytes, .. } if self.established && self.delay > Span::ZERO => {
                    self.answers.push(now + self.delay, bytes.to_vec());
                }
                Output::Transmit { bytes, .. } => at_once.extend_from_slice(bytes),
                Output::Event(Event::Established { .. }) => self.established = true,
                Output::Event(Event::Lost { verdict, .. }) => self.lost = Some(verdict.cause),
                Output::Event(
                    Event::Suspect
                    | Event::Warned { .. }
                    | Event::Recovered
                    | Event::Overdue { .. }
                    | Event::Hung { .. }
                    | Event::Data { .. }
                    | Event::HeartbeatData(_)
                    | Event::Retuned(_)
                    | Event::RoundTrip(_)
                    | Event::HeartbeatSent { .. }
                    | Event::HeartbeatReceived { .. },
                )
                | Output::Examine
                | Output::Close(_) => {}
            }
        }
        at_once
    }
}

/// Measures messages, in whatever pieces they arrive.
struct Meter {
    decoder: Decoder,
    /// How much of the next message has arrived.
    begun: usize,
}

impl Meter {
    /// How long each message is that ends in `bytes`. What is illegal the link says itself.
    fn measure(&mut self, mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        loop {
            let before = bytes.len();
            let whole = match self.decoder.next(&mut bytes) {
                Ok(frame) => frame.is_some(),
                Err(_) => return lengths,
            };
            self.begun += before - bytes.len();
            if !whole {
                return lengths;
            }
            lengths.push(std::mem::take(&mut self.begun));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_measured_and_not_reads() {
        let mut meter = Meter { decoder: Decoder::new(Codec::Native, 65_536), begun: 0 };
        let stream = b"\x10\x01\x50\x05hello\x50\x00\x12\x02\x03abc";
        let whole = meter.measure(stream);
        assert_eq!(whole, [2, 7, 2, 6]);
        let single: Vec<usize> = stream.iter().flat_map(|byte| meter.measure(&[*byte])).collect();
        assert_eq!(single, whole);
    }
}
