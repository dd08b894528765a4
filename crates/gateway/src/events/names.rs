//! The names and limits that the gateway adds to facts.

use std::sync::Arc;

use super::details::Session;
use super::event::Body;
use crate::report::{PauseReason, Subject};

/// The names and limits that complete a fact to an event.
#[derive(Clone, Debug)]
pub struct Names {
    /// The names of the listeners, by index; after them those that only a killed gateway had.
    pub listeners: Vec<Arc<str>>,
    /// The limit on open descriptors of this process.
    pub descriptors: Option<u64>,
    /// The limit on links per shard.
    pub max_links: u64,
    /// Whether `max_links` follows from the descriptor limit instead of the configuration.
    pub links_by_descriptors: bool,
}

impl Names {
    pub(crate) fn session(&self, subject: Subject) -> Session {
        let listener = self.listeners.get(usize::from(subject.listener));
        let listener = listener.cloned().unwrap_or_default();
        Session::new(subject, listener)
    }

    /// Returns the index of the listener called `name`; one that none has for an unknown name.
    pub(crate) fn listener(&self, name: &str) -> u16 {
        let index = self.listeners.iter().position(|known| **known == *name);
        index.and_then(|index| u16::try_from(index).ok()).unwrap_or(u16::MAX)
    }

    /// Makes the event of a pause of accepting.
    pub(crate) fn paused(&self, shard: usize, reason: PauseReason) -> Body {
        let Limit { name, limit, hint } = self.limit(reason);
        Body::AcceptingPaused { shard, reason: name, limit, hint }
    }

    /// Describes the limit at which accepting pauses.
    pub(crate) fn limit(&self, reason: PauseReason) -> Limit {
        let (name, limit, hint) = match reason {
            PauseReason::LinkLimit if !self.links_by_descriptors => (
                "link_limit",
                Some(self.max_links),
                "raise max_links in [limits] of the configuration, and restart",
            ),
            PauseReason::DescriptorLimit | PauseReason::LinkLimit => (
                "descriptor_limit",
                self.descriptors,
                "raise the limit on open files: LimitNOFILE= in the systemd unit, --ulimit nofile= \
                 of the container, or `ulimit -Hn` of the shell",
            ),
            PauseReason::ControlPlane => (
                "control_plane",
                None,
                "the control plane is behind with the events of ended sessions: give the gateway \
                 more processor time",
            ),
            PauseReason::BeaconLimit => (
                "beacon_limit",
                None,
                "raise max_beacons of the listener in the configuration, and restart",
            ),
            PauseReason::HostLimit => (
                "host_limit",
                None,
                "the host ran out of descriptors or memory: raise fs.file-max, or give it memory",
            ),
        };
        Limit { name, limit, hint }
    }
}

/// A limit at which accepting pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limit {
    /// The name of the limit.
    pub name: &'static str,
    /// The limit that was reached, if it is a number.
    pub limit: Option<u64>,
    /// How to raise the limit.
    pub hint: &'static str,
}
