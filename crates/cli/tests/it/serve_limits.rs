//! Tests of `systole serve` at its limits: without descriptors, and stopped for seconds.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use systole_core::Span;
use systole_net::Clock;

use crate::gateway::{Gateway, ONE_SECOND, unhurried, wait};

/// Clients of the `line` listener, each with the number of bytes that it received.
struct Clients(Vec<(TcpStream, usize)>);

impl Clients {
    fn connect(gateway: &Gateway, count: usize) -> Clients {
        let connect = |_| {
            let stream = gateway.connect("line");
            stream.set_nonblocking(true).expect("it is open");
            (stream, 0)
        };
        Clients((0..count).map(connect).collect())
    }

    fn beat(&mut self) {
        for (stream, _) in &mut self.0 {
            // A client that is not accepted yet is read later; one that was closed shows in the
            // counts.
            let _ = stream.write_all(b"ping\n");
        }
    }

    /// Returns the number of clients that received anything so far.
    fn answered(&mut self) -> usize {
        let mut some = [0; 4_096];
        for (stream, bytes) in &mut self.0 {
            match stream.read(&mut some) {
                Ok(count) => *bytes += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        self.0.iter().filter(|(_, bytes)| *bytes > 0).count()
    }

    fn reset_counts(&mut self) {
        self.answered();
        self.0.iter_mut().for_each(|(_, bytes)| *bytes = 0);
    }

    /// Sends heartbeats for the time `span`.
    fn beat_for(&mut self, span: Span) {
        let clock = Clock::start();
        while clock.monotonic() < span {
            self.beat();
            thread::park_timeout(Duration::from_millis(50));
            self.answered();
        }
    }

    fn wait_for_answers(&mut self, count: usize) {
        wait("the answers", || (self.answered() == count).then_some(()));
    }
}

/// Returns the CPU time that a process has used, in seconds, to 10 ms.
fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("the end of its name");
    // Fields 14 and 15 of the whole line, in ticks of 1/100 s.
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// Returns the limit under which a process can open `count` more descriptors. The limit applies to
/// descriptor numbers, which may have gaps.
fn room_for(count: usize, process: u32) -> u64 {
    let open = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let name = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
    let open: Vec<u64> = open.filter_map(|entry| entry.ok().and_then(name)).collect();
    let free = (0..).filter(|number| !open.contains(number));
    free.take(count).max().map_or(0, |last| last + 1)
}

fn one_shard() -> String {
    unhurried().replace("shards = 2", "shards = 1")
}

/// Checks that the clients that fit are served, and that the others wait without a busy loop.
fn check_excess_clients(gateway: &mut Gateway, clients: &mut Clients, served: usize, limit: u64) {
    let line = gateway.log("accepting is paused");
    assert_eq!(line["reason"], "descriptor_limit", "{line}");
    assert!(line["hint"].as_str().is_some_and(|hint| hint.contains("LimitNOFILE=")), "{line}");
    assert!(line["limit"].as_u64().is_some_and(|logged| logged >= limit), "{line}");
    clients.wait_for_answers(served);
    clients.reset_counts();
    let before = cpu_seconds(gateway.process());
    clients.beat_for(Span::from_secs(1));
    let used = cpu_seconds(gateway.process()) - before;
    assert!(used < 0.3, "{used} s of CPU time in 1 s");
    clients.wait_for_answers(served);
    // More clients leave than wait, so that the waiting ones are accepted and room is left.
    let waiting = clients.0.len() - served;
    clients.0.drain(..waiting + 5);
    clients.reset_counts();
    clients.beat();
    let all = clients.0.len();
    clients.wait_for_answers(all);
}

/// Starts a gateway whose descriptor limit is `limit`.
fn start_limited(name: &str, config: &str, limit: u32) -> Gateway {
    Gateway::start_by(name, config, |command| {
        let program = command.get_program().to_owned();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let directory = command.get_current_dir().expect("the test set it").to_owned();
        fs::write(directory.join("secret"), "42".repeat(32)).expect("it is writable");
        *command = Command::new("/bin/sh");
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(program).args(args);
        command.current_dir(directory).env_clear();
    })
}

#[test]
fn operators_reach_a_gateway_of_many_shards_whose_links_have_taken_all_room() {
    let config = unhurried().replace("shards = 2", "shards = 40")
        + "[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\ncodec = \"beacon\"\n\
           master_secret_file = \"secret\"\n[limits]\nsse_subscribers = 60\n";
    let gateway = start_limited("limits-many-shards", &config, 1_240);
    let mut clients = Clients::connect(&gateway, 1_200);
    clients.beat();
    // Each of the 40 shards takes 9 links, of the 30 that the kernel gives it on average; their
    // descriptors and the reserve take the rest.
    wait("the links", || (gateway.metric("systole_sessions_online") >= 360.0).then_some(()));
    let open = fs::read_dir(format!("/proc/{}/fd", gateway.process())).unwrap().count();
    assert!(open + 60 + 320 <= 1_240, "{open} descriptors are open");
    // As many as one address may have.
    let _subscribers: Vec<_> = (0..40).map(|_| gateway.events(None)).collect();
    assert_eq!(gateway.status("/healthz"), 200);
    assert_eq!(gateway.status("/readyz"), 503);
}

#[test]
fn with_a_low_descriptor_limit_excess_clients_wait() {
    let mut gateway = start_limited("limits-low", &one_shard(), 150);
    let mut clients = Clients::connect(&gateway, 100);
    clients.beat();
    // With so low a limit, half of what the gateway itself leaves is reserved for operators.
    let online = wait("the pause", || {
        let online = gateway.metric("systole_sessions_online") as usize;
        (gateway.status("/readyz") == 503 && online >= 56).then_some(online)
    });
    assert_eq!(online, 56);
    check_excess_clients(&mut gateway, &mut clients, online, 150);
    gateway.log("accepting again");
    wait("readiness", || (gateway.status("/readyz") == 200).then_some(()));
    gateway.end();
}

/// Reads from a client until the gateway ends the connection.
fn read_to_the_end(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(false);
    // A reset is an end too.
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Drains a gateway that can open no descriptor, while `waiting` clients are in the queue, and
/// checks that this takes less than the drain limit.
fn drain_without_descriptors(name: &str, waiting: usize) {
    let config = one_shard() + "[drain]\nlimit = \"1h\"\n";
    let mut gateway = Gateway::start(name, &config);
    let process = Pid::from_raw(gateway.process() as i32);
    let mut early = Clients::connect(&gateway, 10);
    early.beat();
    early.wait_for_answers(10);
    // Below the number of descriptors that are open: ends of clients make no room.
    let before = rustix::process::getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(3), maximum: before.maximum };
    prlimit(process, Resource::Nofile, few).expect("it runs");
    let waiting = Clients::connect(&gateway, waiting);
    if !waiting.0.is_empty() {
        gateway.log("accepting is paused");
    }
    let clients = early.0.into_iter().chain(waiting.0).map(|(stream, _)| stream);
    let readers: Vec<_> = clients.map(|it| thread::spawn(|| read_to_the_end(it))).collect();
    gateway.end();
    readers.into_iter().for_each(|reader| reader.join().expect("it ends"));
}

#[test]
fn a_drain_without_descriptors_does_not_take_the_whole_limit() {
    drain_without_descriptors("limits-drain", 0);
    drain_without_descriptors("limits-drain-queue", 5);
}

#[test]
fn with_refused_descriptors_new_clients_wait() {
    let mut gateway = Gateway::start("limits-refused", &one_shard());
    let process = Pid::from_raw(i32::try_from(gateway.process()).unwrap());
    let mut early = Clients::connect(&gateway, 10);
    early.beat();
    early.wait_for_answers(10);
    let limit = room_for(20, gateway.process());
    let before = rustix::process::getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(limit), maximum: before.maximum };
    prlimit(process, Resource::Nofile, few).unwrap();
    let mut clients = Clients::connect(&gateway, 30);
    clients.beat();
    check_excess_clients(&mut gateway, &mut clients, 20, limit);
    early.reset_counts();
    early.beat();
    early.wait_for_answers(10);
    prlimit(process, Resource::Nofile, before).unwrap();
    gateway.log("accepting again");
    gateway.end();
}

#[test]
fn a_gateway_stopped_for_seconds_loses_no_living_client() {
    let mut gateway = Gateway::start("limits-stopped", ONE_SECOND);
    let mut clients = Clients::connect(&gateway, 50);
    clients.beat();
    clients.wait_for_answers(50);
    let mut dead = gateway.connect("line");
    dead.write_all(b"hello\n").unwrap();
    gateway.sessions("", 51);
    gateway.program.signal("STOP");
    clients.beat_for(Span::from_secs(3));
    gateway.program.signal("CONT");
    let clock = Clock::start();
    // Counts every verdict of silence, whatever its cause.
    let verdicts = "systole_verdict_lateness_seconds_count";
    while gateway.metric(verdicts) < 1.0 {
        clients.beat_for(Span::from_millis(50));
        assert!(clock.monotonic() < Span::from_secs(30), "the dead client is not detected");
    }
    clients.reset_counts();
    clients.beat_for(Span::from_millis(1_500));
    clients.wait_for_answers(50);
    assert_eq!(gateway.metric(verdicts), 1.0);
    assert_eq!(gateway.metric("systole_sessions_online"), 50.0);
    assert!(gateway.metric("systole_stalls_total") >= 1.0);
    gateway.log("stalled");
}
