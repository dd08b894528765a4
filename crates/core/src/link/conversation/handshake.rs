//! The handshake: HELLO and WELCOME, or the first frame in codecs without a handshake.

use alloc::boxed::Box;

use super::admission::Introducing;
use super::resume::{Resumable, Resumption, Wish};
use super::{Conversation, Introduced, Stage};
use crate::cause::Cause;
use crate::flight::Incident;
use crate::link::outbound::Writer;
use crate::link::peer::Context;
use crate::link::{Event, Lane, SessionKey, Side};
use crate::liveness;
use crate::resume::{NotResumed, Token};
use crate::session;
use crate::time::{Span, Time};
use crate::wire::line::is_http_request;
use crate::wire::{
    self, Account, Codec, Frame, Hello, MAX_IDENTITY, MAX_TOKEN, Malformed, WINDOWS, Welcome,
};

/// What WELCOME says of a session.
pub(super) struct Welcoming {
    pub(super) key: SessionKey,
    pub(super) account: Option<Account>,
    /// The token with which the session can be resumed, if it can.
    pub(super) token: Option<Token>,
    /// What became of the peer's request to resume a session.
    pub(super) outcome: wire::Resumption,
    /// The messages that were dropped since the session was resumed last.
    pub(super) gap: u32,
}

impl Conversation {
    /// Sends HELLO on the connecting side. In codecs without a handshake, the connecting side is
    /// established at once.
    pub(in crate::link) fn send_hello(
        &mut self,
        now: Time,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let settings = context.settings;
        let Side::Connecting(introduction) = &settings.side else {
            return;
        };
        if !self.codec.has_handshake() {
            let joined = session::Event::Joined { policy: self.policy, account: None };
            return self.establish(now, SessionKey::default(), joined, context, out);
        }
        let hello = Hello {
            asks: introduction.asks,
            resume: self.resumable().and_then(Resumable::request),
            account: introduction.account,
            capabilities: if settings.window.is_some() { WINDOWS } else { 0 },
            boot_id: settings.boot_id,
            instance_id: settings.instance_id,
            identity: cut(&introduction.identity, MAX_IDENTITY),
            token: introduction.token.get(..MAX_TOKEN).unwrap_or(&introduction.token),
        };
        out.transmit(self.codec, Lane::Control, &Frame::Hello(hello));
    }

    /// Handles the first frame. Only HELLO may open a conversation, and only WELCOME or CLOSE may
    /// answer it; in codecs without a handshake, any first frame completes it, except a request of
    /// HTTP: whoever checks the health of a `line` port in this way is no client.
    pub(super) fn handle_first_frame(
        &mut self,
        now: Time,
        frame: Frame<'_>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let connects = context.settings.connects();
        match frame {
            Frame::Hello(hello) if !connects => self.accept_hello(now, &hello, context, out),
            Frame::Welcome(welcome) if connects && welcome.policy.patient().is_err() => {
                let _ = self.end(now, Cause::Protocol(Malformed::Policy), out);
            }
            // A window that was not offered.
            Frame::Welcome(welcome)
                if connects && welcome.windows.is_some() && context.settings.window.is_none() =>
            {
                let _ = self.end(now, Cause::Protocol(Malformed::OutOfPlace), out);
            }
            Frame::Welcome(welcome) if connects => {
                let key = SessionKey { session: welcome.session, epoch: welcome.epoch };
                self.introduced = Some(Box::new(Introduced {
                    identity: "".into(),
                    boot_id: welcome.boot_id,
                    instance_id: welcome.instance_id,
                    admission: None,
                }));
                let largest = u16::try_from(welcome.largest_data).unwrap_or(u16::MAX);
                self.piece = self.piece.min(largest);
                self.policy = welcome.policy.with_conduct_of(&context.settings.policy);
                self.handle_welcome(now, &welcome, key, context, out);
            }
            Frame::Close(close) if connects => self.handle_close(now, close, out),
            Frame::Data { bytes, .. } if self.codec == Codec::Line && is_http_request(bytes) => {
                let _ = self.end(now, Cause::Protocol(Malformed::HttpRequest), out);
            }
            Frame::Ping(_) | Frame::Pong(_) | Frame::Data { .. } if !self.codec.has_handshake() => {
                let introducing = Introducing { first: Some(&frame), ..Introducing::default() };
                self.request_admission(now, introducing, context, out);
            }
            Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Data { .. }
            | Frame::Ack { .. }
            | Frame::Retune(_)
            | Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Close(_) => {
                let _ = self.end(now, Cause::Protocol(Malformed::OutOfPlace), out);
            }
        }
    }

    /// Grants a policy, and asks for the admission of the peer.
    fn accept_hello(
        &mut self,
        now: Time,
        hello: &Hello<'_>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let settings = context.settings;
        self.introduced = Some(Box::new(Introduced {
            identity: hello.identity.into(),
            boot_id: hello.boot_id,
            instance_id: hello.instance_id,
            admission: None,
        }));
        self.policy = settings.limits.grant(hello.asks, settings.policy);
        let window = settings.window.filter(|_| hello.capabilities & WINDOWS != 0);
        self.open_window(window.map(|window| window.limits), false);
        let resumption = match hello.resume {
            None => Resumption::NotAsked,
            // Nobody keeps sessions here that could be resumed.
            Some(_) if window.is_none_or(|window| window.outlives == Span::ZERO) => {
                Resumption::Refused(NotResumed::Unknown)
            }
            Some(resume) => Resumption::Wished(Box::new(Wish::of(&resume))),
        };
        let (account, token) = (hello.account, hello.token);
        let introducing = Introducing { account, token, resumption, first: None };
        self.request_admission(now, introducing, context, out);
    }

    /// Completes the handshake on the accepting side, with WELCOME in codecs that have it.
    pub(super) fn welcome(
        &mut self,
        now: Time,
        Welcoming { key, account, token, outcome, gap }: Welcoming,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let joined = session::Event::Joined { policy: self.policy, account };
        if !self.codec.has_handshake() {
            return self.establish(now, key, joined, context, out);
        }
        let settings = context.settings;
        let (lasts, received) = self.stay();
        let token = token.filter(|_| lasts > Span::ZERO);
        let welcome = Welcome {
            resumption: outcome,
            windows: self.window_limits(),
            boot_id: settings.boot_id,
            instance_id: settings.instance_id,
            session: key.session,
            epoch: key.epoch,
            received,
            server_time_ms: settings.wall_origin_ms.saturating_add(now.as_millis()),
            resume_window_ms: u32::try_from(lasts.as_millis()).unwrap_or(u32::MAX),
            largest_data: settings.max_data,
            policy: self.policy,
            resume_token: token.as_ref().map_or(&[], |token| &token.0),
        };
        out.transmit(self.codec, Lane::Control, &Frame::Welcome(welcome));
        let event = match outcome {
            wire::Resumption::Resumed { .. } => {
                session::Event::Resumed { account, gap, redelivered: self.waiting() }
            }
            wire::Resumption::NotAsked | wire::Resumption::Refused(_) => joined,
        };
        self.establish(now, key, event, context, out);
        self.record_sent(now, Lane::Control);
    }

    /// Completes the handshake.
    pub(super) fn establish(
        &mut self,
        now: Time,
        key: SessionKey,
        event: session::Event,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        self.stage = Stage::Established;
        self.flight.record(now, Incident::Introduced);
        let seed = context.random.next_u32();
        self.feed_liveness(now, liveness::Input::Introduced { seed }, out);
        let SessionKey { session, epoch } = key;
        out.event(Event::Established { session, epoch });
        out.session(event);
        self.update_patience(out);
        self.ask_first_figure(context, out);
    }
}

/// Returns the longest prefix of `text` that is at most `longest` bytes of whole characters.
fn cut(text: &str, longest: usize) -> &str {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
