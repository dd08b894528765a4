//! The bytes of a heartbeat in each codec, written from the protocol document alone: the load must
//! not share a mistake with the server that it measures.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The protocol that the load speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Codec {
    /// Systole's own: a handshake, then two bytes each way.
    Native,
    /// Messages of 1,028 bytes: a big-endian type, then 1,024 bytes.
    Message1028,
    /// Lines of text: `ping` and `pong`.
    Line,
    /// Datagrams of 32 bytes, from many devices on few sockets; never a stream, so that what
    /// follows says nothing for it.
    Beacon,
}

const PING: u8 = 0x10;
const PONG: u8 = 0x20;
const MESSAGE: usize = 1028;
/// The longest line that means anything here, with its line feed and a carriage return.
const LONGEST_LINE: usize = 6;

/// Something complete that the other end said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Ping(u8),
    Pong,
    Welcome,
    /// A goodbye, or anything else that asks for nothing.
    Other,
    /// Nothing that this codec knows.
    Alien,
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

    /// Replaces `out` by a ping.
    pub(crate) fn ping(self, seq: u8, out: &mut Vec<u8>) {
        self.heartbeat(PING, 1, b"ping\n", seq, out);
    }

    /// Replaces `out` by the answer to a ping.
    pub(crate) fn pong(self, seq: u8, out: &mut Vec<u8>) {
        self.heartbeat(PONG, 2, b"pong\n", seq, out);
    }

    fn heartbeat(self, kind: u8, number: u32, line: &[u8], seq: u8, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Codec::Native => out.extend([kind, seq]),
            Codec::Message1028 => {
                out.extend(number.to_be_bytes());
                out.resize(MESSAGE, 0);
            }
            Codec::Line => out.extend(line),
            Codec::Beacon => {}
        }
    }
}

/// A native HELLO without resumption, wishes, account or token; of the identity, what keeps the
/// length in one byte.
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

/// Cuts a stream into what was said, however it arrives; holds no bytes but a line's first few.
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
        seen: Seen,
        left: u32,
    },
    Line {
        have: u8,
        text: [u8; LONGEST_LINE],
    },
}

impl Reader {
    /// Calls `seen` for each thing that `bytes` complete.
    pub(crate) fn feed(&mut self, codec: Codec, bytes: &[u8], mut seen: impl FnMut(Seen)) {
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
                Codec::Beacon => Some(Seen::Alien),
            };
            if let Some(what) = done {
                self.state = State::Start;
                seen(what);
            }
        }
    }

    fn native(&mut self, byte: u8) -> Option<Seen> {
        match self.state {
            State::Sequence { kind } => {
                return Some(if kind == PING { Seen::Ping(byte) } else { Seen::Pong });
            }
            State::Length { kind, shift, value } => {
                let value = value | u32::from(byte & 0x7f) << shift.min(28);
                if byte & 0x80 != 0 {
                    self.state = State::Length { kind, shift: shift + 7, value };
                    return (shift >= 28).then_some(Seen::Alien);
                }
                let seen = if kind == 0x40 { Seen::Welcome } else { Seen::Other };
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
            _ => return Some(Seen::Alien),
        }
        None
    }

    fn message(&mut self, byte: u8) -> Option<Seen> {
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
                1 => Seen::Ping(0),
                2 => Seen::Pong,
                11 | 21 => Seen::Other,
                _ => Seen::Alien,
            };
            self.state = State::Body { seen, left: MESSAGE as u32 - 4 };
        }
        None
    }

    fn line(&mut self, byte: u8) -> Option<Seen> {
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
                b"ping" => Seen::Ping(0),
                b"pong" => Seen::Pong,
                _ => Seen::Other,
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

    fn read(codec: Codec, bytes: &[u8], piece: usize) -> Vec<Seen> {
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
                assert_eq!(read(codec, &both, piece), [Seen::Ping(0), Seen::Pong], "{codec:?}");
            }
        }
    }

    #[test]
    fn frames_with_a_length_are_skipped() {
        let frames = [&[0x40, 0x81, 0x01][..], &[9; 129], &[0x70, 2, 0, 0], &[0x20, 7]].concat();
        for piece in [1, 5, 200] {
            let seen = read(Codec::Native, &frames, piece);
            assert_eq!(seen, [Seen::Welcome, Seen::Other, Seen::Pong]);
        }
    }

    #[test]
    fn what_no_codec_knows_is_alien() {
        assert_eq!(read(Codec::Native, &[0xf0], 1), [Seen::Alien]);
        assert_eq!(read(Codec::Native, &[0x50, 255, 255, 255, 255, 255], 1), [Seen::Alien]);
        assert_eq!(read(Codec::Message1028, &[0; 1028], 9), [Seen::Alien]);
        assert_eq!(read(Codec::Line, b"a line of some length\nping\r\n", 4), {
            [Seen::Other, Seen::Ping(0)]
        });
    }

    #[test]
    fn hello_has_the_length_that_the_document_draws() {
        let frame = hello([1; 16], [2; 16], "ada");
        assert_eq!(frame[..2], [0x30, 115]);
        assert_eq!(frame.len(), 117);
    }
}
