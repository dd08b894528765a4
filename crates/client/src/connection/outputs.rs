//! Outputs of the link machine: bytes to the socket, examinations of the socket, events to the
//! application.

use crate::begin::Begin;
use systole_core::kernel::Examination;
use systole_core::link::{Answer, Event, Output, World};
use systole_core::wire::outbox::Outbox;
use systole_core::witness::Hearing;
use systole_core::{Machine, Time, session};
use systole_net::examine::{examine, examine_socket};
use systole_net::socket_options;

use super::Connection;
use crate::shared::Shared;

impl<T: Begin> Connection<T> {
    /// Processes the machine's outputs, and writes as much as the socket takes.
    pub(super) fn process_outputs(&mut self, now: Time, shared: &Shared) {
        self.poll_outputs(now, shared);
        let written = self.socket.flush();
        if let Some(error) = written.warning {
            self.renew_registration();
            self.link.handle(now, World::Warned(error));
            self.poll_outputs(now, shared);
        }
        if let Some(failure) = written.failure {
            self.network_changed |= failure.aborted;
            self.drain_after_write_error(now, shared);
            self.link.handle(now, World::Failed(failure.error));
            self.poll_outputs(now, shared);
        }
        let held = self.socket.outbox().map_or(0, Outbox::held);
        shared.release(self.queued_cost.saturating_sub(held));
        self.queued_cost = self.queued_cost.min(held);
    }

    /// Takes all outputs of the machine: bytes to the outbox, events to the mailbox.
    pub(super) fn poll_outputs(&mut self, now: Time, shared: &Shared) {
        let mut acknowledged = false;
        loop {
            let (mut overflowed, mut examination) = (false, None);
            // What follows a new session waits until the former one is given up.
            while self.joined.is_none()
                && let Some(output) = self.link.poll_output()
            {
                match output {
                    Output::Transmit { bytes, lane } => {
                        let (end, limit) = ([(bytes.len(), lane)], self.queue_limit);
                        overflowed |= self.socket.queue(bytes, &end, 0, limit).is_err();
                    }
                    Output::Examine { route } => {
                        examination = Some(route || examination == Some(true));
                    }
                    Output::Patience(patience) => {
                        // Setting options fails only on a connection that is ending.
                        let _ = socket_options::follow(&patience, self.socket.stream());
                    }
                    Output::Session(event @ session::Event::Joined { .. })
                        if self.resumes.is_some() =>
                    {
                        self.joined = Some(event);
                    }
                    Output::Session(event) => self.handle_session(now, event, shared),
                    Output::Event(Event::Acknowledged) => acknowledged = true,
                    Output::Event(Event::NotResumed(why)) => self.not_resumed = Some(why),
                    Output::Event(event) => self.translator.handle(now, event, shared),
                    // Only an accepting end admits.
                    Output::Admit => {}
                    Output::Close(closing) => self.closing = closing,
                }
            }
            if let Some(route) = examination {
                let queued = !self.socket.is_flushed();
                let stream = self.socket.stream();
                let found = if route { examine(stream) } else { examine_socket(stream) };
                let examination = Examination { queued, ..found };
                self.link.handle(now, Answer::Examined(examination));
                continue;
            }
            // A CLOSE that finds no room either is dropped.
            if self.is_over() || !(overflowed || acknowledged) {
                return;
            }
            if overflowed {
                self.link.handle(now, World::Overflowed);
            } else {
                acknowledged = false;
                self.send_waiting(now);
            }
        }
    }

    /// Handles an event of the session.
    pub(super) fn handle_session(&mut self, now: Time, event: session::Event, shared: &Shared) {
        let has_window = self.link.progress().is_some();
        if let session::Event::Joined { policy, .. } | session::Event::Retuned(policy) = event {
            self.hearing = Hearing::new(now, &policy);
        }
        if let session::Event::Joined { .. } = event {
            // Set before the application learns that the link is established.
            shared.set_lengths(self.link.piece(), has_window);
            self.open_window(shared);
        }
        if let session::Event::Resumed { .. } = event {
            self.hearing = Hearing::new(now, self.link.policy());
            self.become_resumed(shared);
        }
        self.translator.handle_session(event, shared);
    }
}
