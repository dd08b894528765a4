//! Carries out the hub's outputs: writes to sockets, examinations, data for the logic, reports to
//! the control plane.

use systole_core::cause::Verdict;
use systole_core::hub;
use systole_core::link::{self, BeatKind, Closing, Event, Lane, Output};
use systole_core::policy::Detection;
use systole_core::{Policy, Span, session};

use super::login::Reply;
use super::opening::Accept;
use super::shard_loop::ShardLoop;
use super::sockets::Feedback;
use super::streams::Streams;
use crate::identity::Refusal;
use crate::logic::Piece;
use crate::report::{Fact, Heartbeat, Parting, Subject};
use crate::stats::{Cell, seconds};

impl<T: Accept> ShardLoop<Streams<T>> {
    /// Carries out the hub's outputs, and feeds back their results and the sends of the logic,
    /// until there are none left.
    #[inline]
    pub(super) fn carry_out(&mut self) {
        self.carry_outputs();
        while self.feed_back() {
            self.carry_outputs();
        }
    }

    #[inline]
    pub(super) fn carry_outputs(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            let (link, output) = match output {
                hub::Output::Link { link, output } => (link, output),
                hub::Output::HandedOver { state, .. } => {
                    self.traffic.handed_over = Some(state.to_vec());
                    continue;
                }
                hub::Output::Admit { link, admission } => {
                    self.traffic.sockets.suspend(link);
                    self.traffic.half_open.login_came(link);
                    let heard_at = self.clock.monotonic();
                    let reply = Reply::Identify { link, admission, heard_at };
                    self.traffic.answers.push_back(reply);
                    continue;
                }
                hub::Output::GoHome { link, admission, shard } => {
                    self.send_home(link, admission, shard);
                    continue;
                }
                hub::Output::Own { link, admission, session } => {
                    self.own(link, admission, session);
                    continue;
                }
                hub::Output::Resume { link, admission, session } => {
                    let reply = Reply::Resume { link, admission, session };
                    self.traffic.answers.push_back(reply);
                    continue;
                }
                hub::Output::Session { session, event } => {
                    self.report_absent(session, event);
                    continue;
                }
            };
            match output {
                Output::Transmit { bytes, lane } => {
                    self.traffic.data_moved |= lane == Lane::Data;
                    self.traffic.sockets.transmit(link, lane, bytes);
                }
                Output::Event(Event::Data { bytes, more, kind }) => {
                    self.traffic.data_moved = true;
                    self.traffic.logic.handle_data(link, Piece { bytes, more, kind });
                }
                Output::Examine { route } => self.traffic.sockets.request_examination(link, route),
                Output::Patience(patience) => self.traffic.sockets.follow(link, &patience),
                Output::Session(event) => self.report(link, event),
                Output::Event(Event::Established { .. }) => self.serve(link),
                Output::Event(Event::RoundTrip(rtt)) => {
                    self.distributions.rtt.observe(seconds(rtt));
                }
                Output::Event(Event::HeartbeatSent { beat, sequence, .. }) => {
                    self.report_heartbeat(link, true, beat, sequence);
                }
                Output::Event(Event::HeartbeatReceived { beat, sequence }) => {
                    self.report_heartbeat(link, false, beat, sequence);
                }
                Output::Event(
                    Event::HeartbeatData(_)
                    | Event::Farewell { .. }
                    | Event::Acknowledged
                    | Event::NotResumed(_),
                ) => {}
                Output::Close(closing) => self.close(link, closing),
                // The hub asks for it.
                Output::Admit => {}
            }
        }
    }

    /// Lets a link go to the home of its session, unless that has just taken no link.
    fn send_home(&mut self, link: u32, admission: u32, shard: u8) {
        let reply = if self.traffic.full_home == Some(shard) {
            Reply::Refuse { link, admission, refusal: Refusal::HomeBusy }
        } else {
            Reply::GoHome { link, admission, shard }
        };
        self.traffic.answers.push_back(reply);
    }

    /// Closes the socket of a link that has ended, or lets it take its leave.
    fn close(&mut self, link: u32, closing: Closing) {
        self.traffic.half_open.leaves(self.clock.now(), link);
        if self.traffic.logins.withdraw(link) {
            self.stats.logins_withdrawn.add(1);
        }
        if closing == Closing::Abort {
            return self.traffic.sockets.mark_for_close(link);
        }
        let limit = self.hub.machine().leave_limit();
        self.traffic.sockets.start_leaving(link, self.clock.now(), limit);
        // What was read last may have been followed by the end of the stream, for which no further
        // edge comes.
        self.read_in_next_turn(link);
    }

    /// Begins the time of a link in which its socket is read and data is sent.
    fn serve(&mut self, link: u32) {
        if self.hub.machine().has_window(link) {
            self.traffic.sockets.set_window(link);
        }
        self.traffic.resume(link);
    }

    /// Feeds the hub one answer, one result of its outputs, or one send of the logic. Returns false
    /// if there is nothing left.
    ///
    /// Results come first: the hub takes an examination before any other input of the link, and
    /// nothing may be sent behind a gap in the data. The gathered frames are written last, so that
    /// the answers to many small messages leave in one write.
    #[inline]
    pub(super) fn feed_back(&mut self) -> bool {
        if let Some(reply) = self.traffic.answers.pop_front() {
            match reply {
                Reply::Identify { link, admission, heard_at } => {
                    self.identify(link, admission, heard_at);
                }
                Reply::GoHome { link, admission, shard } => self.go_home(link, admission, shard),
                Reply::Refuse { link, admission, refusal } => self.refuse(link, admission, refusal),
                Reply::KeepOut { link, admission, kept_out } => {
                    self.keep_out(link, admission, &kept_out)
                }
                Reply::Own { session, epoch } => self.give_epoch(session, epoch),
                Reply::Resume { link, admission, session } => {
                    self.resume(link, admission, session);
                }
            }
            return true;
        }
        if let Some((link, feedback)) = self.traffic.sockets.feedback.pop_front() {
            self.handle_feedback(link, feedback);
            return true;
        }
        if let Some((link, piece)) = self.traffic.logic.poll_send() {
            let input = link::World::Command(piece.into());
            self.hub.handle(self.clock.now(), hub::World::Link { link, input });
            return true;
        }
        self.traffic.sockets.flush();
        !self.traffic.sockets.feedback.is_empty()
    }

    /// Writes what waits for the socket of `link`.
    #[inline]
    pub(super) fn write(&mut self, link: u32) {
        let before = self.traffic.sockets.bytes_out;
        self.traffic.sockets.writable(link, self.clock.now());
        self.traffic.data_moved |= self.traffic.sockets.bytes_out > before;
        if !self.traffic.sockets.feedback.is_empty() {
            self.carry_out();
        }
    }

    /// Writes again to the sockets that did not take their bytes because of errors of connections
    /// that stand: there is no event for them.
    pub(super) fn write_again(&mut self) {
        for link in self.traffic.sockets.take_again() {
            self.write(link);
        }
    }

    fn handle_feedback(&mut self, link: u32, feedback: Feedback) {
        let input = match feedback {
            Feedback::Overflowed => link::World::Overflowed,
            Feedback::Warned(error) => link::World::Warned(error),
            Feedback::Examine { route } => {
                let examination = self.traffic.sockets.examine(link, route);
                let answer = hub::Answer::Examined { link, examination };
                return self.hub.handle(self.clock.now(), answer);
            }
            Feedback::Failed => return self.read_in_next_turn(link),
        };
        self.hub.handle(self.clock.now(), hub::World::Link { link, input });
    }

    /// Reports an event of the session on a link, and counts it.
    fn report(&mut self, link: u32, event: session::Event) {
        let Some(presence) = self.hub.machine().presence(link) else {
            return;
        };
        let mut fact = Fact::new(self.clock.wall_ms(), Subject::new(&presence), event);
        // A link ends either way.
        if let session::Event::Left(verdict) | session::Event::Away { verdict, .. } = &event {
            fact.parting = Parting {
                asked: unanswered_for(verdict, presence.policy),
                probing: probing_time(presence.policy),
                lasted: self.clock.now().since(presence.opened),
                flight: Some(Box::new(presence.flight.clone())),
                refusal: self.traffic.logins.refusal_of(link),
                was_away: false,
            };
            let is_left = matches!(event, session::Event::Left(_));
            let cells = if is_left { &self.stats.verdicts } else { &self.stats.went_away };
            count_cause(cells, verdict);
            self.measure_verdict(verdict);
            if let Some(gate) = &self.traffic.gate {
                gate.leave(presence.address.ip(), presence.established.is_some());
            }
        }
        // A link is online either way.
        if let session::Event::Joined { .. } | session::Event::Resumed { .. } = event {
            self.traffic.half_open.remove(link);
            if let Some(gate) = &self.traffic.gate {
                gate.introduce(presence.address.ip());
            }
        }
        if let session::Event::Joined { .. } = event {
            fact.attributes = presence.attributes.into();
        }
        if let session::Event::Overdue { .. } = event {
            self.stats.overdue.add(1);
        }
        self.reports.send(fact);
    }

    fn report_heartbeat(&mut self, link: u32, sent: bool, beat: BeatKind, sequence: u8) {
        let Some(presence) = self.hub.machine().presence(link) else {
            return;
        };
        let (session, identity) = (presence.session, presence.identity.into());
        self.reports.send_heartbeat(Heartbeat { session, identity, sent, beat, sequence });
    }

    /// Notes how early or late the verdict on a link has fallen.
    fn measure_verdict(&self, verdict: &Verdict) {
        if verdict.is_early() {
            self.stats.early.add(1);
        } else if verdict.is_silence() {
            self.distributions.lateness.observe(seconds(self.clock.read_now().since(verdict.due)));
            self.distributions.stretch.observe(seconds(verdict.stretch));
        }
    }
}

/// Counts a verdict by its cause.
pub(super) fn count_cause(cells: &[Cell], verdict: &Verdict) {
    cells.get(verdict.cause.index()).iter().for_each(|cell| cell.add(1));
}

/// Returns a lower bound of the time since the first unanswered probe: as if each had left as late
/// as it may. A probe answered by an error does not count.
fn unanswered_for(verdict: &Verdict, policy: &Policy) -> Span {
    let unanswered =
        if verdict.is_silence() { verdict.probes } else { verdict.probes.saturating_sub(1) };
    match policy.detection() {
        Detection::Never => Span::ZERO,
        Detection::Bounded { interval, .. } => interval.times(u64::from(unanswered)),
    }
}

/// Returns the time for which a silent peer is probed; `None` if silence is never judged.
fn probing_time(policy: &Policy) -> Option<Span> {
    match policy.detection() {
        Detection::Never => None,
        Detection::Bounded { interval, probes, .. } => Some(interval.times(u64::from(probes))),
    }
}
