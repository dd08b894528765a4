//! Measures when the kernel ends plain sockets with a silent peer, depending on their options.
//!
//! Every row of the table is one socket between two namespaces; all rows run at once. Keepalive by
//! default is left out, since it takes 7,875 s.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Socket, TcpKeepalive, Type};
use systole_core::Span;
use systole_net::Clock;

use crate::judge::judge_death;
use crate::namespace::{Namespace, Workspace};
use crate::record::{Finding, seconds};
use crate::tools;
use crate::trouble::Trouble;

/// `TCP_RTO_MAX_MS` (linux/tcp.h, Linux 6.15), too new for the libc crate.
const TCP_RTO_MAX_MS: libc::c_int = 44;

sockopt_impl!(RtoMaxMs, SetOnly, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, u32);

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 2);
const PORT: u16 = 7400;
/// Time for which a socket without a timeout is watched.
const FOREVER_MS: u64 = 120_000;
/// Tolerated difference between computed and measured time, in addition to [`TOLERATED_PART`].
const TOLERANCE_MS: u64 = 500;
/// Tolerated part of the computed time, as a divisor: the kernel's longer timers are coarser, and a
/// long row is known to whole seconds only.
const TOLERATED_PART: u64 = 200;
/// The activity of a socket while the peer is silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Activity {
    /// Nothing; times count from the connection.
    Idles,
    /// Sends one byte; times count from then.
    Sends,
    /// Connects; times count from the start.
    Connects,
}

/// One row of the table: a socket with its options, and when the kernel must end it.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    activity: Activity,
    /// Seconds of idle time, seconds between probes, number of probes.
    keepalive: Option<(u64, u64, u32)>,
    user_timeout_ms: Option<u64>,
    rto_max_ms: Option<u32>,
    /// The computed time of the socket's end; `None`: never.
    dies_ms: Option<u64>,
}

const PLAIN: Row = Row {
    name: "one lost send, defaults",
    activity: Activity::Sends,
    keepalive: None,
    user_timeout_ms: None,
    rto_max_ms: None,
    dies_ms: Some(938_000),
};

const fn kept_alive(name: &'static str, timeout_ms: u64, dies_ms: u64) -> Row {
    let keepalive = Some((1, 11, 3));
    let (user_timeout_ms, dies_ms) = (Some(timeout_ms), Some(dies_ms));
    Row { name, activity: Activity::Idles, keepalive, user_timeout_ms, dies_ms, ..PLAIN }
}

const fn sending(name: &'static str, timeout_ms: u64, dies_ms: u64) -> Row {
    Row { name, user_timeout_ms: Some(timeout_ms), dies_ms: Some(dies_ms), ..PLAIN }
}

const ROWS: [Row; 12] = [
    Row {
        name: "keepalive 5/3/3, idle",
        activity: Activity::Idles,
        keepalive: Some((5, 3, 3)),
        dies_ms: Some(14_300),
        ..PLAIN
    },
    kept_alive("keepalive 1/11/3, user timeout 5 s, idle", 5_000, 12_100),
    kept_alive("keepalive 1/11/3, user timeout 12.5 s, idle", 12_500, 23_100),
    kept_alive("keepalive 1/11/3, user timeout 30 s, idle", 30_000, 34_300),
    PLAIN,
    sending("one lost send, user timeout 3 s", 3_000, 3_400),
    sending("one lost send, user timeout 10 s", 10_000, 10_600),
    sending("one lost send, user timeout 30 s", 30_000, 30_600),
    Row {
        name: "user timeout 5 s alone, idle",
        activity: Activity::Idles,
        user_timeout_ms: Some(5_000),
        dies_ms: None,
        ..PLAIN
    },
    Row {
        name: "connect into silence, defaults",
        activity: Activity::Connects,
        dies_ms: Some(134_000),
        ..PLAIN
    },
    Row {
        name: "connect into silence, user timeout 5 s",
        activity: Activity::Connects,
        user_timeout_ms: Some(5_000),
        dies_ms: Some(5_000),
        ..PLAIN
    },
    Row {
        name: "one lost send, retransmission at most 1 s apart",
        rto_max_ms: Some(1_000),
        dies_ms: Some(15_000),
        ..PLAIN
    },
];

/// Measures all rows that last from `from_ms` to below `to_ms`, in parallel.
pub(crate) fn measure((from_ms, to_ms): (u64, u64), clock: Clock) -> Result<Vec<Finding>, Trouble> {
    let place = Workspace::new()?;
    let (near, far) = (place.namespace("near")?, place.namespace("far")?);
    far.ip(&[
        &format!("link add eth0 type veth peer name eth0 netns {}", near.name()),
        &format!("addr add {FAR}/24 dev eth0"),
        "link set eth0 up",
    ])?;
    near.ip(&[&format!("addr add {NEAR}/24 dev eth0"), "link set eth0 up"])?;
    let doing = Trouble::while_doing("a plain socket");
    let listener = far.enter(|| std::net::TcpListener::bind((FAR, PORT)))?.map_err(&doing)?;
    let mut sockets = Vec::new();
    let mut peers = Vec::new();
    for row in ROWS.into_iter().filter(|row| (from_ms..to_ms).contains(&row.lasts_ms())) {
        let socket = row.socket(&near)?;
        if row.activity != Activity::Connects {
            socket.connect(&SocketAddr::from((FAR, PORT)).into()).map_err(&doing)?;
            // Kept open: a closed socket would send FIN.
            peers.push(listener.accept().map_err(&doing)?);
        }
        sockets.push((row, socket, clock.monotonic()));
    }
    silence(&far)?;
    let findings: Result<Vec<Finding>, _> = thread::scope(|scope| {
        let threads: Vec<_> = sockets
            .into_iter()
            .map(|(row, socket, since)| scope.spawn(move || row.watch(socket, since, clock)))
            .collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    drop(peers);
    findings.map_err(|_| Trouble::new("a thread that watched a plain socket ended"))
}

/// Drops everything that arrives at `far`.
fn silence(far: &Namespace) -> Result<(), Trouble> {
    let rules = "
        table ip lab {
            chain input { type filter hook input priority 0; policy drop; }
        }
    ";
    far.enter(|| tools::run(Command::new("nft").args(["-f", "-"]), rules))?.map(drop)
}

impl Row {
    fn lasts_ms(&self) -> u64 {
        self.dies_ms.unwrap_or(FOREVER_MS)
    }

    fn socket(&self, near: &Namespace) -> Result<Socket, Trouble> {
        let doing = Trouble::while_doing(self.name);
        let socket = near.enter(|| Socket::new(Domain::IPV4, Type::STREAM, None))?;
        let socket = socket.map_err(&doing)?;
        if let Some((idle, interval, probes)) = self.keepalive {
            let keepalive = TcpKeepalive::new()
                .with_time(Span::from_secs(idle).into())
                .with_interval(Span::from_secs(interval).into())
                .with_retries(probes);
            socket.set_tcp_keepalive(&keepalive).map_err(&doing)?;
        }
        if let Some(ms) = self.user_timeout_ms {
            socket.set_tcp_user_timeout(Some(Span::from_millis(ms).into())).map_err(&doing)?;
        }
        if let Some(ms) = self.rto_max_ms {
            setsockopt(&socket, RtoMaxMs, &ms).map_err(|error| doing(error.into()))?;
        }
        Ok(socket)
    }

    /// Waits until the kernel ends the socket, and judges the time.
    fn watch(&self, mut socket: Socket, connected: Span, clock: Clock) -> Finding {
        let began = clock.monotonic();
        let since = if self.activity == Activity::Idles { connected } else { began };
        let outcome = match self.activity {
            Activity::Connects => socket.connect(&SocketAddr::from((FAR, PORT)).into()),
            Activity::Sends => socket.write_all(&[0]).and_then(|()| self.read(&mut socket)),
            Activity::Idles => self.read(&mut socket),
        };
        let after_ms = clock.monotonic().less(since).as_millis();
        let (verdict, died_ms) = match outcome {
            Ok(()) => ("answered".to_owned(), Some(after_ms)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => ("alive".to_owned(), None),
            Err(error) => (error.kind().to_string(), Some(after_ms)),
        };
        let tolerance_ms = TOLERANCE_MS + self.lasts_ms() / TOLERATED_PART;
        let when = self.dies_ms.map_or("never".to_owned(), seconds);
        Finding {
            expected: format!("{}: {when}", self.name),
            verdict,
            confidence: String::new(),
            detail: String::new(),
            after_ms: died_ms,
            bound_ms: self.dies_ms.map_or(0, |ms| ms + tolerance_ms),
            score: judge_death(self.dies_ms, died_ms, tolerance_ms),
            first: false,
            condemned: None,
        }
    }

    /// Reads until the kernel ends the socket, or until the longest wait has passed.
    fn read(&self, socket: &mut Socket) -> std::io::Result<()> {
        let longest = self.dies_ms.map_or(FOREVER_MS, |ms| ms + ms / 10 + 10 * TOLERANCE_MS);
        socket.set_read_timeout(Some(Span::from_millis(longest).into()))?;
        socket.read(&mut [0]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Step, scenarios};

    #[test]
    fn each_row_is_measured_by_one_scenario() {
        let steps: Vec<&Step> = scenarios().flat_map(|scenario| scenario.steps).collect();
        for row in ROWS {
            let measures = |step: &&&Step| {
                matches!(step, Step::Arithmetic { from_ms, to_ms }
                    if (*from_ms..*to_ms).contains(&row.lasts_ms()))
            };
            assert_eq!(steps.iter().filter(measures).count(), 1, "{}", row.name);
        }
    }
}
