//! One suite over the plain transport and over a toy that seals records, parts of it over TLS.

mod links;
pub(crate) mod records;
mod scripted;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_faults;
#[cfg(feature = "tls")]
mod tls_memory;

use std::net::{TcpListener, TcpStream};

use systole_core::link::Lane;
use systole_core::random::Random;

use super::*;
use records::{HEADER, Records};
use scripted::{Given, Scripted};

/// A transport of the suite.
trait Tested: Transport + Sized {
    /// What the end of the stream means if the peer did not finish.
    const CUT: End;
    /// The most that is sent before control besides the frame that has begun.
    const BELOW: usize;
    /// Whether bytes may hold no plaintext.
    const SEALED: bool;

    /// Returns both ends of a connection.
    fn pair() -> (Self, Self);
}

impl Tested for Plain {
    const CUT: End = End::Closed;
    const BELOW: usize = 0;
    const SEALED: bool = false;

    fn pair() -> (Plain, Plain) {
        (Plain, Plain)
    }
}

impl Tested for Records {
    const CUT: End = End::Truncated;
    const BELOW: usize = MAX_RECORD;
    const SEALED: bool = true;

    fn pair() -> (Records, Records) {
        (Records::default(), Records::default())
    }
}

type Half<T> = Socket<Scripted, T>;

/// Runs a test over both transports.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod plain { $(#[test] fn $name() { super::$name::<super::Plain>(); })* }
        mod sealed { $(#[test] fn $name() { super::$name::<super::Records>(); })* }
    };
}
use over_both;

over_both! {
    bytes_cut_at_every_place_give_the_same_plaintext
    a_buffer_of_any_size_loses_nothing_and_more_is_told_until_it_is_empty
    the_end_comes_once_wherever_it_falls
    soft_errors_of_a_read_are_told_and_the_connection_goes_on
    a_frame_that_was_begun_is_completed_before_control
    gathered_frames_leave_in_one_write_each_record
    last_words_are_the_front_of_the_queue_and_no_orderly_end
    a_failed_socket_drops_everything_and_says_so_again
    an_error_after_the_end_is_asked_for
}

fn half<T: Tested>() -> Half<T> {
    Socket::new(Scripted::new(), T::pair().0, ())
}

/// Returns what `plaintext` becomes on the wire, in writes of any size, and with the close if
/// `finished`.
fn wire<T: Tested>(plaintext: &[u8], finished: bool) -> Vec<u8> {
    let mut sender = half::<T>();
    assert_eq!(sender.write(plaintext).taken, plaintext.len());
    if finished {
        sender.finish();
        sender.flush();
    }
    assert!(sender.is_flushed());
    sender.stream().take_written()
}

/// Returns what the wire bytes of one side say.
fn opened<T: Tested>(wire: &[u8]) -> Vec<u8> {
    let mut receiver = half::<T>();
    receiver.stream().give(Given::Bytes(wire.to_vec()));
    read_all(&mut receiver, 4_096)
}

/// Reads until there is nothing, and checks what the outcomes say of each other.
fn read_all<T: Tested>(half: &mut Half<T>, size: usize) -> Vec<u8> {
    let mut buffer = vec![0; size];
    let mut all = Vec::new();
    loop {
        match half.read(&mut buffer) {
            ReadOutcome::Bytes { count, more } => {
                assert!(count > 0);
                all.extend_from_slice(&buffer[..count]);
                assert!(more || half.stream().is_drained() && !half.holds_more());
            }
            ReadOutcome::Heard { more } => {
                assert!(T::SEALED);
                assert!(more || half.stream().is_drained() && !half.holds_more());
            }
            ReadOutcome::Empty => return all,
            outcome @ (ReadOutcome::Ended(_)
            | ReadOutcome::Warned(_)
            | ReadOutcome::Illegal(_)
            | ReadOutcome::Failed(_)) => panic!("{outcome:?}"),
        }
    }
}

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 % 251) as u8).collect()
}

fn bytes_cut_at_every_place_give_the_same_plaintext<T: Tested>() {
    let plaintext = message(60);
    let bytes = wire::<T>(&plaintext, false);
    for first in 0..bytes.len() {
        for second in [first, (first + bytes.len()) / 2] {
            let mut receiver = half::<T>();
            for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                if !piece.is_empty() {
                    receiver.stream().give(Given::Bytes(piece.to_vec()));
                }
            }
            assert_eq!(read_all(&mut receiver, 64), plaintext, "cut at {first} and {second}");
        }
    }
    let mut receiver = half::<T>();
    let large = message(3 * MAX_RECORD + 5);
    let mut all = Vec::new();
    for piece in wire::<T>(&large, false).chunks(1_111) {
        receiver.stream().give(Given::Bytes(piece.to_vec()));
        all.extend(read_all(&mut receiver, 8_192));
    }
    assert_eq!(all, large);
}

fn a_buffer_of_any_size_loses_nothing_and_more_is_told_until_it_is_empty<T: Tested>() {
    let plaintext = message(2 * MAX_RECORD + 100);
    let bytes = wire::<T>(&plaintext, false);
    for size in [1, 2, 3, 7, 100, 1_024, MAX_RECORD, 4 * MAX_RECORD] {
        let mut receiver = half::<T>();
        receiver.stream().give(Given::Bytes(bytes.clone()));
        assert_eq!(read_all(&mut receiver, size), plaintext, "a buffer of {size}");
        assert!(!receiver.holds_more());
    }
}

#[test]
fn a_read_that_does_not_fill_the_buffer_does_not_empty_a_sealed_transport() {
    let plaintext = message(MAX_RECORD);
    let bytes = wire::<Records>(&plaintext, false);
    let (most, rest) = bytes.split_at(bytes.len() - 3);
    let mut receiver = half::<Records>();
    let mut buffer = vec![0; MAX_RECORD / 2];
    for piece in most.chunks(buffer.len()) {
        receiver.stream().give(Given::Bytes(piece.to_vec()));
        assert!(matches!(receiver.read(&mut buffer), ReadOutcome::Heard { .. }));
    }
    receiver.stream().give(Given::Bytes(rest.to_vec()));
    let half = ReadOutcome::Bytes { count: MAX_RECORD / 2, more: true };
    assert_eq!(receiver.read(&mut buffer), half);
    assert!(receiver.holds_more(), "three bytes were read, and half a record waits inside");
    assert_eq!(receiver.read(&mut buffer), half);
    assert_eq!(receiver.read(&mut buffer), ReadOutcome::Empty);
}

fn the_end_comes_once_wherever_it_falls<T: Tested>() {
    let plaintext = message(20);
    let bytes = wire::<T>(&plaintext, true);
    for cut in 0..=bytes.len() {
        let mut receiver = half::<T>();
        if cut > 0 {
            receiver.stream().give(Given::Bytes(bytes[..cut].to_vec()));
        }
        receiver.stream().give(Given::End);
        let (mut ends, mut all) = (Vec::new(), Vec::new());
        let mut buffer = [0; 6];
        loop {
            match receiver.read(&mut buffer) {
                ReadOutcome::Bytes { count, .. } => all.extend_from_slice(&buffer[..count]),
                ReadOutcome::Heard { .. } => {}
                ReadOutcome::Ended(end) => ends.push(end),
                ReadOutcome::Empty => break,
                outcome @ (ReadOutcome::Warned(_)
                | ReadOutcome::Illegal(_)
                | ReadOutcome::Failed(_)) => panic!("{outcome:?}"),
            }
        }
        let end = if cut == bytes.len() { End::Closed } else { T::CUT };
        assert_eq!(ends, [end], "cut at {cut}");
        assert!(plaintext.starts_with(&all) && receiver.has_ended() && !receiver.holds_more());
        assert!(cut < bytes.len() || all == plaintext);
    }
}

fn soft_errors_of_a_read_are_told_and_the_connection_goes_on<T: Tested>() {
    let mut receiver = half::<T>();
    for given in [Given::Interrupted, Given::Unreachable, Given::Interrupted] {
        receiver.stream().give(given);
    }
    receiver.stream().give(Given::Bytes(wire::<T>(b"alive", false)));
    let mut buffer = [0; 64];
    let warned = ReadOutcome::Warned(SocketError::HostUnreachable);
    assert_eq!(receiver.read(&mut buffer), warned);
    assert_eq!(read_all(&mut receiver, 64), b"alive");
    receiver.stream().give(Given::Reset);
    let failure = Failure { error: SocketError::Reset, aborted: false, after_fin: false };
    assert_eq!(receiver.read(&mut buffer), ReadOutcome::Failed(failure));
    receiver.stream().give(Given::Aborted);
    let failure = Failure { error: SocketError::Reset, aborted: true, after_fin: false };
    assert_eq!(receiver.read(&mut buffer), ReadOutcome::Failed(failure));
}

/// The kernel says `EPIPE` of a reset that came after the peer's FIN, and `ECONNRESET` of any
/// other.
#[test]
fn a_reset_that_a_write_has_met_is_a_reset_unless_the_peer_had_closed_its_side() {
    for (met, is_reset) in [(Given::Reset, true), (Given::BrokenPipe, false)] {
        let mut half = half::<Plain>();
        half.stream().give(Given::Bytes(b"before".to_vec()));
        half.stream().give(Given::End);
        half.stream().refuse_writes(&[met]);
        assert!(half.write(b"answer").failure.is_some());
        let mut buffer = [0; 64];
        assert!(matches!(half.read(&mut buffer), ReadOutcome::Bytes { count: 6, .. }));
        let outcome = half.read(&mut buffer);
        match is_reset {
            true => assert!(matches!(outcome, ReadOutcome::Failed(_)), "{outcome:?}"),
            false => assert!(matches!(outcome, ReadOutcome::Ended(_)), "{outcome:?}"),
        }
    }
}

#[test]
fn a_write_is_repeated_after_soft_errors_and_goes_on_later_if_there_are_many() {
    check_soft_errors_of_writes::<Plain>();
    check_soft_errors_of_writes::<Records>();
}

fn check_soft_errors_of_writes<T: Tested>() {
    let mut sender = half::<T>();
    sender.stream().refuse_writes(&[Given::Interrupted, Given::Unreachable]);
    let written = sender.write(b"beat");
    assert_eq!((written.taken, written.failure, written.again), (4, None, false));
    assert_eq!(written.warning, Some(SocketError::HostUnreachable));
    assert_eq!(opened::<T>(&sender.stream().take_written()), b"beat");

    let mut sender = half::<T>();
    sender.stream().refuse_writes(&vec![Given::Unreachable; 100]);
    let written = sender.write(b"beat");
    assert_eq!((written.failure, written.again), (None, true));
    assert_eq!(sender.stream().writes(), 8, "a bound");
    let end = [(4, Lane::Control)];
    sender.queue(b"beat", &end, written.taken, 1_000).unwrap();
    let mut turns = 0;
    while sender.flush().again {
        turns += 1;
        assert!(turns < 100, "it never goes on");
    }
    assert!(sender.is_flushed());
    assert_eq!(opened::<T>(&sender.stream().take_written()), b"beat", "nothing is lost");
}

/// Queues `len` bytes of `mark` as one frame.
fn queue<T: Tested>(half: &mut Half<T>, lane: Lane, mark: u8, len: usize) {
    let frame = vec![mark; len];
    half.queue(&frame, &[(len, lane)], 0, 1 << 20).unwrap();
}

#[test]
fn control_overtakes_data_and_close_is_last_however_little_the_socket_takes() {
    check_lanes::<Plain>();
    check_lanes::<Records>();
}

fn check_lanes<T: Tested>() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut sender = half::<T>();
        let mut wire = Vec::new();
        let (mut beats, mut frames) = (0, 0);
        sender.stream().accept_at_most(0);
        for round in 0..40 {
            if random.below(3) == 0 {
                queue(&mut sender, Lane::Control, 200, 2);
                beats += 1;
            } else {
                queue(&mut sender, Lane::Data, round, 1 + random.below(9_000) as usize);
                frames += 1;
            }
            sender.stream().accept_at_most(random.below(12_000) as usize);
            let before = wire.len();
            let written = sender.flush();
            wire.extend(sender.stream().take_written());
            assert_eq!(written.bytes, wire.len() - before);
        }
        queue(&mut sender, Lane::Last, 250, 9);
        sender.finish();
        while !sender.is_flushed() {
            sender.stream().accept_at_most(1 + random.below(20_000) as usize);
            sender.flush();
            wire.extend(sender.stream().take_written());
        }
        let mut receiver = half::<T>();
        receiver.stream().give(Given::Bytes(wire));
        receiver.stream().give(Given::End);
        let (mut said, mut ended) = (Vec::new(), false);
        let mut buffer = vec![0; 5_000];
        while !ended {
            match receiver.read(&mut buffer) {
                ReadOutcome::Bytes { count, .. } => said.extend_from_slice(&buffer[..count]),
                ReadOutcome::Heard { .. } => {}
                ReadOutcome::Ended(end) => {
                    assert_eq!(end, End::Closed);
                    ended = true;
                }
                outcome @ (ReadOutcome::Empty
                | ReadOutcome::Warned(_)
                | ReadOutcome::Illegal(_)
                | ReadOutcome::Failed(_)) => panic!("{outcome:?}"),
            }
        }
        assert!(said.ends_with(&[250; 9]), "seed {seed}: CLOSE is last");
        // Whole runs: no frame is split by another, except that equal neighbours join.
        said.truncate(said.len() - 9);
        let runs: Vec<_> = said.chunk_by(|a, b| a == b).collect();
        let data: Vec<_> = runs.iter().filter(|run| run[0] != 200).map(|run| run[0]).collect();
        assert!(data.is_sorted() && data.len() == frames, "seed {seed}: in order and whole");
        let found: usize = runs.iter().filter(|run| run[0] == 200).map(|run| run.len()).sum();
        assert_eq!(found, 2 * beats, "seed {seed}");
    }
}

#[test]
fn a_full_socket_keeps_at_most_one_record_before_control() {
    check_overtaking::<Plain>();
    check_overtaking::<Records>();
}

fn check_overtaking<T: Tested>() {
    let mut sender = half::<T>();
    sender.stream().accept_at_most(10);
    for mark in 0..40 {
        queue(&mut sender, Lane::Data, mark, 8_000);
    }
    sender.flush();
    queue(&mut sender, Lane::Control, 200, 2);
    sender.stream().accept_at_most(usize::MAX);
    sender.flush();
    let said = opened::<T>(&sender.stream().take_written());
    let before = said.iter().position(|byte| *byte == 200).unwrap();
    // The frame that a record or a write has begun is completed.
    assert!(before <= T::BELOW.max(10) + 8_000, "{before} bytes before control");
    assert_eq!(said.len(), 40 * 8_000 + 2);
}

fn a_frame_that_was_begun_is_completed_before_control<T: Tested>() {
    let mut sender = half::<T>();
    let frames = [vec![1; 30_000], vec![2; 30_000]].concat();
    sender.stream().accept_at_most(17_000);
    let written = sender.write(&frames);
    assert!(written.taken > 0 && written.taken < frames.len() && written.bytes == 17_000);
    let ends = [(30_000, Lane::Data), (60_000, Lane::Data)];
    sender.queue(&frames, &ends, written.taken, 1 << 20).unwrap();
    queue(&mut sender, Lane::Control, 200, 2);
    assert_eq!(sender.write(b"later").taken, 0, "others wait");
    sender.stream().accept_at_most(usize::MAX);
    sender.flush();
    let said = opened::<T>(&sender.stream().take_written());
    let expected = [&[1; 30_000][..], &[200; 2], &[2; 30_000]].concat();
    // A record may have begun the second frame too.
    assert!(said == expected || T::SEALED && said.len() == expected.len());
    assert!(said.starts_with(&[1; 30_000]) && sender.is_flushed());
}

fn gathered_frames_leave_in_one_write_each_record<T: Tested>() {
    let mut sender = half::<T>();
    sender.flush();
    let (before, _) = (sender.stream().writes(), sender.stream().take_written());
    sender.write(&message(10_000));
    assert_eq!(sender.stream().writes() - before, 1);
}

fn last_words_are_the_front_of_the_queue_and_no_orderly_end<T: Tested>() {
    let mut sender = half::<T>();
    sender.flush();
    sender.stream().accept_at_most(0);
    queue(&mut sender, Lane::Data, 1, 100);
    queue(&mut sender, Lane::Control, 200, 5);
    sender.stream().accept_at_most(usize::MAX);
    sender.write_last_words();
    let mut receiver = half::<T>();
    receiver.stream().give(Given::Bytes(sender.stream().take_written()));
    assert_eq!(read_all(&mut receiver, 64), [200; 5]);
    receiver.stream().give(Given::End);
    assert_eq!(receiver.read(&mut [0; 8]), ReadOutcome::Ended(T::CUT));
}

fn a_failed_socket_drops_everything_and_says_so_again<T: Tested>() {
    let mut sender = half::<T>();
    sender.stream().accept_at_most(0);
    queue(&mut sender, Lane::Data, 1, 100);
    sender.stream().refuse_writes(&[Given::Reset]);
    let failure = sender.flush().failure.unwrap();
    assert_eq!(failure.error, SocketError::Reset);
    assert!(sender.outbox().is_none());
    queue(&mut sender, Lane::Data, 1, 100);
    assert!(sender.outbox().is_none());
    assert_eq!((sender.write(b"more"), sender.flush()), Default::default());
    // What the peer sent before is still read; then the failure.
    sender.stream().give(Given::Bytes(wire::<T>(b"bye", false)));
    let mut buffer = [0; 64];
    let bytes = sender.read(&mut buffer);
    assert_eq!(bytes, ReadOutcome::Bytes { count: 3, more: false });
    assert_eq!(sender.read(&mut buffer), ReadOutcome::Failed(failure));
}

fn an_error_after_the_end_is_asked_for<T: Tested>() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut half = Socket::new(stream, T::pair().0, ());
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(half.read(&mut buffer), ReadOutcome::Ended(T::CUT));
    assert_eq!(half.read(&mut buffer), ReadOutcome::Empty);
    half.write(b"unread");
    let mut held = [0; 1];
    while peer.peek(&mut held).unwrap() == 0 {}
    // A close with unread bytes is a reset.
    drop(peer);
    let clock = crate::Clock::start();
    let mut outcome = ReadOutcome::Empty;
    while outcome == ReadOutcome::Empty && clock.monotonic() < systole_core::Span::from_secs(10) {
        outcome = half.read(&mut buffer);
    }
    let failure = Failure { error: SocketError::Reset, aborted: false, after_fin: true };
    assert_eq!(outcome, ReadOutcome::Failed(failure));
    let failure = Failure { after_fin: false, ..failure };
    assert_eq!(half.read(&mut buffer), ReadOutcome::Failed(failure), "and again");
}

#[test]
fn what_a_transport_answers_leaves_with_the_next_flush() {
    let mut one = half::<Records>();
    let mut other = half::<Records>();
    one.flush();
    other.flush();
    one.stream().give(Given::Bytes(other.stream().take_written()));
    one.stream().take_written();
    assert!(!one.has_answer());
    assert_eq!(one.read(&mut [0; 64]), ReadOutcome::Heard { more: false });
    assert!(one.has_answer() && !one.is_flushed());
    one.flush();
    assert_eq!(one.stream().take_written().len(), HEADER);
}

#[test]
fn illegal_bytes_are_told_once_and_what_follows_is_nothing() {
    let mut receiver = half::<Records>();
    let mut bytes = wire::<Records>(b"legal", false);
    bytes.extend_from_slice(b"GET / HTTP/1.1");
    receiver.stream().give(Given::Bytes(bytes));
    let mut buffer = [0; 64];
    assert_eq!(receiver.read(&mut buffer), ReadOutcome::Bytes { count: 5, more: true });
    assert_eq!(receiver.read(&mut buffer), ReadOutcome::Illegal(Malformed::Record));
    assert_eq!(receiver.read(&mut buffer), ReadOutcome::Empty);
    receiver.stream().give(Given::Bytes(b"more".to_vec()));
    assert_eq!(receiver.read(&mut buffer), ReadOutcome::Heard { more: false });
}
