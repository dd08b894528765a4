//! Two ends of a session, and links that are cut at any frame.
//!
//! The reference knows the promise alone: what one end was accepted, the other one takes, in order
//! and once, however many links are lost; and as long as the applications take what arrives, both
//! ends get on.

use std::collections::VecDeque;

use systole_core::random::Random;
use systole_core::window::{Incoming, Limits, Outgoing};
use systole_core::wire::Malformed;

/// What one end sends.
#[derive(Clone, Debug)]
enum Frame {
    Data {
        bytes: Vec<u8>,
        hurried: bool,
        ack: Option<u32>,
    },
    Ack {
        count: u32,
        asks: bool,
    },
    /// A heartbeat, on which an acknowledgement rides.
    Beat {
        ack: Option<u32>,
    },
}

#[derive(Debug, Default)]
struct End {
    outgoing: Outgoing,
    incoming: Incoming,
    /// What has arrived, and the application has not taken.
    arrived: VecDeque<Vec<u8>>,
    /// The reference: all that was accepted here, and all that the application has taken.
    accepted: Vec<Vec<u8>>,
    taken: Vec<Vec<u8>>,
    /// Frames of acknowledgement alone.
    alone: usize,
}

impl End {
    /// Carries out what the machine wants now.
    fn run(&mut self, limits: Limits, wire: &mut VecDeque<Frame>) {
        loop {
            let ack = self.incoming.news();
            let Some(message) = self.outgoing.depart(limits) else {
                break;
            };
            wire.push_back(Frame::Data {
                bytes: message.bytes.into(),
                hurried: message.hurried,
                ack,
            });
            if ack.is_some() {
                self.incoming.told();
            }
        }
        let asks = self.outgoing.take_ask();
        if asks || self.incoming.is_urgent(limits) {
            let count = self.incoming.acknowledgement();
            self.incoming.told();
            self.alone += 1;
            wire.push_back(Frame::Ack { count, asks });
        }
    }

    fn beat(&mut self, wire: &mut VecDeque<Frame>) {
        let ack = self.incoming.news();
        if ack.is_some() {
            self.incoming.told();
        }
        wire.push_back(Frame::Beat { ack });
    }

    fn receive(&mut self, limits: Limits, frame: Frame) {
        match frame {
            Frame::Data { bytes, hurried, ack } => {
                if let Some(count) = ack {
                    self.outgoing.acknowledge(count).unwrap();
                }
                self.incoming.receive(limits, bytes.len(), hurried).unwrap();
                self.arrived.push_back(bytes);
            }
            Frame::Ack { count, asks } => {
                self.outgoing.acknowledge(count).unwrap();
                if asks {
                    self.incoming.ask();
                }
            }
            Frame::Beat { ack } => {
                if let Some(count) = ack {
                    self.outgoing.acknowledge(count).unwrap();
                }
            }
        }
    }

    fn take(&mut self) {
        if let Some(bytes) = self.arrived.pop_front() {
            self.incoming.take(bytes.len());
            self.taken.push(bytes);
        }
    }

    fn offer(&mut self, limits: Limits, bytes: Vec<u8>) -> bool {
        let is_accepted = self.outgoing.accept(limits, 1, &bytes, false).is_ok();
        if is_accepted {
            self.accepted.push(bytes);
        }
        is_accepted
    }
}

struct Pair {
    ends: [End; 2],
    /// What is on its way from each end.
    wires: [VecDeque<Frame>; 2],
    limits: Limits,
}

impl Pair {
    fn new(limits: Limits) -> Pair {
        Pair { ends: Default::default(), wires: Default::default(), limits }
    }

    fn run(&mut self) {
        for (end, wire) in self.ends.iter_mut().zip(&mut self.wires) {
            end.run(self.limits, wire);
        }
    }

    /// Delivers the oldest frame from one end to the other.
    fn deliver(&mut self, from: usize) {
        if let Some(frame) = self.wires[from].pop_front() {
            self.ends[1 - from].receive(self.limits, frame);
        }
    }

    /// Cuts the link: what is on its way is lost, and the next link begins.
    fn cut(&mut self) {
        self.wires.iter_mut().for_each(VecDeque::clear);
        let received = [0, 1].map(|end| self.ends[end].incoming.received());
        for (end, received) in self.ends.iter_mut().zip([received[1], received[0]]) {
            end.outgoing.resume(received).unwrap();
            end.incoming.resume();
        }
    }

    /// Delivers and takes until nothing happens any more. No heartbeat is sent.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.run();
            let is_quiet = self.wires.iter().all(VecDeque::is_empty);
            if is_quiet && self.ends.iter().all(|end| end.arrived.is_empty()) {
                return;
            }
            for end in [0, 1] {
                self.deliver(end);
                self.ends[end].take();
            }
        }
        panic!("the ends do not come to rest");
    }

    /// Checks what holds after each step.
    fn check(&self) {
        for (end, other) in [(0, 1), (1, 0)] {
            let (end, other) = (&self.ends[end], &self.ends[other]);
            let arrived: Vec<_> = other.taken.iter().chain(&other.arrived).collect();
            let accepted: Vec<_> = end.accepted.iter().take(arrived.len()).collect();
            assert_eq!(arrived, accepted, "what was accepted arrives, in order and once");
            assert_eq!(end.outgoing.sent(), end.accepted.len() as u64);
            let (kept, bytes) = (end.outgoing.unacknowledged(), end.outgoing.bytes());
            assert!(kept <= self.limits.messages as usize);
            assert!(kept <= 1 || bytes <= self.limits.bytes as usize);
            assert!(end.outgoing.acknowledged() <= other.taken.len() as u64);
        }
    }
}

fn message(random: &mut Random, limits: Limits, serial: u32) -> Vec<u8> {
    let longest = if random.below(8) == 0 { limits.bytes * 3 } else { limits.bytes / 2 };
    let mut bytes = vec![0; random.below(u64::from(longest) + 1) as usize];
    bytes.extend(serial.to_le_bytes());
    bytes
}

#[test]
fn nothing_is_lost_doubled_or_reordered_whatever_is_cut() {
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let limits =
            Limits { messages: 1 + random.below(8) as u32, bytes: 1 + random.below(64) as u32 };
        let mut pair = Pair::new(limits);
        for serial in 0..random.below(120) as u32 {
            let end = random.below(2) as usize;
            match random.below(20) {
                0..8 => {
                    let bytes = message(&mut random, limits, serial);
                    pair.ends[end].offer(limits, bytes);
                }
                8..14 => pair.deliver(end),
                14..17 => pair.ends[end].take(),
                17 => pair.ends[end].outgoing.flush(),
                18 => pair.ends[end].beat(&mut pair.wires[end]),
                _ => pair.cut(),
            }
            if random.below(3) > 0 {
                pair.run();
            }
            pair.check();
        }
        pair.settle();
        pair.check();
        // Each end gets on, and what is flushed is acknowledged.
        for end in [0, 1] {
            for serial in 0..4 {
                let bytes = message(&mut random, limits, serial);
                for attempt in 0.. {
                    if pair.ends[end].offer(limits, bytes.clone()) {
                        break;
                    }
                    assert!(attempt < 2, "seed {seed}: a full window asks, and gets room");
                    pair.settle();
                }
            }
            pair.ends[end].outgoing.flush();
            pair.settle();
            pair.check();
            let (own, other) = (&pair.ends[end], &pair.ends[1 - end]);
            assert_eq!(own.outgoing.unacknowledged(), 0, "seed {seed}");
            assert_eq!(own.accepted, other.taken, "seed {seed}");
        }
    }
}

#[test]
fn a_quiet_link_carries_no_acknowledgement_and_a_busy_one_none_alone() {
    let limits = Limits { messages: 100, bytes: 10_000 };
    let mut pair = Pair::new(limits);
    assert!(pair.ends[0].offer(limits, b"one".to_vec()));
    pair.settle();
    assert_eq!(pair.ends[1].alone, 0, "it waits for what goes anyway");
    let Pair { ends, wires, .. } = &mut pair;
    ends[1].beat(&mut wires[1]);
    pair.settle();
    assert_eq!(pair.ends[0].outgoing.unacknowledged(), 0, "the heartbeat has carried it");
    for _ in 0..1_000 {
        for end in [0, 1] {
            assert!(pair.ends[end].offer(limits, b"busy".to_vec()));
            pair.settle();
        }
    }
    assert_eq!([0, 1].map(|end| pair.ends[end].alone), [0, 0]);
}

#[test]
fn one_way_traffic_is_acknowledged_at_half_of_the_window() {
    let limits = Limits { messages: 100, bytes: 10_000 };
    let mut pair = Pair::new(limits);
    for _ in 0..1_000 {
        assert!(pair.ends[0].offer(limits, b"one way".to_vec()));
        pair.settle();
    }
    assert_eq!(pair.ends[1].alone, 1_000 / 50);
}

#[test]
fn a_message_longer_than_the_window_goes_alone() {
    let limits = Limits { messages: 10, bytes: 100 };
    let mut pair = Pair::new(limits);
    assert!(pair.ends[0].offer(limits, vec![1]));
    assert!(!pair.ends[0].offer(limits, vec![2; 1_000]), "not behind another");
    pair.settle();
    assert!(pair.ends[0].offer(limits, vec![2; 1_000]), "the peer was asked");
    assert!(!pair.ends[0].offer(limits, vec![3]), "and none behind it");
    pair.settle();
    assert!(pair.ends[0].offer(limits, vec![3]));
    pair.settle();
    assert_eq!(pair.ends[1].taken.len(), 3);
}

#[test]
fn what_cannot_be_is_refused() {
    let limits = Limits { messages: 2, bytes: 10 };
    let mut outgoing = Outgoing::default();
    outgoing.accept(limits, 1, b"one", false).unwrap();
    assert_eq!(outgoing.acknowledge(1), Err(Malformed::Acknowledgement), "it has not left");
    assert!(outgoing.depart(limits).is_some());
    assert_eq!(outgoing.acknowledge(2), Err(Malformed::Acknowledgement));
    assert_eq!(outgoing.resume(2), Err(Malformed::Acknowledgement));
    assert_eq!(outgoing.acknowledge(1), Ok(1));
    assert_eq!(outgoing.acknowledge(0), Ok(0), "overtaken by a later one");
    assert_eq!(outgoing.resume(0), Err(Malformed::Acknowledgement), "less than before");
    let mut incoming = Incoming::default();
    incoming.receive(limits, 6, false).unwrap();
    assert_eq!(incoming.receive(limits, 5, false), Err(Malformed::BeyondWindow), "too many bytes");
    incoming.receive(limits, 4, false).unwrap();
    assert_eq!(
        incoming.receive(limits, 0, false),
        Err(Malformed::BeyondWindow),
        "too many messages"
    );
    assert_eq!(incoming.received(), 2, "a refused message is not counted");
}

#[test]
fn a_message_does_not_show_in_debug_output() {
    let mut outgoing = Outgoing::default();
    outgoing.accept(Limits { messages: 1, bytes: 10 }, 1, b"secret", false).unwrap();
    let shown = format!("{outgoing:?}");
    assert!(shown.contains("6 bytes") && !shown.contains("115"), "{shown}");
}

#[test]
fn what_is_asked_for_behind_a_full_window_is_asked_for_by_what_fills_it() {
    let limits = Limits { messages: 9, bytes: 10 };
    let mut outgoing = Outgoing::default();
    for _ in 0..3 {
        outgoing.accept(limits, 3, b"seven !", false).unwrap();
    }
    // All three are to be acknowledged at once, and only the first can go.
    outgoing.flush();
    assert!(outgoing.depart(limits).unwrap().hurried, "the last of them cannot ask");
    assert!(outgoing.depart(limits).is_none() && !outgoing.take_ask(), "it is asked for");
    outgoing.acknowledge(1).unwrap();
    assert!(outgoing.depart(limits).unwrap().hurried, "nor now");
    // The next link knows nothing of what was asked for on this one.
    outgoing.resume(2).unwrap();
    assert!(outgoing.depart(limits).is_none() && outgoing.take_ask());
    assert!(outgoing.depart(limits).is_none() && !outgoing.take_ask(), "once is enough");
}

#[test]
fn the_end_of_a_link_drops_what_is_not_whole() {
    let limits = Limits { messages: 9, bytes: 100 };
    let mut outgoing = Outgoing::default();
    outgoing.accept(limits, 1, b"whole", false).unwrap();
    outgoing.accept(limits, 1, b"a part", true).unwrap();
    outgoing.cut();
    assert_eq!((outgoing.bytes(), outgoing.unacknowledged()), (5, 1));
    outgoing.acknowledge(0).unwrap();
    outgoing.accept(limits, 1, b"begins anew", false).unwrap();
    let kept: Vec<&[u8]> = outgoing.kept().map(|kept| kept.bytes()).collect();
    assert_eq!(kept, [&b"whole"[..], b"begins anew"]);
}
