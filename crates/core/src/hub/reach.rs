//! Which links there are, and whom a message from outside reaches.

use alloc::vec::Vec;

use super::sessions::{Place, Session};
use super::{Hub, Presence, Presences};
use crate::time::Span;

/// The reason why a message cannot be sent on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsendable {
    /// The link is not established, or not any more.
    Gone,
    /// Its codec cannot carry the message as it is: it is too long, or no line.
    Unfit,
    /// Another message is being sent there, of which a part has left, or too much waits for the
    /// peer's acknowledgement. Try again.
    Busy,
}

impl Hub {
    /// Returns the presence of a link. A link that has ended is available until the
    /// outputs have been polled and another input comes.
    pub fn presence(&self, link: u32) -> Option<Presence<'_>> {
        let slot = self.slots.get(link)?;
        Some(Presence::of(link, slot, &self.sessions, &self.granted))
    }

    /// Searches at most `limit` numbers from `from` upwards for established links. Numbers without
    /// a link count too.
    pub fn presences(&self, from: u32, limit: usize) -> Presences<'_> {
        Presences::new(self.slots.scan(from, limit), &self.sessions, &self.granted)
    }

    /// Returns the established link that carries this session.
    pub fn find(&self, session: u64) -> Option<u32> {
        let link = self.sessions.find(session)?.link()?;
        self.slots.get(link)?.peer.is_established().then_some(link)
    }

    /// Returns the established links that carry the sessions of an identity, claimed or proved.
    pub fn links_of(&self, identity: &str) -> Vec<u32> {
        let is_same = |place| {
            let slot = self.sessions.get(place).and_then(|it| self.slots.get(it.link()?));
            slot.is_some_and(|slot| slot.identity() == identity && slot.peer.is_established())
        };
        let rivals = self.identities.rivals(identity, is_same).into_iter();
        rivals.filter_map(|rival| self.sessions.get(rival.place).and_then(Session::link)).collect()
    }

    /// Returns whether the session on a link has a window, which bounds what waits for its peer.
    pub fn has_window(&self, link: u32) -> bool {
        self.slots.get(link).is_some_and(|slot| slot.peer.progress().is_some())
    }

    /// Returns whether a message can be sent on a link now as it is: the link is established, its
    /// codec carries the message, no other is being sent there, and it may be kept until it is
    /// acknowledged.
    pub fn can_send(&self, link: u32, message: &[u8]) -> Result<(), Unsendable> {
        let slot = self.slots.get(link).filter(|slot| slot.peer.is_established());
        let slot = slot.ok_or(Unsendable::Gone)?;
        let settings = self.listeners.get(usize::from(slot.listener)).ok_or(Unsendable::Gone)?;
        if !settings.codec.carries(message) {
            return Err(Unsendable::Unfit);
        }
        let has_room = slot.peer.has_room(message.len());
        if !has_room || slot.peer.is_within_message() { Err(Unsendable::Busy) } else { Ok(()) }
    }

    /// Whether [`Answer::Owned`](super::Answer::Owned) puts the session with this number in force
    /// now, so that it joins. False from the end of its link on, and once it has its epoch: then
    /// the answer is ignored, and nobody is told of the session.
    pub fn awaits_epoch(&self, session: u64) -> bool {
        self.unowned_at(session).is_some()
    }

    /// Returns whether a session that waits for its epoch can be resumed later, so that it needs a
    /// token.
    pub fn may_outlive_its_link(&self, session: u64) -> bool {
        let waiting = self.unowned_at(session).and_then(|(link, ..)| self.slots.get(link));
        waiting.is_some_and(|slot| {
            let settings = self.listeners.get(usize::from(slot.listener));
            let windows = settings.and_then(|settings| settings.window);
            let outlives = windows.is_some_and(|windows| windows.outlives > Span::ZERO);
            outlives && slot.peer.progress().is_some()
        })
    }

    /// Returns whether the peer of a link waits for the answer to this admission.
    pub fn awaits_answer(&self, link: u32, admission: u32) -> bool {
        self.awaits(link, admission).is_some()
    }

    /// Returns the link and the place of a session that waits for its epoch, and when it logged in.
    pub(super) fn unowned_at(&self, session: u64) -> Option<(u32, Place, Span)> {
        let link = self.sessions.find(session).filter(|it| it.epoch() == 0)?.link()?;
        let slot = self.slots.get(link).filter(|slot| slot.peer.awaits_admission())?;
        Some((link, slot.place?, slot.peer.login()?))
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::Codec;
    use crate::wire::line::MAX_LINE;

    #[test]
    fn a_codec_carries_what_arrives_as_it_was_sent() {
        for (codec, message, carries) in [
            (Codec::Native, &b"two\nlines"[..], true),
            (Codec::Native, b"", true),
            (Codec::Native, &[7; 65_536], true),
            (Codec::Native, &[7; 65_537], false),
            (Codec::Message1028, &[7; 1_024], true),
            (Codec::Message1028, &[7; 1_025], false),
            (Codec::Line, b"hello", true),
            (Codec::Line, b"", true),
            (Codec::Line, b"two\nlines", false),
            (Codec::Line, b"ping", false),
            (Codec::Line, b"pong", false),
            (Codec::Line, b"ping\r", false),
            (Codec::Line, b"a return\r", false),
            (Codec::Line, &[b'x'; MAX_LINE - 1], true),
            (Codec::Line, &[b'x'; MAX_LINE], false),
        ] {
            let shown = message.get(..9.min(message.len()));
            assert_eq!(codec.carries(message), carries, "{codec} {shown:?}");
        }
    }
}
