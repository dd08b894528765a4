//! Tests of beacon shards with plain UDP sockets.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::Duration;

use systole_core::beacon::{DATAGRAM, Datagram, Device, Heard, Reply};
use systole_core::cause::Cause;
use systole_core::gather::LONGEST_REST;
use systole_core::session::Event;
use systole_core::wire::CloseReason;
use systole_core::{Policy, Span, hub};
use systole_gateway::bans::{Banned, Bans};
use systole_gateway::beacon::keys::{KEY, Keys, device_text};
use systole_gateway::beacon::{BeaconSetup, BeaconShard, spawn};
use systole_gateway::report::{Fact, PauseReason, Reports, channels};
use systole_gateway::request::{Filter, Order, Page, Request};
use systole_gateway::shard::Shard;
use systole_gateway::stats::{BeaconStats, Distributions, ShardStats};
use systole_net::{Clock, datagrams};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use crate::{assert_answered_together, wait_for_end};

/// Longest wait for anything expected, so that no test hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const FIRST: u8 = 5;
const MASTER: [u8; KEY] = [0x5e; KEY];

struct Running {
    shards: Vec<Shard>,
    shard_stats: Vec<Arc<ShardStats>>,
    bans: Arc<Bans>,
    address: SocketAddr,
    reports: Receiver<Fact>,
    stats: Vec<Arc<BeaconStats>>,
}

fn start(policy: Policy, shards: usize) -> Running {
    start_with(policy, shards, 1_000, 10_000)
}

/// Starts shards of at most `max_beacons` devices each, with room for `facts` facts on the way.
fn start_with(policy: Policy, shards: usize, max_beacons: u32, facts: usize) -> Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let sockets = datagrams::bind_datagrams(any, shards).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let (reports, Reports { facts: receiver, .. }) = channels(facts);
    let stats: Vec<Arc<BeaconStats>> = (0..shards).map(|_| Arc::default()).collect();
    let shard_stats: Vec<Arc<ShardStats>> = (0..shards).map(|_| Arc::default()).collect();
    let bans = Arc::new(Bans::new(Clock::start()));
    let setup = BeaconSetup {
        first_index: FIRST,
        listener: 2,
        policy,
        max_beacons,
        longest_rest: LONGEST_REST,
        bans: bans.clone(),
        keys: Arc::new(Keys::derived(&MASTER)),
        clock: Clock::start(),
        seed: 7,
        distributions: Distributions::default(),
    };
    let own = sockets.into_iter().zip(shard_stats.iter().zip(&stats));
    let own = own.map(|(socket, (stats, beacon_stats))| BeaconShard {
        socket,
        reports: reports.clone(),
        stats: stats.clone(),
        beacon_stats: beacon_stats.clone(),
    });
    let shards = spawn(&setup, own.collect()).unwrap();
    Running { shards, shard_stats, bans, address, reports: receiver, stats }
}

#[test]
fn shards_whose_handles_are_dropped_end() {
    for Shard { requests, thread } in start(Policy::default(), 2).shards {
        drop(requests);
        wait_for_end(&thread);
    }
}

#[test]
fn requests_sent_together_are_answered_together() {
    let running = start(Policy::default(), 1);
    assert_answered_together(&running.shards[0].requests);
}

impl Running {
    /// Waits until accepting is paused for this reason, or is not paused.
    fn wait_for_pause(&self, paused: Option<PauseReason>) {
        let begun = Clock::start();
        while self.shard_stats[0].accepting.paused() != paused {
            assert!(begun.monotonic() < Span::from(PATIENCE), "{paused:?} never comes");
            std::thread::yield_now();
        }
    }

    /// Waits for the next event of a device for which `wanted` returns true.
    fn event(&mut self, wanted: impl Fn(&str, &Event) -> bool) -> (u64, SocketAddr, Event) {
        loop {
            let Fact { subject, event, .. } = self.reports.blocking_recv().expect("the shards run");
            if wanted(&subject.identity, &event) {
                assert_eq!(subject.listener, 2);
                return (subject.session, subject.address, event);
            }
        }
    }

    fn leave(&mut self, device: u64) -> Cause {
        let device = device_text(device);
        let leave =
            |identity: &str, event: &Event| identity == device && matches!(event, Event::Left(_));
        match self.event(leave).2 {
            Event::Left(verdict) => verdict.cause,
            other => panic!("{other:?}"),
        }
    }

    fn dropped(&self, reason: &str) -> u64 {
        let index = BeaconStats::REASONS.iter().position(|known| *known == reason).unwrap();
        self.stats.iter().map(|stats| stats.dropped[index].get()).sum()
    }

    fn sessions(&self) -> Page {
        let mut all = Page::default();
        for shard in &self.shards {
            let (reply, answer) = oneshot::channel();
            let filter = Filter::default();
            shard.requests.send(Request::Sessions { from: 0, limit: 100, filter, reply }).unwrap();
            all.sessions.extend(answer.blocking_recv().unwrap().sessions);
        }
        all
    }

    fn stop(mut self) {
        for shard in &self.shards {
            shard.requests.send(Request::Stop).unwrap();
        }
        while self.reports.blocking_recv().is_some() {}
        for shard in self.shards {
            shard.thread.join().unwrap();
        }
    }
}

/// A device with a socket of its own.
struct Client {
    device: Device,
    number: u64,
    keys: Keys,
    socket: UdpSocket,
    gateway: SocketAddr,
}

impl Client {
    fn new(gateway: SocketAddr, number: u64) -> Client {
        let keys = Keys::derived(&MASTER);
        let device = Device::new(number, 0x7777_0000 + number as u32);
        Client { device, number, keys, socket: socket(), gateway }
    }

    /// Returns the bytes of the next statement.
    fn statement(&mut self, leaving: bool) -> [u8; DATAGRAM] {
        let statement = Datagram::Statement(self.device.state(0, leaving));
        self.keys.of(self.number).unwrap().seal(&statement)
    }

    fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.gateway).unwrap();
    }

    fn receive(&self) -> (Reply, usize) {
        let mut bytes = [0; 2_000];
        let (length, from) = self.socket.recv_from(&mut bytes).unwrap();
        assert_eq!(from, self.gateway);
        let (datagram, tag) = Datagram::decode(&bytes[..length]).unwrap();
        assert!(self.keys.of(self.number).unwrap().proves(&datagram, &tag));
        match datagram {
            Datagram::Reply(answer) => (answer, length),
            other => panic!("{other:?}"),
        }
    }

    /// Sends statements until one is accepted; returns the bound.
    fn state_until_heard(&mut self, leaving: bool) -> Option<Span> {
        loop {
            let bytes = self.statement(leaving);
            self.send(&bytes);
            let (answer, length) = self.receive();
            assert!(length <= bytes.len(), "an answer is never longer than the statement");
            match self.device.handle(answer) {
                Heard::Latest { bound } => return bound,
                Heard::Again => {}
                Heard::Nothing => panic!("{answer:?}"),
            }
        }
    }

    /// Sends a statement, and one under the challenge, which is refused without an answer.
    fn state_until_refused(&mut self) {
        let bytes = self.statement(false);
        self.send(&bytes);
        let (answer, _) = self.receive();
        assert_eq!(self.device.handle(answer), Heard::Again);
        let bytes = self.statement(false);
        self.send(&bytes);
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_device_comes_online_moves_and_says_goodbye() {
    let mut running = start(Policy::standard(), 1);
    let mut client = Client::new(running.address, 0xd1);
    assert_eq!(client.state_until_heard(false), Some(Span::from_secs(30)));
    let (session, address, _) = running.event(|_, event| matches!(event, Event::Joined { .. }));
    assert_eq!(session >> 56, u64::from(FIRST));
    assert_eq!(address, client.socket.local_addr().unwrap());
    let before = address;
    client.socket = socket();
    client.state_until_heard(false);
    let (_, address, event) = running.event(|_, event| matches!(event, Event::Moved { .. }));
    assert_eq!(address, client.socket.local_addr().unwrap());
    assert!(matches!(event, Event::Moved { from } if from == before));
    let sessions = running.sessions().sessions;
    assert_eq!(sessions[0].identity, "00000000000000d1");
    assert_eq!(sessions.len(), 1);
    client.state_until_heard(true);
    assert_eq!(running.leave(0xd1), Cause::PeerClosed(CloseReason::Done));
    running.stop();
}

#[test]
fn datagrams_that_are_not_authentic_get_no_answer() {
    let mut running = start(Policy::standard(), 1);
    let mut client = Client::new(running.address, 1);
    client.state_until_heard(false);
    running.event(|_, event| matches!(event, Event::Joined { .. }));
    let good = client.statement(false);
    client.send(&good);
    client.receive();
    let stranger = socket();
    let mut forged = client.statement(false);
    forged[31] ^= 1;
    let mut of_other_device = client.statement(false);
    of_other_device[4] ^= 1;
    let mut answer = good;
    answer[0] = 0xb2;
    let attempts: [&[u8]; 7] =
        [&[], b"x", &good[..31], &[0xb1; 1_400], &forged, &of_other_device, &answer];
    for attempt in attempts {
        stranger.send_to(attempt, running.address).unwrap();
    }
    stranger.send_to(&good, running.address).unwrap();
    // Loopback keeps the order: once the replay is counted, the other datagrams were refused.
    while running.dropped("replayed") == 0 {
        client.state_until_heard(false);
    }
    stranger.set_nonblocking(true).unwrap();
    let error = stranger.recv_from(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(running.dropped("illegal"), 5);
    assert_eq!(running.dropped("wrong_tag"), 2);
    assert_eq!(running.dropped("replayed"), 1);
    running.stop();
}

#[test]
fn the_verdict_falls_at_the_bound_whichever_shard_received_the_statements() {
    let policy = Policy::new(Span::from_millis(300), Span::from_millis(100), 3).unwrap();
    let mut running = start(policy, 2);
    let mut shards = BTreeSet::new();
    for number in 0..8 {
        let mut client = Client::new(running.address, number);
        // From several addresses, so that both shards receive statements of each device.
        for _ in 0..8 {
            client.socket = socket();
            client.state_until_heard(false);
        }
    }
    let mut left = 8;
    while left > 0 {
        let (session, _, event) = running.event(|_, event| matches!(event, Event::Left(_)));
        let Event::Left(verdict) = event else { unreachable!() };
        assert_eq!(verdict.cause, Cause::Unknown);
        assert_eq!(verdict.due, verdict.last_heard + Span::from_millis(600));
        assert!(verdict.at >= verdict.due);
        shards.insert(session >> 56);
        left -= 1;
    }
    assert_eq!(shards.len(), 2, "devices belong to both shards");
    running.stop();
}

#[test]
fn operators_can_hold_kick_retune_and_drain() {
    let mut running = start(Policy::standard(), 1);
    let mut client = Client::new(running.address, 1);
    client.state_until_heard(false);
    let (session, ..) = running.event(|_, event| matches!(event, Event::Joined { .. }));
    let order = |running: &Running, session, order| {
        let (reply, answer) = oneshot::channel();
        let request = Request::Order { session, order, reply };
        running.shards[0].requests.send(request).unwrap();
        answer.blocking_recv().unwrap()
    };
    assert!(!order(&running, session + (1 << 24), Order::Release), "a session of another serial");
    assert!(order(&running, session, Order::Hold(Span::from_secs(60))));
    assert!(running.sessions().sessions[0].held_for_ms.is_some());
    assert!(order(&running, session, Order::Kick { stay_away: false, text: Box::default() }));
    assert_eq!(running.leave(1), Cause::Kicked);
    // The kicked device stays away for a minute.
    let mut client = Client::new(running.address, 2);
    client.state_until_heard(false);
    let policy = Policy::demanding();
    for command in [
        hub::HubCommand::Retune { listener: 0, policy: Policy::never() },
        hub::HubCommand::Retune { listener: 2, policy },
    ] {
        running.shards[0].requests.send(Request::Command(command)).unwrap();
    }
    assert_eq!(client.state_until_heard(false), Some(Span::from_secs(8)));
    let drain = hub::HubCommand::Drain { limit: Span::from_secs(30), reconnect_within: Span::ZERO };
    running.shards[0].requests.send(Request::Command(drain)).unwrap();
    assert_eq!(running.leave(2), Cause::Drained);
    running.stop();
}

#[test]
fn banned_devices_and_addresses_are_kept_out_until_the_ban_ends() {
    let mut running = start(Policy::standard(), 2);
    let hour = Span::from_secs(3_600);
    let (mut one, mut two) = (Client::new(running.address, 1), Client::new(running.address, 2));
    one.state_until_heard(false);
    two.state_until_heard(false);
    let wait = |running: &Running, dropped| {
        while running.dropped("banned") < dropped {
            std::thread::yield_now();
        }
    };
    let device = Banned::Identity(device_text(1).into());
    running.bans.set(std::slice::from_ref(&device), hour, "").unwrap();
    let last = one.statement(false);
    one.send(&last);
    assert_eq!(running.leave(1), Cause::Kicked, "its next statement ends it");
    let later = one.statement(false);
    one.send(&later);
    wait(&running, 2);
    assert!(two.state_until_heard(false).is_some(), "nobody has banned the other");
    assert_eq!(running.sessions().sessions.len(), 1);
    assert!(running.bans.lift(&device));
    // What was sent during the ban is refused for ever, and answered with a challenge.
    one.send(&later);
    assert_eq!(one.device.handle(one.receive().0), Heard::Again, "the first answer since the ban");
    assert!(one.state_until_heard(false).is_some());
    let here = Banned::Address("::ffff:127.0.0.1".parse::<IpAddr>().unwrap().into());
    running.bans.set(std::slice::from_ref(&here), hour, "").unwrap();
    for client in [&mut one, &mut two] {
        let bytes = client.statement(false);
        client.send(&bytes);
        assert_eq!(running.leave(client.number), Cause::Kicked);
    }
    let mut three = Client::new(running.address, 3);
    let bytes = three.statement(false);
    three.send(&bytes);
    wait(&running, 5);
    assert!(running.sessions().sessions.is_empty());
    assert!(running.bans.lift(&here));
    assert!(three.state_until_heard(false).is_some());
    assert_eq!(running.dropped("kicked"), 0);
    running.stop();
}

#[test]
fn a_stop_reports_the_end_of_each_device() {
    const DEVICES: u64 = 1_500;
    // Few facts find room on the way: the others wait.
    let mut running = start_with(Policy::standard(), 2, 2_000, 16);
    let mut shared = socket();
    for number in 0..DEVICES {
        let mut client = Client { socket: shared, ..Client::new(running.address, number) };
        client.state_until_heard(false);
        shared = client.socket;
    }
    for shard in &running.shards {
        shard.requests.send(Request::Stop).unwrap();
    }
    let (mut joined, mut left) = (BTreeSet::new(), BTreeSet::new());
    while let Some(Fact { subject, event, .. }) = running.reports.blocking_recv() {
        match event {
            Event::Joined { .. } => assert!(joined.insert(subject.session)),
            Event::Left(verdict) => {
                assert_eq!(verdict.cause, Cause::Drained);
                assert!(left.insert(subject.session));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(joined.len() as u64, DEVICES);
    assert_eq!(joined, left);
    running.shards.into_iter().for_each(|shard| shard.thread.join().unwrap());
}

#[test]
fn the_place_of_a_device_whose_leave_waits_admits_no_other() {
    let mut running = start_with(Policy::standard(), 1, 1, 1);
    let mut first = Client::new(running.address, 1);
    // The join takes the only room on the way, so that the leave waits.
    first.state_until_heard(false);
    first.state_until_heard(true);
    let mut second = Client::new(running.address, 2);
    running.wait_for_pause(Some(PauseReason::ControlPlane));
    second.state_until_refused();
    let begun = Clock::start();
    while running.dropped("full") == 0 {
        assert!(begun.monotonic() < Span::from(PATIENCE), "it is not refused");
        std::thread::yield_now();
    }
    assert_eq!(running.leave(1), Cause::PeerClosed(CloseReason::Done));
    running.wait_for_pause(None);
    second.state_until_heard(false);
    running.stop();
}

#[test]
fn a_full_listener_that_refuses_a_device_is_paused_until_there_is_room() {
    let mut running = start_with(Policy::standard(), 1, 1, 100);
    let mut first = Client::new(running.address, 1);
    first.state_until_heard(false);
    assert_eq!(running.shard_stats[0].accepting.paused(), None, "no device was refused");
    let mut second = Client::new(running.address, 2);
    second.state_until_refused();
    running.wait_for_pause(Some(PauseReason::BeaconLimit));
    first.state_until_heard(true);
    assert_eq!(running.leave(1), Cause::PeerClosed(CloseReason::Done));
    running.wait_for_pause(None);
    second.state_until_heard(false);
    running.stop();
}

#[test]
fn a_python_client_of_thirty_lines_works() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/outside/beacon.py");
    let text = std::fs::read_to_string(script).unwrap();
    assert!(text.lines().count() <= 36, "thirty lines and a header");
    let mut running = start(Policy::datacenter(), 1);
    let number = 0xfeed_u64;
    // The key is derived independently, as a device's maker would do it.
    let key = derived_key(number);
    let output = Process::new("python3")
        .arg(script)
        .args([running.address.ip().to_string(), running.address.port().to_string()])
        .args([device_text(number), key, "3".to_owned()])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if std::env::var_os("SYSTOLE_REQUIRE_TOOLS").is_none() => {
            println!("skipped: python3 does not start: {error}");
            return running.stop();
        }
        Err(error) => panic!("python3 does not start: {error}"),
    };
    let stdout = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(words, ["again", "heard", "heard", "heard", "goodbye"], "{stdout}{errors}");
    assert_eq!(running.leave(number), Cause::PeerClosed(CloseReason::Done));
    running.stop();
}

fn derived_key(device: u64) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&MASTER).unwrap();
    mac.update(b"systole beacon 1");
    mac.update(&device.to_le_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
