//! Which of a device's counters were heard already.

/// How far behind the highest counter a late datagram may come: what a network reorders lies within
/// a few, and 64 fit one word.
const REACH: u32 = 64;

/// How far ahead of the highest a counter may be. Whole minutes of losses fit; and a device that
/// counts wildly uses up its numbers a thousand at a time, not all at once.
pub const MAX_AHEAD: u32 = 1_024;

/// The highest counter heard, and a bit for each of the 64 up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    highest: u32,
    heard: u64,
}

/// What a counter is, seen from a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Above all heard so far.
    Newest,
    /// Late, but not heard before.
    Late,
    /// Heard before, or too old to tell.
    Old,
    /// Too far ahead.
    Ahead,
}

impl Window {
    /// A window in which `counter` was heard, and counts as old whatever is not above `floor`.
    pub(super) fn new(counter: u32, floor: u32) -> Window {
        let above = counter.saturating_sub(floor);
        Window { highest: counter, heard: u64::MAX.checked_shl(above).unwrap_or(0) | 1 }
    }

    pub(super) const fn highest(&self) -> u32 {
        self.highest
    }

    /// Takes note of `counter`, unless it is old or too far ahead.
    pub(super) fn hear(&mut self, counter: u32) -> Standing {
        if counter > self.highest {
            let ahead = counter - self.highest;
            if ahead > MAX_AHEAD {
                return Standing::Ahead;
            }
            self.heard = self.heard.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = counter;
            return Standing::Newest;
        }
        let behind = self.highest - counter;
        if behind >= REACH || self.heard & 1 << behind != 0 {
            return Standing::Old;
        }
        self.heard |= 1 << behind;
        Standing::Late
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;
    use crate::random::Random;

    #[test]
    fn each_counter_is_heard_once_within_reach() {
        let mut window = Window::new(100, 10);
        assert_eq!(window.hear(100), Standing::Old);
        assert_eq!(window.hear(103), Standing::Newest);
        assert_eq!(window.hear(101), Standing::Late);
        assert_eq!(window.hear(101), Standing::Old);
        assert_eq!(window.hear(40), Standing::Late, "63 behind");
        assert_eq!(window.hear(39), Standing::Old, "64 behind cannot be told");
        assert_eq!(window.hear(103 + 64), Standing::Newest);
        assert_eq!(window.hear(104), Standing::Late);
        assert_eq!(window.hear(103), Standing::Old, "a jump by 64 forgets all before");
        assert_eq!(window.hear(167 + MAX_AHEAD + 1), Standing::Ahead);
        assert_eq!(window.highest(), 167, "and changes nothing");
        assert_eq!(window.hear(167 + MAX_AHEAD), Standing::Newest);
    }

    #[test]
    fn nothing_up_to_the_floor_is_new() {
        let mut window = Window::new(100, 97);
        assert_eq!(window.hear(97), Standing::Old);
        assert_eq!(window.hear(90), Standing::Old);
        assert_eq!(window.hear(98), Standing::Late);
        assert_eq!(window.hear(105), Standing::Newest);
        assert_eq!(window.hear(97), Standing::Old);
        assert_eq!(window.hear(99), Standing::Late);
    }

    #[test]
    fn the_ends_of_the_numbers_do_no_harm() {
        let mut window = Window::new(u32::MAX, 0);
        assert_eq!(window.hear(0), Standing::Old);
        assert_eq!(window.hear(u32::MAX - 1), Standing::Late);
        let mut window = Window::new(0, 0);
        assert_eq!(window.hear(0), Standing::Old);
        assert_eq!(window.hear(u32::MAX), Standing::Ahead);
    }

    #[test]
    fn a_set_of_all_heard_agrees() {
        let mut random = Random::new(5);
        let (mut window, mut set, mut highest) = (Window::new(500, 0), BTreeSet::from([500]), 500);
        for _ in 0..100_000 {
            let counter = highest - 80 + random.below(90) as u32;
            let standing = window.hear(counter);
            let expected = match counter {
                _ if set.contains(&counter) => Standing::Old,
                _ if counter > highest => Standing::Newest,
                _ if highest - counter >= REACH => Standing::Old,
                _ => Standing::Late,
            };
            assert_eq!(standing, expected, "{counter} after {highest}");
            if standing != Standing::Old {
                set.insert(counter);
                highest = highest.max(counter);
            }
        }
        assert!(highest > 10_000);
    }
}
