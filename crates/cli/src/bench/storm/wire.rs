//! The clients of a storm: one thread writes to all of them before it reads from any, so that the
//! gateway has all of their requests at once.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::super::progress::Progress;

/// Number of source addresses, 127.0.0.2 to 127.0.0.251, so that none runs out of ports.
const SOURCES: usize = 250;
/// How long the gateway may take for one answer: far longer than all of them together take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Size of a read: all that waits for a client, as a rule.
const READ: usize = 4_096;

const PING: u8 = 1;
const PONG: u8 = 2;
const WELCOME: u8 = 4;
const DATA: u8 = 5;
const ACK: u8 = 8;
/// The flag of HELLO to resume a session, and that of WELCOME of one that was resumed.
const TO_RESUME: u8 = 2;
const RESUMED: u8 = 1;
/// The place of the session's number in WELCOME, and that of the token's length.
const NUMBER: usize = 38;
const TOKEN: usize = 96;

/// Where the clients connect, and how many messages each has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    pub(super) messages: u32,
}

/// What a client keeps of its session.
#[derive(Debug)]
pub(super) struct Session {
    index: usize,
    stream: Option<TcpStream>,
    /// What has arrived and was not taken yet.
    bytes: Vec<u8>,
    /// Number and epoch, as they are sent.
    key: [u8; 16],
    token: Vec<u8>,
    pub(super) resumed: bool,
}

/// A frame: its type, and its body without what stands before the length.
type Frame = (u8, Vec<u8>);

impl Session {
    pub(super) fn new(index: usize) -> Session {
        let (bytes, token) = (Vec::new(), Vec::new());
        Session { index, stream: None, bytes, key: [0; 16], token, resumed: false }
    }

    /// Encodes HELLO: of a new session, or to resume the one that there was. What had arrived in it
    /// counts as lost with its link.
    fn hello(&self) -> Vec<u8> {
        let resumes = if self.token.is_empty() { 0 } else { TO_RESUME };
        let identity = format!("storm-{}", self.index);
        let mut body = b"SYS1".to_vec();
        body.extend([1, resumes, 1, 0, 0, 0]);
        body.extend([0; 16 + 16]);
        body.extend(self.key);
        body.extend([0; 8 + 18 + 25]);
        body.push(self.token.len() as u8);
        body.extend(&self.token);
        body.push(identity.len() as u8);
        body.extend(identity.as_bytes());
        body.push(0);
        let mut frame = vec![0x30];
        put_varint(body.len(), &mut frame);
        frame.extend(body);
        frame
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Some(stream) => stream.write_all(bytes),
            None => Ok(()),
        }
    }

    /// Reads the next frame that is neither a heartbeat nor an acknowledgement.
    fn frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some((used, frame)) = parse(&self.bytes) {
                self.bytes.drain(..used);
                match frame.0 {
                    PING | PONG | ACK => continue,
                    _ => return Ok(frame),
                }
            }
            let mut buffer = [0; READ];
            let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            match stream.read(&mut buffer)? {
                0 => return Err(io::Error::other("the gateway has closed a link")),
                length => self.bytes.extend(&buffer[..length]),
            }
        }
    }

    fn take_welcome(&mut self) -> io::Result<()> {
        let (kind, body) = self.frame()?;
        let illegal = || io::Error::other(format!("frame {kind} instead of WELCOME"));
        let length = *body.get(TOKEN).filter(|_| kind == WELCOME).ok_or_else(illegal)?;
        let token = body.get(TOKEN + 1..TOKEN + 1 + usize::from(length)).ok_or_else(illegal)?;
        if token.is_empty() {
            return Err(io::Error::other("the gateway's sessions cannot be resumed"));
        }
        let key = &body[NUMBER..NUMBER + self.key.len()];
        self.resumed = body[1] == RESUMED && key == self.key;
        self.key.copy_from_slice(key);
        self.token = token.to_vec();
        Ok(())
    }
}

impl Wire {
    /// Connects all clients, each with its HELLO.
    pub(super) fn connect(self, sessions: &mut [Session]) -> io::Result<()> {
        for session in sessions {
            let domain = Domain::for_address(self.address);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_tcp_nodelay(true)?;
            if self.address.is_ipv4() && self.address.ip().is_loopback() {
                let host = 2 + session.index % SOURCES;
                socket.bind(&SocketAddr::from(([127, 0, 0, host as u8], 0)).into())?;
            }
            socket.connect(&self.address.into())?;
            socket.set_read_timeout(Some(ANSWERS_WITHIN))?;
            session.stream = Some(socket.into());
            session.write(&session.hello())?;
        }
        Ok(())
    }

    /// Reads all answers to HELLO.
    pub(super) fn welcomed(self, sessions: &mut [Session], progress: &Progress) -> io::Result<()> {
        for (index, session) in sessions.iter_mut().enumerate() {
            session.take_welcome()?;
            progress.links(index + 1);
        }
        Ok(())
    }

    /// Sends the messages of all clients, and reads their echoes, which no client acknowledges.
    pub(super) fn exchange(self, sessions: &mut [Session], progress: &Progress) -> io::Result<()> {
        let mut messages = Vec::new();
        for number in 0..self.messages {
            messages.extend([DATA << 4, 4]);
            messages.extend(number.to_le_bytes());
        }
        for session in &mut *sessions {
            session.write(&messages)?;
        }
        for (index, session) in sessions.iter_mut().enumerate() {
            if self.wrong(session)? > 0 {
                return Err(io::Error::other("an echo differs from its message"));
            }
            progress.links(index + 1);
        }
        Ok(())
    }

    /// Reads what all clients get again; returns how many messages are not what they must be.
    pub(super) fn redelivered(self, sessions: &mut [Session]) -> io::Result<u64> {
        let resumed = sessions.iter_mut().filter(|session| session.resumed);
        resumed.map(|session| self.wrong(session)).sum()
    }

    /// Reads the messages of a session; returns how many are not the next one.
    fn wrong(self, session: &mut Session) -> io::Result<u64> {
        let mut wrong = 0;
        for number in 0..self.messages {
            let (kind, body) = session.frame()?;
            wrong += u64::from(kind != DATA || body != number.to_le_bytes());
        }
        Ok(wrong)
    }

    /// Ends all connections with a reset.
    pub(super) fn cut(self, sessions: &mut [Session]) -> io::Result<()> {
        for session in sessions {
            if let Some(stream) = session.stream.take() {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
            session.bytes.clear();
        }
        Ok(())
    }

    /// Ends all sessions.
    pub(super) fn say_goodbye(self, sessions: &mut [Session]) -> io::Result<()> {
        sessions.iter_mut().try_for_each(|session| session.write(&[0x70, 7, 0, 0, 0, 0, 0, 0, 0]))
    }
}

/// Splits the first frame off, with its length; `None` if it is not complete.
fn parse(bytes: &[u8]) -> Option<(usize, Frame)> {
    let (&kind, mut rest) = bytes.split_first()?;
    let (kind, flags) = (kind >> 4, kind & 15);
    if matches!(kind, PING | PONG) {
        rest = rest.get(1..)?;
    }
    let acknowledges = match kind {
        PING | PONG => flags & 1 != 0,
        DATA => flags & 2 != 0,
        other => other == ACK,
    };
    if acknowledges {
        rest = varint(rest)?.1;
    }
    let has_body = match kind {
        PING | PONG => flags & 2 != 0,
        other => other != ACK,
    };
    let length = if has_body {
        let (length, after) = varint(rest)?;
        rest = after;
        length
    } else {
        0
    };
    let body = rest.get(..length)?.to_vec();
    Some((bytes.len() - rest.len() + length, (kind, body)))
}

fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_wherever_they_are_cut() {
        // The examples of docs/protocol.md.
        let data = [0x56, 0xac, 2, 5, 0x68, 0x65, 0x6c, 0x6c, 0x6f];
        assert_eq!(parse(&data), Some((9, (DATA, b"hello".to_vec()))));
        assert_eq!(parse(&[0x80, 0xac, 2, 9]), Some((3, (ACK, vec![]))));
        let ping = [0x12, 8, 5, 0x68, 0x70, 0x3d, 0x39, 0x37];
        assert_eq!(parse(&ping), Some((8, (PING, b"hp=97".to_vec()))));
        assert_eq!(parse(&[0x20, 7, 0x20]), Some((2, (PONG, vec![]))));
        for length in 0..data.len() {
            assert_eq!(parse(&data[..length]), None);
        }
    }

    #[test]
    fn a_hello_has_the_length_of_its_body() {
        let hello = Session::new(7).hello();
        assert_eq!((hello[1] as usize, &hello[2..6]), (hello.len() - 2, &b"SYS1"[..]));
        let mut resuming = Session::new(7);
        resuming.token = vec![1; 16];
        assert_eq!(resuming.hello()[8], TO_RESUME, "after two bytes of length");
    }
}
