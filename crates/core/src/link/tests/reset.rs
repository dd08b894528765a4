//! Resets, and the examination that explains them.

use super::*;
use crate::cause::Confidence;
use crate::session;

/// Returns the verdict on a reset at `at` whose examination shows `tcp`; `None` if the shell does
/// not examine.
fn reset_at(at: u64, tcp: Option<TcpSnapshot>) -> Verdict {
    let mut link = link(Hung::End);
    assert!(run(&mut link, at, acknowledging).lost.is_none());
    let now = Time::from_millis(at);
    link.handle(now, World::Failed(SocketError::Reset));
    assert_eq!(link.poll_output(), Some(Output::Examine { route: true }));
    assert_eq!(link.poll_output(), None, "no verdict before the examination");
    link.handle(
        now,
        match tcp {
            Some(_) => Answer::Examined(Examination { tcp, ..Examination::default() }),
            None => Answer::Deadline,
        },
    );
    let mut lost = Run::default();
    poll(&mut link, now, &acknowledging, &mut lost);
    lost.lost.unwrap().1
}

#[test]
fn the_cause_of_a_reset_depends_on_whether_a_segment_was_unacknowledged() {
    let kernel = |last_ack, sent| TcpSnapshot {
        last_ack: Span::from_millis(last_ack),
        bytes_sent: Some(sent),
        bytes_retrans: Some(0),
        bytes_acked: Some(20),
        ..TcpSnapshot::default()
    };
    let killed = reset_at(2_400, Some(kernel(360, 20)));
    assert_eq!((killed.cause, killed.confidence), (Cause::PeerExited, Confidence::High));
    assert!(killed.grounds.contains(Ground::NothingOwed));
    let forgotten = reset_at(2_400, Some(kernel(2_400, 25)));
    assert_eq!((forgotten.cause, forgotten.confidence), (Cause::PeerReset, Confidence::High));
    assert!(forgotten.grounds.contains(Ground::SegmentOwed));
}

#[test]
fn the_cause_of_a_reset_without_examination_depends_on_what_was_sent_since_evidence() {
    let verdict = |at| {
        let verdict = reset_at(at, None);
        (verdict.cause, verdict.confidence)
    };
    assert_eq!(verdict(900), (Cause::PeerExited, Confidence::High), "nothing was unanswered");
    assert_eq!(verdict(1_000), (Cause::PeerReset, Confidence::Medium), "a probe was just sent");
    assert_eq!(verdict(2_500), (Cause::PeerReset, Confidence::High), "after silence");
}

#[test]
fn a_reset_that_an_examination_reads_ends_the_link_at_once() {
    let mut link = link(Hung::End);
    run(&mut link, 1_400, acknowledging);
    let now = Time::from_millis(1_500);
    link.handle(now, Answer::Deadline);
    while link.poll_output().is_some() {}
    let error = Some(SocketError::Reset);
    let shown = Examination { error, ended: true, ..Examination::default() };
    link.handle(now, Answer::Examined(shown));
    let mut lost = Run::default();
    poll(&mut link, now, &acknowledging, &mut lost);
    let lost = lost.lost.map(|(at, verdict)| (at, verdict.cause));
    assert_eq!(lost, Some((1_500, Cause::PeerReset)));
}

/// The peer's segments arrive, and it acknowledges nothing, until it has given up: its system then
/// refuses what the healed path lets through. After the reset the kernel retransmits nothing.
#[test]
fn a_reset_after_our_direction_was_lost_says_that_the_peer_was_heard() {
    let is_heard = |heard_until: u64, ends_by_examination: bool| {
        let mut link = link(Hung::End);
        let shows = |at: u64| TcpSnapshot {
            unacked: 1,
            retransmits: 3,
            last_ack: Span::from_millis(at.saturating_sub(heard_until)),
            last_sent: Span::from_millis(100),
            bytes_sent: Some(25),
            bytes_retrans: Some(0),
            bytes_acked: Some(20),
            ..TcpSnapshot::default()
        };
        assert!(run(&mut link, 2_700, shows).lost.is_none());
        let now = Time::from_millis(2_700);
        let reset = TcpSnapshot { unacked: 0, retransmits: 0, ..shows(2_700) };
        let error = ends_by_examination.then_some(SocketError::Reset);
        if !ends_by_examination {
            link.handle(now, World::Failed(SocketError::Reset));
            assert_eq!(link.poll_output(), Some(Output::Examine { route: true }));
        }
        let ended = ends_by_examination;
        let shown = Examination { tcp: Some(reset), error, ended, ..Examination::default() };
        link.handle(now, Answer::Examined(shown));
        let mut lost = Run::default();
        poll(&mut link, now, &shows, &mut lost);
        let verdict = lost.lost.unwrap().1;
        assert_eq!(verdict.cause, Cause::PeerReset);
        verdict.grounds.contains(Ground::PeerStillHeard)
    };
    for ends_by_examination in [false, true] {
        assert!(is_heard(2_350, ends_by_examination));
        assert!(!is_heard(1_000, ends_by_examination), "silent before anything was sent again");
    }
}

#[test]
fn a_verdict_that_the_kernel_forces_before_the_bound_is_early_and_says_nothing_of_silence() {
    let mut link = link(Hung::End);
    link.handle(Time::from_millis(500), World::Received(b"ping\n"));
    while link.poll_output().is_some() {}
    link.handle(Time::from_millis(900), World::Failed(SocketError::TimedOut));
    let mut lost = None;
    while let Some(output) = link.poll_output() {
        if let Output::Session(session::Event::Left(verdict)) = output {
            lost = Some(verdict);
        }
    }
    let verdict = lost.unwrap();
    assert_eq!((verdict.due, verdict.late_us()), (Time::from_millis(3_500), -2_600_000));
    assert!(verdict.is_early() && !verdict.is_silence());
    assert_eq!(verdict.grounds, Grounds::of(&[Ground::KernelGaveUp]));
}

#[test]
fn a_verdict_that_the_kernel_forces_where_no_bound_counts_is_due_at_once() {
    let forced = |mut link: Link, error| {
        link.handle(Time::from_millis(900), World::Failed(error));
        let mut lost = Run::default();
        poll(&mut link, Time::from_millis(900), &acknowledging, &mut lost);
        lost.lost.unwrap().1
    };
    for error in [SocketError::TimedOut, SocketError::HostUnreachable] {
        let settings = Settings::new(Codec::Native, Side::Accepting, policy());
        let mute = Link::new(Time::ZERO, settings, 1);
        let mut half_closed = half_close::established(Codec::Native);
        half_closed.handle(Time::from_millis(800), World::Ended);
        for link in [mute, half_closed] {
            let verdict = forced(link, error);
            assert_eq!(verdict.due, Time::from_millis(900), "{error:?}");
            assert!(!verdict.is_early(), "{error:?}");
        }
    }
}
