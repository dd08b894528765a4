//! The cap of the kernel's retransmission timeout, and its premise: a short round trip.

use super::TcpSnapshot;
use crate::plain::plain_struct;
use crate::time::Span;

/// The least cap, in milliseconds: the least that Linux accepts.
const LEAST_MS: u64 = 1_000;

/// The largest cap: the largest that Linux accepts, and its default.
const LARGEST: Span = Span::from_secs(120);

/// The step of [`Cap::NONE`]. Four steps double the cap: step 27 is 112 s.
const LAST: u8 = 28;

/// The longest time between two attempts of the kernel to send the same bytes, in steps from 1 s to
/// 120 s. A low cap brings a link back soon after an outage.
///
/// Where an acknowledgement takes longer than the cap, the kernel retransmits everything before its
/// acknowledgement can come, and gives up a connection whose bytes flow. So the cap is at least
/// twice [`TcpSnapshot::expected_ack`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Cap(u8);

plain_struct! { Cap { 0: step } if Cap::is_legal }

impl Cap {
    /// The least cap, 1 s.
    pub const LEAST: Cap = Cap(0);

    /// No cap but that of Linux, 120 s.
    pub const NONE: Cap = Cap(LAST);

    /// The number of caps. A cap fits in five bits.
    pub(crate) const COUNT: u8 = LAST + 1;

    /// Returns the least cap that is not shorter than `needed`.
    pub fn at_least(needed: Span) -> Cap {
        (0..LAST).map(Cap).find(|cap| cap.span() >= needed).unwrap_or(Cap::NONE)
    }

    /// Returns the cap as a time.
    pub const fn span(self) -> Span {
        if self.0 >= LAST {
            return LARGEST;
        }
        Span::from_millis(((4 + self.0 as u64 % 4) * LEAST_MS / 4) << (self.0 / 4))
    }

    pub(crate) const fn step(self) -> u8 {
        self.0
    }

    /// Returns the cap with the number `step`; the largest if there is none.
    pub(crate) const fn from_step(step: u8) -> Cap {
        if step < LAST { Cap(step) } else { Cap::NONE }
    }

    fn is_legal(&self) -> bool {
        self.0 < Cap::COUNT
    }
}

/// What the latest look at a connection without timestamps showed, in two bytes.
///
/// Without timestamps the kernel measures no round trip of what it has retransmitted (RFC 6298,
/// section 3). Where every segment is retransmitted before its acknowledgement comes, its figures
/// stay those of a shorter round trip.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Blind(u16);

plain_struct! { Blind { 0: bits } }

impl Blind {
    const BACKED_OFF: u16 = 1 << 15;

    /// Records a look. Returns whether the kernel's figures are proven wrong: this look and the one
    /// before showed a doubled retransmission timeout, and bytes were acknowledged in between.
    pub(crate) fn see(&mut self, tcp: &TcpSnapshot) -> bool {
        let before = self.0;
        // A closed window doubles the same counter.
        if tcp.timestamps || tcp.backoff == 0 || tcp.probes > 0 || tcp.is_window_closed() {
            *self = Blind::default();
            return false;
        }
        // The low bits suffice to see that the count moves.
        let acked = tcp.bytes_acked.unwrap_or(0) as u16 & !Self::BACKED_OFF;
        self.0 = acked | Self::BACKED_OFF;
        before & Self::BACKED_OFF != 0 && before != self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_go_from_one_second_to_two_minutes_in_steps_of_a_quarter_at_most() {
        let mut before = Cap::LEAST.span();
        assert_eq!(before, Span::from_secs(1));
        for step in 1..Cap::COUNT {
            let cap = Cap::from_step(step).span();
            assert!(cap > before && cap.as_millis() * 4 <= before.as_millis() * 5, "{cap}");
            before = cap;
        }
        assert_eq!(before, Span::from_secs(120));
        assert_eq!(Cap::from_step(Cap::COUNT), Cap::NONE);
    }

    #[test]
    fn the_cap_is_the_first_step_that_suffices() {
        for (needed, expected) in [
            (0, 1_000),
            (1_000, 1_000),
            (1_001, 1_250),
            (12_000, 12_000),
            (12_001, 14_000),
            (112_000, 112_000),
            (112_001, 120_000),
            (u64::MAX, 120_000),
        ] {
            let cap = Cap::at_least(Span::from_millis(needed));
            assert_eq!(cap.span().as_millis(), expected, "{needed}");
        }
    }

    #[test]
    fn only_bytes_acknowledged_between_two_doubled_timeouts_prove_the_figures_wrong() {
        let look = |backoff, acked| TcpSnapshot {
            backoff,
            bytes_acked: Some(acked),
            unacked: 1,
            ..TcpSnapshot::default()
        };
        let proven = |looks: &[TcpSnapshot]| {
            let mut blind = Blind::default();
            looks.iter().any(|tcp| blind.see(tcp))
        };
        assert!(proven(&[look(2, 5), look(1, 6)]));
        assert!(!proven(&[look(2, 5), look(9, 5)]), "nothing was acknowledged");
        assert!(!proven(&[look(2, 5), look(0, 6), look(1, 7)]), "a valid sample in between");
        assert!(!proven(&[look(0, 5), look(1, 6)]));
        let stamped = TcpSnapshot { timestamps: true, ..look(2, 5) };
        assert!(!proven(&[stamped, TcpSnapshot { bytes_acked: Some(6), ..stamped }]));
        let closed = TcpSnapshot { send_window: Some(0), unacked: 0, ..look(2, 5) };
        assert!(!proven(&[closed, TcpSnapshot { bytes_acked: Some(6), ..closed }]));
    }
}
