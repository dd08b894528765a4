//! Resuming: a session that outlives its link, and goes on on another one.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::handshake::Welcoming;
use super::stay::{Credentials, Right, Secret, Stay};
use super::window::Window;
use super::{Conversation, Introduced};
use crate::cause::{Cause, Verdict};
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::link::{Closing, Event, Lane, SessionKey, Settings};
use crate::plain::{plain_enum, plain_struct};
use crate::policy::Policy;
use crate::resume::{Digest, Fresh, NotResumed};
use crate::session;
use crate::time::{Span, Time};
use crate::window::Full;
use crate::wire::{self, CloseReason, DataKind, Malformed, Resume, Welcome};

/// What a session keeps of itself while it has no link, until [`Resumable::until`].
///
/// On the connecting side [`Link::resume`](crate::link::Link::resume) makes the next link of it.
/// Meanwhile the application may go on: what it sends is kept, and what it takes is noted.
#[derive(Debug)]
pub struct Resumable {
    verdict: Verdict,
    until: Time,
    policy: Policy,
    window: Window,
    /// The messages that were dropped because the window was full.
    gap: u32,
}

plain_struct! { Resumable { verdict, until, policy, window, gap } }

/// The sessions that a link resumes, or has left behind.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// The one that the link is to resume, or that it has left behind.
    resumable: Option<Box<Resumable>>,
    /// The one that it was to resume, and that is gone.
    lapsed: Option<Box<Resumable>>,
}

plain_struct! { Behind { resumable, lapsed } }

/// A peer's request to resume a session.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) key: SessionKey,
    /// The whole messages that the peer has received in the session.
    received: u64,
    /// What it shows as the token of the session.
    shown: Secret,
}

plain_struct! { Wish { key, received, shown } }

impl Wish {
    pub(super) fn of(resume: &Resume<'_>) -> Wish {
        let Resume { session, epoch, received, token } = *resume;
        Wish { key: SessionKey { session, epoch }, received, shown: Secret(token.into()) }
    }
}

/// What becomes of a peer's request to resume a session, while it waits.
#[derive(Debug, Default)]
pub(super) enum Resumption {
    #[default]
    NotAsked,
    Wished(Box<Wish>),
    Refused(NotResumed),
}

plain_enum! { Resumption {
    0 => NotAsked {}
    1 => Wished { 0: wish }
    2 => Refused { 0: why }
} }

impl Resumption {
    /// Returns what WELCOME says of a session that is a new one.
    pub(super) fn outcome(&self) -> wire::Resumption {
        match self {
            Resumption::NotAsked => wire::Resumption::NotAsked,
            Resumption::Wished(_) => wire::Resumption::Refused(NotResumed::Unknown),
            Resumption::Refused(why) => wire::Resumption::Refused(*why),
        }
    }
}

impl Resumable {
    /// Returns the verdict on the link that was lost.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns when the gateway ends the session, as far as this end can know it.
    pub fn until(&self) -> Time {
        self.until
    }

    /// Returns number and epoch of the session, on the connecting side.
    pub fn key(&self) -> Option<SessionKey> {
        match &self.window.stay.as_ref()?.right {
            Right::Shows(credentials) => Some(credentials.key),
            Right::Expects { .. } => None,
        }
    }

    /// Returns whether a message of this length may be sent now.
    pub fn has_room(&self, length: usize) -> bool {
        self.window.has_room(length)
    }

    /// Accepts a message, or a part of it, which the next link sends once it is whole.
    ///
    /// # Errors
    /// [`Full`]: nothing was changed; there is room once the session is resumed.
    pub fn send(&mut self, bytes: &[u8], more: bool) -> Result<(), Full> {
        self.window.accept(bytes, more)
    }

    /// Drops a message that finds no room; the client is told how many, when it is back.
    pub(crate) fn skip(&mut self) {
        self.gap = self.gap.saturating_add(1);
    }

    /// Notes that the application has taken the oldest message that it had not taken.
    pub fn take(&mut self, length: usize) {
        self.window.incoming.take(length);
    }

    /// Returns how many messages of the session were sent, and how many of them the peer has
    /// acknowledged. Of those between the two nobody knows whether the peer has got them, unless
    /// the session is resumed.
    pub fn progress(&self) -> (u64, u64) {
        (self.window.outgoing.sent(), self.window.outgoing.acknowledged())
    }

    /// Returns the messages that are not acknowledged, the oldest first.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &[u8]> {
        self.window.outgoing.kept().map(crate::window::Kept::bytes)
    }

    /// Returns the bytes of the messages that wait.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.window.outgoing.memory()
    }

    /// Returns whether the right to resume the session was shown.
    pub(crate) fn expects(&self, digest: &Digest) -> bool {
        self.window.stay.as_ref().is_some_and(|stay| stay.expects(digest))
    }

    /// Returns the digest of the token with which the session can be resumed.
    pub(crate) fn digest(&self) -> Option<Digest> {
        match self.window.stay.as_ref()?.right {
            Right::Expects { digest, .. } => Some(digest),
            Right::Shows(_) => None,
        }
    }

    /// Returns whether the peer can have received as many messages.
    pub(crate) fn agrees(&self, wish: &Wish) -> bool {
        let (sent, acknowledged) = self.progress();
        (acknowledged..=sent).contains(&wish.received)
    }

    /// Returns what HELLO says to resume the session.
    pub(super) fn request(&self) -> Option<Resume<'_>> {
        let Right::Shows(credentials) = &self.window.stay.as_ref()?.right else {
            return None;
        };
        let SessionKey { session, epoch } = credentials.key;
        let (received, token) = (self.window.incoming.received(), &*credentials.token.0);
        Some(Resume { session, epoch, received, token })
    }
}

impl Conversation {
    /// Returns the session without a link that this link resumes, or has left behind.
    pub(super) fn resumable(&self) -> Option<&Resumable> {
        self.aside.as_ref()?.behind.as_ref()?.resumable.as_deref()
    }

    fn behind_mut(&mut self) -> &mut Behind {
        self.aside.get_or_insert_default().behind.get_or_insert_default()
    }

    /// Takes the session that the link has left behind, or could not resume.
    pub(in crate::link) fn take_resumable(&mut self) -> Option<Box<Resumable>> {
        self.aside.as_mut()?.behind.as_mut()?.resumable.take()
    }

    /// Takes the session that the peer could not resume.
    pub(in crate::link) fn take_lapsed(&mut self) -> Option<Box<Resumable>> {
        self.aside.as_mut()?.behind.as_mut()?.lapsed.take()
    }

    /// Lets the handshake resume a session.
    pub(in crate::link) fn set_resumable(&mut self, resumable: Box<Resumable>) {
        self.behind_mut().resumable = Some(resumable);
    }

    /// Returns what the peer wishes to resume, while it waits.
    pub(in crate::link) fn wish(&self) -> Option<&Wish> {
        match &self.admission()?.resumption {
            Resumption::Wished(wish) => Some(wish),
            Resumption::NotAsked | Resumption::Refused(_) => None,
        }
    }

    /// Returns what a peer shows as the token of a session, while it waits.
    pub(in crate::link) fn shown(&self) -> &[u8] {
        self.wish().map_or(&[], |wish| &wish.shown.0)
    }

    /// Lets a peer whose session cannot be resumed wait for a new one.
    pub(in crate::link) fn refuse_resumption(&mut self, why: NotResumed, out: &mut Writer<'_>) {
        if let Some(admission) = self.admission_mut() {
            admission.resumption = Resumption::Refused(why);
            out.admit();
        }
    }

    /// Returns whether the right to resume the session of this link was shown.
    pub(in crate::link) fn expects(&self, digest: &Digest) -> bool {
        let window = self.window().filter(|_| self.is_established());
        window.and_then(|it| it.stay.as_ref()).is_some_and(|stay| stay.expects(digest))
    }

    /// Lets the session of a peer that is admitted outlive its link, if the listener does and a
    /// token is given.
    pub(super) fn open_stay(&mut self, fresh: Option<Fresh>, settings: &Settings) {
        let lasts = settings.window.map_or(Span::ZERO, |windows| windows.outlives);
        let Some(Fresh { digest, .. }) = fresh.filter(|_| lasts > Span::ZERO) else {
            return;
        };
        if let Some(window) = self.window_mut() {
            let right = Right::Expects { digest, former: None };
            window.stay = Some(Stay { lasts, right });
        }
    }

    /// Notes that the peer has sent a frame that only follows WELCOME.
    #[inline]
    pub(super) fn confirm_stay(&mut self) {
        if let Some(Window { stay: Some(stay), .. }) = self.window_mut() {
            stay.confirm();
        }
    }

    /// Returns for how long the session outlives its link, and how many messages it has received.
    pub(super) fn stay(&self) -> (Span, u64) {
        self.window().map_or((Span::ZERO, 0), |window| {
            let lasts = window.stay.as_ref().map_or(Span::ZERO, |stay| stay.lasts);
            (lasts, window.incoming.received())
        })
    }

    /// Handles WELCOME: a new session, or the one that this link resumes.
    pub(super) fn handle_welcome(
        &mut self,
        now: Time,
        welcome: &Welcome<'_>,
        key: SessionKey,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let mut event = session::Event::Joined { policy: self.policy, account: None };
        match welcome.resumption {
            wire::Resumption::Resumed { gap } => {
                let Some(resumed) = self.resume_window(welcome, key) else {
                    let _ = self.end(now, Cause::Protocol(Malformed::OutOfPlace), out);
                    return;
                };
                let redelivered = match resumed {
                    Ok(redelivered) => redelivered,
                    Err(malformed) => {
                        let _ = self.end(now, Cause::Protocol(malformed), out);
                        return;
                    }
                };
                event = session::Event::Resumed { account: None, gap, redelivered };
            }
            wire::Resumption::NotAsked => self.open_window(welcome.windows, true),
            wire::Resumption::Refused(why) => {
                if let Some(lapsed) = self.take_resumable() {
                    self.behind_mut().lapsed = Some(lapsed);
                    out.event(Event::NotResumed(why));
                }
                self.open_window(welcome.windows, true);
            }
        }
        if let Some(window) = self.window_mut() {
            let lasts = Span::from_millis(u64::from(welcome.resume_window_ms));
            let is_given = lasts > Span::ZERO && !welcome.resume_token.is_empty();
            let token = Secret(welcome.resume_token.into());
            let right = Right::Shows(Box::new(Credentials { key, token }));
            window.stay = is_given.then_some(Stay { lasts, right });
        }
        self.establish(now, key, event, context, out);
        if self.send_kept(DataKind::default(), out) {
            self.record_sent(now, Lane::Data);
        }
    }

    /// Goes on with the window of the session that this link resumes. Returns how many messages are
    /// sent again; `None` if WELCOME resumes what this link does not.
    fn resume_window(
        &mut self,
        welcome: &Welcome<'_>,
        key: SessionKey,
    ) -> Option<Result<u32, Malformed>> {
        let asked = self.resumable().and_then(Resumable::key);
        if asked != Some(key) || welcome.windows.is_none() {
            return None;
        }
        let Resumable { mut window, .. } = *self.take_resumable()?;
        window.limits = welcome.windows?;
        let again = window.resume(welcome.received);
        self.aside.get_or_insert_default().window = Some(window);
        Some(again)
    }

    /// Completes the handshake of a peer that resumes its session, which its request agrees with.
    pub(in crate::link) fn resume(
        &mut self,
        now: Time,
        (resumable, of): (Resumable, Introduced),
        (key, shown, fresh): (SessionKey, Digest, Fresh),
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Option<Vec<u8>> {
        let received = self.wish()?.received;
        let introduced = self.introduced.as_mut()?;
        let admission = *introduced.admission.take()?;
        introduced.identity = of.identity;
        let Resumable { policy, mut window, gap, .. } = resumable;
        // It has agreed before; what does not is told nothing.
        let _ = window.resume(received);
        let stay = window.stay.as_mut();
        let renew = |stay: &mut Stay| stay.renew(shown, fresh, gap);
        let (token, told) = stay.map_or((fresh.token, gap), renew);
        self.policy = policy;
        self.aside.get_or_insert_default().window = Some(window);
        let (account, outcome) = (admission.account, wire::Resumption::Resumed { gap: told });
        let welcoming = Welcoming { key, account, token: Some(token), outcome, gap };
        self.welcome(now, welcoming, context, out);
        if self.send_kept(DataKind::default(), out) {
            self.record_sent(now, Lane::Data);
        }
        Some(admission.held)
    }

    /// Ends the link of a session that goes on on another one. It gets no CLOSE: if the peer is
    /// still there, because what has come was a late copy of its HELLO, it resumes once more.
    pub(in crate::link) fn supersede(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        let verdict = self.verdict(now, Cause::Replaced);
        self.go_away(verdict, out);
        self.end_link(verdict, Closing::Abort, out)
    }

    /// Gives up the session that this link was to resume, if the peer has refused that with CLOSE.
    pub(super) fn give_up_resumption(&mut self, reason: CloseReason, out: &mut Writer<'_>) {
        let is_refused = matches!(
            reason,
            CloseReason::Unauthorized | CloseReason::Kicked | CloseReason::Replaced
        );
        if self.is_in_handshake()
            && is_refused
            && let Some(lapsed) = self.take_resumable()
        {
            self.behind_mut().lapsed = Some(lapsed);
            out.event(Event::NotResumed(NotResumed::Refused));
        }
    }

    /// Returns whether the session outlives a link that ends for this cause.
    pub(super) fn outlives(&self, cause: Cause) -> bool {
        let has_right = self.window().is_some_and(|window| window.stay.is_some());
        has_right && self.is_established() && cause.leaves_away()
    }

    /// Forgets the window of a session that ends, but not what a link was to resume.
    pub(super) fn forget_window(&mut self) {
        if self.aside.as_ref().is_some_and(|aside| aside.behind.is_none()) {
            self.aside = None;
        } else if let Some(aside) = &mut self.aside {
            aside.window = None;
        }
    }

    /// Lets the session outlive the link, which ends with this verdict.
    pub(super) fn go_away(&mut self, verdict: Verdict, out: &mut Writer<'_>) {
        let Some(aside) = &mut self.aside else {
            return;
        };
        let Some(mut window) = aside.window.take() else {
            return;
        };
        window.leave_link();
        let until = verdict.at + window.stay.as_ref().map_or(Span::ZERO, |stay| stay.lasts);
        let policy = self.policy;
        let resumable = Box::new(Resumable { verdict, until, policy, window, gap: 0 });
        self.behind_mut().resumable = Some(resumable);
        out.session(session::Event::Away { verdict, until });
    }
}
