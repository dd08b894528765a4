//! The links of one load worker: connect, handshake, send when due, answer, detect the end.

mod traffic;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use systole_net::tls::ClientTls;
use systole_net::transport::Tls;
use systole_net::{Clock, address};

use super::codec::{self, Codec, Reader};
use super::control::{Connect, Peer, Report, Verdict};
use super::secure;
use super::talk::Talk;

/// Number of source addresses, 127.0.0.2 to 127.0.0.251, so that none runs out of ports.
const SOURCES: usize = 250;
/// The longest time that a histogram distinguishes: a minute.
const MAX_TIME_NS: u64 = 60_000_000_000;
/// Significant digits of a histogram: quantiles are right to one in a thousand.
const DIGITS: u8 = 3;
/// Size of the read buffer: several of the longest messages.
const BUFFER: usize = 16 * 1024;

/// All links of a worker, the loud ones first.
pub(crate) struct Links {
    clock: Clock,
    epoll: OwnedFd,
    how: Connect,
    tls: Option<ClientTls>,
    boot_id: [u8; 16],
    instance_id: [u8; 16],
    links: Vec<Link>,
    tally: Tally,
    drive: Drive,
    /// Links below this index send messages without pause.
    data: usize,
    talk: Option<Talk>,
    /// Links from this index on are silent.
    loud: usize,
    rtt: Histogram<u64>,
    report: Report,
    reported_ns: u64,
    turned_ns: u64,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

/// The load that the links generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drive {
    Idle,
    /// Heartbeat number `next` since `base_ns` belongs to link `next % links`.
    Pace {
        base_ns: u64,
        period_ns: u64,
        next: u64,
    },
    Loop {
        active: usize,
    },
}

/// The link that talks.
const TALKER: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkStage {
    Connecting,
    /// In the handshake of TLS.
    Securing,
    Greeting,
    Up,
    Gone,
}

struct Link {
    stream: Option<TcpStream>,
    tls: Option<Box<Tls>>,
    phase: LinkStage,
    silent: bool,
    seq: u8,
    /// Time at which the unanswered heartbeat was sent.
    asked_ns: Option<u64>,
    last_sent_ns: u64,
    reader: Reader,
}

#[derive(Debug, Default)]
struct Tally {
    up: usize,
    under_way: usize,
    failed: usize,
    error: Option<String>,
}

impl Links {
    pub(crate) fn new(epoll: OwnedFd) -> io::Result<Links> {
        let nothing = Connect {
            target: String::new(),
            codec: Codec::Line,
            first: 0,
            links: 0,
            peer: Peer::Gateway,
            tls: false,
            at_once: false,
        };
        Ok(Links {
            clock: Clock::start(),
            epoll,
            how: nothing,
            tls: None,
            boot_id: systole_net::identity::boot_id().0,
            instance_id: systole_net::identity::instance_id()?.0,
            links: Vec::new(),
            tally: Tally::default(),
            drive: Drive::Idle,
            data: 0,
            talk: None,
            loud: 0,
            rtt: histogram(),
            report: Report::default(),
            reported_ns: 0,
            turned_ns: 0,
            buffer: vec![0; BUFFER],
            out: Vec::with_capacity(BUFFER),
        })
    }

    pub(crate) fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    /// Records one turn of the worker's loop.
    pub(crate) fn mark_turn(&mut self) {
        let now = self.now();
        self.report.gap_ns = self.report.gap_ns.max(now.saturating_sub(self.turned_ns));
        self.turned_ns = now;
    }

    /// Sets what to open; [`Links::open_more`] opens it.
    pub(crate) fn begin(&mut self, how: Connect) -> io::Result<()> {
        address::parse(&how.target).map_err(io::Error::other)?;
        self.links.reserve_exact(how.links);
        self.loud = how.links;
        self.tls = how.tls.then(secure::client).transpose()?;
        self.how = how;
        Ok(())
    }

    /// Starts connects until `most` are under way or all have been started.
    pub(crate) fn open_more(&mut self, most: usize) {
        let most = if self.how.at_once { usize::MAX } else { most };
        while self.tally.under_way < most && self.links.len() < self.how.links {
            let index = self.links.len();
            let opened = self.open(index);
            let phase = if opened.is_ok() { LinkStage::Connecting } else { LinkStage::Gone };
            let stream = match opened {
                Ok(stream) => {
                    self.tally.under_way += 1;
                    Some(stream)
                }
                Err(error) => {
                    self.fail(&error);
                    None
                }
            };
            self.links.push(Link {
                stream,
                tls: None,
                phase,
                silent: false,
                seq: 0,
                asked_ns: None,
                last_sent_ns: 0,
                reader: Reader::default(),
            });
        }
    }

    /// Returns the links up, the links failed, and whether these are all.
    pub(crate) fn connected(&self) -> (usize, usize, bool) {
        let Tally { up, failed, .. } = self.tally;
        (up, failed, up + failed >= self.how.links)
    }

    /// Takes the first error.
    pub(crate) fn take_error(&mut self) -> Option<String> {
        self.tally.error.take()
    }

    pub(crate) fn pace(&mut self, period_ns: u64) {
        self.drive = Drive::Pace { base_ns: self.now(), period_ns: period_ns.max(1), next: 0 };
    }

    pub(crate) fn closed_loop(&mut self, active: usize) {
        self.drive = Drive::Loop { active };
        for index in 0..active.min(self.loud) {
            if self.links[index].asked_ns.is_none() {
                self.ping(index);
            }
        }
    }

    /// Lets the first `links` links send messages without pause from now on.
    pub(crate) fn send_data(&mut self, links: usize) {
        self.data = links.min(self.loud);
        for index in 0..self.data {
            // An unanswered heartbeat starts the messages with its answer.
            if self.links[index].asked_ns.is_none() {
                self.send_message(index);
            }
        }
    }

    pub(crate) fn idle(&mut self) {
        self.drive = Drive::Idle;
    }

    /// Lets the first link talk, or ends that.
    pub(crate) fn talk(&mut self, pause_ns: Option<(u64, u64)>) {
        let now = self.now();
        self.talk = pause_ns.map(|pause_ns| Talk::new(pause_ns, now));
    }

    /// Sends the next message of a talk if it is due; returns the time until it is.
    pub(crate) fn talk_due(&mut self) -> Option<Duration> {
        let now = self.now();
        let talk = self.talk.as_mut()?;
        match talk.due_in(now)? {
            0 => {
                talk.sent(now);
                self.how.codec.message(&mut self.out);
                self.write_out(TALKER);
                None
            }
            left => Some(Duration::from_nanos(left)),
        }
    }

    pub(crate) fn silence(&mut self, count: usize, burst: bool) {
        let from = self.loud.saturating_sub(count);
        for index in from..self.loud {
            if burst {
                self.ping(index);
            }
            let link = &mut self.links[index];
            link.silent = true;
            link.asked_ns = None;
        }
        self.loud = from;
    }

    /// Returns the counts since the last report.
    pub(crate) fn report(&mut self) -> Report {
        let now = self.now();
        let mut report = std::mem::take(&mut self.report);
        report.now_ns = now;
        report.span_ns = now.saturating_sub(self.reported_ns);
        let recorded = self.rtt.iter_recorded();
        report.rtt = recorded.map(|at| (at.value_iterated_to(), at.count_at_value())).collect();
        self.rtt.reset();
        self.reported_ns = now;
        report
    }

    /// Sends at most `most` due heartbeats; returns the time until the next one if the load is
    /// paced.
    pub(crate) fn send_due(&mut self, most: usize) -> Option<Duration> {
        let Drive::Pace { base_ns, period_ns, mut next } = self.drive else { return None };
        let count = self.links.len() as u64;
        if count == 0 {
            return None;
        }
        let due = |next: u64| {
            let phase = u128::from(next % count) * u128::from(period_ns) / u128::from(count);
            base_ns + next / count * period_ns + phase as u64
        };
        for _ in 0..most {
            let now = self.now();
            if due(next) > now {
                break;
            }
            let index = (next % count) as usize;
            next += 1;
            if index < self.data || index >= self.loud || self.links[index].phase != LinkStage::Up {
                continue;
            }
            if self.links[index].asked_ns.is_some() {
                self.report.overruns += 1;
            } else {
                self.ping(index);
            }
        }
        self.drive = Drive::Pace { base_ns, period_ns, next };
        Some(Duration::from_nanos(due(next).saturating_sub(self.now())))
    }

    /// Handles an event of the kernel for a link.
    pub(crate) fn ready(&mut self, index: usize, flags: EventFlags) {
        match self.links[index].phase {
            LinkStage::Connecting if flags.intersects(EventFlags::OUT | EventFlags::ERR) => {
                self.finish_connect(index);
            }
            LinkStage::Securing | LinkStage::Greeting | LinkStage::Up => self.read(index),
            LinkStage::Connecting | LinkStage::Gone => {}
        }
    }

    fn now(&self) -> u64 {
        self.clock.monotonic().as_nanos()
    }

    fn open(&self, index: usize) -> io::Result<TcpStream> {
        let target = address::parse(&self.how.target).map_err(io::Error::other)?;
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if target.ip() == Ipv4Addr::LOCALHOST {
            let host = 2 + (self.how.first + index) % SOURCES;
            let source = SocketAddr::from(([127, 0, 0, host as u8], 0));
            socket.bind(&source.into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
            Ok(()) | Err(_) => {
                let stream = TcpStream::from(socket);
                let name = EventData::new_u64(index as u64);
                epoll::add(&self.epoll, &stream, name, EventFlags::OUT)?;
                Ok(stream)
            }
        }
    }

    fn finish_connect(&mut self, index: usize) {
        let Some(stream) = &self.links[index].stream else { return };
        let name = EventData::new_u64(index as u64);
        let checked = match stream.take_error() {
            Ok(None) => {
                epoll::modify(&self.epoll, stream, name, EventFlags::IN).map_err(Into::into)
            }
            Ok(Some(error)) | Err(error) => Err(error),
        };
        if let Err(error) = checked {
            return self.close(index, &error);
        }
        let Some(tls) = &self.tls else { return self.greet(index) };
        match secure::connect(tls) {
            Ok(tls) => {
                self.links[index].tls = Some(tls);
                self.links[index].phase = LinkStage::Securing;
                self.out.clear();
                self.write_out(index);
            }
            Err(error) => self.close(index, &error),
        }
    }

    /// Sends the greeting of the codec, where it has one.
    fn greet(&mut self, index: usize) {
        if self.how.codec != Codec::Native || self.how.peer != Peer::Gateway {
            return self.up(index);
        }
        self.links[index].phase = LinkStage::Greeting;
        let identity = format!("bench-{}", self.how.first + index);
        self.out = codec::hello(self.boot_id, self.instance_id, &identity);
        self.write_out(index);
    }

    fn up(&mut self, index: usize) {
        self.links[index].phase = LinkStage::Up;
        self.tally.under_way -= 1;
        self.tally.up += 1;
    }

    fn fail(&mut self, error: &io::Error) {
        self.tally.failed += 1;
        self.tally.error.get_or_insert_with(|| error.to_string());
    }

    fn close(&mut self, index: usize, error: &io::Error) {
        let now = self.now();
        let link = &mut self.links[index];
        (link.stream, link.tls) = (None, None);
        link.asked_ns = None;
        let phase = std::mem::replace(&mut link.phase, LinkStage::Gone);
        match phase {
            LinkStage::Connecting | LinkStage::Securing | LinkStage::Greeting => {
                self.tally.under_way -= 1;
                self.fail(error);
            }
            LinkStage::Up if link.silent => {
                let verdict = Verdict { last_sent_ns: link.last_sent_ns, closed_ns: now };
                self.report.verdicts.push(verdict);
            }
            LinkStage::Up => self.report.lost += 1,
            LinkStage::Gone => {}
        }
    }
}

/// Creates a histogram of times in nanoseconds up to a minute; longer times count as a minute.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(MAX_TIME_NS, DIGITS).expect("three digits below a minute are legal")
}
