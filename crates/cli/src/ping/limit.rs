//! A limit on the lines that a server can cause at will: no server may flood a terminal or a log.

use systole_client::wire::BeatKind;
use systole_client::{Event, Span};

/// Lines a second that a server can cause; those beyond are counted and left out.
pub(super) const LINES_A_SECOND: u32 = 100;

/// The time in which [`LINES_A_SECOND`] are printed at most.
const SECOND: Span = Span::from_secs(1);

/// Counts the lines of the current second.
#[derive(Debug, Default)]
pub(super) struct Limit {
    since: Span,
    printed: u32,
    left_out: u64,
}

impl Limit {
    /// Returns whether a line about `event` may be printed at `now`. If not, counts it as left out.
    pub(super) fn admits(&mut self, event: &Event, now: Span) -> bool {
        if !is_at_will(event) {
            return true;
        }
        if now.less(self.since) >= SECOND {
            (self.since, self.printed) = (now, 0);
        }
        if self.printed < LINES_A_SECOND {
            self.printed += 1;
            return true;
        }
        self.left_out += 1;
        false
    }

    /// Returns how many lines were left out, once, when their second is over.
    pub(super) fn left_out(&mut self, now: Span) -> Option<u64> {
        let is_over = now.less(self.since) >= SECOND;
        if is_over { self.rest() } else { None }
    }

    /// Returns how many lines were left out and not told yet.
    pub(super) fn rest(&mut self) -> Option<u64> {
        match std::mem::take(&mut self.left_out) {
            0 => None,
            count => Some(count),
        }
    }
}

/// Returns whether a server can cause the event as often as it likes. Our own heartbeats and
/// attempts bound all others.
fn is_at_will(event: &Event) -> bool {
    match event {
        Event::Session(_)
        | Event::HeartbeatReceived { .. }
        | Event::HeartbeatSent { beat: BeatKind::Pong, .. }
        | Event::Message(_)
        | Event::MessageTooLong { .. }
        | Event::HeartbeatData(_)
        | Event::Revised { .. } => true,
        Event::HeartbeatSent { beat: BeatKind::Ping, .. }
        | Event::HeartbeatAnswered { .. }
        | Event::Accepted { .. }
        | Event::Connected { .. }
        | Event::Reconnected { .. }
        | Event::Reconnecting { .. }
        | Event::AttemptFailed(_)
        | Event::Lost { .. }
        | Event::Away { .. }
        | Event::Resumed { .. }
        | Event::NotResumed { .. }
        | Event::RoundTrip(_)
        | Event::Closed(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use systole_client::{Policy, session};

    #[test]
    fn a_second_has_a_limited_number_of_lines_and_the_rest_is_counted() {
        let (mut limit, mut printed) = (Limit::default(), 0);
        let event = Event::Session(session::Event::Retuned(Policy::default()));
        for micros in 0..1_000 {
            let now = Span::from_micros(micros);
            printed += u32::from(limit.admits(&event, now));
            assert_eq!(limit.left_out(now), None);
        }
        assert_eq!(printed, LINES_A_SECOND);
        assert!(limit.admits(&Event::RoundTrip(Span::ZERO), Span::from_micros(1_000)));
        assert_eq!(limit.left_out(SECOND), Some(900));
        assert_eq!(limit.left_out(SECOND), None);
        assert!(limit.admits(&event, SECOND));
    }
}
