//! Examinations because of outstanding bytes, and the warning of a peer that is heard and does not
//! read.

use crate::session;
use alloc::vec::Vec;

use super::*;
use crate::cause::Confidence;
use crate::kernel::{Patience, SendState};

/// A bound of 75 s, so that no probe is out in the first minute.
fn patient() -> Policy {
    let policy = Policy::new(Span::from_secs(60), Span::from_secs(5), 3).unwrap();
    policy.with_spread(false)
}

/// The socket of a peer that has acknowledged all bytes.
const CLEAR: TcpSnapshot = TcpSnapshot {
    unacked: 0,
    sacked: 0,
    segment: 1_448,
    notsent: Some(0),
    retransmits: 0,
    backoff: 0,
    probes: 0,
    last_ack: Span::ZERO,
    last_sent: Span::from_secs(60),
    rtt: Span::ZERO,
    rttvar: Span::ZERO,
    timestamps: true,
    total_retrans: 0,
    bytes_acked: Some(0),
    bytes_sent: None,
    bytes_retrans: None,
    bytes_received: None,
    send_window: Some(60_000),
    window_limited: None,
    gap: None,
};

/// The socket of a peer that reads nothing while 250 KB wait for it.
const CLOSED: TcpSnapshot =
    TcpSnapshot { notsent: Some(250_000), send_window: Some(0), backoff: 3, ..CLEAR };

/// The socket after bytes were lost.
const LOST: TcpSnapshot = TcpSnapshot { unacked: 1, retransmits: 4, backoff: 4, ..CLEAR };

/// The outputs of a link, each with its time in milliseconds.
#[derive(Debug, Default)]
struct Outputs {
    examined: Vec<u64>,
    patience: Vec<(u64, SendState)>,
    warned: Vec<(u64, Cause)>,
    lost: Vec<(u64, Cause)>,
}

/// Runs an accepting link that receives what `hears` returns for each second, sends what `sends`
/// returns, and whose socket shows `shows`.
fn play(
    codec: Codec,
    policy: Policy,
    until: u64,
    hears: impl Fn(u64) -> &'static [u8],
    sends: impl Fn(u64) -> &'static [u8],
    shows: impl Fn(u64) -> TcpSnapshot,
) -> Outputs {
    let settings = Settings { examines: true, ..Settings::new(codec, Side::Accepting, policy) };
    let mut link = Link::new(Time::ZERO, settings, 1);
    let mut outputs = Outputs::default();
    let mut steps = Steps::default();
    for second in 0..=until {
        let millis = second * 1_000;
        let now = Time::from_millis(millis);
        while let Some(next) = link.next_deadline().filter(|next| next.at < now) {
            steps.count(next.at);
            link.handle(next.at, Answer::Deadline);
            note(&mut link, next.at, &shows, &mut outputs);
        }
        if !hears(second).is_empty() {
            link.handle(now, World::Received(hears(second)));
            admit(&mut link, now);
            note(&mut link, now, &shows, &mut outputs);
        }
        if !sends(second).is_empty() {
            let (bytes, kind) = (sends(second), DataKind::default());
            link.handle(now, World::Command(Command::Send { bytes, more: false, kind }));
            note(&mut link, now, &shows, &mut outputs);
        }
    }
    outputs
}

fn note(link: &mut Link, now: Time, shows: &impl Fn(u64) -> TcpSnapshot, outputs: &mut Outputs) {
    let millis = now.as_millis();
    while let Some(output) = link.poll_output() {
        match output {
            Output::Examine { .. } if millis == 0 => {
                // The look at the admission: what was sent is on its way.
                let tcp = Some(TcpSnapshot { unacked: 1, ..CLEAR });
                link.handle(now, Answer::Examined(Examination { tcp, ..Examination::default() }));
            }
            Output::Examine { .. } => {
                outputs.examined.push(millis);
                let tcp = Some(shows(millis));
                link.handle(now, Answer::Examined(Examination { tcp, ..Examination::default() }));
            }
            Output::Patience(patience) => outputs.patience.push((millis, patience.send())),
            Output::Session(session::Event::Warned { cause, confidence, .. }) => {
                assert_eq!(confidence, Confidence::High);
                outputs.warned.push((millis, cause));
            }
            Output::Session(session::Event::Left(verdict)) => {
                outputs.lost.push((millis, verdict.cause))
            }
            Output::Session(session::Event::Suspect) => panic!("suspect at {millis}"),
            Output::Admit
            | Output::Session(_)
            | Output::Event(_)
            | Output::Transmit { .. }
            | Output::Close(_) => {}
        }
    }
}

const NOTHING: &[u8] = b"";

fn once(at: u64, bytes: &'static [u8]) -> impl Fn(u64) -> &'static [u8] {
    move |second| if second == at { bytes } else { NOTHING }
}

#[test]
fn a_reply_sent_at_the_time_of_its_request_is_examined_in_time() {
    let outputs = play(Codec::Line, patient(), 40, once(0, b"what?\n"), once(0, b"that"), |_| LOST);
    let sooner: Vec<u64> = (8_000..40_000).step_by(4_000).collect();
    assert_eq!(outputs.examined, sooner, "until it is acknowledged");
    let late = TcpSnapshot { retransmits: 0, ..LOST };
    let outputs = play(Codec::Line, patient(), 40, once(0, b"what?\n"), once(0, b"that"), |_| late);
    assert_eq!(outputs.examined, [8_000, 16_000, 24_000, 32_000], "not retransmitted");
    let outputs = play(Codec::Line, patient(), 40, once(0, b"ping\n"), |_| NOTHING, |_| LOST);
    assert_eq!(outputs.examined, sooner, "a PONG is outstanding too");
    let outputs = play(Codec::Line, patient(), 40, once(0, b"ping\n"), |_| NOTHING, |_| CLEAR);
    assert_eq!(outputs.examined, [8_000], "none after all is acknowledged");
    assert!(outputs.patience.is_empty() && outputs.warned.is_empty() && outputs.lost.is_empty());
    let outputs = play(Codec::Line, patient(), 40, once(0, b"hello\n"), |_| NOTHING, |_| CLEAR);
    assert_eq!(outputs.examined, [0; 0], "nothing was sent");
}

#[test]
fn a_peer_that_sends_and_does_not_read_causes_examinations_and_a_warning_but_no_verdict() {
    for (codec, policy) in [(Codec::Line, patient()), (Codec::Line, Policy::standard())] {
        let shows = |millis| if millis < 100_000 { CLOSED } else { CLEAR };
        let outputs = play(codec, policy, 120, |_| b"ping\n", once(0, b"much"), shows);
        assert_eq!(outputs.examined[..3], [8_000, 16_000, 24_000], "evidence delays none");
        assert!(
            outputs.examined.windows(2).all(|pair| pair[1] - pair[0] == 8_000 || pair[0] > 100_000)
        );
        let expected = [(8_000, SendState::Closed), (104_000, SendState::Sending)];
        assert_eq!(outputs.patience, expected);
        assert_eq!(
            outputs.warned,
            [(16_000, Cause::NotReading)],
            "at the second examination, and once"
        );
        assert!(outputs.lost.is_empty());
    }
}

#[test]
fn a_window_that_is_closed_at_a_single_examination_causes_no_warning() {
    let shows = |millis: u64| if millis.is_multiple_of(16_000) { CLOSED } else { LOST };
    let outputs = play(Codec::Line, patient(), 120, |_| b"ping\n", once(0, b"much"), shows);
    assert_eq!(outputs.warned, []);
    let shows = |_| TcpSnapshot { notsent: Some(0), ..CLOSED };
    let outputs = play(Codec::Line, patient(), 120, |_| b"ping\n", once(0, b"much"), shows);
    assert_eq!(outputs.warned, [], "no bytes wait");
}

#[test]
fn bytes_that_the_shell_holds_are_outstanding() {
    let settings =
        Settings { examines: true, ..Settings::new(Codec::Line, Side::Accepting, patient()) };
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(b"ping\n"));
    admit(&mut link, Time::ZERO);
    for (queued, next) in [(true, 16_000), (false, 60_000)] {
        let now = link.next_deadline().unwrap().at;
        link.handle(now, Answer::Deadline);
        let tcp = Some(CLEAR);
        let examination = Examination { tcp, queued, ..Examination::default() };
        link.handle(now, Answer::Examined(examination));
        assert_eq!(link.next_deadline().unwrap().at, Time::from_millis(next));
    }
}

/// The answers to probes show that the probes arrived: an idle link is never examined.
#[test]
fn a_link_of_which_only_pings_were_answered_is_not_examined() {
    let policy = Policy::new(Span::from_millis(9_900), Span::from_secs(3), 3).unwrap();
    let hears = |second| if second % 10 == 0 { &b"pong\n"[..] } else { NOTHING };
    let outputs = play(Codec::Line, policy.with_spread(false), 110, hears, |_| NOTHING, |_| CLEAR);
    assert_eq!(outputs.examined, [0; 0]);
}

#[test]
fn a_peer_under_an_unenforced_bound_is_examined_while_bytes_wait_for_it() {
    let observed = policy().with_enforce(false);
    let settings =
        Settings { examines: true, ..Settings::new(Codec::Line, Side::Accepting, observed) };
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(b"ping\n"));
    admit(&mut link, Time::ZERO);
    while link.poll_output().is_some() {}
    let mut closed = Vec::new();
    for _ in 0..20 {
        let Some(next) = link.next_deadline() else { break };
        link.handle(next.at, Answer::Deadline);
        while let Some(output) = link.poll_output() {
            match output {
                Output::Examine { .. } => {
                    let stranded = TcpSnapshot { notsent: Some(5), probes: 3, backoff: 3, ..CLEAR };
                    let tcp = Some(stranded);
                    let examination = Examination { tcp, ..Examination::default() };
                    link.handle(next.at, Answer::Examined(examination));
                }
                Output::Patience(patience) => closed.push((next.at.as_millis(), patience)),
                Output::Admit
                | Output::Session(_)
                | Output::Event(_)
                | Output::Transmit { .. }
                | Output::Close(_) => {}
            }
        }
    }
    assert_eq!(closed, [(1_500, Patience::new(None, SendState::Stranded))]);
    assert!(link.next_deadline().is_some(), "examinations continue after the bound");
}
