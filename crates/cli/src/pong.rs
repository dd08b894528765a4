//! `systole pong`: the other end of `systole ping`. It answers heartbeats, as late as it is told,
//! and judges nobody.

mod answers;
mod connection;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use systole_core::Span;
use systole_core::wire::Codec;
use systole_net::{Clock, listener};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::exit::Exit;
use crate::output::Output;
use crate::{ping, seconds};
use connection::{Connection, News, Told};

const EXAMPLES: &str = "\
Examples:
  systole pong                                    answers at once, on loopback
  systole pong --delay 5 -v                       five seconds late, with times and names
  systole pong --codec message1028 --port 9000 --bind 0.0.0.0
  systole pong --delay 60 & systole ping 127.0.0.1:7430   a server that seems dead

One line for each message, whatever pieces it arrives in. Answers to one client wait for no other.";

/// Lines that may wait to be printed. When they are too many, clients are read no further.
const LINES: usize = 1_024;

/// How long accepting rests after it failed, as it does when descriptors run out.
const REST: Duration = Duration::from_millis(100);

/// Answer heartbeats, as late as you like
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The port to listen on; 0 lets the system choose
    #[arg(long, default_value_t = 7430)]
    port: u16,

    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: IpAddr,

    /// How late each heartbeat is answered
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = seconds::parse)]
    delay: Duration,

    /// Which bytes are spoken
    #[arg(long, default_value = "native", value_parser = ping::codec_parser())]
    codec: Codec,

    /// Print times and clients' addresses, and who comes and goes
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(args: &Args, output: &mut Output) -> io::Result<Exit> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&error.to_string());
            return Ok(Exit::Failure);
        }
    };
    runtime.block_on(async {
        match listen(SocketAddr::new(args.bind, args.port)) {
            Ok(listener) => pong(args, &listener, output).await,
            Err(error) => {
                output.error(&format!("cannot listen on {}:{}: {error}", args.bind, args.port));
                Ok(Exit::Failure)
            }
        }
    })
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(listener::bind(addr, listener::BACKLOG, false)?)
}

async fn pong(args: &Args, listener: &TcpListener, output: &mut Output) -> io::Result<Exit> {
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    // Its first poll takes hold of the signal, and whoever reads the address may send one.
    tokio::select! {
        biased;
        _ = &mut interrupt => return Ok(Exit::Success),
        () = std::future::ready(()) => {}
    }
    match listener.local_addr() {
        Ok(addr) => output.note(&format!("listening on {addr}")),
        Err(error) => output.error(&error.to_string()),
    }
    let clock = Clock::start();
    let (news, mut lines) = mpsc::channel(LINES);
    let mut clients = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    clients += 1;
                    let delay = Span::from(args.delay);
                    let connection = Connection::new(args.codec, clients, delay, clock);
                    tokio::spawn(connection.serve(stream, peer, news.clone()));
                }
                Err(error) => {
                    output.error(&format!("a client could not be accepted: {error}"));
                    tokio::time::sleep(REST).await;
                }
            },
            // A sender is kept here, so there is always another line to come.
            Some(line) = lines.recv() => tell(&line, args.verbose, output)?,
            _ = &mut interrupt => return Ok(Exit::Success),
        }
    }
}

fn tell(news: &News, verbose: bool, output: &mut Output) -> io::Result<()> {
    let News { peer, at, told } = news;
    let text = match told {
        Told::Received(len) => format!("received {len} bytes"),
        Told::Joined | Told::Left(_) if !verbose => return Ok(()),
        Told::Joined => "joined".to_owned(),
        Told::Left(cause) => format!("left: {cause}"),
        Told::Illegal(what) => {
            output.note(&format!("{peer}: illegal bytes, connection closed: {what}"));
            return Ok(());
        }
    };
    let line = if verbose { format!("{} {peer} {text}", ping::stamp(*at)) } else { text };
    output.line(&line)?;
    output.flush()
}
