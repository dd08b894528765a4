//! What one link's machine tells, made into the application's events: pieces into messages, and the
//! state of the link into what may be sent.

use systole_core::cause::Verdict;
use systole_core::link::{Event as Told, Goodbye};
use systole_core::wire::DataKind;

use crate::shared::Shared;
use crate::{ConnectError, Event, Options};

/// How far a link has come, as far as its machine has told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The handshake is not complete.
    Greeting,
    /// The link stands.
    Established,
    /// It never stood.
    Refused(ConnectError),
    /// It stood, and is over.
    Lost(Option<Goodbye>),
}

/// Listens to the machine of one link.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) stage: Stage,
    /// The session that the link carries; 0 in codecs without one.
    pub(crate) session: u64,
    /// The verdict, once the link was lost.
    pub(crate) verdict: Option<Verdict>,
    number: u64,
    attempt: u32,
    max_message: usize,
    /// Whether round trips are told.
    rtt: bool,
    /// The beginning of a message whose end has not arrived; empty if that is too long to keep.
    partial: Vec<u8>,
    /// How long that beginning is.
    partial_len: u64,
}

impl News {
    /// For the link of that number, made at that attempt to reconnect; 0 for the first link.
    pub(crate) fn new(number: u64, attempt: u32, options: &Options) -> News {
        News {
            stage: Stage::Greeting,
            session: 0,
            verdict: None,
            number,
            attempt,
            max_message: options.max_message,
            rtt: options.report_heartbeats,
            partial: Vec::new(),
            partial_len: 0,
        }
    }

    pub(crate) fn hear(&mut self, told: Told<'_>, shared: &Shared) {
        match told {
            Told::Established { session, epoch, policy, account: _ } => {
                self.stage = Stage::Established;
                self.session = session;
                shared.stand(self.number);
                shared.tell(match self.attempt {
                    0 => Event::Connected { session, epoch, policy },
                    attempt => Event::Reconnected { session, epoch, policy, attempt },
                });
            }
            Told::Data { bytes, more, kind: DataKind::Eleven | DataKind::TwentyOne } => {
                self.piece(bytes, more, shared);
            }
            Told::Lost { verdict, farewell } if self.stage == Stage::Established => {
                self.stage = Stage::Lost(farewell);
                self.verdict = Some(verdict);
                shared.stand(0);
                let silent_for = verdict.at.since(verdict.last_heard);
                shared.tell(Event::Lost { verdict, farewell, silent_for });
            }
            Told::Lost { verdict, farewell } => {
                self.stage = Stage::Refused(ConnectError::Handshake { verdict, farewell });
            }
            Told::Suspect => shared.tell(Event::Suspect),
            Told::Warned { cause, confidence, grounds } => {
                shared.tell(Event::Warned { cause, confidence, grounds });
            }
            Told::Recovered => shared.tell(Event::Recovered),
            Told::Overdue { due: _ } => shared.tell(Event::Overdue),
            Told::Hung { cause, until: _ } => shared.tell(Event::Hung(cause)),
            Told::HeartbeatData(bytes) => shared.tell(Event::HeartbeatData(bytes.to_vec())),
            Told::Retuned(policy) => shared.tell(Event::Retuned(policy)),
            Told::RoundTrip(rtt) if self.rtt => shared.tell(Event::RoundTrip(rtt)),
            Told::RoundTrip(_) => {}
            Told::HeartbeatSent { beat, sequence, number } => {
                shared.tell(Event::HeartbeatSent { beat, sequence, number });
            }
            Told::HeartbeatReceived { beat, sequence } => {
                shared.tell(Event::HeartbeatReceived { beat, sequence });
            }
        }
    }

    /// Joins pieces. Of a message that grows too long only the length is kept.
    fn piece(&mut self, bytes: &[u8], more: bool, shared: &Shared) {
        self.partial_len += bytes.len() as u64;
        let len = self.partial_len;
        let fits = len <= self.max_message as u64;
        if fits {
            self.partial.extend_from_slice(bytes);
        } else {
            self.partial = Vec::new();
        }
        if more {
            return;
        }
        self.partial_len = 0;
        let message = std::mem::take(&mut self.partial);
        shared.tell(if fits { Event::Message(message) } else { Event::MessageTooLong { len } });
    }
}

#[cfg(test)]
mod tests {
    use systole_core::wire::Codec;

    use super::*;

    fn piece(bytes: &[u8], more: bool) -> Told<'_> {
        Told::Data { bytes, more, kind: DataKind::Eleven }
    }

    #[tokio::test]
    async fn pieces_become_messages_and_what_is_too_long_is_told() {
        let shared = Shared::new(Codec::Native, 100);
        let mut news = News::new(1, 0, &Options { max_message: 5, ..Options::default() });
        news.hear(piece(b"he", true), &shared);
        news.hear(piece(b"llo", false), &shared);
        assert_eq!(shared.next_event().await, Some(Event::Message(b"hello".to_vec())));
        for _ in 0..1_000 {
            news.hear(piece(b"much", true), &shared);
            assert!(news.partial.capacity() <= 16);
        }
        news.hear(piece(b"", false), &shared);
        assert_eq!(shared.next_event().await, Some(Event::MessageTooLong { len: 4_000 }));
        news.hear(piece(b"", false), &shared);
        assert_eq!(shared.next_event().await, Some(Event::Message(Vec::new())));
    }
}
