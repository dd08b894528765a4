//! Logins of one identity in every order of their steps: HELLO at any shard, a verifier that is
//! slow or refuses, the way home, a slow epoch, and the loss of a link at any point.
//!
//! The reference model knows the rules of the document alone: the newer HELLO wins, and the order
//! of the answers does not count.

use std::collections::BTreeMap;

use systole_core::cause::Cause;
use systole_core::driver::Driver;
use systole_core::home::Homes;
use systole_core::hub::{self, AWAY_SESSIONS, FRAME_MEMORY, Hub, Login, Output, WINDOW_MEMORY};
use systole_core::kernel::SocketError;
use systole_core::link::{self, Logins, Settings, Side};
use systole_core::session::Event;
use systole_core::wire::{BootId, Close, CloseReason, Codec, Decoder, Frame, Hello, InstanceId};
use systole_core::{Policy, Span, Time};

const IDENTITY: &str = "ada";

/// A step of the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Hello(usize),
    /// The verifier answers.
    Verified(usize),
    /// The link arrives at the home of its identity.
    GoneHome(usize),
    /// The epoch is given.
    Owned(usize),
    Lost(usize),
}

/// What is to be tried: where each login arrives, which of them the verifier refuses, how many
/// links are lost, and whether the hubs are saved and loaded after each step.
#[derive(Clone, Debug)]
struct Case {
    arrives: Vec<usize>,
    refused: Option<usize>,
    losses: usize,
    limit: u16,
    reloads: bool,
}

/// A login on its way.
#[derive(Debug)]
struct Attempt {
    hub: usize,
    heard_at: Span,
    admission: u32,
    /// The home to which the link is to go.
    home: Option<usize>,
    /// The session and the epoch with which it is answered.
    own: Option<(u64, u64)>,
    /// Whether the verifier has answered.
    verified: bool,
    said: Vec<u8>,
    done: bool,
}

/// The gateway, and what the rules say about it.
struct World {
    case: Case,
    hubs: [Driver<Hub>; 2],
    attempts: BTreeMap<usize, Attempt>,
    clock: u64,
    epoch: u64,
    losses: usize,
    /// The sessions in force and their epochs, by what the hubs have reported.
    online: BTreeMap<usize, u64>,
    /// The same by the rules, with the times of HELLO.
    expected: BTreeMap<Span, (usize, u64)>,
    last_epoch: u64,
}

impl World {
    fn new(case: &Case) -> World {
        let hubs = [0, 1].map(|shard| Driver::new(Time::ZERO, made(shard, case.limit)));
        World {
            case: case.clone(),
            hubs,
            attempts: BTreeMap::new(),
            clock: 0,
            epoch: 0,
            losses: 0,
            online: BTreeMap::new(),
            expected: BTreeMap::new(),
            last_epoch: 0,
        }
    }

    /// Returns the steps that are possible now.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for index in 0..self.case.arrives.len() {
            let Some(attempt) = self.attempts.get(&index) else {
                steps.push(Step::Hello(index));
                continue;
            };
            if attempt.done {
                continue;
            }
            if attempt.home.is_some() {
                steps.push(Step::GoneHome(index));
            } else if attempt.own.is_some() {
                steps.push(Step::Owned(index));
            } else if !attempt.verified {
                steps.push(Step::Verified(index));
            }
            if self.losses < self.case.losses {
                steps.push(Step::Lost(index));
            }
        }
        steps
    }

    fn take(&mut self, step: Step) {
        self.clock += 1;
        match step {
            Step::Hello(index) => self.hello(index),
            Step::Verified(index) => self.verified(index),
            Step::GoneHome(index) => self.go_home(index),
            Step::Owned(index) => self.own(index),
            Step::Lost(index) => {
                self.losses += 1;
                self.expected.retain(|_, (other, _)| *other != index);
                self.attempts.get_mut(&index).unwrap().done = true;
                let input = link::World::Failed(SocketError::Reset);
                self.handle(index, hub::World::Link { link: index as u32, input });
            }
        }
        self.check();
        if self.case.reloads {
            for (shard, hub) in (0..).zip(&mut self.hubs) {
                hub.reload(Time::ZERO, made(shard, self.case.limit)).unwrap();
            }
        }
    }

    fn hello(&mut self, index: usize) {
        let attempt = Attempt {
            hub: self.case.arrives[index],
            heard_at: Span::from_nanos(self.clock),
            admission: 0,
            home: None,
            own: None,
            verified: false,
            said: Vec::new(),
            done: false,
        };
        self.attempts.insert(index, attempt);
        let address = "192.0.2.1:5".parse().unwrap();
        self.handle(index, hub::World::Opened { link: index as u32, listener: 0, address });
        let hello = Hello {
            asks: None,
            resume: None,
            account: None,
            capabilities: 0,
            boot_id: BootId([1; 16]),
            instance_id: InstanceId([2; 16]),
            identity: IDENTITY,
            token: &[],
        };
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
        let input = link::World::Received(&bytes);
        self.handle(index, hub::World::Link { link: index as u32, input });
    }

    fn verified(&mut self, index: usize) {
        let Attempt { admission, heard_at, .. } = self.attempts[&index];
        let link = index as u32;
        if self.case.refused == Some(index) {
            self.attempts.get_mut(&index).unwrap().done = true;
            let denied = CloseReason::Unauthorized.into();
            return self.handle(index, hub::World::Refused { link, admission, denied });
        }
        self.attempts.get_mut(&index).unwrap().verified = true;
        let login = Login::claim(heard_at);
        self.handle(index, hub::World::Identified { link, admission, login });
    }

    fn go_home(&mut self, index: usize) {
        let link = index as u32;
        let from = self.attempts[&index].hub;
        self.hubs[from].handle(Time::ZERO, hub::World::HandOver { link });
        let Some(Output::HandedOver { state, .. }) = self.hubs[from].poll_output() else {
            panic!("no state of {index}")
        };
        let state = state.to_vec();
        let attempt = self.attempts.get_mut(&index).unwrap();
        attempt.hub = attempt.home.take().unwrap();
        self.handle(index, hub::World::TakenOver { link, state: &state });
    }

    fn own(&mut self, index: usize) {
        let attempt = self.attempts.get_mut(&index).unwrap();
        let (session, epoch) = attempt.own.take().unwrap();
        let heard_at = attempt.heard_at;
        let limit = usize::from(self.case.limit);
        assert!(self.expected.range(heard_at..).count() < limit, "{index} has lost before");
        self.expected.insert(heard_at, (index, epoch));
        while self.expected.len() > limit {
            self.expected.pop_first();
        }
        self.handle(index, hub::Answer::Owned { session, epoch, fresh: None });
    }

    fn handle<'a>(&mut self, index: usize, input: impl Into<hub::Input<'a>>) {
        let of = self.attempts[&index].hub;
        self.hubs[of].handle(Time::ZERO, input);
        while let Some(output) = self.hubs[of].poll_output() {
            let index = output.link().expect("no session is away") as usize;
            let attempt = self.attempts.get_mut(&index).unwrap();
            match output {
                Output::Admit { admission, .. } => attempt.admission = admission,
                Output::GoHome { shard, .. } => attempt.home = Some(usize::from(shard)),
                Output::Own { session, .. } => {
                    self.epoch += 1;
                    attempt.own = Some((session, self.epoch));
                }
                Output::Link { output: link::Output::Transmit { bytes, .. }, .. } => {
                    attempt.said.extend_from_slice(bytes);
                }
                Output::Link { output: link::Output::Session(event), .. } => match event {
                    Event::Joined { .. } => {
                        let known = self.hubs[of].machine().presence(index as u32).unwrap();
                        let epoch = known.epoch;
                        assert!(epoch > self.last_epoch, "epochs of an identity rise");
                        self.last_epoch = epoch;
                        self.online.insert(index, epoch);
                        let limit = usize::from(self.case.limit);
                        assert!(self.online.len() <= limit, "the old one leaves first");
                    }
                    Event::Left(verdict) => {
                        self.online.remove(&index);
                        attempt.done = true;
                        let replaced = verdict.cause == Cause::Replaced;
                        assert_eq!(says_replaced(&attempt.said), replaced, "{index}");
                        let newer = self.expected.range(attempt.heard_at..).count();
                        let limit = usize::from(self.case.limit);
                        assert!(!replaced || newer >= limit, "{index} is replaced by newer ones");
                    }
                    Event::Suspect
                    | Event::Warned { .. }
                    | Event::Recovered
                    | Event::Overdue { .. }
                    | Event::Hung { .. }
                    | Event::Retuned(_)
                    | Event::Moved { .. } => {}
                    Event::Away { .. } | Event::Resumed { .. } => panic!("no windows"),
                },
                Output::HandedOver { .. } | Output::Link { .. } => {}
                Output::Resume { .. } | Output::Session { .. } => panic!("no windows"),
            }
        }
    }

    fn check(&self) {
        let expected: BTreeMap<usize, u64> = self.expected.values().copied().collect();
        assert_eq!(self.online, expected, "in force");
    }

    /// Checks the end of a schedule in which nothing was lost: whatever the order, the newest of
    /// those that were not refused are in force.
    fn check_end(&self) {
        let accepted = |index: &&usize| self.case.refused != Some(**index);
        let mut newest: Vec<usize> = self.attempts.keys().filter(accepted).copied().collect();
        newest.sort_unstable_by_key(|index| std::cmp::Reverse(self.attempts[index].heard_at));
        newest.truncate(usize::from(self.case.limit));
        newest.sort_unstable();
        if self.losses == 0 {
            assert_eq!(self.online.keys().copied().collect::<Vec<_>>(), newest, "confluence");
        }
    }
}

/// Makes the hub of one of two shards.
fn made(shard: u8, limit: u16) -> Hub {
    let mut settings = Settings::new(Codec::Native, Side::Accepting, Policy::default());
    settings.logins = Logins { limit, ..Logins::NEWEST };
    Hub::new(hub::Settings {
        shard,
        homes: Homes { shards: 2, key: 5 },
        listeners: vec![settings],
        seed: 1,
        frame_memory: FRAME_MEMORY,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    })
}

/// Returns whether the peer was told that a newer login took its place, and to stay away.
fn says_replaced(mut said: &[u8]) -> bool {
    let mut decoder = Decoder::new(Codec::Native, 0);
    while let Ok(Some(frame)) = decoder.next(&mut said) {
        if let Frame::Close(Close { reason: CloseReason::Replaced, final_, .. }) = frame {
            return final_;
        }
    }
    false
}

/// Runs all schedules of a case; returns their number.
fn explore(case: &Case) -> u64 {
    let mut path: Vec<usize> = Vec::new();
    let mut schedules = 0;
    loop {
        let mut world = World::new(case);
        let mut taken = Vec::new();
        // The number of choices at each step.
        let mut widths = Vec::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            loop {
                let steps = world.steps();
                if steps.is_empty() {
                    return world.check_end();
                }
                let depth = widths.len();
                if depth == path.len() {
                    path.push(0);
                }
                widths.push(steps.len());
                taken.push(steps[path[depth]]);
                world.take(steps[path[depth]]);
            }
        }));
        if let Err(panic) = result {
            eprintln!("{case:?}: {taken:?}");
            std::panic::resume_unwind(panic);
        }
        schedules += 1;
        while let Some(last) = path.pop() {
            if last + 1 < widths[path.len()] {
                path.push(last + 1);
                break;
            }
        }
        if path.is_empty() {
            return schedules;
        }
    }
}

#[test]
fn two_logins_and_a_loss_end_alike_in_every_order() {
    let mut schedules = 0;
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for refused in [None, Some(0), Some(1)] {
            for (limit, reloads) in [(1, false), (1, true), (2, false), (2, true)] {
                let arrives = vec![first, second];
                schedules += explore(&Case { arrives, refused, losses: 2, limit, reloads });
            }
        }
    }
    println!("{schedules} schedules");
    assert!(schedules > 5_000, "{schedules}");
}

#[test]
fn three_logins_end_alike_in_every_order() {
    let mut schedules = 0;
    for arrives in [[0, 0, 0], [1, 1, 1]] {
        for limit in [1, 2] {
            let arrives = arrives.to_vec();
            let case = Case { arrives, refused: None, losses: 0, limit, reloads: false };
            schedules += explore(&case);
        }
    }
    println!("{schedules} schedules");
    assert!(schedules > 20_000, "{schedules}");
}
