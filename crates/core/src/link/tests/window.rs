//! The windows of both ends of a link: what docs/protocol.md says of them, with lanes that overtake
//! each other.

use alloc::collections::VecDeque;
use alloc::vec;

use super::*;
use crate::random::Random;
use crate::window::{KEPT_MEMORY, Limits, MAX_MESSAGE};
use crate::wire::{Beat, Decoder, Malformed, Rider};

const CLIENT: usize = 0;
const GATEWAY: usize = 1;

/// One end of a link, and what is on its way from there.
struct End {
    link: Link,
    /// The frames that are queued: the control lane overtakes the data lane.
    lanes: [VecDeque<Vec<u8>>; 2],
    takes: Takes,
    /// The message that arrives, and those that have arrived and were not taken.
    partial: Vec<u8>,
    untaken: VecDeque<Vec<u8>>,
    /// All that the application has received.
    received: Vec<Vec<u8>>,
    /// The reference: all that the application has sent.
    sent: Vec<Vec<u8>>,
    /// Acknowledgements that went alone.
    alone: usize,
    left: Option<Cause>,
}

impl End {
    fn new(side: Side, limits: Option<Limits>, takes: Takes) -> End {
        let window = limits.map(|limits| Windows::new(limits, takes));
        let settings = Settings { window, ..Settings::new(Codec::Native, side, policy()) };
        let mut end = End {
            link: Link::new(Time::ZERO, settings, 1),
            lanes: Default::default(),
            takes,
            partial: Vec::new(),
            untaken: VecDeque::new(),
            received: Vec::new(),
            sent: Vec::new(),
            alone: 0,
            left: None,
        };
        end.poll();
        end
    }

    fn handle<'a>(&mut self, now: Time, input: impl Into<Input<'a>>) {
        self.link.handle(now, input);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Transmit { bytes, lane } => {
                    let mut decoder = Decoder::new(Codec::Native, 65_536);
                    let frame = decoder.next(&mut &bytes[..]).unwrap().unwrap();
                    self.alone += usize::from(matches!(frame, Frame::Ack { .. }));
                    let queue = usize::from(lane != Lane::Control);
                    self.lanes[queue].push_back(bytes.to_vec());
                }
                Output::Event(Event::Data { bytes, more, .. }) => {
                    self.partial.extend_from_slice(bytes);
                    if !more {
                        let message = core::mem::take(&mut self.partial);
                        match self.takes {
                            Takes::AtOnce => self.received.push(message),
                            Takes::ByCommand => self.untaken.push_back(message),
                        }
                    }
                }
                Output::Session(session::Event::Left(verdict)) => self.left = Some(verdict.cause),
                Output::Session(_)
                | Output::Event(_)
                | Output::Examine { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
    }

    /// Lets the application take a message.
    fn take(&mut self, now: Time) {
        if let Some(message) = self.untaken.pop_front() {
            let length = message.len();
            self.received.push(message);
            self.handle(now, World::Command(Command::Taken { length }));
        }
    }

    /// Sends a message in one or several parts, if there is room for the whole of it.
    fn send(&mut self, now: Time, message: &[u8], part: usize) -> bool {
        if !self.link.has_room(message.len()) {
            return false;
        }
        self.sent.push(message.to_vec());
        let mut rest = message;
        loop {
            let (bytes, after) = rest.split_at(part.min(rest.len()));
            rest = after;
            let more = !rest.is_empty();
            let command = Command::Send { bytes, more, kind: DataKind::Eleven };
            self.handle(now, World::Command(command));
            if !more {
                return true;
            }
        }
    }

    /// Returns the bytes that are kept, and the messages.
    fn kept(&self) -> (usize, u64) {
        let (sent, acknowledged) = self.link.progress().unwrap();
        let messages = sent - acknowledged;
        (self.link.peer.kept_bytes() - messages as usize * KEPT_MEMORY, messages)
    }
}

struct Pair([End; 2]);

impl Pair {
    fn new(limits: Limits, takes: [Takes; 2]) -> Pair {
        let client = Side::Connecting(Introduction::default());
        let mut pair = Pair([
            // What a client would like itself does not matter: WELCOME decides.
            End::new(client, Some(Limits { messages: 1, bytes: 1 }), takes[CLIENT]),
            End::new(Side::Accepting, Some(limits), takes[GATEWAY]),
        ]);
        pair.carry(Time::ZERO, CLIENT, 0);
        pair.0[GATEWAY].handle(Time::ZERO, Answer::admitted(SessionKey::default()));
        pair.settle(Time::ZERO);
        assert!(pair.0.iter().all(|end| end.link.progress() == Some((0, 0))));
        pair
    }

    /// Carries the next frame of a lane.
    fn carry(&mut self, now: Time, from: usize, lane: usize) -> bool {
        let Some(frame) = self.0[from].lanes[lane].pop_front() else {
            return false;
        };
        self.0[1 - from].handle(now, World::Received(&frame));
        true
    }

    /// Carries everything; whoever takes messages takes them.
    fn settle(&mut self, now: Time) {
        for _ in 0..10_000 {
            let mut moved = false;
            for end in [CLIENT, GATEWAY] {
                moved |= self.carry(now, end, 0) | self.carry(now, end, 1);
                moved |= !self.0[end].untaken.is_empty();
                self.0[end].take(now);
            }
            if !moved {
                return;
            }
        }
        panic!("they never come to rest");
    }

    fn check(&self, limits: Limits) {
        for end in [CLIENT, GATEWAY] {
            let (here, there) = (&self.0[end], &self.0[1 - end]);
            assert_eq!(here.left, None);
            assert!(here.sent.starts_with(&there.received), "in order, and once");
            let (bytes, messages) = here.kept();
            let is_alone = messages == 1;
            assert!(is_alone || bytes <= limits.bytes as usize, "{bytes} bytes are kept");
            assert!(is_alone || messages <= u64::from(limits.messages));
            let (sent, acknowledged) = here.link.progress().unwrap();
            assert_eq!(sent as usize, here.sent.len());
            assert!(acknowledged as usize <= there.received.len(), "only what was taken");
        }
    }
}

#[test]
fn whatever_the_lanes_do_all_arrives_once_and_in_order_and_no_window_stays_full() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let limits =
            Limits { messages: 1 + random.below(6) as u32, bytes: 1 + random.below(40_000) as u32 };
        let takes =
            [0, 1].map(|_| if random.below(2) == 0 { Takes::AtOnce } else { Takes::ByCommand });
        let mut pair = Pair::new(limits, takes);
        let mut now = Time::ZERO;
        for step in 0..150 {
            let end = random.below(2) as usize;
            match random.below(9) {
                0..3 => {
                    let length = random.below(u64::from(limits.bytes) * 3 / 2) as usize;
                    let message = vec![step as u8; length];
                    pair.0[end].send(now, &message, 1 + random.below(20_000) as usize);
                }
                3..7 => {
                    pair.carry(now, end, random.below(2) as usize);
                }
                7 => pair.0[end].take(now),
                _ => {
                    now = now + Span::from_millis(random.below(100));
                    let command =
                        if random.below(2) == 0 { Command::Flush } else { Command::Heartbeat };
                    pair.0[end].handle(now, World::Command(command));
                }
            }
            pair.check(limits);
        }
        pair.settle(now);
        pair.check(limits);
        for end in [CLIENT, GATEWAY] {
            assert_eq!(pair.0[end].sent, pair.0[1 - end].received, "seed {seed}: nothing is lost");
            // A flush is answered in one round trip, so that there is room for anything.
            pair.0[end].handle(now, World::Command(Command::Flush));
            pair.carry(now, end, 1);
            pair.carry(now, 1 - end, 0);
            assert_eq!(pair.0[end].kept(), (0, 0), "seed {seed}: a flush");
        }
    }
}

#[test]
fn no_frame_is_added_on_a_quiet_link_and_on_one_that_is_busy_both_ways() {
    let limits = Limits { messages: 8, bytes: 1_000 };
    let mut pair = Pair::new(limits, [Takes::ByCommand, Takes::AtOnce]);
    let mut now = Time::ZERO;
    for round in 0..50 {
        now = now + Span::from_millis(100);
        let end = round % 2;
        pair.0[end].handle(now, World::Command(Command::Heartbeat));
        pair.settle(now);
    }
    for _ in 0..50 {
        now = now + Span::from_millis(10);
        for end in [CLIENT, GATEWAY] {
            assert!(pair.0[end].send(now, b"busy", 4));
            assert!(pair.0[end].send(now, b"busy", 4));
            pair.settle(now);
        }
    }
    assert_eq!(pair.0.each_ref().map(|end| end.alone), [0, 0]);
    // Into one direction alone: one for half of a window each.
    for _ in 0..80 {
        assert!(pair.0[CLIENT].send(now, b"news", 4));
        pair.settle(now);
    }
    assert_eq!(pair.0.each_ref().map(|end| end.alone), [0, 20]);
    // And none if a heartbeat goes that way sooner.
    for _ in 0..80 {
        assert!(pair.0[CLIENT].send(now, b"news", 4));
        pair.settle(now);
        now = now + Span::from_millis(1);
        pair.0[GATEWAY].handle(now, World::Command(Command::Heartbeat));
        pair.settle(now);
    }
    assert_eq!(pair.0.each_ref().map(|end| end.alone), [0, 20]);
}

#[test]
fn a_peer_that_takes_nothing_fills_the_window_and_no_more() {
    let limits = Limits { messages: 3, bytes: 100 };
    let mut pair = Pair::new(limits, [Takes::ByCommand; 2]);
    let now = Time::from_millis(10);
    for (end, message) in [(CLIENT, &b"input"[..]), (GATEWAY, &b"state"[..])] {
        assert!((0..3).all(|_| pair.0[end].send(now, message, 9)));
        for lane in [0, 1, 1, 1] {
            pair.carry(now, end, lane);
        }
        assert!(!pair.0[end].link.has_room(0));
        assert_eq!(pair.0[1 - end].untaken.len(), 3);
        pair.0[1 - end].take(now);
        pair.carry(now, 1 - end, 0);
        assert!(!pair.0[end].link.has_room(0), "the last one was asked for, not the first");
        pair.0[1 - end].take(now);
        pair.carry(now, 1 - end, 0);
        assert!(pair.0[end].link.has_room(90), "half of the window is free");
    }
    // A gateway that answers nevertheless keeps three windows, of which one leaves, and then ends
    // the link; so no memory is held for a slow client.
    let gateway = &mut pair.0[GATEWAY];
    let [full, more] = [&[0; 50][..], b"x"].map(|bytes| Command::Send {
        bytes,
        more: false,
        kind: DataKind::Eleven,
    });
    for _ in 0..5 {
        gateway.handle(now, World::Command(full));
    }
    assert_eq!((gateway.left, gateway.kept().0), (None, 255));
    assert_eq!(gateway.lanes[1].len(), 1, "what leaves stays within the window");
    gateway.handle(now, World::Command(full));
    assert_eq!(gateway.left, Some(Cause::SlowConsumer));
    assert_eq!(gateway.link.peer.kept_bytes(), 0, "nothing is kept any more");
    gateway.handle(now, World::Command(more));
}

/// A gateway that answers at once, and a client that sends as long as there is room: neither end
/// keeps more than it may, however slowly the client takes the answers.
#[test]
fn whoever_is_answered_slows_down_before_its_answers_find_the_queue_full() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let limits = Limits {
            messages: 1 + random.below(20) as u32,
            bytes: 1 + random.below(20_000) as u32,
        };
        let mut pair = Pair::new(limits, [Takes::ByCommand, Takes::AtOnce]);
        let now = Time::from_millis(10);
        let mut answered = 0;
        let mut answer = |pair: &mut Pair| {
            let gateway = &mut pair.0[GATEWAY];
            while let Some(bytes) = gateway.received.get(answered).cloned() {
                answered += 1;
                gateway.sent.push(bytes.clone());
                let send = Command::Send { bytes: &bytes, more: false, kind: DataKind::Eleven };
                gateway.handle(now, World::Command(send));
                assert_eq!(gateway.left, None, "seed {seed}");
            }
        };
        let slowness = 1 + random.below(8);
        for step in 0..400 {
            match random.below(3 + slowness) {
                0 => pair.0[CLIENT].take(now),
                1 => {
                    // Several times at once, as after a stall.
                    for _ in 0..random.below(30) {
                        let most = u64::from(limits.bytes) * [1, 1, 1, 3][step % 4] / 2;
                        let message = vec![step as u8; random.below(1 + most) as usize];
                        pair.0[CLIENT].send(now, &message, 20_000);
                    }
                }
                _ => {
                    let end = random.below(2) as usize;
                    for _ in 0..1 + random.below(20) {
                        pair.carry(now, end, random.below(2) as usize);
                    }
                    answer(&mut pair);
                }
            }
            assert_eq!(pair.0[CLIENT].left, None, "seed {seed}: more than the window");
        }
        for _ in 0..1_000 {
            pair.settle(now);
            answer(&mut pair);
        }
        assert_eq!(pair.0[CLIENT].sent, pair.0[CLIENT].received, "seed {seed}");
    }
}

#[test]
fn a_message_beyond_the_longest_is_not_kept() {
    let limits = Limits { messages: 3, bytes: 100 };
    let mut pair = Pair::new(limits, [Takes::ByCommand; 2]);
    let client = &mut pair.0[CLIENT];
    assert!(client.link.has_room(MAX_MESSAGE as usize), "it goes alone");
    assert!(!client.link.has_room(MAX_MESSAGE as usize + 1));
}

#[test]
fn a_peer_that_breaks_the_window_ends_as_protocol() {
    let limits = Limits { messages: 2, bytes: 10 };
    let data = |bytes, rider| Frame::Data { bytes, more: false, kind: DataKind::Eleven, rider };
    let taken = |taken| Rider { taken: Some(taken), hurried: false };
    let one = Frame::Ping(Beat { taken: Some(1), ..Beat::bare(1) });
    let cases: [(Option<Limits>, &[Frame<'_>], Malformed); 9] = [
        (Some(limits), &[one], Malformed::Acknowledgement),
        (Some(limits), &[Frame::Ack { taken: 1, hurried: false }], Malformed::Acknowledgement),
        (Some(limits), &[data(b"", taken(1))], Malformed::Acknowledgement),
        (Some(limits), &[data(&[0; 6], Rider::NONE); 2], Malformed::BeyondWindow),
        (Some(limits), &[data(b"", Rider::NONE); 3], Malformed::BeyondWindow),
        (None, &[one], Malformed::OutOfPlace),
        (None, &[Frame::Ack { taken: 0, hurried: true }], Malformed::OutOfPlace),
        (None, &[data(b"", taken(0))], Malformed::OutOfPlace),
        (None, &[data(b"", Rider { taken: None, hurried: true })], Malformed::OutOfPlace),
    ];
    for (limits, frames, expected) in cases {
        let mut end = End::new(Side::Accepting, limits, Takes::ByCommand);
        let hello = Hello { capabilities: crate::wire::WINDOWS, ..Hello::default() };
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
        end.handle(Time::ZERO, World::Received(&bytes));
        end.handle(Time::ZERO, Answer::admitted(SessionKey::default()));
        for frame in frames {
            assert_eq!(end.left, None);
            bytes.clear();
            Codec::Native.encode(frame, &mut bytes);
            end.handle(Time::ZERO, World::Received(&bytes));
        }
        assert_eq!(end.left, Some(Cause::Protocol(expected)), "{frames:?}");
    }
}

#[test]
fn a_session_has_a_window_if_both_ends_can_keep_one() {
    let limits = Limits { messages: 2, bytes: 10 };
    for (capabilities, limits, expected) in [
        (0, Some(limits), None),
        (crate::wire::WINDOWS, None, None),
        (u32::MAX, Some(limits), Some(limits)),
    ] {
        let mut end = End::new(Side::Accepting, limits, Takes::AtOnce);
        let hello = Hello { capabilities, ..Hello::default() };
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
        end.handle(Time::ZERO, World::Received(&bytes));
        end.handle(Time::ZERO, Answer::admitted(SessionKey::default()));
        let welcome = end.lanes[0].pop_front().unwrap();
        let mut decoder = Decoder::new(Codec::Native, 65_536);
        let Frame::Welcome(welcome) = decoder.next(&mut &welcome[..]).unwrap().unwrap() else {
            panic!("no WELCOME");
        };
        assert_eq!(welcome.windows, expected);
        assert_eq!(end.link.progress().is_some(), expected.is_some());
    }
}
