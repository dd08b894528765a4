//! The facts that wait for the control plane, coalesced per session.

use std::collections::{HashMap, VecDeque};

use crate::report::{Change, Fact, Topic};

/// Facts that wait, by session, in the order in which the sessions began to wait.
///
/// Of each session its join and its leave wait, and between them the last fact of each [`Topic`],
/// at most seven. The sessions are bounded by the shard's table, in which an ended session holds
/// its place as long as its leave is here.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    order: VecDeque<u64>,
    sessions: HashMap<u64, Vec<Fact>>,
    left: usize,
}

impl Backlog {
    /// Returns whether facts about a session wait.
    pub(super) fn holds(&self, session: u64) -> bool {
        self.sessions.contains_key(&session)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Returns the number of sessions of which facts wait.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the number of sessions that have left and whose leave waits.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn push(&mut self, fact: Fact) {
        let session = fact.subject.session;
        self.left += usize::from(fact.change.topic() == Topic::Leave);
        let waiting = self.sessions.entry(session).or_default();
        if waiting.is_empty() {
            self.order.push_back(session);
        }
        add(waiting, fact);
    }

    /// Takes the fact that is next.
    pub(super) fn pop(&mut self) -> Option<Fact> {
        let session = self.order.front().copied()?;
        let waiting = self.sessions.get_mut(&session)?;
        let fact = waiting.remove(0);
        if waiting.is_empty() {
            self.order.pop_front();
            self.sessions.remove(&session);
        }
        self.left -= usize::from(fact.change.topic() == Topic::Leave);
        Some(fact)
    }
}

/// Adds a fact behind those of its session that wait, in place of the one that it makes obsolete.
fn add(waiting: &mut Vec<Fact>, mut fact: Fact) {
    let topic = fact.change.topic();
    if let Some(index) = waiting.iter().position(|known| known.change.topic() == topic) {
        let former = waiting.remove(index);
        // Several changes of address are one, from the first address to the last.
        if let (Change::Moved { from }, Change::Moved { from: first }) =
            (&mut fact.change, former.change)
        {
            *from = first;
        }
    }
    waiting.retain(|known| !topic.ends(known.change.topic()));
    // Nearly always one fact of a session waits: its leave.
    waiting.reserve_exact(1);
    waiting.push(fact);
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use systole_core::Policy;
    use systole_core::cause::{Cause, Confidence};
    use systole_core::diagnosis::Grounds;
    use systole_core::random::Random;

    use super::*;
    use crate::report::tests::{fact, left};

    /// What a subscriber knows of a session from its facts.
    #[derive(Clone, PartialEq, Debug, Default)]
    struct View {
        joins: usize,
        leaves: usize,
        doubt: Option<&'static str>,
        warned: bool,
        policy: Option<Policy>,
        addresses: Vec<SocketAddr>,
    }

    impl View {
        fn see(&mut self, fact: &Fact) {
            assert_eq!(self.leaves, 0, "a leave is the last fact");
            match &fact.change {
                Change::Join { policy, .. } => {
                    self.joins += 1;
                    self.policy = Some(*policy);
                    self.addresses = vec![fact.subject.address];
                }
                Change::Leave { .. } => self.leaves += 1,
                Change::Suspect => self.doubt = Some("suspect"),
                Change::Hung(_) => self.doubt = Some("hung"),
                Change::Overdue => self.doubt = Some("overdue"),
                Change::Recovered => (self.doubt, self.warned) = (None, false),
                Change::Warned { .. } => self.warned = true,
                Change::Retuned(policy) => self.policy = Some(*policy),
                Change::Moved { from } => {
                    assert_eq!(self.addresses.last(), Some(from), "an address is missing");
                    self.addresses = vec![fact.subject.address];
                }
            }
        }
    }

    /// Returns a random change of a session that is at `address`.
    fn change(random: &mut Random, address: &mut SocketAddr) -> Change {
        match random.below(7) {
            0 => Change::Suspect,
            1 => Change::Recovered,
            2 => Change::Overdue,
            3 => Change::Hung(Cause::AppHung),
            4 => Change::Retuned(match random.below(2) {
                0 => Policy::demanding(),
                _ => Policy::relaxed(),
            }),
            5 => Change::Warned {
                cause: Cause::Unreachable,
                confidence: Confidence::High,
                grounds: Grounds::default(),
            },
            _ => {
                let from = *address;
                address.set_port(1 + random.below(1_000) as u16);
                Change::Moved { from }
            }
        }
    }

    #[test]
    fn a_slow_reader_knows_in_the_end_what_a_fast_one_knows() {
        for seed in 0..2_000 {
            let mut random = Random::new(seed);
            let mut backlog = Backlog::default();
            let (mut fast, mut slow) = (View::default(), View::default());
            let mut address = SocketAddr::from(([192, 0, 2, 1], 4_711));
            let length = random.below(30);
            for step in 0..=length {
                let change = match step {
                    0 => Change::Join { policy: Policy::default(), account: None },
                    _ if step == length => left(7).change,
                    _ => change(&mut random, &mut address),
                };
                let mut fact = fact(7, change);
                fact.subject.address = address;
                fast.see(&fact);
                backlog.push(fact);
                assert!(backlog.sessions[&7].len() <= 7, "{seed}");
                while random.below(4) == 0 {
                    backlog.pop().iter().for_each(|fact| slow.see(fact));
                    if backlog.is_empty() {
                        assert_eq!(slow, fast, "{seed}");
                    }
                }
            }
            while let Some(fact) = backlog.pop() {
                slow.see(&fact);
            }
            assert_eq!(slow, fast, "{seed}");
            assert_eq!((backlog.left(), backlog.sessions()), (0, 0));
        }
    }

    #[test]
    fn a_waiting_fact_is_compact() {
        let mut backlog = Backlog::default();
        backlog.push(left(1));
        assert_eq!(backlog.sessions[&1].capacity(), 1);
        assert!(size_of::<Fact>() <= 256, "{}", size_of::<Fact>());
    }
}
