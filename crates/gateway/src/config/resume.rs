//! Reads for how long the sessions of a listener outlive their links, and what happens when too
//! much waits for one of them.

use systole_core::Span;
use systole_core::link::WhenFull;
use systole_core::window::Limits;
use systole_core::wire::Codec;

use super::listener::codec_name;
use super::section::{Given, Reading, Section};
use super::value;

/// What happens when a message to a session that is away finds its window full.
const WHEN_FULL: [(&str, WhenFull); 2] = [("end", WhenFull::End), ("gap", WhenFull::Gap)];

/// How long a session outlives its link unless the file says otherwise: a change of networks and
/// the restart of a router take less, and who comes later has missed too much to go on.
const WINDOW: Span = Span::from_secs(30);

/// The longest time for which a session may outlive its link: what waits for it is kept in memory.
const LONGEST: Span = Span::from_secs(86_400);

/// What is said of a setting that only native listeners have.
const NATIVE_ONLY: &str = "leave it out: only native clients can resume a session";

/// How the sessions of a listener outlive their links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// For how long a session outlives a lost link; zero for not at all. Longer bridges longer
    /// outages, and keeps clients that do not come back in memory and in presence.
    pub window: Span,
    /// What happens when a message to a session that is away finds its window full.
    pub when_full: WhenFull,
}

impl Resume {
    /// The setting of sessions that end with their links.
    pub(super) const OFF: Resume = Resume { window: Span::ZERO, when_full: WhenFull::End };

    /// What holds for sessions of a codec unless the file says otherwise.
    pub(super) const fn default_of(codec: Codec) -> Resume {
        match codec {
            Codec::Native => Resume { window: WINDOW, when_full: WhenFull::End },
            Codec::Message1028 | Codec::Line => Resume::OFF,
        }
    }
}

/// The settings as the file gives them.
#[derive(Debug)]
pub(super) struct ResumeSettings {
    window: Option<Given<Span>>,
    when_full: Option<Given<WhenFull>>,
}

impl ResumeSettings {
    /// Takes the settings out of a section.
    pub(super) fn take(reading: &mut Reading<'_>, section: &mut Section<'_>) -> ResumeSettings {
        ResumeSettings {
            window: section.take(reading, "resume_window", value::span(Span::ZERO..=LONGEST)),
            when_full: section.take(reading, "resume_when_full", value::chosen(&WHEN_FULL)),
        }
    }

    /// Returns the settings that the file gives, by name.
    pub(super) fn given(&self) -> [(&'static str, Option<&std::ops::Range<usize>>); 2] {
        let window = self.window.as_ref().map(|given| &given.span);
        let when_full = self.when_full.as_ref().map(|given| &given.span);
        [("resume_window", window), ("resume_when_full", when_full)]
    }

    /// Returns what the settings say at a listener with this codec and these windows.
    pub(super) fn read(
        self,
        reading: &mut Reading<'_>,
        codec: Codec,
        windows: Option<Limits>,
    ) -> Resume {
        let default = Resume::default_of(codec);
        let help = match (codec, windows) {
            (Codec::Native, Some(_)) => {
                return Resume {
                    window: Given::or(self.window, default.window),
                    when_full: Given::or(self.when_full, default.when_full),
                };
            }
            (Codec::Native, None) => "leave it out, or let `window_messages` be a number",
            (Codec::Message1028 | Codec::Line, _) => NATIVE_ONLY,
        };
        let on = match codec {
            Codec::Native => "without windows".to_owned(),
            Codec::Message1028 | Codec::Line => format!("on a {} listener", codec_name(codec)),
        };
        // "0s" says what holds here anyway.
        let is_off = self.window.as_ref().is_some_and(|given| given.value == Span::ZERO);
        for (key, place) in self.given() {
            let Some(place) = place.filter(|_| key != "resume_window" || !is_off) else { continue };
            let what = format!("`{key}` has no effect {on}");
            reading.problems.add(Some(place.clone()), what, Some(help.to_owned()));
        }
        Resume::OFF
    }
}
