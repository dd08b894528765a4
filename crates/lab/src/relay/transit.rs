//! The packets in transit, in the order in which they are due. Pure: time comes as an argument.

use std::collections::BTreeMap;

use systole_core::Span;

/// Maximum of packets in transit. More are dropped, as in a full queue of a router; this is far
/// more than all heartbeats of a lab within one delay.
const MAX_IN_TRANSIT: usize = 10_000;

/// A packet in transit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    /// Whether the delay was ordered during the run.
    pub(super) ordered: bool,
}

/// A queue for each direction. A delay that shrinks lets no packet overtake the earlier ones, as in
/// the queue of a router; only jitter does.
#[derive(Debug, Default)]
pub(super) struct Transit {
    waiting: BTreeMap<(Span, u64), Packet>,
    /// Number of packets so far, which keeps the order of those that are due at once.
    count: u64,
    /// The latest time at which a packet is due without jitter, outwards and inwards.
    last: [Span; 2],
}

impl Transit {
    /// Adds a packet that is due at `due`, and by `jitter` later.
    pub(super) fn push(&mut self, due: Span, jitter: Span, inwards: bool, packet: Packet) {
        if self.waiting.len() >= MAX_IN_TRANSIT {
            return;
        }
        let [outward, inward] = &mut self.last;
        let last = if inwards { inward } else { outward };
        *last = due.max(*last);
        self.count += 1;
        self.waiting.insert((*last + jitter, self.count), packet);
    }

    /// Takes the next packet that is due.
    pub(super) fn due(&mut self, now: Span) -> Option<Packet> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Returns the time at which the next packet is due.
    pub(super) fn next(&self) -> Option<Span> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    fn packet(number: u8) -> Packet {
        Packet { bytes: vec![number], ordered: false }
    }

    fn order(transit: &mut Transit) -> Vec<u8> {
        std::iter::from_fn(|| transit.due(ms(60_000))).flat_map(|packet| packet.bytes).collect()
    }

    #[test]
    fn a_shorter_delay_lets_nothing_overtake_within_a_direction() {
        let mut transit = Transit::default();
        transit.push(ms(3_000), Span::ZERO, true, packet(1));
        transit.push(ms(20), Span::ZERO, true, packet(2));
        transit.push(ms(20), Span::ZERO, false, packet(3));
        assert_eq!(transit.next(), Some(ms(20)));
        assert_eq!(transit.due(ms(19)), None);
        assert_eq!(order(&mut transit), [3, 1, 2]);
    }

    #[test]
    fn jitter_lets_packets_overtake() {
        let mut transit = Transit::default();
        transit.push(ms(10), ms(50), true, packet(1));
        transit.push(ms(11), Span::ZERO, true, packet(2));
        assert_eq!(order(&mut transit), [2, 1]);
    }
}
