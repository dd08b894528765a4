//! The findings that support revisions.

use core::fmt;

use crate::cause::Cause;
use crate::time::Span;

/// The finding that supports a revision.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Note {
    /// The peer returned with another boot id.
    NewBoot,
    /// The peer returned from the same machine with another instance id.
    NewInstance,
    /// A reset reached one end before either end had closed.
    NeitherClosed {
        /// How long the link had carried no traffic before one end sent again.
        idle: Span,
    },
    /// A new connection worked although the old one was still blocked.
    NewFlowPassed {
        /// How long the link had carried no traffic before one end sent again.
        idle: Span,
    },
    /// The peer heard our probes while we heard no answer.
    PeerHeardUs,
    /// The peer did not hear this end either.
    PeerHeardNothing,
    /// The same process returned; it had heard nothing, and ended its side before.
    PeerGaveUp,
    /// The peer's machine was suspended.
    PeerSuspended(Span),
    /// The peer's process was stopped while its machine ran. A process that waits cannot know when
    /// it was stopped: it knows only by how much its wait was too long.
    PeerStopped {
        /// The time by which its waits were too long.
        least: Span,
        /// The time from the last evidence of the peer to the return of the process.
        most: Span,
    },
    /// The peer's own network was down, or changed.
    PeerNetworkDown,
    /// The fate of other links settled the scope.
    Siblings,
    /// Other links of the same machine lived while this one had no answer.
    SiblingsLive,
    /// An earlier link of the same identity and host ended for the same cause.
    Repeated,
}

impl Note {
    /// Returns one sentence on what an operator can do about `cause`, which this finding supports.
    /// It says less than [`Cause::advice`] where the finding excludes a part of that.
    pub const fn advice(&self, cause: Cause) -> &'static str {
        match self {
            Note::PeerStopped { .. } | Note::SiblingsLive if matches!(cause, Cause::AppHung) => {
                "Look at the peer's process, which did not answer: a deadlock, a long pause, a \
                 debugger."
            }
            Note::PeerSuspended(_) => {
                "Nothing, if the peer's machine is meant to sleep: it was suspended."
            }
            Note::PeerNetworkDown => "Look at the network of the peer's machine.",
            Note::PeerStopped { .. }
            | Note::SiblingsLive
            | Note::NewBoot
            | Note::NewInstance
            | Note::NeitherClosed { .. }
            | Note::NewFlowPassed { .. }
            | Note::PeerHeardUs
            | Note::PeerHeardNothing
            | Note::PeerGaveUp
            | Note::Siblings
            | Note::Repeated => cause.advice(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::NewBoot => f.write_str("it came back with another boot id"),
            Note::NewInstance => f.write_str("the same machine came back with another process"),
            Note::NeitherClosed { idle } => {
                write!(f, "ended although neither end had closed, after {idle} without traffic")
            }
            Note::NewFlowPassed { idle } => write!(
                f,
                "a new connection passed while this one still passed nothing, after {idle} without \
                 traffic"
            ),
            Note::PeerHeardUs => f.write_str("it heard us while we asked in vain"),
            Note::PeerHeardNothing => f.write_str("it heard nothing of us either"),
            Note::PeerGaveUp => f.write_str(
                "the same process came back: it had heard nothing, and given up before this end",
            ),
            Note::PeerSuspended(span) => write!(f, "its machine was suspended for {span}"),
            Note::PeerStopped { least, most } => {
                write!(f, "its process was stopped for at least {least}, at most {most}")
            }
            Note::PeerNetworkDown => f.write_str("its own network was down or changed"),
            Note::Siblings => f.write_str("by what became of other links"),
            Note::SiblingsLive => f.write_str("other links of the same machine lived meanwhile"),
            Note::Repeated => f.write_str("an earlier link on the same path ended likewise"),
        }
    }
}
