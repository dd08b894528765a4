//! Bare loops to compare with, as one would write them in C: level-triggered epoll, one thread and
//! one listening socket per shard, no protocol, no deadlines. The baseline waits, reads, and writes
//! the same bytes; a prober sends pings in batches, and reads the answers.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustls::ServerConfig;
use systole_net::Clock;
use systole_net::listener::bind_shards;

use super::codec::Codec;
use super::secure::Echo;

/// Arguments of the hidden subcommand `bench-bare`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BareArgs {
    /// Shards, each a thread with its own listening socket
    #[arg(long, default_value_t = 1)]
    threads: usize,

    /// Microseconds for which each thread sleeps before it waits, so that it serves several links
    /// at a time
    #[arg(long, default_value_t = 0)]
    rest_us: u64,

    /// Milliseconds in which each thread sends one ping on each link, instead of echoing
    #[arg(long, default_value_t = 0)]
    probe_ms: u64,

    /// Directory with certificate and key: the echo speaks TLS
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,

    /// Protocol of the pings
    #[arg(long, value_enum, default_value_t = Codec::Native)]
    codec: Codec,
}

/// Maximum of events per `epoll_wait`.
const EVENTS: usize = 512;
/// Size of the read buffer: several times the longest heartbeat of any codec.
const BUFFER: usize = 16 * 1024;
/// The number of pings that leave together: as many as the gateway expects to send at once.
const BATCH: usize = 64;
/// The time after which a prober without links looks for some again.
const NO_LINKS: u64 = 10_000_000;

/// Listens on a free port of the loopback, prints the address, and serves until killed.
pub(crate) fn run(args: &BareArgs) -> io::Result<()> {
    super::die_with_parent();
    systole_net::limits::raise_descriptor_limit()?;
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = bind_shards(anywhere, args.threads.max(1))?;
    let address = listeners[0].local_addr()?;
    let rest = (args.rest_us > 0).then(|| Duration::from_micros(args.rest_us));
    let prober = (args.probe_ms > 0).then(|| Prober::new(args));
    let tls = args.tls.as_deref().map(Echo::config).transpose()?;
    let start = |listener: TcpListener| {
        let (prober, tls) = (prober.clone(), tls.clone());
        std::thread::Builder::new().spawn(move || match tls {
            Some(tls) => serve_tls(&listener, &tls),
            None => serve(&listener, rest, prober),
        })
    };
    let threads: Vec<_> = listeners.into_iter().map(start).collect::<io::Result<_>>()?;
    writeln!(io::stdout(), "{address}")?;
    io::stdout().flush()?;
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a shard panicked"))??;
    }
    Ok(())
}

fn serve(
    listener: &TcpListener,
    rest: Option<Duration>,
    mut prober: Option<Prober>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let own = listener.as_raw_fd() as u64;
    epoll::add(&epoll, listener, EventData::new_u64(own), EventFlags::IN)?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = vec![0; BUFFER];
    loop {
        events.clear();
        if let Some(rest) = rest {
            #[allow(clippy::disallowed_methods)] // What a sleep saves is to be measured.
            std::thread::sleep(rest);
        }
        let wait = prober.as_mut().map(|prober| prober.probe(&mut streams));
        match epoll::wait(&epoll, spare_capacity(&mut events), wait.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let fd = event.data.u64();
            if fd == own {
                accept(listener, &epoll, &mut streams)?;
                continue;
            }
            let slot = &mut streams[fd as usize];
            let Some(stream) = slot else { continue };
            let alive = match rustix::io::read(&*stream, &mut buffer[..]) {
                Ok(0) => false,
                Ok(_) if prober.is_some() => true,
                Ok(length) => write(stream, &buffer[..length]),
                Err(error) => error == rustix::io::Errno::AGAIN,
            };
            if !alive {
                *slot = None;
            }
        }
    }
}

/// The echo over TLS.
fn serve_tls(listener: &TcpListener, tls: &Arc<ServerConfig>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let own = listener.as_raw_fd() as u64;
    epoll::add(&epoll, listener, EventData::new_u64(own), EventFlags::IN)?;
    let (mut streams, mut ends): (Vec<Option<TcpStream>>, Vec<Option<Echo>>) = Default::default();
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = vec![0; BUFFER];
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let fd = event.data.u64() as usize;
            if fd as u64 == own {
                accept(listener, &epoll, &mut streams)?;
                ends.resize_with(streams.len(), || None);
                continue;
            }
            let Some(stream) = &streams[fd] else { continue };
            let end = match ends[fd].take() {
                Some(end) => Ok(end),
                None => Echo::new(Arc::clone(tls)),
            };
            let mut end = end?;
            if end.turn(stream, &mut buffer) {
                ends[fd] = Some(end);
            } else {
                streams[fd] = None;
            }
        }
    }
}

/// Writes; returns whether the socket took everything.
fn write(stream: &TcpStream, bytes: &[u8]) -> bool {
    rustix::io::write(stream, bytes).is_ok_and(|sent| sent == bytes.len())
}

fn accept(
    listener: &TcpListener,
    epoll: &impl std::os::fd::AsFd,
    streams: &mut Vec<Option<TcpStream>>,
) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let fd = stream.as_raw_fd() as usize;
        if streams.len() <= fd {
            streams.resize_with(fd + 1, || None);
        }
        epoll::add(epoll, &stream, EventData::new_u64(fd as u64), EventFlags::IN)?;
        streams[fd] = Some(stream);
    }
    Ok(())
}

/// Sends pings in batches, on each link once in a period.
#[derive(Clone, Debug)]
struct Prober {
    clock: Clock,
    codec: Codec,
    period_ns: u64,
    /// When the next batch is due.
    next_ns: u64,
    /// The link with which the next batch begins.
    place: usize,
    sequence: u8,
    ping: Vec<u8>,
}

impl Prober {
    fn new(args: &BareArgs) -> Prober {
        Prober {
            clock: Clock::start(),
            codec: args.codec,
            period_ns: args.probe_ms.saturating_mul(1_000_000),
            next_ns: 0,
            place: 0,
            sequence: 0,
            ping: Vec::new(),
        }
    }

    /// Sends a batch if it is due. Returns the time until the next one.
    fn probe(&mut self, streams: &mut [Option<TcpStream>]) -> Timespec {
        let now = self.clock.monotonic().as_nanos();
        if now >= self.next_ns {
            let links = streams.iter().flatten().count();
            self.send(streams, links.min(BATCH));
            let share = self.period_ns.saturating_mul(BATCH as u64).checked_div(links as u64);
            self.next_ns = self.next_ns.max(now) + share.unwrap_or(NO_LINKS).min(self.period_ns);
        }
        let left = self.next_ns.saturating_sub(self.clock.monotonic().as_nanos());
        Timespec {
            tv_sec: i64::try_from(left / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (left % 1_000_000_000) as i64,
        }
    }

    /// Sends a ping on each of the next `count` links, of which there are as many.
    fn send(&mut self, streams: &mut [Option<TcpStream>], mut count: usize) {
        self.sequence = self.sequence.wrapping_add(1);
        self.codec.ping(self.sequence, &mut self.ping);
        while count > 0 {
            self.place = (self.place + 1) % streams.len();
            let slot = &mut streams[self.place];
            let Some(stream) = slot else { continue };
            if !write(stream, &self.ping) {
                *slot = None;
            }
            count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_prober_sends_one_ping_on_each_link_in_a_period() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut peers: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut streams: Vec<_> = (0..3).map(|_| Some(listener.accept().unwrap().0)).collect();
        // A place without a link.
        streams.insert(1, None);
        let args =
            BareArgs { threads: 1, rest_us: 0, probe_ms: 600_000, tls: None, codec: Codec::Line };
        let mut prober = Prober::new(&args);
        for _ in 0..2 {
            let wait = prober.probe(&mut streams);
            assert!((599..=600).contains(&wait.tv_sec), "{wait:?}");
        }
        drop(streams);
        for peer in &mut peers {
            let mut text = String::new();
            peer.read_to_string(&mut text).unwrap();
            assert_eq!(text, "ping\n");
        }
    }
}
