//! Tests of links that leave a shard and arrive at one.

use std::sync::mpsc::{Receiver, sync_channel};

use systole_core::machine::Reason;
use systole_core::session;

use super::*;
use crate::report::{Fact, Reports, channels};
use crate::report_sender::ReportSender;

impl Bench {
    /// Returns a way to another shard, and what it is sent.
    fn elsewhere(&self) -> (Arrivals, Receiver<Parcel>) {
        let (sender, receiver) = sync_channel(1);
        (Arrivals::new(sender, self.waker.clone()), receiver)
    }

    /// Lets the control plane take facts from now on, of which `room` are on their way at most.
    fn report(&mut self, room: usize) -> Reports {
        let (channels, reports) = channels(room);
        self.shard.reports = ReportSender::new(channels, Arc::clone(&self.shard.stats));
        reports
    }

    /// Hands the link over.
    pub(super) fn parcel(&mut self) -> Parcel {
        let (elsewhere, sent) = self.elsewhere();
        assert!(self.shard.hand_over(self.session, &elsewhere));
        sent.try_recv().unwrap()
    }
}

#[test]
fn a_link_that_is_due_when_it_arrives_is_read_before_it_is_judged() {
    let span = Span::from_millis;
    let mut bench = Bench::new(Policy::new(span(100), span(50), 2).unwrap());
    let next = |shard: &ShardLoop<Streams>| {
        shard.hub.machine().presence(0).and_then(|known| known.next_deadline)
    };
    bench.turn_until(|shard| next(shard).is_some_and(|it| it.reason == Reason::Verdict));
    let due = next(&bench.shard).unwrap().at;
    io::Write::write_all(&mut bench.peer, b"hello\n").unwrap();
    while bench.shard.traffic.sockets.stream(0).unwrap().peek(&mut [0]).is_err() {}
    while bench.shard.clock.now() < due {
        bench.shard.clock.begin_turn(LONG);
    }
    let parcel = bench.parcel();
    // This shard has read all sockets that it had.
    bench.shard.clock.record_reads(0, 0, true);
    bench.shard.arrive(parcel);
    bench.shard.expire();
    assert_eq!(bench.shard.hub.machine().counters().online, 1);
}

#[test]
fn a_link_stays_while_the_fact_of_a_command_that_has_just_reached_it_waits() {
    let mut bench = Bench::new(Policy::standard());
    let mut reports = bench.report(1);
    bench.order(Order::Retune(Policy::relaxed()));
    let (elsewhere, sent) = bench.elsewhere();
    let policy = Policy::demanding();
    bench.shard.answer(Request::Command(HubCommand::Retune { listener: 0, policy }));
    assert!(!bench.shard.hand_over(bench.session, &elsewhere));
    assert!(sent.try_recv().is_err());
    assert!(matches!(reports.facts.try_recv(), Ok(Fact { event: session::Event::Retuned(_), .. })));
    assert!(!bench.shard.reports.flush());
    assert!(bench.shard.hand_over(bench.session, &elsewhere));
    assert!(sent.try_recv().is_ok());
}

#[test]
fn a_link_that_comes_when_its_new_shard_ends_is_ended_with_it() {
    let mut bench = Bench::new(Policy::standard());
    let parcel = bench.parcel();
    let mut reports = bench.report(10);
    let Bench { shard, _requests: requests, arrivals, mut peer, session, .. } = bench;
    requests.send(Request::Stop).unwrap();
    // More than one turn takes.
    (0..100).for_each(|_| requests.send(Request::StopAccepting).unwrap());
    assert!(arrivals.deliver(parcel).is_ok());
    shard.run();
    let left = reports.facts.try_recv().unwrap();
    assert_eq!(left.subject.session, session);
    assert!(matches!(left.event, session::Event::Left(_)), "{left:?}");
    io::Read::read_to_end(&mut peer, &mut Vec::new()).unwrap();
}
