//! The bytes of a heartbeat in each codec, written from the protocol document alone, so that the
//! load shares no mistake with the server that it measures.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The protocol of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Codec {
    /// Systole's own protocol: a handshake, then two bytes each way.
    Native,
    /// Messages of 1,028 bytes: a big-endian type, then 1,024 bytes.
    Message1028,
    /// Lines of text: `ping` and `pong`.
    Line,
    /// Datagrams of 32 bytes, from many devices on few sockets; not a stream.
    Beacon,
}

const PING: u8 = 0x10;
const PONG: u8 = 0x20;
const DATA: u8 = 0x50;
/// The message type of data in [`Codec::Message1028`].
const DATA_TYPE: u32 = 11;
/// The length of a message: one byte encodes it.
const DATA_LENGTH: u8 = 64;
const MESSAGE: usize = 1028;
/// The longest meaningful line, with carriage return and line feed.
const LONGEST_LINE: usize = 6;

/// A complete message from the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Ping(u8),
    Pong,
    Welcome,
    /// Data, a goodbye, or another message that needs no answer.
    Other,
    /// Bytes that are illegal in this codec.
    Illegal,
}

impl Codec {
    /// The name in the gateway's configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Codec::Native => "native",
            Codec::Message1028 => "message1028",
            Codec::Line => "line",
            Codec::Beacon => "beacon",
        }
    }

    /// Replaces the content of `out` by a ping.
    pub(crate) fn ping(self, seq: u8, out: &mut Vec<u8>) {
        out.clear();
        self.append_ping(seq, out);
    }

    /// Replaces the content of `out` by a message of [`DATA_LENGTH`] bytes, which a gateway echoes.
    pub(crate) fn message(self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Codec::Native => out.extend([DATA, DATA_LENGTH]),
            Codec::Message1028 => out.extend(DATA_TYPE.to_be_bytes()),
            Codec::Line => {}
            Codec::Beacon => return,
        }
        out.resize(out.len() + usize::from(DATA_LENGTH), b'x');
        match self {
            Codec::Native | Codec::Beacon => {}
            Codec::Message1028 => out.resize(MESSAGE, 0),
            Codec::Line => out.push(b'\n'),
        }
    }

    /// Replaces the content of `out` by a message and a ping.
    pub(crate) fn message_and_ping(self, seq: u8, out: &mut Vec<u8>) {
        self.message(out);
        self.append_ping(seq, out);
    }

    /// Replaces the content of `out` by the answer to a ping.
    pub(crate) fn pong(self, seq: u8, out: &mut Vec<u8>) {
        out.clear();
        self.append_heartbeat(PONG, 2, b"pong\n", seq, out);
    }

    fn append_ping(self, seq: u8, out: &mut Vec<u8>) {
        self.append_heartbeat(PING, 1, b"ping\n", seq, out);
    }

    fn append_heartbeat(self, kind: u8, number: u32, line: &[u8], seq: u8, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Codec::Native => out.extend([kind, seq]),
            Codec::Message1028 => {
                out.extend(number.to_be_bytes());
                out.resize(start + MESSAGE, 0);
            }
            Codec::Line => out.extend(line),
            Codec::Beacon => {}
        }
    }
}

/// Encodes a native HELLO without resumption, policy, account or token. The identity is cut to 15
/// bytes, so that each length fits into one byte.
pub(crate) fn hello(boot_id: [u8; 16], instance_id: [u8; 16], identity: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    body.extend(b"SYS1");
    body.extend([1, 0]);
    body.extend([0; 4]);
    body.extend(boot_id);
    body.extend(instance_id);
    body.extend([0; 8 + 8 + 8 + 18 + 25]);
    body.push(0);
    let identity = &identity.as_bytes()[..identity.len().min(15)];
    body.push(identity.len() as u8);
    body.extend(identity);
    body.push(0);
    let mut frame = vec![0x30, body.len() as u8];
    frame.extend(body);
    frame
}

/// Splits a stream into messages, also if they arrive in pieces; buffers only the first bytes of a
/// line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reader {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Start,
    Sequence {
        kind: u8,
    },
    Length {
        kind: u8,
        shift: u8,
        value: u32,
    },
    Header {
        have: u8,
        value: u32,
    },
    Body {
        seen: Message,
        left: u32,
    },
    Line {
        have: u8,
        text: [u8; LONGEST_LINE],
    },
}

impl Reader {
    /// Calls `seen` for each message that `bytes` complete.
    pub(crate) fn feed(&mut self, codec: Codec, bytes: &[u8], mut seen: impl FnMut(Message)) {
        let mut rest = bytes;
        while let [byte, after @ ..] = rest {
            if let State::Body { seen: what, left } = self.state {
                let skipped = rest.len().min(left as usize);
                rest = &rest[skipped..];
                let left = left - skipped as u32;
                self.state = State::Body { seen: what, left };
                if left == 0 {
                    self.state = State::Start;
                    seen(what);
                }
                continue;
            }
            rest = after;
            let done = match codec {
                Codec::Native => self.native(*byte),
                Codec::Message1028 => self.message(*byte),
                Codec::Line => self.line(*byte),
                Codec::Beacon => Some(Message::Illegal),
            };
            if let Some(what) = done {
                self.state = State::Start;
                seen(what);
            }
        }
    }

    fn native(&mut self, byte: u8) -> Option<Message> {
        match self.state {
            State::Sequence { kind } => {
                return Some(if kind == PING { Message::Ping(byte) } else { Message::Pong });
            }
            State::Length { kind, shift, value } => {
                let value = value | u32::from(byte & 0x7f) << shift.min(28);
                if byte & 0x80 != 0 {
                    self.state = State::Length { kind, shift: shift + 7, value };
                    return (shift >= 28).then_some(Message::Illegal);
                }
                let seen = if kind == 0x40 { Message::Welcome } else { Message::Other };
                self.state = State::Body { seen, left: value };
                return (value == 0).then_some(seen);
            }
            State::Start | State::Header { .. } | State::Body { .. } | State::Line { .. } => {}
        }
        match byte {
            PING | PONG => self.state = State::Sequence { kind: byte },
            0x40 | 0x50 | 0x51 | 0x60 | 0x70 => {
                self.state = State::Length { kind: byte, shift: 0, value: 0 };
            }
            _ => return Some(Message::Illegal),
        }
        None
    }

    fn message(&mut self, byte: u8) -> Option<Message> {
        let (have, value) = match self.state {
            State::Header { have, value } => (have, value),
            State::Start
            | State::Sequence { .. }
            | State::Length { .. }
            | State::Body { .. }
            | State::Line { .. } => (0, 0),
        };
        let value = value << 8 | u32::from(byte);
        self.state = State::Header { have: have + 1, value };
        if have + 1 == 4 {
            let seen = match value {
                1 => Message::Ping(0),
                2 => Message::Pong,
                11 | 21 => Message::Other,
                _ => Message::Illegal,
            };
            self.state = State::Body { seen, left: MESSAGE as u32 - 4 };
        }
        None
    }

    fn line(&mut self, byte: u8) -> Option<Message> {
        let (mut have, mut text) = match self.state {
            State::Line { have, text } => (have, text),
            State::Start
            | State::Sequence { .. }
            | State::Length { .. }
            | State::Header { .. }
            | State::Body { .. } => (0, [0; LONGEST_LINE]),
        };
        if byte == b'\n' {
            let line = &text[..usize::from(have)];
            return Some(match line.strip_suffix(b"\r").unwrap_or(line) {
                b"ping" => Message::Ping(0),
                b"pong" => Message::Pong,
                _ => Message::Other,
            });
        }
        if usize::from(have) < LONGEST_LINE {
            text[usize::from(have)] = byte;
            have += 1;
        }
        self.state = State::Line { have, text };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(codec: Codec, bytes: &[u8], piece: usize) -> Vec<Message> {
        let (mut reader, mut all) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.feed(codec, piece, |seen| all.push(seen));
        }
        all
    }

    #[test]
    fn heartbeats_are_read_in_any_pieces() {
        for codec in [Codec::Native, Codec::Message1028, Codec::Line] {
            let (mut ping, mut pong) = (Vec::new(), Vec::new());
            codec.ping(0, &mut ping);
            codec.pong(0, &mut pong);
            let both = [ping, pong].concat();
            for piece in [1, 2, 3, 1000, both.len()] {
                assert_eq!(
                    read(codec, &both, piece),
                    [Message::Ping(0), Message::Pong],
                    "{codec:?}"
                );
            }
        }
    }

    #[test]
    fn a_message_comes_before_its_ping() {
        for codec in [Codec::Native, Codec::Message1028, Codec::Line] {
            let mut bytes = Vec::new();
            codec.message_and_ping(7, &mut bytes);
            let seq = if codec == Codec::Native { 7 } else { 0 };
            let expected = [Message::Other, Message::Ping(seq)];
            for piece in [1, 3, bytes.len()] {
                assert_eq!(read(codec, &bytes, piece), expected, "{codec:?}");
            }
        }
    }

    #[test]
    fn frames_with_a_length_are_skipped() {
        let frames = [&[0x40, 0x81, 0x01][..], &[9; 129], &[0x70, 2, 0, 0], &[0x20, 7]].concat();
        for piece in [1, 5, 200] {
            let seen = read(Codec::Native, &frames, piece);
            assert_eq!(seen, [Message::Welcome, Message::Other, Message::Pong]);
        }
    }

    #[test]
    fn unknown_bytes_are_illegal() {
        assert_eq!(read(Codec::Native, &[0xf0], 1), [Message::Illegal]);
        assert_eq!(read(Codec::Native, &[0x50, 255, 255, 255, 255, 255], 1), [Message::Illegal]);
        assert_eq!(read(Codec::Message1028, &[0; 1028], 9), [Message::Illegal]);
        assert_eq!(read(Codec::Line, b"a line of some length\nping\r\n", 4), {
            [Message::Other, Message::Ping(0)]
        });
    }

    #[test]
    fn hello_has_the_length_of_the_protocol_document() {
        let frame = hello([1; 16], [2; 16], "ada");
        assert_eq!(frame[..2], [0x30, 115]);
        assert_eq!(frame.len(), 117);
    }
}
