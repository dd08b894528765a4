//! Reads how many sessions an identity may have, what a login beyond that meets, how often it may
//! log in, how much each session may send, how much may wait for its acknowledgement, and for how
//! long it outlives its link.

use systole_core::link::{Logins, Rates};
use systole_core::window::Limits;
use toml::de::DeValue;

use super::listener::Listener;
use super::resume::ResumeSettings;
use super::section::{Given, Reading, Section};
use super::value;

/// What a login meets whose identity has as many sessions as it may have: whether it is refused.
const CONFLICTS: [(&str, bool); 2] = [("replace", false), ("refuse", true)];

/// The most sessions that an identity may have at once: each login looks at all of them.
const MAX_SESSIONS_PER_IDENTITY: u64 = 1_000;

/// Default of the logins in a minute, for each session that an identity may have: a client that
/// comes back at once whenever its connection ends stays far below, and one that does nothing else
/// costs no more than a login a second.
const LOGINS_PER_MINUTE: u32 = 60;

/// The most logins in a minute.
const MAX_LOGINS_PER_MINUTE: u64 = 1_000_000;

/// What a login meets unless the file says otherwise.
pub(super) const DEFAULT: Logins = Logins { per_minute: LOGINS_PER_MINUTE, ..Logins::NEWEST };

/// What either end of a session may send that is not acknowledged, unless the file says otherwise:
/// as many bytes as wait for one link. In a tenth of a second, a long round trip, 10,000 messages a
/// second have room.
pub(super) const WINDOW: Limits = Limits { messages: 1_024, bytes: 256 << 10 };

/// The settings as the file gives them.
#[derive(Debug)]
pub(super) struct SessionSettings {
    per_identity: Option<Given<u64>>,
    conflict: Option<Given<bool>>,
    per_minute: Option<Given<u32>>,
    /// Messages, bytes and heartbeats in a second.
    rates: [Option<Given<u32>>; 3],
    window_messages: Option<Given<u32>>,
    window_bytes: Option<Given<u64>>,
    resume: ResumeSettings,
}

/// The names of the rates.
const RATES: [&str; 3] = ["messages_per_second", "bytes_per_second", "heartbeats_per_second"];

impl SessionSettings {
    /// Takes the settings out of a section.
    pub(super) fn take(reading: &mut Reading<'_>, section: &mut Section<'_>) -> SessionSettings {
        let range = value::integer(1..=MAX_SESSIONS_PER_IDENTITY);
        SessionSettings {
            per_identity: section.take(reading, "sessions_per_identity", range),
            conflict: section.take(reading, "login_conflict", value::chosen(&CONFLICTS)),
            per_minute: section.take(reading, "logins_per_minute", per_minute),
            rates: RATES.map(|name| section.take(reading, name, rate)),
            window_messages: section.take(reading, "window_messages", window_messages),
            window_bytes: section.take(reading, "window_bytes", value::bytes(1 << 10..=64 << 20)),
            resume: ResumeSettings::take(reading, section),
        }
    }

    /// Refuses the settings at a listener for beacons: a device that sends them has one key, and
    /// one session at most, and too many statements cost no more than reading them.
    pub(super) fn refuse(&self, reading: &mut Reading<'_>) {
        let per_identity = self.per_identity.as_ref().map(|given| &given.span);
        let conflict = self.conflict.as_ref().map(|given| &given.span);
        let per_minute = self.per_minute.as_ref().map(|given| &given.span);
        let window_messages = self.window_messages.as_ref().map(|given| &given.span);
        let window_bytes = self.window_bytes.as_ref().map(|given| &given.span);
        let named = [
            ("sessions_per_identity", per_identity),
            ("login_conflict", conflict),
            ("logins_per_minute", per_minute),
            ("window_messages", window_messages),
            ("window_bytes", window_bytes),
        ];
        let rates = self.rates.iter().map(|rate| rate.as_ref().map(|given| &given.span));
        let named = named.into_iter().chain(self.resume.given());
        for (key, place) in named.chain(RATES.into_iter().zip(rates)) {
            let Some(place) = place else { continue };
            let what = format!("`{key}` has no effect on a beacon listener");
            let help =
                "leave it out: a device has one session, and only states that it lives".to_owned();
            reading.problems.add(Some(place.clone()), what, Some(help));
        }
    }

    /// Gives a listener what the settings say.
    pub(super) fn read(self, reading: &mut Reading<'_>, listener: &mut Listener) {
        let limit = u16::try_from(Given::or(self.per_identity, 1)).unwrap_or(u16::MAX);
        let [messages, bytes, heartbeats] = self.rates.map(|rate| Given::or(rate, 0));
        let each = DEFAULT.per_minute.saturating_mul(limit.into());
        let per_minute = Given::or(self.per_minute, each);
        let logins = Logins { limit, refuse: Given::or(self.conflict, false), per_minute };
        let window = Limits {
            messages: Given::or(self.window_messages, WINDOW.messages),
            bytes: self
                .window_bytes
                .map_or(WINDOW.bytes, |given| u32::try_from(given.value).unwrap_or(u32::MAX)),
        };
        let window = Some(window).filter(Limits::is_legal);
        listener.sessions = logins;
        listener.rates = Rates { messages, bytes, heartbeats };
        listener.window = window;
        listener.resume = self.resume.read(reading, listener.codec, window);
    }
}

/// Reads how many logins in a minute; 0 for `"off"`.
fn per_minute(value: &DeValue<'_>) -> Result<u32, String> {
    count(value, MAX_LOGINS_PER_MINUTE)
}

/// Reads how many messages may wait for their acknowledgement; 0 for `"off"`.
fn window_messages(value: &DeValue<'_>) -> Result<u32, String> {
    count(value, 65_536)
}

/// Reads a rate: `"off"`, or how many in a second.
fn rate(value: &DeValue<'_>) -> Result<u32, String> {
    count(value, 4_000_000_000)
}

/// Reads `"off"`, which is 0, or a number up to `most`.
fn count(value: &DeValue<'_>, most: u64) -> Result<u32, String> {
    if value.as_str() == Some("off") {
        return Ok(0);
    }
    let number = value::integer(1..=most)(value);
    let number = number.map_err(|right| format!("\"off\", or {right}"))?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}
