//! What the links read and send.

use std::io;

use rustix::io::Errno;
use systole_net::transport::Transport;

use super::super::codec::Message;
use super::super::control::Peer;
use super::super::secure;
use super::{Drive, LinkStage, Links, TALKER};

impl Links {
    pub(super) fn read(&mut self, index: usize) {
        let Some(stream) = &self.links[index].stream else { return };
        let length = match rustix::io::read(stream, &mut self.buffer[..]) {
            Ok(0) => return self.close(index, &io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(error) => return self.close(index, &error.into()),
        };
        if self.how.tls { self.open_sealed(index, length) } else { self.feed(index, length) }
    }

    /// Opens what was read, and goes on once the handshake of TLS is over.
    fn open_sealed(&mut self, index: usize, mut length: usize) {
        while let Some(tls) = &mut self.links[index].tls {
            let opened = secure::open(tls, &mut self.buffer, length);
            let (more, answers, is_open) = (tls.holds_more(), tls.has_unsent(), tls.is_open());
            let count = match opened {
                Ok(count) => count,
                Err(error) => return self.close(index, &error),
            };
            if answers {
                self.out.clear();
                self.write_out(index);
            }
            if is_open && self.links[index].phase == LinkStage::Securing {
                self.greet(index);
            }
            self.feed(index, count);
            if !more {
                return;
            }
            length = 0;
        }
    }

    /// Hands the first `length` bytes of the buffer to the codec.
    fn feed(&mut self, index: usize, length: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut reader = self.links[index].reader;
        reader.feed(self.how.codec, &buffer[..length], |seen| self.handle_message(index, seen));
        self.links[index].reader = reader;
        self.buffer = buffer;
    }

    fn handle_message(&mut self, index: usize, seen: Message) {
        match seen {
            Message::Welcome if self.links[index].phase == LinkStage::Greeting => self.up(index),
            Message::Pong => self.handle_answer(index),
            Message::Ping(_) if self.how.peer == Peer::Echo => self.handle_answer(index),
            Message::Ping(seq) if !self.links[index].silent => {
                self.how.codec.pong(seq, &mut self.out);
                self.write_out(index);
                self.report.probes += 1;
            }
            Message::Illegal => {
                let what = "the target speaks another protocol";
                self.close(index, &io::Error::new(io::ErrorKind::InvalidData, what));
            }
            Message::Other if index == TALKER => {
                let now = self.now();
                let rtt = self.talk.as_mut().and_then(|talk| talk.answered(now));
                self.report.talk_ns.extend(rtt);
            }
            Message::Ping(_) | Message::Welcome | Message::Other => {}
        }
    }

    fn handle_answer(&mut self, index: usize) {
        let now = self.now();
        let Some(asked) = self.links[index].asked_ns.take() else { return };
        if index < self.data {
            return self.send_message(index);
        }
        self.report.answered += 1;
        self.rtt.saturating_record(now.saturating_sub(asked));
        let looping = matches!(self.drive, Drive::Loop { active } if index < active);
        if looping && index < self.loud {
            self.ping(index);
        }
    }

    pub(super) fn ping(&mut self, index: usize) {
        if self.links[index].phase != LinkStage::Up {
            return;
        }
        let link = &mut self.links[index];
        link.seq = link.seq.wrapping_add(1);
        self.how.codec.ping(link.seq, &mut self.out);
        self.links[index].asked_ns = Some(self.now());
        self.write_out(index);
    }

    /// Sends a message, and a heartbeat whose answer triggers the next one.
    pub(super) fn send_message(&mut self, index: usize) {
        if self.links[index].phase != LinkStage::Up {
            return;
        }
        let now = self.now();
        let link = &mut self.links[index];
        link.seq = link.seq.wrapping_add(1);
        link.asked_ns = Some(now);
        self.how.codec.message_and_ping(link.seq, &mut self.out);
        self.report.messages += 1;
        self.write_out(index);
    }

    /// Sends the content of `out`. If the socket's buffer cannot take all of it, the target does
    /// not read: the link is closed, since a partial heartbeat would break the stream.
    pub(super) fn write_out(&mut self, index: usize) {
        let now = self.now();
        let link = &mut self.links[index];
        let Some(stream) = &link.stream else { return };
        link.last_sent_ns = now;
        if let Some(tls) = &mut link.tls {
            if let Err(error) = secure::write(tls, stream, &self.out) {
                self.close(index, &error);
            }
            return;
        }
        match rustix::io::write(stream, &self.out) {
            Ok(length) if length == self.out.len() => {}
            Ok(_) => self.close(index, &io::Error::from(io::ErrorKind::WriteZero)),
            Err(error) => self.close(index, &error.into()),
        }
    }
}
