//! Translation of the link machine's events into events of the application. Pieces are joined into
//! messages.

use std::collections::VecDeque;

use systole_core::cause::Verdict;
use systole_core::link::{BeatKind, Event as LinkEvent, Goodbye};
use systole_core::wire::joiner::{Joined, Joiner};
use systole_core::wire::{Codec, DataKind};
use systole_core::{Policy, Time, session};

use crate::shared::Shared;
use crate::{ConnectError, Event, Options, SessionId};

/// State of a link, as its machine last reported it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The handshake is not complete.
    Handshaking,
    /// The handshake is complete.
    Established,
    /// The link ended before its handshake was complete.
    Refused(ConnectError),
    /// The established link has ended; holds the server's CLOSE, if one arrived. Its session may be
    /// away.
    Lost(Option<Goodbye>),
}

impl Stage {
    /// Returns whether the server's CLOSE has ended the link.
    pub(crate) fn is_farewell(&self) -> bool {
        match self {
            Stage::Lost(farewell) => farewell.is_some(),
            Stage::Handshaking | Stage::Established | Stage::Refused(_) => false,
        }
    }
}

/// Maximum number of heartbeats whose answers are awaited: no more can be told apart by their
/// sequence numbers. Of more, the oldest are forgotten.
const MAX_UNANSWERED: usize = 128;

/// A heartbeat without an answer.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    sequence: u8,
    number: u8,
    sent: Time,
}

/// Translates the events of one link, and keeps what the client needs of them.
#[derive(Debug)]
pub(crate) struct EventTranslator {
    pub(crate) stage: Stage,
    /// Number of the link's session; 0 in codecs without sessions.
    pub(crate) session: u64,
    /// The verdict, after the link was lost.
    pub(crate) verdict: Option<Verdict>,
    /// Whether the session outlives the link, which has ended.
    pub(crate) is_away: bool,
    /// Whether the client would resume a session.
    resumes: bool,
    /// Epoch of the link's session.
    epoch: u64,
    /// The server's CLOSE, until the verdict that it brings.
    farewell: Option<Goodbye>,
    farewell_text: Box<str>,
    codec: Codec,
    link_number: u64,
    attempt: u32,
    /// Whether round trips are reported.
    report_round_trips: bool,
    /// The heartbeats without an answer, the oldest first.
    unanswered: VecDeque<Unanswered>,
    joiner: Joiner,
}

impl EventTranslator {
    /// Creates the translator of a link; `attempt` counts attempts to reconnect, 0 for the first
    /// link.
    pub(crate) fn new(link_number: u64, attempt: u32, options: &Options) -> EventTranslator {
        EventTranslator {
            stage: Stage::Handshaking,
            session: 0,
            verdict: None,
            is_away: false,
            resumes: options.reconnect.is_some(),
            epoch: 0,
            farewell: None,
            farewell_text: Box::default(),
            codec: options.codec,
            link_number,
            attempt,
            report_round_trips: options.report_heartbeats,
            unanswered: VecDeque::new(),
            joiner: Joiner::new(options.max_message),
        }
    }

    /// Publishes an event of the session, or what the client says instead.
    pub(crate) fn handle_session(&mut self, event: session::Event, shared: &Shared) {
        if let session::Event::Joined { policy, account: _ } = event {
            self.join(policy, shared);
        } else if let session::Event::Left(verdict) = event {
            self.lose(verdict, shared);
        } else if let session::Event::Away { verdict, until } = event {
            self.go_away(verdict, until, shared);
        } else if let session::Event::Resumed { gap, redelivered, account: _ } = event {
            self.stage = Stage::Established;
            let (session, epoch) = (SessionId(self.session), self.epoch);
            let attempt = self.attempt;
            shared.publish(Event::Resumed { session, epoch, gap, redelivered, attempt });
        } else {
            shared.publish(Event::Session(event));
        }
    }

    fn join(&mut self, policy: Policy, shared: &Shared) {
        self.stage = Stage::Established;
        let (session, epoch) = (SessionId(self.session), self.epoch);
        shared.set_link(self.link_number);
        shared.publish(match self.attempt {
            0 => Event::Connected { session, epoch, policy },
            attempt => Event::Reconnected { session, epoch, policy, attempt },
        });
    }

    fn lose(&mut self, verdict: Verdict, shared: &Shared) {
        let farewell = self.farewell.take();
        if self.stage != Stage::Established {
            self.stage = Stage::Refused({
                let text = std::mem::take(&mut self.farewell_text);
                ConnectError::Handshake { verdict, farewell, answer: Vec::new(), text, tls: None }
            });
            return;
        }
        self.stage = Stage::Lost(farewell);
        self.verdict = Some(verdict);
        shared.set_link(0);
        let silent_for = verdict.at.since(verdict.last_heard);
        let text = std::mem::take(&mut self.farewell_text);
        shared.publish(Event::Lost { verdict, farewell, text, silent_for });
    }

    /// Reports the loss of a link whose session waits for the next one. Who does not reconnect, or
    /// was told not to, has no use for it.
    fn go_away(&mut self, verdict: Verdict, until: Time, shared: &Shared) {
        let is_final = self.farewell.is_some_and(|goodbye| goodbye.stop().is_some());
        if !self.resumes || is_final {
            self.lose(verdict, shared);
            return;
        }
        let farewell = self.farewell.take();
        self.stage = Stage::Lost(farewell);
        self.verdict = Some(verdict);
        self.is_away = true;
        let silent_for = verdict.at.since(verdict.last_heard);
        let text = std::mem::take(&mut self.farewell_text);
        shared.publish(Event::Away { verdict, until, farewell, text, silent_for });
    }

    /// Translates an event that only the link knows, and publishes the result.
    pub(crate) fn handle(&mut self, now: Time, event: LinkEvent<'_>, shared: &Shared) {
        match event {
            LinkEvent::Established { session, epoch } => {
                (self.session, self.epoch) = (session, epoch);
            }
            LinkEvent::Farewell { goodbye, text } => {
                self.farewell = Some(goodbye);
                self.farewell_text = text.into();
            }
            LinkEvent::Data { bytes, more, kind: DataKind::Eleven | DataKind::TwentyOne } => {
                match self.joiner.add(bytes, more) {
                    None => {}
                    Some(Joined::Message(message)) => {
                        shared.publish(Event::Message(message.into_owned()));
                    }
                    Some(Joined::TooLong { length: len }) => {
                        shared.publish(Event::MessageTooLong { len });
                    }
                }
            }
            LinkEvent::HeartbeatData(bytes) => shared.publish(Event::HeartbeatData(bytes.to_vec())),
            LinkEvent::RoundTrip(rtt) if self.report_round_trips => {
                shared.publish(Event::RoundTrip(rtt))
            }
            LinkEvent::RoundTrip(_) | LinkEvent::Acknowledged | LinkEvent::NotResumed(_) => {}
            LinkEvent::HeartbeatSent { beat, sequence, number } => {
                if beat == BeatKind::Ping {
                    if self.unanswered.len() >= MAX_UNANSWERED {
                        self.unanswered.pop_front();
                    }
                    self.unanswered.push_back(Unanswered { sequence, number, sent: now });
                }
                shared.publish(Event::HeartbeatSent { beat, sequence, number });
            }
            LinkEvent::HeartbeatReceived { beat, sequence } => {
                if beat == BeatKind::Pong {
                    self.answered(now, sequence, shared);
                }
                shared.publish(Event::HeartbeatReceived { beat, sequence });
            }
        }
    }

    /// Reports the heartbeats that a PONG answers: in codecs with sequence numbers all up to its
    /// own, in the others the oldest.
    fn answered(&mut self, now: Time, sequence: u8, shared: &Shared) {
        let last = match self.codec {
            Codec::Native => self.unanswered.iter().position(|sent| sent.sequence == sequence),
            Codec::Message1028 | Codec::Line => Some(0).filter(|_| !self.unanswered.is_empty()),
        };
        let Some(last) = last else {
            return;
        };
        for Unanswered { sequence, number, sent } in self.unanswered.drain(..=last) {
            let rtt = now.since(sent);
            shared.publish(Event::HeartbeatAnswered { sequence, number, rtt });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &[u8], more: bool) -> LinkEvent<'_> {
        LinkEvent::Data { bytes, more, kind: DataKind::Eleven }
    }

    #[tokio::test]
    async fn pieces_become_messages_and_too_long_messages_are_reported() {
        let shared = Shared::new(Codec::Native, 100);
        let mut translator =
            EventTranslator::new(1, 0, &Options { max_message: 5, ..Options::default() });
        translator.handle(Time::ZERO, piece(b"he", true), &shared);
        translator.handle(Time::ZERO, piece(b"llo", false), &shared);
        assert_eq!(shared.next_event().await, Some(Event::Message(b"hello".to_vec())));
        for _ in 0..1_000 {
            translator.handle(Time::ZERO, piece(b"much", true), &shared);
        }
        translator.handle(Time::ZERO, piece(b"", false), &shared);
        assert_eq!(shared.next_event().await, Some(Event::MessageTooLong { len: 4_000 }));
        translator.handle(Time::ZERO, piece(b"", false), &shared);
        assert_eq!(shared.next_event().await, Some(Event::Message(Vec::new())));
    }
}
