//! The liveness machine alone, over a path that loses, doubles and reorders.

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
        path.play();
        dead += u64::from(path.liveness.is_dead());
        measured += path.measured;
        late += path.late;
    }
    assert!(dead > 100 && measured > 1_000 && late > 1_000, "{dead}, {measured}, {late}");
}

struct Path {
    seed: u64,
    chance: Random,
    policy: Policy,
    liveness: Liveness,
    /// Answers under way, by arrival.
    answers: BTreeMap<(Time, u64), u8>,
    /// When the heartbeat with this number left last.
    left: BTreeMap<u8, Time>,
    latest: u8,
    heard: Time,
    measured: u64,
    /// Answers that came after those of later heartbeats.
    late: u64,
}

impl Path {
    fn new(seed: u64) -> Path {
        let mut chance = Random::new(seed);
        let mut length = || Span::from_millis(100 + chance.below(2_000));
        let (idle, interval) = (length(), length());
        let policy = Policy::new(idle, interval, 1 + chance.below(6) as u8).unwrap();
        let mut liveness = Liveness::new(Time::ZERO, Role::Probe, Span::from_secs(10));
        let introduced = Input::Introduced { seed: chance.next_u32() };
        liveness.handle(Time::ZERO, introduced, &policy);
        Path {
            seed,
            chance,
            policy,
            liveness,
            answers: BTreeMap::new(),
            left: BTreeMap::new(),
            latest: 0,
            heard: Time::ZERO,
            measured: 0,
            late: 0,
        }
    }

    fn play(&mut self) {
        for _ in 0..300 {
            let Some(deadline) = self.liveness.next_deadline(&self.policy) else { return };
            let arrival = self.answers.keys().next().copied();
            match arrival.filter(|(arrival, _)| *arrival <= deadline.at) {
                Some(key) => {
                    if let Some(sequence) = self.answers.remove(&key) {
                        self.hear(key.0, sequence);
                    }
                }
                None => self.expire(deadline.at),
            }
        }
    }

    fn hear(&mut self, now: Time, sequence: u8) {
        self.heard = now;
        self.late += u64::from(sequence != self.latest);
        let pong = Evidence::Pong { sequence: Some(sequence) };
        self.liveness.handle(now, Input::Heard(pong), &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            match output {
                Output::RoundTrip(rtt) => {
                    assert_eq!(sequence, self.latest, "seed {}: of the latest alone", self.seed);
                    assert_eq!(Some(rtt), self.left.get(&sequence).map(|left| now.since(*left)));
                    self.measured += 1;
                }
                Output::Recovered => {}
                Output::Probe { .. }
                | Output::Keepalive { .. }
                | Output::Confirm { .. }
                | Output::Examine
                | Output::Suspect
                | Output::Overdue(_)
                | Output::Dead(_) => panic!("seed {}: {output:?} on hearing", self.seed),
            }
        }
        assert!(!self.liveness.is_suspect(), "seed {}", self.seed);
    }

    fn expire(&mut self, now: Time) {
        self.liveness.handle(now, Input::Deadline, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            match output {
                Output::Probe { sequence, .. } => self.send(now, sequence),
                Output::Dead(silence) => {
                    let due = self.policy.bound().map(|bound| self.heard + bound);
                    assert_eq!((Some(silence.due), now), (due, silence.due), "seed {}", self.seed);
                    assert_eq!(silence.last_heard, self.heard, "seed {}", self.seed);
                }
                Output::Suspect => {}
                Output::Keepalive { .. }
                | Output::Confirm { .. }
                | Output::Examine
                | Output::RoundTrip(_)
                | Output::Recovered
                | Output::Overdue(_) => panic!("seed {}: {output:?} at {now:?}", self.seed),
            }
        }
    }

    /// The answer is lost, comes once, or comes twice; each after a time of its own.
    fn send(&mut self, now: Time, sequence: u8) {
        self.left.insert(sequence, now);
        self.latest = sequence;
        for copy in 0..[0, 1, 1, 2][self.chance.below(4) as usize] {
            let delay = Span::from_millis(1 + self.chance.below(3_000));
            self.answers.insert((now + delay, u64::from(sequence) * 2 + copy), sequence);
        }
    }
}
