//! What is said in one direction of a link, and whether it was heard: in order, unaltered, once.

use std::collections::VecDeque;

use systole_core::link::{Command, Input};
use systole_core::random::Random;
use systole_core::wire::{Codec, DataKind};

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// Sent and not yet heard.
    said: VecDeque<Vec<u8>>,
    /// The front of a message.
    part: Vec<u8>,
    /// Messages begun.
    count: u64,
    /// Business data given to the sender, and which of it was heard last.
    riding: Vec<Vec<u8>>,
    heard_riding: usize,
}

impl Talk {
    /// The next message.
    pub(super) fn say(&mut self, codec: Codec, chance: &mut Random) -> Vec<u8> {
        self.count += 1;
        let longest = match (codec, chance.below(64)) {
            (Codec::Native, 0) => 40_000,
            (Codec::Native | Codec::Line, 1) => 8_000,
            (Codec::Message1028, 0..16) => 1_024,
            (Codec::Native | Codec::Line | Codec::Message1028, _) => 60,
        };
        let length = chance.below(longest + 1) as usize;
        let count = self.count;
        // Letters: a line feed would end a line, and zeros are padding.
        let letters = (0..length as u64).map(|index| b'a' + ((index * 7 + count) % 26) as u8);
        let message: Vec<u8> = count.to_string().into_bytes().into_iter().chain(letters).collect();
        let message = message[..message.len().min(codec.max_data())].to_vec();
        self.said.push_back(message.clone());
        message
    }

    /// The commands that send `message`: one, or two where a message can be sent in pieces.
    pub(super) fn commands<'a>(
        codec: Codec,
        message: &'a [u8],
        chance: &mut Random,
    ) -> impl Iterator<Item = Input<'a>> + use<'a> {
        let kind = DataKind::default();
        let cut =
            if codec == Codec::Native && chance.below(4) == 0 { message.len() / 2 } else { 0 };
        let (front, rest) = message.split_at(cut);
        let front = (!front.is_empty()).then_some(Command::Send { bytes: front, more: true, kind });
        let rest = Command::Send { bytes: rest, more: false, kind };
        front.into_iter().chain([rest]).map(Input::Command)
    }

    /// A piece arrived.
    pub(super) fn hear(&mut self, codec: Codec, bytes: &[u8], more: bool) {
        self.part.extend_from_slice(bytes);
        if more {
            return;
        }
        let said = self.said.pop_front().expect("nothing was said, or it came twice");
        let heard = std::mem::take(&mut self.part);
        if codec == Codec::Message1028 {
            assert_eq!(heard.len(), codec.max_data(), "padded");
            assert!(heard.starts_with(&said), "altered");
            assert!(heard[said.len()..].iter().all(|&byte| byte == 0), "padded with something");
        } else {
            assert!(heard == said, "altered or out of order");
        }
    }

    /// Business data for the heartbeats from now on.
    pub(super) fn ride(&mut self, chance: &mut Random) -> Vec<u8> {
        let length = 1 + chance.below(30) as usize;
        let data = format!("{}/{}", self.riding.len(), "x".repeat(length)).into_bytes();
        self.riding.push(data.clone());
        data
    }

    /// Business data arrived: what was given, and never older than what came before.
    pub(super) fn hear_riding(&mut self, data: &[u8]) {
        let which = self.riding.iter().position(|given| given == data);
        let which = which.expect("business data that nobody gave");
        assert!(which >= self.heard_riding, "business data ran backwards");
        self.heard_riding = which;
    }
}
