//! The end of a link: closing its socket, and the record that the next link reports from.

use systole_core::link::departure;
use systole_core::link::{Closing, Departure};
use systole_core::wire::Saw;
use systole_core::witness::Past;
use systole_core::{Machine, Time};
use systole_net::examine::tcp_snapshot;
use systole_net::socket_options;
use systole_net::transport::ReadOutcome;

use crate::begin::Begin;

use super::{Connection, READS_PER_TURN};
use crate::loop_clock::LoopClock;
use crate::old_flow::OldFlow;
use crate::shared::Shared;

impl<T: Begin> Connection<T> {
    /// Returns the record of this link for the next one. In codecs without sessions the session is
    /// 0, and the ids are unknown.
    pub(super) fn past(&mut self, clock: &LoopClock) -> Option<Past> {
        let (session, now) = (self.translator.session, clock.now());
        let bound = self.link.policy().bound().unwrap_or_default();
        let verdict = self.translator.verdict?;
        Some(Past {
            session,
            ids: self.link.peer_ids().unwrap_or_default(),
            cause: verdict.cause,
            saw: Past::saw(verdict.cause, verdict.grounds, self.network_changed),
            unheard: verdict.at.since(verdict.last_heard),
            probes: verdict.probes,
            silent: self.hearing.longest_silence(now),
            ended: now,
            ended_at: clock.boottime(),
            bound,
            revised: false,
        })
    }

    /// Keeps the connection open if silence ended the link and the next one can tell of it.
    pub(super) fn old_flow(&self, past: Option<&Past>) -> Option<OldFlow> {
        let past = past.filter(|past| past.saw == Saw::Silence && past.session != 0)?;
        OldFlow::keep(self.socket.stream(), past.bound)
    }

    /// Closes the socket. After an orderly end, everything that was queued is sent first. Returns
    /// whether the server has acknowledged all of it.
    pub(super) async fn close(&mut self, clock: &mut LoopClock, shared: &Shared) -> bool {
        let acknowledged = match self.closing {
            Closing::Flush => self.leave(clock).await,
            Closing::Abort => {
                self.socket.write_last_words();
                false
            }
        };
        shared.release(std::mem::take(&mut self.queued_cost));
        acknowledged
    }

    /// Sends the outbox and waits for the server to close its side; the departure decides how long.
    /// Returns whether the server has acknowledged everything.
    async fn leave(&mut self, clock: &mut LoopClock) -> bool {
        self.socket.finish();
        let mut departure = Departure::new(clock.now(), self.leave_limit);
        if self.socket.has_ended() || self.translator.stage.is_farewell() {
            departure.handle(clock.now(), departure::World::Ended);
        }
        loop {
            self.write_on(clock.now(), &mut departure);
            self.carry_out(clock.now(), &mut departure);
            let Some(deadline) = departure.next_deadline().map(|next| next.at) else {
                return departure.is_acknowledged();
            };
            let planned = deadline.since(clock.now());
            let stream = self.socket.stream();
            tokio::select! {
                // As in `wait`.
                () = std::future::ready(()), if self.socket.holds_more() => {}
                _ = stream.readable(), if !self.socket.has_ended() => {}
                _ = stream.writable(), if self.socket.awaits_room() => {}
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
        let written = self.socket.flush();
        if written.warning.is_some() {
            self.renew_registration();
        }
        if written.bytes > 0 {
            departure.handle(now, departure::World::Taken);
        }
        if written.failure.is_some() {
            departure.handle(now, departure::World::Failed);
        } else if self.socket.is_flushed() {
            departure.handle(now, departure::World::Flushed);
        }
    }

    /// Reads and discards what the server still sends, up to the end of the stream.
    fn discard(&mut self, now: Time, departure: &mut Departure) {
        for _ in 0..READS_PER_TURN {
            if self.socket.has_ended() {
                return;
            }
            match self.socket.read(&mut self.buffer) {
                ReadOutcome::Bytes { .. } | ReadOutcome::Heard { .. } | ReadOutcome::Illegal(_) => {
                }
                ReadOutcome::Empty => return,
                ReadOutcome::Ended(_) => departure.handle(now, departure::World::Ended),
                ReadOutcome::Warned(_) => self.renew_registration(),
                ReadOutcome::Failed(_) => return departure.handle(now, departure::World::Failed),
            }
        }
    }

    /// Carries out the departure's outputs. Once the socket is to be closed, it has no deadline.
    fn carry_out(&self, now: Time, departure: &mut Departure) {
        while let Some(output) = departure.poll_output() {
            match output {
                departure::Output::Examine => {
                    let seen = tcp_snapshot(self.socket.stream());
                    departure.handle(now, departure::Answer::Examined(seen));
                }
                departure::Output::ShutdownWrite => self.socket.shutdown_write(),
                departure::Output::Patience(patience) => {
                    // Without it the kernel gives up sooner, if the server is slow.
                    let _ = socket_options::follow(&patience, self.socket.stream());
                }
                departure::Output::Reset => {
                    // It fails only on a connection that has failed.
                    let _ = socket_options::reset_on_close(self.socket.stream());
                }
                departure::Output::Close => {}
            }
        }
    }
}
