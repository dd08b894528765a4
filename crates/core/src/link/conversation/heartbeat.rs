//! Heartbeats: sending PINGs and PONGs, answering PINGs, and the data attached to them.

use super::Conversation;
use crate::flight::Incident;
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::link::{BeatKind, Event, Lane};
use crate::liveness;
use crate::time::Time;
use crate::wire::{Beat, Codec, Frame, MAX_HEARTBEAT_DATA, message1028};

impl Conversation {
    /// Answers the PINGs of one read. With the native codec, the last PONG confirms all PINGs
    /// before it.
    #[inline]
    pub(in crate::link) fn answer_pings(
        &mut self,
        now: Time,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        if self.pongs_owed == 0 {
            return;
        }
        let answers = if self.codec == Codec::Native { 1 } else { self.pongs_owed };
        self.pongs_owed = 0;
        for _ in 0..answers {
            self.send_heartbeat(BeatKind::Pong, self.ping_sequence, 0, context, out);
        }
        self.record_sent(now, Lane::Control);
    }

    /// Sends a PING that the application wants.
    pub(super) fn command_heartbeat(
        &mut self,
        now: Time,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        self.liveness.handle(now, liveness::Input::Heartbeat, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            if let liveness::Output::Keepalive { sequence } = output {
                self.flight.record(now, Incident::Requested);
                self.note_ping(now, sequence);
                self.send_heartbeat(BeatKind::Ping, sequence, 0, context, out);
            }
        }
        // The first outstanding bytes bring the deadline of an examination.
        Effect::Rearm
    }

    /// Sends a heartbeat; `number` is the number of the probe, or 0.
    #[inline]
    pub(super) fn send_heartbeat(
        &mut self,
        kind: BeatKind,
        sequence: u8,
        number: u8,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let beat = Beat { sequence, taken: self.rider(), data: self.heartbeat_data() };
        let frame = match kind {
            BeatKind::Ping => Frame::Ping(beat),
            BeatKind::Pong => Frame::Pong(beat),
        };
        out.transmit(self.codec, Lane::Control, &frame);
        out.count_heartbeat_out();
        if context.settings.report_heartbeats {
            out.event(Event::HeartbeatSent { beat: kind, sequence, number });
        }
    }

    /// Counts and reports a heartbeat that arrived, and the data attached to it.
    #[inline]
    pub(super) fn report_received(
        &self,
        kind: BeatKind,
        beat: Beat<'_>,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) {
        out.count_heartbeat_in();
        if let Some(data) = beat.data {
            out.heartbeat_data(data);
        }
        if context.settings.report_heartbeats {
            out.event(Event::HeartbeatReceived { beat: kind, sequence: beat.sequence });
        }
    }

    /// Attaches `data` to every heartbeat from now on, unless it is too long.
    pub(super) fn set_heartbeat_data(&mut self, data: &[u8]) {
        if data.len() <= MAX_HEARTBEAT_DATA {
            if !data.is_empty() || self.aside.is_some() {
                self.aside.get_or_insert_default().heartbeat_data = data.into();
            }
            self.aside.take_if(|aside| data.is_empty() && aside.window.is_none());
        }
    }

    /// Returns the data attached to every heartbeat, if any.
    fn heartbeat_data(&self) -> Option<&[u8]> {
        let data = &*self.aside.as_ref()?.heartbeat_data;
        (!data.is_empty()).then_some(data)
    }

    /// Returns the largest size of a heartbeat on the wire, in bytes.
    pub(super) fn heartbeat_size(&self) -> u64 {
        let attached = self.heartbeat_data().map_or(0, <[u8]>::len);
        match self.codec {
            Codec::Native => attached as u64 + 8,
            Codec::Message1028 => message1028::MESSAGE as u64,
            Codec::Line => 5,
        }
    }
}
