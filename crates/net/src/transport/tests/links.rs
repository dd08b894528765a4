//! Two links over one connection, cut at every byte.

use systole_core::link::{
    Answer, Closing, Command, Event, Introduction, Limits, Output, SessionKey, Settings, Side,
    World,
};
use systole_core::wire::{CloseReason, Codec, DataKind};
use systole_core::{Link, Machine, Policy, Span, Time};

use super::*;

over_both! { two_links_meet_talk_and_part_one_byte_at_a_time }

#[cfg(feature = "tls")]
#[test]
fn two_links_meet_talk_and_part_one_byte_at_a_time_over_tls() {
    two_links_meet_talk_and_part_one_byte_at_a_time::<crate::transport::Tls>();
}

/// One end: a link, its socket, and what it reported.
struct Party<T> {
    link: Link,
    half: Half<T>,
    heard: u64,
    received: Vec<u8>,
    established: bool,
    over: bool,
}

impl<T: Tested> Party<T> {
    fn new(side: Side, transport: T) -> Party<T> {
        let settings = Settings {
            limits: Limits { shortest_bound: Span::ZERO, ..Limits::default() },
            ..Settings::new(Codec::Native, side, Policy::standard())
        };
        let link = Link::new(Time::ZERO, settings, 1);
        let mut end = Party {
            link,
            half: Socket::new(Scripted::new(), transport, ()),
            heard: 0,
            received: Vec::new(),
            established: false,
            over: false,
        };
        end.collect();
        end
    }

    fn collect(&mut self) {
        let mut is_admitted = true;
        while std::mem::take(&mut is_admitted) {
            while let Some(output) = self.link.poll_output() {
                match output {
                    Output::Transmit { bytes, lane } => {
                        self.half.queue(bytes, &[(bytes.len(), lane)], 0, 1 << 20).unwrap();
                    }
                    Output::Event(Event::Established { .. }) => self.established = true,
                    Output::Event(Event::Data { bytes, .. }) => {
                        self.received.extend_from_slice(bytes);
                    }
                    Output::Admit => is_admitted = true,
                    Output::Close(closing) => {
                        assert_eq!(closing, Closing::Flush);
                        self.over = true;
                        self.half.finish();
                    }
                    Output::Session(_)
                    | Output::Event(_)
                    | Output::Examine { .. }
                    | Output::Patience(_) => {}
                }
            }
            if is_admitted {
                let key = SessionKey { session: 1, epoch: 1 };
                self.link.handle(Time::ZERO, Answer::admitted(key));
            }
        }
    }

    fn command(&mut self, command: Command<'_>) {
        self.link.handle(Time::ZERO, World::Command(command));
        self.collect();
    }

    /// Reads everything, with a buffer of 5 bytes. Returns whether the peer has closed its side.
    fn read(&mut self, now: Time) -> bool {
        let mut buffer = [0; 5];
        loop {
            let input = match self.half.read(&mut buffer) {
                ReadOutcome::Bytes { count, .. } => World::Received(&buffer[..count]),
                ReadOutcome::Heard { .. } => {
                    self.heard += 1;
                    World::Heard
                }
                ReadOutcome::Empty => return false,
                ReadOutcome::Ended(end) => {
                    assert_eq!(end, End::Closed);
                    return true;
                }
                outcome @ (ReadOutcome::Warned(_)
                | ReadOutcome::Illegal(_)
                | ReadOutcome::Failed(_)) => panic!("{outcome:?}"),
            };
            if !self.over {
                self.link.handle(now, input);
                self.link.handle(now, self.half.transport().held().as_input());
                assert_eq!(self.link.last_heard(), now, "each byte is evidence");
                self.collect();
            }
        }
    }

    /// Carries everything to `to`, one byte after the other, each a millisecond later.
    fn carry_to(&mut self, to: &mut Party<T>, now: &mut Time) -> bool {
        let mut ended = false;
        while !self.half.is_flushed() {
            self.half.stream().accept_at_most(1);
            self.half.flush();
            let byte = self.half.stream().take_written();
            if byte.is_empty() {
                assert!(!self.half.transport().is_open(), "only a handshake is waited for");
                break;
            }
            assert_eq!(byte.len(), 1);
            to.half.stream().give(Given::Bytes(byte));
            *now = *now + Span::from_millis(1);
            ended |= to.read(*now);
        }
        ended
    }
}

fn two_links_meet_talk_and_part_one_byte_at_a_time<T: Tested>() {
    let mut now = Time::ZERO;
    let (connecting, accepting) = T::pair();
    let mut client = Party::new(Side::Connecting(Introduction::default()), connecting);
    let mut server = Party::new(Side::Accepting, accepting);
    for _ in 0..5 {
        client.carry_to(&mut server, &mut now);
        server.carry_to(&mut client, &mut now);
    }
    assert!(client.established && server.established);
    let news = message(1_000);
    let send = Command::Send { bytes: &news, more: false, kind: DataKind::default() };
    server.command(send);
    server.command(send);
    server.carry_to(&mut client, &mut now);
    assert_eq!(client.received, news.repeat(2));
    client.command(send);
    client.command(Command::close(CloseReason::Done));
    let ended = client.carry_to(&mut server, &mut now);
    assert_eq!((&server.received, server.over), (&news, true), "CLOSE is last");
    assert_eq!(ended, T::SEALED, "the transport closes behind it");
    assert_eq!(client.heard > 0, T::SEALED);
}
