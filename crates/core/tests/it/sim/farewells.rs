//! The content of CLOSE: why the link ends, when to come back, and a text for people.

use systole_core::Span;
use systole_core::cause::Cause;
use systole_core::link::Goodbye;
use systole_core::random::Random;
use systole_core::wire::{Close, CloseReason};

/// What a CLOSE says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Farewell {
    pub(super) goodbye: Goodbye,
    pub(super) text: String,
}

impl Farewell {
    pub(super) fn of(close: &Close<'_>) -> Farewell {
        let return_after = Span::from_millis(close.return_after_ms.into());
        let goodbye = Goodbye { reason: close.reason, stay_away: close.final_, return_after };
        Farewell { goodbye, text: close.text.into() }
    }

    /// Returns what a CLOSE says for which an end was commanded, or refused: the time in whole
    /// milliseconds, of which the field holds 32 bits, and the text if it is one of at most 128
    /// bytes without control characters.
    pub(super) fn commanded(goodbye: Goodbye, text: &str) -> Farewell {
        let return_after = goodbye.return_after.as_millis().min(u32::MAX.into());
        let return_after = Span::from_millis(return_after);
        let is_legal = text.len() <= 128 && !text.contains(char::is_control);
        let text = if is_legal { text } else { "" };
        Farewell { goodbye: Goodbye { return_after, ..goodbye }, text: text.into() }
    }

    /// Checks what was said at an end that nobody commanded, against docs/protocol.md, section 6,
    /// and docs/identity.md.
    pub(super) fn check(&self, name: &str, cause: Cause) {
        let Farewell { goodbye: Goodbye { reason, stay_away, return_after }, text } = self;
        if let Cause::Protocol(_) = cause {
            // Only of identities: another attempt is of no use.
            assert_eq!(*reason, CloseReason::Unauthorized, "{name}: not its identity");
            assert!(*stay_away && !text.is_empty(), "{name}: {self:?}");
            return;
        }
        let expected = if cause == Cause::Unauthorized {
            CloseReason::Unauthorized
        } else if cause == Cause::SlowConsumer {
            CloseReason::Slow
        } else if cause == Cause::Drained {
            CloseReason::Drained
        } else if cause == Cause::PeerExited {
            // It has closed its side, and this end has nothing more to say.
            CloseReason::Done
        } else if cause == Cause::LocalFault {
            // Nobody answered the admission.
            CloseReason::Full
        } else {
            CloseReason::Silent
        };
        assert_eq!(*reason, expected, "{name}: {cause}");
        assert!(!stay_away && text.is_empty(), "{name}: {cause}: {self:?}");
        // A drain spreads the returns, and who was not looked at in time comes back later.
        let may_wait = matches!(cause, Cause::Drained | Cause::LocalFault);
        assert!(may_wait || *return_after == Span::ZERO, "{name}: {cause}: {self:?}");
    }
}

/// Draws a text for people: mostly a legal one, else one that is too long by a byte, or no text.
pub(super) fn text(random: &mut Random) -> String {
    match random.below(8) {
        0..3 => String::new(),
        3 => "x".repeat(128),
        4 => "x".repeat(129),
        5 => "\u{e9}".repeat(65),
        6 => "come back\ntomorrow".into(),
        _ => "come back \u{2014} tomorrow".into(),
    }
}
