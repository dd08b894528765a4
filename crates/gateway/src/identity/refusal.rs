//! Why a login is refused, and when its peer is told.

use systole_core::denial::{Denial, Denied};
use systole_core::link::Goodbye;
use systole_core::wire::CloseReason;
use systole_core::{Span, Time};

/// Refusals leave at multiples of this time after HELLO, so that a peer cannot tell from the delay
/// what is wrong with its token. Verification takes some tenths of a millisecond, and seldom waits
/// for longer than this.
const STEP: Span = Span::from_millis(250);

/// The time after which a peer may come back for whose token, or session, there was no room.
const RETURN_AFTER: Span = Span::from_secs(5);

/// The time after which a peer may come back whose home was full: the queue is short.
const RETURN_HOME_AFTER: Span = Span::from_secs(1);

/// Why a login is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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
    /// The identity has as many sessions as it may have, and they answer.
    InUse,
    /// Too many logins of the identity wait for their turn.
    Waiting,
    /// The shard has no place for another session.
    NoPlace,
    /// The shard that decides about the identity takes no more links.
    HomeBusy,
    /// What is owed about the session cannot be stored.
    Store,
    /// The identity logs in more often than its listener allows.
    TooOften,
    /// The connection was the oldest of too many that had not logged in.
    Crowded,
}

impl Refusal {
    /// The names of all reasons, as metrics and logs show them.
    pub const NAMES: [&'static str; 22] = [
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
        "in_use",
        "waiting",
        "no_place",
        "home_busy",
        "store",
        "too_often",
        "crowded",
    ];

    /// Returns the reason for a refusal that is decided once it is known who the peer is; `None`
    /// for the others, which are counted when the token is looked at.
    pub const fn of_known(denial: Denial) -> Option<Refusal> {
        match denial {
            Denial::InUse
            | Denial::Waiting
            | Denial::NoPlace
            | Denial::HomeBusy
            | Denial::Store
            | Denial::TooOften
            | Denial::Crowded => Some(Refusal::of(denial)),
            Denial::Webhook | Denial::WebhookFailed | Denial::Address | Denial::Full => None,
        }
    }

    /// Returns the reason that ends a link with this denial.
    pub const fn of(denial: Denial) -> Refusal {
        match denial {
            Denial::InUse => Refusal::InUse,
            Denial::Waiting => Refusal::Waiting,
            Denial::NoPlace => Refusal::NoPlace,
            Denial::HomeBusy => Refusal::HomeBusy,
            Denial::Store => Refusal::Store,
            Denial::Webhook => Refusal::Webhook,
            Denial::WebhookFailed => Refusal::WebhookFailed,
            Denial::Address => Refusal::Address,
            Denial::Full => Refusal::Full,
            Denial::TooOften => Refusal::TooOften,
            Denial::Crowded => Refusal::Crowded,
        }
    }

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
        self.index() <= Refusal::Webhook.index()
    }

    /// Returns why the link ends, for all but a bad token: that has a cause of its own, whatever is
    /// wrong with it.
    const fn denial(self) -> Option<Denial> {
        match self {
            Refusal::NoToken
            | Refusal::Malformed
            | Refusal::UnknownKey
            | Refusal::Signature
            | Refusal::Expired
            | Refusal::NotYetValid
            | Refusal::NoExpiry
            | Refusal::Issuer
            | Refusal::Audience
            | Refusal::NoIdentity
            | Refusal::Attributes => None,
            Refusal::Webhook => Some(Denial::Webhook),
            Refusal::WebhookFailed => Some(Denial::WebhookFailed),
            Refusal::Address => Some(Denial::Address),
            Refusal::Full => Some(Denial::Full),
            Refusal::InUse => Some(Denial::InUse),
            Refusal::Waiting => Some(Denial::Waiting),
            Refusal::NoPlace => Some(Denial::NoPlace),
            Refusal::HomeBusy => Some(Denial::HomeBusy),
            Refusal::Store => Some(Denial::Store),
            Refusal::TooOften => Some(Denial::TooOften),
            Refusal::Crowded => Some(Denial::Crowded),
        }
    }

    /// Returns what the peer is told, and the cause with which its link ends.
    pub fn denied(self) -> Denied {
        Denied { goodbye: self.goodbye(), why: self.denial() }
    }

    /// Returns the CLOSE to the peer, which is the same whatever is wrong with its token.
    pub fn goodbye(self) -> Goodbye {
        if self.is_verdict() {
            Goodbye { stay_away: true, ..CloseReason::Unauthorized.into() }
        } else {
            let home_busy = self == Refusal::HomeBusy;
            let return_after = if home_busy { RETURN_HOME_AFTER } else { RETURN_AFTER };
            Goodbye { return_after, ..CloseReason::Full.into() }
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

    const ALL: [Refusal; Refusal::NAMES.len()] = [
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
        Refusal::InUse,
        Refusal::Waiting,
        Refusal::NoPlace,
        Refusal::HomeBusy,
        Refusal::Store,
        Refusal::TooOften,
        Refusal::Crowded,
    ];

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
    fn the_document_lists_exactly_the_reasons() {
        let text = include_str!("../../../../docs/identity.md");
        let (_, table) = text.split_once("| reason | cause |").expect("the table");
        let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| `"));
        let rows: Vec<(&str, &str)> = rows
            .map(|row| {
                let mut cells = row.split('`');
                (cells.next().expect("a name"), cells.nth(1).expect("a cause"))
            })
            .collect();
        let causes = ALL.map(|it| {
            let is_token = it.denial().is_none();
            (it.name(), if is_token { "unauthorized" } else { "refused" })
        });
        assert_eq!(rows, causes);
    }

    #[test]
    fn a_bad_token_gets_the_same_answer_whatever_is_wrong_with_it() {
        let all = ALL;
        for denial in Denial::ALL {
            let named = all.iter().filter(|it| it.denial() == Some(denial));
            assert!(named.map(|it| it.name()).eq([denial.name()]), "one name for one thing");
            assert_eq!(Refusal::of(denial).denial(), Some(denial));
        }
        assert!(all.iter().enumerate().all(|(place, it)| it.index() == place));
        let (verdicts, others) = all.split_at(12);
        let unauthorized = Goodbye { stay_away: true, ..CloseReason::Unauthorized.into() };
        assert!(verdicts.iter().all(|it| it.is_verdict() && it.goodbye() == unauthorized));
        assert!(others.iter().all(|it| !it.is_verdict() && !it.goodbye().stay_away));
        assert_eq!(Refusal::Full.name(), "full");
    }
}
