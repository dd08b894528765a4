//! The application's handle to a client.

use std::fmt;
use std::sync::Arc;

use systole_core::Policy;
use systole_core::wire::{CloseReason, MAX_HEARTBEAT_DATA};
use systole_net::transport::Layer;
use tokio::sync::{mpsc, oneshot};

use crate::begin::Begin;
use crate::driver::Driver;
use crate::shared::{FlushAnswer, MAX_REQUESTS, Request, Shared};
use crate::{CloseError, ConnectError, Ending, Event, FlushError, Options, SendError};

/// A client, with a link to a server that is reestablished after a loss.
///
/// One task serves the client and never waits for the application. If the application does not take
/// events, up to a megabyte of messages waits before reading pauses; of other events, beyond 256,
/// the oldest of each kind is dropped. While reading is paused, the client does not judge the
/// server's silence. The server still judges the client: if the client reads nothing for longer
/// than the bound, the server ends the link according to its policy.
///
/// A server that speaks the native codec may give the session a window: a number of messages and
/// bytes that either end may send before the other has acknowledged them. Then a message counts as
/// taken when [`Client::next_event`] has returned it, so an application that takes no events stops
/// the server's messages and nothing else; the window is what waits at most, up to 32 MiB. Call
/// [`Client::next_event`] also if only other events matter: what is never taken fills the window,
/// and a gateway ends such a session as a slow consumer.
///
/// A gateway may also let such a session outlive its link. If [`Options::reconnect`] is set, a loss
/// is then [`Event::Away`], and the next link resumes the session ([`Event::Resumed`]): the session
/// keeps its number and epoch, and every message of both directions arrives once and in order.
/// Meanwhile [`Client::send`] accepts messages as before. If the session is gone,
/// [`Event::NotResumed`] returns what the server has not acknowledged, and a new session begins.
/// Without such a gateway, or without reconnecting, each link has a session of its own.
///
/// All methods take `&self`, so that tasks can share a client in an `Arc`.
///
/// [`Client::close`] returns when the server has acknowledged everything that [`Client::send`]
/// took, or says that it did not; then `main` may end. Dropping the client does the same in the
/// background, and only while the runtime runs: a runtime that is dropped meanwhile drops the
/// unsent messages.
pub struct Client {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

impl Client {
    /// Connects to `addr`, a `host:port`, and returns when the handshake is complete.
    ///
    /// If the name has several addresses, attempts start 250 ms apart, as in RFC 8305, and the
    /// first address with a whole handshake wins; an address that failed is tried last when the
    /// client reconnects. All of them together are one attempt, so that a wrong address is
    /// reported; see [`Client::start`] for more than one. After a later loss the client reconnects
    /// according to [`Options::reconnect`]. Call this within a Tokio runtime with time and I/O
    /// enabled.
    ///
    /// # Errors
    /// See [`ConnectError`]; returned no later than `connect_timeout` + `handshake_timeout`, with
    /// several addresses `connect_timeout` + 2 × `handshake_timeout`; and with
    /// [`Options::token_source`] `token_timeout` more. The source is asked once: a refused token is
    /// an error here.
    pub async fn connect(addr: impl ToString, options: Options) -> Result<Client, ConnectError> {
        Client::connect_over::<Layer>(addr.to_string(), options).await
    }

    /// Creates a client that connects in the background, as [`Client::connect`] does, and goes on
    /// after a failed attempt as after a loss, according to [`Options::reconnect`]. Its events
    /// report the attempts: [`Event::AttemptFailed`], then [`Event::Reconnecting`] or
    /// [`Event::Closed`]. An obstacle that no attempt can overcome, such as a name that does not
    /// exist, ends it at once. Call this within a Tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// [`ConnectError::Identity`] or [`ConnectError::Tls`], and [`ConnectError::Io`] if the system
    /// gives no random numbers.
    pub fn start(addr: impl ToString, options: Options) -> Result<Client, ConnectError> {
        let (client, driver) = Client::prepare(addr.to_string(), options)?;
        tokio::spawn(driver.run::<Layer>(None));
        Ok(client)
    }

    fn prepare(addr: String, options: Options) -> Result<(Client, Driver), ConnectError> {
        let shared = Arc::new(Shared::new(options.codec, options.send_queue));
        let (requests, inbox) = mpsc::channel(MAX_REQUESTS);
        let driver = Driver::new(addr, options, Arc::clone(&shared), inbox)?;
        Ok((Client { shared, requests }, driver))
    }

    /// Connects over another transport than the plain one.
    async fn connect_over<T: Begin>(
        addr: String,
        options: Options,
    ) -> Result<Client, ConnectError> {
        let (client, mut driver) = Client::prepare(addr, options)?;
        let connection = driver.open::<T>().await?;
        tokio::spawn(driver.run(Some(connection)));
        Ok(client)
    }

    /// Waits for the next event; returns `None` after [`Event::Closed`]. Cancel-safe: a canceled
    /// call takes nothing. Messages that wait to be taken survive the link on which they came, and
    /// are not sent again by a gateway that resumes the session.
    pub async fn next_event(&self) -> Option<Event> {
        self.shared.next_event().await
    }

    /// Sends a message; waits while the queue is full ([`Options::send_queue`]). Cancel-safe: a
    /// canceled call sends nothing.
    ///
    /// In a session with a window, a message for which the window has no room waits in the queue
    /// until the server has acknowledged earlier ones; so a server that acknowledges nothing makes
    /// this call wait.
    ///
    /// `Ok` means that the message was queued. If the session outlives its link it is then
    /// delivered once, or [`Event::NotResumed`] returns it; without a link it waits. Otherwise a
    /// message still queued when the link is lost is dropped. [`Client::close`] sends all of them,
    /// and returns an error if it cannot; [`Client::flush`] waits until the server has acknowledged
    /// all of them.
    ///
    /// # Errors
    /// See [`SendError`]; never [`SendError::Full`].
    pub async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        let (cost, link) = self.cost_and_link(message)?;
        let room = self.shared.queue().acquire_many(cost).await;
        let room = room.map_err(|_| SendError::Closed)?;
        if self.shared.current_link()? != link {
            return Err(SendError::NotConnected);
        }
        let slot = self.requests.reserve().await.map_err(|_| SendError::Closed)?;
        room.forget();
        slot.send(Request::Send { bytes: message.to_vec(), cost: cost as usize, link });
        Ok(())
    }

    /// Sends a message if the queue has room now. `Ok` means what it means for [`Client::send`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn try_send(&self, message: &[u8]) -> Result<(), SendError> {
        let (cost, link) = self.cost_and_link(message)?;
        let room = self.shared.queue().try_acquire_many(cost).map_err(|_| SendError::Full)?;
        let slot = self.requests.try_reserve().map_err(|_| SendError::Full)?;
        room.forget();
        slot.send(Request::Send { bytes: message.to_vec(), cost: cost as usize, link });
        Ok(())
    }

    /// Waits until the server has acknowledged every message that [`Client::send`] or
    /// [`Client::try_send`] accepted before this call, those that wait for room in the window too.
    /// The server is asked to acknowledge at once.
    ///
    /// Only a session with a window has acknowledgements: the codec is [`crate::Codec::Native`],
    /// and the server offers a window. There is no time limit other than the life of the session: a
    /// flush waits as long as it takes to reconnect. Several flushes may wait at once. Cancel-safe:
    /// a canceled call changes nothing.
    ///
    /// # Errors
    /// See [`FlushError`]. A loss of messages with a link or a session is reported by the flushes
    /// that wait at that moment, and by each later one until one of them has returned the error.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let link = self.shared.current_link().map_err(|error| match error {
            SendError::Closed => FlushError::Closed,
            SendError::NotConnected | SendError::TooLong { .. } | SendError::Full => {
                FlushError::NotConnected
            }
        })?;
        let (reply, answer) = oneshot::channel();
        let request = self.requests.send(Request::Flush { reply, link });
        request.await.map_err(|_| FlushError::Closed)?;
        match answer.await.map_err(|_| FlushError::Closed)? {
            FlushAnswer::Acknowledged => Ok(()),
            FlushAnswer::NoWindow => Err(FlushError::NoWindow),
            FlushAnswer::Lost { losses, messages } => {
                self.shared.set_reported_losses(losses);
                Err(messages.map_or(FlushError::Lost, |unacknowledged| FlushError::NotResumed {
                    unacknowledged,
                }))
            }
        }
    }

    /// Attaches these bytes to every heartbeat from now on, also on later links; empty for none.
    /// Only the native codec can carry them.
    ///
    /// # Errors
    /// `TooLong` above [`MAX_HEARTBEAT_DATA`]; `Closed` after the client has ended.
    pub async fn set_heartbeat_data(&self, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.len() > MAX_HEARTBEAT_DATA {
            return Err(SendError::TooLong { longest: MAX_HEARTBEAT_DATA });
        }
        self.request(Request::HeartbeatData(bytes.to_vec())).await
    }

    /// Sends a heartbeat now; [`Event::RoundTrip`] and [`Event::HeartbeatAnswered`] report its
    /// answer, with [`Options::report_heartbeats`]. It changes neither the policy nor the bound.
    /// Without a link nothing is sent.
    ///
    /// # Errors
    /// `Closed` after the client has ended.
    pub async fn send_heartbeat(&self) -> Result<(), SendError> {
        self.request(Request::Heartbeat).await
    }

    /// Asks the gateway for this policy, now and at each reconnect;
    /// [`Retuned`](crate::session::Event::Retuned) reports the policy granted. In codecs without
    /// negotiation, the policy is in force at once.
    ///
    /// # Errors
    /// `Closed` after the client has ended.
    pub async fn ask_policy(&self, policy: Policy) -> Result<(), SendError> {
        self.request(Request::AskPolicy(policy)).await
    }

    /// Sends the queued messages, then CLOSE, and returns when the client has ended;
    /// [`Event::Closed`] reports it too. In a session with a window, CLOSE waits until the server
    /// has acknowledged all messages, within the limits below; no call sends any more meanwhile.
    ///
    /// `Ok` means that the server's system has acknowledged all messages of the last link; whether
    /// the server's application has read them, only its answers tell. Messages that were lost with
    /// an earlier link or session, before [`Event::Reconnected`], are not counted.
    ///
    /// While the server takes bytes this goes on, for at most 60 s; a server that takes none is
    /// given up after 5 s. If messages of a session that is away are not acknowledged, the client
    /// resumes it first, and gives up after 5 s without a link; [`Event::NotResumed`] then returns
    /// them, before [`Event::Closed`]. A canceled call changes nothing: the client ends in the
    /// background.
    ///
    /// # Errors
    /// See [`CloseError`].
    pub async fn close(&self, reason: CloseReason) -> Result<(), CloseError> {
        self.request(Request::Close(reason)).await.map_err(|_| CloseError::Closed)?;
        // The task drops its end of the channel when it ends.
        self.requests.closed().await;
        match self.shared.ending() {
            Some(Ending::Finished) => Ok(()),
            Some(Ending::Undelivered) => Err(CloseError::Undelivered),
            Some(Ending::NotReconnecting | Ending::Stopped(_)) | None => Err(CloseError::Closed),
        }
    }

    /// Returns the queue permits of a message, and the number of the link for it.
    fn cost_and_link(&self, message: &[u8]) -> Result<(u32, u64), SendError> {
        // Read first: the lengths of a link are set before its number.
        let link = self.shared.current_link();
        let cost = self.shared.cost(message.len())?;
        Ok((cost, link?))
    }

    async fn request(&self, request: Request) -> Result<(), SendError> {
        self.requests.send(request).await.map_err(|_| SendError::Closed)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("connected", &self.shared.current_link().is_ok()).finish()
    }
}

#[cfg(test)]
mod tests;
