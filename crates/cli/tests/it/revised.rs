//! Tests of revised verdicts: what is learned after a verdict from the peer's return, from its
//! siblings, and from links lost with it.
//!
//! A peer is lost when a filter on its socket drops what arrives, acknowledgements included: the
//! gateway sees this as a machine that has vanished.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use systole_core::wire::{Account, Beat, BootId, Codec, Decoder, Frame, Hello, InstanceId, Saw};

use crate::gateway::{Events, Gateway};
use crate::program::SOON;

/// A configuration whose bound is long enough to detect an absent kernel, which takes a second.
const CONFIG: &str = r#"
shards = 1
[policy]
idle = "1s"
interval = "500ms"
probes = 3
[[listener]]
address = "127.0.0.1:0"
shortest_bound = "100ms"
[admin]
address = "127.0.0.1:0"
"#;

/// Interval of the pings of a living peer; well below the time before a probe.
const PING_INTERVAL: Duration = Duration::from_millis(50);

/// A classic packet filter that drops everything: "return 0".
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(6, 0, 0, 0)];

/// A client whose handshake is complete.
struct Peer {
    stream: TcpStream,
    session: u64,
}

/// A peer that goes on sending until dropped.
struct Living(Sender<()>);

/// The address, identity and boot id of a client.
struct ClientId {
    /// The last two bytes of the address, of which the first selects the network.
    host: [u8; 2],
    identity: &'static str,
    boot: u8,
}

const ADA: ClientId = ClientId { host: [1, 1], identity: "ada", boot: 1 };
const BOB: ClientId = ClientId { host: [2, 1], identity: "bob", boot: 1 };

impl ClientId {
    fn connect(&self, gateway: &Gateway, account: Option<Account>) -> Peer {
        let socket = self.socket(gateway.address("native")).expect("the gateway listens");
        let mut stream = TcpStream::from(socket);
        let (boot_id, instance_id) = (BootId([self.boot; 16]), InstanceId([self.boot; 16]));
        let identity = self.identity;
        let (asks, resume, capabilities, token) = (None, None, 0, &[][..]);
        send(
            &mut stream,
            Frame::Hello(Hello {
                asks,
                resume,
                account,
                capabilities,
                boot_id,
                instance_id,
                identity,
                token,
            }),
        );
        let session = welcomed(&mut stream);
        Peer { stream, session }
    }

    fn socket(&self, gateway: SocketAddr) -> io::Result<Socket> {
        let [network, host] = self.host;
        let own = SocketAddr::from((Ipv4Addr::new(127, 0, network, host), 0));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&own.into())?;
        socket.connect(&gateway.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(socket)
    }
}

impl Peer {
    /// From now on the peer's kernel receives nothing, and so acknowledges nothing.
    fn lose(&self) {
        SockRef::from(&self.stream).attach_filter(&DROP_ALL).expect("a legal filter");
    }

    fn live(self) -> Living {
        self.go_on_sending(Frame::Ping(Beat::bare(0)))
    }

    fn go_on_sending(mut self, frame: Frame<'static>) -> Living {
        let (sender, stop) = channel();
        thread::spawn(move || {
            while stop.recv_timeout(PING_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                send(&mut self.stream, frame);
            }
        });
        Living(sender)
    }

    fn id(&self) -> String {
        format!("{:016x}", self.session)
    }

    /// Returns the account of this link that the client gives when it returns.
    fn account(&self, saw: Saw, ended_ms: u32) -> Account {
        let (silent_ms, absent_ms, suspended_ms) = (0, 0, 0);
        Account { session: self.session, saw, silent_ms, ended_ms, absent_ms, suspended_ms }
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        // The thread has ended already if the gateway has.
        let _ = self.0.send(());
    }
}

fn send(stream: &mut TcpStream, frame: Frame<'_>) {
    let mut bytes = Vec::new();
    Codec::Native.encode(&frame, &mut bytes);
    stream.write_all(&bytes).expect("the gateway reads");
}

fn welcomed(stream: &mut TcpStream) -> u64 {
    let mut decoder = Decoder::new(Codec::Native, 65_536);
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).expect("a welcome");
        if let Some(frame) = decoder.next(&mut &byte[..]).expect("legal") {
            let Frame::Welcome(welcome) = frame else { panic!("{frame:?}") };
            return welcome.session;
        }
    }
}

/// Reads events up to the one for which `last` holds, and returns all of them.
fn until(events: &mut Events, mut last: impl FnMut(&str, &Value) -> bool) -> Vec<(String, Value)> {
    let mut seen = Vec::new();
    loop {
        let event = events.next();
        let is_last = last(&event.kind, &event.data);
        seen.push((event.kind, event.data));
        if is_last {
            return seen;
        }
    }
}

/// Returns the events of this kind.
fn all<'a>(seen: &'a [(String, Value)], kind: &str) -> Vec<&'a Value> {
    seen.iter().filter(|(known, _)| known == kind).map(|(_, data)| data).collect()
}

/// Returns a predicate that holds for the `count`th event of this kind.
fn nth(kind: &'static str, count: usize) -> impl FnMut(&str, &Value) -> bool {
    let mut seen = 0;
    move |known, _| {
        seen += usize::from(known == kind);
        seen == count
    }
}

/// Waits until `count` sessions have ended, and checks that the cause is a lost path.
fn assert_lost(events: &mut Events, count: usize) {
    let seen = until(events, nth("leave", count));
    for leave in all(&seen, "leave") {
        assert_eq!(leave["cause"], "path_lost", "{leave}");
        assert_eq!((&leave["direction"], &leave["scope"]), (&"both".into(), &"unknown".into()));
    }
    assert!(all(&seen, "verdict_revised").is_empty(), "{seen:?}");
}

#[test]
fn a_verdict_is_revised_once_when_its_peer_returns() {
    // Each client has a network of its own, since otherwise this would be an outage.
    let gateway = Gateway::start("revised-return", CONFIG);
    let mut events = gateway.events(None);
    let (ada, bob) = (ADA.connect(&gateway, None), BOB.connect(&gateway, None));
    let bert = ClientId { host: [3, 1], identity: "bert", boot: 1 }.connect(&gateway, None);
    [&ada, &bob, &bert].into_iter().for_each(Peer::lose);
    assert_lost(&mut events, 3);

    // One process received our bytes all the time, one machine restarted, one link had been reset.
    let unheard = || Some(ada.account(Saw::Unheard, 0));
    let reset = || Some(bert.account(Saw::Reset, 2_000));
    let rebooted = ClientId { boot: 2, ..BOB };
    let _ada = ADA.connect(&gateway, unheard());
    let _bob = rebooted.connect(&gateway, None);
    let bert_now = ClientId { host: [4, 1], identity: "bert", boot: 1 };
    let _bert = bert_now.connect(&gateway, reset());
    let seen = until(&mut events, nth("verdict_revised", 3));
    let [first, second, third] = all(&seen, "verdict_revised")[..] else { panic!("{seen:?}") };
    assert_eq!((&first["session"], &first["identity"]), (&ada.id().into(), &"ada".into()));
    assert_eq!((&first["from"], &first["to"]), (&"path_lost".into(), &"path_lost".into()));
    assert_eq!((&first["direction"], &first["scope"]), (&"inbound".into(), &"unknown".into()));
    assert_eq!((&second["session"], &second["to"]), (&bob.id().into(), &"peer_rebooted".into()));
    assert_eq!((&third["session"], &third["to"]), (&bert.id().into(), &"middlebox_reset".into()));
    assert!(third["idle_ms"].is_u64(), "{third}");

    // The same account changes nothing the second time.
    let _again = [ADA.connect(&gateway, unheard()), bert_now.connect(&gateway, reset())];
    let _rebooted = ClientId { boot: 3, ..BOB }.connect(&gateway, None);
    let _last = ClientId { host: [5, 1], identity: "last", boot: 1 }.connect(&gateway, None);
    let seen = until(&mut events, |kind, data| kind == "join" && data["identity"] == "last");
    assert!(all(&seen, "verdict_revised").is_empty(), "{seen:?}");

    let page = gateway.get("/api/v1/verdicts?cause=path_lost");
    let [kept] = &page["verdicts"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&kept["session"], &kept["direction"]), (&ada.id().into(), &"inbound".into()));
    let why = gateway.get(&format!("/api/v1/sessions/{}/why", bob.id()));
    assert_eq!(why["verdict"]["cause"], "peer_rebooted");
    assert_eq!(why["verdict"]["provisional"], false);
    let before = &why["verdict"]["revised_from"];
    assert_eq!((&before["cause"], &before["direction"]), (&"path_lost".into(), &"both".into()));
    assert_eq!(before["because"], "it came back with another boot id");
    assert_eq!(gateway.metric("systole_verdicts_revised_total"), 3.0);
    let series = r#"systole_verdicts_revised_total{from="path_lost",to="peer_rebooted"}"#;
    assert_eq!(gateway.metric(series), 1.0);
    assert_eq!(gateway.metric(r#"systole_verdicts_total{cause="path_lost"}"#), 3.0);
}

#[test]
fn peers_lost_together_are_one_outage_until_half_of_them_return() {
    const LOST: u8 = 6;
    let gateway = Gateway::start("revised-outage", CONFIG);
    let mut events = gateway.events(None);
    let client_id = |number| ClientId { host: [0, 20 + number], identity: "", boot: 1 };
    let _living = [1, 2]
        .map(|host| ClientId { host: [0, host], ..client_id(0) }.connect(&gateway, None).live());
    let mut peers: Vec<Peer> =
        (0..LOST).map(|number| client_id(number).connect(&gateway, None)).collect();
    // All are heard at the same time, so their verdicts fall at the same time.
    for peer in &mut peers {
        send(&mut peer.stream, Frame::Ping(Beat::bare(0)));
        peer.lose();
    }
    let mut missing = (LOST, LOST, 1);
    let seen = until(&mut events, |kind, _| {
        missing.0 -= u8::from(kind == "leave");
        missing.1 -= u8::from(kind == "verdict_revised");
        missing.2 -= u8::from(kind == "outage");
        missing == (0, 0, 0)
    });
    for revised in all(&seen, "verdict_revised") {
        assert_eq!((&revised["to"], &revised["scope"]), (&"path_lost".into(), &"many".into()));
    }
    let [outage] = all(&seen, "outage")[..] else { panic!("{seen:?}") };
    assert_eq!(outage["network"], "127.0.0.0/24");
    assert_eq!((&outage["listener"], &outage["of_online"]), (&"native".into(), &8.into()));
    assert_eq!(gateway.metric("systole_outages_total"), 1.0);

    let _back: Vec<Peer> = (0..3).map(|number| client_id(number).connect(&gateway, None)).collect();
    let seen = until(&mut events, |kind, _| kind == "outage_over");
    assert!(all(&seen, "outage").is_empty() && all(&seen, "verdict_revised").is_empty());
    let [over] = all(&seen, "outage_over")[..] else { panic!("{seen:?}") };
    // Counted at the end of the outage: a verdict or two may fall after its first event.
    assert_eq!((&over["affected"], &over["hosts"]), (&LOST.into(), &LOST.into()));
    assert_eq!((&over["returned"], &over["recovered"]), (&3.into(), &true.into()));
    assert_eq!(over["outage"], outage["outage"]);
}

#[test]
fn a_lost_link_with_a_living_sibling_has_the_scope_flow() {
    let gateway = Gateway::start("revised-flow", CONFIG);
    let mut events = gateway.events(None);
    let client_id = || ClientId { host: [0, 31], identity: "", boot: 1 };
    let _sibling = client_id().connect(&gateway, None).live();
    let lost = client_id().connect(&gateway, None);
    lost.lose();
    assert_lost(&mut events, 1);
    let seen = until(&mut events, |kind, _| kind == "verdict_revised");
    assert!(all(&seen, "outage").is_empty(), "{seen:?}");
    let (_, revised) = seen.last().unwrap();
    assert_eq!((&revised["session"], &revised["to"]), (&lost.id().into(), &"path_lost".into()));
    assert_eq!((&revised["direction"], &revised["scope"]), (&"both".into(), &"flow".into()));
    assert_eq!(revised["confidence"], "high");
    let why = gateway.get(&format!("/api/v1/sessions/{}/why", lost.id()));
    assert_eq!(why["verdict"]["scope"], "flow");
}

/// The gateway sends nothing to a peer that only sends PONGs, so nothing shows that anything would
/// reach its host.
#[test]
fn a_lost_link_whose_sibling_is_only_heard_has_no_scope() {
    let gateway = Gateway::start("revised-heard", CONFIG);
    let mut events = gateway.events(None);
    let heard = || ClientId { host: [0, 32], identity: "", boot: 1 };
    let _heard = heard().connect(&gateway, None).go_on_sending(Frame::Pong(Beat::bare(0)));
    let lost = heard().connect(&gateway, None);
    lost.lose();
    assert_lost(&mut events, 1);

    // A later loss, whose scope is found, shows that the first one's question was answered.
    let reached = || ClientId { host: [9, 33], identity: "", boot: 1 };
    let _reached = reached().connect(&gateway, None).live();
    let later = reached().connect(&gateway, None);
    later.lose();
    let seen = until(&mut events, |kind, _| kind == "verdict_revised");
    assert_eq!(seen.last().unwrap().1["session"], later.id(), "{seen:?}");
    let why = gateway.get(&format!("/api/v1/sessions/{}/why", lost.id()));
    assert_eq!(why["verdict"]["scope"], "unknown", "{why}");
}
