//! Reading: received bytes and socket errors, passed to the link machine.

use std::io::{self, ErrorKind};

use systole_core::link::{Answer, Command as LinkCommand, World};
use systole_core::{Machine, Time};
use systole_net::transport::{ReadOutcome, TokioStream};

use crate::begin::Begin;
use tokio::io::Interest;

use super::{Connection, FIRST_BYTES, HOLD_UNTIL_RELEASED, READS_PER_TURN};
use crate::dialer::reregister;
use crate::event_translator::Stage;
use crate::loop_clock::LoopClock;
use crate::shared::Shared;

impl<T: Begin> Connection<T> {
    /// Handles an expired deadline. Silence is judged only after everything in the kernel was read,
    /// by a direct call: the runtime may not yet know that the socket is readable.
    pub(super) fn handle_deadline(&mut self, now: Time, clock: &mut LoopClock, shared: &Shared) {
        if self.may_read() {
            let read = self.socket.read_directly(&mut self.buffer);
            self.handle_read(now, read, shared);
        }
        if self.socket.has_ended() {
            let taken = self.socket.take_error();
            self.handle_read(now, taken, shared);
        }
        clock.drained();
        if self.link.next_deadline().is_some_and(|deadline| deadline.at <= clock.horizon()) {
            self.link.handle(now, Answer::Deadline);
        }
    }

    /// Reads until the socket is empty, at most [`READS_PER_TURN`] times.
    pub(super) fn read(&mut self, now: Time, shared: &Shared) {
        for _ in 0..READS_PER_TURN {
            if !self.may_read() {
                return;
            }
            let read = self.socket.read(&mut self.buffer);
            if !self.handle_read(now, read, shared) {
                return;
            }
            self.update_pause(now, shared);
        }
    }

    /// Returns whether to read: a stream after its FIN would be readable for ever.
    pub(super) fn may_read(&self) -> bool {
        !self.paused && !self.socket.has_ended() && self.joined.is_none()
    }

    /// Handles an error on the socket: a router's message, which does not end the connection, or a
    /// reset, which reading no longer returns after a FIN.
    pub(super) fn handle_socket_error(&mut self, now: Time, shared: &Shared) {
        self.read(now, shared);
        let stream = self.socket.stream();
        let take = || match stream.take_error() {
            Ok(None) => Err(ErrorKind::WouldBlock.into()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        // `WouldBlock` clears the runtime's readiness, which would wake this task again.
        let taken: io::Result<()> = stream.try_io(Interest::ERROR, take);
        if !self.is_over()
            && let Err(error) = taken
        {
            let error = self.socket.classify(&error);
            self.handle_read(now, error, shared);
        }
    }

    /// Passes the result of a read to the machine; returns whether to read again.
    fn handle_read(&mut self, now: Time, read: ReadOutcome, shared: &Shared) -> bool {
        let input = match read {
            ReadOutcome::Empty => return false,
            ReadOutcome::Bytes { count, .. } => {
                self.hearing.heard(now);
                let bytes = self.buffer.get(..count).unwrap_or_default();
                if self.translator.stage == Stage::Handshaking {
                    let room = FIRST_BYTES - self.first_bytes.len();
                    self.first_bytes.extend(bytes.iter().take(room));
                }
                World::Received(bytes)
            }
            ReadOutcome::Heard { .. } => {
                self.hearing.heard(now);
                World::Heard
            }
            ReadOutcome::Illegal(why) => World::Illegal(why),
            ReadOutcome::Ended(_) => World::Ended,
            ReadOutcome::Warned(error) => {
                self.renew_registration();
                World::Warned(error)
            }
            ReadOutcome::Failed(failure) => {
                self.network_changed |= failure.aborted;
                World::Failed(failure.error)
            }
        };
        self.link.handle(now, input);
        self.process_outputs(now, shared);
        let held = self.socket.transport().held();
        if held.memory > 0 || matches!(read, ReadOutcome::Heard { .. }) {
            self.link.handle(now, held.as_input());
            self.process_outputs(now, shared);
        }
        // An error of a connection that stands is cleared by the read that met it.
        matches!(
            read,
            ReadOutcome::Bytes { .. } | ReadOutcome::Heard { .. } | ReadOutcome::Warned(_)
        )
    }

    /// Pauses reading while the mailbox is full, and resumes it. The machine holds its judgement
    /// meanwhile, because the server's bytes are not read.
    pub(super) fn update_pause(&mut self, now: Time, shared: &Shared) {
        let full = self.translator.stage == Stage::Established && shared.is_full();
        if full != self.paused {
            self.paused = full;
            let command =
                if full { LinkCommand::Hold(HOLD_UNTIL_RELEASED) } else { LinkCommand::Release };
            self.link.handle(now, World::Command(command));
        }
    }

    /// Reads what arrived before a write failed: possibly the server's CLOSE.
    pub(super) fn drain_after_write_error(&mut self, now: Time, shared: &Shared) {
        for _ in 0..READS_PER_TURN {
            let input = match self.socket.read_directly(&mut self.buffer) {
                ReadOutcome::Bytes { count, .. } => {
                    World::Received(self.buffer.get(..count).unwrap_or_default())
                }
                ReadOutcome::Heard { .. } => World::Heard,
                ReadOutcome::Empty
                | ReadOutcome::Ended(_)
                | ReadOutcome::Warned(_)
                | ReadOutcome::Illegal(_)
                | ReadOutcome::Failed(_) => return,
            };
            self.link.handle(now, input);
            self.poll_outputs(now, shared);
        }
    }

    /// Registers the socket with the runtime anew after a router's message: once a socket has held
    /// an error, the runtime reports it as ready for ever.
    pub(super) fn renew_registration(&mut self) {
        if let Ok(stream) = reregister(self.socket.stream()) {
            self.socket.replace_stream(TokioStream(stream));
        }
    }
}
