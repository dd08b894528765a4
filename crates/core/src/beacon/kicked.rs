//! Kicked devices, which are refused for a while.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::plain::{Damage, Plain, Sink, Source};
use crate::time::{Span, Time};

/// How long a kicked device is refused. A device that is kicked sends on as before; without this it
/// would be back with its next statement.
pub const KICK_REST: Span = Span::from_secs(60);

/// The maximum number of kicked devices that are remembered: operators kick by hand. When full, the
/// device that was kicked first may come back.
pub const KICKED: usize = 4_096;

/// The devices that were kicked within [`KICK_REST`].
#[derive(Clone, Debug, Default)]
pub(super) struct Kicked {
    devices: BTreeSet<u64>,
    /// The same devices with the end of their rest. Each stands here once: a device that is refused
    /// is not online, and only one that is online can be kicked.
    order: VecDeque<(u64, Time)>,
}

impl Plain<'_> for Kicked {
    fn put(&self, out: &mut Sink<'_>) {
        self.order.iter().copied().collect::<Vec<_>>().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        let order = Vec::<(u64, Time)>::take(from)?;
        let devices: BTreeSet<u64> = order.iter().map(|(device, _)| *device).collect();
        if devices.len() != order.len() || order.len() > KICKED {
            return Err(Damage::Illegal);
        }
        Ok(Kicked { devices, order: order.into() })
    }
}

impl Kicked {
    pub(super) fn insert(&mut self, now: Time, device: u64) {
        self.forget(now);
        if self.order.len() == KICKED
            && let Some((first, _)) = self.order.pop_front()
        {
            self.devices.remove(&first);
        }
        self.devices.insert(device);
        self.order.push_back((device, now + KICK_REST));
    }

    /// Returns whether statements of the device are refused at `now`.
    pub(super) fn refuses(&mut self, now: Time, device: u64) -> bool {
        if self.devices.is_empty() {
            return false;
        }
        self.forget(now);
        self.devices.contains(&device)
    }

    fn forget(&mut self, now: Time) {
        while let Some((device, _)) = self.order.front().copied().filter(|(_, at)| *at <= now) {
            self.order.pop_front();
            self.devices.remove(&device);
        }
    }
}
