//! The transport of TLS 1.2 and 1.3 (RFC 5246, RFC 8446), by rustls.

use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use systole_core::wire::Malformed;

use super::{End, MAX_RECORD, Opened, Transport};

/// The first bytes of records (RFC 8446, 5.1).
const RECORD_KINDS: RangeInclusive<u8> = 20..=23;

/// One end of a TLS connection. Until the handshake is over it takes no plaintext.
///
/// rustls bounds what it holds of the peer: a part of one record, or 64 KiB of a handshake message.
/// An idle connection owns what rustls holds and `LARGEST` bytes at most.
#[derive(Debug)]
pub struct Tls {
    connection: Connection,
    /// What the socket has not taken; `None` if it has taken everything, as on an idle connection.
    sealed: Option<Box<Sealed>>,
    /// Plaintext that rustls holds, in bytes; `u32::MAX` if it is not known how much.
    held: u32,
    /// Whether nothing was asked for since the handshake: plaintext may have waited for its end.
    is_new: bool,
    close: Close,
    end: PeerEnd,
    /// Whether the first byte that the peer has sent begins a record.
    begins_record: Option<bool>,
}

/// The most that an idle connection takes beside what rustls holds, in bytes.
const LARGEST: usize = 24;

const _: () = assert!(size_of::<Tls>() <= size_of::<ServerConnection>() + LARGEST);

/// Sealed bytes on their way to the socket.
#[derive(Debug)]
struct Sealed {
    bytes: Vec<u8>,
    /// How many of the bytes the socket has taken.
    written: usize,
    /// The bytes of plaintext in the record, until they are told.
    taken: usize,
}

/// The close of this end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Close {
    No,
    /// It follows the plaintext.
    Wanted,
    Sealed,
}

/// How the peer's transport has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PeerEnd {
    No,
    /// It has closed or broken the rules, which is told after the plaintext that came before.
    Untold(Ending),
    Told(Ending),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Closed,
    Illegal(Malformed),
}

impl From<Ending> for Opened {
    fn from(ending: Ending) -> Opened {
        match ending {
            Ending::Closed => Opened::Closed,
            Ending::Illegal(why) => Opened::Illegal(why),
        }
    }
}

impl Tls {
    /// Creates the accepting end.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn accept(config: Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        Ok(Tls::new(ServerConnection::new(config)?.into()))
    }

    /// Creates the connecting end, which expects a certificate for `name`, and names these
    /// protocols (ALPN, RFC 7301).
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn: &[&[u8]],
    ) -> Result<Tls, rustls::Error> {
        let alpn = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Tls::new(ClientConnection::new_with_alpn(config, name, alpn)?.into()))
    }

    const fn new(connection: Connection) -> Tls {
        Tls {
            connection,
            sealed: None,
            held: 0,
            is_new: true,
            close: Close::No,
            end: PeerEnd::No,
            begins_record: None,
        }
    }

    /// Returns the certificate that the peer has shown and that was verified; `None` before that,
    /// or if none was asked for.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates()?.first()
    }

    /// Changes the keys by which this end seals, as a peer may at any time.
    #[cfg(test)]
    pub(super) fn change_keys(&mut self) {
        self.connection.refresh_traffic_keys().expect("TLS 1.3 is open");
    }

    /// Returns what an error says of the peer.
    fn explain(&self, error: &rustls::Error) -> Malformed {
        use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
        if matches!(error, AlertReceived(_)) {
            Malformed::TlsRefused
        } else if matches!(error, InvalidCertificate(_) | NoCertificatesPresented) {
            Malformed::Certificate
        } else if self.begins_record == Some(false) {
            Malformed::NoTls
        } else {
            Malformed::Record
        }
    }

    /// Moves what rustls holds of plaintext to `buffer`. Returns the number of bytes.
    fn take_plaintext(&mut self, buffer: &mut [u8]) -> usize {
        let mut count = 0;
        while self.held > 0 && count < buffer.len() {
            // It fails only where there is no plaintext.
            let Ok(read @ 1..) = self.connection.reader().read(&mut buffer[count..]) else {
                self.held = 0;
                break;
            };
            count += read;
            self.held = self.held.saturating_sub(bytes_held(read));
        }
        count
    }

    /// Hands `bytes` to rustls. Returns how many it took; all records that are whole are opened.
    fn take_sealed(&mut self, mut bytes: &[u8]) -> usize {
        self.begins_record =
            self.begins_record.or(bytes.first().map(|kind| RECORD_KINDS.contains(kind)));
        // It fails only while more plaintext waits than the record before has left, and takes
        // nothing once the peer has closed.
        let Ok(count @ 1..) = self.connection.read_tls(&mut bytes) else {
            self.end = PeerEnd::Untold(Ending::Illegal(Malformed::Record));
            return 0;
        };
        match self.connection.process_new_packets() {
            Ok(state) => {
                self.held = bytes_held(state.plaintext_bytes_to_read());
                if state.peer_has_closed() {
                    self.end = PeerEnd::Untold(Ending::Closed);
                }
            }
            Err(error) => {
                // How much plaintext came before is not told: as much as can be read.
                self.held = u32::MAX;
                self.end = PeerEnd::Untold(Ending::Illegal(self.explain(&error)));
            }
        }
        count
    }

    /// Hands the front of `plaintext` to rustls, or the close behind all plaintext. Returns how
    /// many bytes of plaintext it took.
    fn feed(&mut self, plaintext: &[u8]) -> usize {
        let is_open = self.is_open();
        self.is_new &= !is_open;
        if !is_open || self.connection.wants_write() {
            return 0;
        }
        let record = &plaintext[..plaintext.len().min(MAX_RECORD)];
        if !record.is_empty() {
            // This never fails, and takes a whole record: the limit is 64 KiB.
            return self.connection.writer().write(record).unwrap_or(0);
        }
        if self.close == Close::Wanted {
            self.close = Close::Sealed;
            self.connection.send_close_notify();
        }
        0
    }

    /// Takes what rustls has sealed, with `taken` bytes of plaintext in it.
    fn collect(&mut self, taken: usize) {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            // Writing to a vector never fails.
            if self.connection.write_tls(&mut bytes).is_err() {
                break;
            }
        }
        if !bytes.is_empty() {
            self.sealed = Some(Box::new(Sealed { bytes, written: 0, taken }));
        }
    }
}

/// Returns a number of bytes that rustls holds, which is far below 4 GiB.
fn bytes_held(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Transport for Tls {
    fn open(&mut self, buffer: &mut [u8], received: usize) -> Opened {
        let (mut opened, mut filled) = (0, 0);
        loop {
            // What is not opened yet must not be overwritten.
            let room = if opened == received { buffer.len() } else { opened };
            filled += self.take_plaintext(&mut buffer[filled..room]);
            if opened == received || self.end != PeerEnd::No {
                break;
            }
            opened += self.take_sealed(&buffer[opened..received]);
        }
        if self.end != PeerEnd::No {
            // What follows the end is not looked at.
            filled += self.take_plaintext(&mut buffer[filled..]);
        }
        match self.end {
            _ if filled > 0 => Opened::Plaintext(filled),
            PeerEnd::Untold(end) if self.held == 0 => {
                self.end = PeerEnd::Told(end);
                end.into()
            }
            PeerEnd::No | PeerEnd::Untold(_) | PeerEnd::Told(_) => Opened::Nothing,
        }
    }

    fn holds_more(&self) -> bool {
        self.held > 0 || matches!(self.end, PeerEnd::Untold(_))
    }

    fn has_closed(&self) -> bool {
        self.end == PeerEnd::Told(Ending::Closed)
    }

    fn end(&mut self) -> Option<End> {
        let closed = matches!(self.end, PeerEnd::Told(Ending::Closed));
        (!closed).then_some(End::Truncated)
    }

    fn seal<'a>(&'a mut self, plaintext: &'a [u8]) -> &'a [u8] {
        if self.sealed.is_none() {
            let taken = self.feed(plaintext);
            self.collect(taken);
        }
        self.sealed.as_deref().and_then(|it| it.bytes.get(it.written..)).unwrap_or_default()
    }

    fn sent(&mut self, count: usize) -> usize {
        let Some(sealed) = &mut self.sealed else {
            return 0;
        };
        sealed.written += count;
        let taken = std::mem::take(&mut sealed.taken);
        if sealed.written >= sealed.bytes.len() {
            self.sealed = None;
        }
        taken
    }

    fn has_unsent(&self) -> bool {
        let opened = self.is_open() && (self.is_new || self.close == Close::Wanted);
        opened || self.sealed.is_some() || self.connection.wants_write()
    }

    fn is_open(&self) -> bool {
        !self.connection.is_handshaking()
    }

    fn finish(&mut self) {
        if self.close == Close::No {
            self.close = Close::Wanted;
        }
    }
}
