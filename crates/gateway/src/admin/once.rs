//! Requests that are carried out once, however often they arrive: those with an `Idempotency-Key`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use systole_core::Span;
use systole_net::Clock;

use super::answer::Trouble;

/// Maximum number of keys that are remembered, some 200 bytes each; beyond it the oldest is
/// forgotten.
const KEYS: usize = 10_000;

/// How long a key is remembered: a backend that repeats a request does so within seconds.
const REMEMBERED: Span = Span::from_secs(600);

/// Longest key in bytes.
const LONGEST_KEY: usize = 64;

/// The keys of requests, with their answers.
#[derive(Debug)]
pub(super) struct Once<T> {
    clock: Clock,
    keys: Mutex<Keys<T>>,
}

#[derive(Debug)]
struct Keys<T> {
    known: HashMap<String, Entry<T>>,
    /// All of them, the oldest in front, with the times at which they came.
    order: VecDeque<(String, Span)>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    /// What the request asked for.
    digest: [u8; 32],
    /// `None` while it is under way.
    answer: Option<T>,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin<T> {
    /// It is new: carry it out.
    New,
    /// It was carried out, and this was the answer.
    Done(T),
}

impl<T: Clone> Once<T> {
    pub(super) fn new() -> Once<T> {
        let keys = Mutex::new(Keys { known: HashMap::new(), order: VecDeque::new() });
        Once { clock: Clock::start(), keys }
    }

    /// Begins a request with a key; `what` is all that it asks for.
    ///
    /// # Errors
    /// The same request is under way, or the key was used for another one.
    pub(super) fn begin(&self, key: &str, what: &[&[u8]]) -> Result<Begin<T>, Trouble> {
        let mut digest = Sha256::new();
        for part in what {
            digest = digest.chain_update(part.len().to_le_bytes()).chain_update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let now = self.clock.monotonic();
        let mut keys = self.lock();
        keys.forget(now);
        match keys.known.get(key) {
            Some(entry) if entry.digest != digest => {
                let hint = "use a new key for each message";
                let error = "the Idempotency-Key was used for another request";
                return Err(Trouble::new(StatusCode::UNPROCESSABLE_ENTITY, error, hint));
            }
            Some(Entry { answer: Some(answer), .. }) => return Ok(Begin::Done(answer.clone())),
            Some(Entry { answer: None, .. }) => {
                let hint = "wait for its answer, or try again later with the same key";
                let error = "a request with this Idempotency-Key is under way";
                return Err(Trouble::new(StatusCode::CONFLICT, error, hint));
            }
            None => {}
        }
        keys.known.insert(key.to_owned(), Entry { digest, answer: None });
        keys.order.push_back((key.to_owned(), now));
        Ok(Begin::New)
    }

    /// Ends a request: keeps its answer, or forgets it if it failed, so that it can be repeated.
    pub(super) fn end(&self, key: &str, answer: Option<T>) {
        let mut keys = self.lock();
        if answer.is_none() {
            keys.known.remove(key);
            keys.order.retain(|(known, _)| known != key);
        } else if let Some(entry) = keys.known.get_mut(key) {
            entry.answer = answer;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Keys<T>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Keys<T> {
    fn forget(&mut self, now: Span) {
        while let Some((key, at)) = self.order.front()
            && (self.order.len() >= KEYS || now.less(*at) > REMEMBERED)
        {
            self.known.remove(key);
            self.order.pop_front();
        }
    }
}

/// Returns the key of a request, if it has one.
///
/// # Errors
/// It is no legal key.
pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<String>, Trouble> {
    let Some(value) = headers.get("Idempotency-Key") else {
        return Ok(None);
    };
    let is_legal = |text: &&str| {
        (1..=LONGEST_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let key = value.to_str().ok().filter(is_legal).map(str::to_owned);
    let hint = "1 to 64 printable ASCII characters without spaces, another for each message";
    key.map(Some).ok_or_else(|| Trouble::bad("the Idempotency-Key is no key", hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_one_request_and_its_answer() {
        let once = Once::new();
        assert_eq!(once.begin("k", &[b"a", b"bc"]).unwrap(), Begin::New);
        assert!(once.begin("k", &[b"a", b"bc"]).unwrap_err().to_string().contains("under way"));
        once.end("k", Some(7));
        assert_eq!(once.begin("k", &[b"a", b"bc"]).unwrap(), Begin::Done(7));
        let other = once.begin("k", &[b"ab", b"c"]).unwrap_err();
        assert!(other.to_string().contains("another request"), "the parts are told apart");
        assert_eq!(once.begin("failed", &[]).unwrap(), Begin::New);
        once.end("failed", None);
        assert_eq!(once.begin("failed", &[]).unwrap(), Begin::New, "it may be repeated");
    }

    #[test]
    fn the_oldest_key_is_forgotten_when_there_are_too_many() {
        let once = Once::new();
        for number in 0..=KEYS {
            assert_eq!(once.begin(&number.to_string(), &[]).unwrap(), Begin::New);
            once.end(&number.to_string(), Some(number));
        }
        let keys = once.lock();
        assert_eq!((keys.known.len(), keys.order.len()), (KEYS, KEYS));
        drop(keys);
        assert_eq!(once.begin("0", &[]).unwrap(), Begin::New);
        assert_eq!(once.begin(&KEYS.to_string(), &[]).unwrap(), Begin::Done(KEYS));
    }

    #[test]
    fn a_key_is_printable_and_short() {
        let read = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("Idempotency-Key", value.try_into().unwrap());
            key_of(&headers).map_err(|trouble| trouble.to_string())
        };
        assert_eq!(read(b"7f-3"), Ok(Some("7f-3".to_owned())));
        assert_eq!(key_of(&HeaderMap::new()).unwrap(), None);
        for bad in [&b""[..], b"a b", "é".as_bytes(), &[b'x'; 65]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
