//! The facts that wait for the control plane, coalesced per session.

use std::collections::{HashMap, VecDeque};

use systole_core::session::{Event, Topic};

use crate::report::Fact;

/// Facts that wait, by session, in the order in which the sessions began to wait.
///
/// Of each session its join and its leave wait, and between them the last fact of each [`Topic`],
/// and how its links ended and began in at most three: at most ten. The sessions are bounded by the
/// shard's table, in which an ended session holds its place as long as its leave is here.
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
        self.left += usize::from(fact.event.topic() == Topic::Leave);
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
        self.left -= usize::from(fact.event.topic() == Topic::Leave);
        Some(fact)
    }
}

/// Makes room for the end or the beginning of a link. A further loss with its return makes one with
/// a return that waits already, in which the messages of both count: so nothing is said twice, and
/// what a client has missed is never forgotten. The account of a link that is not told of is none.
fn add_link(waiting: &mut Vec<Fact>, fact: &mut Fact) {
    // A link that ends or begins is in no doubt.
    waiting.retain(|known| {
        !matches!(known.event.topic(), Topic::Doubt | Topic::Warning | Topic::Recovery)
    });
    let Event::Resumed { account, gap, redelivered } = &mut fact.event else {
        return;
    };
    let former = waiting.iter().find_map(|known| {
        let Event::Resumed { gap, redelivered, .. } = known.event else { return None };
        Some((gap, redelivered))
    });
    if let Some((former_gap, former_redelivered)) = former {
        *account = None;
        *gap = gap.saturating_add(former_gap);
        *redelivered = redelivered.saturating_add(former_redelivered);
        let first = waiting.iter().position(|known| matches!(known.event, Event::Resumed { .. }));
        let mut index = 0;
        waiting.retain(|known| {
            let is_behind = first.is_some_and(|first| index >= first);
            index += 1;
            !(is_behind && known.event.topic() == Topic::Link)
        });
    }
}

/// Adds a fact behind those of its session that wait, in place of the one that it makes obsolete.
fn add(waiting: &mut Vec<Fact>, mut fact: Fact) {
    let topic = fact.event.topic();
    if topic == Topic::Link {
        add_link(waiting, &mut fact);
    } else if let Some(index) = waiting.iter().position(|known| known.event.topic() == topic) {
        let former = waiting.remove(index);
        // Several moves are one, from the first address to the last.
        if let (Event::Moved { from }, Event::Moved { from: first }) =
            (&mut fact.event, former.event)
        {
            *from = first;
        }
    }
    waiting.retain(|known| !topic.ends(known.event.topic()));
    // Nearly always one fact of a session waits: its leave.
    waiting.reserve_exact(1);
    waiting.push(fact);
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use systole_core::cause::{Cause, Confidence};
    use systole_core::diagnosis::Grounds;
    use systole_core::random::Random;
    use systole_core::{Policy, Time};

    use super::*;
    use crate::report::tests::{fact, left};

    /// What a subscriber knows of a session from its facts.
    #[derive(Clone, PartialEq, Debug, Default)]
    struct View {
        joins: usize,
        leaves: usize,
        doubt: Option<&'static str>,
        warned: bool,
        is_away: bool,
        /// The messages that it has missed, and those that came again.
        missed: (u32, u32),
        policy: Option<Policy>,
        addresses: Vec<SocketAddr>,
    }

    impl View {
        fn see(&mut self, fact: &Fact) {
            assert_eq!(self.leaves, 0, "a leave is the last fact");
            match &fact.event {
                Event::Joined { policy, .. } => {
                    self.joins += 1;
                    self.policy = Some(*policy);
                    self.addresses = vec![fact.subject.address];
                }
                Event::Left(_) => self.leaves += 1,
                Event::Suspect => self.doubt = Some("suspect"),
                Event::Hung { .. } => self.doubt = Some("hung"),
                Event::Overdue { .. } => self.doubt = Some("overdue"),
                Event::Recovered => (self.doubt, self.warned) = (None, false),
                Event::Warned { .. } => self.warned = true,
                Event::Away { .. } => {
                    (self.is_away, self.doubt, self.warned) = (true, None, false);
                }
                Event::Resumed { gap, redelivered, .. } => {
                    (self.is_away, self.doubt, self.warned) = (false, None, false);
                    self.missed.0 += gap;
                    self.missed.1 += redelivered;
                }
                Event::Retuned(policy) => self.policy = Some(*policy),
                Event::Moved { from } => {
                    assert_eq!(self.addresses.last(), Some(from), "an address is missing");
                    self.addresses = vec![fact.subject.address];
                }
            }
        }
    }

    /// Returns a random event of a session that is at `address`, or away.
    fn event(random: &mut Random, address: &mut SocketAddr, is_away: &mut bool) -> Event {
        if *is_away || random.below(4) == 0 {
            *is_away = !*is_away;
            return if *is_away {
                let Event::Left(verdict) = left(7).event else { panic!("no leave") };
                Event::Away { verdict, until: Time::from_millis(90_000) }
            } else {
                let (gap, redelivered) = (random.below(3) as u32, random.below(3) as u32);
                Event::Resumed { account: None, gap, redelivered }
            };
        }
        match random.below(7) {
            0 => Event::Suspect,
            1 => Event::Recovered,
            2 => Event::Overdue { due: Time::from_millis(50_000) },
            3 => Event::Hung { cause: Cause::AppHung, until: Time::from_millis(60_000) },
            4 => Event::Retuned(match random.below(2) {
                0 => Policy::demanding(),
                _ => Policy::relaxed(),
            }),
            5 => Event::Warned {
                cause: Cause::Unreachable,
                confidence: Confidence::High,
                grounds: Grounds::default(),
            },
            _ => {
                let from = *address;
                address.set_port(1 + random.below(1_000) as u16);
                Event::Moved { from }
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
            let mut is_away = false;
            for step in 0..=length {
                let event = match step {
                    0 => Event::Joined { policy: Policy::default(), account: None },
                    _ if step == length => left(7).event,
                    _ => event(&mut random, &mut address, &mut is_away),
                };
                let mut fact = fact(7, event);
                fact.subject.address = address;
                fast.see(&fact);
                backlog.push(fact);
                assert!(backlog.sessions[&7].len() <= 10, "{seed}");
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
