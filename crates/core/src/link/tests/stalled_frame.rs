//! Frames that arrive a few bytes at a time, and the limit on the time they may take.

use super::*;
use crate::machine::Reason;
use crate::session;
use crate::wire::Malformed;

const STALLED: Cause = Cause::Protocol(Malformed::StalledFrame);

/// DATA of 65,536 bytes: 65,540 with the header, which take 64 s at the floor rate.
const LARGE: &[u8] = b"\x50\x80\x80\x04";

/// A native link whose handshake was complete at time zero.
fn native(policy: Policy) -> Link {
    let settings = Settings::new(Codec::Native, Side::Accepting, policy);
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(&hello()));
    admit(&mut link, Time::ZERO);
    while link.poll_output().is_some() {}
    link
}

/// A `line` link whose handshake was complete at time zero, and whose socket is not examined.
fn line() -> Link {
    let settings = Settings::new(Codec::Line, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(b"ping\n"));
    admit(&mut link, Time::ZERO);
    while link.poll_output().is_some() {}
    link
}

/// Polls all outputs; returns the verdict, if it fell.
fn verdict(link: &mut Link) -> Option<Verdict> {
    let mut lost = None;
    while let Some(output) = link.poll_output() {
        match output {
            Output::Session(session::Event::Left(verdict)) => lost = Some(verdict),
            Output::Transmit { .. } if lost.is_some() => panic!("sent after the verdict"),
            Output::Transmit { .. }
            | Output::Session(_)
            | Output::Event(_)
            | Output::Examine { .. }
            | Output::Patience(_)
            | Output::Admit
            | Output::Close(_) => {}
        }
    }
    lost
}

/// Feeds `byte` every `period_ms` from `from_ms` on, and every deadline at its time, up to the
/// verdict or to `until_ms`.
fn drip(link: &mut Link, byte: u8, from_ms: u64, period_ms: u64, until_ms: u64) -> Option<Verdict> {
    let mut next = Time::from_millis(from_ms);
    let mut now = Time::ZERO;
    loop {
        let deadline = link.next_deadline().filter(|deadline| deadline.at < next);
        // The deadline of a frame may have passed while the peer was in doubt.
        now = deadline.map_or(next, |deadline| deadline.at).max(now);
        if now > Time::from_millis(until_ms) {
            return None;
        }
        if deadline.is_some() {
            link.handle(now, Answer::Deadline);
        } else {
            link.handle(now, World::Received(&[byte]));
            next = next + Span::from_millis(period_ms);
        }
        if let Some(verdict) = verdict(link) {
            return Some(verdict);
        }
    }
}

#[test]
fn a_peer_that_drips_a_short_frame_ends_at_the_bound_after_its_first_byte() {
    let mut link = line();
    let lost = drip(&mut link, b'x', 250, 90, 60_000).unwrap();
    assert_eq!((lost.cause, lost.confidence), (STALLED, crate::cause::Confidence::Certain));
    assert_eq!((lost.at, lost.due), (Time::from_millis(3_250), Time::from_millis(3_250)));
    assert_eq!(lost.last_heard, Time::from_millis(3_220));
    assert!(!lost.is_silence());
}

#[test]
fn a_long_frame_has_the_time_that_it_takes_at_the_floor_rate() {
    let mut link = native(policy());
    link.handle(Time::from_millis(500), World::Received(LARGE));
    let deadline = drip(&mut link, b'x', 600, 100, 60_000);
    assert_eq!(deadline, None, "65,540 bytes have 64 s");
    let lost = drip(&mut link, b'x', 60_100, 100, 90_000).unwrap();
    let limit = Span::from_millis(65_540 * 1_000 / FLOOR_PER_SECOND);
    assert_eq!((lost.cause, lost.due), (STALLED, Time::from_millis(500) + limit));
    assert_eq!(lost.at, lost.due, "exact");
}

#[test]
fn a_line_has_the_time_that_its_bytes_took_at_the_floor_rate() {
    // 60 bytes each 50 ms are 1,200 bytes a second: above the floor for as long as the line lasts.
    let mut link = line();
    for step in 0..1_000 {
        let now = Time::from_millis(step * 50);
        while link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
            link.handle(now, Answer::Deadline);
        }
        link.handle(now, World::Received(&[b'x'; 60]));
        assert_eq!(verdict(&mut link), None, "after {step} pieces");
    }
    // From here on it drips, and the line has only the time of the bytes that arrived.
    let lost = drip(&mut link, b'x', 50_000, 900, 200_000).unwrap();
    let (due, length) = (lost.due.as_millis(), 60_000 + (lost.at.as_millis() - 50_000) / 900 + 2);
    assert_eq!((lost.cause, due), (STALLED, length * 1_000 / FLOOR_PER_SECOND));
}

#[test]
fn each_frame_has_its_own_time() {
    let mut link = line();
    for second in 0..60 {
        let now = Time::from_millis(second * 900);
        while link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
            link.handle(now, Answer::Deadline);
            assert_eq!(verdict(&mut link), None, "in round {second}");
        }
        link.handle(now, World::Received(if second == 0 { b"front" } else { b"\nfront" }));
        assert_eq!(verdict(&mut link), None, "in round {second}");
    }
}

#[test]
fn a_peer_that_falls_silent_within_a_frame_is_judged_by_its_silence() {
    let mut link = line();
    let lost = drip(&mut link, b'x', 250, 100_000, 60_000).unwrap();
    assert_eq!((lost.cause, lost.at), (Cause::Unknown, Time::from_millis(3_250)));
    // Bytes at 250, 2,200 and 4,150, a probe at 3,200: with the third byte, the frame is judged.
    let mut link = line();
    let lost = drip(&mut link, b'x', 250, 1_950, 60_000).unwrap();
    let at = Time::from_millis(250 + 2 * 1_950);
    assert_eq!((lost.cause, lost.at, lost.due), (STALLED, at, Time::from_millis(3_250)));
}

#[test]
fn a_frame_is_not_judged_in_the_handshake_or_after_a_half_close() {
    let settings = Settings::new(Codec::Line, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, 1);
    let lost = drip(&mut link, b'x', 0, 100, 60_000).unwrap();
    assert_eq!((lost.cause, lost.due), (Cause::HandshakeTimeout, Time::ZERO + HANDSHAKE_TIMEOUT));
    let mut link = native(policy());
    link.handle(Time::from_millis(100), World::Received(b"\x50\x09half"));
    admit(&mut link, Time::from_millis(100));
    link.handle(Time::from_millis(200), World::Ended);
    assert_eq!(link.peer.incomplete_frame(), None, "its rest cannot arrive");
    let next = link.next_deadline().map(|next| next.reason);
    assert_eq!(next, Some(Reason::HalfClose));
}

#[test]
fn a_frame_is_not_judged_while_the_policy_ends_nobody() {
    for policy in [policy().with_enforce(false), Policy::never()] {
        let mut link = native(policy);
        link.handle(Time::from_millis(500), World::Received(LARGE));
        assert_eq!(drip(&mut link, b'x', 600, 500, 1_000_000), None, "{policy}");
        // Under a policy that ends peers, the frame gets its whole time anew.
        let retuned = Time::from_millis(1_000_000);
        link.handle(retuned, World::Command(Command::Retune(super::policy())));
        let lost = drip(&mut link, b'x', 1_000_100, 500, 2_000_000).unwrap();
        assert_eq!((lost.cause, lost.at.since(retuned).as_millis()), (STALLED, 64_003));
    }
}

#[test]
fn the_time_of_a_frame_starts_anew_at_the_end_of_a_hold() {
    let hold = Command::Hold(Span::from_secs(60));
    let mut begun_before = line();
    begun_before.handle(Time::from_millis(100), World::Received(b"x"));
    begun_before.handle(Time::from_millis(200), World::Command(hold));
    let lost = drip(&mut begun_before, b'x', 300, 100, 90_000).unwrap();
    assert_eq!((lost.cause, lost.due), (STALLED, Time::from_millis(63_200)));
    let mut begun_within = line();
    begun_within.handle(Time::from_millis(200), World::Command(hold));
    let lost = drip(&mut begun_within, b'x', 300, 100, 90_000).unwrap();
    assert_eq!((lost.cause, lost.due), (STALLED, Time::from_millis(63_200)));
    let mut released = line();
    released.handle(Time::from_millis(200), World::Command(hold));
    assert_eq!(drip(&mut released, b'x', 300, 100, 20_000), None);
    released.handle(Time::from_millis(20_000), World::Command(Command::Release));
    let lost = drip(&mut released, b'x', 20_100, 100, 90_000).unwrap();
    assert_eq!((lost.cause, lost.due), (STALLED, Time::from_millis(23_000)));
}

#[test]
fn a_late_deadline_ends_the_peer_for_what_was_due_first() {
    let mut link = line();
    for ms in [100, 900, 1_800, 2_700] {
        while link.next_deadline().is_some_and(|deadline| deadline.at <= Time::from_millis(ms)) {
            link.handle(Time::from_millis(ms), Answer::Deadline);
        }
        link.handle(Time::from_millis(ms), World::Received(b"x"));
        assert_eq!(verdict(&mut link), None);
    }
    // The frame was due at 3,100, the probe at 3,700.
    assert_eq!(link.next_deadline().map(|next| next.reason), Some(Reason::Frame));
    link.handle(Time::from_millis(9_000), Answer::Deadline);
    let lost = verdict(&mut link).unwrap();
    assert_eq!((lost.cause, lost.due), (STALLED, Time::from_millis(3_100)));
}

#[test]
fn a_keepalive_that_is_due_before_does_not_save_a_stalled_frame() {
    let policy = policy().with_keepalive(Span::from_millis(300)).unwrap();
    let settings = Settings::new(Codec::Line, Side::Accepting, policy);
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(b"ping\nx"));
    admit(&mut link, Time::ZERO);
    for ms in [900, 1_800, 2_650] {
        link.handle(Time::from_millis(ms), World::Received(b"x"));
        assert_eq!(verdict(&mut link), None);
    }
    let next = link.next_deadline().map(|next| (next.at.as_millis(), next.reason));
    assert_eq!(next, Some((2_950, Reason::Keepalive)));
    link.handle(Time::from_millis(3_100), Answer::Deadline);
    let mut lost = None;
    while let Some(output) = link.poll_output() {
        if let Output::Session(session::Event::Left(verdict)) = output {
            lost = Some((verdict.cause, verdict.due.as_millis()));
        }
    }
    assert_eq!(lost, Some((STALLED, 3_000)));
}

#[test]
fn a_frame_is_not_judged_by_the_time_for_which_its_peer_was_kept() {
    // The window is closed until 20 s, and then the peer takes what waits, or says something.
    let shows = |millis: u64| TcpSnapshot {
        notsent: Some(100_000),
        unacked: u32::from(millis > 20_000),
        bytes_acked: Some(millis.saturating_sub(20_000) * 50),
        send_window: Some(if millis > 20_000 { 60_000 } else { 0 }),
        ..acknowledging(0)
    };
    for says in [false, true] {
        let mut link = link(Hung::Keep(Span::from_secs(60)));
        link.handle(Time::from_millis(100), World::Received(b"hel"));
        assert_eq!(run(&mut link, 20_000, shows).hung, [(3_100, Cause::NotReading)]);
        if says {
            link.handle(Time::from_millis(20_500), World::Received(b"l"));
        }
        let woken = run(&mut link, 23_000, shows);
        assert!(woken.lost.is_none(), "{says}: {:?}", woken.lost);
        assert!(!woken.recovered.is_empty(), "{says}");
    }
}

/// What a transport holds of a record of 16,384 bytes of plaintext, of which `memory` bytes came.
fn held(memory: u32) -> World<'static> {
    World::Held { memory, length: 16_406 }
}

/// Feeds a byte of a record every `period_ms` from `from_ms` on, and every deadline at its time, up
/// to the verdict or to `until_ms`.
fn drip_sealed(
    link: &mut Link,
    record: impl Fn(u32) -> World<'static>,
    (from_ms, period_ms, until_ms): (u64, u64, u64),
) -> Option<Verdict> {
    let mut memory = 0;
    for ms in (from_ms..until_ms).step_by(period_ms as usize) {
        let now = Time::from_millis(ms);
        while let Some(next) = link.next_deadline().filter(|next| next.at <= now) {
            link.handle(next.at, Answer::Deadline);
            if let Some(verdict) = verdict(link) {
                return Some(verdict);
            }
        }
        memory += 1;
        link.handle(now, World::Heard);
        link.handle(now, record(memory));
        if let Some(verdict) = verdict(link) {
            return Some(verdict);
        }
    }
    None
}

#[test]
fn a_peer_that_drips_a_sealed_record_ends_as_one_that_drips_a_frame() {
    // Of a header only the first bytes are known, and then the length of the record.
    let header = |memory| World::Held { memory, length: 5 };
    let mut link = native(policy());
    let lost = drip_sealed(&mut link, header, (250, 90, 60_000)).unwrap();
    assert_eq!((lost.cause, lost.at.as_millis(), lost.due), (STALLED, 3_250, lost.at));
    let mut link = native(policy());
    let lost = drip_sealed(&mut link, held, (250, 90, 60_000)).unwrap();
    let limit = Span::from_millis(16_406 * 1_000 / FLOOR_PER_SECOND);
    assert_eq!((lost.cause, lost.at), (STALLED, Time::from_millis(250) + limit));
    assert_eq!(lost.at, lost.due, "exact");
}

#[test]
fn a_sealed_record_is_not_judged_after_the_end_of_the_stream_or_where_the_policy_ends_nobody() {
    let mut link = native(policy());
    link.handle(Time::from_millis(100), World::Heard);
    link.handle(Time::from_millis(100), held(1));
    link.handle(Time::from_millis(200), World::Ended);
    assert_eq!(link.peer.incomplete_frame(), None, "its rest cannot arrive");
    for policy in [policy().with_enforce(false), Policy::never()] {
        let mut link = native(policy);
        assert_eq!(drip_sealed(&mut link, held, (500, 500, 100_000)), None, "{policy}");
    }
}

#[test]
fn each_sealed_record_has_its_own_time() {
    // A ping in each record, and the front of the next record behind it.
    let mut link = native(policy());
    for step in 0..200 {
        let now = Time::from_millis(500 + step * 900);
        while link.next_deadline().is_some_and(|next| next.at <= now) {
            link.handle(now, Answer::Deadline);
        }
        link.handle(now, World::Received(b"\x10\x01"));
        link.handle(now, held(9));
        assert_eq!(verdict(&mut link), None, "in round {step}");
        assert_eq!(link.peer.incomplete_frame().map(|it| it.since), Some(now));
    }
    // A record that holds no plaintext leaves nothing behind either.
    let now = Time::from_millis(180_000);
    link.handle(now, World::Heard);
    link.handle(now, World::Held { memory: 0, length: 0 });
    assert_eq!(link.peer.incomplete_frame(), None);
}

#[test]
fn a_frame_has_one_time_however_many_sealed_records_bring_it() {
    // 100 bytes, one in a record, and each record in two parts.
    let mut link = native(policy());
    link.handle(Time::from_millis(250), World::Received(b"\x50\x64"));
    let mut lost = None;
    for ms in (340..9_000).step_by(90) {
        let now = Time::from_millis(ms);
        while let Some(next) = link.next_deadline().filter(|next| next.at <= now) {
            link.handle(next.at, Answer::Deadline);
        }
        if ms % 20 == 0 {
            link.handle(now, World::Heard);
            link.handle(now, World::Held { memory: 9, length: 23 });
        } else {
            link.handle(now, World::Received(b"x"));
        }
        lost = lost.or(verdict(&mut link));
    }
    let lost = lost.unwrap();
    assert_eq!((lost.cause, lost.due.as_millis()), (STALLED, 3_250));
}

#[test]
fn a_record_may_bring_more_than_the_rest_of_a_frame() {
    let mut link = native(policy());
    link.handle(Time::from_millis(250), World::Received(b"\x50\x02h"));
    link.handle(Time::from_millis(250), held(5));
    let incomplete = link.peer.incomplete_frame().unwrap();
    assert_eq!(incomplete.length, 3 + 16_406);
    link.handle(Time::from_millis(300), World::Received(b"i"));
    assert_eq!(link.peer.incomplete_frame(), None);
}

#[test]
fn a_sealed_record_is_not_judged_in_the_handshake_and_waits_for_the_admission() {
    let settings = Settings::new(Codec::Native, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings.clone(), 1);
    let lost = drip_sealed(&mut link, held, (0, 100, 60_000)).unwrap();
    assert_eq!((lost.cause, lost.due), (Cause::HandshakeTimeout, Time::ZERO + HANDSHAKE_TIMEOUT));
    // Behind HELLO and a whole frame, which wait, a record has begun.
    let mut link = Link::new(Time::ZERO, settings, 1);
    let mut bytes = hello();
    bytes.extend_from_slice(b"\x50\x02hi");
    link.handle(Time::from_millis(100), World::Received(&bytes));
    link.handle(Time::from_millis(100), held(9));
    assert!(link.peer.incomplete_frame().is_some_and(|it| it.memory > 9));
    admit(&mut link, Time::from_millis(200));
    let incomplete = link.peer.incomplete_frame().unwrap();
    assert_eq!((incomplete.since.as_millis(), incomplete.length), (100, 16_406));
}
