//! Outputs of the link machine: bytes to the socket, examinations of the socket, events to the
//! application.

use std::io::{self, ErrorKind};

use systole_core::kernel::{Examination, SocketError};
use systole_core::link::{Answer, Event as LinkEvent, Output, World};
use systole_core::witness::Hearing;
use systole_core::{Machine, Time};
use systole_net::examine::{examine, examine_socket, outlived, socket_error};
use systole_net::socket_options;

use super::{Connection, failure};
use crate::shared::Shared;

impl Connection {
    /// Processes the machine's outputs, and writes as much as the socket takes.
    pub(super) fn process_outputs(&mut self, now: Time, shared: &Shared) {
        self.poll_outputs(now, shared);
        let mut flushed = self.flush();
        if let Err(error) = &flushed
            && outlived(error, &self.stream)
        {
            self.renew_registration();
            self.link.handle(now, World::Warned(socket_error(error)));
            flushed = self.flush();
        }
        if let Err(error) = flushed {
            self.note_network_change(Some(&error));
            self.drain_after_write_error(now, shared);
            self.link.handle(now, World::Failed(failure(&error).unwrap_or(SocketError::Local)));
            self.poll_outputs(now, shared);
        }
        let held = self.outbox.held();
        shared.release(self.queued_cost.saturating_sub(held));
        self.queued_cost = self.queued_cost.min(held);
    }

    /// Takes all outputs of the machine: bytes to the outbox, events to the mailbox.
    pub(super) fn poll_outputs(&mut self, now: Time, shared: &Shared) {
        // Set before the application learns that the link is established.
        shared.set_piece_len(self.link.piece());
        loop {
            let (mut overflowed, mut examination) = (false, None);
            while let Some(output) = self.link.poll_output() {
                match output {
                    Output::Transmit { bytes, lane } => {
                        overflowed |= self.outbox.push(lane, bytes).is_err();
                    }
                    Output::Examine { route } => {
                        examination = Some(route || examination == Some(true));
                    }
                    Output::Patience(patience) => {
                        // Setting options fails only on a connection that is ending.
                        let _ = socket_options::follow(&patience, &self.stream);
                    }
                    Output::Event(event) => {
                        if let LinkEvent::Established { policy, .. } | LinkEvent::Retuned(policy) =
                            event
                        {
                            self.hearing = Hearing::new(now, &policy);
                        }
                        self.translator.handle(event, shared);
                    }
                    // Only a hub asks for it: this loop reads before it judges.
                    // Only an accepting end admits.
                    Output::Admit => {}
                    Output::Close(closing) => self.closing = closing,
                }
            }
            if let Some(route) = examination {
                let queued = !self.outbox.is_empty();
                let found =
                    if route { examine(&self.stream) } else { examine_socket(&self.stream) };
                let examination = Examination { queued, ..found };
                self.link.handle(now, Answer::Examined(examination));
                continue;
            }
            // A CLOSE that finds no room either is dropped.
            if !overflowed || self.is_over() {
                return;
            }
            self.link.handle(now, World::Overflowed);
        }
    }

    /// Writes from the outbox until it is empty or the socket takes no more.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.try_write(self.outbox.front()) {
                Ok(n) => self.outbox.advance(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
