//! Logins a second, with a store that is synced at each commit, with one that is synced later, with
//! a webhook that takes all events, and without: `cargo bench -p systole --bench logins`. Each
//! client connects, logs in, and closes.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use systole_core::Span;
use systole_net::Clock;

#[expect(dead_code, reason = "tests do more with a client")]
#[path = "../tests/it/client.rs"]
mod client;

use client::{Client, named};

/// Clients that log in at the same time, each again and again.
const CLIENTS: u64 = 64;

/// Length of each measurement.
const WINDOW: Duration = Duration::from_secs(5);

/// Rounds, of which each measures all kinds.
const ROUNDS: usize = 3;

fn main() {
    let folder = tempfile::tempdir().expect("a directory");
    let receiver = receiver();
    // Where nobody listens the store does its part alone: what it writes is carried nowhere.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let kinds = [
        ("without a store", None),
        ("at each commit", Some(("commit", nobody))),
        ("within 100 ms", Some(("100ms", nobody))),
        ("at each commit, and carried to a webhook", Some(("commit", receiver))),
    ];
    let mut rates = vec![Vec::new(); kinds.len()];
    for _ in 0..ROUNDS {
        for ((_, store), rates) in kinds.iter().zip(&mut rates) {
            rates.push(measure(folder.path(), *store));
        }
    }
    let median = |rates: &mut Vec<u64>| {
        rates.sort_unstable();
        rates[rates.len() / 2]
    };
    let base = median(&mut rates[0]);
    for ((name, _), rates) in kinds.iter().zip(&mut rates) {
        let rate = median(rates);
        println!("{name}: {rate} logins/s, {:.2} x", rate as f64 / base as f64);
    }
}

/// Measures logins a second at a gateway of its own.
fn measure(folder: &Path, store: Option<(&str, SocketAddr)>) -> u64 {
    let mut config = String::from(
        "shards = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         logins_per_minute = \"off\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [log]\nlevel = \"error\"\n",
    );
    if let Some((sync, receiver)) = store {
        fs::write(folder.join("secret"), "0123456789abcdef\n").expect("it is writable");
        let told = format!(
            "[[webhook]]\nurl = \"http://{receiver}/\"\nsecret_file = \"secret\"\n\
             [store]\npath = \"store\"\nsync = \"{sync}\"\n"
        );
        config.write_str(&told).expect("a string");
    }
    let _ = fs::remove_dir_all(folder.join("store"));
    let _ = fs::remove_file(folder.join("ready.json"));
    fs::write(folder.join("systole.toml"), config).expect("it is writable");
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_systole"))
        .args(["serve", "--config", "systole.toml", "--ready-file", "ready.json"])
        .current_dir(folder)
        .spawn()
        .expect("it was built");
    let rate = storm(address(folder));
    stop(&mut gateway);
    rate
}

fn stop(gateway: &mut Child) {
    let _ = gateway.kill();
    let _ = gateway.wait();
}

/// Waits for the gateway, and returns where clients log in.
fn address(folder: &Path) -> SocketAddr {
    let clock = Clock::start();
    while clock.monotonic() < Span::from_secs(20) {
        if let Ok(text) = fs::read_to_string(folder.join("ready.json")) {
            let ready: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let address = ready["listeners"][0]["address"].as_str().expect("an address");
            return address.parse().expect("an address");
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    panic!("the gateway does not start");
}

fn storm(gateway: SocketAddr) -> u64 {
    let (done, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (done, ends) = (done.clone(), ends.clone());
            thread::spawn(move || {
                let identity = format!("peer {number}");
                while !ends.load(Ordering::Relaxed) {
                    if log_in(gateway, &identity).is_some() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let clock = Clock::start();
    thread::park_timeout(Duration::from_secs(1));
    let (before, began) = (done.load(Ordering::Relaxed), clock.monotonic());
    while clock.monotonic().less(began) < Span::from(WINDOW) {
        thread::park_timeout(Duration::from_millis(50));
    }
    let (count, took) = (done.load(Ordering::Relaxed) - before, clock.monotonic().less(began));
    ends.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no client fails"));
    count * 1_000 / took.as_millis().max(1)
}

fn log_in(gateway: SocketAddr, identity: &str) -> Option<Client> {
    let stream = TcpStream::connect(gateway).ok()?;
    Client::log_in(stream, named(identity), Duration::from_secs(5))
}

/// A receiver that takes everything at once.
fn receiver() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            thread::spawn(move || {
                let (mut buffer, mut held) = ([0; 16_384], Vec::new());
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    held.extend_from_slice(&buffer[..read]);
                    let Some(end) = held.windows(4).position(|window| window == b"\r\n\r\n") else {
                        continue;
                    };
                    let head = String::from_utf8_lossy(&held[..end]).to_ascii_lowercase();
                    let length = head.split("content-length: ").nth(1).and_then(|rest| {
                        rest.lines().next().and_then(|text| text.trim().parse::<usize>().ok())
                    });
                    if held.len() >= end + 4 + length.unwrap_or(0) {
                        held.clear();
                        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}
