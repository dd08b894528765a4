//! Why a login is refused, and when its peer is told.

use systole_core::link::Goodbye;
use systole_core::wire::CloseReason;
use systole_core::{Span, Time};

/// Refusals leave at multiples of this time after HELLO, so that a peer cannot tell from the delay
/// what is wrong with its token. Verification takes some tenths of a millisecond, and seldom waits
/// for longer than this.
const STEP: Span = Span::from_millis(250);

/// The time after which a peer may come back for whose token there was no room.
const RETURN_AFTER: Span = Span::from_secs(5);

/// Why a login is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The peer has sent no token.
    NoToken,
    /// The token is no JWT, or one of its parts cannot be read.
    Malformed,
    /// No key has the algorithm and the name that the token gives.
    UnknownKey,
    /// No key has made the signature.
    Signature,
    /// The token's time is over.
    Expired,
    /// The token's time has not begun.
    NotYetValid,
    /// The token has no end, and must have one.
    NoExpiry,
    /// Another issuer has made the token.
    Issuer,
    /// The token is for another audience.
    Audience,
    /// The token names no identity, or one that is none.
    NoIdentity,
    /// The attributes that the token gives are too long.
    Attributes,
    /// The webhook has refused the token.
    Webhook,
    /// The webhook has not answered in time, or not as it must.
    WebhookFailed,
    /// Too many logins from this address were refused; the token was not looked at.
    Address,
    /// Too many tokens wait to be verified.
    Full,
}

impl Refusal {
    /// The names of all reasons, as metrics and logs show them.
    pub const NAMES: [&'static str; 15] = [
        "no_token",
        "malformed",
        "unknown_key",
        "signature",
        "expired",
        "not_yet_valid",
        "no_expiry",
        "issuer",
        "audience",
        "no_identity",
        "attributes",
        "webhook",
        "webhook_failed",
        "address",
        "full",
    ];

    /// Returns the place of the reason in [`Refusal::NAMES`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the name of the reason.
    pub const fn name(self) -> &'static str {
        Refusal::NAMES[self.index()]
    }

    /// Whether the token was looked at, and is at fault.
    pub const fn is_verdict(self) -> bool {
        !matches!(self, Refusal::WebhookFailed | Refusal::Address | Refusal::Full)
    }

    /// Returns the CLOSE to the peer, which is the same whatever is wrong with its token.
    pub fn goodbye(self) -> Goodbye {
        if self.is_verdict() {
            Goodbye { stay_away: true, ..CloseReason::Unauthorized.into() }
        } else {
            Goodbye { return_after: RETURN_AFTER, ..CloseReason::Full.into() }
        }
    }
}

/// Returns when a refusal leaves that was found at `now`, for a login of the time `asked`.
pub fn refuse_after(asked: Time, now: Time) -> Time {
    let steps = now.since(asked).as_nanos().div_ceil(STEP.as_nanos()).max(1);
    asked + STEP.times(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_leave_at_the_same_time_whatever_was_found_how_soon() {
        let asked = Time::from_millis(7_000);
        for (found, leaves) in
            [(0, 250), (1, 250), (249, 250), (250, 250), (251, 500), (900, 1_000)]
        {
            let leaves = asked + Span::from_millis(leaves);
            assert_eq!(refuse_after(asked, asked + Span::from_millis(found)), leaves, "{found}");
        }
        let late = refuse_after(asked, Time::from_nanos(u64::MAX));
        assert!(late > asked, "{late:?}");
    }

    #[test]
    fn a_bad_token_gets_the_same_answer_whatever_is_wrong_with_it() {
        let all = [
            Refusal::NoToken,
            Refusal::Malformed,
            Refusal::UnknownKey,
            Refusal::Signature,
            Refusal::Expired,
            Refusal::NotYetValid,
            Refusal::NoExpiry,
            Refusal::Issuer,
            Refusal::Audience,
            Refusal::NoIdentity,
            Refusal::Attributes,
            Refusal::Webhook,
            Refusal::WebhookFailed,
            Refusal::Address,
            Refusal::Full,
        ];
        assert!(all.iter().enumerate().all(|(place, it)| it.index() == place));
        let (verdicts, others) = all.split_at(12);
        let unauthorized = Goodbye { stay_away: true, ..CloseReason::Unauthorized.into() };
        assert!(verdicts.iter().all(|it| it.is_verdict() && it.goodbye() == unauthorized));
        assert!(others.iter().all(|it| !it.is_verdict() && !it.goodbye().stay_away));
        assert_eq!(Refusal::Full.name(), "full");
    }
}
