//! The application's handle.

use std::fmt;
use std::sync::Arc;

use systole_core::Policy;
use systole_core::wire::{CloseReason, MAX_HEARTBEAT_DATA};
use tokio::sync::mpsc;

use crate::driver::Driver;
use crate::shared::{COMMANDS, Request, Shared};
use crate::{ConnectError, Event, Options, SendError};

/// A link to a server, and its successors.
///
/// One task drives it and never waits for the application: if events are not taken, messages wait
/// up to a megabyte and then the socket is no longer read; of other events, beyond 256, the older
/// of each kind give way. While the socket is not read, the server's silence is not held against
/// it. The server's own patience is not changed by that: who takes no messages for longer than the
/// bound is given up by it, as the policy says.
///
/// All methods take `&self`, so that an `Arc` of it can be sent from one task and listened to in
/// another. Dropped, it says goodbye.
pub struct Client {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Request>,
}

impl Client {
    /// Connects to `addr`, a `host:port`, and returns when the handshake is complete.
    ///
    /// The first attempt is the only one: a wrong address is an error to be told. Later losses are
    /// answered as [`Options::reconnect`] says. Must be called within a Tokio runtime with its time
    /// and I/O enabled.
    ///
    /// # Errors
    /// See [`ConnectError`]; no later than `connect_timeout` + `handshake_timeout`.
    pub async fn connect(addr: impl ToString, options: Options) -> Result<Client, ConnectError> {
        let shared = Arc::new(Shared::new(options.codec, options.send_queue));
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let mut driver = Driver::new(addr.to_string(), options, Arc::clone(&shared), inbox)?;
        let connection = driver.open().await?;
        tokio::spawn(driver.run(connection));
        Ok(Client { shared, commands })
    }

    /// The next event, in order; `None` after [`Event::Closed`]. Cancel-safe.
    pub async fn next_event(&self) -> Option<Event> {
        self.shared.next_event().await
    }

    /// Sends a message, waiting for room in the queue ([`Options::send_queue`]). Cancel-safe: what
    /// was not taken is not sent.
    ///
    /// `Ok` says that it was queued. If the link is lost before it has left, it is gone.
    ///
    /// # Errors
    /// See [`SendError`]; never [`SendError::Full`].
    pub async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        let cost = self.shared.cost(message.len())?;
        let link = self.shared.standing()?;
        let room = self.shared.queue().acquire_many(cost).await;
        let room = room.map_err(|_| SendError::Closed)?;
        if self.shared.standing()? != link {
            return Err(SendError::NotConnected);
        }
        let slot = self.commands.reserve().await.map_err(|_| SendError::Closed)?;
        room.forget();
        slot.send(Request::Send { bytes: message.to_vec(), cost: cost as usize, link });
        Ok(())
    }

    /// Sends a message if the queue has room for it now.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn try_send(&self, message: &[u8]) -> Result<(), SendError> {
        let cost = self.shared.cost(message.len())?;
        let link = self.shared.standing()?;
        let room = self.shared.queue().try_acquire_many(cost).map_err(|_| SendError::Full)?;
        let slot = self.commands.try_reserve().map_err(|_| SendError::Full)?;
        room.forget();
        slot.send(Request::Send { bytes: message.to_vec(), cost: cost as usize, link });
        Ok(())
    }

    /// Lets these bytes ride on every heartbeat from now on, those of later links included; none if
    /// empty. Codecs other than the native one cannot carry them.
    ///
    /// # Errors
    /// `TooLong` above [`MAX_HEARTBEAT_DATA`], `Closed` at the end.
    pub async fn set_heartbeat_data(&self, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.len() > MAX_HEARTBEAT_DATA {
            return Err(SendError::TooLong { longest: MAX_HEARTBEAT_DATA });
        }
        self.command(Request::HeartbeatData(bytes.to_vec())).await
    }

    /// Asks the gateway for this policy, now and at each reconnect; [`Event::Retuned`] tells what
    /// it grants. Where nobody can be asked, as in the older codecs, it is in force at once.
    ///
    /// # Errors
    /// `Closed` at the end.
    pub async fn ask_policy(&self, policy: Policy) -> Result<(), SendError> {
        self.command(Request::AskPolicy(policy)).await
    }

    /// Says goodbye and reconnects no more. What is queued is sent first, within two seconds;
    /// [`Event::Closed`] tells that it is done.
    ///
    /// # Errors
    /// `Closed` if it was at its end before.
    pub async fn close(&self, reason: CloseReason) -> Result<(), SendError> {
        self.command(Request::Close(reason)).await
    }

    async fn command(&self, command: Request) -> Result<(), SendError> {
        self.commands.send(command).await.map_err(|_| SendError::Closed)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("connected", &self.shared.standing().is_ok()).finish()
    }
}
