//! What arrives in a session with a window.

use super::Limits;
use crate::plain::plain_struct;
use crate::wire::Malformed;

/// The incoming half of a window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming {
    /// The whole messages received, of all in the session.
    received: u64,
    /// How many of them the application has not taken yet.
    untaken: u32,
    /// How many of the taken ones were not acknowledged yet.
    untold: u32,
    /// The bytes of all messages that are received and not acknowledged.
    bytes: u32,
    /// The bytes among them that are taken.
    bytes_taken: u32,
    /// How many messages back from the last received one the peer has asked for an
    /// acknowledgement at once; `None` if it has not.
    asked: Option<u32>,
    /// Whether what was told may have been lost with the former link.
    doubtful: bool,
}

plain_struct! { Incoming {
    received,
    untaken,
    untold,
    bytes,
    bytes_taken,
    asked,
    doubtful
} if Incoming::is_legal }

impl Incoming {
    fn is_legal(&self) -> bool {
        u64::from(self.unacknowledged()) <= self.received && self.bytes_taken <= self.bytes
    }

    /// Returns how many whole messages of the session were received.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Returns how many messages were received and not taken, and their bytes.
    pub const fn untaken(&self) -> (usize, usize) {
        (self.untaken as usize, (self.bytes - self.bytes_taken) as usize)
    }

    /// Returns how many messages were received and are not acknowledged.
    const fn unacknowledged(&self) -> u32 {
        self.untaken.saturating_add(self.untold)
    }

    /// Counts a whole message of this length. `hurried` says that the peer asks for an
    /// acknowledgement at once.
    ///
    /// # Errors
    /// [`Malformed::BeyondWindow`] if the window does not allow it.
    pub fn receive(
        &mut self,
        limits: Limits,
        length: usize,
        hurried: bool,
    ) -> Result<(), Malformed> {
        if !limits.allow(self.unacknowledged() as usize, self.bytes as usize, length) {
            return Err(Malformed::BeyondWindow);
        }
        self.received += 1;
        self.untaken += 1;
        self.bytes = self.bytes.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        self.asked = match (self.asked, hurried) {
            (_, true) => Some(0),
            (asked, false) => asked.map(|back| back + 1),
        };
        Ok(())
    }

    /// Notes that the peer asks for an acknowledgement of everything it has sent, at once.
    pub fn ask(&mut self) {
        self.asked = Some(0);
    }

    /// Notes that the application has taken the oldest message that it had not taken, of this
    /// length.
    pub fn take(&mut self, length: usize) {
        if self.untaken > 0 {
            self.untaken -= 1;
            self.untold += 1;
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            self.bytes_taken = self.bytes_taken.saturating_add(length).min(self.bytes);
        }
    }

    /// Notes that the application has taken all messages that have arrived.
    pub fn take_all(&mut self) {
        self.untold = self.untold.saturating_add(core::mem::take(&mut self.untaken));
        self.bytes_taken = self.bytes;
    }

    /// Returns whether an acknowledgement is to go now, alone if need be.
    pub fn is_urgent(&self, limits: Limits) -> bool {
        let half = self.untold >= limits.messages.div_ceil(2)
            || self.bytes_taken >= limits.bytes.div_ceil(2);
        let asked = self.asked.is_some_and(|back| self.untaken <= back);
        self.doubtful || (self.untold > 0 && half) || asked
    }

    /// Returns the acknowledgement that can ride on what goes now; `None` if the peer knows it.
    pub fn news(&self) -> Option<u32> {
        let asked = self.asked.is_some_and(|back| self.untaken <= back);
        (self.untold > 0 || asked || self.doubtful).then(|| self.acknowledgement())
    }

    /// Returns the acknowledgement: how many messages the application has taken, modulo 2^32.
    pub fn acknowledgement(&self) -> u32 {
        self.received.wrapping_sub(u64::from(self.untaken)) as u32
    }

    /// Notes that the acknowledgement goes out now.
    pub fn told(&mut self) {
        self.untold = 0;
        self.doubtful = false;
        self.bytes -= self.bytes_taken;
        self.bytes_taken = 0;
        if self.asked.is_some_and(|back| self.untaken <= back) {
            self.asked = None;
        }
    }

    /// Begins a new link: what the peer asked on the former one it asks again, and an
    /// acknowledgement that went there may be lost.
    pub fn resume(&mut self) {
        self.asked = None;
        self.doubtful = self.received > 0;
    }
}
