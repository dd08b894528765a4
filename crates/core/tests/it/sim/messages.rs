//! The messages in one direction of a link, checked on arrival: in order, unaltered, once.

use std::collections::VecDeque;

use systole_core::link::{Command, Input};
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
    ) -> impl Iterator<Item = Input<'a>> + use<'a> {
        let kind = DataKind::default();
        let cut =
            if codec == Codec::Native && random.below(4) == 0 { message.len() / 2 } else { 0 };
        let (front, rest) = message.split_at(cut);
        let front = (!front.is_empty()).then_some(Command::Send { bytes: front, more: true, kind });
        let rest = Command::Send { bytes: rest, more: false, kind };
        front.into_iter().chain([rest]).map(Input::Command)
    }

    /// Checks a received piece.
    pub(super) fn receive(&mut self, codec: Codec, bytes: &[u8], more: bool) {
        self.partial.extend_from_slice(bytes);
        if more {
            return;
        }
        let sent = self.sent.pop_front().expect("nothing was sent, or it arrived twice");
        let received = std::mem::take(&mut self.partial);
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
