//! Tests of the liveness machine alone, on a path with loss, duplicates and reordering.

use std::collections::BTreeMap;

use systole_core::liveness::{Evidence, Input, Liveness, Output, Role};
use systole_core::random::Random;
use systole_core::{Policy, Span, Time};

const SCHEDULES: u64 = 3_000;

#[test]
fn sim_datagrams_in_any_order() {
    let (mut dead, mut measured, mut late) = (0, 0, 0);
    for seed in 0..SCHEDULES {
        let mut path = Path::new(seed);
        path.run();
        dead += u64::from(path.liveness.is_dead());
        measured += path.measured;
        late += path.late;
    }
    assert!(dead > 100 && measured > 1_000 && late > 1_000, "{dead}, {measured}, {late}");
}

struct Path {
    seed: u64,
    random: Random,
    policy: Policy,
    liveness: Liveness,
    /// Answers in flight, by arrival time.
    answers: BTreeMap<(Time, u64), u8>,
    /// The time of the last probe with each sequence number.
    sent_at: BTreeMap<u8, Time>,
    latest: u8,
    last_heard: Time,
    /// When the first probe of this silence was sent.
    probed: Option<Time>,
    measured: u64,
    /// The number of answers to other probes than the latest.
    late: u64,
}

impl Path {
    fn new(seed: u64) -> Path {
        let mut random = Random::new(seed);
        let mut length = || Span::from_millis(100 + random.below(2_000));
        let (idle, interval) = (length(), length());
        let policy = Policy::new(idle, interval, 1 + random.below(6) as u8).unwrap();
        let mut liveness = Liveness::new(Time::ZERO, Role::Probe, Span::from_secs(10));
        let introduced = Input::Introduced { seed: random.next_u32() };
        liveness.handle(Time::ZERO, introduced, &policy);
        Path {
            seed,
            random,
            policy,
            liveness,
            answers: BTreeMap::new(),
            sent_at: BTreeMap::new(),
            latest: 0,
            last_heard: Time::ZERO,
            probed: None,
            measured: 0,
            late: 0,
        }
    }

    fn run(&mut self) {
        for _ in 0..300 {
            let Some(deadline) = self.liveness.next_deadline(&self.policy) else { return };
            let arrival = self.answers.keys().next().copied();
            match arrival.filter(|(arrival, _)| *arrival <= deadline.at) {
                Some(key) => {
                    if let Some(sequence) = self.answers.remove(&key) {
                        self.receive(key.0, sequence);
                    }
                }
                None => self.expire(deadline.at),
            }
        }
    }

    fn receive(&mut self, now: Time, sequence: u8) {
        (self.last_heard, self.probed) = (now, None);
        self.late += u64::from(sequence != self.latest);
        let pong = Evidence::Pong { sequence: Some(sequence) };
        self.liveness.handle(now, Input::Heard(pong), &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            match output {
                Output::RoundTrip(rtt) => {
                    assert_eq!(
                        sequence, self.latest,
                        "seed {}: only the latest is measured",
                        self.seed
                    );
                    assert_eq!(Some(rtt), self.sent_at.get(&sequence).map(|sent| now.since(*sent)));
                    self.measured += 1;
                }
                Output::Recovered => {}
                Output::Probe { .. }
                | Output::Keepalive { .. }
                | Output::Confirm { .. }
                | Output::Suspect
                | Output::Overdue(_)
                | Output::Dead(_) => panic!("seed {}: {output:?} on evidence", self.seed),
            }
        }
        assert!(!self.liveness.is_suspect(), "seed {}", self.seed);
    }

    fn expire(&mut self, now: Time) {
        self.liveness.handle(now, Input::Deadline, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            match output {
                Output::Probe { sequence, .. } => {
                    self.probed.get_or_insert(now);
                    self.send(now, sequence);
                }
                Output::Dead(silence) => {
                    // Rule 13: a round trip after the first probe, if that is later.
                    let bound = self.policy.bound().expect("a policy with a bound");
                    let answered =
                        self.probed.expect("probed") + self.liveness.rtt().unwrap_or_default();
                    let due = answered.min(self.last_heard + bound.times(2));
                    let due = due.max(self.last_heard + bound);
                    assert_eq!((silence.due, now), (due, silence.due), "seed {}", self.seed);
                    assert_eq!(silence.last_heard, self.last_heard, "seed {}", self.seed);
                }
                Output::Suspect => {}
                Output::Keepalive { .. }
                | Output::Confirm { .. }
                | Output::RoundTrip(_)
                | Output::Recovered
                | Output::Overdue(_) => panic!("seed {}: {output:?} at {now:?}", self.seed),
            }
        }
    }

    /// Sends a probe. Its answer is lost, arrives once, or arrives twice, each with a random delay.
    fn send(&mut self, now: Time, sequence: u8) {
        self.sent_at.insert(sequence, now);
        self.latest = sequence;
        for copy in 0..[0, 1, 1, 2][self.random.below(4) as usize] {
            let delay = Span::from_millis(1 + self.random.below(3_000));
            self.answers.insert((now + delay, u64::from(sequence) * 2 + copy), sequence);
        }
    }
}
