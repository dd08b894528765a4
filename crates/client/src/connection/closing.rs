//! The end of a link: closing its socket, and the record that the next link reports from.

use std::net::Shutdown;

use socket2::SockRef;
use systole_core::link::departure::{self, LEAVE_LIMIT};
use systole_core::link::{Closing, Departure};
use systole_core::witness::Past;
use systole_core::{Machine, Time};
use systole_net::examine::{outlived, tcp_snapshot};
use systole_net::socket_options;

use super::{Connection, READS_PER_TURN, failure};
use crate::loop_clock::LoopClock;
use crate::shared::Shared;

impl Connection {
    /// Returns the record of this link for the next handshake; `None` in codecs without sessions.
    pub(super) fn past(&mut self, clock: &LoopClock) -> Option<Past> {
        let (session, now) = (self.translator.session, clock.now());
        let bound = self.link.policy().bound().unwrap_or_default();
        let verdict = self.translator.verdict?;
        (session != 0).then_some(Past {
            session,
            ids: self.link.peer_ids()?,
            cause: verdict.cause,
            saw: Past::saw(verdict.cause, self.network_changed),
            unheard: verdict.at.since(verdict.last_heard),
            silent: self.hearing.longest_silence(now),
            ended: now,
            ended_at: clock.boottime(),
            bound,
        })
    }

    /// Closes the socket. After an orderly end, everything that was queued is sent first. Returns
    /// whether the server has acknowledged all of it.
    pub(super) async fn close(&mut self, clock: &mut LoopClock, shared: &Shared) -> bool {
        let acknowledged = match self.closing {
            Closing::Flush => self.leave(clock).await,
            Closing::Abort => {
                // A server that only seems to be gone may still read the CLOSE.
                drop(self.flush());
                false
            }
        };
        shared.release(std::mem::take(&mut self.queued_cost));
        acknowledged
    }

    /// Sends the outbox and waits for the server to close its side; the departure decides how long.
    /// Returns whether the server has acknowledged everything.
    async fn leave(&mut self, clock: &mut LoopClock) -> bool {
        let mut departure = Departure::new(clock.now(), LEAVE_LIMIT);
        if self.peer_closed || self.translator.stage.is_farewell() {
            departure.handle(clock.now(), departure::World::Ended);
        }
        loop {
            self.write_on(clock.now(), &mut departure);
            self.carry_out(clock.now(), &mut departure);
            let Some(deadline) = departure.next_deadline().map(|next| next.at) else {
                return departure.is_acknowledged();
            };
            let planned = deadline.since(clock.now());
            tokio::select! {
                _ = self.stream.readable(), if !self.peer_closed => {}
                _ = self.stream.writable(), if !self.outbox.is_empty() => {}
                () = tokio::time::sleep(planned.into()) => {}
            }
            let now = clock.turn(planned);
            self.discard(now, &mut departure);
            if deadline <= now {
                departure.handle(now, departure::Answer::Deadline);
            }
        }
    }

    /// Writes from the outbox, and tells the departure.
    fn write_on(&mut self, now: Time, departure: &mut Departure) {
        let before = self.outbox.len();
        let mut flushed = self.flush();
        if let Err(error) = &flushed
            && outlived(error, &self.stream)
        {
            self.renew_registration();
            flushed = self.flush();
        }
        if self.outbox.len() < before {
            departure.handle(now, departure::World::Taken);
        }
        match flushed {
            Err(_) => departure.handle(now, departure::World::Failed),
            Ok(()) if self.outbox.is_empty() => departure.handle(now, departure::World::Flushed),
            Ok(()) => {}
        }
    }

    /// Reads and discards what the server still sends, up to the end of the stream.
    fn discard(&mut self, now: Time, departure: &mut Departure) {
        for _ in 0..READS_PER_TURN {
            if self.peer_closed {
                return;
            }
            match self.stream.try_read(&mut self.buffer) {
                Ok(0) => {
                    self.peer_closed = true;
                    departure.handle(now, departure::World::Ended);
                }
                Ok(_) => {}
                Err(error) if outlived(&error, &self.stream) => self.renew_registration(),
                Err(error) if failure(&error).is_none() => return,
                Err(_) => return departure.handle(now, departure::World::Failed),
            }
        }
    }

    /// Carries out the departure's outputs. Once the socket is to be closed, it has no deadline.
    fn carry_out(&self, now: Time, departure: &mut Departure) {
        while let Some(output) = departure.poll_output() {
            match output {
                departure::Output::Examine => {
                    let seen = tcp_snapshot(&self.stream);
                    departure.handle(now, departure::Answer::Examined(seen));
                }
                departure::Output::ShutdownWrite => {
                    // It fails only on a connection that has failed.
                    let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
                }
                departure::Output::Patience(patience) => {
                    // Without it the kernel gives up sooner, if the server is slow.
                    let _ = socket_options::follow(&patience, &self.stream);
                }
                departure::Output::Reset => {
                    // It fails only on a connection that has failed.
                    let _ = socket_options::reset_on_close(&self.stream);
                }
                departure::Output::Close => {}
            }
        }
    }
}
