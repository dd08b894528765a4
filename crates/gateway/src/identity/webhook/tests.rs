//! A service that answers, and each way in which it may not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::json::tests::{HARMFUL, assert_harmless};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const MINUTE: Span = Span::from_secs(60);

/// Starts a service that gives these answers, one for each connection. Returns its URL, and what it
/// is sent: heads and bodies.
fn service(answers: Vec<String>) -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/connect", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                let lower = line.to_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head += &lower;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            sender.send((head, serde_json::from_slice(&body).unwrap())).unwrap();
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, received)
}

fn http(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn webhook(url: &str) -> Webhook {
    Webhook::new(WebhookSettings {
        listener: "games".to_owned(),
        url: url.to_owned(),
        secret: "between-us".to_owned(),
        timeout: Span::from_secs(5),
        remember: MINUTE,
        roots: Vec::new(),
    })
}

/// What a service's only answer makes of a token.
fn result_of(answer: String) -> Result<Verified, Refusal> {
    let (url, _received) = service(vec![answer]);
    webhook(&url).ask(b"token", FROM, Span::ZERO)
}

#[test]
fn a_question_holds_no_harmful_character() {
    assert_harmless(&question("native", FROM, HARMFUL), "/token");
}

#[test]
fn a_service_is_told_the_token_and_the_address_and_says_who_it_is() {
    let body = r#"{"identity": "ada", "attributes": {"role": "pilot"}, "lasts_seconds": 60}"#;
    let (url, received) = service(vec![http("200 OK", body)]);
    let verified = webhook(&url).ask(b"to\"ken", FROM, Span::ZERO).unwrap();
    assert_eq!((&*verified.identity, verified.lasts), ("ada", Some(MINUTE)));
    assert_eq!(&*verified.attributes, r#"{"role":"pilot"}"#);
    let (head, body) = received.recv().unwrap();
    assert!(head.starts_with("post /connect http/1.1"), "{head}");
    assert!(head.contains("authorization: bearer between-us"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let expected = json!({"listener": "games", "address": "192.0.2.1", "token": "to\"ken"});
    assert_eq!(body, expected);
}

#[test]
fn a_refusal_is_remembered_for_its_token_and_address_and_for_its_time() {
    let refused = http("200 OK", r#"{"refused": "banned"}"#);
    let (url, received) = service(vec![refused.clone(), refused.clone(), refused]);
    let webhook = webhook(&url);
    let other = IpAddr::from([192, 0, 2, 2]);
    let asked = |token: &[u8], from, now| {
        assert_eq!(webhook.ask(token, from, now), Err(Refusal::Webhook));
        received.try_recv().is_ok()
    };
    assert!(asked(b"token", FROM, Span::ZERO));
    assert!(!asked(b"token", FROM, MINUTE.less(Span::from_nanos(1))), "it is known");
    assert!(asked(b"token", other, Span::ZERO), "another address may be let in");
    assert!(asked(b"token", FROM, MINUTE), "its time is over");
}

#[test]
fn no_two_pairs_of_token_and_address_share_a_refusal() {
    let keys = [
        refusal_key(b"token", IpAddr::from([192, 0, 2, 1])),
        refusal_key(b"token1", IpAddr::from([92, 0, 2, 1])),
        refusal_key(b"1token", IpAddr::from([192, 0, 2, 1])),
        refusal_key(b"token", IpAddr::from([192, 0, 2, 11])),
    ];
    assert!(keys.iter().enumerate().all(|(place, key)| !keys[..place].contains(key)));
}

#[test]
fn a_full_table_forgets_the_oldest_refusal() {
    let key = |number: usize| refusal_key(number.to_string().as_bytes(), FROM);
    let mut refused = Refused::default();
    (0..REMEMBERED).for_each(|number| refused.remember(key(number), Span::ZERO, MINUTE));
    // The first one is refused once more, when its time is over.
    refused.remember(key(0), MINUTE, MINUTE);
    refused.remember(key(REMEMBERED), MINUTE, MINUTE);
    let is_refused = |number| refused.is_refused(key(number), MINUTE.less(Span::from_nanos(1)));
    assert!(is_refused(0) && is_refused(2) && is_refused(REMEMBERED));
    assert!(!is_refused(1), "it was the oldest");
    assert_eq!((refused.until.len(), refused.order.len()), (REMEMBERED, REMEMBERED));
}

#[test]
fn only_an_answer_that_says_so_refuses_a_token() {
    let long = format!(r#"{{"identity": "ada", "attributes": {{"x": "{}"}}}}"#, "x".repeat(1_024));
    let huge = format!("{:20000}", "{}");
    for (status, body) in [
        ("500 Error", r#"{"identity": "ada"}"#),
        ("404 Not Found", ""),
        ("401 Unauthorized", r#"{"refused": "whoever asks"}"#),
        ("403 Forbidden", "no"),
        ("302 Found", ""),
        ("204 No Content", ""),
        ("200 OK", ""),
        ("200 OK", "{}"),
        ("200 OK", "[]"),
        ("200 OK", r#"["ada", {}, 60, null]"#),
        ("200 OK", r#" [{"identity": "ada"}]"#),
        ("200 OK", r#""ada""#),
        ("200 OK", "7"),
        ("200 OK", "null"),
        ("200 OK", "true"),
        ("200 OK", r#"{"identity": ["ada"]}"#),
        ("200 OK", r#"{"identity": "ada", "attributes": "role"}"#),
        ("200 OK", r#"{"identity": "ada"} {}"#),
        ("200 OK", r#"{"identity": ""}"#),
        ("200 OK", r#"{"identity": "a\nb"}"#),
        ("200 OK", r#"{"identity": 7}"#),
        ("200 OK", r#"{"identity": "ada", "attributes": []}"#),
        ("200 OK", r#"{"identity": "ada", "lasts_seconds": -1}"#),
        ("200 OK", &long),
        ("200 OK", &huge),
    ] {
        assert_eq!(result_of(http(status, body)), Err(Refusal::WebhookFailed), "{status} {body}");
    }
    assert_eq!(result_of("no HTTP\r\n\r\n".to_owned()), Err(Refusal::WebhookFailed));
    // Nobody listens, and nobody answers.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = webhook(&format!("http://{closed}/"));
    assert_eq!(nobody.ask(b"token", FROM, Span::ZERO), Err(Refusal::WebhookFailed));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let settings = webhook(&url).inner().settings.clone();
    let quick = Webhook::new(WebhookSettings { timeout: Span::from_millis(50), ..settings });
    assert_eq!(quick.ask(b"token", FROM, Span::ZERO), Err(Refusal::WebhookFailed));
    assert_eq!(quick.ask(b"\xff", FROM, Span::ZERO), Err(Refusal::Malformed), "no text");
}

/// Serves connections for as long as they have questions. Each question has the answer `about` it,
/// and a second one that nobody has asked for.
fn service_that_answers_twice(about: fn(&str) -> String, unasked: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let http =
        |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let serve = move |mut stream: TcpStream| {
        let mut said = String::new();
        let mut bytes = [0; 1_024];
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            said += str::from_utf8(&bytes[..read]).unwrap();
            let Some((_, token)) = said.split_once("\"token\":\"") else { continue };
            let Some((token, _)) = token.split_once('"') else { continue };
            let both = http(&about(token)) + &http(unasked);
            said.clear();
            if stream.write_all(both.as_bytes()).is_err() {
                return;
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    url
}

#[test]
fn an_answer_that_nobody_asked_for_is_about_nobody() {
    let about = |token: &str| match token {
        "bad" => r#"{"refused": "bad"}"#.to_owned(),
        name => format!(r#"{{"identity": "{name}"}}"#),
    };
    let url = service_that_answers_twice(about, r#"{"identity": "root"}"#);
    let good = webhook(&url);
    for name in ["ada", "bob", "cyd", "bad", "bad", "dan"] {
        let found = good.ask(name.as_bytes(), FROM, Span::ZERO).map(|found| found.identity);
        let expected = if name == "bad" { Err(Refusal::Webhook) } else { Ok(name.into()) };
        assert_eq!(found, expected);
    }
    let url = service_that_answers_twice(about, r#"{"refused": "somebody"}"#);
    let refusing = webhook(&url);
    for name in ["ada", "bob", "ada"] {
        let found = refusing.ask(name.as_bytes(), FROM, Span::ZERO).map(|found| found.identity);
        assert_eq!(found, Ok(name.into()), "and no refusal of another is remembered");
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut refused = Refused::default();
    let key = |number: usize| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    };
    for number in 0..=REMEMBERED {
        refused.remember(key(number), Span::ZERO, MINUTE);
        refused.remember(key(number), Span::ZERO, MINUTE);
    }
    assert_eq!((refused.until.len(), refused.order.len()), (REMEMBERED, REMEMBERED));
    assert!(!refused.is_refused(key(0), Span::ZERO), "the oldest is forgotten");
    assert!(refused.is_refused(key(REMEMBERED), Span::ZERO));
    refused.remember(key(0), Span::ZERO, Span::ZERO);
    assert!(!refused.is_refused(key(0), Span::ZERO), "nothing is to be remembered");
}

#[test]
fn settings_that_are_replaced_hold_for_later_logins_and_forget_what_was_refused() {
    let (old, _old) = service(vec![http("200 OK", r#"{"refused": "not yet"}"#)]);
    let (new, asked) = service(vec![http("200 OK", r#"{"identity": "ada"}"#)]);
    let running = webhook(&old);
    let shared = running.clone();
    assert_eq!(shared.ask(b"token", FROM, Span::ZERO), Err(Refusal::Webhook));
    assert!(!running.replace(&webhook(&old)), "nothing differs");
    assert_eq!(shared.ask(b"token", FROM, Span::ZERO), Err(Refusal::Webhook), "it is remembered");
    assert!(running.replace(&webhook(&new)));
    assert_eq!(&*shared.ask(b"token", FROM, Span::ZERO).unwrap().identity, "ada");
    assert!(asked.recv().is_ok());
}
