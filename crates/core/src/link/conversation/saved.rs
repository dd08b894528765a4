//! The plain form of a conversation, for a saved state.

use super::{Aside, Conversation, Introduced, Stage};
use crate::link::PIECE;
use crate::plain::{plain_enum, plain_struct};
use crate::wire::{Codec, MAX_HEARTBEAT_DATA, MAX_IDENTITY, is_text};

plain_struct! { Conversation {
    liveness,
    flight,
    introduced,
    policy,
    aside,
    granted,
    outstanding,
    in_force,
    blind,
    answered,
    timed,
    timed_sequence,
    figure,
    stage,
    codec,
    piece,
    pongs_owed,
    ping_sequence,
    within_message,
    retuned,
    inquiry,
    look
} if Conversation::is_legal }

plain_struct! { Aside { heartbeat_data, window, behind } if Aside::is_legal }

plain_struct! { Introduced { identity, boot_id, instance_id, admission } if Introduced::is_legal }

plain_enum! { Stage {
    0 => Handshake {}
    1 => Admission {}
    2 => Established {}
    3 => HalfClosed {}
    4 => Over {}
} }

impl Conversation {
    /// Returns the codec of the link.
    pub(in crate::link) fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns whether a decoded conversation is one that can wait for its next input. What is not
    /// checked here does no harm: it only makes a wrong verdict.
    fn is_legal(&self) -> bool {
        if self.is_over() {
            return true;
        }
        let has_admission = self.introduced.as_ref().is_some_and(|known| known.admission.is_some());
        // A verdict that has fallen waits for its last examination only: it would wait for ever.
        let awaits_verdict = self.inquiry.as_ref().is_some_and(|known| known.awaiting.is_some());
        (1..=PIECE).contains(&usize::from(self.piece))
            && self.awaits_admission() == has_admission
            && (awaits_verdict || !self.liveness.is_dead())
            // The PINGs of one read are answered with it.
            && self.pongs_owed == 0
    }
}

impl Aside {
    fn is_legal(&self) -> bool {
        self.heartbeat_data.len() <= MAX_HEARTBEAT_DATA
            && (!self.heartbeat_data.is_empty() || self.window.is_some() || self.behind.is_some())
    }
}

impl Introduced {
    fn is_legal(&self) -> bool {
        self.identity.len() <= MAX_IDENTITY && is_text(&self.identity)
    }
}
