//! The plain form of values: encoder and decoder from one description.
//!
//! A record holds inputs in this form, and a saved state holds parts of machines. Each type is
//! listed once, and both directions are generated from the list: a missing variant or field does
//! not compile.
//!
//! In a state, times are relative to the time at which it is saved, so that it can be loaded on
//! another clock. See [`Sink::state`] and [`Source::state`].

mod damage;
mod values;

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

pub use damage::Damage;

use crate::beacon::{
    Answer as BeaconAnswer, BeaconCommand, Part as BeaconPart, Settings as BeaconSettings,
    Statement, World as BeaconWorld,
};
use crate::cause::{Cause, Direction, Scope};
use crate::hub::{
    Answer as HubAnswer, HubCommand, Part as HubPart, Settings as HubSettings, World as HubWorld,
};
use crate::kernel::{Examination, SendState, SocketError, TcpSnapshot};
use crate::link::{
    Command as LinkCommand, Goodbye, Hung, Limits, SessionKey, Settings as LinkSettings,
    World as LinkWorld,
};
use crate::liveness::{Role, Silence};
use crate::policy::Detection;
use crate::time::{Span, Time};
use crate::wire::{Account, CloseReason, Codec, DataKind, Malformed, Saw};

/// A type that has a plain form: bytes in a record or in a saved state.
pub(crate) trait Plain<'a>: Sized {
    /// Appends the plain form of the value.
    fn put(&self, out: &mut Sink<'_>);

    /// Decodes a value from the front of `from`. Allocates in proportion to the bytes that were
    /// read, never by a length alone.
    fn take(from: &mut Source<'a>) -> Result<Self, Damage>;
}

/// The destination of plain forms.
pub(crate) struct Sink<'o> {
    bytes: &'o mut Vec<u8>,
    origin: Option<Time>,
}

impl<'o> Sink<'o> {
    /// Creates the sink of a record, in which times count from the clock's origin.
    pub(crate) fn record(bytes: &'o mut Vec<u8>) -> Sink<'o> {
        Sink { bytes, origin: None }
    }

    /// Creates the sink of a state that is saved at `now`, from which its times count.
    pub(crate) fn state(now: Time, bytes: &'o mut Vec<u8>) -> Sink<'o> {
        Sink { bytes, origin: Some(now) }
    }

    /// Returns the time from which times count.
    pub(crate) fn origin(&self) -> Time {
        self.origin.unwrap_or(Time::ZERO)
    }

    /// Encodes a time. In a state it is the signed distance from the origin in nanoseconds; 2^63 −
    /// 1 stands for all times that are saturated or lie 292 years ahead.
    fn time(&mut self, time: Time) {
        const FAR: u64 = i64::MAX as u64;
        let value = match self.origin {
            None => time.as_nanos(),
            Some(_) if time.as_nanos() == u64::MAX => FAR,
            Some(origin) if time < origin => origin.since(time).as_nanos().min(FAR).wrapping_neg(),
            Some(origin) => time.since(origin).as_nanos().min(FAR),
        };
        value.put(self);
    }
}

/// The source of plain forms.
pub(crate) struct Source<'a> {
    rest: &'a [u8],
    origin: Option<Time>,
    has_cut: bool,
}

impl<'a> Source<'a> {
    /// Creates the source of a record.
    pub(crate) fn record(rest: &'a [u8]) -> Source<'a> {
        Source { rest, origin: None, has_cut: false }
    }

    /// Creates the source of a state that is loaded at `now`, from which its times count.
    pub(crate) fn state(now: Time, rest: &'a [u8]) -> Source<'a> {
        Source { rest, origin: Some(now), has_cut: false }
    }

    /// Returns the time from which times count.
    pub(crate) fn origin(&self) -> Time {
        self.origin.unwrap_or(Time::ZERO)
    }

    /// Returns the bytes that were not taken.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Decodes a time. Also returns by how much it lies before the clock's origin: such a time
    /// becomes [`Time::ZERO`]. A silence then counts from there, so that its verdict falls late and
    /// never early.
    pub(crate) fn time(&mut self) -> Result<(Time, Span), Damage> {
        let value = u64::take(self)?;
        let Some(origin) = self.origin else {
            return Ok((Time::from_nanos(value), Span::ZERO));
        };
        let distance = i64::from_le_bytes(value.to_le_bytes());
        let span = Span::from_nanos(distance.unsigned_abs());
        let (time, before) = match distance {
            i64::MAX => (Time::from_nanos(u64::MAX), Span::ZERO),
            0.. => (origin + span, Span::ZERO),
            _ => (origin - span, span.less(origin.since(Time::ZERO))),
        };
        self.has_cut |= before > Span::ZERO;
        Ok((time, before))
    }

    /// Returns whether a time since the last call lay before the clock's origin.
    pub(crate) fn take_cut(&mut self) -> bool {
        core::mem::take(&mut self.has_cut)
    }
}

/// Implements `Plain` for an enum: `Type { tag => Variant { field: name, ... } ... }`. Tuple fields
/// are named 0, 1, ...
macro_rules! plain_enum {
    ($type:ident $(<$life:lifetime>)? {
        $($tag:literal => $variant:ident { $($field:tt: $name:ident),* })*
    }) => {
        impl<'a> $crate::plain::Plain<'a> for $type $(<$life>)? {
            fn put(&self, out: &mut $crate::plain::Sink<'_>) {
                match self {
                    $($type::$variant { $($field: $name),* } => {
                        <u8 as $crate::plain::Plain>::put(&$tag, out);
                        $($crate::plain::Plain::put($name, out);)*
                    })*
                }
            }

            fn take(
                from: &mut $crate::plain::Source<'a>,
            ) -> Result<Self, $crate::plain::Damage> {
                match <u8 as $crate::plain::Plain>::take(from)? {
                    $($tag => Ok($type::$variant {
                        $($field: $crate::plain::Plain::take(from)?),*
                    }),)*
                    _ => Err($crate::plain::Damage::UnknownTag),
                }
            }
        }
    };
}

/// Implements `Plain` for a struct: `Type { field, ... }`, with all fields. Tuple fields are given
/// names: `Type { 0: name }`. With `if check`, a decoded value that `check` refuses is
/// [`Damage::Illegal`].
macro_rules! plain_struct {
    ($type:ident { $($field:ident),* } $(if $check:path)?) => {
        $crate::plain::plain_struct! { $type { $($field: $field),* } $(if $check)? }
    };
    ($type:ident { $($field:tt: $name:ident),* } $(if $check:path)?) => {
        impl<'a> $crate::plain::Plain<'a> for $type {
            fn put(&self, out: &mut $crate::plain::Sink<'_>) {
                let $type { $($field: $name),* } = self;
                $($crate::plain::Plain::put($name, out);)*
            }

            fn take(
                from: &mut $crate::plain::Source<'a>,
            ) -> Result<Self, $crate::plain::Damage> {
                let value = $type { $($field: $crate::plain::Plain::take(from)?),* };
                $(if !$check(&value) {
                    return Err($crate::plain::Damage::Illegal);
                })?
                Ok(value)
            }
        }
    };
}

pub(crate) use {plain_enum, plain_struct};

plain_enum! { HubWorld<'a> {
    0 => Opened { link: link, listener: listener, address: address }
    1 => Link { link: link, input: input }
    2 => Command { 0: command }
    3 => Identified { link: link, admission: admission }
    4 => Refused { link: link, admission: admission, goodbye: goodbye }
    5 => HandOver { link: link }
    6 => TakenOver { link: link, state: state }
} }

plain_enum! { HubAnswer {
    0 => Deadline { 0: part }
    1 => Examined { link: link, examination: examination }
    2 => Owned { session: session, epoch: epoch }
} }

plain_enum! { HubPart {
    0 => Common {}
    1 => Link { 0: link }
    2 => Session { 0: place }
} }

plain_enum! { BeaconWorld {
    0 => Statement { statement: statement, address: address }
    1 => Command { 0: command }
} }

plain_enum! { BeaconAnswer {
    0 => Deadline { 0: part }
    1 => PlacesHeld { 0: places }
} }

plain_enum! { BeaconPart {
    0 => Common {}
    1 => Device { 0: number }
} }

plain_struct! { Statement { device, challenge, counter, status, leaving } }

plain_enum! { BeaconCommand {
    0 => Retune { 0: policy }
    1 => Drain {}
    2 => Hold { device: device, span: span }
    3 => Release { device: device }
    4 => Kick { device: device }
} }

plain_enum! { HubCommand<'a> {
    0 => Retune { listener: listener, policy: policy }
    1 => Drain { limit: limit, reconnect_within: reconnect_within }
    2 => ReportHeartbeats { 0: report }
    3 => Send { listener: listener, bytes: bytes, kind: kind }
} }

plain_enum! { LinkWorld<'a> {
    0 => Received { 0: bytes }
    1 => Ended {}
    2 => Failed { 0: failure }
    3 => Overflowed {}
    4 => Command { 0: command }
    5 => Warned { 0: error }
    6 => Heard {}
    7 => Illegal {}
} }

plain_struct! { SessionKey { session, epoch } }

plain_enum! { SocketError {
    0 => Reset {}
    1 => HostUnreachable {}
    2 => Local {}
    3 => NetworkUnreachable {}
    4 => Refused {}
    5 => TimedOut {}
} }

plain_struct! { Examination { tcp, error, ended, local_down, queued } }

plain_struct! { TcpSnapshot {
    unacked,
    notsent,
    retransmits,
    backoff,
    probes,
    last_ack,
    last_sent,
    rtt,
    total_retrans,
    bytes_acked,
    bytes_sent,
    bytes_retrans,
    bytes_received,
    send_window,
    window_limited
} }

plain_enum! { LinkCommand<'a> {
    0 => Send { bytes: bytes, more: more, kind: kind }
    1 => HeartbeatData { 0: data }
    2 => Retune { 0: policy }
    3 => Hold { 0: span }
    4 => Release {}
    5 => Close { 0: goodbye }
} }

plain_struct! { Goodbye { reason, stay_away, return_after } }

plain_enum! { DataKind {
    0 => Eleven {}
    1 => TwentyOne {}
} }

plain_enum! { CloseReason {
    0 => Done {}
    1 => Drained {}
    2 => Kicked {}
    3 => Silent {}
    4 => Unauthorized {}
    5 => Replaced {}
    6 => Slow {}
    7 => Version {}
    8 => Full {}
    9 => Other { 0: byte }
} }

plain_enum! { Detection {
    0 => Never {}
    1 => Bounded { idle: idle, interval: interval, probes: probes }
} }

plain_enum! { IpAddr {
    4 => V4 { 0: address }
    6 => V6 { 0: address }
} }

plain_enum! { SocketAddr {
    4 => V4 { 0: address }
    6 => V6 { 0: address }
} }

plain_struct! { HubSettings { shard, listeners, seed, frame_memory } }

plain_struct! { BeaconSettings { shard, policy, max_beacons, wall_origin_ms, seed } }

plain_struct! { LinkSettings {
    codec,
    side,
    role,
    policy,
    patience,
    limits,
    handshake_timeout,
    max_data,
    boot_id,
    instance_id,
    wall_origin_ms,
    report_heartbeats,
    examines,
    hung
} }

plain_struct! { Limits { shortest_bound, longest_bound } }

plain_enum! { Codec {
    0 => Native {}
    1 => Message1028 {}
    2 => Line {}
} }

plain_enum! { Role {
    0 => Probe {}
    1 => Watch {}
} }

plain_enum! { Hung {
    0 => End {}
    1 => Keep { 0: span }
} }

plain_enum! { SendState {
    0 => Sending {}
    1 => Closed {}
    2 => Stranded {}
    3 => Leaving {}
    4 => Orphaned {}
} }

plain_enum! { Cause {
    0 => PeerClosed { 0: reason }
    1 => PeerExited {}
    2 => PeerReset {}
    3 => PeerRebooted {}
    4 => MiddleboxForgot {}
    5 => AppHung {}
    6 => NotReading {}
    7 => SlowConsumer {}
    8 => PathLost { direction: direction, scope: scope }
    9 => Unreachable {}
    10 => LocalNetworkDown {}
    11 => LocalNeighbourGone {}
    12 => HandshakeTimeout {}
    13 => Protocol { 0: malformed }
    14 => Kicked {}
    15 => Drained {}
    16 => Finished {}
    17 => LocalFault {}
    18 => Unknown {}
} }

plain_enum! { Direction {
    0 => Both {}
    1 => Outbound {}
    2 => Inbound {}
} }

plain_enum! { Scope {
    0 => Unknown {}
    1 => Flow {}
    2 => Host {}
    3 => Many {}
} }

plain_struct! { Account { session, saw, silent_ms, ended_ms, absent_ms, suspended_ms } }

plain_struct! { Silence { due, last_heard, probes, in_handshake } }

plain_enum! { Malformed {
    0 => UnknownKind {}
    1 => UnknownFlag {}
    2 => Varint {}
    3 => TooLong {}
    4 => Truncated {}
    5 => LeftOver {}
    6 => NotText {}
    7 => Magic {}
    8 => Version {}
    9 => Policy {}
    10 => OutOfPlace {}
    11 => StalledFrame {}
    12 => OldestFrame {}
    13 => Record {}
} }

plain_enum! { Saw {
    0 => Goodbye {}
    1 => Ended {}
    2 => Reset {}
    3 => Silence {}
    4 => Unheard {}
    5 => Hung {}
    6 => Unreachable {}
    7 => NetworkDown {}
    8 => Own {}
    9 => Other { 0: byte }
} }

#[cfg(test)]
mod tests;
