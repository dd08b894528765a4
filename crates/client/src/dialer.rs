//! Dialing: from a name to a link with a complete handshake.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use socket2::SockRef;
use systole_core::Span;
use systole_core::dial::{Dial, Input, Output};
use systole_core::link::Introduction;
use systole_core::wire::{BootId, InstanceId};
use systole_core::witness::Past;
use systole_net::obstacle::obstacle;
use tokio::net::TcpStream;

use crate::away::Resuming;
use crate::begin::Begin;
use crate::connection::Connection;
use crate::lookup::{host, lookup};
use crate::loop_clock::{LoopClock, OPEN_ENDED};
use crate::old_flow::OldFlow;
use crate::shared::Shared;
use crate::{ConnectError, Event, Options};

/// Parameters of one link.
#[derive(Clone)]
pub(crate) struct LinkParams {
    pub(crate) options: Options,
    /// The host of the server's address, as the application named it.
    pub(crate) host: Arc<str>,
    pub(crate) introduction: Introduction,
    /// How the previous link ended.
    pub(crate) past: Option<Past>,
    /// The connection of the previous link, at the first attempt after a silence.
    pub(crate) old_flow: Option<Arc<OldFlow>>,
    /// The server's address on the previous link.
    pub(crate) server: Option<SocketAddr>,
    pub(crate) boot_id: BootId,
    pub(crate) instance_id: InstanceId,
    /// Number of this link among those of the client, from 1.
    pub(crate) link_number: u64,
    /// Number of the attempt to reconnect; 0 for the first link.
    pub(crate) attempt: u32,
    pub(crate) seed: u64,
}

/// Connects to one name; remembers which of its addresses have failed.
pub(crate) struct Dialer {
    addr: String,
    dial: Dial,
    has_refused: bool,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + Sync>>;

/// The open attempts of one round.
#[derive(Default)]
struct Round {
    connecting: Vec<(usize, SocketAddr, Connecting)>,
    /// The connection that was accepted, up to its handshake.
    accepted: Option<(SocketAddr, TcpStream)>,
    error: Option<ConnectError>,
    /// The addresses that refused the connection.
    refused: Vec<SocketAddr>,
}

impl Dialer {
    pub(crate) fn new(addr: String, options: &Options) -> Dialer {
        Dialer { addr, dial: Dial::new(options.handshake_timeout.into()), has_refused: false }
    }

    /// Returns the host of the address; empty if the address has none.
    pub(crate) fn host(&self) -> &str {
        host(&self.addr)
    }

    /// Returns whether the last round failed, and the server of the previous link refused the
    /// connection in it: its machine answers, and no process listens.
    pub(crate) fn has_refused(&self) -> bool {
        self.has_refused
    }

    /// Resolves the name, connects to one of its addresses, and completes the handshake. Each
    /// handshake has the session to resume in its turn.
    pub(crate) async fn open<T: Begin>(
        &mut self,
        params: &LinkParams,
        resuming: &mut Resuming,
        clock: &mut LoopClock,
        shared: &Shared,
    ) -> Result<Connection<T>, ConnectError> {
        self.has_refused = false;
        let limit = params.options.connect_timeout;
        let started = clock.turn(OPEN_ENDED);
        let addresses = lookup(&self.addr, limit).await?;
        let within = Span::from(limit).less(clock.turn(OPEN_ENDED).since(started));
        self.open_one_of(&addresses, (params, within), resuming, clock, shared).await
    }

    async fn open_one_of<T: Begin>(
        &mut self,
        addresses: &[SocketAddr],
        (params, within): (&LinkParams, Span),
        resuming: &mut Resuming,
        clock: &mut LoopClock,
        shared: &Shared,
    ) -> Result<Connection<T>, ConnectError> {
        self.dial.handle(clock.now(), Input::Resolved { addresses, within });
        let mut round = Round::default();
        loop {
            while let Some(output) = self.dial.poll_output() {
                match output {
                    Output::Connect { attempt, address } => {
                        let connecting = Box::pin(TcpStream::connect(address));
                        round.connecting.push((attempt, address, connecting));
                    }
                    Output::Cancel(attempt) => {
                        round.connecting.retain(|(number, ..)| *number != attempt);
                        if round.accepted.is_none() {
                            round.note(ConnectError::Timeout(params.options.connect_timeout));
                        }
                    }
                    Output::Introduce { attempt, within } => {
                        let opening = round.introduce(within, params, resuming, clock, shared);
                        let input = match opening.await {
                            Ok(connection) => {
                                self.dial.handle(clock.now(), Input::Welcomed(attempt));
                                return Ok(connection);
                            }
                            Err(error) => round.handshake_failed(attempt, error),
                        };
                        self.dial.handle(clock.turn(OPEN_ENDED), input);
                    }
                    Output::GiveUp => {
                        let limit = params.options.connect_timeout;
                        let by_server = |server| round.refused.contains(&server);
                        self.has_refused = params.server.is_some_and(by_server);
                        return Err(round.error.unwrap_or(ConnectError::Timeout(limit)));
                    }
                }
            }
            self.wait(&mut round, addresses.len() > 1, clock).await;
        }
    }

    /// Waits for the next answer or deadline, and hands it in.
    async fn wait(&mut self, round: &mut Round, is_one_of_many: bool, clock: &mut LoopClock) {
        let deadline = self.dial.next_deadline().map(|next| next.at);
        let planned = deadline.map_or(OPEN_ENDED, |at| at.since(clock.now()));
        let finished = tokio::select! {
            finished = round.next() => Some(finished),
            () = tokio::time::sleep(planned.into()) => None,
        };
        let now = clock.turn(planned);
        let input = finished.map(|finished| round.finish(finished, is_one_of_many));
        self.dial.handle(now, input.unwrap_or(Input::Deadline));
    }
}

impl Round {
    /// Waits for the next attempt that has an answer. Cancel-safe.
    async fn next(&mut self) -> (usize, SocketAddr, io::Result<TcpStream>) {
        poll_fn(|context| {
            let answered = |(number, address, connecting): &mut (usize, SocketAddr, Connecting)| {
                match connecting.as_mut().poll(context) {
                    Poll::Ready(result) => Some((*number, *address, result)),
                    Poll::Pending => None,
                }
            };
            match self.connecting.iter_mut().find_map(answered) {
                Some(answer) => {
                    self.connecting.retain(|(number, ..)| *number != answer.0);
                    Poll::Ready(answer)
                }
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Keeps the connection or the error of an attempt that has an answer.
    fn finish(
        &mut self,
        (attempt, address, result): (usize, SocketAddr, io::Result<TcpStream>),
        is_one_of_many: bool,
    ) -> Input<'static> {
        let prepared = result.and_then(|stream| {
            SockRef::from(&stream).set_out_of_band_inline(true)?;
            Ok(stream)
        });
        match prepared {
            Ok(stream) => {
                self.accepted = Some((address, stream));
                Input::Connected(attempt)
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    self.refused.push(address);
                }
                let obstacle = obstacle(&error, &address);
                let at = if is_one_of_many { format!("{address}: ") } else { String::new() };
                let why = format!("{at}{error}");
                self.note(ConnectError::Io { kind: error.kind(), why, obstacle });
                Input::Failed(attempt)
            }
        }
    }

    /// Completes the handshake on the connection that was accepted.
    async fn introduce<T: Begin>(
        &mut self,
        within: Span,
        params: &LinkParams,
        resuming: &mut Resuming,
        clock: &mut LoopClock,
        shared: &Shared,
    ) -> Result<Connection<T>, ConnectError> {
        let Some((address, stream)) = self.accepted.take() else {
            let gone = io::Error::from(io::ErrorKind::NotConnected);
            return Err(ConnectError::from_io(&gone));
        };
        if params.options.report_accepted {
            shared.publish(Event::Accepted { address });
        }
        Connection::open(params.clone(), stream, within, resuming, clock, shared).await
    }

    fn handshake_failed(&mut self, attempt: usize, error: ConnectError) -> Input<'static> {
        let is_final = error.farewell().is_some_and(|goodbye| goodbye.stop().is_some());
        self.note(error);
        if is_final { Input::Refused(attempt) } else { Input::Failed(attempt) }
    }

    /// Keeps the error that says most of the round: what a server said, then what may change, then
    /// the latest.
    fn note(&mut self, error: ConnectError) {
        let weight = |error: &ConnectError| {
            let is_refusal = error.farewell().is_some();
            (is_refusal, error.obstacle().is_none(), error.is_retryable())
        };
        if self.error.as_ref().is_none_or(|known| weight(&error) >= weight(known)) {
            self.error = Some(error);
        }
    }
}

/// Duplicates the socket and registers the duplicate with the runtime.
pub(crate) fn reregister(stream: &TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(SockRef::from(stream).try_clone()?.into())
}

#[cfg(test)]
mod tests;
