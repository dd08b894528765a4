//! The baseline: a minimal epoll echo server, as one would write it in C. Level-triggered, with one
//! thread and one listening socket per shard; each waits, reads, and writes the same bytes.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use systole_net::listener::bind_shards;

/// Arguments of the hidden subcommand `bench-echo`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct EchoArgs {
    /// Shards, each a thread with its own listening socket
    #[arg(long, default_value_t = 1)]
    threads: usize,

    /// Microseconds for which each thread sleeps before it waits, so that it serves several links
    /// at a time
    #[arg(long, default_value_t = 0)]
    rest_us: u64,
}

/// Maximum of events per `epoll_wait`.
const EVENTS: usize = 512;
/// Size of the read buffer: several times the longest heartbeat of any codec.
const BUFFER: usize = 16 * 1024;

/// Listens on a free port of the loopback, prints the address, and echoes until killed.
pub(crate) fn run(args: &EchoArgs) -> io::Result<()> {
    super::die_with_parent();
    systole_net::limits::raise_descriptor_limit()?;
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = bind_shards(anywhere, args.threads.max(1))?;
    let address = listeners[0].local_addr()?;
    let rest = (args.rest_us > 0).then(|| Duration::from_micros(args.rest_us));
    let threads: Vec<_> =
        listeners.into_iter().map(|one| std::thread::spawn(move || serve(&one, rest))).collect();
    writeln!(io::stdout(), "{address}")?;
    io::stdout().flush()?;
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a shard panicked"))??;
    }
    Ok(())
}

fn serve(listener: &TcpListener, rest: Option<Duration>) -> io::Result<()> {
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
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
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
                Ok(length) => {
                    rustix::io::write(&*stream, &buffer[..length]).is_ok_and(|sent| sent == length)
                }
                Err(error) => error == rustix::io::Errno::AGAIN,
            };
            if !alive {
                *slot = None;
            }
        }
    }
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
