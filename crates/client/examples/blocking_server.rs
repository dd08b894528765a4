//! The core under blocking sockets, a thread for each client: messages are sent back, and a client
//! that falls silent is found although its thread sits in `read`.
//!
//! `cargo run --example blocking_server -- 127.0.0.1:7400 [bound in seconds]`

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use systole_core::kernel::SocketError;
use systole_core::link::{Command, Event, Input, Output, SessionKey, Settings, Side};
use systole_core::wire::{Codec, DataKind};
use systole_core::{Link, Machine, Policy, Span, Time};
use systole_net::Clock;

/// The system refuses a timeout of zero.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// From one look at a socket that was closed on the other side to the next.
const AFTER_END: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let bound: u64 = args.next().map_or(Ok(8), |text| text.parse())?;
    let part = Span::from_millis(bound.saturating_mul(1_000) / 4);
    let policy = Policy::new(part, part, 3)?;

    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);
    for (session, stream) in (1..).zip(listener.incoming()) {
        let stream = stream?;
        std::thread::spawn(move || match serve(stream, policy, session) {
            Ok(()) => println!("{session}: closed"),
            Err(error) => println!("{session}: {error}"),
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream, policy: Policy, session: u64) -> std::io::Result<()> {
    let clock = Clock::start();
    let now = || Time::ZERO + clock.monotonic();
    let settings = Settings::new(Codec::Native, Side::Accepting, policy);
    let key = SessionKey { session, epoch: session };
    let mut link = Link::new(now(), settings, key, session);
    let mut buffer = [0; 4_096];
    let mut ended = false;
    while carry_out(&mut link, &mut stream, now())? {
        let wait = link.next_deadline().map(|next| Duration::from(next.at.since(now())));
        if ended {
            link.handle(now(), after_end(&stream));
            continue;
        }
        stream.set_read_timeout(wait.map(|wait| wait.max(SHORTEST_WAIT)))?;
        match stream.read(&mut buffer) {
            Ok(0) => {
                ended = true;
                link.handle(now(), Input::Ended);
            }
            Ok(n) => link.handle(now(), Input::Received(&buffer[..n])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                link.handle(now(), Input::Deadline);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A stream that has ended would read as ended for ever. What tells that the peer does not read on
/// either is the error that the machine's PING brings.
fn after_end(stream: &TcpStream) -> Input<'static> {
    std::thread::park_timeout(AFTER_END);
    match stream.take_error() {
        Ok(None) => Input::Deadline,
        Ok(Some(_)) | Err(_) => Input::Failed(SocketError::Reset),
    }
}

/// Does what the machine wants; false when the link has ended.
fn carry_out(link: &mut Link, stream: &mut TcpStream, now: Time) -> std::io::Result<bool> {
    let mut echoes = Vec::new();
    let mut open = true;
    while let Some(output) = link.poll_output() {
        match output {
            Output::Transmit { bytes, .. } => stream.write_all(bytes)?,
            Output::Event(Event::Data { bytes, more, .. }) => echoes.push((bytes.to_vec(), more)),
            Output::Event(event) => println!("{event:?}"),
            // Asked for only of shells that can look at their sockets.
            Output::Examine => {}
            Output::Close(_) => open = false,
        }
    }
    if !open || echoes.is_empty() {
        return Ok(open);
    }
    for (bytes, more) in echoes {
        let echo = Command::Send { bytes: &bytes, more, kind: DataKind::default() };
        link.handle(now, Input::Command(echo));
    }
    carry_out(link, stream, now)
}
