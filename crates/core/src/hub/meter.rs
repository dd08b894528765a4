//! How much a peer sends: messages, bytes and heartbeats, each on average over ten seconds. A short
//! piece of a message costs as much as a message, and the request of a policy as a heartbeat.
//!
//! Ten seconds ahead of a rate is too far. So what has waited while nobody read, in a stall or a
//! slow network, is no flood. A link has a meter only at a listener with such rates, once it has
//! sent something, and takes it along to another hub.

use super::Hub;
use super::rate::PaidUntil;
use crate::link::{self, Command, Goodbye, Rates};
use crate::plain::plain_struct;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// How far a peer may be ahead of its rate.
const AHEAD: Span = Span::from_secs(10);

/// The time after which a peer that floods may come back.
const RETURN_AFTER: Span = Span::from_secs(60);

/// What a peer has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    messages: PaidUntil,
    bytes: PaidUntil,
    heartbeats: PaidUntil,
    /// Whether it was told its policy since it sends too many heartbeats.
    is_warned: bool,
}

plain_struct! { Meter { messages, bytes, heartbeats, is_warned } }

/// What a peer sends too much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flood {
    Messages,
    Bytes,
    Heartbeats,
}

impl Meter {
    /// Counts what has just arrived; returns what there is too much of.
    fn count(
        &mut self,
        now: Time,
        rates: Rates,
        [messages, bytes, beats]: [u64; 3],
    ) -> Option<Flood> {
        let each = [
            (&mut self.messages, rates.messages, messages, Flood::Messages),
            (&mut self.bytes, rates.bytes, bytes, Flood::Bytes),
            (&mut self.heartbeats, rates.heartbeats, beats, Flood::Heartbeats),
        ];
        let mut found = None;
        for (paid_until, rate, count, flood) in each {
            if rate == 0 {
                continue;
            }
            let costs = count.saturating_mul(1_000_000_000) / u64::from(rate);
            *paid_until = paid_until.take(now, Span::from_nanos(costs));
            if paid_until.ahead(now) > AHEAD && found.is_none() {
                found = Some(flood);
            }
        }
        found
    }
}

impl Hub {
    /// Handles an input with which a peer's bytes are decoded: new ones, or its admission, for
    /// which they waited; and counts what they were. Not inlined: hubs without rates are on the hot
    /// path.
    #[inline(never)]
    pub(super) fn handle_metered<'a>(
        &mut self,
        now: Time,
        link: u32,
        input: impl Into<link::Input<'a>>,
    ) {
        let input = input.into();
        let bytes = match input {
            link::Input::World(link::World::Received(bytes)) => bytes.len(),
            link::Input::World(_) | link::Input::Answer(_) => 0,
        };
        let before = self.outbound.metered();
        self.handle_link(now, link, input);
        self.meter(now, link, bytes, before);
    }

    /// Counts what has arrived on a link, and ends it if that is too much. `before` are the
    /// messages and heartbeats of all links before it arrived.
    fn meter(&mut self, now: Time, link: u32, bytes: usize, before: (u64, u64)) {
        let Some(slot) = self.slots.get(link) else {
            return;
        };
        let settings = self.listeners.get(usize::from(slot.listener));
        let rates = settings.map_or_else(Rates::default, |settings| settings.rates);
        if rates == Rates::default() || slot.peer.is_over() {
            return;
        }
        let policy = *slot.peer.policy();
        let (messages, beats) = self.outbound.metered();
        let (messages, beats) = (messages.saturating_sub(before.0), beats.saturating_sub(before.1));
        let meter = self.meters.entry(link).or_default();
        let Some(flood) = meter.count(now, rates, [messages, bytes as u64, beats]) else {
            return;
        };
        if flood == Flood::Heartbeats && !meter.is_warned {
            meter.is_warned = true;
            meter.heartbeats = PaidUntil::default();
            return self.handle_link(now, link, link::World::Command(Command::Retune(policy)));
        }
        let text = match flood {
            Flood::Messages => "too many messages",
            Flood::Bytes => "too many bytes",
            Flood::Heartbeats => "too many heartbeats",
        };
        let goodbye = Goodbye { return_after: RETURN_AFTER, ..CloseReason::Flooding.into() };
        let close = Command::Close { goodbye, text };
        self.handle_link(now, link, link::World::Command(close));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::random::Random;

    const RATES: Rates = Rates { messages: 10, bytes: 1_000, heartbeats: 2 };

    /// Whether the sums over every window of time stay within rate and burst: the definition that
    /// docs/abuse.md gives, computed over all that was ever sent.
    fn exceeds(sent: &[(Time, u64)], rate: u64) -> bool {
        (0..sent.len()).any(|first| {
            let mut sum = 0;
            sent[first..].iter().any(|(at, count)| {
                sum += count;
                let allowed = at.since(sent[first].0) + AHEAD;
                u128::from(sum) * 1_000_000_000 > u128::from(rate) * u128::from(allowed.as_nanos())
            })
        })
    }

    #[test]
    fn a_peer_floods_if_any_span_of_time_has_more_than_the_rate_and_ten_seconds_of_it() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let (mut meter, mut now) = (Meter::default(), Time::from_millis(5_000));
            let mut sent: [Vec<(Time, u64)>; 3] = Default::default();
            for _ in 0..60 {
                now = now + Span::from_millis(random.below(1_500));
                let counts = [random.below(30), random.below(3_000), random.below(6)];
                for (sent, count) in sent.iter_mut().zip(counts) {
                    sent.push((now, count));
                }
                let [messages, bytes, heartbeats] = &sent;
                let expected = [
                    (exceeds(messages, 10), Flood::Messages),
                    (exceeds(bytes, 1_000), Flood::Bytes),
                    (exceeds(heartbeats, 2), Flood::Heartbeats),
                ];
                let expected =
                    expected.iter().find(|(exceeds, _)| *exceeds).map(|(_, flood)| *flood);
                let found = meter.count(now, RATES, counts);
                assert_eq!(found.is_some(), expected.is_some(), "seed {seed}");
                if found.is_some() {
                    assert_eq!(found, expected, "seed {seed}");
                    break;
                }
            }
        }
    }

    #[test]
    fn what_waited_for_ten_seconds_is_no_flood_and_no_limit_is_none() {
        let mut meter = Meter::default();
        let now = Time::from_millis(60_000);
        assert_eq!(meter.count(now, RATES, [100, 10_000, 20]), None);
        assert_eq!(meter.count(now, RATES, [1, 0, 0]), Some(Flood::Messages));
        let mut free = Meter::default();
        assert_eq!(free.count(now, Rates::default(), [u64::MAX; 3]), None);
    }
}
