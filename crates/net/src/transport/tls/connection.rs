//! The state of rustls, by one code for both sides of a connection.

use std::fmt;

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

/// The room that is first tried for what sealing adds to a record: at most 30 bytes with the
/// ciphers of TLS 1.2 and 1.3, and a change of keys in front.
const SEAL_OVERHEAD: usize = 64;

/// The state of rustls, which both sides of a connection use in the same way.
pub(super) enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

// rustls shows nothing of these states.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Connection::Client(_) => "Client",
            Connection::Server(_) => "Server",
        })
    }
}

/// Lets rustls take its next step with these bytes of the peer, and calls a function with the
/// status that follows.
macro_rules! step {
    ($connection:expr, $bytes:expr, $status:ident => $call:expr) => {
        match $connection {
            Connection::Client(it) => {
                let $status = it.process_tls_records($bytes);
                $call
            }
            Connection::Server(it) => {
                let $status = it.process_tls_records($bytes);
                $call
            }
        }
    };
}

/// Sealed bytes on their way to the socket.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    pub(super) bytes: Vec<u8>,
    /// How many of the bytes the socket has taken.
    pub(super) written: usize,
    /// The bytes of plaintext in the record, until they are told.
    pub(super) taken: usize,
}

impl Sealed {
    /// Adds sealed bytes, which are not copied where there are none before.
    fn append(&mut self, more: Vec<u8>) {
        if self.bytes.is_empty() {
            self.bytes = more;
        } else {
            self.bytes.extend_from_slice(&more);
        }
    }
}

/// What a step of rustls comes to.
pub(super) enum Step {
    /// Another step can follow at once.
    Again,
    /// rustls holds the plaintext of one record.
    Plaintext,
    /// All records that are whole were opened.
    Starved,
    /// The peer's transport has closed.
    Closed,
    /// The peer broke the rules, or refuses us; `None` if rustls asks for what was not configured.
    Failed(Option<rustls::Error>),
}

/// What is to be sealed.
#[derive(Clone, Copy)]
pub(super) enum Wish<'a> {
    Record(&'a [u8]),
    Close,
    #[cfg(test)]
    NewKeys,
}

impl Connection {
    pub(super) fn state(&self) -> &CommonState {
        match self {
            Connection::Client(it) => it,
            Connection::Server(it) => it,
        }
    }

    /// Carries out the next step, which opens or seals what is due. Returns how many bytes were
    /// opened, and what follows. The bytes are all that were not opened; or none, but only while
    /// rustls has something to send, because it then looks at no bytes.
    pub(super) fn advance(
        &mut self,
        bytes: &mut [u8],
        sealed: &mut Option<Box<Sealed>>,
    ) -> (usize, Step) {
        step!(self, bytes, status => advance(status, sealed))
    }

    /// Hands out the plaintext that rustls holds.
    pub(super) fn take_plaintext(&mut self, mut take: impl FnMut(&[u8])) {
        // rustls looks at no bytes while it holds plaintext.
        step!(self, &mut [], status => {
            if let Ok(ConnectionState::ReadTraffic(mut traffic)) = status.state {
                while let Some(Ok(record)) = traffic.next_record() {
                    take(record.payload);
                }
            }
        });
    }

    /// Seals what is wished if rustls can do so now. Returns how many bytes of plaintext were
    /// taken. The bytes are all that were not opened.
    ///
    /// # Errors
    /// The step that was carried out instead.
    pub(super) fn seal(
        &mut self,
        bytes: &mut [u8],
        wish: Wish<'_>,
        sealed: &mut Option<Box<Sealed>>,
    ) -> Result<usize, Step> {
        step!(self, bytes, status => seal(status, wish, sealed))
    }
}

/// Carries out what rustls asks for first, unless it is to seal something. Returns how many bytes
/// it has opened, and what follows.
fn advance<D>(
    status: UnbufferedStatus<'_, '_, D>,
    sealed: &mut Option<Box<Sealed>>,
) -> (usize, Step) {
    let step = match status.state {
        Ok(ConnectionState::EncodeTlsData(mut message)) => {
            let bytes = &mut sealed.get_or_insert_default().bytes;
            let len = bytes.len();
            if let Err(EncodeError::InsufficientSize(lack)) = message.encode(&mut []) {
                bytes.resize(len + lack.required_size, 0);
                // It fails only where there is less room.
                let _ = message.encode(&mut bytes[len..]);
            }
            Step::Again
        }
        Ok(ConnectionState::TransmitTlsData(message)) => {
            message.done();
            Step::Again
        }
        Ok(ConnectionState::ReadTraffic(_)) => Step::Plaintext,
        Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => Step::Starved,
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::Closed,
        // Early data, which nobody has offered.
        Ok(_) => Step::Failed(None),
        Err(error) => Step::Failed(Some(error)),
    };
    (status.discard, step)
}

fn seal<D>(
    status: UnbufferedStatus<'_, '_, D>,
    wish: Wish<'_>,
    sealed: &mut Option<Box<Sealed>>,
) -> Result<usize, Step> {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
        return Err(advance(status, sealed).1);
    };
    let (bytes, taken) = match wish {
        Wish::Record(record) => {
            (with_room(record.len(), |room| traffic.encrypt(record, room)), record.len())
        }
        Wish::Close => (with_room(0, |room| traffic.queue_close_notify(room)), 0),
        #[cfg(test)]
        Wish::NewKeys => {
            traffic.refresh_traffic_keys().expect("TLS 1.3 is open");
            (Vec::new(), 0)
        }
    };
    if !bytes.is_empty() {
        sealed.get_or_insert_default().append(bytes);
    }
    Ok(taken)
}

/// Returns what a function of rustls writes for `len` bytes of plaintext; nothing if it refuses.
fn with_room(
    len: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Vec<u8> {
    let mut bytes = vec![0; len + SEAL_OVERHEAD];
    loop {
        match write(&mut bytes) {
            Ok(count) => {
                bytes.truncate(count);
                return bytes;
            }
            Err(EncryptError::InsufficientSize(lack)) if lack.required_size > bytes.len() => {
                bytes.resize(lack.required_size, 0);
            }
            Err(_) => return Vec::new(),
        }
    }
}
