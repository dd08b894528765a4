//! The links of a shard that have not logged in, by age, and which of them gives way.
//!
//! A flood of connections that never log in takes the places of those that would. So the oldest of
//! them gives way to a newcomer once they have more than half of the links, or all that are left:
//! as in a SYN cache, each has some time, and the more of them come, the less. If no link is left,
//! those that were refused and take their leave give way first: they have no use for one.

use std::collections::{BTreeMap, BTreeSet};

use systole_core::{Span, Time};

/// The least time that a connection has for its login: some round trips to another continent, for
/// TCP, TLS and HELLO, and a lost segment. Longer, and a shard stands fewer of them in a second;
/// shorter, and clients with a slow network never get in while there is a flood.
pub(super) const LEAST_TIME: Span = Span::from_millis(500);

/// The number of links that are looked at for one that waits for its peer, not for this gateway.
/// Handshakes wait for this gateway only in a storm of them, and a shard has better to do then than
/// to search for others.
const LOOKS: usize = 32;

/// The links that have not logged in.
#[derive(Debug)]
pub(super) struct HalfOpen {
    limit: usize,
    links: BTreeMap<u32, Waits>,
    /// The links that wait for their peer, by the time since when they are open.
    order: BTreeSet<(Time, u32)>,
    /// The links that take their leave, by the time at which they ended.
    leaving: BTreeSet<(Time, u32)>,
}

/// For whom a link waits.
#[derive(Clone, Copy, Debug)]
enum Waits {
    /// For its peer, since this time.
    Peer(Time),
    /// For this gateway: its login has come, and is looked at.
    Us,
    /// For its peer to close its side, since this time: it has ended.
    Close(Time),
}

impl HalfOpen {
    /// Makes the table of a shard that may have `max_links` links: half of them may be half-open
    /// before any gives way.
    pub(super) fn new(max_links: usize) -> HalfOpen {
        let (order, leaving) = (BTreeSet::new(), BTreeSet::new());
        HalfOpen { limit: (max_links / 2).max(1), links: BTreeMap::new(), order, leaving }
    }

    /// Notes a link that has opened.
    pub(super) fn add(&mut self, now: Time, link: u32) {
        self.remove(link);
        self.links.insert(link, Waits::Peer(now));
        self.order.insert((now, link));
    }

    /// Notes a link that has come from another shard, and is not online yet: its login has come.
    pub(super) fn add_login(&mut self, link: u32) {
        self.remove(link);
        self.links.insert(link, Waits::Us);
    }

    /// Notes that a link has ended, if it had not logged in; its connection takes its leave.
    pub(super) fn leaves(&mut self, now: Time, link: u32) {
        if self.links.contains_key(&link) {
            self.remove(link);
            self.links.insert(link, Waits::Close(now));
            self.leaving.insert((now, link));
        }
    }

    /// Notes that the login of a link has come. From now on the link does not give way: it waits
    /// for us, and whoever decides has limits of its own.
    pub(super) fn login_came(&mut self, link: u32) {
        if let Some(waits) = self.links.get_mut(&link)
            && let Waits::Peer(since) = *waits
        {
            *waits = Waits::Us;
            self.order.remove(&(since, link));
        }
    }

    /// Forgets a link: it has logged in, is closed, or has moved to another shard.
    #[inline]
    pub(super) fn remove(&mut self, link: u32) {
        match self.links.remove(&link) {
            Some(Waits::Peer(since)) => drop(self.order.remove(&(since, link))),
            Some(Waits::Close(since)) => drop(self.leaving.remove(&(since, link))),
            Some(Waits::Us) | None => {}
        }
    }

    /// Whether those that may still log in have more than half of the links.
    pub(super) fn are_too_many(&self) -> bool {
        self.links.len() - self.leaving.len() > self.limit
    }

    /// Returns the ended link whose connection gives way to a newcomer: the oldest one that has had
    /// its time, in which its peer can take what it was told.
    pub(super) fn first_to_close(&self, now: Time) -> Option<u32> {
        let (since, link) = self.leaving.first()?;
        (*since + LEAST_TIME <= now).then_some(*link)
    }

    /// Returns the link that gives way to a newcomer: the oldest one that has had its time, and
    /// for which there is nothing to do here.
    pub(super) fn first_to_go(&self, now: Time, is_busy: impl Fn(u32) -> bool) -> Option<u32> {
        let had_time = self.order.iter().take_while(|(since, _)| *since + LEAST_TIME <= now);
        had_time.take(LOOKS).map(|(_, link)| *link).find(|link| !is_busy(*link))
    }
}

#[cfg(test)]
mod tests {
    use systole_core::random::Random;

    use super::*;

    const LINKS: u64 = 60;

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Is {
        Silent,
        LoggingIn,
        Leaving,
    }

    /// A link of the reference: its number, since when it is open or leaves, and what it does.
    type Known = (u32, Time, Is);

    /// Those that have had their time, the oldest first.
    fn old(list: &[Known], now: Time, what: Is) -> impl Iterator<Item = u32> {
        let mut old: Vec<_> = list.iter().copied().filter(|(_, _, is)| *is == what).collect();
        old.sort_by_key(|(link, since, _)| (*since, *link));
        old.retain(|(_, since, _)| now.since(*since) >= LEAST_TIME);
        old.into_iter().map(|(link, ..)| link)
    }

    fn first_to_go(list: &[Known], now: Time, busy: &[u32]) -> Option<u32> {
        old(list, now, Is::Silent).take(LOOKS).find(|link| !busy.contains(link))
    }

    /// Compares with a plain list.
    #[test]
    fn the_oldest_that_had_its_time_and_waits_for_its_peer_gives_way() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut table = HalfOpen::new(40);
            let mut list: Vec<Known> = Vec::new();
            let mut now = Time::from_millis(1_000);
            for _ in 0..400 {
                now = now + Span::from_millis(random.below(30));
                let link = random.below(LINKS) as u32;
                match random.below(9) {
                    0..4 => {
                        table.add(now, link);
                        list.retain(|(other, ..)| *other != link);
                        list.push((link, now, Is::Silent));
                    }
                    4 => {
                        table.login_came(link);
                        let silent =
                            list.iter_mut().filter(|it| it.0 == link && it.2 == Is::Silent);
                        silent.for_each(|it| it.2 = Is::LoggingIn);
                    }
                    6 => {
                        table.leaves(now, link);
                        let known = list.iter_mut().filter(|it| it.0 == link);
                        known.for_each(|it| *it = (link, now, Is::Leaving));
                    }
                    5 => {
                        table.remove(link);
                        list.retain(|(other, ..)| *other != link);
                    }
                    _ => {
                        let busy: Vec<u32> =
                            (0..random.below(50)).map(|_| random.below(LINKS) as u32).collect();
                        let goes = table.first_to_go(now, |link| busy.contains(&link));
                        assert_eq!(goes, first_to_go(&list, now, &busy), "seed {seed}");
                        let closes = table.first_to_close(now);
                        assert_eq!(closes, old(&list, now, Is::Leaving).next(), "seed {seed}");
                        for goes in [goes, closes].into_iter().flatten() {
                            table.remove(goes);
                            list.retain(|(other, ..)| *other != goes);
                        }
                    }
                }
                let count = |what| list.iter().filter(|(_, _, is)| *is == what).count();
                assert_eq!((table.links.len(), table.order.len()), (list.len(), count(Is::Silent)));
                assert_eq!(table.leaving.len(), count(Is::Leaving));
                let still = list.len() - count(Is::Leaving);
                assert_eq!(table.are_too_many(), still > 20, "seed {seed}");
            }
        }
    }

    /// A flood of `rate` connections in a second that never log in, against a shard of 200 links.
    fn shortest_life(rate: u64) -> (Span, usize) {
        let mut table = HalfOpen::new(200);
        let mut opened = Vec::new();
        let (mut shortest, mut most) = (Span::from_secs(3_600), 0);
        for number in 0..rate * 10 {
            let now = Time::from_nanos(number * 1_000_000_000 / rate);
            opened.push(now);
            table.add(now, number as u32);
            while table.are_too_many() {
                let Some(goes) = table.first_to_go(now, |_| false) else { break };
                table.remove(goes);
                shortest = shortest.min(now.since(opened[goes as usize]));
            }
            most = most.max(table.links.len());
        }
        (shortest, most)
    }

    #[test]
    fn the_more_come_the_less_time_each_has_and_never_less_than_the_least() {
        let (life, most) = shortest_life(125);
        assert!(life >= Span::from_millis(790) && most == 100, "{life}, {most}");
        let (life, most) = shortest_life(1_000);
        assert!(life >= LEAST_TIME && most <= 502, "{life}, {most}");
    }
}
