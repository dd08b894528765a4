//! Receivers that speak HTTP badly.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver as Requests, channel};

use super::*;
use crate::json::tests::assert_harmless;
use crate::store::Noted;
use crate::webhooks::fixture;

#[test]
fn a_body_holds_no_harmful_character_whenever_its_event_was_written() {
    assert_harmless(&body_of(&fixture::harmful_entry()), "/identity");
}

/// Far longer than a test takes.
const TIMEOUT: Span = Span::from_secs(300);

/// A sender of one event at a time, and its store, in memory.
fn sender(url: String) -> (Store, Sender) {
    fixture::sender(url, "join", TIMEOUT)
}

/// Notes that a session has joined.
fn join(store: &Store, session: u64) {
    store.note(Noted {
        kind: "join",
        at_ms: 0,
        session,
        epoch: 1,
        identity: format!("peer {session}").into(),
        listener: "native".into(),
        address: "127.0.0.1:9".to_owned(),
        body: format!("{{\"kind\":\"join\",\"session\":\"{session:016x}\"}}").into(),
    });
}

/// Serves each connection until it ends. `answer` gets the session and the attempt of each request;
/// the connection is cut if there is no answer. Each answer is sent twice, the second time when the
/// connection is used again. Returns the URL, and all sessions and attempts.
fn receiver(answer: fn(u64, u64) -> Option<&'static str>) -> (String, Requests<(u64, u64)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let mut late = "";
                while let Some((session, attempt)) = request(&mut stream) {
                    sender.send((session, attempt)).unwrap();
                    let answer = answer(session, attempt);
                    let both = late.to_owned() + answer.unwrap_or_default();
                    if stream.write_all(both.as_bytes()).is_err() || answer.is_none() {
                        return;
                    }
                    late = answer.unwrap_or_default();
                }
            });
        }
    });
    (url, requests)
}

/// Reads the session and the attempt of a request, unless the connection ends.
fn request(stream: &mut TcpStream) -> Option<(u64, u64)> {
    let mut said = String::new();
    let mut bytes = [0; 4_096];
    loop {
        let read = stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
        said += str::from_utf8(&bytes[..read]).unwrap();
        let session = said.split_once("\"session\":\"").and_then(|(_, rest)| rest.get(..16));
        if let Some(session) = session {
            let said = said.to_lowercase();
            let (_, attempt) = said.split_once("systole-attempt: ").unwrap();
            let attempt = attempt.split('\r').next().unwrap().parse().unwrap();
            return Some((u64::from_str_radix(session, 16).unwrap(), attempt));
        }
    }
}

fn wait_until_delivered(sender: &Sender, count: u64) {
    let clock = Clock::start();
    while sender.status().delivered < count {
        assert!(clock.monotonic() < Span::from_secs(60), "{:?}", sender.status());
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_status_decides_however_long_the_rest_of_the_answer_takes() {
    let (url, _requests) = receiver(|session, _| {
        Some(match session % 2 {
            0 => "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx",
        })
    });
    let (store, sender) = sender(url);
    (1..=6).for_each(|session| join(&store, session));
    wait_until_delivered(&sender, 6);
    assert_eq!(sender.status().failures, 0);
}

#[test]
fn an_answer_that_comes_twice_takes_one_event() {
    let (url, requests) = receiver(|session, attempt| match (session, attempt) {
        (2, 1) => None,
        _ => Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    });
    let (store, sender) = sender(url);
    (1..=3).for_each(|session| join(&store, session));
    wait_until_delivered(&sender, 3);
    let mut all: Vec<_> = requests.try_iter().collect();
    all.sort_unstable();
    assert_eq!(all, [(1, 1), (2, 1), (2, 2), (3, 1)], "what nobody took comes again");
}

#[test]
fn a_dead_letter_has_the_reason_of_its_own_event() {
    let folder = tempfile::tempdir().unwrap();
    let (url, _requests) =
        receiver(|_, _| Some("HTTP/1.1 422 Unprocessable\r\ncontent-length: 0\r\n\r\n"));
    let (_store, sender) = fixture::sender_in(folder.path(), url, "join", TIMEOUT);
    // The test does what the threads do.
    while !sender.stop(Span::ZERO) {
        std::thread::yield_now();
    }
    let shared = &sender.0;
    let parcels: Vec<_> = {
        let courier = &mut shared.lock().errands.courier;
        *courier = Courier::new(2, TIMEOUT, 1);
        for number in 1..=2 {
            let body = format!("{{\"session\":\"{number:016x}\"}}").into();
            let (key, kind) = (number.to_string().into(), "join".into());
            let (session, epoch, at_ms) = (number, number, 0);
            let origin = "".into();
            let entry = Entry { number, key, session, epoch, kind, at_ms, body, origin };
            courier.take(Span::ZERO, entry);
        }
        std::iter::from_fn(|| courier.next(Span::ZERO)).collect()
    };
    let [rejected, taken] = &parcels[..] else { panic!("{parcels:?}") };
    let (outcome, error) = shared.carry(rejected);
    shared.finish(&taken.entry, Outcome::Taken, None);
    shared.finish(&rejected.entry, outcome, error);
    let letters = std::fs::read_to_string(sender.letters().path()).unwrap();
    assert!(letters.contains("\"why\":\"status 422: it will never take this\""), "{letters}");
    assert_eq!((sender.status().dead, sender.status().delivered), (1, 1));
}
