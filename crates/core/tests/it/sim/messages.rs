//! The messages in one direction of a link, checked on arrival: in order, unaltered, once.

use std::collections::VecDeque;

use systole_core::link::{self, Command};
use systole_core::random::Random;
use systole_core::wire::{Codec, DataKind};

/// The messages and heartbeat data in one direction of a link.
#[derive(Debug, Default)]
pub(super) struct MessageStream {
    /// Messages sent and not yet received.
    sent: VecDeque<Vec<u8>>,
    /// The received front of a message.
    partial: Vec<u8>,
    /// The number of messages created.
    count: u64,
    /// All heartbeat data known to the sender.
    heartbeat_data: Vec<Vec<u8>>,
    /// The index of the heartbeat data received last.
    last_received: usize,
    /// The messages for many links that must still be sent on this link, by number.
    unsent_broadcasts: Vec<u64>,
    /// Those that must be received before any later one.
    broadcasts: VecDeque<u64>,
    /// The number of the message for many links that was received last.
    last_broadcast: u64,
    /// How many of them were received.
    pub(super) broadcasts_received: u64,
}

/// Returns the message for many links with this number, from 1. It begins with a character that no
/// other message begins with, and fits into one piece of every codec.
pub(super) fn broadcast(number: u64) -> Vec<u8> {
    let letters = (0..number * 97 % 900).map(|index| b'a' + ((index * 5 + number) % 26) as u8);
    format!("#{number}/").into_bytes().into_iter().chain(letters).collect()
}

impl MessageStream {
    /// Creates the next message.
    pub(super) fn next_message(&mut self, codec: Codec, random: &mut Random) -> Vec<u8> {
        self.count += 1;
        let longest = match (codec, random.below(64)) {
            (Codec::Native, 0) => 40_000,
            (Codec::Native | Codec::Line, 1) => 8_000,
            (Codec::Message1028, 0..16) => 1_024,
            (Codec::Native | Codec::Line | Codec::Message1028, _) => 60,
        };
        let length = random.below(longest + 1) as usize;
        let count = self.count;
        // Only letters: a line feed would end a line, and zeros are padding.
        let letters = (0..length as u64).map(|index| b'a' + ((index * 7 + count) % 26) as u8);
        let message: Vec<u8> = count.to_string().into_bytes().into_iter().chain(letters).collect();
        let message = message[..message.len().min(codec.max_data())].to_vec();
        self.sent.push_back(message.clone());
        message
    }

    /// Returns the commands that send `message`: one, or two if the codec can mark a message as
    /// continued.
    pub(super) fn commands<'a>(
        codec: Codec,
        message: &'a [u8],
        random: &mut Random,
    ) -> impl Iterator<Item = link::World<'a>> + use<'a> {
        let kind = DataKind::default();
        let cut =
            if codec == Codec::Native && random.below(4) == 0 { message.len() / 2 } else { 0 };
        let (front, rest) = message.split_at(cut);
        let front = (!front.is_empty()).then_some(Command::Send { bytes: front, more: true, kind });
        let rest = Command::Send { bytes: rest, more: false, kind };
        front.into_iter().chain([rest]).map(link::World::Command)
    }

    /// Checks a received piece.
    pub(super) fn receive(&mut self, codec: Codec, bytes: &[u8], more: bool) {
        self.partial.extend_from_slice(bytes);
        if more {
            return;
        }
        let received = std::mem::take(&mut self.partial);
        if received.starts_with(b"#") {
            return self.receive_broadcast(&received);
        }
        let sent = self.sent.pop_front().expect("nothing was sent, or it arrived twice");
        if codec == Codec::Message1028 {
            assert_eq!(received.len(), codec.max_data(), "padded");
            assert!(received.starts_with(&sent), "altered");
            assert!(
                received[sent.len()..].iter().all(|&byte| byte == 0),
                "padded with other bytes than zeros"
            );
        } else {
            assert!(received == sent, "altered or out of order");
        }
    }

    /// Notes a message for many links that was commanded while this link was established.
    pub(super) fn expect_broadcast(&mut self, number: u64) {
        self.broadcasts.push_back(number);
        self.unsent_broadcasts.push(number);
    }

    /// Notes a frame of data that is sent.
    pub(super) fn note_sent(&mut self, frame: &[u8]) {
        self.unsent_broadcasts.retain(|number| {
            let mark = format!("#{number}/");
            !frame.windows(mark.len()).any(|window| window == mark.as_bytes())
        });
    }

    /// Checks that every message for many links was sent on this link.
    pub(super) fn check_broadcasts_sent(&self) {
        assert!(self.unsent_broadcasts.is_empty(), "left out: {:?}", self.unsent_broadcasts);
    }

    /// Checks a received message for many links: unaltered, once, in order, and none was left out.
    fn receive_broadcast(&mut self, received: &[u8]) {
        let digits = received[1..].split(|&byte| byte == b'/').next().unwrap_or_default();
        let number = String::from_utf8_lossy(digits).parse().expect("a number");
        let sent = broadcast(number);
        assert!(received.starts_with(&sent), "altered");
        assert!(received[sent.len()..].iter().all(|&byte| byte == 0), "more than padding");
        assert!(number > self.last_broadcast, "it arrived twice or out of order");
        if self.broadcasts.front().is_some_and(|next| *next <= number) {
            let next = self.broadcasts.pop_front();
            assert_eq!(next, Some(number), "a message for many links was left out");
        }
        (self.last_broadcast, self.broadcasts_received) = (number, self.broadcasts_received + 1);
    }

    /// Checks that everything was received that was sent before CLOSE.
    pub(super) fn check_complete(&self) {
        let (missing, partial) = (self.sent.len(), self.partial.len());
        assert_eq!((missing, partial), (0, 0), "messages missing before CLOSE");
    }

    /// Creates new business data for heartbeats.
    pub(super) fn next_heartbeat_data(&mut self, random: &mut Random) -> Vec<u8> {
        let length = 1 + random.below(30) as usize;
        let data = format!("{}/{}", self.heartbeat_data.len(), "x".repeat(length)).into_bytes();
        self.heartbeat_data.push(data.clone());
        data
    }

    /// Checks received business data: known, and not older than what arrived before.
    pub(super) fn receive_heartbeat_data(&mut self, data: &[u8]) {
        let index = self.heartbeat_data.iter().position(|known| known == data);
        let index = index.expect("unknown business data");
        assert!(index >= self.last_received, "business data arrived out of order");
        self.last_received = index;
    }
}
