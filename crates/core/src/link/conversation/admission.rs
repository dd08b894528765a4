//! Admission: between the peer's part of the handshake and the answer to it, someone else decides
//! whether the peer gets a session.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::handshake::Welcoming;
use super::resume::Resumption;
use super::stay::Secret;
use super::{Conversation, Stage};
use crate::cause::{Cause, Verdict};
use crate::denial::{Denial, Denied};
use crate::hub::Proof;
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::link::{Goodbye, Lane, SessionKey};
use crate::machine::{Deadline, Reason};
use crate::name::Name;
use crate::plain::plain_struct;
use crate::resume::Fresh;
use crate::time::{Span, Time};
use crate::wire::{Account, CloseReason, Frame, MAX_DATA, MAX_TOKEN, Malformed, is_identity};

/// The maximum number of bytes that wait for the admission of their link: the longest first frame,
/// one read of a loop, and what a transport had opened before. Without further reads there are
/// never more.
const HELD: usize = 2 * MAX_DATA;

/// The time after which a peer may come back that was not admitted in time: whatever decides is
/// slow, and must get through its queue first.
const RETURN_AFTER: Span = Span::from_secs(5);

/// What a peer's part of the handshake holds.
#[derive(Default)]
pub(super) struct Introducing<'a> {
    pub(super) account: Option<Account>,
    pub(super) token: &'a [u8],
    pub(super) resumption: Resumption,
    /// In codecs without a handshake, the first frame.
    pub(super) first: Option<&'a Frame<'a>>,
}

/// What waits while a peer waits for its session.
#[derive(Debug)]
pub(super) struct Admission {
    /// The time by which the answer must be there.
    until: Time,
    /// The account in the peer's HELLO.
    pub(super) account: Option<Account>,
    /// The bytes to handle after the answer.
    pub(super) held: Vec<u8>,
    /// The token of the peer, until its login is answered.
    token: Secret,
    /// Once it is known who the peer is: when its part of the handshake was complete.
    login: Option<Span>,
    /// The time until which an older session of the same identity may answer.
    contested: Option<Time>,
    /// What became of the peer's wish to resume a session.
    pub(super) resumption: Resumption,
}

plain_struct! { Admission {
    until,
    account,
    held,
    token,
    login,
    contested,
    resumption
} if Admission::is_legal }

impl Admission {
    fn is_legal(&self) -> bool {
        self.held.len() <= HELD && self.token.0.len() <= MAX_TOKEN
    }

    pub(super) fn deadline(&self) -> Deadline {
        let at = self.contested.map_or(self.until, |contested| contested.min(self.until));
        Deadline::exact(at, Reason::Admission)
    }
}

impl Conversation {
    /// Asks for the admission of a peer whose part of the handshake is complete. In codecs without
    /// a handshake, its `first` frame is handled after the answer. Whoever owns the sessions looks
    /// at a wish to resume one first.
    pub(super) fn request_admission(
        &mut self,
        now: Time,
        Introducing { account, token, resumption, first }: Introducing<'_>,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let until = now + context.settings.handshake_timeout;
        let mut held = Vec::new();
        if let Some(first) = first {
            self.codec.encode(first, &mut held);
        }
        self.stage = Stage::Admission;
        let asks = !matches!(resumption, Resumption::Wished(_));
        self.introduced.get_or_insert_default().admission = Some(Box::new(Admission {
            until,
            account,
            held,
            token: Secret(token.into()),
            login: None,
            contested: None,
            resumption,
        }));
        if asks {
            out.admit();
        }
    }

    /// Returns what waits while the peer waits for its session.
    pub(super) fn admission(&self) -> Option<&Admission> {
        // The stage first: what a peer has sent of itself lies elsewhere in memory.
        if !self.awaits_admission() {
            return None;
        }
        self.introduced.as_ref()?.admission.as_deref()
    }

    pub(in crate::link) fn awaits_admission(&self) -> bool {
        self.stage == Stage::Admission
    }

    pub(super) fn admission_mut(&mut self) -> Option<&mut Admission> {
        self.introduced.as_mut()?.admission.as_deref_mut()
    }

    /// Returns when the part of the handshake of a peer was complete that waits, and of which it is
    /// known who it is.
    pub(in crate::link) fn login(&self) -> Option<Span> {
        self.admission()?.login
    }

    /// Notes that it is known who the peer is.
    pub(in crate::link) fn log_in(&mut self, heard_at: Span) {
        if let Some(admission) = self.admission_mut() {
            admission.login = Some(heard_at);
        }
    }

    /// Lets a peer wait until an older session of its identity has answered, or has not answered
    /// in this time; `None` ends the wait.
    pub(in crate::link) fn contest(&mut self, until: Option<Time>) {
        if let Some(admission) = self.admission_mut() {
            admission.contested = until;
        }
    }

    /// Returns whether the peer waits for an older session to answer.
    pub(in crate::link) fn is_contesting(&self) -> bool {
        self.admission().is_some_and(|admission| admission.contested.is_some())
    }

    /// Returns whether the older session should have answered by now.
    pub(in crate::link) fn is_contest_over(&self, now: Time) -> bool {
        let contested = self.admission().and_then(|admission| admission.contested);
        contested.is_some_and(|until| now >= until)
    }

    /// Keeps bytes of a peer that waits until it is admitted.
    pub(in crate::link) fn hold(
        &mut self,
        now: Time,
        bytes: &[u8],
        out: &mut Writer<'_>,
    ) -> Effect {
        let introduced = self.introduced.as_mut();
        let Some(admission) = introduced.and_then(|known| known.admission.as_mut()) else {
            return Effect::None;
        };
        if bytes.len() > HELD.saturating_sub(admission.held.len()) {
            return self.end(now, Cause::Protocol(Malformed::OutOfPlace), out);
        }
        admission.held.extend_from_slice(bytes);
        Effect::None
    }

    /// Returns the token of a peer that waits until it is identified.
    pub(in crate::link) fn token(&self) -> &[u8] {
        self.admission().map_or(&[], |admission| &admission.token.0)
    }

    /// Gives a peer that waits the identity that it has, and forgets its token. Sends the peer away
    /// if it claims another identity than it has proved, or if what it has proved is no identity.
    pub(in crate::link) fn identify(
        &mut self,
        now: Time,
        proof: Proof<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        let Some(introduced) = self.introduced.as_mut() else {
            return Effect::None;
        };
        let Some(admission) = introduced.admission.as_mut() else {
            return Effect::None;
        };
        admission.token = Secret::default();
        let proved = match proof {
            Proof::Claim => return Effect::None,
            Proof::Anonymous => {
                introduced.identity = Name::default();
                return Effect::None;
            }
            Proof::Proved(proved) => proved,
        };
        let malformed = if !is_identity(proved) {
            Malformed::Subject
        } else if introduced.identity.is_empty() {
            introduced.identity = proved.into();
            return Effect::None;
        } else if *introduced.identity == *proved {
            return Effect::None;
        } else {
            Malformed::Claim
        };
        self.end_by_malformed(now, malformed, out)
    }

    /// Completes the handshake with this session. Returns the bytes that waited for it; `None` if
    /// the peer does not wait.
    pub(in crate::link) fn admit(
        &mut self,
        now: Time,
        (key, fresh): (SessionKey, Option<Fresh>),
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Option<Vec<u8>> {
        let introduced = self.introduced.as_mut()?;
        let Admission { account, held, resumption, .. } = *introduced.admission.take()?;
        if !self.codec.has_handshake() && introduced.identity.is_empty() {
            self.introduced = None;
        }
        self.open_stay(fresh, context.settings);
        let outcome = resumption.outcome();
        let token = fresh.map(|fresh| fresh.token);
        self.welcome(now, Welcoming { key, account, token, outcome, gap: 0 }, context, out);
        Some(held)
    }

    /// Sends the peer away, if it waits for its admission.
    pub(in crate::link) fn refuse(
        &mut self,
        now: Time,
        denied: Denied,
        out: &mut Writer<'_>,
    ) -> Effect {
        if !self.awaits_admission() {
            return Effect::None;
        }
        let Denied { goodbye, why } = denied;
        match why {
            None => self.command_close(now, goodbye, "", out),
            Some(denial) => {
                let is_crowded = denial == Denial::Crowded;
                let lane = if is_crowded { Lane::Control } else { Lane::Last };
                self.send_close(now, goodbye, lane, out);
                self.end(now, Cause::Refused(denial), out)
            }
        }
    }

    /// Ends a conversation that is not established, in favour of another one. It takes no leave:
    /// that would hold its place.
    pub(in crate::link) fn end_by_crowd(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        match self.stage {
            Stage::Handshake | Stage::Admission => {
                let goodbye = Goodbye { return_after: RETURN_AFTER, ..CloseReason::Full.into() };
                self.send_close(now, goodbye, Lane::Control, out);
                self.end(now, Cause::Refused(Denial::Crowded), out)
            }
            Stage::Established | Stage::HalfClosed | Stage::Over => Effect::None,
        }
    }

    /// Ends the conversation if nobody has answered in time. The peer is not at fault.
    pub(super) fn expire_admission(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        let Some(until) = self.admission().map(|admission| admission.until) else {
            return Effect::None;
        };
        if now < until {
            return Effect::Rearm;
        }
        let goodbye = Goodbye { return_after: RETURN_AFTER, ..CloseReason::Full.into() };
        self.send_close(now, goodbye, Lane::Control, out);
        let verdict = Verdict { due: until, ..self.verdict(now, Cause::LocalFault) };
        self.end_with(verdict, out)
    }
}
