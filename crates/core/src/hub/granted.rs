//! What the answer to a login grants a session beside its identity. Few sessions have any of it, so
//! it stands in a table of its own, and costs the others no memory.

use alloc::boxed::Box;

use super::Hub;
use crate::link;
use crate::machine::{Deadline, Reason};
use crate::plain::plain_struct;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// The maximum length of the attributes of a session, in bytes.
pub const MAX_ATTRIBUTES: usize = 1_024;

/// What the answer to a login grants the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grant<'a> {
    /// What else is known of the peer, in a form that only the shell reads. More than
    /// [`MAX_ATTRIBUTES`] bytes are refused, and there are none.
    pub attributes: &'a str,
    /// The time after which the session ends as [`CloseReason::Unauthorized`], and its peer may
    /// come back.
    pub lasts: Option<Span>,
}

plain_struct! { Grant<'a> { attributes, lasts } }

/// What a session was granted.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    pub(super) attributes: Box<str>,
    /// When the session ends.
    until: Option<Time>,
}

plain_struct! { Granted { attributes, until } if Granted::is_legal }

impl Granted {
    /// Returns what `grant` is from `now` on; `None` if it is nothing.
    pub(super) fn new(now: Time, grant: Grant<'_>) -> Option<Granted> {
        let fits = grant.attributes.len() <= MAX_ATTRIBUTES;
        let attributes = if fits { grant.attributes } else { "" };
        let until = grant.lasts.map(|lasts| now + lasts);
        let is_empty = attributes.is_empty() && until.is_none();
        (!is_empty).then(|| Granted { attributes: attributes.into(), until })
    }

    /// Returns when the session ends.
    pub(super) fn until(&self) -> Option<Time> {
        self.until
    }

    fn is_legal(&self) -> bool {
        self.attributes.len() <= MAX_ATTRIBUTES
    }
}

impl Hub {
    /// Returns the next deadline of a link: that of its peer, or the end of its session.
    pub(super) fn deadline_of_link(&self, link: u32) -> Option<Deadline> {
        let peer = &self.slots.get(link)?.peer;
        if self.granted.is_empty() {
            return peer.next_deadline();
        }
        Deadline::earlier(peer.next_deadline(), self.expiry(link))
    }

    /// Returns when the session of a link ends because its token does.
    fn expiry(&self, link: u32) -> Option<Deadline> {
        let until = self.granted.get(&link)?.until?;
        let is_established = self.slots.get(link)?.peer.is_established();
        is_established.then(|| Deadline::exact(until, Reason::Expiry))
    }

    /// Handles the deadline of a link.
    pub(super) fn handle_deadline(&mut self, now: Time, link: u32) {
        if !self.granted.is_empty() && self.expiry(link).is_some_and(|end| end.at <= now) {
            let close = link::Command::close(CloseReason::Unauthorized);
            return self.handle_link(now, link, link::World::Command(close));
        }
        self.handle_link(now, link, link::Answer::Deadline);
    }
}
