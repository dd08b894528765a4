//! Carries out what the hub wants: bytes to sockets, looks at them, events to the control plane.

use systole_core::cause::Verdict;
use systole_core::hub;
use systole_core::link::{self, Closing, Event, Output};
use systole_core::policy::Detection;
use systole_core::{Machine, Policy, Span};
use systole_net::socket_options::SocketOptions;

use super::shard_loop::ShardLoop;
use super::sockets::Feedback;
use crate::report::{Change, Report, Subject};
use crate::stats::seconds;

impl ShardLoop {
    /// Carries out what the hub wants, until it wants nothing more.
    #[inline]
    pub(super) fn carry(&mut self) {
        loop {
            while let Some(hub::Output { link, output }) = self.hub.poll_output() {
                match output {
                    Output::Transmit { bytes, lane } => self.sockets.transmit(link, lane, bytes),
                    Output::Event(Event::Data { bytes, more, kind }) => {
                        self.data = true;
                        if self.echo {
                            self.sockets.echo(link, bytes, more, kind);
                        }
                    }
                    Output::Examine => self.sockets.request_examination(link),
                    Output::Event(event) => {
                        if let Some(told) = Told::of(event) {
                            self.tell(link, told);
                        }
                    }
                    Output::Close(Closing::Flush) => {
                        self.sockets.leave(link, self.clock.now());
                    }
                    Output::Close(Closing::Abort) => self.sockets.mark_for_close(link),
                }
            }
            let Some((link, feedback)) = self.sockets.next_feedback() else {
                break;
            };
            let input = match feedback {
                Feedback::Overflowed => link::Input::Overflowed,
                Feedback::Warned(error) => link::Input::Warned(error),
                Feedback::Examine => {
                    let options = self.socket_options_of(link);
                    link::Input::Examined(self.sockets.examine(link, options.as_ref()))
                }
                Feedback::Failed => {
                    self.read_on(link);
                    continue;
                }
                Feedback::Echo { bytes, more, kind } => {
                    let bytes = self.sockets.echoed(bytes);
                    link::Input::Command(link::Command::Send { bytes, more, kind })
                }
            };
            self.hub.handle(self.clock.now(), hub::Input::Link { link, input });
        }
        self.sockets.end_echo();
    }

    /// A link whose policy is not its listener's has options of its own.
    fn apply_socket_options(&mut self, link: u32, policy: &Policy) {
        let hub = self.hub.machine();
        let listener = hub.presence(link).map(|known| usize::from(known.listener));
        let common = listener.and_then(|listener| self.socket_options.get(listener));
        let own = SocketOptions::new(policy, None);
        if common != Some(&own) {
            self.sockets.prepare(link, &own);
        }
    }

    fn socket_options_of(&self, link: u32) -> Option<SocketOptions> {
        let known = self.hub.machine().presence(link)?;
        Some(SocketOptions::new(known.policy, None))
    }

    fn tell(&mut self, link: u32, told: Told) {
        if let Told::RoundTrip(rtt) = told {
            return self.distributions.rtt.observe(seconds(rtt));
        }
        if let Told::Change(Change::Join { policy, .. } | Change::Retuned(policy)) = &told {
            self.apply_socket_options(link, policy);
        }
        let Some(known) = self.hub.machine().presence(link) else {
            return;
        };
        let subject = Subject::new(&known);
        let change = match told {
            Told::Lost(verdict) => {
                let lasted = self.clock.now().since(known.opened);
                let flight = Some(Box::new(known.flight.clone()));
                let asked = asked_in_vain(&verdict, known.policy);
                self.count(&verdict);
                Change::Leave { verdict, asked, lasted, flight }
            }
            Told::Change(change) => {
                if let Change::Overdue = change {
                    self.stats.overdue.add(1);
                }
                change
            }
            Told::RoundTrip(_) => return,
        };
        let at_ms = self.clock.wall_ms();
        self.outlet.tell(Report::Session { at_ms, subject, change });
    }

    fn count(&self, verdict: &Verdict) {
        if let Some(cell) = self.stats.verdicts.get(verdict.cause.index()) {
            cell.add(1);
        }
        if verdict.is_silence() {
            self.distributions.lateness.observe(seconds(self.clock.anew().since(verdict.due)));
        }
    }
}

/// For how long a peer was asked in vain: since the first of the unanswered probes, as if each had
/// left as late as it may. One that was answered by an error counts for nothing.
fn asked_in_vain(verdict: &Verdict, policy: &Policy) -> Span {
    let unanswered =
        if verdict.is_silence() { verdict.probes } else { verdict.probes.saturating_sub(1) };
    match policy.detection() {
        Detection::Never => Span::ZERO,
        Detection::Bounded { interval, .. } => interval.times(u64::from(unanswered)),
    }
}

/// What of the hub's events leaves the loop.
enum Told {
    Change(Change),
    Lost(Verdict),
    RoundTrip(Span),
}

impl Told {
    fn of(event: Event<'_>) -> Option<Told> {
        Some(Told::Change(match event {
            Event::Established { policy, account, .. } => Change::Join { policy, account },
            Event::Suspect => Change::Suspect,
            Event::Warned { cause, confidence, grounds } => {
                Change::Warned { cause, confidence, grounds }
            }
            Event::Recovered => Change::Recovered,
            Event::Overdue { .. } => Change::Overdue,
            Event::Hung { cause, .. } => Change::Hung(cause),
            Event::Retuned(policy) => Change::Retuned(policy),
            Event::Lost { verdict, .. } => return Some(Told::Lost(verdict)),
            Event::HeartbeatSent { beat, sequence, .. } => {
                Change::Heartbeat { sent: true, beat, sequence }
            }
            Event::HeartbeatReceived { beat, sequence } => {
                Change::Heartbeat { sent: false, beat, sequence }
            }
            Event::RoundTrip(rtt) => return Some(Told::RoundTrip(rtt)),
            Event::Data { .. } | Event::HeartbeatData(_) => return None,
        }))
    }
}
