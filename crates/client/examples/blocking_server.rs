//! The link machine with blocking sockets, one thread per client: it echoes messages, and detects a
//! silent client although the thread blocks in `read`.
//!
//! `cargo run --example blocking_server -- 127.0.0.1:7400 [bound in seconds]`

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use systole_core::kernel::SocketError;
use systole_core::link::{
    Answer, Command, Event, Input, Output, SessionKey, Settings, Side, World,
};
use systole_core::wire::{Codec, DataKind};
use systole_core::{Link, Machine, Policy, Span, Time};
use systole_net::Clock;
use systole_net::examine::socket_error;

/// Shortest read timeout: the system refuses zero.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Time between two examinations of a socket whose peer has sent FIN.
const AFTER_FIN: Duration = Duration::from_millis(20);

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
            Ok(()) => println!("{session:016x}: closed"),
            Err(error) => println!("{session:016x}: {error}"),
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream, policy: Policy, session: u64) -> std::io::Result<()> {
    let clock = Clock::start();
    let now = || Time::ZERO + clock.monotonic();
    let settings = Settings::new(Codec::Native, Side::Accepting, policy);
    let mut link = Link::new(now(), settings, session);
    let mut buffer = [0; 4_096];
    let mut peer_closed = false;
    while process_outputs(&mut link, session, &mut stream, now())? {
        let wait = link.next_deadline().map(|next| Duration::from(next.at.since(now())));
        if peer_closed {
            link.handle(now(), wait_after_fin(&stream));
            continue;
        }
        stream.set_read_timeout(wait.map(|wait| wait.max(SHORTEST_WAIT)))?;
        match stream.read(&mut buffer) {
            Ok(0) => {
                peer_closed = true;
                link.handle(now(), World::Ended);
            }
            Ok(n) => link.handle(now(), World::Received(&buffer[..n])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                link.handle(now(), Answer::Deadline);
            }
            // A process that was stopped and goes on: what arrived meanwhile is read before the
            // deadline is handed in.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                link.handle(now(), World::Failed(socket_error(&error)));
            }
        }
    }
    Ok(())
}

/// Waits instead of reading, since a stream after its FIN always reads as ended. A socket error,
/// the peer's answer to the machine's PING, shows that the peer does not read either.
fn wait_after_fin(stream: &TcpStream) -> Input<'static> {
    std::thread::park_timeout(AFTER_FIN);
    match stream.take_error() {
        Ok(None) => Answer::Deadline.into(),
        Ok(Some(_)) | Err(_) => World::Failed(SocketError::Reset).into(),
    }
}

/// Performs the machine's outputs; returns false when the link has ended.
fn process_outputs(
    link: &mut Link,
    session: u64,
    stream: &mut TcpStream,
    now: Time,
) -> std::io::Result<bool> {
    let (mut echoes, mut asked) = (Vec::new(), false);
    let mut open = true;
    while let Some(output) = link.poll_output() {
        match output {
            Output::Transmit { bytes, .. } => stream.write_all(bytes)?,
            Output::Event(Event::Data { bytes, more, .. }) => echoes.push((bytes.to_vec(), more)),
            Output::Session(event) => println!("{event:?}"),
            Output::Event(event) => println!("{event:?}"),
            Output::Admit => asked = true,
            // Requested only if `Settings::examines` is set.
            Output::Examine { .. } | Output::Patience(_) => {}
            Output::Close(_) => open = false,
        }
    }
    if !open || echoes.is_empty() && !asked {
        return Ok(open);
    }
    if asked {
        // Everybody is admitted here, each with a session of its own.
        link.handle(now, Answer::admitted(SessionKey { session, epoch: session }));
    }
    for (bytes, more) in echoes {
        let echo = Command::Send { bytes: &bytes, more, kind: DataKind::default() };
        link.handle(now, World::Command(echo));
    }
    process_outputs(link, session, stream, now)
}
