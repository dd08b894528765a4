//! The memory for incomplete frames: what the links of a hub hold together, and who gives way.

use super::Hub;
use crate::time::Time;

/// The usual memory for incomplete frames in bytes: a thousand of the longest frames, or eight
/// thousand of the pieces into which this library cuts messages. A frame is incomplete only for the
/// milliseconds between its first segment and its last, so honest links rarely need more.
pub const FRAME_MEMORY: usize = 64 << 20;

impl Hub {
    /// Counts the incomplete frame of a link anew.
    #[cold]
    pub(super) fn count_frame(&mut self, link: u32) {
        let slot = self.slots.get(link);
        let frame = slot.and_then(|slot| {
            let frame = slot.peer.incomplete_frame()?;
            Some(((slot.peer.is_established(), frame.since), frame.memory))
        });
        self.frames.set(link, frame);
    }

    /// Ends the links with the oldest incomplete frames until the others fit into the memory: first
    /// those that have not logged in, so that strangers end no session.
    #[cold]
    pub(super) fn make_room(&mut self, now: Time) {
        while let Some(link) = self.frames.must_give_way() {
            self.run_link(now, link, |peer, _, out| peer.give_way(now, out));
            self.frames.set(link, None);
            self.counters.frames_dropped += 1;
        }
    }
}
