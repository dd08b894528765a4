//! Tests of the limits on the memory of all clients of a shard together.

use super::*;
use systole_core::wire::Malformed;

/// Sends a line and reads it back.
fn echo(client: &mut TcpStream) {
    client.write_all(b"are you there?\n").unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"are you there?\n");
}

#[test]
fn clients_that_hold_frames_incomplete_lose_and_honest_ones_go_on() {
    let memory = 1024 * 1024;
    let mut running = start(Policy::default(), |setup| setup.frame_memory = memory);
    let mut honest = running.connect(Codec::Line);
    echo(&mut honest);
    running.join();
    // Each holds about 60,000 bytes; 17 of them fit.
    let mut holders = Vec::new();
    for _ in 0..40 {
        let mut client = running.connect(Codec::Native);
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Hello(hello()), &mut bytes);
        bytes.extend_from_slice(b"\x50\x80\x80\x04");
        bytes.resize(bytes.len() + 60_000, 7);
        client.write_all(&bytes).unwrap();
        holders.push(client);
        echo(&mut honest);
    }
    for _ in 0..20 {
        assert_eq!(running.leave(), Cause::Protocol(Malformed::OldestFrame));
    }
    echo(&mut honest);
    assert!(running.stats.frames_dropped.get() >= 20);
    let held = running.stats.frame_bytes.get();
    assert!(held > 0 && held <= memory as u64, "{held}");
    running.stop();
}

#[test]
fn clients_with_the_largest_outboxes_lose_and_small_ones_are_sent_all() {
    let memory = 16 * 1024 * 1024;
    let mut running = start(Policy::default(), |setup| {
        setup.outbox_limit = 64 * 1024 * 1024;
        setup.outbox_memory = memory;
    });
    let mut honest = running.connect(Codec::Line);
    echo(&mut honest);
    running.join();
    let mut line = vec![b'x'; 60_000];
    line.push(b'\n');
    // They send and never read, so what is echoed to them waits.
    let mut greedy: Vec<_> = (0..3).map(|_| running.connect(Codec::Line)).collect();
    let senders = greedy.iter_mut().map(|client| client.try_clone().unwrap());
    let threads: Vec<_> = senders
        .map(|mut client| {
            let line = line.clone();
            client.set_write_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || while client.write_all(&line).is_ok() {})
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(running.leave(), Cause::SlowConsumer);
        echo(&mut honest);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(running.stats.outbox_bytes.get() <= memory as u64);
    assert_eq!(running.stats.outboxes_dropped.get(), 3);
    running.stop();
}
