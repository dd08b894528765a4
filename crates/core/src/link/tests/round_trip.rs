//! The cap of the retransmission time and the round trip, by what examinations show.

use alloc::vec::Vec;

use super::*;
use crate::kernel::Cap;
use crate::wire::Beat;

/// Idle 4 s, interval 3 s and 4 probes: D = 16 s.
fn policy() -> Policy {
    let (idle, interval) = (Span::from_secs(4), Span::from_secs(3));
    Policy::new(idle, interval, 4).unwrap().with_spread(false)
}

/// A probing link, with all that it emitted.
struct Rig {
    link: Link,
    caps: Vec<(u64, u64)>,
    suspected: Vec<u64>,
    examined: Vec<u64>,
}

impl Rig {
    /// Opens a link at 0 s, whose socket shows what `shows` returns.
    fn open(shows: impl Fn(u64) -> TcpSnapshot) -> Rig {
        Rig::open_with(Codec::Line, b"hello\n", shows)
    }

    fn open_with(codec: Codec, first: &[u8], shows: impl Fn(u64) -> TcpSnapshot) -> Rig {
        let settings =
            Settings { examines: true, ..Settings::new(codec, Side::Accepting, policy()) };
        let link = Link::new(Time::ZERO, settings, 1);
        let mut rig = Rig { link, caps: Vec::new(), suspected: Vec::new(), examined: Vec::new() };
        rig.link.handle(Time::ZERO, World::Received(first));
        admit(&mut rig.link, Time::ZERO);
        rig.note(0, &shows);
        rig
    }

    fn note(&mut self, millis: u64, shows: &impl Fn(u64) -> TcpSnapshot) {
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Examine { .. } => {
                    self.examined.push(millis);
                    let tcp = Some(shows(millis));
                    let examination = Examination { tcp, ..Examination::default() };
                    self.link.handle(Time::from_millis(millis), Answer::Examined(examination));
                }
                Output::Patience(patience) => {
                    self.caps.push((millis, patience.cap().span().as_millis()));
                }
                Output::Session(session::Event::Suspect) => self.suspected.push(millis),
                Output::Session(session::Event::Left(verdict)) => panic!("{millis}: {verdict:?}"),
                Output::Session(_)
                | Output::Event(_)
                | Output::Transmit { .. }
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
    }

    /// Handles all deadlines before `millis`.
    fn run(&mut self, millis: u64, shows: impl Fn(u64) -> TcpSnapshot) {
        let now = Time::from_millis(millis);
        let mut steps = Steps::default();
        while let Some(next) = self.link.next_deadline().filter(|next| next.at < now) {
            steps.count(next.at);
            self.link.handle(next.at, Answer::Deadline);
            self.note(next.at.as_millis(), &shows);
        }
    }

    /// Handles all deadlines before `millis`, and then a PONG.
    fn pong(&mut self, millis: u64, shows: impl Fn(u64) -> TcpSnapshot) {
        self.run(millis, &shows);
        self.link.handle(Time::from_millis(millis), World::Received(b"pong\n"));
        self.note(millis, &shows);
    }
}

/// The socket of a path with this round trip and deviation, in milliseconds.
fn path(rtt: u64, rttvar: u64) -> TcpSnapshot {
    let [rtt, rttvar] = [rtt, rttvar].map(Span::from_millis);
    TcpSnapshot { rtt, rttvar, timestamps: true, ..acknowledging(0) }
}

#[test]
fn a_link_is_looked_at_when_it_is_established_and_its_cap_follows_the_kernels_figures() {
    for (rtt, rttvar, cap) in [(20, 10, None), (100, 100, None), (600, 300, Some(3_600 + 400))] {
        let rig = Rig::open(|_| path(rtt, rttvar));
        assert_eq!(rig.examined, [0]);
        assert_eq!(rig.caps.first().map(|(_, cap)| *cap), cap, "{rtt} ms");
    }
}

/// The path has a round trip of 6 s from the first probe on, at 4 s. Its pong comes at 10 s, after
/// a suspicion at 5 s. The kernel has measured one sample then.
#[test]
fn the_look_at_the_end_of_a_suspicion_brings_the_cap_and_the_round_trip() {
    let shows = |millis| if millis < 10_000 { path(20, 5) } else { path(768, 1_500) };
    let mut rig = Rig::open(shows);
    rig.pong(10_000, shows);
    assert_eq!(
        (rig.suspected.as_slice(), rig.caps.as_slice()),
        (&[5_000][..], &[(10_000, 14_000)][..])
    );
    assert_eq!(rig.link.peer.liveness().rtt(), Some(Span::from_millis(6_768)));
    // The next answer takes 6 s too, and is no suspicion.
    rig.pong(20_000, shows);
    assert_eq!(rig.suspected, [5_000]);
}

/// An outage of 8 s: the answer takes as long as the outage, and the path is as quick as before.
#[test]
fn an_answer_after_an_outage_changes_neither_cap_nor_round_trip() {
    let shows = |_| TcpSnapshot { retransmits: 1, ..path(20, 5) };
    let mut rig = Rig::open(shows);
    rig.pong(12_000, shows);
    rig.pong(20_000, shows);
    assert_eq!(rig.suspected, [5_000, 17_000], "the second as early as the first");
    assert!(rig.caps.is_empty());
    assert!(rig.link.peer.liveness().rtt() < Some(Span::from_millis(100)));
}

/// A segment arrived, its acknowledgement was lost, and a retransmission brought it after an outage
/// of 8 s: with timestamps the kernel measures the outage, and remembers it for many samples.
#[test]
fn a_quick_pong_refutes_a_figure_that_remembers_an_outage() {
    let figure = |rtt, rttvar, heard: u64, now: u64| TcpSnapshot {
        last_ack: Span::from_millis(now - heard),
        ..path(rtt, rttvar)
    };
    let outage = |now| figure(1_000, 2_000, 13_000, now);
    let quick = |now| figure(880, 1_500, 13_002, now);
    let mut rig = Rig::open(|_| path(20, 5));
    rig.run(12_999, |_| path(20, 5));
    rig.pong(13_000, outage);
    assert_eq!(rig.caps, [(13_000, 20_000)], "by the figure, and a heartbeat checks it");
    rig.pong(13_000, outage);
    rig.pong(13_000, outage);
    assert_eq!(rig.caps.len(), 1, "the pongs of the probes measure the outage");
    rig.pong(13_002, quick);
    let after = [(13_000, 20_000), (13_002, 1_000)];
    assert_eq!(rig.caps, after, "that of the check measures the path");
    // A second outage: the kernel was heard last with that pong.
    rig.run(20_000, quick);
    assert_eq!(rig.suspected, [5_000], "the kernel's figure still counts for the suspicion");
    // What the peer sends by itself acknowledges nothing.
    rig.link.handle(Time::from_millis(20_000), World::Received(b"news\n"));
    rig.note(20_000, &quick);
    assert_eq!(rig.caps, after);
    // What is acknowledged after the pong may have taken as long as the time since.
    let mut slow = Rig::open(|_| path(20, 5));
    slow.run(4_001, |_| path(20, 5));
    slow.pong(4_020, |_| path(20, 5));
    slow.run(13_000, |now| figure(900, 1_500, now, now));
    assert!(slow.caps.last().is_some_and(|cap| cap.1 >= 10_000), "{:?}", slow.caps);
}

/// Without timestamps the kernel's figures stay those of the quick path, although bytes are
/// acknowledged: the cap is lifted, and the answer counts as the round trip. Later the kernel
/// measures again.
#[test]
fn without_timestamps_acknowledged_bytes_under_a_doubled_timeout_lift_the_cap() {
    let blind = |acked| TcpSnapshot {
        timestamps: false,
        backoff: 3,
        bytes_acked: Some(acked),
        ..path(20, 5)
    };
    let shows = move |millis| match millis {
        0 => TcpSnapshot { backoff: 0, ..blind(9) },
        1..14_000 => blind(9),
        14_000..30_000 => blind(14),
        _ => TcpSnapshot { backoff: 0, rtt: Span::from_millis(1_000), ..blind(20) },
    };
    let mut rig = Rig::open(shows);
    rig.pong(14_000, shows);
    assert_eq!(
        (rig.suspected.as_slice(), rig.caps.as_slice()),
        (&[5_000][..], &[(14_000, 120_000)][..])
    );
    assert_eq!(rig.link.peer.liveness().rtt(), Some(Span::from_secs(10)), "from the first probe");
    rig.pong(28_000, shows);
    assert_eq!(rig.suspected, [5_000], "one suspicion");
    assert_eq!(rig.caps.len(), 1);
    // The pongs of all probes have come, and the timeout is not doubled: it was measured.
    for at in 30_000..30_012 {
        rig.pong(at, shows);
    }
    let last = rig.caps.last().map(|(_, cap)| *cap);
    assert_eq!(last, Some(Cap::at_least(Span::from_millis(2_040)).span().as_millis()));
}

/// With a round trip longer than the interval no pong answers the latest probe.
#[test]
fn one_probe_is_timed_while_later_ones_are_out() {
    let shows = |millis| match millis {
        0..9_000 => path(20, 5),
        _ => TcpSnapshot { last_ack: Span::from_millis(millis - 9_000), ..path(1_250, 2_500) },
    };
    let mut rig = Rig::open_with(Codec::Native, &hello(), shows);
    rig.run(9_000, shows);
    let mut pong = Vec::new();
    Codec::Native.encode(&Frame::Pong(Beat { sequence: 1, taken: None, data: None }), &mut pong);
    rig.link.handle(Time::from_millis(9_000), World::Received(&pong));
    rig.note(9_000, &shows);
    assert_eq!(rig.caps, [(9_000, 10_000)], "twice 5 s; the kernel's figure is 11.25 s");
}

/// A connection without timestamps keeps its doubled timeout after an outage until it has measured:
/// what was acknowledged then looks like a long round trip, which the pong before it bounds.
#[test]
fn without_timestamps_the_latest_pong_bounds_the_cap() {
    let blind = |acked, last_ack| TcpSnapshot {
        timestamps: false,
        backoff: 3,
        bytes_acked: Some(acked),
        last_ack: Span::from_millis(last_ack),
        ..path(20, 5)
    };
    let shows = |millis| match millis {
        0..4_020 => TcpSnapshot { timestamps: false, ..path(20, 5) },
        4_020..14_000 => blind(9, millis - 4_020),
        _ => blind(14, millis - 14_000),
    };
    let mut rig = Rig::open(shows);
    rig.run(4_001, shows);
    rig.pong(4_020, shows);
    rig.run(14_000, shows);
    rig.link.handle(Time::from_millis(14_000), World::Received(b"news\n"));
    rig.note(14_000, &shows);
    assert_eq!(rig.caps, [(14_000, 20_000)], "ten seconds from the heartbeat to the last ack");
}

/// The three-way handshake waited a second for a neighbour's address.
#[test]
fn the_round_trip_of_the_handshake_raises_the_cap_and_no_bound() {
    let shows = |_| path(1_000, 500);
    let mut rig = Rig::open(shows);
    assert_eq!(rig.link.peer.liveness().rtt(), None);
    assert!(rig.caps.last().is_some_and(|cap| cap.1 >= 6_000), "{:?}", rig.caps);
    let mut silent = Rig::open(|_| path(20, 5));
    for rig in [&mut rig, &mut silent] {
        rig.run(12_000, |_| path(20, 5));
    }
    assert_eq!(rig.suspected, silent.suspected);
}

/// An outage of 8 s on a connection without timestamps, after which the kernel measures again, and
/// a second outage: the kernel measures nothing in it, and the first one tells nothing of it.
#[test]
fn an_answer_that_the_kernel_has_refuted_lengthens_no_later_silence() {
    let measures = TcpSnapshot { timestamps: false, ..path(20, 5) };
    let shows = |millis| match millis {
        0..=12_000 => measures,
        _ => TcpSnapshot { backoff: 2, retransmits: 2, ..measures },
    };
    let mut rig = Rig::open(shows);
    rig.pong(12_000, shows);
    rig.run(27_999, shows);
    assert_eq!(rig.suspected, [5_000, 17_000], "the second as early as the first");
    assert!(rig.link.peer.liveness().rtt() < Some(Span::from_millis(100)));
}

/// With several probes out no pong answers the latest one: the examinations for waiting bytes raise
/// the round trip.
#[test]
fn any_look_may_lengthen_the_round_trip() {
    let shows = |millis| if millis < 12_000 { path(20, 5) } else { path(5_000, 2_000) };
    let mut rig = Rig::open(shows);
    rig.pong(12_500, shows);
    assert_eq!(rig.link.peer.liveness().rtt(), Some(Span::from_secs(13)));
    let at = rig.examined.len();
    rig.pong(27_000, shows);
    assert!(rig.examined.len() > at && rig.suspected.len() == 1, "{:?}", rig.suspected);
}

/// The kernel must outlast the stretched bound: idle and one round trip, at most twice the bound.
#[test]
fn the_patience_covers_a_stretched_bound() {
    for (rtt, outage) in [(3_000, 18), (11_900, 18), (13_000, 19), (20_000, 26), (90_000, 34)] {
        let mut link = Rig::open(|_| path(rtt, 0)).link;
        let mut found = Some(Span::from_secs(16));
        link.peer.set_round_trip(Span::from_millis(rtt));
        link.handle(Time::from_millis(100), World::Command(Command::Hold(Span::from_secs(1))));
        while let Some(output) = link.poll_output() {
            if let Output::Patience(patience) = output {
                found = patience.outage();
            }
        }
        // The hold ends 1.1 s after the last evidence.
        assert_eq!(found, Some(Span::from_secs(outage)), "{rtt} ms");
    }
}
