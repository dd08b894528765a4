//! The logic of a shard: what answers the data that arrives on its links.
//!
//! The loop hands in each piece of data, and later takes the sends that the logic wants. Logic
//! never touches a socket or the hub.

mod echo;

use systole_core::link::Command;
use systole_core::wire::DataKind;

pub use echo::Echo;

use crate::config;

/// The logic of one shard.
#[derive(Debug)]
pub enum Logic {
    /// Drops data.
    None,
    /// Sends data back to its sender.
    Echo(Echo),
}

/// A message or a part of it, which arrived on a link or is to be sent on one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) bytes: &'a [u8],
    /// Whether the message continues in the next piece on the same link.
    pub(crate) more: bool,
    /// The message type, for `message1028`.
    pub(crate) kind: DataKind,
}

impl<'a> From<Piece<'a>> for Command<'a> {
    fn from(Piece { bytes, more, kind }: Piece<'a>) -> Command<'a> {
        Command::Send { bytes, more, kind }
    }
}

impl Logic {
    /// Creates the logic that a configuration names.
    pub fn new(setting: config::Logic) -> Logic {
        match setting {
            config::Logic::Echo => Logic::Echo(Echo::default()),
            config::Logic::None => Logic::None,
        }
    }

    /// Handles a piece of data that arrived on a link.
    #[inline]
    pub(crate) fn handle_data(&mut self, link: u32, piece: Piece<'_>) {
        match self {
            Logic::None => {}
            Logic::Echo(echo) => echo.handle_data(link, piece),
        }
    }

    /// Returns the next piece to be sent, with the number of its link. The loop takes all of them
    /// after each input of the hub, which bounds what waits here.
    #[inline]
    pub(crate) fn poll_send(&mut self) -> Option<(u32, Piece<'_>)> {
        match self {
            Logic::None => None,
            Logic::Echo(echo) => echo.poll_send(),
        }
    }
}
