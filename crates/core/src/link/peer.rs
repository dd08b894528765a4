//! The compact part of a link, of which a gateway holds one per connection.

mod conversation;

use super::outbound::Pen;
use super::{Event, Input, SessionKey, Settings, Side};
use crate::flight::Flight;
use crate::liveness::{self, Deadline, Evidence, Liveness, Role};
use crate::policy::Policy;
use crate::random::Random;
use crate::time::Time;
use crate::wire::decoder::Decoder;
use conversation::Conversation;
pub use conversation::HALF_CLOSED;
pub(crate) use conversation::Introduced;

/// What every peer of one listener shares, lent to it for one input.
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) random: &'a mut Random,
}

/// What the owner of the deadlines must do after an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Effect {
    /// Nothing: the next deadline has at most moved later.
    None,
    /// Ask for the next deadline: it may have moved earlier.
    Rearm,
    /// Forget the peer: the link has ended.
    Ended,
}

/// One end's knowledge of the other.
#[derive(Debug)]
pub(crate) struct Peer {
    decoder: Decoder,
    conversation: Conversation,
}

impl Peer {
    pub(crate) fn open(
        now: Time,
        session: SessionKey,
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) -> Peer {
        let settings = context.settings;
        let mut conversation = Conversation::open(now, settings, session);
        conversation.greet(now, context, out);
        Peer { decoder: Decoder::new(settings.codec, settings.max_data), conversation }
    }

    #[inline]
    pub(crate) fn handle(
        &mut self,
        now: Time,
        input: Input<'_>,
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        if self.conversation.is_over() {
            return Effect::Ended;
        }
        if !matches!(input, Input::Examined(_))
            && let Some(effect) = self.conversation.forfeit_examination(now, out)
        {
            return effect;
        }
        match input {
            Input::Received(bytes) => self.receive(now, bytes, context, out),
            Input::Ended => self.conversation.end_of_stream(now, context, out),
            Input::Warned(error) => self.conversation.warned(now, error, context, out),
            Input::Failed(error) => self.conversation.fail(now, error, context, out),
            Input::Examined(examination) => {
                self.conversation.examined(now, &examination, context, out)
            }
            Input::Overflowed => self.conversation.overflow(now, out),
            Input::Deadline => self.conversation.expire(now, context, out),
            Input::Command(command) => self.conversation.command(now, command, context, out),
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Deadline> {
        self.conversation.liveness.next_deadline(self.policy())
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.conversation.policy
    }

    pub(crate) fn piece(&self) -> usize {
        self.conversation.piece()
    }

    pub(crate) fn liveness(&self) -> &Liveness {
        &self.conversation.liveness
    }

    pub(crate) fn flight(&self) -> &Flight {
        &self.conversation.flight
    }

    pub(crate) fn introduced(&self) -> Option<&Introduced> {
        self.conversation.introduced.as_deref()
    }

    pub(crate) fn is_established(&self) -> bool {
        self.conversation.is_established()
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.conversation.is_established() && self.conversation.liveness.is_suspect()
    }

    pub(crate) fn session(&self) -> SessionKey {
        self.conversation.session
    }

    #[inline]
    fn receive(
        &mut self,
        now: Time,
        mut bytes: &[u8],
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        let was_settled =
            self.conversation.is_established() && !self.conversation.liveness.is_in_doubt();
        let rtt = self.conversation.liveness.smoothed_rtt();
        let read = bytes.len();
        self.conversation.hear(now, Evidence::Bytes, out);
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(frame)) => self.conversation.frame(now, frame, context, out),
                Err(malformed) => {
                    self.conversation.flight.heard(now, read);
                    return self.conversation.refuse(now, malformed, out);
                }
            }
            if self.conversation.is_over() {
                return Effect::Ended;
            }
        }
        // After the frames: what they are is told rather than their bytes.
        self.conversation.flight.heard(now, read);
        self.conversation.answer(now, context, out);
        // A watcher's patience shrinks with the round trip, while a hold may stay as it is.
        let hurries =
            context.settings.role == Role::Watch && self.conversation.liveness.smoothed_rtt() < rtt;
        if self.conversation.take_retuned() || !was_settled || hurries {
            Effect::Rearm
        } else {
            Effect::None
        }
    }
}

/// What the liveness machine tells that needs no answer of ours.
fn told(output: liveness::Output) -> Option<Event<'static>> {
    match output {
        liveness::Output::RoundTrip(rtt) => Some(Event::RoundTrip(rtt)),
        liveness::Output::Suspect => Some(Event::Suspect),
        liveness::Output::Recovered => Some(Event::Recovered),
        liveness::Output::Overdue(silence) => Some(Event::Overdue { due: silence.due }),
        liveness::Output::Probe { .. }
        | liveness::Output::Keepalive { .. }
        | liveness::Output::Confirm { .. }
        | liveness::Output::Examine
        | liveness::Output::Dead(_) => None,
    }
}

/// Whether this end speaks first.
fn connects(settings: &Settings) -> bool {
    match settings.side {
        Side::Connecting(_) => true,
        Side::Accepting => false,
    }
}
