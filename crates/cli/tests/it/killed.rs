//! A gateway that is killed again and again while clients come and go: each session that was
//! welcomed is cleaned up once, in order, at a receiver that fails, hangs and repeats.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use systole_core::random::Random;

use crate::client::{Client, named};
use crate::directory;
use crate::gateway::{Gateway, wait};

/// The rounds of a run; `SYSTOLE_KILLS` sets another number.
const KILLS: u64 = 50;

/// Clients at once.
const CLIENTS: u64 = 12;

/// Identities that the clients share, so that logins meet; and one for none.
const IDENTITIES: u64 = 9;

/// The end of a session, or its beginning, as a receiver sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Told {
    identity: String,
    session: String,
    epoch: u64,
    kind: String,
    cause: String,
}

/// What a receiver has done: each key once, in this order.
#[derive(Default)]
struct Done {
    keys: HashMap<String, Told>,
    order: Vec<Told>,
    attempts: u64,
    repeated: u64,
}

/// A receiver of events on loopback.
struct Receiver {
    address: SocketAddr,
    done: Arc<Mutex<Done>>,
    /// Whether it takes everything at once.
    is_well: Arc<AtomicBool>,
}

impl Receiver {
    fn start(seed: u64) -> Receiver {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let (done, is_well) = (Arc::<Mutex<Done>>::default(), Arc::new(AtomicBool::new(false)));
        let receiver = Receiver { address, done: done.clone(), is_well: is_well.clone() };
        thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming()) {
                let (done, is_well) = (done.clone(), is_well.clone());
                let mut chance = Random::new(seed + number);
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream.expect("a connection"));
                    while serve(&mut stream, &done, &is_well, &mut chance).is_some() {}
                });
            }
        });
        receiver
    }

    fn done(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().expect("no test has failed")
    }
}

/// Reads a request and answers it, or fails, or hangs, or takes it without an answer.
fn serve(
    stream: &mut BufReader<TcpStream>,
    done: &Mutex<Done>,
    is_well: &AtomicBool,
    chance: &mut Random,
) -> Option<()> {
    let (mut key, mut length, mut line) = (String::new(), 0, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line == "\r\n" { break } else { continue }
        };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => key = value.to_owned(),
            "content-length" => length = value.parse().expect("a number"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let outcome = if is_well.load(Ordering::SeqCst) { 9 } else { chance.below(10) };
    done.lock().expect("no test has failed").attempts += 1;
    if outcome < 2 {
        let failure = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
        return stream.get_mut().write_all(failure.as_bytes()).ok();
    }
    let event: Value = serde_json::from_slice(&body).expect("JSON");
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let told = Told {
        identity: text("identity"),
        session: text("session"),
        epoch: text("epoch").parse().expect("a number"),
        kind: text("kind"),
        cause: text("cause"),
    };
    {
        let mut done = done.lock().expect("no test has failed");
        if done.keys.insert(key, told.clone()).is_none() {
            done.order.push(told);
        } else {
            done.repeated += 1;
        }
    }
    match outcome {
        // It has taken the event, and nobody learns of that.
        2 => None,
        3 => {
            thread::park_timeout(Duration::from_millis(300));
            None
        }
        _ => stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok(),
    }
}

/// Logs in, stays for a moment, and goes in one of several ways. Returns session and epoch if it
/// was welcomed.
fn visit(gateway: SocketAddr, identity: &str, chance: &mut Random) -> Option<(u64, u64)> {
    let stream = TcpStream::connect(gateway).ok()?;
    let mut client = Client::log_in(stream, named(identity), Duration::from_secs(2))?;
    thread::park_timeout(Duration::from_millis(chance.below(40)));
    if chance.below(3) == 0 {
        // Stays until somebody ends it.
        let _ = client.receive();
    }
    Some(client.session)
}

/// Each session that was welcomed has one end, after its beginning, and the sessions of an identity
/// come one after the other.
fn check(done: &Done, welcomed: &BTreeMap<(u64, u64), String>) {
    let mut ends: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    let mut last: HashMap<&str, (u64, &str)> = HashMap::new();
    for told in &done.order {
        let session = u64::from_str_radix(&told.session, 16).expect("hexadecimal");
        if told.kind == "leave" {
            *ends.entry((session, told.epoch)).or_default() += 1;
        }
        if !told.identity.is_empty() {
            let before = last.insert(&told.identity, (told.epoch, &told.kind));
            let (epoch, kind) = before.unwrap_or((0, "leave"));
            let is_in_order = match told.kind.as_str() {
                "join" => told.epoch > epoch && kind == "leave",
                // One that was never welcomed may end without a beginning.
                _ => told.epoch > epoch || (told.epoch == epoch && kind == "join"),
            };
            assert!(is_in_order, "{told:?} after {kind} of {epoch}");
        }
    }
    let missing: Vec<_> = welcomed.iter().filter(|(key, _)| !ends.contains_key(key)).collect();
    assert!(missing.is_empty(), "{} of {}: {missing:?}", missing.len(), welcomed.len());
    let twice: Vec<_> = ends.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// The sessions that a client was welcomed to, with its identities.
type Welcomed = BTreeMap<(u64, u64), String>;

/// Starts clients that come and go at the gateway that runs, if one does.
fn clients(
    seed: u64,
    address: &Arc<Mutex<Option<SocketAddr>>>,
    ends: &Arc<AtomicBool>,
) -> Vec<thread::JoinHandle<Welcomed>> {
    (0..CLIENTS)
        .map(|number| {
            let (address, ends) = (address.clone(), ends.clone());
            thread::spawn(move || {
                let mut chance = Random::new(seed.wrapping_mul(1_000) + number);
                let mut welcomed = BTreeMap::new();
                while !ends.load(Ordering::SeqCst) {
                    let Some(gateway) = *address.lock().expect("no test has failed") else {
                        thread::park_timeout(Duration::from_millis(2));
                        continue;
                    };
                    let identity = match chance.below(IDENTITIES) {
                        0 => String::new(),
                        number => format!("peer {number}"),
                    };
                    if let Some(session) = visit(gateway, &identity, &mut chance) {
                        welcomed.insert(session, identity);
                    }
                }
                welcomed
            })
        })
        .collect()
}

#[test]
fn each_welcomed_session_is_cleaned_up_once_however_often_the_gateway_is_killed() {
    let kills = std::env::var("SYSTOLE_KILLS").ok().and_then(|text| text.parse().ok());
    let kills: u64 = kills.unwrap_or(KILLS);
    let seed = std::env::var("SYSTOLE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let folder = directory("killed-store");
    let receiver = Receiver::start(seed);
    std::fs::write(folder.join("secret"), "0123456789abcdef\n").expect("it is writable");
    let config = format!(
        "shards = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[webhook]]\nurl = \"http://{}/\"\nsecret_file = \"{secret}\"\ntimeout = \"200ms\"\n\
         [store]\npath = \"{store}\"\n[log]\nlevel = \"error\"\n",
        receiver.address,
        secret = folder.join("secret").display(),
        store = folder.join("store").display(),
    );
    let (address, ends) =
        (Arc::<Mutex<Option<SocketAddr>>>::default(), Arc::<AtomicBool>::default());
    let clients = clients(seed, &address, &ends);
    let mut chance = Random::new(seed);
    for _ in 0..kills {
        let gateway = Gateway::start("killed", &config);
        *address.lock().expect("no test has failed") = Some(gateway.address("native"));
        thread::park_timeout(Duration::from_millis(20 + chance.below(150)));
        *address.lock().expect("no test has failed") = None;
        // Dropping it is kill -9.
        drop(gateway);
    }
    ends.store(true, Ordering::SeqCst);
    let mut welcomed = BTreeMap::new();
    for client in clients {
        welcomed.extend(client.join().expect("no client fails"));
    }
    receiver.is_well.store(true, Ordering::SeqCst);
    let mut gateway = Gateway::start("killed", &config);
    let waiting = || gateway.get("/api/v1/webhooks")["webhooks"][0]["waiting"].as_u64();
    let mut left = waiting().expect("a number");
    while left > 0 {
        left = wait("more to be told", || waiting().filter(|now| *now < left));
    }
    gateway.end();
    let done = receiver.done();
    let lost = done.order.iter().filter(|told| told.cause == "gateway_lost").count();
    println!(
        "{kills} kills: {} sessions welcomed, {} events told in {} attempts, {} repeated, {lost} \
         sessions lost with the gateway",
        welcomed.len(),
        done.order.len(),
        done.attempts,
        done.repeated,
    );
    check(&done, &welcomed);
    assert!(welcomed.len() as u64 > kills && lost as u64 >= kills / 2 && done.repeated > 0);
}
