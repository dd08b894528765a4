//! The window of a session: what is kept until the peer has acknowledged it, and what is
//! acknowledged, on whatever goes the other way or alone.

use super::Conversation;
use super::data::send_pieces;
use crate::cause::Cause;
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::link::settings::Takes;
use crate::link::{Event, Lane};
use crate::plain::plain_struct;
use crate::time::Time;
use crate::window::{Full, Illegal, Incoming, Limits, MAX_MESSAGE, Outgoing};
use crate::wire::{DataKind, Frame, Malformed, Rider};

/// The window of a session that has one.
#[derive(Debug)]
pub(super) struct Window {
    limits: Limits,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The length so far of the message that arrives in pieces.
    partial: u32,
}

plain_struct! { Window { limits, outgoing, incoming, partial } if Window::is_legal }

impl Window {
    fn is_legal(&self) -> bool {
        self.limits.is_legal() && self.partial <= MAX_MESSAGE
    }

    /// Takes an acknowledgement that arrived; returns whether it frees anything.
    fn acknowledge(&mut self, taken: u32) -> Result<bool, Malformed> {
        self.outgoing.acknowledge(taken).map(|freed| freed > 0).map_err(Malformed::from)
    }

    /// Counts a piece that arrived.
    fn receive(&mut self, piece: usize, more: bool, hurried: bool) -> Result<(), Malformed> {
        let piece = u32::try_from(piece).unwrap_or(u32::MAX);
        self.partial = self.partial.saturating_add(piece);
        if self.partial > MAX_MESSAGE {
            return Err(Malformed::TooLong);
        }
        if !more {
            let length = core::mem::take(&mut self.partial);
            self.incoming.receive(self.limits, length as usize, hurried)?;
        }
        Ok(())
    }
}

impl From<Illegal> for Malformed {
    fn from(illegal: Illegal) -> Malformed {
        match illegal {
            Illegal::Acknowledgement => Malformed::Acknowledgement,
            Illegal::Beyond => Malformed::BeyondWindow,
        }
    }
}

impl Conversation {
    /// Begins a session with a window of these limits, or without.
    pub(super) fn open_window(&mut self, limits: Option<Limits>) {
        let Some(limits) = limits else {
            return;
        };
        let (outgoing, incoming) = (Outgoing::default(), Incoming::default());
        let window = Window { limits, outgoing, incoming, partial: 0 };
        self.aside.get_or_insert_default().window = Some(window);
    }

    #[inline]
    fn window(&self) -> Option<&Window> {
        self.aside.as_ref()?.window.as_ref()
    }

    #[inline]
    fn window_mut(&mut self) -> Option<&mut Window> {
        self.aside.as_mut()?.window.as_mut()
    }

    /// Returns the limits of the session's window.
    pub(super) fn window_limits(&self) -> Option<Limits> {
        self.window().map(|window| window.limits)
    }

    /// Returns whether the session has a window.
    pub(super) fn has_window(&self) -> bool {
        self.window().is_some()
    }

    /// Returns the bytes that wait for the peer's acknowledgement.
    #[inline]
    pub(in crate::link) fn kept_bytes(&self) -> usize {
        self.window().map_or(0, |window| window.outgoing.bytes())
    }

    /// Returns whether a message of this length may be sent now.
    pub(in crate::link) fn has_room(&self, length: usize) -> bool {
        self.window().is_none_or(|it| it.outgoing.has_room(it.limits, length))
    }

    /// Keeps a message or a part of it, and sends it once it is whole.
    pub(super) fn send_in_window(
        &mut self,
        bytes: &[u8],
        more: bool,
        kind: DataKind,
        out: &mut Writer<'_>,
    ) -> Result<(), Full> {
        let (codec, piece) = (self.codec, self.piece());
        let Some(Window { limits, outgoing, incoming, .. }) = self.window_mut() else {
            return Ok(());
        };
        outgoing.accept(*limits, bytes, more)?;
        while let Some(departure) = outgoing.depart() {
            let rider = Rider { taken: incoming.news(), hurried: departure.hurried };
            incoming.told();
            send_pieces(codec, piece, (departure.bytes, false), kind, rider, out);
        }
        Ok(())
    }

    /// Returns the acknowledgement that rides on what is sent now, which counts as told.
    #[inline]
    pub(super) fn rider(&mut self) -> Option<u32> {
        let incoming = &mut self.window_mut()?.incoming;
        let news = incoming.news()?;
        incoming.told();
        Some(news)
    }

    /// Takes the acknowledgement in a frame. Returns whether the conversation goes on.
    #[inline]
    pub(super) fn note_taken(
        &mut self,
        now: Time,
        taken: Option<u32>,
        out: &mut Writer<'_>,
    ) -> bool {
        let Some(taken) = taken else {
            return true;
        };
        let window = self.window_mut().ok_or(Malformed::OutOfPlace);
        match window.and_then(|window| window.acknowledge(taken)) {
            Ok(frees) => {
                if frees {
                    out.event(Event::Acknowledged);
                }
                true
            }
            Err(malformed) => {
                let _ = self.end(now, Cause::Protocol(malformed), out);
                false
            }
        }
    }

    /// Handles a piece of a message.
    #[inline]
    pub(super) fn handle_data(
        &mut self,
        now: Time,
        (bytes, more, kind, rider): (&[u8], bool, DataKind, Rider),
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let windows = context.settings.window;
        let takes_at_once = windows.is_some_and(|it| it.takes == Takes::AtOnce);
        let Some(window) = self.window_mut() else {
            if rider != Rider::NONE {
                let _ = self.end(now, Cause::Protocol(Malformed::OutOfPlace), out);
                return;
            }
            return out.data(bytes, more, kind);
        };
        let length = window.partial as usize + bytes.len();
        if let Err(malformed) = window.receive(bytes.len(), more, rider.hurried) {
            let _ = self.end(now, Cause::Protocol(malformed), out);
            return;
        }
        if !more && takes_at_once {
            window.incoming.take(length);
        }
        if self.note_taken(now, rider.taken, out) {
            out.data(bytes, more, kind);
        }
    }

    /// Handles an acknowledgement that came alone.
    pub(super) fn handle_ack(
        &mut self,
        now: Time,
        taken: u32,
        hurried: bool,
        out: &mut Writer<'_>,
    ) {
        if self.note_taken(now, Some(taken), out)
            && hurried
            && let Some(window) = self.window_mut()
        {
            window.incoming.ask();
        }
    }

    /// Notes that the application has taken a message of this length.
    pub(super) fn take_message(
        &mut self,
        now: Time,
        length: usize,
        out: &mut Writer<'_>,
    ) -> Effect {
        if let Some(window) = self.window_mut() {
            window.incoming.take(length);
        }
        self.acknowledge(now, out)
    }

    /// Asks the peer for an acknowledgement of all that was sent.
    pub(super) fn flush(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        if let Some(window) = self.window_mut() {
            window.outgoing.flush();
        }
        self.acknowledge(now, out)
    }

    /// Returns how many messages of the session were sent, and how many of them the peer has
    /// acknowledged; `None` if it has no window.
    pub(in crate::link) fn progress(&self) -> Option<(u64, u64)> {
        let outgoing = &self.window()?.outgoing;
        Some((outgoing.sent(), outgoing.acknowledged()))
    }

    /// Sends an acknowledgement alone, if one must not wait for a ride.
    pub(in crate::link) fn acknowledge(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        let was_outstanding = self.outstanding.is_any();
        let is_established = self.is_established();
        let Some(window) = self.window_mut() else {
            return Effect::None;
        };
        let Window { limits, outgoing, incoming, .. } = window;
        let asks = is_established && outgoing.take_ask();
        if !is_established || !(asks || incoming.is_urgent(*limits)) {
            return Effect::None;
        }
        let frame = Frame::Ack { taken: incoming.acknowledgement(), hurried: asks };
        incoming.told();
        // An acknowledgement need not wait behind data; a question follows what it asks for.
        let lane = if asks { Lane::Data } else { Lane::Control };
        out.transmit(self.codec, lane, &frame);
        self.record_sent(now, lane);
        // The first outstanding bytes bring the deadline of an examination.
        if was_outstanding { Effect::None } else { Effect::Rearm }
    }
}
