//! Senders for tests.

use std::path::Path;

use systole_core::Span;
use systole_net::Clock;

use super::{Receiver, Sender};
use crate::json::tests::HARMFUL;
use crate::store::{DeadLetters, Entry, Store, fixture};

/// An entry with harmful text, written without escapes as by an older version.
pub(crate) fn harmful_entry() -> Entry {
    Entry {
        number: 7,
        key: HARMFUL.into(),
        session: 1,
        epoch: 1,
        kind: "leave".into(),
        at_ms: 0,
        body: serde_json::json!({"identity": HARMFUL}).to_string().into(),
        origin: "".into(),
    }
}

/// A sender of one kind of event to `url`, one at a time, and its store in memory. `limit` is the
/// time for an answer and for all attempts.
pub(crate) fn sender(url: String, event: &'static str, limit: Span) -> (Store, Sender) {
    sender_in(Path::new("unused"), url, event, limit)
}

/// As [`sender`], with the dead letters in a directory.
pub(crate) fn sender_in(
    directory: &Path,
    url: String,
    event: &'static str,
    limit: Span,
) -> (Store, Sender) {
    let name = "game";
    let store = fixture::in_memory(name, event, Vec::new());
    let receiver = Receiver {
        name: name.to_owned(),
        url,
        secret: "secret".to_owned(),
        events: vec![event],
        timeout: limit,
        concurrency: 1,
        give_up_after: limit,
        roots: Vec::new(),
    };
    let letters = DeadLetters::new(directory, name);
    let sender = Sender::start(receiver, store.clone(), letters, Clock::start(), 1).unwrap();
    (store, sender)
}
