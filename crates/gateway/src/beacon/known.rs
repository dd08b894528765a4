//! What a shard knows of a device that is online.

use systole_core::Time;
use systole_core::beacon::{Presence, Subject as BeaconSubject};
use systole_core::flight::Flight;
use systole_core::wire::{BootId, InstanceId};

use super::keys::device_text;
use crate::events::PolicyInfo;
use crate::report::{SessionInfo, Subject, session_text};
use crate::shard::answer::{Known, Selected};

/// A device that is online.
pub(super) struct Device {
    pub(super) listener: u16,
    pub(super) presence: Presence,
}

impl Selected for Device {
    fn has_identity(&self, identity: &str) -> bool {
        device_text(self.presence.subject.device) == identity
    }

    fn listener(&self) -> u16 {
        self.listener
    }

    fn is_suspect(&self) -> bool {
        self.presence.suspect
    }

    fn subject(&self) -> Subject {
        subject_of(&self.presence.subject, self.listener)
    }
}

impl Known for Device {
    fn flight(&self) -> Option<Flight> {
        None
    }

    fn info(&self, now: Time, wall_ms: u64) -> SessionInfo {
        let presence = &self.presence;
        let held = presence.held_until.filter(|until| *until > now);
        let last_heard_ago_ms = now.since(presence.last_heard).as_millis();
        SessionInfo {
            attributes: Default::default(),
            session: session_text(presence.subject.session),
            epoch: presence.subject.epoch.to_string(),
            identity: device_text(presence.subject.device),
            listener: self.listener,
            address: presence.subject.address,
            since_ms: wall_ms.saturating_sub(now.since(presence.subject.since).as_millis()),
            last_heard_ago_ms,
            // The gateway sends only answers to statements.
            last_sent_ago_ms: last_heard_ago_ms,
            rtt_us: None,
            suspect: presence.suspect,
            held_for_ms: held.map(|until| until.since(now).as_millis()),
            policy: PolicyInfo::new(&presence.policy),
        }
    }
}

/// Returns the session of a device, as reports name it.
pub(super) fn subject_of(beacon: &BeaconSubject, listener: u16) -> Subject {
    Subject {
        session: beacon.session,
        epoch: beacon.epoch,
        identity: device_text(beacon.device).into(),
        listener,
        address: beacon.address,
        boot_id: BootId::default(),
        instance_id: InstanceId::default(),
        established: true,
    }
}
