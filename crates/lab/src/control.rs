//! A control connection beside the link under test, with kernel keepalive alone: it shows what a
//! program without Systole would detect.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use systole_core::Span;
use systole_net::Clock;

use crate::gateway::BARE_PORT;
use crate::namespace::Namespace;
use crate::network::GATEWAY;
use crate::process::pause;
use crate::trouble::Trouble;

/// Port on which the lab accepts a peer's control connection, in the gateway's namespace.
pub(crate) const PORT: u16 = 7499;
/// Keepalive of a control connection: 5 s idle, 3 s interval, 3 probes.
const IDLE: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_secs(3);
const PROBES: u32 = 3;

const CONNECTS_WITHIN: Span = Span::from_secs(5);
const POLL: Span = Span::from_millis(5);

/// What the kernel reported on a control connection, after the time of the report.
type Noticed = Arc<Mutex<Option<(u64, String)>>>;

/// The observer's end of a control connection.
#[derive(Debug)]
pub(crate) struct Control {
    stream: TcpStream,
    noticed: Noticed,
    since_ms: u64,
}

impl Control {
    /// Accepts the peer's control connection in the gateway's namespace.
    pub(crate) fn accept(listener: &TcpListener, clock: Clock) -> Result<Control, Trouble> {
        let doing = Trouble::while_doing("the control connection");
        listener.set_nonblocking(true).map_err(&doing)?;
        let until = clock.monotonic() + CONNECTS_WITHIN;
        loop {
            match listener.accept() {
                Ok((stream, _)) => return Control::watch(stream, clock),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(doing(error)),
                Err(error) if clock.monotonic() > until => return Err(doing(error)),
                Err(_) => pause(POLL),
            }
        }
    }

    /// Creates a listener for [`Control::accept`].
    pub(crate) fn listen(namespace: &Namespace) -> Result<TcpListener, Trouble> {
        let listener = namespace.enter(|| TcpListener::bind((GATEWAY, PORT)))?;
        listener.map_err(Trouble::while_doing("the control connection"))
    }

    /// Connects from a client's namespace to the gateway's listener without verdicts.
    pub(crate) fn connect(namespace: &Namespace, clock: Clock) -> Result<Control, Trouble> {
        let doing = Trouble::while_doing("the control connection");
        let address = SocketAddr::from((GATEWAY, BARE_PORT));
        let mut stream = namespace.enter(|| TcpStream::connect(address))?.map_err(&doing)?;
        // The first line completes the handshake there; the gateway echoes it and sends nothing
        // else.
        stream.write_all(b"control\n").map_err(&doing)?;
        stream.set_read_timeout(Some(CONNECTS_WITHIN.into())).map_err(&doing)?;
        stream.read_exact(&mut [0; 8]).map_err(&doing)?;
        Control::watch(stream, clock)
    }

    fn watch(stream: TcpStream, clock: Clock) -> Result<Control, Trouble> {
        let doing = Trouble::while_doing("the control connection");
        stream.set_nonblocking(false).map_err(&doing)?;
        stream.set_read_timeout(None).map_err(&doing)?;
        let keepalive =
            TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL).with_retries(PROBES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(&doing)?;
        let noticed = Noticed::default();
        let (mut reader, writer) = (stream.try_clone().map_err(&doing)?, Arc::clone(&noticed));
        let reading = move || {
            let mut buffer = [0; 64];
            let what = loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break "end of stream".to_owned(),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => break error.kind().to_string(),
                }
            };
            *writer.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock.wall_ms(), what));
        };
        std::thread::Builder::new().spawn(reading).map_err(&doing)?;
        Ok(Control { stream, noticed, since_ms: clock.wall_ms() })
    }

    /// Returns the time since which the connection is silent, in milliseconds of the wall clock.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Returns what the kernel has reported so far, after the time in milliseconds of the wall
    /// clock.
    pub(crate) fn noticed(&self) -> Option<(u64, String)> {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Wakes the reading thread, which then ends.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
