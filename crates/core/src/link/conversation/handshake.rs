//! The handshake: HELLO and WELCOME, or the first frame in codecs without a handshake.

use alloc::boxed::Box;

use super::{Conversation, Introduced, Stage};
use crate::cause::Cause;
use crate::flight::Incident;
use crate::link::outbound::Writer;
use crate::link::peer::Context;
use crate::link::{Event, Lane, SessionKey, Side};
use crate::liveness;
use crate::session;
use crate::time::Time;
use crate::wire::line::is_http_request;
use crate::wire::{
    Account, Codec, Frame, Hello, MAX_IDENTITY, MAX_TOKEN, Malformed, WINDOWS, Welcome,
};

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
            return self.establish(now, SessionKey::default(), None, context, out);
        }
        let hello = Hello {
            asks: introduction.asks,
            resume: None,
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
                self.open_window(welcome.windows, true);
                self.policy = welcome.policy.with_conduct_of(&context.settings.policy);
                self.establish(now, key, None, context, out);
            }
            Frame::Close(close) if connects => self.handle_close(now, close, out),
            Frame::Data { bytes, .. } if self.codec == Codec::Line && is_http_request(bytes) => {
                let _ = self.end(now, Cause::Protocol(Malformed::HttpRequest), out);
            }
            Frame::Ping(_) | Frame::Pong(_) | Frame::Data { .. } if !self.codec.has_handshake() => {
                self.request_admission(now, None, &[], Some(&frame), context, out);
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
        self.request_admission(now, hello.account, hello.token, None, context, out);
    }

    /// Completes the handshake on the accepting side, with WELCOME in codecs that have it.
    pub(super) fn welcome(
        &mut self,
        now: Time,
        key: SessionKey,
        account: Option<Account>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        if !self.codec.has_handshake() {
            return self.establish(now, key, account, context, out);
        }
        let settings = context.settings;
        let welcome = Welcome {
            resumed: false,
            windows: self.window_limits(),
            boot_id: settings.boot_id,
            instance_id: settings.instance_id,
            session: key.session,
            epoch: key.epoch,
            received: 0,
            server_time_ms: settings.wall_origin_ms.saturating_add(now.as_millis()),
            resume_window_ms: 0,
            largest_data: settings.max_data,
            policy: self.policy,
            resume_token: &[],
        };
        out.transmit(self.codec, Lane::Control, &Frame::Welcome(welcome));
        self.establish(now, key, account, context, out);
        self.record_sent(now, Lane::Control);
    }

    /// Completes the handshake.
    fn establish(
        &mut self,
        now: Time,
        key: SessionKey,
        account: Option<Account>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        self.stage = Stage::Established;
        self.flight.record(now, Incident::Introduced);
        let seed = context.random.next_u32();
        self.feed_liveness(now, liveness::Input::Introduced { seed }, out);
        let SessionKey { session, epoch } = key;
        out.event(Event::Established { session, epoch });
        out.session(session::Event::Joined { policy: self.policy, account });
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
