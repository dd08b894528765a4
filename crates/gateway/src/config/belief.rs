//! Whom a listener believes, and whether that is safe: a sentence for `systole check` and the log.

use std::fmt::Write;

use systole_core::text::Quoted;

use super::listener::Listener;
use super::tls::ClientIdentity;
use super::webhook::is_encrypted_or_local;
use crate::identity::{Rules, Verifier, Webhook};

/// Whom a listener believes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Belief {
    /// Who says who a client is.
    pub whom: String,
    /// What is unsafe about that, or needs something that the gateway cannot see; empty if nothing.
    pub unsafe_because: Vec<&'static str>,
}

impl Belief {
    /// Returns the belief and its safety as one sentence.
    pub fn sentence(&self) -> String {
        let Belief { whom, unsafe_because } = self;
        match &unsafe_because[..] {
            [] => format!("{whom}: safe"),
            reasons => format!("{whom}: UNSAFE, {}", reasons.join("; ")),
        }
    }
}

impl Listener {
    /// Returns whom it believes.
    pub fn belief(&self) -> Belief {
        let mut unsafe_because = Vec::new();
        let is_open = !self.is_local();
        let whom = match self.verifier() {
            Some(Verifier::Tokens(tokens)) => {
                let rules = tokens.rules();
                if !rules.needs_expiry {
                    unsafe_because.push("a token without an end is good for ever if it is stolen");
                }
                of_tokens(&rules)
            }
            Some(Verifier::Webhook(webhook)) => {
                if !is_encrypted_or_local(&webhook.url()) {
                    unsafe_because.push("tokens go to the webhook in plain text");
                }
                of_webhook(webhook)
            }
            None if self.client_identity() == ClientIdentity::Subject => {
                "the client's certificate, which a root in client_roots vouches for, with its \
                 subject as the identity"
                    .to_owned()
            }
            None => {
                if is_open && !self.has_client_roots {
                    unsafe_because.push("anybody who reaches it may log in with any identity");
                } else if is_open {
                    unsafe_because
                        .push("whoever has a certificate of them may log in with any identity");
                }
                let whoever = match (is_open, self.has_client_roots) {
                    (_, true) => "whoever has a certificate of client_roots",
                    (true, false) => "whoever connects",
                    (false, false) => "whoever connects from this machine",
                };
                format!("{whoever}, with the identity that it claims")
            }
        };
        if self.verifier().is_some() && is_open && self.tls().is_none() {
            unsafe_because.push("tokens cross the network in plain text unless it encrypts");
        }
        let anonymous = match self.anonymous() && self.verifier().is_some() {
            true => "; a client without a token has no identity",
            false => "",
        };
        Belief { whom: whom + anonymous, unsafe_because }
    }
}

fn of_tokens(rules: &Rules) -> String {
    let mut text = format!("tokens signed with {}", rules.keys.shown());
    let quoted = |all: &[String]| -> String {
        let all: Vec<_> = all.iter().map(|one| Quoted(one).to_string()).collect();
        all.join(" or ")
    };
    // Writing to a text does not fail.
    let _ = match &rules.issuers[..] {
        [] => write!(text, ", of any issuer"),
        issuers => write!(text, ", of issuer {}", quoted(issuers)),
    };
    let _ = match &rules.audiences[..] {
        [] => write!(text, ", for no audience"),
        audiences => write!(text, ", for audience {}", quoted(audiences)),
    };
    let _ = write!(text, ", with the claim {} as the identity", Quoted(&rules.identity_claim));
    text
}

fn of_webhook(webhook: &Webhook) -> String {
    let secret = if webhook.has_secret() { "" } else { ", asked without a secret" };
    format!("the webhook at {}{secret}", Quoted(&webhook.shown_url()))
}
