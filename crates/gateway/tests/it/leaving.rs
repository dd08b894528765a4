//! Tests of leave-taking: what was accepted for sending arrives, and CLOSE after it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use systole_core::cause::Cause;
use systole_core::hub;
use systole_core::wire::{CloseReason, Codec, DataKind, Frame};
use systole_core::{Policy, Span};
use systole_gateway::request::{Order, Request};
use systole_net::Clock;
use tokio::sync::oneshot;

use crate::shard::{Native, PATIENCE, Running, hello, start};

/// The pause of a slow reader after every 4 KiB: it reads about 100 kB a second.
const SLOW: Duration = Duration::from_millis(40);

fn sleep(pause: Duration) {
    #[allow(clippy::disallowed_methods)] // Limits the rate at which a client reads.
    std::thread::sleep(pause);
}

/// Reads with [`SLOW`] pauses.
struct SlowReader<R>(R);

impl<R: Read> Read for SlowReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        sleep(SLOW);
        let most = buffer.len().min(4_096);
        self.0.read(&mut buffer[..most])
    }
}

/// Sends `count` messages, and waits until the gateway has read them: it has queued the echoes.
fn fill(running: &Running, client: &mut Native, count: usize, message: &[u8]) {
    let mut bytes = Vec::new();
    let data = Frame::data(message, false, DataKind::default());
    Codec::Native.encode(&data, &mut bytes);
    let mut greeting = Vec::new();
    Codec::Native.encode(&Frame::Hello(hello()), &mut greeting);
    for _ in 0..count {
        client.stream.write_all(&bytes).unwrap();
    }
    let sent = (greeting.len() + count * bytes.len()) as u64;
    let clock = Clock::start();
    while running.stats.bytes_in.get() < sent {
        assert!(clock.monotonic() < PATIENCE.into(), "the gateway reads");
        std::thread::yield_now();
    }
}

/// Reads to the end of the stream, with a pause after every 4 KiB of data. Returns the number of
/// data bytes and the reason of the CLOSE after them.
fn read_to_close(client: &mut Native, pause: Duration) -> (usize, Option<CloseReason>) {
    let (mut data, mut reason) = (0, None);
    while client.next(|frame| {
        assert!(reason.is_none(), "a frame after CLOSE");
        match frame {
            Frame::Data { bytes, .. } => {
                if data / 4_096 < (data + bytes.len()) / 4_096 {
                    sleep(pause);
                }
                data += bytes.len();
            }
            Frame::Close(close) => reason = Some(close.reason),
            other => panic!("{other:?}"),
        }
        true
    }) {}
    (data, reason)
}

#[test]
fn a_kicked_client_gets_all_that_was_queued_and_then_close() {
    let mut running = start(Policy::default(), |setup| setup.outbox_limit = 8 * 1024 * 1024);
    let mut client = running.hello_narrow();
    let session = running.join();
    let message = vec![7; 60_000];
    fill(&running, &mut client, 40, &message);
    let (reply, answer) = oneshot::channel();
    let order = Order::Kick { stay_away: false, text: Box::default() };
    running.shard.requests.send(Request::Order { session, order, reply }).unwrap();
    assert!(answer.blocking_recv().unwrap());
    assert_eq!(running.leave(), Cause::Kicked);
    let all = (40 * message.len(), Some(CloseReason::Kicked));
    assert_eq!(read_to_close(&mut client, Duration::ZERO), all);
    running.stop();
}

#[test]
fn a_slow_line_client_that_shuts_its_side_gets_every_line() {
    let mut running = start(Policy::default(), |_| {});
    let mut client = running.connect_narrow(Codec::Line);
    let mut line = vec![b'x'; 999];
    line.push(b'\n');
    let lines = line.repeat(240);
    client.write_all(&lines).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    SlowReader(client).read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), lines.len());
    assert_eq!(running.leave(), Cause::PeerExited);
    running.stop();
}

#[test]
fn a_drain_delivers_all_messages_and_close_to_a_slow_reader() {
    let mut running = start(Policy::default(), |setup| setup.outbox_limit = 1024 * 1024);
    let mut client = running.hello_narrow();
    running.join();
    fill(&running, &mut client, 230, &[7; 1_000]);
    let drain = hub::HubCommand::Drain { limit: Span::from_secs(30), reconnect_within: Span::ZERO };
    running.shard.requests.send(Request::Command(drain)).unwrap();
    assert_eq!(running.leave(), Cause::Drained);
    assert_eq!(read_to_close(&mut client, SLOW), (230_000, Some(CloseReason::Drained)));
    running.stop();
}
