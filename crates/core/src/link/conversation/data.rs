//! Data: sending a message, cut into pieces.

use super::Conversation;
use crate::flight::Incident;
use crate::link::Lane;
use crate::link::outbound::Writer;
use crate::link::peer::Effect;
use crate::time::Time;
use crate::wire::{Codec, DataKind, Frame, Rider};

impl Conversation {
    /// Sends a message, or drops it if the handshake is not complete.
    pub(super) fn send_message(
        &mut self,
        now: Time,
        bytes: &[u8],
        more: bool,
        kind: DataKind,
        out: &mut Writer<'_>,
    ) -> Effect {
        let was_outstanding = self.outstanding.is_any();
        if self.is_established() {
            if !self.has_window() {
                self.send_pieces(bytes, more, kind, out);
            } else if self.send_in_window(bytes, more, kind, out).is_err() {
                return self.end_by_overflow(now, out);
            }
            self.within_message = more;
            self.flight.record(now, Incident::DataSent);
            self.record_sent(now, Lane::Data);
        }
        // The first outstanding bytes bring the deadline of an examination.
        let is_first = self.outstanding.is_any() && !was_outstanding;
        if is_first { Effect::Rearm } else { Effect::None }
    }

    /// Returns whether a message has been sent in part, so that no other may be sent now.
    pub(in crate::link) fn is_within_message(&self) -> bool {
        match self.codec {
            Codec::Native => self.within_message,
            // Each part is a message of its own.
            Codec::Message1028 | Codec::Line => false,
        }
    }

    /// Returns the longest piece into which DATA is cut, in bytes.
    pub(in crate::link) fn piece(&self) -> usize {
        match self.codec {
            Codec::Native => usize::from(self.piece),
            // Each piece would arrive as a message of its own, so a message is cut only if it
            // exceeds the longest message.
            Codec::Message1028 | Codec::Line => self.codec.max_data(),
        }
    }

    fn send_pieces(&self, bytes: &[u8], more: bool, kind: DataKind, out: &mut Writer<'_>) {
        send_pieces(self.codec, self.piece(), (bytes, more), kind, Rider::NONE, out);
    }
}

/// Sends a message or a part of it, cut into pieces; `rider` rides on the last one.
pub(super) fn send_pieces(
    codec: Codec,
    piece: usize,
    (message, more): (&[u8], bool),
    kind: DataKind,
    rider: Rider,
    out: &mut Writer<'_>,
) {
    let mut rest = message;
    while rest.len() > piece {
        let (bytes, after) = rest.split_at(piece);
        rest = after;
        let frame = Frame::data(bytes, true, kind);
        out.transmit(codec, Lane::Data, &frame);
    }
    out.transmit(codec, Lane::Data, &Frame::Data { bytes: rest, more, kind, rider });
}
