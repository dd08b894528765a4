//! The replay window: which of a device's counters were received already.

/// The size of the window in counters. A network reorders within a few datagrams, and 64 bits fit
/// one word.
const WINDOW: u32 = 64;

/// A replay window: the highest counter received, and one bit for each of the 64 up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    highest: u32,
    received: u64,
}

/// The classification of a counter by a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CounterClass {
    /// The counter is above all received so far.
    Newest,
    /// The counter is late, but was not received before.
    Late,
    /// The counter is the highest one, received before: most often a datagram that the network has
    /// doubled.
    Latest,
    /// Another counter that was received before, or one behind the window.
    Old,
}

crate::plain::plain_struct! { Window { highest, received } }

impl Window {
    /// Creates a window in which `counter` was received, and all counters up to `floor` are old.
    pub(super) fn new(counter: u32, floor: u32) -> Window {
        let above = counter.saturating_sub(floor);
        Window { highest: counter, received: u64::MAX.checked_shl(above).unwrap_or(0) | 1 }
    }

    pub(super) const fn highest(&self) -> u32 {
        self.highest
    }

    /// Classifies `counter`, and marks it as received.
    pub(super) fn record(&mut self, counter: u32) -> CounterClass {
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.received = self.received.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = counter;
            return CounterClass::Newest;
        }
        let behind = self.highest - counter;
        if behind == 0 {
            return CounterClass::Latest;
        }
        if behind >= WINDOW || self.received & 1 << behind != 0 {
            return CounterClass::Old;
        }
        self.received |= 1 << behind;
        CounterClass::Late
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;
    use crate::random::Random;

    #[test]
    fn each_counter_is_accepted_once_within_the_window() {
        let mut window = Window::new(100, 10);
        assert_eq!(window.record(100), CounterClass::Latest);
        assert_eq!(window.record(103), CounterClass::Newest);
        assert_eq!(window.record(101), CounterClass::Late);
        assert_eq!(window.record(101), CounterClass::Old);
        assert_eq!(window.record(40), CounterClass::Late, "63 behind");
        assert_eq!(window.record(39), CounterClass::Old, "64 behind is outside the window");
        assert_eq!(window.record(103 + 64), CounterClass::Newest);
        assert_eq!(window.record(104), CounterClass::Late);
        assert_eq!(window.record(103), CounterClass::Old, "a jump by 64 clears the window");
        assert_eq!(window.record(1_000_000), CounterClass::Newest, "however far ahead");
        assert_eq!(window.record(167), CounterClass::Old);
    }

    #[test]
    fn nothing_up_to_the_floor_is_new() {
        let mut window = Window::new(100, 97);
        assert_eq!(window.record(97), CounterClass::Old);
        assert_eq!(window.record(90), CounterClass::Old);
        assert_eq!(window.record(98), CounterClass::Late);
        assert_eq!(window.record(105), CounterClass::Newest);
        assert_eq!(window.record(97), CounterClass::Old);
        assert_eq!(window.record(99), CounterClass::Late);
    }

    #[test]
    fn counters_at_both_ends_of_the_range_are_classified() {
        let mut window = Window::new(u32::MAX, 0);
        assert_eq!(window.record(0), CounterClass::Old);
        assert_eq!(window.record(u32::MAX - 1), CounterClass::Late);
        let mut window = Window::new(0, 0);
        assert_eq!(window.record(0), CounterClass::Latest);
        assert_eq!(window.record(u32::MAX), CounterClass::Newest);
    }

    #[test]
    fn the_window_agrees_with_a_set_of_all_received_counters() {
        let mut random = Random::new(5);
        let (mut window, mut set, mut highest) = (Window::new(500, 0), BTreeSet::from([500]), 500);
        for _ in 0..100_000 {
            let counter = highest - 80 + random.below(90) as u32;
            let class = window.record(counter);
            let expected = match counter {
                _ if counter == highest => CounterClass::Latest,
                _ if set.contains(&counter) => CounterClass::Old,
                _ if counter > highest => CounterClass::Newest,
                _ if highest - counter >= WINDOW => CounterClass::Old,
                _ => CounterClass::Late,
            };
            assert_eq!(class, expected, "{counter} after {highest}");
            if matches!(class, CounterClass::Newest | CounterClass::Late) {
                set.insert(counter);
                highest = highest.max(counter);
            }
        }
        assert!(highest > 10_000);
    }
}
