//! A toy of a transport that seals records, as TLS does: with a greeting that is answered, records
//! without plaintext, plaintext that waits inside, and a close of its own.

use systole_core::wire::Malformed;

use super::{End, Held, MAX_RECORD, Opened, Transport};

/// The bytes before each record: its kind, and its length in two bytes.
pub(crate) const HEADER: usize = 3;

/// The kinds of record. Each end first sends a greeting, which the other answers.
const DATA: u8 = 0x17;
const NOTHING: u8 = 0x18;
const GREETING: u8 = 0x19;
const ANSWER: u8 = 0x1a;
const CLOSE: u8 = 0x15;

/// One end of the toy.
#[derive(Debug)]
pub(crate) struct Records {
    /// Received bytes that are not opened yet: a part of a record, and records that wait.
    incoming: Vec<u8>,
    /// The rest of the plaintext of a record that was opened.
    plaintext: Vec<u8>,
    /// The sealed bytes that the socket has not taken.
    unsent: Vec<u8>,
    /// The plaintext that was sealed by the last call and is not yet told.
    sealed: usize,
    opened_records: u8,
    sealed_records: u8,
    closing: Closing,
    has_closed: bool,
    is_broken: bool,
    /// Whether the greeting of this end was answered.
    pub(crate) is_answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    No,
    /// The close goes behind what is sealed.
    Wanted,
    Sealed,
}

impl Default for Records {
    fn default() -> Records {
        let mut records = Records {
            incoming: Vec::new(),
            plaintext: Vec::new(),
            unsent: Vec::new(),
            sealed: 0,
            opened_records: 0,
            sealed_records: 0,
            closing: Closing::No,
            has_closed: false,
            is_broken: false,
            is_answered: false,
        };
        records.add(GREETING, &[]);
        records
    }
}

impl Records {
    /// Seals a record without plaintext.
    pub(crate) fn whisper(&mut self) {
        self.add(NOTHING, &[]);
    }

    fn add(&mut self, kind: u8, plaintext: &[u8]) {
        self.unsent.push(kind);
        self.unsent.extend_from_slice(&(plaintext.len() as u16).to_be_bytes());
        let key = self.sealed_records;
        self.unsent.extend(plaintext.iter().map(|byte| byte ^ key ^ 0x5a));
        self.sealed_records = self.sealed_records.wrapping_add(1);
    }

    /// Returns the kind and the length of the first record that waits; `None` if it is not whole.
    fn first(&self) -> Option<(u8, usize)> {
        let &[kind, high, low] = self.incoming.first_chunk::<HEADER>()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let legal = match kind {
            DATA => len <= MAX_RECORD,
            NOTHING | GREETING | ANSWER | CLOSE => len == 0,
            _ => false,
        };
        if !legal {
            return Some((0, 0));
        }
        (self.incoming.len() >= HEADER + len).then_some((kind, len))
    }

    fn open_first(&mut self, kind: u8, len: usize) {
        let key = self.opened_records;
        self.opened_records = self.opened_records.wrapping_add(1);
        let record: Vec<u8> = self.incoming.drain(..HEADER + len).skip(HEADER).collect();
        match kind {
            DATA => self.plaintext.extend(record.iter().map(|byte| byte ^ key ^ 0x5a)),
            GREETING => self.add(ANSWER, &[]),
            ANSWER => self.is_answered = true,
            _ => {}
        }
    }
}

impl Transport for Records {
    fn open(&mut self, buffer: &mut [u8], received: usize) -> Opened {
        if self.has_closed || self.is_broken {
            return Opened::Nothing;
        }
        assert!(received == 0 || !self.holds_more(), "what is inside goes first");
        self.incoming.extend_from_slice(&buffer[..received]);
        let mut filled = 0;
        loop {
            let count = self.plaintext.len().min(buffer.len() - filled);
            for (to, from) in buffer[filled..].iter_mut().zip(self.plaintext.drain(..count)) {
                *to = from;
            }
            filled += count;
            let next = self.first();
            match next {
                _ if !self.plaintext.is_empty() => break,
                None => break,
                Some((CLOSE | 0, _)) if filled > 0 => break,
                Some((CLOSE, _)) => {
                    self.has_closed = true;
                    return Opened::Closed;
                }
                Some((0, _)) => {
                    self.is_broken = true;
                    return Opened::Illegal(Malformed::Record);
                }
                Some((kind, len)) => self.open_first(kind, len),
            }
        }
        if filled > 0 { Opened::Plaintext(filled) } else { Opened::Nothing }
    }

    fn holds_more(&self) -> bool {
        let ended = self.has_closed || self.is_broken;
        !ended && (!self.plaintext.is_empty() || self.first().is_some())
    }

    fn has_closed(&self) -> bool {
        self.has_closed
    }

    fn held(&self) -> Held {
        // Whole records that wait are told by `holds_more`.
        let memory = if self.first().is_some() { 0 } else { self.incoming.len() as u32 };
        let length = match self.incoming[..] {
            _ if memory == 0 => 0,
            [_, high, low, ..] => HEADER as u32 + u32::from(u16::from_be_bytes([high, low])),
            _ => HEADER as u32,
        };
        Held { memory, length }
    }

    fn end(&mut self) -> Option<End> {
        (!self.has_closed).then_some(End::Truncated)
    }

    fn seal<'a>(&'a mut self, plaintext: &'a [u8]) -> &'a [u8] {
        if self.unsent.is_empty() {
            let plaintext = plaintext.get(..MAX_RECORD).unwrap_or(plaintext);
            if !plaintext.is_empty() {
                assert!(self.closing != Closing::Sealed, "data behind the close");
                if self.sealed_records.is_multiple_of(3) {
                    self.whisper();
                }
                self.add(DATA, plaintext);
                self.sealed = plaintext.len();
            } else if self.closing == Closing::Wanted {
                self.add(CLOSE, &[]);
                self.closing = Closing::Sealed;
            }
        }
        &self.unsent
    }

    fn sent(&mut self, count: usize) -> usize {
        self.unsent.drain(..count);
        std::mem::take(&mut self.sealed)
    }

    fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.closing == Closing::Wanted
    }

    fn is_open(&self) -> bool {
        true
    }

    fn finish(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::Wanted;
        }
    }
}
