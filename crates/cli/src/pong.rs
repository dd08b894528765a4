//! `systole pong`: the peer of `systole ping`. It answers heartbeats after a chosen delay, and
//! gives no verdicts.

mod answers;
mod connection;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use systole_core::Span;
use systole_core::wire::Codec;
use systole_gateway::config::listen_address;
use systole_net::address::{self, AddressError};
use systole_net::transport::Plain;
use systole_net::{Clock, listener};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::exit::Exit;
use crate::interrupt::{self, Interrupt};
use crate::output::Output;
use crate::{ping, seconds};
use connection::{Connection, Notice, NoticeKind};

const EXAMPLES: &str = "\
Examples:
  systole pong                                    answers at once, on loopback
  systole pong --delay 5s -v                      five seconds late, with times and addresses
  systole pong --codec message1028 --port 9000 --bind 0.0.0.0
  systole pong --delay 60s & systole ping 127.0.0.1:7430   a server that seems dead

Prints one line for each message, also if it arrives in pieces. Delayed answers to one client delay
no other client.

A TIME has units, as in the configuration file: 500ms, 10s, \"1m 30s\". On the command line alone, a
number without a unit is seconds: 10, 0.5.

Ctrl-C and SIGTERM end it. Each client is told first, as by a gateway that is drained (native only;
the other codecs have no goodbye).

Exit codes: 0 interrupted, 1 the address cannot be listened at, 2 wrong usage.";

/// Time limit for the goodbye to all clients at the end, shorter than that of the process.
const GOODBYE: Duration = Duration::from_secs(1);

/// Maximum of lines that wait to be printed. While the queue is full, clients are not read.
const LINES: usize = 1_024;

/// Pause after a failed accept, for example when descriptors run out.
const REST: Duration = Duration::from_millis(100);

/// Answer heartbeats, at once or after a delay
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The port to listen on; 0 lets the system choose
    #[arg(long, default_value_t = 7430)]
    port: u16,

    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = bind_address)]
    bind: SocketAddr,

    /// Delay of each answer
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = seconds::parse)]
    delay: Duration,

    /// Codec of the connections
    #[arg(long, default_value = "native", value_parser = ping::codec_parser())]
    codec: Codec,

    /// Print times, client addresses, connects and disconnects
    #[arg(short, long)]
    verbose: bool,
}

/// Parses an address without a port; port 0 stands in its place.
fn bind_address(text: &str) -> Result<SocketAddr, String> {
    let address = if text.contains(':') { format!("[{text}]:0") } else { format!("{text}:0") };
    if let Err(AddressError::Malformed) = address::parse(&address) {
        return Err("must be an IP address without a port (--port), as in 127.0.0.1, ::1 or \
                    fe80::1%eth0"
            .to_owned());
    }
    listen_address(&address).map_err(|right| format!("must be {right}"))
}

pub(crate) fn run(args: &Args, output: &mut Output) -> io::Result<Exit> {
    let runtime = match interrupt::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&error.to_string());
            return Ok(Exit::Failure);
        }
    };
    runtime.block_on(async {
        let mut address = args.bind;
        address.set_port(args.port);
        match listen(address) {
            Ok(listener) => pong(args, &listener, output).await,
            Err(error) => {
                output.error(&format!("cannot listen on {address}: {error}{}", hint(&error)));
                Ok(Exit::Failure)
            }
        }
    })
}

/// Returns what the user can do about an address that cannot be bound, as a line of its own.
fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "\nhint: another program listens there; --port 0 lets the system choose a port"
    } else if error.kind() == io::ErrorKind::AddrNotAvailable {
        "\nhint: this machine does not have this address; --bind sets another"
    } else {
        ""
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(listener::bind(addr, listener::BACKLOG, false)?)
}

async fn pong(args: &Args, listener: &TcpListener, output: &mut Output) -> io::Result<Exit> {
    // Before the address is printed: a signal may come at once after that.
    let mut interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            output.error(&error.to_string());
            return Ok(Exit::Failure);
        }
    };
    match listener.local_addr() {
        Ok(addr) => output.note(&format!("listening on {addr}")),
        Err(error) => output.error(&error.to_string()),
    }
    let clock = Clock::start();
    let (notices, mut lines) = mpsc::channel(LINES);
    let (end, ending) = watch::channel(());
    let mut clients = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    clients += 1;
                    let delay = Span::from(args.delay);
                    let connection = Connection::new(args.codec, clients, delay, clock);
                    let (notices, ending) = (notices.clone(), ending.clone());
                    tokio::spawn(connection.serve(stream, Plain, peer, notices, ending));
                }
                Err(error) => {
                    output.error(&format!("a client could not be accepted: {error}"));
                    tokio::time::sleep(REST).await;
                }
            },
            // `notices` keeps the channel open, so `recv` never returns `None`.
            Some(notice) = lines.recv() => print(&notice, args.verbose, output)?,
            () = interrupt.wait() => break,
        }
    }
    drop(notices);
    // It fails if there are no clients.
    let _ = end.send(());
    let leaving = async {
        // Each connection holds a sender until its end.
        while let Some(notice) = lines.recv().await {
            print(&notice, args.verbose, output)?;
        }
        io::Result::Ok(())
    };
    // Clients that do not take their goodbye in time are left without.
    tokio::time::timeout(GOODBYE, leaving).await.unwrap_or(Ok(()))?;
    Ok(Exit::Success)
}

fn print(notice: &Notice, verbose: bool, output: &mut Output) -> io::Result<()> {
    let Notice { peer, at, kind } = notice;
    let text = match kind {
        NoticeKind::Received(len) => format!("received {len} bytes"),
        NoticeKind::Joined | NoticeKind::Left(_) if !verbose => return Ok(()),
        NoticeKind::Joined => "joined".to_owned(),
        NoticeKind::Left(cause) => format!("left: {cause}"),
        NoticeKind::Illegal(what) => {
            output.note(&format!("{peer}: illegal bytes, connection closed: {what}"));
            return Ok(());
        }
    };
    let line = if verbose { format!("{} {peer} {text}", ping::stamp(*at)) } else { text };
    output.line(&line)?;
    output.flush()
}
