//! Reads who may log in at a listener: `anonymous`, `plaintext_tokens`, `[listener.tokens]`, and
//! `[listener.webhook]`.

use std::ops::Range;
use std::path::Path;

use systole_core::Span;
use toml::de::DeValue;

use super::file::read_text;
use super::section::{Given, Reading, Section};
use super::{value, webhook};
use crate::identity::{KeyError, Keys, Rules, Tokens, Verifier};

/// Maximum number of entries of each list, far more than one listener has.
const MAX_LIST: usize = 16;

/// Maximum size of a file of keys, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The claim that is the identity unless another is named: the subject of the token.
const DEFAULT_CLAIM: &str = "sub";

/// Default of the difference between the clocks of two machines that keep their time.
const DEFAULT_LEEWAY: Span = Span::from_secs(30);

/// Longest such difference: more would keep tokens valid that their issuer has ended.
const MAX_LEEWAY: Span = Span::from_secs(300);

/// The settings of a listener on who may log in.
#[derive(Debug)]
pub(super) struct LoginSettings<'a> {
    anonymous: Option<Given<bool>>,
    plaintext_tokens: Option<Given<bool>>,
    tokens: Section<'a>,
    webhook: Section<'a>,
}

/// What else of a listener counts for who may log in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// Whether only this machine reaches it.
    pub(super) is_local: bool,
    /// Whether its codec carries tokens.
    pub(super) has_tokens: bool,
    /// Whether certificates prove who its clients are.
    pub(super) has_subjects: bool,
    /// Whether its connections are encrypted.
    pub(super) is_encrypted: bool,
}

impl Circumstances {
    /// Returns what can prove who the clients are, and the way without a proof.
    fn ways_to_prove(self, otherwise: &str) -> String {
        let certificates = "set `client_roots` and `client_identity = \"subject\"`";
        if self.has_tokens {
            let tokens = "say in [listener.tokens] or [listener.webhook] how tokens are verified";
            return format!("{tokens}, {certificates}, {otherwise}");
        }
        format!("{certificates}, {otherwise}")
    }
}

/// Who may log in at a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Logins {
    pub(super) anonymous: bool,
    pub(super) verifier: Option<Verifier>,
}

impl<'a> LoginSettings<'a> {
    /// Takes the settings out of the section of a listener.
    pub(super) fn take(reading: &mut Reading<'_>, section: &mut Section<'a>) -> LoginSettings<'a> {
        LoginSettings {
            anonymous: section.take(reading, "anonymous", value::boolean),
            plaintext_tokens: section.take(reading, "plaintext_tokens", value::boolean),
            tokens: section.section(reading, "tokens"),
            webhook: section.section(reading, "webhook"),
        }
    }

    /// Refuses all settings, which have no effect on a beacon listener.
    pub(super) fn refuse(self, reading: &mut Reading<'_>) {
        let given = [
            (self.anonymous.map(|it| it.span), "anonymous"),
            (self.plaintext_tokens.map(|it| it.span), "plaintext_tokens"),
            (self.tokens.span(), "tokens"),
            (self.webhook.span(), "webhook"),
        ];
        read_rules(reading, self.tokens, Path::new(""), false);
        webhook::read(reading, self.webhook, None);
        for (span, key) in given {
            if span.is_some() {
                let what = format!("`{key}` has no effect on a beacon listener");
                let help = "leave it out: devices prove who they are by their keys".to_owned();
                reading.problems.add(span, what, Some(help));
            }
        }
    }

    /// Returns who may log in, or reports the problems. `place` is that of the listener; relative
    /// paths start from `directory`.
    pub(super) fn read(
        self,
        reading: &mut Reading<'_>,
        directory: &Path,
        place: Option<Range<usize>>,
        name: &str,
        of: Circumstances,
    ) -> Logins {
        let plaintext = self.plaintext_tokens.as_ref();
        let may_be_plain = plaintext.is_some_and(|given| given.value);
        let (tokens_at, webhook_at) = (self.tokens.span(), self.webhook.span());
        let tokens = read_rules(reading, self.tokens, directory, of.has_tokens);
        let place_of = webhook::Place { listener: name, directory, may_be_plain };
        let webhook = webhook::read(reading, self.webhook, of.has_tokens.then_some(place_of));
        let table = tokens_at.clone().or(webhook_at.clone());
        let mut refuse = |place: Option<Range<usize>>, what: &str, help: &str| {
            reading.problems.add(place, what.to_owned(), Some(help.to_owned()));
        };
        if tokens_at.is_some() && webhook_at.is_some() {
            let help = "leave out one of them: tokens are verified once";
            refuse(webhook_at.clone(), "`tokens` and `webhook` exclude each other", help);
        }
        if table.is_some() && !of.has_tokens {
            let help = "leave it out: only HELLO of the native codec has a token";
            let key = if tokens_at.is_some() { "tokens" } else { "webhook" };
            refuse(table.clone(), &format!("`{key}` has no effect with this codec"), help);
        } else if table.is_some() && of.has_subjects {
            let help = "leave out one of them: a client has one identity";
            refuse(table.clone(), "`tokens` and `client_identity` exclude each other", help);
        }
        if let (Some(given), None) = (plaintext, &table) {
            let help = "leave it out, or say in [listener.tokens] how tokens are verified";
            refuse(Some(given.span.clone()), "`plaintext_tokens` has no effect", help);
        }
        if table.is_some() && !of.is_local && !of.is_encrypted && !may_be_plain {
            let what = "tokens would cross the network in plain text";
            let help = "set `certificate` and `key`, or `plaintext_tokens = true` where a proxy \
                        or the network encrypts";
            refuse(place.clone(), what, help);
        }
        let is_verified = table.is_some() || of.has_subjects;
        if let Some(given) = self.anonymous.as_ref().filter(|it| it.value && of.has_subjects) {
            let help = "leave it out: each client shows a certificate";
            refuse(Some(given.span.clone()), "`anonymous` has no effect", help);
        }
        let is_open = self.anonymous.as_ref().is_some_and(|given| given.value);
        let anonymous = Given::or(self.anonymous, of.is_local && !is_verified);
        if !is_verified && !is_open && !of.is_local {
            let what = "anybody could log in here, with any identity";
            refuse(place, what, &of.ways_to_prove("or set `anonymous = true`"));
        } else if !is_verified && !anonymous {
            let what = "nobody could log in here: nothing proves who a client is";
            refuse(place, what, &of.ways_to_prove("or leave `anonymous` out"));
        }
        let webhook = webhook.map(Verifier::Webhook);
        Logins { anonymous, verifier: tokens.map(Verifier::Tokens).or(webhook) }
    }
}

/// Reads the name of a claim.
fn claim_name(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    value::text(value).and_then(|name| match name.is_empty() {
        true => Err("the name of a claim, as in \"sub\"".to_owned()),
        false => Ok(name),
    })
}

/// Adds the keys of a file of one kind.
type Add = fn(&mut Keys, &str) -> Result<(), KeyError>;

/// Reads `[listener.tokens]`; `None` if it is absent or was refused. Files are read only if they
/// are `wanted`.
fn read_rules(
    reading: &mut Reading<'_>,
    mut section: Section<'_>,
    directory: &Path,
    wanted: bool,
) -> Option<Tokens> {
    let place = section.span();
    let keys = section.take(reading, "keys", texts);
    let secrets = section.take(reading, "secrets", texts);
    let sets = section.take(reading, "jwks", texts);
    let issuers = section.take(reading, "issuer", texts);
    let audiences = section.take(reading, "audience", texts);
    let claim = section.take(reading, "identity_claim", claim_name);
    let leeway = section.take(reading, "leeway", value::span(Span::ZERO..=MAX_LEEWAY));
    let needs_expiry = section.take(reading, "require_expiry", value::boolean);
    let attributes = section.take(reading, "attributes", texts);
    let ends_sessions = section.take(reading, "end_at_expiry", value::boolean);
    let has_keys = ["keys", "secrets", "jwks"].iter().any(|key| section.has(key));
    section.finish(reading);
    if place.is_none() || !wanted {
        return None;
    }
    if !has_keys {
        let what = "[listener.tokens] names no key".to_owned();
        let help = "set `keys`, `jwks` or `secrets`: files with the keys of who issues the tokens";
        reading.problems.add(place, what, Some(help.to_owned()));
        return None;
    }
    let mut all = Keys::default();
    let mut is_read = true;
    let kinds: [(_, Add); 3] =
        [(&keys, Keys::add_pem), (&secrets, Keys::add_secret), (&sets, Keys::add_set)];
    for (given, add) in kinds {
        for name in given.iter().flat_map(|given| &given.value) {
            let path = directory.join(name);
            let shown = path.display();
            let read = read_text(&path, MAX_FILE)
                .map_err(|error| format!("the file {shown} cannot be read: {error}"))
                .and_then(|text| {
                    add(&mut all, &text).map_err(|what| format!("the file {shown}: {what}"))
                });
            if let Err(what) = read {
                let span = given.as_ref().map(|given| given.span.clone());
                reading.problems.add(span, what, None);
                is_read = false;
            }
        }
    }
    is_read.then(|| {
        Tokens::new(Rules {
            keys: all,
            issuers: Given::or(issuers, Vec::new()),
            audiences: Given::or(audiences, Vec::new()),
            identity_claim: Given::or(claim, DEFAULT_CLAIM.to_owned()),
            leeway: Given::or(leeway, DEFAULT_LEEWAY),
            needs_expiry: Given::or(needs_expiry, true),
            attributes: Given::or(attributes, Vec::new()),
            ends_sessions: Given::or(ends_sessions, false),
        })
    })
}

/// Converts a text, or a list of texts.
pub(super) fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let texts: Option<Vec<String>> = match value.as_str() {
        Some(text) => Some(vec![text.to_owned()]),
        None => value.as_array().and_then(|list| {
            list.iter().map(|entry| entry.get_ref().as_str().map(str::to_owned)).collect()
        }),
    };
    let legal = |texts: &Vec<String>| {
        (1..=MAX_LIST).contains(&texts.len()) && !texts.iter().any(String::is_empty)
    };
    texts.filter(legal).ok_or_else(|| format!("a text in quotes, or a list of 1 to {MAX_LIST}"))
}
