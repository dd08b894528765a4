//! Correlates verdicts with each other and with returns: feeds the ledger and the outage machine,
//! and turns their outputs into events.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use systole_core::cause::Cause;
use systole_core::diagnosis::Grounds;
use systole_core::ledger::{self, Ledger, Note, Revised, Who};
use systole_core::outage::{self, Outage, Outages, Site};
use systole_core::session::Event;
use systole_core::{Machine, Span, Time};
use systole_net::Clock;
use tokio::sync::{Notify, mpsc};

use crate::events::{Body, Loss, Names, OutageInfo, Revision};
use crate::report::{Fact, Subject};

/// Maximum number of waiting questions about siblings, all of which are answered together. A
/// question that finds no room is dropped, and the scope of that verdict stays unknown.
pub(crate) const QUESTIONS: usize = 256;

/// A question about other sessions of the host of an ended session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// The session that has ended.
    pub session: u64,
    /// The other sessions; zeros are empty places.
    pub siblings: [u64; outage::SIBLINGS],
}

/// The answer to a [`Question`]: what the siblings showed at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Siblings {
    /// The session that has ended.
    pub session: u64,
    /// When the siblings were looked at.
    pub at: Time,
    /// How long ago any of them was last heard; `None` if none is online.
    pub heard_ago: Option<Span>,
    /// How long ago our latest bytes left that reached one of them; `None` if none is known.
    pub reached_ago: Option<Span>,
    /// Whether one of them is suspect.
    pub suspect: bool,
}

/// Findings of correlation: events with their times in milliseconds since 1970-01-01 UTC.
pub(crate) type Findings = Vec<(u64, Body)>;

/// The correlation of one gateway: its machines behind a lock, its clock and its notifications.
#[derive(Debug)]
pub(crate) struct Correlation {
    machines: Mutex<Machines>,
    clock: Clock,
    names: Names,
    questions: mpsc::Sender<Question>,
    /// Notified when the next deadline changed.
    deadline_changed: Notify,
}

#[derive(Debug, Default)]
struct Machines {
    ledger: Ledger,
    outages: Outages,
}

impl Correlation {
    pub(crate) fn new(names: Names) -> (Correlation, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(QUESTIONS);
        let machines = Mutex::default();
        let (clock, deadline_changed) = (Clock::start(), Notify::new());
        let correlation = Correlation { machines, clock, names, questions, deadline_changed };
        (correlation, receiver)
    }

    /// Feeds a fact to the machines.
    pub(crate) fn handle_fact(&self, fact: &Fact) -> Findings {
        let Fact { at_ms, subject, event, parting, .. } = fact;
        // The report may have waited in its channel: its own time counts, not that of its arrival.
        let now = self.now();
        let at = now - Span::from_millis(self.clock.wall_ms().saturating_sub(*at_ms));
        let &Subject { session, listener, .. } = subject;
        let address = subject.address.ip();
        let (who, boot_id) = (who(subject), subject.boot_id);
        let joined = outage::World::Joined { session, listener, address, boot_id };
        // A session that is resumed has returned, as one that joins.
        if let Event::Joined { account, .. } | Event::Resumed { account, .. } = *event {
            return self.feed(
                at,
                Some(joined.into()),
                Some(ledger::World::Joined { who, account }),
            );
        }
        if *event == Event::Suspect {
            let suspect = outage::World::Suspect { session, listener, address };
            return self.feed(at, Some(suspect.into()), None);
        }
        if *event == Event::Recovered {
            return self.feed(at, Some(outage::World::Recovered { session }.into()), None);
        }
        // The link of a session that was away has ended before, and was counted then.
        if let Event::Left(verdict) | Event::Away { verdict, .. } = event
            && subject.established
            && !parting.was_away
        {
            let (cause, grounds, asked) = (verdict.cause, verdict.grounds, parting.asked);
            let silent = verdict.at.since(verdict.last_heard);
            let ended = outage::World::Ended {
                session,
                listener,
                address,
                boot_id,
                cause,
                grounds,
                silent,
                asked,
            };
            let probing = parting.probing;
            let ledger_input = ledger::World::Ended { who, cause, grounds, silent, asked, probing };
            return self.feed(at, Some(ended.into()), Some(ledger_input));
        }
        if let Event::Moved { from } = event {
            let left = outage::World::Ended {
                session,
                listener,
                address: from.ip(),
                boot_id,
                cause: Cause::Finished,
                grounds: Grounds::default(),
                silent: Span::ZERO,
                asked: Span::ZERO,
            };
            let mut findings = self.feed(at, Some(left.into()), None);
            findings.extend(self.feed(at, Some(joined.into()), None));
            return findings;
        }
        // No other event says anything of an outage or of a verdict that fell.
        Findings::new()
    }

    /// Feeds the answer to a [`Question`] about the siblings of an ended session.
    pub(crate) fn handle_siblings(&self, seen: &Siblings) -> Findings {
        let &Siblings { session, at, heard_ago, reached_ago, suspect } = seen;
        let input = outage::Answer::Siblings { session, heard_ago, reached_ago, suspect };
        self.feed(at, Some(input.into()), None)
    }

    /// Waits until a deadline of the outage machine has come.
    pub(crate) async fn wait_for_deadline(&self) {
        loop {
            let changed = self.deadline_changed.notified();
            let next = self.lock().outages.next_deadline().map(|next| next.at);
            let Some(at) = next else {
                changed.await;
                continue;
            };
            let now = self.now();
            if at <= now {
                return;
            }
            let wait = std::time::Duration::from(at.since(now));
            // Ends early if the deadline changed.
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    /// Handles the deadlines of the outage machine that have come.
    pub(crate) fn handle_deadline(&self) -> Findings {
        self.feed(self.now(), Some(outage::Answer::Deadline.into()), None)
    }

    fn feed(
        &self,
        at: Time,
        outage_input: Option<outage::Input>,
        ledger_input: Option<ledger::World<'_>>,
    ) -> Findings {
        self.feed_all(&mut self.lock(), at, outage_input, ledger_input)
    }

    /// Feeds both machines; the ledger comes first, since it must know a verdict before its scope.
    fn feed_all(
        &self,
        machines: &mut Machines,
        at: Time,
        outage_input: Option<outage::Input>,
        ledger_input: Option<ledger::World<'_>>,
    ) -> Findings {
        let now_ms = self.clock.wall_ms();
        let now = self.now();
        let Machines { ledger, outages } = machines;
        let before = outages.next_deadline();
        let mut findings = Vec::new();
        if let Some(input) = ledger_input {
            ledger.handle(at, input);
            self.take_revisions(ledger, now_ms, &mut findings);
        }
        if let Some(input) = outage_input {
            outages.handle(at, input);
        }
        while let Some(output) = outages.poll_output() {
            match output {
                outage::Output::Began(outage) => {
                    let info = self.outage_info(&outage, now, now_ms);
                    findings.push((now_ms, Body::Outage(info)));
                }
                outage::Output::Over(outage) => {
                    let info = self.outage_info(&outage, now, now_ms);
                    findings.push((now_ms, Body::OutageOver(info)));
                }
                outage::Output::Scoped { session, scope, confidence } => {
                    ledger.handle(at, ledger::World::Scoped { session, scope, confidence });
                    self.take_revisions(ledger, now_ms, &mut findings);
                }
                outage::Output::AskSiblings { session, siblings } => {
                    let _ = self.questions.try_send(Question { session, siblings });
                }
            }
        }
        if outages.next_deadline() != before {
            self.deadline_changed.notify_one();
        }
        findings
    }

    fn take_revisions(&self, ledger: &mut Ledger, now_ms: u64, findings: &mut Findings) {
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
                | Note::PeerGaveUp
                | Note::PeerSuspended(_)
                | Note::PeerStopped { .. }
                | Note::PeerNetworkDown
                | Note::Siblings
                | Note::SiblingsLive
                | Note::Repeated => None,
            };
            let revision = Revision {
                from: from.name(),
                to: to.name(),
                loss: Loss::new(to),
                confidence: confidence.name(),
                detail: to.to_string().into(),
                because: note.to_string().into(),
                advice: note.advice(to),
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

    fn outage_info(&self, outage: &Outage, now: Time, now_ms: u64) -> OutageInfo {
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

    /// The time on a clock that advances during suspend, as the times in peers' accounts do.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + ORIGIN + self.clock.boottime()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Machines> {
        // A panic of a caller leaves the machines consistent: they change only within their calls.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Distance of the process start from [`Time::ZERO`], so that times before the start do not
/// saturate.
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

/// The receiving end of the questions; `None` once taken.
pub(crate) type Questions = Mutex<Option<mpsc::Receiver<Question>>>;

#[cfg(test)]
mod tests {
    use systole_core::Policy;
    use systole_core::cause::{Confidence, Direction, Scope, Verdict};
    use systole_core::wire::{Account, BootId, InstanceId, Saw};

    use super::*;
    use crate::report::Parting;

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
        let event = Event::Joined { policy: Policy::default(), account };
        correlation.handle_fact(&Fact::new(correlation.clock.wall_ms(), subject, event))
    }

    fn leave(correlation: &Correlation, subject: Subject, cause: Cause) -> Findings {
        left_ago(correlation, 0, subject, cause)
    }

    fn verdict(cause: Cause) -> Verdict {
        Verdict {
            cause,
            confidence: Confidence::Medium,
            grounds: Grounds::default(),
            at: Time::from_millis(100_000),
            due: Time::from_millis(100_000),
            stretch: Span::ZERO,
            last_heard: Time::from_millis(98_000),
            probes: 2,
        }
    }

    /// The session ended `ago_ms` ago.
    fn left_ago(
        correlation: &Correlation,
        ago_ms: u64,
        subject: Subject,
        cause: Cause,
    ) -> Findings {
        ended_by(correlation, ago_ms, subject, Event::Left(verdict(cause)), false)
    }

    fn go_away(correlation: &Correlation, subject: Subject, cause: Cause) -> Findings {
        let verdict = verdict(cause);
        let event = Event::Away { verdict, until: verdict.at + Span::from_secs(30) };
        ended_by(correlation, 0, subject, event, false)
    }

    fn resume(correlation: &Correlation, subject: Subject, account: Option<Account>) -> Findings {
        let event = Event::Resumed { account, gap: 0, redelivered: 0 };
        correlation.handle_fact(&Fact::new(correlation.clock.wall_ms(), subject, event))
    }

    fn ended_by(
        correlation: &Correlation,
        ago_ms: u64,
        subject: Subject,
        event: Event,
        was_away: bool,
    ) -> Findings {
        let asked = Span::from_secs(1);
        let (lasted, probing) = (Span::from_secs(60), Some(Span::from_secs(2)));
        let parting = Parting { asked, probing, lasted, was_away, ..Parting::default() };
        let at_ms = correlation.clock.wall_ms() - ago_ms;
        let fact = Fact::new(at_ms, subject, event);
        correlation.handle_fact(&Fact { parting, ..fact })
    }

    #[test]
    fn a_return_revises_the_verdict() {
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
        assert_eq!((revision.from, revision.to), ("peer_reset", "middlebox_reset"));
        assert_eq!((revision.idle_ms, revision.confidence), (Some(1_000), "certain"));
        assert_eq!(revision.advice, Cause::MiddleboxReset.advice());
    }

    #[test]
    fn a_reset_at_this_end_alone_is_revised_when_the_peer_gave_up_later() {
        let (correlation, _questions) = correlation();
        assert!(left_ago(&correlation, 2_000, subject(1, 1), Cause::PeerExited).is_empty());
        let (saw, silent_ms, ended_ms, absent_ms, suspended_ms) = (Saw::Silence, 900, 0, 0, 0);
        let account = Account { session: 1, saw, silent_ms, ended_ms, absent_ms, suspended_ms };
        let found = join(&correlation, subject(2, 1), Some(account));
        let [(_, Body::VerdictRevised { revision, .. })] = &found[..] else { panic!("{found:?}") };
        assert_eq!((revision.from, revision.to), ("peer_exited", "middlebox_reset"));
    }

    #[tokio::test]
    async fn verdicts_that_fall_together_are_an_outage_whose_end_is_published() {
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
        correlation.wait_for_deadline().await;
        let found = correlation.handle_deadline();
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

    #[test]
    fn the_account_of_a_peer_that_resumes_its_session_revises_the_verdict_on_its_link() {
        let (correlation, _questions) = correlation();
        join(&correlation, subject(1, 1), None);
        assert!(go_away(&correlation, subject(1, 1), Cause::PeerReset).is_empty());
        let (saw, silent_ms, ended_ms, absent_ms, suspended_ms) = (Saw::Reset, 0, 0, 0, 0);
        let account = Account { session: 1, saw, silent_ms, ended_ms, absent_ms, suspended_ms };
        let found = resume(&correlation, subject(1, 1), Some(account));
        let [(_, Body::VerdictRevised { session, revision })] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(&*session.session, "0000000000000001");
        assert_eq!((revision.from, revision.to), ("peer_reset", "middlebox_reset"));
    }

    #[tokio::test]
    async fn sessions_that_go_away_together_are_an_outage_and_their_ends_count_no_more() {
        let (correlation, _questions) = correlation();
        for host in 1..=5 {
            join(&correlation, subject(u64::from(host), host), None);
        }
        let lost = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
        for host in 1..=3 {
            let subject = || subject(u64::from(host), host);
            assert!(go_away(&correlation, subject(), lost).is_empty());
            let left = Event::Left(verdict(lost));
            assert!(ended_by(&correlation, 0, subject(), left, true).is_empty());
        }
        correlation.wait_for_deadline().await;
        let found = correlation.handle_deadline();
        let Some((_, Body::Outage(outage))) = found.first() else { panic!("{found:?}") };
        assert_eq!((outage.affected, outage.of_online, outage.hosts), (3, 5, 3));
        assert!(resume(&correlation, subject(1, 1), None).is_empty());
        let over = resume(&correlation, subject(2, 2), None);
        assert!(matches!(&over[..], [(_, Body::OutageOver(outage))] if outage.recovered));
    }

    #[tokio::test]
    async fn a_local_network_failure_is_one_outage_without_network_and_listener() {
        let (correlation, _questions) = correlation();
        for host in 1..=2 {
            join(&correlation, subject(u64::from(host), host), None);
        }
        assert!(leave(&correlation, subject(1, 1), Cause::LocalNetworkDown).is_empty());
        correlation.wait_for_deadline().await;
        let found = correlation.handle_deadline();
        let [(_, Body::Outage(outage))] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&outage.network, &outage.listener), (&None, &None));
        assert_eq!((outage.affected, outage.of_online, outage.hosts), (1, 2, 1));
        let over = join(&correlation, subject(3, 1), None);
        assert!(matches!(&over[..], [(_, Body::OutageOver(outage))] if outage.recovered));
    }
}
