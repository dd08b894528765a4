//! What several verdicts, or a verdict and a return, say together: feeds the two machines that
//! decide it, and makes events of what they tell.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use systole_core::cause::Cause;
use systole_core::ledger::{self, Ledger, Note, Revised, Who};
use systole_core::outage::{self, Outage, Outages, Site};
use systole_core::{Machine, Span, Time};
use systole_net::Clock;
use tokio::sync::{Notify, mpsc};

use crate::events::{Body, Loss, Names, OutageInfo, Revision};
use crate::report::{Change, Report, SessionInfo, Subject};

/// How many questions about siblings may wait. They are asked one after the other; one that finds
/// no room is not asked, and the scope of that verdict stays unknown.
const QUESTIONS: usize = 256;

/// A question about other sessions of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// The session that has ended.
    pub session: u64,
    /// The others; zeros are none.
    pub siblings: [u64; outage::SIBLINGS],
}

/// What was found out, as events with their times in milliseconds since 1970-01-01 UTC.
pub(crate) type Findings = Vec<(u64, Body)>;

/// The machines, and the way to them.
#[derive(Debug)]
pub(crate) struct Correlation {
    machines: Mutex<Machines>,
    clock: Clock,
    names: Names,
    questions: mpsc::Sender<Question>,
    /// A deadline may have moved nearer.
    moved: Notify,
    /// Reports were missed.
    gap: Notify,
}

#[derive(Debug, Default)]
struct Machines {
    ledger: Ledger,
    outages: Outages,
    /// How often reports were missed.
    gaps: u64,
}

impl Correlation {
    pub(crate) fn new(names: Names) -> (Correlation, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(QUESTIONS);
        let machines = Mutex::default();
        let (clock, moved, gap) = (Clock::start(), Notify::new(), Notify::new());
        (Correlation { machines, clock, names, questions, moved, gap }, receiver)
    }

    /// Takes note of a report that was made at `wall_ms`.
    pub(crate) fn report(&self, report: &Report) -> Findings {
        match report {
            Report::Session { at_ms, subject, change } => self.change(*at_ms, subject, change),
            Report::Missed(_) => self.missed(),
            Report::Stalled { .. }
            | Report::AcceptingPaused(_)
            | Report::AcceptingResumed
            | Report::Stopped => Vec::new(),
        }
    }

    fn change(&self, at_ms: u64, subject: &Subject, change: &Change) -> Findings {
        // The report waited on its way; what matters is when it was made.
        let now = self.now();
        let at = now - Span::from_millis(self.clock.wall_ms().saturating_sub(at_ms));
        let Subject { session, listener, .. } = *subject;
        let address = subject.address.ip();
        let who = who(subject);
        match change {
            Change::Join { account, .. } => {
                let joined = outage::Input::Joined { session, listener, address };
                let account = *account;
                self.feed(at, Some(joined), Some(ledger::Input::Joined { who, account }))
            }
            Change::Suspect => {
                self.feed(at, Some(outage::Input::Suspect { session, listener, address }), None)
            }
            Change::Recovered => self.feed(at, Some(outage::Input::Recovered { session }), None),
            Change::Leave { verdict, asked, .. } if subject.established => {
                let (cause, asked) = (verdict.cause, *asked);
                let silent = verdict.at.since(verdict.last_heard);
                let ended =
                    outage::Input::Ended { session, listener, address, cause, silent, asked };
                let told = ledger::Input::Ended { who, cause, silent, asked };
                self.feed(at, Some(ended), Some(told))
            }
            Change::Moved { from } => {
                let left = outage::Input::Ended {
                    session,
                    listener,
                    address: from.ip(),
                    cause: Cause::Finished,
                    silent: Span::ZERO,
                    asked: Span::ZERO,
                };
                let mut findings = self.feed(at, Some(left), None);
                let joined = outage::Input::Joined { session, listener, address };
                findings.extend(self.feed(at, Some(joined), None));
                findings
            }
            Change::Leave { .. }
            | Change::Hung(_)
            | Change::Warned { .. }
            | Change::Overdue
            | Change::Retuned(_)
            | Change::Heartbeat { .. } => Vec::new(),
        }
    }

    fn missed(&self) -> Findings {
        let mut machines = self.lock();
        machines.gaps += 1;
        let findings = self.feed_all(&mut machines, self.now(), Some(outage::Input::Missed), None);
        drop(machines);
        self.gap.notify_one();
        findings
    }

    /// Waits until reports were missed, so that who is online must be listed; how often that was.
    pub(crate) async fn gap(&self) -> u64 {
        self.gap.notified().await;
        self.lock().gaps
    }

    /// Takes note of sessions that were online after the `gap`th time that reports were missed;
    /// `None` if there was another since, and the list must be started anew.
    pub(crate) fn listed(&self, gap: u64, sessions: &[SessionInfo]) -> Option<Findings> {
        let (now, now_ms) = (self.now(), self.clock.wall_ms());
        let mut machines = self.lock();
        if machines.gaps != gap {
            return None;
        }
        let mut findings = Vec::new();
        for info in sessions {
            let Ok(session) = u64::from_str_radix(&info.session, 16) else {
                continue;
            };
            let (listener, address) = (info.listener, info.address.ip());
            let since = now - Span::from_millis(now_ms.saturating_sub(info.since_ms));
            let listed = outage::Input::Listed { session, listener, address, since };
            findings.extend(self.feed_all(&mut machines, now, Some(listed), None));
        }
        Some(findings)
    }

    /// The list is complete, unless reports were missed again since.
    pub(crate) fn learned(&self, gap: u64) {
        let mut machines = self.lock();
        if machines.gaps == gap {
            self.feed_all(&mut machines, self.now(), Some(outage::Input::Learned), None);
        }
    }

    #[cfg(test)]
    pub(crate) fn known_online(&self) -> (u32, bool) {
        let machines = self.lock();
        (machines.outages.online(), !machines.outages.is_learning())
    }

    /// The siblings of a session that has ended were looked at.
    pub(crate) fn answered(
        &self,
        session: u64,
        heard_ago: Option<Span>,
        suspect: bool,
    ) -> Findings {
        let input = outage::Input::Siblings { session, heard_ago, suspect };
        self.feed(self.now(), Some(input), None)
    }

    /// Waits until something is to be done without a report, and does it.
    pub(crate) async fn due(&self) -> Findings {
        loop {
            let moved = self.moved.notified();
            let next = self.lock().outages.next_deadline();
            let Some(at) = next else {
                moved.await;
                continue;
            };
            let now = self.now();
            if at <= now {
                return self.feed(now, Some(outage::Input::Deadline), None);
            }
            let wait = std::time::Duration::from(at.since(now));
            // An earlier deadline, or the time of this one.
            let _ = tokio::time::timeout(wait, moved).await;
        }
    }

    fn feed(
        &self,
        at: Time,
        outage: Option<outage::Input>,
        told: Option<ledger::Input<'_>>,
    ) -> Findings {
        self.feed_all(&mut self.lock(), at, outage, told)
    }

    /// The ledger learns first that a verdict fell, and then its scope.
    fn feed_all(
        &self,
        machines: &mut Machines,
        at: Time,
        outage: Option<outage::Input>,
        told: Option<ledger::Input<'_>>,
    ) -> Findings {
        let now_ms = self.clock.wall_ms();
        let now = self.now();
        let Machines { ledger, outages, gaps: _ } = machines;
        let before = outages.next_deadline();
        let mut findings = Vec::new();
        if let Some(told) = told {
            ledger.handle(at, told);
            self.revised(ledger, now_ms, &mut findings);
        }
        if let Some(input) = outage {
            outages.handle(at, input);
        }
        while let Some(output) = outages.poll_output() {
            match output {
                outage::Output::Began(outage) => {
                    let info = self.outage(&outage, now, now_ms);
                    findings.push((now_ms, Body::Outage(info)));
                }
                outage::Output::Over(outage) => {
                    let info = self.outage(&outage, now, now_ms);
                    findings.push((now_ms, Body::OutageOver(info)));
                }
                outage::Output::Scoped { session, scope } => {
                    ledger.handle(at, ledger::Input::Scoped { session, scope });
                    self.revised(ledger, now_ms, &mut findings);
                }
                outage::Output::AskSiblings { session, siblings } => {
                    let _ = self.questions.try_send(Question { session, siblings });
                }
            }
        }
        if outages.next_deadline() != before {
            self.moved.notify_one();
        }
        findings
    }

    fn revised(&self, ledger: &mut Ledger, now_ms: u64, findings: &mut Findings) {
        while let Some(revised) = ledger.poll_output() {
            let Revised { from, to, confidence, note, .. } = revised;
            let idle_ms = match note {
                Note::NeitherClosed { idle } | Note::NewFlowPassed { idle } => {
                    Some(idle.as_millis())
                }
                Note::NewBoot
                | Note::NewInstance
                | Note::PeerHeardUs
                | Note::PeerHeardNothing
                | Note::PeerSuspended(_)
                | Note::PeerStopped(_)
                | Note::PeerNetworkDown
                | Note::Siblings => None,
            };
            let revision = Revision {
                from: from.name(),
                to: to.name(),
                loss: Loss::new(to),
                confidence: confidence.name(),
                detail: to.to_string().into(),
                because: note.to_string().into(),
                idle_ms,
                kept: Box::new((revised.session, to, confidence, note)),
            };
            let subject = Subject {
                session: revised.session,
                epoch: revised.epoch,
                identity: revised.identity,
                listener: revised.listener,
                address: revised.address,
                boot_id: Default::default(),
                instance_id: Default::default(),
                established: true,
            };
            let session = self.names.session(subject);
            findings.push((now_ms, Body::VerdictRevised { session, revision }));
        }
    }

    fn outage(&self, outage: &Outage, now: Time, now_ms: u64) -> OutageInfo {
        let wall = |at: Time| now_ms.saturating_sub(now.since(at).as_millis());
        let (network, listener) = match outage.place {
            Site::Local => (None, None),
            Site::Network { network, listener } => {
                (Some(network.to_string()), self.names.listeners.get(usize::from(listener)))
            }
        };
        OutageInfo {
            outage: outage.number,
            network,
            listener: listener.cloned(),
            affected: outage.affected,
            of_online: outage.of_online,
            hosts: outage.hosts,
            returned: outage.returned,
            recovered: outage.recovered,
            began_ms: wall(outage.began),
            last_ms: wall(outage.last),
        }
    }

    /// Time that goes on while the machine sleeps, since peers' accounts of theirs do.
    fn now(&self) -> Time {
        Time::ZERO + ORIGIN + self.clock.boottime()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Machines> {
        // The machines are whole between two calls, whatever the caller did next.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happened before the start lies after the origin: times never saturate there.
const ORIGIN: Span = Span::from_secs(24 * 60 * 60);

fn who(subject: &Subject) -> Who<'_> {
    let Subject { session, epoch, identity, listener, address, boot_id, instance_id, .. } = subject;
    let address: SocketAddr = *address;
    Who {
        session: *session,
        epoch: *epoch,
        identity,
        listener: *listener,
        address,
        boot_id: *boot_id,
        instance_id: *instance_id,
    }
}

/// The receiving end of the questions, until somebody takes it.
pub(crate) type Questions = Arc<Mutex<Option<mpsc::Receiver<Question>>>>;

#[cfg(test)]
mod tests {
    use systole_core::Policy;
    use systole_core::cause::{Confidence, Direction, Scope, Verdict};
    use systole_core::diagnosis::Grounds;
    use systole_core::wire::{Account, BootId, InstanceId, Saw};

    use super::*;

    fn correlation() -> (Correlation, mpsc::Receiver<Question>) {
        Correlation::new(Names {
            listeners: vec!["native".into()],
            descriptors: None,
            max_links: 1,
            links_by_descriptors: false,
        })
    }

    fn subject(session: u64, host: u8) -> Subject {
        Subject {
            session,
            epoch: session,
            identity: format!("peer {host}").into(),
            listener: 0,
            address: SocketAddr::from(([192, 0, 2, host], 4_711)),
            boot_id: BootId([host; 16]),
            instance_id: InstanceId([host; 16]),
            established: true,
        }
    }

    fn join(correlation: &Correlation, subject: Subject, account: Option<Account>) -> Findings {
        let change = Change::Join { policy: Policy::default(), account };
        let at_ms = correlation.clock.wall_ms();
        correlation.report(&Report::Session { at_ms, subject, change })
    }

    fn leave(correlation: &Correlation, subject: Subject, cause: Cause) -> Findings {
        let verdict = Verdict {
            cause,
            confidence: Confidence::Medium,
            grounds: Grounds::default(),
            at: Time::from_millis(100_000),
            due: Time::from_millis(100_000),
            last_heard: Time::from_millis(98_000),
            probes: 2,
        };
        let asked = Span::from_secs(1);
        let change = Change::Leave { verdict, asked, lasted: Span::from_secs(60), flight: None };
        let at_ms = correlation.clock.wall_ms();
        correlation.report(&Report::Session { at_ms, subject, change })
    }

    #[test]
    fn a_return_revises_a_verdict() {
        let (correlation, _questions) = correlation();
        assert!(leave(&correlation, subject(1, 1), Cause::PeerReset).is_empty());
        let account = Account {
            session: 1,
            saw: Saw::Reset,
            silent_ms: 0,
            ended_ms: 0,
            absent_ms: 0,
            suspended_ms: 0,
        };
        let found = join(&correlation, subject(2, 1), Some(account));
        let [(_, Body::VerdictRevised { session, revision })] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((&*session.session, &*session.identity), ("0000000000000001", "peer 1"));
        assert_eq!((revision.from, revision.to), ("peer_reset", "middlebox_forgot"));
        assert_eq!((revision.idle_ms, revision.confidence), (Some(1_000), "certain"));
    }

    #[tokio::test]
    async fn verdicts_that_fall_together_are_an_outage_and_its_end_is_told() {
        let (correlation, mut questions) = correlation();
        for host in 1..=4 {
            join(&correlation, subject(u64::from(host), host), None);
        }
        join(&correlation, subject(9, 1), None);
        let lost = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
        for host in 1..=3 {
            assert!(leave(&correlation, subject(u64::from(host), host), lost).is_empty());
        }
        let question = questions.try_recv().unwrap();
        assert_eq!((question.session, question.siblings), (1, [0, 9, 0, 0]));
        let found = correlation.due().await;
        let Some((_, Body::Outage(outage))) = found.first() else { panic!("{found:?}") };
        assert_eq!(outage.network.as_deref(), Some("192.0.2.0/24"));
        assert_eq!(outage.listener.as_deref(), Some("native"));
        assert_eq!((outage.affected, outage.of_online, outage.hosts), (3, 5, 3));
        for (_, body) in &found[1..] {
            let Body::VerdictRevised { revision, .. } = body else { panic!("{body:?}") };
            assert_eq!(revision.loss.scope, Some(Scope::Many), "{revision:?}");
        }
        assert_eq!(found.len(), 4);
        assert!(join(&correlation, subject(11, 1), None).is_empty());
        let over = join(&correlation, subject(12, 2), None);
        assert!(matches!(&over[..], [(_, Body::OutageOver(outage))] if outage.recovered));
    }

    #[tokio::test]
    async fn our_own_network_is_one_outage_of_no_network_and_no_listener() {
        let (correlation, _questions) = correlation();
        for host in 1..=2 {
            join(&correlation, subject(u64::from(host), host), None);
        }
        assert!(leave(&correlation, subject(1, 1), Cause::LocalNetworkDown).is_empty());
        let found = correlation.due().await;
        let [(_, Body::Outage(outage))] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&outage.network, &outage.listener), (&None, &None));
        assert_eq!((outage.affected, outage.of_online, outage.hosts), (1, 2, 1));
        let over = join(&correlation, subject(3, 1), None);
        assert!(matches!(&over[..], [(_, Body::OutageOver(outage))] if outage.recovered));
    }
}
