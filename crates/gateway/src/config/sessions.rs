//! Reads how many sessions an identity may have, and what a login beyond that meets.

use systole_core::link::Logins;

use super::section::{Given, Reading, Section};
use super::value;

/// What a login meets whose identity has as many sessions as it may have: whether it is refused.
const CONFLICTS: [(&str, bool); 2] = [("replace", false), ("refuse", true)];

/// The most sessions that an identity may have at once: each login looks at all of them.
const MAX_SESSIONS_PER_IDENTITY: u64 = 1_000;

/// The settings as the file gives them.
#[derive(Debug)]
pub(super) struct SessionSettings {
    per_identity: Option<Given<u64>>,
    conflict: Option<Given<bool>>,
}

impl SessionSettings {
    /// Takes the settings out of a section.
    pub(super) fn take(reading: &mut Reading<'_>, section: &mut Section<'_>) -> SessionSettings {
        let range = value::integer(1..=MAX_SESSIONS_PER_IDENTITY);
        SessionSettings {
            per_identity: section.take(reading, "sessions_per_identity", range),
            conflict: section.take(reading, "login_conflict", value::chosen(&CONFLICTS)),
        }
    }

    /// Refuses the settings at a listener for beacons: a device that sends them has one key, and
    /// one session at most.
    pub(super) fn refuse(&self, reading: &mut Reading<'_>) {
        let per_identity = self.per_identity.as_ref().map(|given| &given.span);
        let conflict = self.conflict.as_ref().map(|given| &given.span);
        for (key, place) in [("sessions_per_identity", per_identity), ("login_conflict", conflict)]
        {
            let Some(place) = place else { continue };
            let what = format!("`{key}` has no effect on a beacon listener");
            let help = "leave it out: a device has one session at most".to_owned();
            reading.problems.add(Some(place.clone()), what, Some(help));
        }
    }

    /// Returns what the settings say.
    pub(super) fn read(self) -> Logins {
        let limit = u16::try_from(Given::or(self.per_identity, 1)).unwrap_or(u16::MAX);
        Logins { limit, refuse: Given::or(self.conflict, false) }
    }
}
