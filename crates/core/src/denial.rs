//! Why a login is refused although its peer is at no fault that another cause names.
//!
//! The peer learns no more than its CLOSE says. The operator sees the denial in the verdict.

use core::fmt;

use crate::link::Goodbye;
use crate::plain::{plain_enum, plain_struct};
use crate::wire::CloseReason;

/// Why a login is refused. A bad token, a ban and a newer login have causes of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Denial {
    /// The identity has as many sessions as it may have, they answer, and their listener protects
    /// them.
    InUse,
    /// Too many logins of the identity wait for their turn, and this was the oldest of them.
    Waiting,
    /// The shard has no place for another session.
    NoPlace,
    /// The shard that decides about the identity takes no more links at the moment.
    HomeBusy,
    /// What is owed about the session cannot be stored: the store is full, or cannot be written.
    Store,
    /// The service that was asked about the token has refused it.
    Webhook,
    /// The service that was asked about the token has not answered, or not as it must.
    WebhookFailed,
    /// Too many logins from the peer's address were refused; its token was not looked at.
    Address,
    /// Too many tokens wait to be verified.
    Full,
    /// The identity logs in more often than its listener allows.
    TooOften,
    /// Its connection had not logged in, was the oldest of those, and gave way to a newer one.
    Crowded,
}

plain_enum! { Denial {
    0 => InUse {}
    1 => Waiting {}
    2 => NoPlace {}
    3 => HomeBusy {}
    4 => Store {}
    5 => Webhook {}
    6 => WebhookFailed {}
    7 => Address {}
    8 => Full {}
    9 => TooOften {}
    10 => Crowded {}
} }

impl Denial {
    /// All denials.
    pub const ALL: [Denial; 11] = [
        Denial::InUse,
        Denial::Waiting,
        Denial::NoPlace,
        Denial::HomeBusy,
        Denial::Store,
        Denial::Webhook,
        Denial::WebhookFailed,
        Denial::Address,
        Denial::Full,
        Denial::TooOften,
        Denial::Crowded,
    ];

    /// Returns the name that metrics, logs and events show.
    pub const fn name(self) -> &'static str {
        match self {
            Denial::InUse => "in_use",
            Denial::Waiting => "waiting",
            Denial::NoPlace => "no_place",
            Denial::HomeBusy => "home_busy",
            Denial::Store => "store",
            Denial::Webhook => "webhook",
            Denial::WebhookFailed => "webhook_failed",
            Denial::Address => "address",
            Denial::Full => "full",
            Denial::TooOften => "too_often",
            Denial::Crowded => "crowded",
        }
    }

    /// Returns what an operator can do about it.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Denial::InUse => {
                "Nothing, if one user has two devices; else raise sessions_per_identity, or set \
                 login_conflict = \"replace\"."
            }
            Denial::Waiting => "Look who logs in with this identity again and again.",
            Denial::NoPlace => "Look at the number of sessions: run more shards, or gateways.",
            Denial::HomeBusy => "Look at the load of the shards: one of them takes no more links.",
            Denial::Store => {
                "Look at the store: whether its disk can be written, and whether the receivers of \
                 webhooks take what is owed; or raise max_rows in [store]."
            }
            Denial::Webhook => {
                "Ask the service at [listener.webhook], which has refused the token."
            }
            Denial::WebhookFailed => {
                "Look at the service at [listener.webhook]: it does not answer in time, or not as \
                 it must."
            }
            Denial::Address => {
                "Look who sends bad tokens from this address, or whether a proxy hides many \
                 clients behind it."
            }
            Denial::Full => {
                "Look how many log in at once, and how long the verification of a token takes."
            }
            Denial::TooOften => {
                "Look which clients log in with this identity again and again, and why they do not \
                 stay; or raise logins_per_minute of its listener."
            }
            Denial::Crowded => {
                "Look who opens connections and does not log in; or raise limits.max_links, if \
                 many honest clients come at once."
            }
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denial::InUse => "its identity has as many sessions as it may have, and they answer",
            Denial::Waiting => "too many logins of its identity wait for their turn",
            Denial::NoPlace => "there is no place for another session",
            Denial::HomeBusy => "the shard of its identity takes no more links at the moment",
            Denial::Store => "what is owed about it cannot be stored",
            Denial::Webhook => "the login webhook has refused its token",
            Denial::WebhookFailed => "the login webhook has not answered as it must",
            Denial::Address => "too many logins from its address were refused",
            Denial::Full => "too many tokens wait to be verified",
            Denial::TooOften => "its identity logs in more often than its listener allows",
            Denial::Crowded => "too many connections have not logged in, and it was the oldest",
        })
    }
}

/// The refusal of a login: what the peer is told, and what the operator sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied {
    /// The content of the CLOSE.
    pub goodbye: Goodbye,
    /// Why; `None` if the reason in the CLOSE says it, which then gives the cause.
    pub why: Option<Denial>,
}

plain_struct! { Denied { goodbye, why } }

impl From<Goodbye> for Denied {
    fn from(goodbye: Goodbye) -> Denied {
        Denied { goodbye, why: None }
    }
}

impl From<CloseReason> for Denied {
    fn from(reason: CloseReason) -> Denied {
        Goodbye::from(reason).into()
    }
}

impl Denial {
    /// Refuses a login for this, with this CLOSE.
    pub const fn with(self, goodbye: Goodbye) -> Denied {
        Denied { goodbye, why: Some(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_denials_are_listed_and_have_names_of_their_own() {
        for (place, denial) in Denial::ALL.into_iter().enumerate() {
            assert_eq!(denial as usize, place);
            assert!(Denial::ALL[..place].iter().all(|other| other.name() != denial.name()));
        }
        assert_eq!(Denial::ALL.len(), Denial::Crowded as usize + 1);
    }
}
