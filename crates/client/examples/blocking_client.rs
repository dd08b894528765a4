//! The link machine with a blocking socket, without task, thread or runtime: a `read` on a dead
//! link returns at the bound, because its timeout is the machine's next deadline.
//!
//! `cargo run --example blocking_client -- 127.0.0.1:7400 [bound in seconds]`

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use systole_core::kernel::SocketError;
use systole_core::link::{
    Answer, Command, Event, Input, Introduction, Output, Settings, Side, World,
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

    let mut stream = TcpStream::connect(addr)?;
    let clock = Clock::start();
    let introduction = Introduction { asks: Some(policy), ..Introduction::default() };
    let settings = Settings::new(Codec::Native, Side::Connecting(introduction), policy);
    let mut link = Link::new(Time::ZERO, settings, 1);
    let mut buffer = [0; 4_096];
    let mut peer_closed = false;
    while process_outputs(&mut link, &mut stream, &clock)? {
        let wait = link.next_deadline().map(|next| Duration::from(next.at.since(now(&clock))));
        if peer_closed {
            link.handle(now(&clock), wait_after_fin(&stream));
            continue;
        }
        stream.set_read_timeout(wait.map(|wait| wait.max(SHORTEST_WAIT)))?;
        match stream.read(&mut buffer) {
            Ok(0) => {
                peer_closed = true;
                link.handle(now(&clock), World::Ended);
            }
            Ok(n) => link.handle(now(&clock), World::Received(&buffer[..n])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                link.handle(now(&clock), Answer::Deadline);
            }
            // A process that was stopped and goes on: what arrived meanwhile is read before the
            // deadline is handed in.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                link.handle(now(&clock), World::Failed(socket_error(&error)));
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
    stream: &mut TcpStream,
    clock: &Clock,
) -> std::io::Result<bool> {
    let mut open = true;
    let mut established = false;
    while let Some(output) = link.poll_output() {
        match output {
            Output::Transmit { bytes, .. } => stream.write_all(bytes)?,
            Output::Session(event) => println!("{event:?}"),
            Output::Event(event) => {
                println!("{event:?}");
                established |= matches!(event, Event::Established { .. });
            }
            // Requested only by an accepting end, or if `Settings::examines` is set.
            Output::Admit | Output::Examine { .. } | Output::Patience(_) => {}
            Output::Close(_) => open = false,
        }
    }
    if established {
        let hello = Command::Send { bytes: b"hello", more: false, kind: DataKind::default() };
        link.handle(now(clock), World::Command(hello));
        return process_outputs(link, stream, clock);
    }
    Ok(open)
}

fn now(clock: &Clock) -> Time {
    Time::ZERO + clock.monotonic()
}
