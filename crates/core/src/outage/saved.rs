//! The saved state of the machine of outages.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::groups::{Group, Key};
use super::{GROUPS, Network, Outages, Site, Timer, UNSETTLED, Unsettled};
use crate::plain::{Damage, Plain, Sink, Source, plain_enum, plain_struct};
use crate::time::Time;

plain_enum! { Network {
    4 => V4 { 0: prefix }
    6 => V6 { 0: prefix }
} }

plain_enum! { Site {
    0 => Local {}
    1 => Network { network: network, listener: listener }
} }

plain_enum! { Timer {
    0 => Group { 0: key }
    1 => Unsettled { 0: session }
} }

plain_struct! { Unsettled { address, key, at, silent, asked, until, alive } }

impl Outages {
    /// Appends the state at `now` to `out`, with every time as an age or a time to come. Poll all
    /// outputs before: they are not part of the state.
    pub fn save(&self, now: Time, out: &mut Vec<u8>) {
        let Outages { hosts, suspects, groups, unsettled, timers, outputs, number } = self;
        debug_assert!(outputs.is_empty(), "outputs that were not polled are lost");
        let mut out = Sink::state(now, out);
        hosts.put(&mut out);
        suspects.put(&mut out);
        groups.put(&mut out);
        unsettled.put(&mut out);
        timers.put(&mut out);
        number.put(&mut out);
    }

    /// Loads the machine from the front of `state`, at `now` of the clock that drives it from here
    /// on. What happened before [`Time::ZERO`] of this clock counts as if it had happened there: a
    /// scope then stays unknown.
    ///
    /// # Errors
    /// The state is damaged.
    pub fn load(now: Time, state: &mut &[u8]) -> Result<Outages, Damage> {
        let mut from = Source::state(now, state);
        let outages = Outages {
            hosts: Plain::take(&mut from)?,
            suspects: Plain::take(&mut from)?,
            groups: Plain::take(&mut from)?,
            unsettled: Plain::take(&mut from)?,
            timers: Plain::take(&mut from)?,
            outputs: VecDeque::new(),
            number: Plain::take(&mut from)?,
        };
        *state = from.rest();
        if outages.is_legal() { Ok(outages) } else { Err(Damage::Illegal) }
    }

    /// Returns whether the tables of decoded outages are within their limits, and everything in
    /// them ends at its time.
    fn is_legal(&self) -> bool {
        let Outages { groups, unsettled, timers, .. } = self;
        let has_timer = |(key, group): (&Key, &Group)| timers.contains(&group.timer(*key));
        let timed: BTreeSet<u64> = timers
            .iter()
            .filter_map(|(_, timer)| match timer {
                Timer::Unsettled(session) => Some(*session),
                Timer::Group(_) => None,
            })
            .collect();
        groups.len() <= GROUPS
            && unsettled.len() <= UNSETTLED
            && groups.iter().all(has_timer)
            && unsettled.keys().all(|session| timed.contains(session))
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;
    use crate::cause::{Cause, Direction, Scope};
    use crate::grounds::Grounds;
    use crate::machine::{Deadline, Machine};
    use crate::outage::{Answer, Input, Outage, Output, World};
    use crate::random::Random;
    use crate::time::Span;
    use crate::wire::BootId;

    fn load(now: Time, outages: &Outages, saved: Time) -> Outages {
        let mut state = Vec::new();
        outages.save(saved, &mut state);
        let mut rest = state.as_slice();
        let loaded = Outages::load(now, &mut rest).unwrap();
        assert!(rest.is_empty());
        loaded
    }

    /// Returns a random input: few networks and hosts, so that verdicts fall together.
    fn any_input(random: &mut Random) -> Input {
        let session = 1 + random.below(40);
        let (listener, boot_id) = (0, BootId([(session % 3) as u8; 16]));
        let address = match session % 5 {
            0 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, (session % 3) as u16]),
            _ => IpAddr::from([10, 0, (session % 2) as u8, (session % 7) as u8]),
        };
        let causes = [
            Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown },
            Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown },
            Cause::PeerExited,
            Cause::LocalNetworkDown,
            Cause::AppHung,
        ];
        match random.below(10) {
            0..3 => World::Joined { session, listener, address, boot_id }.into(),
            3 => World::Suspect { session, listener, address }.into(),
            4 => World::Recovered { session }.into(),
            5 | 6 => {
                let cause = causes[random.below(5) as usize];
                let (silent, asked) = (Span::from_millis(20_000), Span::from_millis(9_500));
                let grounds = Grounds::default();
                let end = World::Ended {
                    session,
                    listener,
                    address,
                    boot_id,
                    cause,
                    grounds,
                    silent,
                    asked,
                };
                end.into()
            }
            7 => Answer::Siblings {
                session,
                heard_ago: (random.below(2) == 0).then(|| random.up_to(Span::from_secs(12))),
                reached_ago: (random.below(2) == 0).then(|| random.up_to(Span::from_secs(12))),
                suspect: random.below(2) == 0,
            }
            .into(),
            _ => Answer::Deadline.into(),
        }
    }

    fn outputs(outages: &mut Outages, ahead: Span) -> Vec<Output> {
        let back = |outage: Outage| Outage {
            began: outage.began - ahead,
            last: outage.last - ahead,
            ..outage
        };
        let polled = core::iter::from_fn(|| outages.poll_output());
        let polled = polled.map(|output| match output {
            Output::Began(outage) => Output::Began(back(outage)),
            Output::Over(outage) => Output::Over(back(outage)),
            same @ (Output::Scoped { .. } | Output::AskSiblings { .. }) => same,
        });
        polled.collect()
    }

    #[test]
    fn outages_that_move_to_another_clock_at_every_input_go_on_the_same() {
        let mut kinds = [0; 4];
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut now = Time::from_millis(20_000_000);
            let (mut outages, mut copy) = (Outages::new(), Outages::new());
            let mut lead = Span::ZERO;
            for step in 0..200 {
                let ahead = Span::from_nanos(random.next_u64() >> 2);
                copy = load(now + ahead, &copy, now + lead);
                lead = ahead;
                now = match outages.next_deadline() {
                    Some(next) if random.below(4) == 0 => next.at.max(now),
                    Some(_) | None => now + random.up_to(Span::from_millis(1_500)),
                };
                let input = any_input(&mut random);
                outages.handle(now, input);
                copy.handle(now + lead, input);
                let polled = outputs(&mut outages, Span::ZERO);
                assert_eq!(outputs(&mut copy, lead), polled, "seed {seed}, step {step}, {input:?}");
                for output in polled {
                    kinds[match output {
                        Output::Began(_) => 0,
                        Output::Over(_) => 1,
                        Output::Scoped { .. } => 2,
                        Output::AskSiblings { .. } => 3,
                    }] += 1;
                }
                let next = copy.next_deadline().map(|it| Deadline { at: it.at - lead, ..it });
                assert_eq!(next, outages.next_deadline(), "seed {seed}, step {step}, {input:?}");
                assert_eq!(copy.online(), outages.online());
            }
        }
        assert!(kinds.iter().all(|count| *count > 300), "{kinds:?}");
    }

    #[test]
    fn damaged_outages_are_refused_or_do_no_harm() {
        let mut random = Random::new(2);
        let mut outages = Outages::new();
        let now = Time::from_millis(20_000_000);
        for _ in 0..60 {
            outages.handle(now, any_input(&mut random));
            outputs(&mut outages, Span::ZERO);
        }
        let mut state = Vec::new();
        outages.save(now, &mut state);
        for length in 0..state.len() {
            assert!(Outages::load(now, &mut &state[..length]).is_err(), "{length}");
        }
        for place in 0..state.len() {
            let mut damaged = state.clone();
            damaged[place] ^= 1 + random.below(255) as u8;
            let Ok(mut loaded) = Outages::load(now, &mut damaged.as_slice()) else { continue };
            let mut now = now;
            for _ in 0..20 {
                now = loaded.next_deadline().map_or(now, |next| next.at.max(now));
                loaded.handle(now, any_input(&mut random));
                outputs(&mut loaded, Span::ZERO);
            }
        }
    }

    #[test]
    fn a_group_that_would_never_end_is_refused() {
        let mut outages = Outages::new();
        let now = Time::from_millis(20_000_000);
        let (address, boot_id) = (IpAddr::from([10, 0, 0, 1]), BootId::default());
        let cause = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
        let (silent, asked) = (Span::from_millis(20_000), Span::from_millis(9_500));
        outages.handle(now, World::Joined { session: 1, listener: 0, address, boot_id });
        let (session, listener, grounds) = (1, 0, Grounds::default());
        let ended =
            World::Ended { session, listener, address, boot_id, cause, grounds, silent, asked };
        outages.handle(now, ended);
        outputs(&mut outages, Span::ZERO);
        for lost in outages.timers.clone() {
            let mut without = outages.clone();
            without.timers.remove(&lost);
            let mut state = Vec::new();
            without.save(now, &mut state);
            let refused = Outages::load(now, &mut state.as_slice()).err();
            assert_eq!(refused, Some(Damage::Illegal), "{lost:?}");
        }
        assert_eq!(outages.timers.len(), 2);
    }
}
