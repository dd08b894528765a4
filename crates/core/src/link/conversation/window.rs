//! The window of a session: what is kept until the peer has acknowledged it, and what is
//! acknowledged, on whatever goes the other way or alone.

use super::Conversation;
use super::data::send_pieces;
use super::stay::Stay;
use crate::cause::Cause;
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::link::settings::Takes;
use crate::link::{Event, Lane};
use crate::plain::plain_struct;
use crate::time::Time;
use crate::window::{Full, Incoming, Limits, MAX_MESSAGE, Outgoing};
use crate::wire::{DataKind, Frame, Malformed, Rider};

/// How many windows an accepting end keeps, which answers what it gets: the answers to what it has
/// taken, those to what is on its way when it stops to take, and what others send. A connecting end
/// waits for room in one.
const ANSWERING: u32 = 3;

/// The window of a session that has one.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) limits: Limits,
    /// Whether this end accepted the connection, and answers what it gets.
    answers: bool,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    /// By what right the session outlives its link, and for how long; `None` if it does not.
    pub(super) stay: Option<Stay>,
    /// The length so far of the message that arrives in pieces.
    partial: u32,
}

plain_struct! { Window {
    limits,
    answers,
    outgoing,
    incoming,
    stay,
    partial
} if Window::is_legal }

impl Window {
    fn is_legal(&self) -> bool {
        self.limits.is_legal() && self.partial <= MAX_MESSAGE
    }

    /// How many windows are kept at most, with what waits for room in one.
    fn windows(&self) -> u32 {
        if self.answers { ANSWERING } else { 1 }
    }

    /// Returns whether a message of this length, or the next part of one, has room in one window.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.outgoing.has_room(self.limits, 1, length)
    }

    /// Keeps a message, or a part of it.
    pub(super) fn accept(&mut self, bytes: &[u8], more: bool) -> Result<(), Full> {
        self.outgoing.accept(self.limits, self.windows(), bytes, more)
    }

    /// Ends the part of the session that belongs to a link: messages that it has cut begin anew.
    pub(super) fn leave_link(&mut self) {
        self.outgoing.cut();
        self.partial = 0;
    }

    /// Begins a new link, whose peer has received this many messages. Returns how many are sent
    /// again.
    pub(super) fn resume(&mut self, received: u64) -> Result<u32, Malformed> {
        let again = self.outgoing.resume(received)?;
        self.incoming.resume();
        Ok(u32::try_from(again).unwrap_or(u32::MAX))
    }

    /// Takes what has arrived, where the arrival is enough. An accepting end waits with it while
    /// the peer does not take what it gets: a peer that is answered then slows down, before its
    /// answers find the queue full. A connecting end does not, or both would wait for each other.
    fn take_at_once(&mut self) {
        let Limits { messages, bytes } = self.limits;
        let (kept, (untaken, untaken_bytes)) =
            (self.outgoing.unacknowledged(), self.incoming.untaken());
        let weight = self.outgoing.weight() + untaken_bytes.min(bytes as usize);
        let is_little =
            kept + untaken <= messages.div_ceil(2) as usize && weight <= bytes as usize / 2;
        if !self.answers || kept == 0 || is_little {
            self.incoming.take_all();
        } else if untaken > 0 {
            // It is taken once the peer has acknowledged what it got.
            self.outgoing.flush();
        }
    }

    /// Takes an acknowledgement that arrived; returns whether it frees anything.
    fn acknowledge(&mut self, taken: u32) -> Result<bool, Malformed> {
        self.outgoing.acknowledge(taken).map(|freed| freed > 0)
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

impl Conversation {
    /// Begins a session with a window of these limits, or without.
    pub(super) fn open_window(&mut self, limits: Option<Limits>, connects: bool) {
        let Some(limits) = limits else {
            return;
        };
        let (outgoing, incoming) = (Outgoing::default(), Incoming::default());
        let window =
            Window { limits, answers: !connects, outgoing, incoming, stay: None, partial: 0 };
        self.aside.get_or_insert_default().window = Some(window);
    }

    #[inline]
    pub(super) fn window(&self) -> Option<&Window> {
        self.aside.as_ref()?.window.as_ref()
    }

    #[inline]
    pub(super) fn window_mut(&mut self) -> Option<&mut Window> {
        self.aside.as_mut()?.window.as_mut()
    }

    /// Returns how many messages wait for the peer's acknowledgement.
    pub(super) fn waiting(&self) -> u32 {
        let waiting = self.window().map_or(0, |window| window.outgoing.waiting());
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// Returns the limits of the session's window.
    pub(super) fn window_limits(&self) -> Option<Limits> {
        self.window().map(|window| window.limits)
    }

    /// Returns whether the session has a window.
    pub(super) fn has_window(&self) -> bool {
        self.window().is_some()
    }

    /// Returns the memory of what waits for the peer's acknowledgement, in bytes.
    #[inline]
    pub(in crate::link) fn kept_bytes(&self) -> usize {
        self.window().map_or(0, |window| window.outgoing.memory())
    }

    /// Returns whether a message of this length may be sent now.
    pub(in crate::link) fn has_room(&self, length: usize) -> bool {
        self.window().is_none_or(|window| window.has_room(length))
    }

    /// Keeps a message or a part of it, and sends it once it is whole.
    pub(super) fn send_in_window(
        &mut self,
        bytes: &[u8],
        more: bool,
        kind: DataKind,
        out: &mut Writer<'_>,
    ) -> Result<(), Full> {
        if let Some(window) = self.window_mut() {
            window.accept(bytes, more)?;
        }
        self.send_kept(kind, out);
        Ok(())
    }

    /// Sends what is kept and has room in the window. Returns whether anything was sent.
    pub(super) fn send_kept(&mut self, kind: DataKind, out: &mut Writer<'_>) -> bool {
        let (codec, piece) = (self.codec, self.piece());
        let Some(Window { limits, outgoing, incoming, .. }) = self.window_mut() else {
            return false;
        };
        let mut has_sent = false;
        while let Some(departure) = outgoing.depart(*limits) {
            let rider = Rider { taken: incoming.news(), hurried: departure.hurried };
            incoming.told();
            send_pieces(codec, piece, (departure.bytes, false), kind, rider, out);
            has_sent = true;
        }
        has_sent
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
                    if self.send_kept(DataKind::default(), out) {
                        self.record_sent(now, Lane::Data);
                    }
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
        out: &mut Writer<'_>,
    ) {
        let Some(window) = self.window_mut() else {
            if rider != Rider::NONE {
                let _ = self.end(now, Cause::Protocol(Malformed::OutOfPlace), out);
                return;
            }
            return out.data(bytes, more, kind);
        };
        if let Err(malformed) = window.receive(bytes.len(), more, rider.hurried) {
            let _ = self.end(now, Cause::Protocol(malformed), out);
            return;
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

    /// Takes what has arrived, where that is enough, and acknowledges it if that must not wait.
    #[inline]
    pub(in crate::link) fn take_and_acknowledge(
        &mut self,
        now: Time,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) {
        if let Some(window) = self.window_mut() {
            if context.settings.window.is_some_and(|windows| windows.takes == Takes::AtOnce) {
                window.take_at_once();
            }
            let _ = self.acknowledge(now, out);
        }
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
