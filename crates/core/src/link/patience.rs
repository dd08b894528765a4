//! The patience that a link emitted last, in four bytes, with the state on which the next one
//! depends.

use crate::kernel::{Cap, Patience, SendState};
use crate::time::Span;

const SECS_BITS: u32 = 22;
const SECS: u32 = (1 << SECS_BITS) - 1;
const CAP_BITS: u32 = 5;
const CAP: u32 = ((1 << CAP_BITS) - 1) << SECS_BITS;
const _: () = assert!(Cap::COUNT as u32 <= 1 << CAP_BITS);
const SEND_SHIFT: u32 = SECS_BITS + CAP_BITS;
const SEND: u32 = 3 << SEND_SHIFT;
/// The outage is longer than the policy's bound.
const EXTENDED: u32 = 1 << 29;
/// The latest examination showed bytes behind a closed window, and the peer was not in doubt.
const CHOKED: u32 = 1 << 30;
/// A warning of that was emitted; cleared once the window opens.
const REPORTED: u32 = 1 << 31;

/// The patience in force on the socket: the one that was emitted last, or that of the settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct InForce(u32);

crate::plain::plain_struct! { InForce { 0: bits } }

impl InForce {
    pub(super) fn new(patience: Patience) -> InForce {
        let secs = patience.outage().map_or(SECS, |outage| {
            let secs = outage.as_nanos() / 1_000_000_000;
            u32::try_from(secs).map_or(SECS - 1, |secs| secs.min(SECS - 1))
        });
        let send = match patience.send() {
            SendState::Sending => 0,
            SendState::Stranded => 1,
            SendState::Closed => 2,
            // A link never is an orphan: its departure is.
            SendState::Leaving | SendState::Orphaned => 3,
        };
        InForce(secs | u32::from(patience.cap().step()) << SECS_BITS | send << SEND_SHIFT)
    }

    pub(super) fn get(self) -> Patience {
        let secs = self.0 & SECS;
        let outage = (secs != SECS).then(|| Span::from_secs(u64::from(secs)));
        let send = match (self.0 & SEND) >> SEND_SHIFT {
            0 => SendState::Sending,
            1 => SendState::Stranded,
            2 => SendState::Closed,
            _ => SendState::Leaving,
        };
        Patience::new(outage, send).with_cap(self.cap())
    }

    /// Returns the cap in force.
    #[inline]
    pub(super) fn cap(self) -> Cap {
        Cap::from_step(((self.0 & CAP) >> SECS_BITS) as u8)
    }

    /// Puts `patience` in force; `extended` is whether its outage exceeds the policy's bound.
    /// Returns whether that changes the patience.
    pub(super) fn set(&mut self, patience: Patience, extended: bool) -> bool {
        let changed = self.get() != patience;
        let extended = if extended { EXTENDED } else { 0 };
        self.0 = InForce::new(patience).0 | self.0 & (CHOKED | REPORTED) | extended;
        changed
    }

    /// Returns whether the outage exceeds the policy's bound, because of a hold, a keep or a
    /// retune. Evidence may then shorten it.
    #[inline]
    pub(super) fn is_extended(self) -> bool {
        self.0 & EXTENDED != 0
    }

    /// Records that an examination showed an open window.
    pub(super) fn window_opened(&mut self) {
        self.0 &= !(CHOKED | REPORTED);
    }

    /// Records whether an examination showed bytes behind a closed window, and whether none has
    /// left since the one before. Returns true if both showed them and none has left; only once
    /// until the window opens.
    pub(super) fn is_choked(&mut self, waits: bool, stuck: bool) -> bool {
        let before = self.0;
        self.0 &= !CHOKED;
        if waits {
            self.0 |= CHOKED | if before & CHOKED != 0 && stuck { REPORTED } else { 0 };
        }
        self.0 & REPORTED & !before != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::LONGEST_OUTAGE;

    #[test]
    fn every_patience_is_kept_exactly() {
        let outages = [
            Some(Span::ZERO),
            Some(Span::from_secs(30)),
            Some(LONGEST_OUTAGE),
            Some(Span::from_nanos(u64::MAX)),
        ];
        for outage in outages.into_iter().chain([None]) {
            for send in
                [SendState::Sending, SendState::Stranded, SendState::Closed, SendState::Leaving]
            {
                for cap in [Cap::LEAST, Cap::at_least(Span::from_secs(9)), Cap::NONE] {
                    let patience = Patience::new(outage, send).with_cap(cap);
                    assert_eq!(InForce::new(patience).get(), patience);
                }
            }
        }
    }

    #[test]
    fn a_closed_window_is_reported_at_the_second_examination_and_once() {
        let mut force = InForce::new(Patience::new(None, SendState::Sending));
        let reported: [bool; 8] = [true, false, true, true, true, false, true, true]
            .map(|waits| force.is_choked(waits, true));
        assert_eq!(reported, [false, false, false, true, false, false, false, false]);
        force.window_opened();
        let moves = [false, false, true, true].map(|stuck| force.is_choked(true, stuck));
        assert_eq!(moves, [false, false, true, false], "a slow reader takes bytes");
        assert!(force.set(Patience::new(None, SendState::Closed), true));
        assert!(!force.set(Patience::new(None, SendState::Closed), false));
        assert!(!force.is_extended() && !force.is_choked(true, true), "reported already");
    }
}
