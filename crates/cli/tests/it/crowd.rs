//! Tests of the admin interface among clients that send half a request, or read no answer.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use systole_core::Span;
use systole_net::Clock;

use crate::gateway::{Gateway, connect_with_timeout, unhurried, wait};

/// Strangers of each kind: more than there are places of any kind.
const EACH: usize = 160;

/// Pause between two rounds of the crowd, in each of which [`PER_ROUND`] strangers come back: 100
/// connections a second. A place is then held for a third of a second at least, which is enough
/// for a health check even on a machine that is busy with other tests.
const ROUND: Duration = Duration::from_millis(20);

const PER_ROUND: u64 = 2;

/// How long a health check may take.
const HEALTHY: Span = Span::from_secs(1);

/// How much the gateway may grow: 128 connections of 128 KiB.
const GROWTH: u64 = 16 << 20;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// What a stranger does on its connection.
#[derive(Clone, Copy)]
enum Kind {
    /// Sends requests and reads no answer.
    Pipelines,
    /// Sends half of a head.
    HalfHead,
    /// Sends a head and no body.
    NoBody,
    /// Subscribes to the events and reads none.
    Subscribes,
}

impl Kind {
    fn opening(self) -> String {
        match self {
            Kind::Pipelines => "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20),
            Kind::HalfHead => "GET /healthz HTTP/1.1\r\nHo".to_owned(),
            Kind::NoBody => "PUT /api/v1/log HTTP/1.1\r\nContent-Length: 99\r\n\r\n".to_owned(),
            Kind::Subscribes => "GET /api/v1/events HTTP/1.1\r\n\r\n".to_owned(),
        }
    }
}

/// Strangers that misbehave in a thread of their own until they are dismissed, and come back when
/// they are disconnected.
struct Crowd {
    dismiss: Sender<()>,
    thread: JoinHandle<u64>,
}

impl Crowd {
    /// Assembles a crowd; returns when each of it has been connected once, and the gateway has seen
    /// all of them.
    fn assemble(gateway: &Gateway) -> Crowd {
        let admin = gateway.admin();
        let (dismiss, dismissed) = channel();
        let (assembled, all) = channel();
        let thread = thread::spawn(move || misbehave(admin, &dismissed, &assembled));
        all.recv().expect("the crowd comes");
        wait("the end of the rush", || (gateway.status("/healthz") == 200).then_some(()));
        Crowd { dismiss, thread }
    }

    /// Dismisses the crowd; returns how often one of it came back.
    fn dismiss(self) -> u64 {
        self.dismiss.send(()).expect("it is there");
        self.thread.join().expect("it did not panic")
    }
}

fn misbehave(admin: SocketAddr, dismissed: &Receiver<()>, assembled: &Sender<()>) -> u64 {
    let kinds = [Kind::Pipelines, Kind::HalfHead, Kind::NoBody, Kind::Subscribes];
    // Half of them come from the address of the health checks, the others from eight more.
    let source = |n: usize| {
        Ipv4Addr::new(127, 0, 0, if n.is_multiple_of(2) { 1 } else { 2 + (n % 8) as u8 })
    };
    let mut crowd: Vec<_> =
        (0..EACH).flat_map(|n| kinds.map(|kind| (kind, source(n), None::<TcpStream>))).collect();
    let (mut came, size) = (0, crowd.len() as u64);
    while let Err(RecvTimeoutError::Timeout) = dismissed.recv_timeout(ROUND) {
        let mut returning = 0;
        for (kind, source, stream) in &mut crowd {
            if stream.as_mut().is_some_and(|stream| is_connected(*kind, stream)) {
                continue;
            }
            *stream = None;
            // All come at once, and then return at their pace.
            if came < size || returning < PER_ROUND {
                returning += 1;
                came += 1;
                *stream = come(admin, *source, *kind).ok();
                if came == size {
                    assembled.send(()).expect("the test waits");
                }
            }
        }
        crowd.rotate_left(7);
    }
    came - size
}

/// Connects from `source`, and says the opening of `kind`.
fn come(admin: SocketAddr, source: Ipv4Addr, kind: Kind) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Small, so that one who does not read is soon felt.
    socket.set_recv_buffer_size(4_096)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&admin.into())?;
    let mut stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    stream.write_all(kind.opening().as_bytes())?;
    Ok(stream)
}

/// Goes on as `kind` does; returns whether the gateway has not disconnected the stranger yet.
fn is_connected(kind: Kind, stream: &mut TcpStream) -> bool {
    let going_on = match kind {
        Kind::Pipelines => stream.write(kind.opening().as_bytes()),
        Kind::HalfHead | Kind::NoBody => stream.peek(&mut [0]),
        // Lines between requests are legal, and show whether the connection stands.
        Kind::Subscribes => stream.write(b"\r\n"),
    };
    match going_on {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Lets sessions come and go, whose events fill the buffers of each subscriber.
fn make_events(gateway: &Gateway) {
    for _ in 0..20 {
        let mut clients: Vec<TcpStream> = (0..20).map(|_| gateway.connect("line")).collect();
        for client in &mut clients {
            client.write_all(b"ping\n").expect("it is open");
            assert_eq!(client.read(&mut [0; 16]).expect("an answer"), 5);
        }
    }
}

fn resident_bytes(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.process()));
    let status = status.expect("the gateway runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    let kib = line.trim().split(' ').next().expect("a number");
    1_024 * kib.parse::<u64>().expect("a number")
}

/// Asks for the health on a fresh connection every 50 ms, 60 times; returns the longest time that
/// an answer took and the largest size of the process. Calls `also` before each.
fn watch(gateway: &Gateway, mut also: impl FnMut()) -> (Span, u64) {
    let (mut slowest, mut largest) = (Span::ZERO, 0);
    for _ in 0..60 {
        also();
        let clock = Clock::start();
        assert_eq!(gateway.status("/healthz"), 200);
        slowest = slowest.max(clock.monotonic());
        largest = largest.max(resident_bytes(gateway));
        thread::park_timeout(Duration::from_millis(50));
    }
    (slowest, largest)
}

#[test]
fn health_is_answered_among_strangers_and_memory_is_flat() {
    let mut gateway = Gateway::start("strangers", &unhurried());
    make_events(&gateway);
    let before = resident_bytes(&gateway);
    let crowd = Crowd::assemble(&gateway);
    let mut rounds = 0;
    let (slowest, largest) = watch(&gateway, || {
        rounds += 1;
        if rounds % 20 == 0 {
            make_events(&gateway);
        }
    });
    // All places were taken by subscribers that do not read the events that there were.
    wait("a place for one that reads", || {
        let mut stream = connect_with_timeout(gateway.admin()).ok()?;
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\n\r\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        line.contains(" 200 ").then_some(())
    });
    let returned = crowd.dismiss();
    let reason =
        |name: &str| gateway.metric(&format!("systole_admin_ended_total{{reason=\"{name}\"}}"));
    let displaced = reason("displaced") + reason("address_limit");
    println!("slowest {slowest}, {before} to {largest} bytes, {returned} returned");
    assert!(returned > 100 && displaced > 100.0, "they are displaced: {returned}, {displaced}");
    assert!(reason("subscriber_displaced") + reason("write_timeout") > 0.0, "and do not stay");
    assert!(slowest < HEALTHY, "{slowest}");
    assert!(largest < before + GROWTH, "{before} to {largest}");
    gateway.end();
}

#[test]
fn who_has_the_token_gets_through_a_crowd_of_strangers() {
    let config = unhurried().replace("[admin]\n", &format!("[admin]\ntoken = \"{TOKEN}\"\n"));
    let mut gateway = Gateway::start("strangers-token", &config);
    let crowd = Crowd::assemble(&gateway);
    let authorization = format!("Authorization: Bearer {TOKEN}\r\n");
    let mut kept = BufReader::new(connect_with_timeout(gateway.admin()).expect("it listens"));
    let (slowest, _) = watch(&gateway, || {
        // On one connection throughout, which no stranger displaces.
        let request = format!("GET /api/v1/listeners HTTP/1.1\r\n{authorization}\r\n");
        kept.get_mut().write_all(request.as_bytes()).expect("the connection is kept");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(kept.read_line(&mut head).expect("an answer") > 0, "closed: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.expect("a length").parse().expect("a number")];
        kept.read_exact(&mut body).expect("the whole answer");
        // And on a new one.
        let head = format!("GET /api/v1/sessions\n{authorization}");
        let (status, answer) = gateway.request(&head, "").expect("an answer");
        assert_eq!(status, 200, "{answer}");
    });
    let returned = crowd.dismiss();
    assert!(returned > 100 && slowest < HEALTHY, "{returned} returned, slowest {slowest}");
    gateway.end();
}
