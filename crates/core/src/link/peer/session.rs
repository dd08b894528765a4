//! What decides about the session of a peer: who it is, whose turn it is, and what it resumes.

use alloc::boxed::Box;

use super::{Context, Effect, Peer};
use crate::hub::Proof;
use crate::link::SessionKey;
use crate::link::conversation::{Introduced, Resumable, Wish};
use crate::link::outbound::Writer;
use crate::resume::{Digest, Fresh, NotResumed};
use crate::time::{Span, Time};

impl Peer {
    /// Gives a peer that waits for its admission the identity that it has, and forgets its token.
    pub(crate) fn identify(&mut self, now: Time, proof: Proof<'_>, out: &mut Writer<'_>) -> Effect {
        self.conversation.identify(now, proof, out)
    }

    /// Returns the token of a peer that waits until it is identified.
    pub(crate) fn token(&self) -> &[u8] {
        self.conversation.token()
    }

    /// Notes when the part of the handshake of a peer was complete of which it is known who it is.
    pub(crate) fn log_in(&mut self, heard_at: Span) {
        self.conversation.log_in(heard_at);
    }

    /// Returns what [`Peer::log_in`] has noted of a peer that waits for its admission.
    pub(crate) fn login(&self) -> Option<Span> {
        self.conversation.login()
    }

    /// Lets a peer that waits for its admission wait until this time for an older session to
    /// answer; `None` ends the wait.
    pub(crate) fn contest(&mut self, until: Option<Time>) -> Effect {
        self.conversation.contest(until);
        Effect::Rearm
    }

    /// Returns what the peer wishes to resume, while it waits.
    pub(crate) fn wish(&self) -> Option<&Wish> {
        self.conversation.wish()
    }

    /// Returns what the peer shows as the token of a session, while it waits.
    pub(crate) fn shown(&self) -> &[u8] {
        self.conversation.shown()
    }

    /// Lets a peer whose session cannot be resumed wait for a new one.
    pub(crate) fn refuse_resumption(&mut self, why: NotResumed, out: &mut Writer<'_>) -> Effect {
        self.conversation.refuse_resumption(why, out);
        Effect::None
    }

    /// Completes the handshake of a peer that resumes its session.
    pub(crate) fn resume(
        &mut self,
        now: Time,
        session: (Resumable, Introduced),
        (key, shown, fresh): (SessionKey, Digest, Fresh),
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        let held = self.conversation.resume(now, session, (key, shown, fresh), context, out);
        self.handle_held(now, held, context, out)
    }

    /// Lets the link resume this session with its handshake.
    pub(in crate::link) fn set_resumable(&mut self, resumable: Box<Resumable>) {
        self.conversation.set_resumable(resumable);
    }

    /// Takes the session that the link has left behind, or could not resume.
    pub(crate) fn take_resumable(&mut self) -> Option<Box<Resumable>> {
        self.conversation.take_resumable()
    }

    /// Takes the session that the peer could not resume.
    pub(in crate::link) fn take_lapsed(&mut self) -> Option<Box<Resumable>> {
        self.conversation.take_lapsed()
    }

    /// Returns whether the right to resume the session of this link was shown.
    pub(crate) fn expects(&self, digest: &Digest) -> bool {
        self.conversation.expects(digest)
    }

    /// Ends the link of a session that goes on on another one.
    pub(crate) fn supersede(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        self.conversation.supersede(now, out)
    }

    /// Returns whether the peer waits for an older session to answer.
    pub(crate) fn is_contesting(&self) -> bool {
        self.conversation.is_contesting()
    }

    /// Returns whether the older session should have answered by now.
    pub(crate) fn is_contest_over(&self, now: Time) -> bool {
        self.conversation.is_contest_over(now)
    }
}
