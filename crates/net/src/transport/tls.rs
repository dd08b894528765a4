//! The transport of TLS 1.2 and 1.3 (RFC 5246, RFC 8446), by rustls.
//!
//! rustls opens records where they were read and keeps no bytes of its own between two calls
//! ([`rustls::unbuffered`]). So what a connection holds beside its keys is held here, and only
//! while there is something to hold.

mod connection;

use std::ops::RangeInclusive;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};

use systole_core::wire::Malformed;

use super::{End, Held, MAX_RECORD, Opened, Transport};
use crate::tls::Distrust;
use connection::{Connection, Sealed, Step, Wish};

/// The first bytes of records (RFC 8446, 5.1).
const RECORD_KINDS: RangeInclusive<u8> = 20..=23;

/// The length of a record's header in bytes.
const RECORD_HEADER: usize = 5;

/// The length at which received bytes that cannot be opened yet are illegal. rustls refuses a
/// longer record by its header, and a longer message of the handshake by its own; a shorter message
/// that comes in tiny records would hold more than this without a limit.
const MAX_UNOPENED: usize = 64 * 1024;

/// One end of a TLS connection. Until the handshake is over it takes no plaintext.
///
/// Of the peer it holds a part of one record, or less than `MAX_UNOPENED` bytes of a handshake
/// message, and the plaintext of one read. An idle connection owns what rustls holds and `LARGEST`
/// bytes at most.
#[derive(Debug)]
pub struct Tls {
    connection: Connection,
    /// What the socket has not taken; `None` if it has taken everything, as on an idle connection.
    sealed: Option<Box<Sealed>>,
    /// What has come from the peer and waits; `None` if nothing does, as on an idle connection.
    held: Option<Box<Waiting>>,
    /// Whether nothing was asked for since the handshake: plaintext may have waited for its end.
    is_new: bool,
    close: Close,
    end: PeerEnd,
    /// Whether the first byte that the peer has sent begins a record.
    begins_record: Option<bool>,
    distrust: Option<Distrust>,
}

/// The most that an idle connection takes beside what rustls holds, in bytes.
const LARGEST: usize = 24;

const _: () = assert!(size_of::<Tls>() <= size_of::<Connection>() + LARGEST);

/// Bytes that have come from the peer and wait.
#[derive(Debug, Default)]
struct Waiting {
    /// A part of a record, or the records of an incomplete handshake message and what follows.
    unopened: Vec<u8>,
    /// Plaintext that did not fit into the buffer of the caller.
    plaintext: Vec<u8>,
    /// How many bytes of the plaintext the caller has taken.
    taken: usize,
}

impl Waiting {
    fn waiting(&self) -> &[u8] {
        self.plaintext.get(self.taken..).unwrap_or_default()
    }
}

/// Returns the length that received bytes will have at least once they can be opened: that of the
/// record that they begin; or one byte more, if that is whole and waits for the next one, which
/// brings the rest of a message.
fn announced(unopened: &[u8]) -> usize {
    let record = match unopened {
        [_, _, _, high, low, ..] => RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low])),
        _ => RECORD_HEADER,
    };
    record.max(unopened.len() + 1)
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
        Ok(Tls::new(Connection::Server(UnbufferedServerConnection::new(config)?)))
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
        let connection = UnbufferedClientConnection::new_with_alpn(config, name, alpn)?;
        Ok(Tls::new(Connection::Client(connection)))
    }

    const fn new(connection: Connection) -> Tls {
        Tls {
            connection,
            sealed: None,
            held: None,
            is_new: true,
            close: Close::No,
            end: PeerEnd::No,
            begins_record: None,
            distrust: None,
        }
    }

    /// Returns the certificate that the peer has shown and that was verified; `None` before that,
    /// or if none was asked for.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.state().peer_certificates()?.first()
    }

    /// Returns why the peer's certificate was not believed; `None` if that is not what ended the
    /// connection.
    pub const fn distrust(&self) -> Option<Distrust> {
        self.distrust
    }

    /// Returns whether the handshake is complete.
    pub fn is_secured(&self) -> bool {
        !self.connection.state().is_handshaking()
    }

    /// Changes the keys by which this end seals, as a peer may at any time.
    #[cfg(test)]
    pub(super) fn change_keys(&mut self) {
        self.fulfil(Wish::NewKeys);
    }

    /// Returns the numbers of bytes that wait: unopened, as plaintext, and sealed; `None` if the
    /// connection owns nothing on the heap beside what rustls does.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> Option<[usize; 3]> {
        if self.held.is_none() && self.sealed.is_none() {
            return None;
        }
        let (unopened, plaintext) =
            self.held.as_ref().map_or((0, 0), |it| (it.unopened.len(), it.waiting().len()));
        Some([unopened, plaintext, self.sealed.as_ref().map_or(0, |it| it.bytes.len())])
    }

    /// Returns what an error says of the peer.
    fn explain(&self, error: Option<&rustls::Error>) -> Malformed {
        if matches!(error, Some(rustls::Error::AlertReceived(_))) {
            Malformed::TlsRefused
        } else if self.distrust.is_some() {
            Malformed::Certificate
        } else if self.begins_record == Some(false) {
            Malformed::NoTls
        } else {
            Malformed::Record
        }
    }

    /// Opens the first `received` bytes of `buffer`, or `joined`, of which they are the last part,
    /// and puts the plaintext behind the first `filled` bytes. Returns the new number of bytes
    /// there.
    fn open_records(
        &mut self,
        buffer: &mut [u8],
        received: usize,
        mut joined: Option<Vec<u8>>,
        mut filled: usize,
    ) -> usize {
        let mut opened = 0;
        let len = joined.as_ref().map_or(received, Vec::len);
        loop {
            let sealed = joined.as_mut().map_or(&mut buffer[..received], |it| &mut it[..]);
            let (count, step) = self.connection.advance(&mut sealed[opened..], &mut self.sealed);
            opened += count;
            match step {
                Step::Again => {}
                Step::Plaintext => {
                    // What is not opened yet must not be overwritten.
                    let is_free = joined.is_some() || opened == received;
                    let room = if is_free { buffer.len() } else { opened };
                    filled += self.take_opened(&mut buffer[filled..room]);
                    if opened == len {
                        break;
                    }
                }
                Step::Starved => break,
                Step::Closed => self.end = PeerEnd::Untold(Ending::Closed),
                Step::Failed(why) => {
                    self.distrust = why.as_ref().and_then(Distrust::of);
                    let why = self.explain(why.as_ref());
                    self.end = PeerEnd::Untold(Ending::Illegal(why));
                }
            }
            if self.end != PeerEnd::No {
                // What follows the end is not looked at.
                return filled;
            }
        }
        if len - opened >= MAX_UNOPENED {
            self.end = PeerEnd::Untold(Ending::Illegal(Malformed::Record));
        } else if opened < len {
            let unopened = match joined {
                Some(all) if opened == 0 => all,
                Some(all) => all[opened..].to_vec(),
                None => buffer[opened..received].to_vec(),
            };
            self.held.get_or_insert_default().unopened = unopened;
        }
        filled
    }

    /// Moves the plaintext of the record that rustls has opened to `room`; what does not fit waits.
    /// Returns the number of bytes.
    fn take_opened(&mut self, room: &mut [u8]) -> usize {
        let mut count = self.take_waiting(room);
        self.connection.take_plaintext(|record| {
            let fits = record.len().min(room.len() - count);
            let (now, later) = record.split_at(fits);
            room[count..count + fits].copy_from_slice(now);
            count += fits;
            if !later.is_empty() {
                self.held.get_or_insert_default().plaintext.extend_from_slice(later);
            }
        });
        count
    }

    /// Moves plaintext that waits to `room`. Returns the number of bytes.
    fn take_waiting(&mut self, room: &mut [u8]) -> usize {
        let Some(held) = &mut self.held else {
            return 0;
        };
        let waiting = held.waiting();
        let count = waiting.len().min(room.len());
        room[..count].copy_from_slice(&waiting[..count]);
        held.taken += count;
        if held.taken == held.plaintext.len() {
            (held.plaintext, held.taken) = (Vec::new(), 0);
        }
        count
    }

    /// Takes what rustls has to send, or seals the front of `plaintext`, or the close behind all
    /// plaintext.
    fn feed(&mut self, plaintext: &[u8]) {
        let is_open = self.is_open();
        self.is_new &= !is_open;
        self.collect();
        if !is_open || self.sealed.is_some() {
            return;
        }
        let record = &plaintext[..plaintext.len().min(MAX_RECORD)];
        if !record.is_empty() {
            self.fulfil(Wish::Record(record));
        } else if self.close == Close::Wanted {
            self.close = Close::Sealed;
            self.fulfil(Wish::Close);
        }
    }

    /// Seals what is wished.
    fn fulfil(&mut self, wish: Wish<'_>) {
        let taken = loop {
            // An incomplete message of the handshake is known to rustls by its place in these
            // bytes. No step opens any of them: `open` has left no whole record.
            let unopened = self.held.as_mut().map_or(&mut [][..], |it| &mut it.unopened);
            match self.connection.seal(unopened, wish, &mut self.sealed) {
                Ok(taken) => break taken,
                Err(Step::Again) => {}
                Err(_) => return,
            }
        };
        // A key that is worn out seals no record but the close, and new keys are announced.
        self.collect();
        if let Some(sealed) = &mut self.sealed {
            sealed.taken = taken;
        }
    }

    const fn is_broken(&self) -> bool {
        matches!(self.end, PeerEnd::Untold(Ending::Illegal(_)) | PeerEnd::Told(Ending::Illegal(_)))
    }

    /// Takes what rustls has sealed of its own accord: the handshake, answers and alerts.
    fn collect(&mut self) {
        while self.connection.state().wants_write() {
            // rustls looks at no bytes while it has something to send.
            let (_, step) = self.connection.advance(&mut [], &mut self.sealed);
            if !matches!(step, Step::Again) {
                return;
            }
        }
    }
}

impl Transport for Tls {
    fn open(&mut self, buffer: &mut [u8], received: usize) -> Opened {
        let news = &buffer[..received];
        self.begins_record =
            self.begins_record.or(news.first().map(|kind| RECORD_KINDS.contains(kind)));
        // What is received joins what waits for it, and then the buffer is free.
        let joined = self.held.as_mut().map(|held| {
            let mut unopened = std::mem::take(&mut held.unopened);
            unopened.extend_from_slice(news);
            unopened
        });
        let mut filled = self.take_waiting(buffer);
        if self.end == PeerEnd::No {
            filled = self.open_records(buffer, received, joined, filled);
        }
        self.held.take_if(|held| held.unopened.is_empty() && held.plaintext.is_empty());
        match self.end {
            _ if filled > 0 => Opened::Plaintext(filled),
            PeerEnd::Untold(end) if self.held.is_none() => {
                self.end = PeerEnd::Told(end);
                end.into()
            }
            PeerEnd::No | PeerEnd::Untold(_) | PeerEnd::Told(_) => Opened::Nothing,
        }
    }

    fn holds_more(&self) -> bool {
        let waits = self.held.as_ref().is_some_and(|held| !held.plaintext.is_empty());
        waits || matches!(self.end, PeerEnd::Untold(_))
    }

    fn has_closed(&self) -> bool {
        self.end == PeerEnd::Told(Ending::Closed)
    }

    fn held(&self) -> Held {
        let Some(waiting) = self.held.as_ref().filter(|it| !it.unopened.is_empty()) else {
            return Held::default();
        };
        // Both are far below what fits.
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let memory = size_of::<Waiting>() + waiting.unopened.capacity();
        Held { memory: size(memory), length: size(announced(&waiting.unopened)) }
    }

    fn end(&mut self) -> Option<End> {
        let closed = matches!(self.end, PeerEnd::Told(Ending::Closed));
        (!closed).then_some(End::Truncated)
    }

    fn seal<'a>(&'a mut self, plaintext: &'a [u8]) -> &'a [u8] {
        if self.sealed.is_none() {
            self.feed(plaintext);
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
        opened || self.sealed.is_some() || self.connection.state().wants_write()
    }

    fn is_open(&self) -> bool {
        // After a fatal alert, sent or received, nothing follows (RFC 8446, 6.2).
        !self.connection.state().is_handshaking() && !self.is_broken()
    }

    fn finish(&mut self) {
        if self.close == Close::No {
            self.close = Close::Wanted;
        }
    }
}
