//! Requests of the application, passed to the link machine as commands.

use crate::begin::Begin;
use systole_core::link::{Command as LinkCommand, World};
use systole_core::wire::CloseReason;
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
            Some(Request::Send { bytes, cost, link }) if link != self.link_number => {
                carry_over.drop_message(bytes, cost, link, shared);
            }
            Some(Request::Send { bytes, cost, .. }) => self.send(now, bytes, cost),
            Some(Request::Flush { reply, link }) if link != self.link_number => {
                carry_over.refuse_flush(reply);
            }
            Some(Request::Flush { reply, .. }) => {
                self.flush(now, reply, carry_over, shared);
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
            Some(Request::Close(reason)) => self.request_close(now, reason, now, shared),
            None => self.request_close(now, CloseReason::Done, now, shared),
        }
    }
}
