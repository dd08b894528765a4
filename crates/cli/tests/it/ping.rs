//! Tests of `systole ping` against `systole pong`, as processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use systole_core::Span;
use systole_net::Clock;

use crate::gateway::{Gateway, unhurried, wait};
use crate::program::{Program, SOON};
use crate::{snapshot, systole};

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
    for codec in ["message1028", "line"] {
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
    for codec in ["message1028", "line"] {
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
        let len = if codec == "message1028" { 1_028 } else { 5 };
        for _ in 0..4 {
            assert_eq!(pong.line(), format!("received {len} bytes"), "{codec}");
        }
    }
}

#[test]
fn a_gateway_of_each_codec_is_pinged_at_once_and_then_each_interval() {
    let gateway = Gateway::start("ping-gateway", &unhurried());
    for codec in ["native", "message1028", "line"] {
        let addr = gateway.address(codec).to_string();
        let args = ["--codec", codec, "--interval", "1s", "--count", "3"];
        let mut json = ping(&addr, &[&args[..], &["--json"]].concat());
        for (n, ms) in [(1, 0), (2, 1_000), (3, 2_000)] {
            let sent = json.until("\"sent\"");
            assert_eq!(number(&sent, "number"), n, "{codec}");
            assert_around(&sent, ms);
            let received = json.until("\"received\",");
            assert_eq!(number(&received, "number"), n, "{codec}");
            assert!(number(&received, "rtt_us") < 1_000_000, "{codec}: {received}");
        }
        let summary = json.until("summary");
        assert_eq!((number(&summary, "sent"), number(&summary, "received")), (3, 3));
        assert!(summary.contains("\"loss_percent\":0.0"), "{summary}");
        let [min, avg, max] =
            ["rtt_min_us", "rtt_avg_us", "rtt_max_us"].map(|name| number(&summary, name));
        assert!(min <= avg && avg <= max, "{summary}");
        assert!(number(&summary, "rtt_mdev_us") <= max, "{summary}");
        assert_eq!(json.end(), 0, "{codec}");
    }
}

#[test]
fn heartbeats_are_sent_at_the_interval_that_the_gateway_grants() {
    // The gateway grants no bound above 2 s, and shortens a longer request in proportion.
    let config = unhurried().replace(
        "shortest_bound = \"100ms\"",
        "shortest_bound = \"100ms\"\nlongest_bound = \"2s\"",
    );
    let gateway = Gateway::start("ping-granted", &config);
    let addr = gateway.address("native").to_string();
    let asked = ["--idle", "45s", "--interval", "5s", "--probes", "3"];
    let mut refused = ping(&addr, &[&asked[..], &["--json"]].concat());
    let granted = "the server grants another policy: idle 1.502 s, interval 166.000 ms, probes 3";
    assert_eq!(refused.stderr_after(granted), "; a heartbeat is sent each 166.000 ms");
    let connected = refused.until("\"connected\"");
    assert_eq!(number(&connected, "interval_ms"), 166, "{connected}");
    for (n, ms) in [(1, 0), (2, 166), (3, 332)] {
        let sent = refused.until("\"sent\"");
        assert_eq!(number(&sent, "number"), n);
        assert_around(&sent, ms);
    }
    // A change by the operator counts from then on.
    let mut plain = ping(&addr, &asked);
    plain.until("seq=1 ");
    let wish = "{\"idle_ms\": 3600000, \"interval_ms\": 50, \"probes\": 3}";
    gateway.ask("PUT /api/v1/listeners/native/policy", wish);
    let retuned = refused.until("\"retuned\"");
    assert_eq!(number(&retuned, "interval_ms"), 50, "{retuned}");
    let changed = "the server changed the policy: idle 3600.000 s, interval 50.000 ms, probes 3";
    let line = plain.until(changed);
    assert!(line.ends_with("; a heartbeat is sent each 50.000 ms"), "{line}");
    let times: Vec<u64> = (0..10).map(|_| number(&refused.until("\"sent\""), "time_ms")).collect();
    let least = times.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(least < Some(120), "an interval of 50 ms on a busy machine: {times:?}");
    for mut ping in [refused, plain] {
        ping.signal("INT");
        assert_eq!(ping.end(), 0);
    }
}

#[test]
fn the_lines_of_ping_are_those_of_ping8() {
    let (_pong, addr) = pong(&[]);
    let mut plain = ping(&addr, &["--interval", "50ms", "--count", "2"]);
    let dead = "dead after 15.150 s of silence";
    assert_eq!(plain.line(), format!("PING {addr} ({addr}), native, {dead}"));
    for n in 1..=2 {
        let line = plain.line();
        let start = format!("answer from {addr}: seq={n} time=");
        assert!(line.starts_with(&start) && line.ends_with(" ms"), "{line}");
    }
    assert_eq!(plain.line(), format!("--- {addr} ping statistics ---"));
    let counts = plain.line();
    assert!(counts.starts_with("2 heartbeats sent, 2 received, 0% loss, time "), "{counts}");
    let rtt = plain.line();
    assert!(rtt.starts_with("rtt min/avg/max/mdev = ") && rtt.ends_with(" ms"), "{rtt}");
    assert_eq!(plain.end(), 0);
}

#[test]
fn heartbeats_that_a_dead_server_does_not_answer_are_lost() {
    let (_pong, addr) = pong(&["--delay", "60"]);
    let mut dead = ping(&addr, &["--idle", "0.5", "--interval", "200ms", "--probes", "2"]);
    dead.until("the server is suspect");
    dead.until("connection dead");
    let counts = dead.until("heartbeats sent");
    assert!(counts.contains(" 0 received, 100% loss, "), "{counts}");
    assert_eq!(dead.end(), 3);
}

#[test]
fn a_server_that_died_is_dead_although_all_heartbeats_were_sent() {
    let (pong, addr) = pong(&[]);
    let quick = ["--idle", "500ms", "--interval", "100ms", "--probes", "5", "--count", "4"];
    let mut ping = ping(&addr, &quick);
    ping.until("seq=1");
    pong.signal("STOP");
    assert_eq!(ping.end(), 3, "{:?}", ping.seen);
    pong.signal("CONT");
}

#[test]
fn the_numbers_of_heartbeats_go_on_after_a_reconnect() {
    let (mut first, addr) = pong(&[]);
    let mut json = ping(&addr, &["--interval", "50ms", "--reconnect", "--json"]);
    let port = addr.rsplit(':').next().unwrap();
    json.until("\"received\",");
    let mut last = number(&json.until("\"received\","), "number");
    assert!(last >= 2, "{last}");
    first.signal("KILL");
    first.end();
    loop {
        let line = json.line();
        if line.contains("\"number\"") {
            last = last.max(number(&line, "number"));
        }
        if line.contains("\"lost\"") {
            break;
        }
    }
    let _second = start(&["pong", "--port", port]);
    json.until("\"reconnected\"");
    let next = number(&json.until("\"sent\""), "number");
    assert_eq!(next, last + 1);
    json.signal("TERM");
    assert_eq!(json.end(), 0);
}

#[test]
fn ping_goes_on_although_it_was_never_connected_if_requested() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut ping = ping(&unused, &["--reconnect", "--interval", "50ms"]);
    ping.until("not connected: ");
    ping.until("reconnecting in ");
    ping.until("not connected: ");
    let _pong = start(&["pong", "--port", unused.rsplit(':').next().unwrap()]);
    ping.until("answer from ");
    ping.signal("INT");
    assert_eq!(ping.end(), 0);
    // What no attempt can overcome ends it all the same.
    let mut wrong = start(&["ping", "[fe80::1]:7400", "--reconnect"]);
    wrong.stderr_after("trying again is of no use: this machine cannot use the address");
    assert_eq!(wrong.end(), 1);
}

#[test]
fn a_signal_ends_a_ping_that_is_not_connected_yet() {
    for signal in ["INT", "TERM"] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = silent.local_addr().unwrap().to_string();
        let mut waiting = ping(&addr, &["-v"]);
        waiting.until("accepted the connection");
        waiting.signal(signal);
        waiting.until("0 heartbeats sent, 0 received, 0% loss");
        assert_eq!(waiting.end(), 1, "{signal}");
    }
}

#[test]
fn ping_ends_after_count_answers() {
    let (_pong, addr) = pong(&["--codec", "line"]);
    let quick = ["--codec", "line", "--idle", "0.05", "--interval", "0.5", "--count", "3"];
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
        let mut ping = ping(&addr, &["--interval", "5"]);
        ping.until("answer from ");
        ping.signal(signal);
        ping.until("ping statistics");
        assert_eq!(ping.end(), 0, "{signal}");
        pong.until("left: the peer said goodbye: ");
        pong.signal(signal);
        assert_eq!(pong.end(), 0, "{signal}");
    }
}

#[test]
fn a_pong_that_a_signal_ends_says_goodbye_to_its_clients() {
    // Answers that are delayed hold up no goodbye.
    for (signal, delay) in [("INT", "0s"), ("TERM", "60s")] {
        let (mut pong, addr) = pong(&["-v", "--delay", delay]);
        let mut leaves = ping(&addr, &["--json"]);
        let mut returns = ping(&addr, &["--reconnect", "--interval", "50ms"]);
        // It neither introduces itself nor leaves.
        let mut mute = TcpStream::connect(&addr).unwrap();
        leaves.until("\"sent\"");
        returns.until("PING ");
        // Each was accepted, and joined.
        (0..3).for_each(|_| drop(pong.until(" joined")));
        pong.signal(signal);
        let lost = leaves.until("\"lost\"");
        assert!(lost.contains("\"reason\":\"drained\",\"stay_away\":false"), "{lost}");
        assert_eq!(leaves.end(), 1);
        returns.until("connection lost: the peer said goodbye: drained");
        returns.until("reconnecting in ");
        // The one that stays is given up at the time limit.
        assert_eq!(pong.end(), 0, "{signal}");
        let left = pong.seen.iter().filter(|line| line.ends_with(" left: ended by a drain"));
        assert_eq!(left.count(), 2, "{:?}", pong.seen);
        let mut told = Vec::new();
        mute.read_to_end(&mut told).unwrap();
        assert!(!told.is_empty(), "a CLOSE, then the end");
    }
}

#[test]
fn a_signal_ends_a_ping_whose_output_nobody_reads() {
    let (_pong, addr) = pong(&["--codec", "line"]);
    let args = ["ping", &addr, "--codec", "line", "--interval", "1ms", "-v"];
    let mut command = systole(Path::new("."), &args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let unread = child.stdout.take().unwrap();
    // A pipe of 64 KiB that does not grow in many looks: the write of the next line waits.
    let (mut held, mut looks) = (0, 0);
    wait("a full pipe", || {
        let now = rustix::io::ioctl_fionread(&unread).unwrap();
        looks = if now == held { looks + 1 } else { 0 };
        held = now;
        (held >= 60 << 10 && looks >= 50).then_some(())
    });
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    wait("the end", || child.try_wait().unwrap());
    drop(unread);
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
    refused.stderr_after("hint: nothing listens there: is the server running");
    assert_eq!(refused.end(), 1);

    let zero = ["--probes", "0"];
    for wrong in [&["--interval", "0"][..], &zero, &["--count", "0"], &["--idle", "soon"], &[]] {
        let mut usage = if wrong.is_empty() { start(&["ping"]) } else { ping(&unused, wrong) };
        assert_eq!(usage.end(), 2, "{wrong:?}");
    }

    for (wrong, says) in [
        (["--probes", "0"], "must be a number from 1 to 100: a server is dead after that many"),
        (["--probes", "101"], "must be a number from 1 to 100"),
        (["--interval", "0"], "--interval must be at least 1ms\nhint: it is the time between two"),
        (["--idle", "0"], "--idle must be at least 1ms\nhint: it is the silence before"),
        (["--interval", "0.0005"], "must be whole milliseconds\nhint: 1ms, or 0.001, is the"),
    ] {
        let args = [&["ping", &unused][..], &wrong].concat();
        let shown = snapshot(&mut systole(Path::new("."), &args));
        assert!(shown.starts_with("exit 2\n") && shown.contains(says), "{shown}");
    }

    for option in ["--idle", "--interval"] {
        let mut long = ping(&unused, &[option, "99999999999"]);
        assert!(long.stderr_after(option).contains("too long: at most 365d"), "{option}");
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
    second.stderr_after("hint: another program listens there; --port 0 ");
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
fn a_wrong_codec_is_named_by_what_comes_back_or_does_not() {
    let gateway = Gateway::start("ping-codecs", &unhurried());
    let is_other = "this is not codec ";
    let may_be_other = "this may not be codec ";
    let http = "the server answered \"HTTP/1.1 400 Bad Request\", which is HTTP";
    let admin = gateway.admin().to_string();
    let native = gateway.address("native").to_string();
    let message = gateway.address("message1028").to_string();
    for (addr, codec, before, expected) in [
        (&admin, "native", is_other, http),
        (&admin, "line", is_other, http),
        (&admin, "message1028", is_other, "the server sent illegal bytes: unknown kind"),
        (&native, "message1028", may_be_other, "the server closed the connection without"),
        (&message, "native", may_be_other, "the server closed the connection without an answer"),
    ] {
        let mut wrong = ping(addr, &["--codec", codec, "--json"]);
        let shown = wrong.stderr_after(before);
        assert!(shown.starts_with(&format!("{codec}: {expected}")), "{shown}");
        wrong.stderr_after(&format!("hint: is this a systole gateway with codec {codec} on"));
        wrong.signal("INT");
        assert_eq!(wrong.end(), 1, "{codec}, {expected}");
    }
    let mut plain = ping(&message, &["--codec", "line"]);
    plain.until("connection lost: this may not be codec line: the server closed the connection");
    // Some wait for the rest of what they take for a frame, and say nothing.
    let line = gateway.address("line").to_string();
    for (addr, codec) in [(&line, "native"), (&line, "message1028"), (&native, "line")] {
        let mut wrong = ping(addr, &["--codec", codec]);
        wrong.stderr_after(&format!("{addr}: connected, but no answer in 2s"));
        let hint = format!("hint: is this a systole gateway with codec {codec} on this port?");
        wrong.stderr_after(&hint);
        wrong.signal("INT");
        assert_eq!(wrong.end(), 1);
    }
}

#[test]
fn what_is_no_address_is_wrong_usage_and_shows_a_right_one() {
    for (wrong, right) in [
        ("http://127.0.0.1:7480/x", "an address is a host and a port, as in 127.0.0.1:7480"),
        ("gateway", "a port is needed, as in gateway:7400"),
        ("[::1]", "a port is needed, as in [::1]:7400"),
        ("::1", "an IPv6 address stands in brackets before its port, as in [::1]:7400"),
        ("gateway:7400/path", "an address has no path, as in gateway:7400"),
        ("gateway:http", "the port must be a number from 1 to 65535, as in gateway:7400"),
        ("[fe80::1%no-such]:7400", "no interface of this machine is called \"no-such\""),
    ] {
        for more in [&[][..], &["--reconnect"]] {
            let mut ping = ping(wrong, more);
            let shown = ping.stderr_after(&format!("error: invalid value '{wrong}' for "));
            assert!(shown.contains(right), "{shown}");
            assert_eq!(ping.end(), 2, "{wrong}");
        }
    }
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
