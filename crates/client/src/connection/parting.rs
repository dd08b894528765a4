//! The time between the application's request to close and CLOSE: the messages that wait are sent,
//! and the server acknowledges all of them.

use systole_core::link::departure::{EXAMINE_INTERVAL, LEAVE_LIMIT, STALL};
use systole_core::link::{Command as LinkCommand, World};
use systole_core::wire::CloseReason;
use systole_core::wire::outbox::Outbox;
use systole_core::{Machine, Span, Time};
use systole_net::examine::tcp_snapshot;

use super::Connection;
use crate::begin::Begin;
use crate::shared::Shared;

/// What is left of [`STALL`] for the end of the connection, after a time in which the server took
/// nothing: enough for CLOSE and its acknowledgement if only the server's application is slow.
const LAST_CHANCE: Span = Span::from_secs(2);

/// The least number of bytes that shows progress when the server's system acknowledges them: more
/// than heartbeats have, and little enough for a slow path.
const LEAST_BYTES: u64 = 1_024;

/// A close that the application has asked for, while messages are not acknowledged.
#[derive(Debug)]
pub(super) struct Parting {
    pub(super) reason: CloseReason,
    /// When a link first began with it.
    pub(super) began: Time,
    /// When the server last took or acknowledged anything.
    progress: Time,
    next_examination: Time,
    /// What has not changed since `progress`.
    seen: Seen,
}

/// What shows that the server takes messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    /// Acknowledged messages of the session.
    acknowledged: u64,
    /// Bytes in the outbox.
    queued: usize,
    /// Bytes that the server's system has acknowledged, at the last examination.
    bytes: Option<u64>,
}

impl<T: Begin> Connection<T> {
    /// Handles the request to close, which a link first began with at `began`. CLOSE goes at once
    /// if nothing waits for acknowledgement.
    pub(super) fn request_close(
        &mut self,
        now: Time,
        reason: CloseReason,
        began: Time,
        shared: &Shared,
    ) {
        self.close_requested = true;
        // What is sent from here on could only be dropped.
        shared.set_closing();
        let next_examination = now + EXAMINE_INTERVAL;
        let seen = self.seen(self.acknowledged_bytes());
        self.parting = Some(Parting { reason, began, progress: now, next_examination, seen });
        self.ask_for_acknowledgement(now);
        self.part(now);
    }

    /// Sends CLOSE if everything is acknowledged, or if the server has taken nothing for too long.
    pub(super) fn part(&mut self, now: Time) {
        let Some(mut parting) = self.parting.take() else {
            return;
        };
        let mut bytes = parting.seen.bytes;
        if parting.next_examination <= now {
            parting.next_examination = now + EXAMINE_INTERVAL;
            let more = self.acknowledged_bytes();
            if more.zip(bytes).is_none_or(|(more, bytes)| more >= bytes + LEAST_BYTES) {
                bytes = more.or(bytes);
            }
        }
        let seen = self.seen(bytes);
        if seen != parting.seen {
            (parting.seen, parting.progress) = (seen, now);
        }
        let is_settled = !self.backlog.has_window || self.backlog.is_settled();
        let is_stalled = parting.progress + STALL.less(LAST_CHANCE) <= now;
        let left = LEAVE_LIMIT.less(now.since(parting.began));
        if !is_settled && !is_stalled && left > STALL {
            self.parting = Some(parting);
            return;
        }
        self.leave_limit = if is_stalled && !is_settled { LAST_CHANCE } else { left };
        self.link.handle(now, World::Command(LinkCommand::close(parting.reason)));
    }

    /// Returns when [`Connection::part`] is to be called at the latest.
    pub(super) fn parting_due(&self) -> Option<Time> {
        self.parting.as_ref().map(|parting| parting.next_examination)
    }

    /// Returns how many bytes the server's system has acknowledged, if this one shows it and it
    /// matters.
    fn acknowledged_bytes(&self) -> Option<u64> {
        let waits = self.backlog.has_window && !self.backlog.is_settled();
        if waits { tcp_snapshot(self.socket.stream())?.bytes_acked } else { None }
    }

    fn seen(&self, bytes: Option<u64>) -> Seen {
        let queued = self.socket.outbox().map_or(0, Outbox::held);
        Seen { acknowledged: self.backlog.progress().1, queued, bytes }
    }
}
