//! Tests of `systole ping` against `systole pong`, as processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use systole_core::Span;
use systole_net::Clock;

use crate::program::{Program, SOON};
use crate::systole;

const ANSWERED: &str = "received heartbeat, make heartbeats to 0";

fn start(args: &[&str]) -> Program {
    Program::start(&mut systole(Path::new("."), args))
}

/// Starts a pong on a free port; returns it and its address.
fn pong(args: &[&str]) -> (Program, String) {
    let mut pong = start(&[&["pong", "--port", "0"], args].concat());
    let addr = pong.stderr_after("listening on ");
    (pong, addr)
}

fn ping(addr: &str, args: &[&str]) -> Program {
    start(&[&["ping", addr], args].concat())
}

/// Returns the number called `name` in a line of JSON.
fn number(line: &str, name: &str) -> u64 {
    let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{line}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Asserts that a line was printed around `ms`. A busy machine is late, and a time may be early
/// because the program's clock starts somewhat after the connection.
fn assert_around(line: &str, ms: u64) {
    let (early, late) = (100, 1_000);
    let time = number(line, "time_ms");
    assert!(time + early >= ms && time < ms + late, "{time} instead of {ms}: {line}");
}

#[test]
fn the_times_of_tcp_keepalive_are_kept_to_the_second() {
    let (_pong, addr) = pong(&["--codec", "message1028", "--delay", "60"]);
    let numbers = ["--idle", "10", "--interval", "3", "--probes", "3"];
    let args = [&["--codec", "message1028", "--json"][..], &numbers].concat();
    let mut ping = ping(&addr, &args);
    assert_eq!(number(&ping.until("connected"), "bound_ms"), 19_000);
    for (n, ms) in [(1, 10_000), (2, 13_000), (3, 16_000)] {
        let line = ping.until("\"sent\"");
        assert_eq!(number(&line, "number"), n);
        assert_around(&line, ms);
    }
    let line = ping.until("\"dead\"");
    assert_around(&line, 19_000);
    assert_around(&ping.until("summary"), 19_000);
    assert_eq!(ping.end(), 3);
}

#[test]
fn a_server_that_never_answers_is_dead_after_three_heartbeats() {
    for codec in ["message1028", "line", "native"] {
        let (_pong, addr) = pong(&["--codec", codec, "--delay", "60"]);
        let args = ["--codec", codec, "--idle", "0.4", "--interval", "200ms"];
        let mut plain = ping(&addr, &args);
        let mut timed = ping(&addr, &[&args[..], &["--json"]].concat());
        let expected = ["sending heartbeat #1", "sending heartbeat #2", "sending heartbeat #3"];
        for line in expected {
            assert_eq!(plain.line(), line, "{codec}");
        }
        assert_eq!(plain.line(), "connection dead", "{codec}");
        assert_eq!(plain.line(), format!("--- {addr} ping statistics ---"));
        assert!(plain.line().starts_with("3 heartbeats sent, 0 received, time "), "{codec}");
        assert_eq!(plain.end(), 3, "{codec}");
        for ms in [400, 600, 800] {
            assert_around(&timed.until("\"sent\""), ms);
        }
        assert_around(&timed.until("\"dead\""), 1_000);
        assert_eq!(timed.end(), 3, "{codec}");
    }
}

#[test]
fn late_answers_reset_the_count_each_time() {
    for codec in ["message1028", "line", "native"] {
        // Like 10/3/3 with a delay of 5: the answers come between the second and the third
        // heartbeat.
        let (mut pong, addr) = pong(&["--codec", codec, "--delay", "0.75"]);
        let timing = ["--idle", "1", "--interval", "0.5", "--probes", "3"];
        let mut ping = ping(&addr, &[&["--codec", codec][..], &timing].concat());
        for _ in 0..2 {
            for line in ["sending heartbeat #1", "sending heartbeat #2", ANSWERED, ANSWERED] {
                assert_eq!(ping.line(), line, "{codec}");
            }
        }
        ping.signal("INT");
        assert_eq!(ping.end(), 0, "{codec}");
        assert!(ping.seen.iter().any(|line| line.starts_with("4 heartbeats sent, 4 received")));
        assert!(ping.seen.iter().any(|line| line.starts_with("rtt min ")), "{:?}", ping.seen);
        let (first, len) = match codec {
            "message1028" => (1_028, 1_028),
            "line" => (5, 5),
            _ => (114, 2),
        };
        for len in [first, len, len, len] {
            assert_eq!(pong.line(), format!("received {len} bytes"), "{codec}");
        }
    }
}

#[test]
fn ping_ends_after_count_answers() {
    let (_pong, addr) = pong(&[]);
    let quick = ["--idle", "0.05", "--interval", "0.5", "--count", "3"];
    let mut json = ping(&addr, &[&quick[..], &["--json"]].concat());
    assert_eq!(json.end(), 0);
    let answers: Vec<&String> = json.seen.iter().filter(|l| l.contains("\"received\",")).collect();
    assert_eq!(answers.len(), 3, "{:?}", json.seen);
    assert!(answers.iter().all(|line| number(line, "rtt_us") < 1_000_000), "{answers:?}");
    let summary = json.seen.last().unwrap();
    assert_eq!((number(summary, "sent"), number(summary, "received")), (3, 3));

    let mut verbose = ping(&addr, &[&quick[..], &["-v"]].concat());
    assert_eq!(verbose.end(), 0);
    let answer = verbose.seen.iter().find(|line| line.contains(ANSWERED)).unwrap();
    assert!(answer.starts_with("    0.") && answer.contains("(rtt "), "{answer}");
}

#[test]
fn both_signals_end_ping_with_a_summary_and_a_goodbye() {
    for signal in ["INT", "TERM"] {
        let (mut pong, addr) = pong(&["-v"]);
        let mut ping = ping(&addr, &["--idle", "0.05", "--interval", "5"]);
        ping.until(ANSWERED);
        ping.signal(signal);
        ping.until("ping statistics");
        assert_eq!(ping.end(), 0, "{signal}");
        pong.until("left: the peer said goodbye: ");
        pong.signal(signal);
        assert_eq!(pong.end(), 0, "{signal}");
    }
}

#[test]
fn messages_in_pieces_are_counted_once() {
    let (mut pong, addr) = pong(&["--codec", "message1028"]);
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut messages = vec![0; 3 * 1_028];
    for message in messages.chunks_mut(1_028) {
        message[3] = 1;
    }
    for piece in messages.chunks(100) {
        stream.write_all(piece).unwrap();
    }
    let mut answers = vec![9; 3 * 1_028];
    stream.read_exact(&mut answers).unwrap();
    assert!(answers.chunks(1_028).all(|answer| answer[..4] == [0, 0, 0, 2]));
    for _ in 0..3 {
        assert_eq!(pong.line(), "received 1028 bytes");
    }
}

#[test]
fn a_delay_for_one_client_delays_no_other() {
    let (_pong, addr) = pong(&["--codec", "line", "--delay", "0.4"]);
    let mut busy = TcpStream::connect(&addr).unwrap();
    let mut other = TcpStream::connect(&addr).unwrap();
    for stream in [&busy, &other] {
        stream.set_read_timeout(Some(SOON)).unwrap();
    }
    let clock = Clock::start();
    // More than the queue of one client holds: this client is no longer read, and the other has no
    // delay.
    let flood = 20_000;
    let writing = std::thread::spawn({
        let mut busy = busy.try_clone().unwrap();
        move || busy.write_all(&b"ping\n".repeat(flood)).unwrap()
    });
    other.write_all(b"ping\n").unwrap();
    let mut answer = [0; 5];
    other.read_exact(&mut answer).unwrap();
    let after = clock.monotonic();
    assert_eq!(&answer, b"pong\n");
    let (earliest, latest) = (Span::from_millis(400), Span::from_millis(2_400));
    assert!(after >= earliest && after < latest, "{after}");
    let mut answers = BufReader::new(&mut busy);
    for _ in 0..flood {
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line, "pong\n");
    }
    writing.join().unwrap();
}

#[test]
fn ping_reconnects_if_requested() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap().to_string();
    let quick = ["--idle", "0.2", "--interval", "0.2", "--probes", "2"];
    let args = [&["--codec", "line", "--reconnect"][..], &quick].concat();
    let mut ping = ping(&addr, &args);
    let mute = server.accept().unwrap();
    ping.until("connection dead");
    ping.until("reconnecting in ");
    let leaving = server.accept().unwrap();
    ping.until("connected again");
    drop(leaving);
    ping.until("connection lost: ");
    let _third = server.accept().unwrap();
    ping.until("connected again");
    drop((mute, server));
    ping.signal("INT");
    ping.until("ping statistics");
}

#[test]
fn every_end_has_its_exit_code() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut refused = ping(&unused, &[]);
    assert!(refused.stderr_after("error: ").contains("not connected"));
    assert_eq!(refused.end(), 1);

    for wrong in [&["--interval", "0"][..], &["--probes", "0"], &["--idle", "soon"], &[]] {
        let mut usage = if wrong.is_empty() { start(&["ping"]) } else { ping(&unused, wrong) };
        assert_eq!(usage.end(), 2, "{wrong:?}");
    }

    for option in ["--idle", "--interval"] {
        let mut long = ping(&unused, &[option, "99999999999"]);
        assert!(long.stderr_after(option).contains("too long: at most 1year"), "{option}");
        assert_eq!(long.end(), 2);
    }

    let (pong, addr) = pong(&[]);
    let mut lost = ping(&addr, &["-v"]);
    lost.until("connected");
    drop(pong);
    lost.until("connection lost: ");
    assert_eq!(lost.end(), 1);

    let mut taken = start(&["pong", "--port", addr.rsplit(':').next().unwrap()]);
    let addr = taken.stderr_after("listening on ");
    let mut second = start(&["pong", "--port", addr.rsplit(':').next().unwrap()]);
    assert!(second.stderr_after("error: ").contains("cannot listen"));
    assert_eq!(second.end(), 1);
    taken.signal("INT");
    assert_eq!(taken.end(), 0);
}

#[test]
fn a_server_of_another_protocol_or_codec_gives_a_hint() {
    // Another codec. A server of `native` or `line` may instead wait for the rest of a frame.
    for (served, asked) in
        [("message1028", "native"), ("native", "message1028"), ("message1028", "line")]
    {
        let (_pong, addr) = pong(&["--codec", served]);
        let mut ping = ping(&addr, &["--codec", asked, "--idle", "50ms"]);
        let hint = ping.stderr_after("hint: is this a systole gateway with codec ");
        assert!(hint.starts_with(&format!("{asked} on this port?")), "{hint}");
        assert_eq!(ping.end(), 1, "{served}, {asked}");
    }
    // Something else answers at once, and closes or not.
    for stays in [false, true] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap().to_string();
        let mut ping = ping(&addr, &[]);
        let mut stream = server.accept().unwrap().0;
        stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").unwrap();
        let kept = stays.then_some(stream);
        ping.stderr_after("hint: is this a systole gateway with codec native on this port?");
        assert_eq!(ping.end(), 1);
        drop(kept);
    }
    // A gateway that answered first and then went away gives none.
    let (pong, addr) = pong(&[]);
    let mut known = ping(&addr, &["-v"]);
    known.until("connected");
    drop(pong);
    assert_eq!(known.end(), 1);
    assert_eq!(known.stderr_line(), None);
}

#[test]
fn an_address_without_a_port_gives_a_hint() {
    let mut ping = ping("127.0.0.1", &[]);
    ping.stderr_after("hint: a port is needed, as in 127.0.0.1:7400");
    assert_eq!(ping.end(), 1);
}

#[test]
fn illegal_bytes_are_reported_and_the_connection_closed() {
    let (mut pong, addr) = pong(&["--codec", "message1028"]);
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(pong.stderr_after("illegal bytes").contains("unknown kind"));
    let closed = stream.read(&mut [0; 16]);
    assert!(matches!(closed, Ok(0)) || closed.is_err());
}
