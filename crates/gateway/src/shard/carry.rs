//! Carries out the hub's outputs: writes to sockets, examinations, data for the logic, reports to
//! the control plane.

use systole_core::cause::Verdict;
use systole_core::hub;
use systole_core::link::{self, BeatKind, Closing, Event, Lane, Output};
use systole_core::policy::Detection;
use systole_core::{Policy, Span};
use systole_net::transport::Transport;

use super::shard_loop::ShardLoop;
use super::sockets::Feedback;
use super::streams::Streams;
use crate::logic::Piece;
use crate::report::{Change, Fact, Heartbeat, Subject};
use crate::stats::seconds;

impl<T: Transport + Default + Send + 'static> ShardLoop<Streams<T>> {
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
                // Whoever comes is admitted, and has the identity that it claims.
                hub::Output::Admit { link, admission } => {
                    self.traffic.sockets.suspend(link);
                    let answer = hub::World::Identified { link, admission };
                    self.traffic.answers.push_back(answer.into());
                    continue;
                }
                hub::Output::Own { session, .. } => {
                    let epoch = self.traffic.epochs.next();
                    self.traffic.answers.push_back(hub::Answer::Owned { session, epoch }.into());
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
                Output::Event(event) => {
                    if let Event::Established { .. } = event {
                        self.traffic.resume(link);
                    }
                    if let Some(reportable) = Reportable::of(event) {
                        self.report(link, reportable);
                    }
                }
                Output::Close(Closing::Flush) => {
                    let limit = self.hub.machine().leave_limit();
                    self.traffic.sockets.start_leaving(link, self.clock.now(), limit);
                    // What was read last may have been followed by the end of the stream, for
                    // which no further edge comes.
                    self.read_in_next_turn(link);
                }
                Output::Close(Closing::Abort) => self.traffic.sockets.mark_for_close(link),
                // The hub asks for it.
                Output::Admit => {}
            }
        }
    }

    /// Feeds the hub one answer, one result of its outputs, or one send of the logic. Returns false
    /// if there is nothing left.
    ///
    /// Results come first: the hub takes an examination before any other input of the link, and
    /// nothing may be sent behind a gap in the data. The gathered frames are written last, so that
    /// the answers to many small messages leave in one write.
    #[inline]
    pub(super) fn feed_back(&mut self) -> bool {
        if let Some(answer) = self.traffic.answers.pop_front() {
            self.hub.handle(self.clock.now(), answer);
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

    /// Reports an event of a link and counts it; a round trip only goes into the histogram.
    fn report(&mut self, link: u32, reportable: Reportable) {
        if let Reportable::RoundTrip(rtt) = reportable {
            return self.distributions.rtt.observe(seconds(rtt));
        }
        let Some(presence) = self.hub.machine().presence(link) else {
            return;
        };
        let subject = Subject::new(&presence);
        let change = match reportable {
            Reportable::Lost(verdict) => {
                let lasted = self.clock.now().since(presence.opened);
                let flight = Some(Box::new(presence.flight.clone()));
                let asked = unanswered_for(&verdict, presence.policy);
                self.count_verdict(&verdict);
                Change::Leave { verdict, asked, lasted, flight }
            }
            Reportable::Change(change) => {
                if let Change::Overdue = change {
                    self.stats.overdue.add(1);
                }
                change
            }
            Reportable::Heartbeat { sent, beat, sequence } => {
                let Subject { session, identity, .. } = subject;
                let heartbeat = Heartbeat { session, identity, sent, beat, sequence };
                return self.reports.send_heartbeat(heartbeat);
            }
            Reportable::RoundTrip(_) => return,
        };
        let at_ms = self.clock.wall_ms();
        self.reports.send(Fact { at_ms, subject, change });
    }

    fn count_verdict(&self, verdict: &Verdict) {
        if let Some(cell) = self.stats.verdicts.get(verdict.cause.index()) {
            cell.add(1);
        }
        if verdict.is_early() {
            self.stats.early.add(1);
        } else if verdict.is_silence() {
            self.distributions.lateness.observe(seconds(self.clock.read_now().since(verdict.due)));
        }
    }
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

/// An event of the hub that leaves the loop.
enum Reportable {
    Change(Change),
    Lost(Verdict),
    RoundTrip(Span),
    Heartbeat { sent: bool, beat: BeatKind, sequence: u8 },
}

impl Reportable {
    fn of(event: Event<'_>) -> Option<Reportable> {
        Some(Reportable::Change(match event {
            Event::Established { policy, account, .. } => Change::Join { policy, account },
            Event::Suspect => Change::Suspect,
            Event::Warned { cause, confidence, grounds } => {
                Change::Warned { cause, confidence, grounds }
            }
            Event::Recovered => Change::Recovered,
            Event::Overdue { .. } => Change::Overdue,
            Event::Hung { cause, .. } => Change::Hung(cause),
            Event::Retuned(policy) => Change::Retuned(policy),
            Event::Lost { verdict, .. } => return Some(Reportable::Lost(verdict)),
            Event::HeartbeatSent { beat, sequence, .. } => {
                return Some(Reportable::Heartbeat { sent: true, beat, sequence });
            }
            Event::HeartbeatReceived { beat, sequence } => {
                return Some(Reportable::Heartbeat { sent: false, beat, sequence });
            }
            Event::RoundTrip(rtt) => return Some(Reportable::RoundTrip(rtt)),
            Event::Data { .. } | Event::HeartbeatData(_) => return None,
        }))
    }
}
