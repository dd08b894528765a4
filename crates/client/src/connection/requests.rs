//! Requests of the application, passed to the link machine as commands.

use crate::begin::Begin;
use systole_core::link::{Command as LinkCommand, World};
use systole_core::wire::{CloseReason, DataKind};
use systole_core::{Machine, Time};

use super::Connection;
use crate::carry_over::CarryOver;
use crate::shared::{Request, Shared};

impl<T: Begin> Connection<T> {
    /// Handles a request; `None` means that the application dropped the client.
    pub(super) fn handle_request(
        &mut self,
        now: Time,
        request: Option<Request>,
        carry_over: &mut CarryOver,
        shared: &Shared,
    ) {
        match request {
            Some(Request::Send { cost, link, .. }) if link != self.link_number => {
                shared.release(cost);
            }
            Some(Request::Send { bytes, cost, .. }) => {
                self.queued_cost += cost;
                self.has_sent = true;
                let kind = DataKind::default();
                let command = LinkCommand::Send { bytes: &bytes, more: false, kind };
                self.link.handle(now, World::Command(command));
            }
            Some(Request::HeartbeatData(bytes)) => {
                self.link.handle(now, World::Command(LinkCommand::HeartbeatData(&bytes)));
                carry_over.heartbeat_data = bytes;
            }
            Some(Request::Heartbeat) => {
                self.link.handle(now, World::Command(LinkCommand::Heartbeat));
            }
            Some(Request::AskPolicy(policy)) => {
                carry_over.policy = Some(policy);
                self.link.handle(now, World::Command(LinkCommand::Retune(policy)));
            }
            Some(Request::Close(reason)) => self.request_close(now, reason),
            None => self.request_close(now, CloseReason::Done),
        }
    }

    fn request_close(&mut self, now: Time, reason: CloseReason) {
        self.close_requested = true;
        self.link.handle(now, World::Command(LinkCommand::close(reason)));
    }
}
