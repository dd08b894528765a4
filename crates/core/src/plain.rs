//! The plain form of inputs in a record: encoder and decoder from one description.
//!
//! Each enum is listed once, and both directions are generated from the list. A missing variant
//! does not compile.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::beacon::{
    Answer as BeaconAnswer, BeaconCommand, Part as BeaconPart, Settings as BeaconSettings,
    Statement, World as BeaconWorld,
};
use crate::hub::{
    Answer as HubAnswer, HubCommand, Part as HubPart, Settings as HubSettings, World as HubWorld,
};
use crate::kernel::{Examination, Patience, SendState, SocketError, TcpSnapshot};
use crate::link::{
    Command as LinkCommand, Goodbye, Hung, Limits, Settings as LinkSettings, Side,
    World as LinkWorld,
};
use crate::liveness::Role;
use crate::machine::Input;
use crate::policy::{Detection, Policy};
use crate::tap::record::Damage;
use crate::time::{Span, Time};
use crate::wire::{BootId, CloseReason, Codec, DataKind, InstanceId};

/// A type that has a plain form: bytes in a record.
pub(crate) trait Plain<'a>: Sized {
    /// Appends the plain form of the value.
    fn put(&self, out: &mut Vec<u8>);

    /// Decodes a value from the front of `from` without allocation.
    fn take(from: &mut &'a [u8]) -> Result<Self, Damage>;
}

/// Implements `Plain` for an enum: `Type { tag => Variant { field: name, ... } ... }`. Tuple fields
/// are named 0, 1, ...
macro_rules! plain_enum {
    ($type:ident $(<$life:lifetime>)? {
        $($tag:literal => $variant:ident { $($field:tt: $name:ident),* })*
    }) => {
        impl<'a> Plain<'a> for $type $(<$life>)? {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($type::$variant { $($field: $name),* } => {
                        out.push($tag);
                        $($name.put(out);)*
                    })*
                }
            }

            fn take(from: &mut &'a [u8]) -> Result<Self, Damage> {
                match u8::take(from)? {
                    $($tag => Ok($type::$variant { $($field: Plain::take(from)?),* }),)*
                    _ => Err(Damage::UnknownTag),
                }
            }
        }
    };
}

/// Implements `Plain` for a struct: `Type { field, ... }`, with all fields.
macro_rules! plain_struct {
    ($type:ident { $($field:ident),* }) => {
        impl<'a> Plain<'a> for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let $type { $($field),* } = self;
                $($field.put(out);)*
            }

            fn take(from: &mut &'a [u8]) -> Result<Self, Damage> {
                Ok($type { $($field: Plain::take(from)?),* })
            }
        }
    };
}

/// Implements `Plain` for integers: little-endian, in full width.
macro_rules! plain_integer {
    ($($type:ident)*) => {$(
        impl Plain<'_> for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Result<Self, Damage> {
                let (front, rest) = from.split_first_chunk().ok_or(Damage::Truncated)?;
                *from = rest;
                Ok($type::from_le_bytes(*front))
            }
        }
    )*};
}

plain_integer! { u8 u16 u32 u64 u128 }

impl<'a, W: Plain<'a>, A: Plain<'a>> Plain<'a> for Input<W, A> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Input::World(world) => {
                out.push(0);
                world.put(out);
            }
            Input::Answer(answer) => {
                out.push(1);
                answer.put(out);
            }
        }
    }

    fn take(from: &mut &'a [u8]) -> Result<Self, Damage> {
        match u8::take(from)? {
            0 => W::take(from).map(Input::World),
            1 => A::take(from).map(Input::Answer),
            _ => Err(Damage::UnknownTag),
        }
    }
}

plain_enum! { HubWorld<'a> {
    0 => Opened { link: link, listener: listener, address: address }
    1 => Link { link: link, input: input }
    2 => Command { 0: command }
    3 => Identified { link: link, admission: admission }
    4 => Refused { link: link, admission: admission, goodbye: goodbye }
} }

plain_enum! { HubAnswer {
    0 => Deadline { 0: part }
    1 => Examined { link: link, examination: examination }
    2 => Owned { session: session, epoch: epoch }
} }

plain_enum! { HubPart {
    0 => Common {}
    1 => Link { 0: link }
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
} }

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

/// Only the accepting side has a plain form: the other holds a token, which is never recorded.
impl Plain<'_> for Side {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Side::Accepting => 0,
            Side::Connecting(_) => 1,
        });
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        match u8::take(from)? {
            0 => Ok(Side::Accepting),
            _ => Err(Damage::UnknownTag),
        }
    }
}

impl Plain<'_> for Patience {
    fn put(&self, out: &mut Vec<u8>) {
        self.outage().put(out);
        self.send().put(out);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        Ok(Patience::new(Plain::take(from)?, Plain::take(from)?))
    }
}

impl Plain<'_> for BootId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        take_array(from).map(BootId)
    }
}

impl Plain<'_> for InstanceId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        take_array(from).map(InstanceId)
    }
}

fn take_array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], Damage> {
    let (front, rest) = from.split_first_chunk().ok_or(Damage::Truncated)?;
    *from = rest;
    Ok(*front)
}

/// Four bytes of length, then the values. Memory is taken value by value, so that a damaged length
/// takes none.
impl<'a, T: Plain<'a>> Plain<'a> for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        length.put(out);
        self.iter().take(length as usize).for_each(|value| value.put(out));
    }

    fn take(from: &mut &'a [u8]) -> Result<Self, Damage> {
        let length = u32::take(from)?;
        (0..length).map(|_| T::take(from)).collect()
    }
}

/// A size is 64 bits wide everywhere.
impl Plain<'_> for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        usize::try_from(u64::take(from)?).map_err(|_| Damage::UnknownTag)
    }
}

impl Plain<'_> for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damage::UnknownTag),
        }
    }
}

impl<'a, T: Plain<'a>> Plain<'a> for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(from: &mut &'a [u8]) -> Result<Self, Damage> {
        Ok(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

/// A byte string: four bytes of length, then the bytes. No input exceeds 2^32 − 1 bytes.
impl<'a> Plain<'a> for &'a [u8] {
    fn put(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        length.put(out);
        out.extend_from_slice(self.get(..length as usize).unwrap_or_default());
    }

    fn take(from: &mut &'a [u8]) -> Result<Self, Damage> {
        let length = u32::take(from)? as usize;
        let (front, rest) = from.split_at_checked(length).ok_or(Damage::Truncated)?;
        *from = rest;
        Ok(front)
    }
}

impl Plain<'_> for Time {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_nanos().put(out);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        u64::take(from).map(Time::from_nanos)
    }
}

impl Plain<'_> for Span {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_nanos().put(out);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        u64::take(from).map(Span::from_nanos)
    }
}

impl Plain<'_> for Policy {
    fn put(&self, out: &mut Vec<u8>) {
        let (detection, keepalive, spread, enforce) = self.parts();
        detection.put(out);
        keepalive.put(out);
        spread.put(out);
        enforce.put(out);
    }

    /// Decodes through the constructors, so that every policy is legal.
    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        let policy = match Detection::take(from)? {
            Detection::Never => Policy::never(),
            Detection::Bounded { idle, interval, probes } => {
                Policy::new(idle, interval, probes).map_err(|_| Damage::Policy)?
            }
        };
        let policy = match <Option<Span> as Plain>::take(from)? {
            Some(keepalive) => policy.with_keepalive(keepalive).map_err(|_| Damage::Policy)?,
            None => policy,
        };
        Ok(policy.with_spread(bool::take(from)?).with_enforce(bool::take(from)?))
    }
}

impl Plain<'_> for SocketAddrV4 {
    fn put(&self, out: &mut Vec<u8>) {
        self.ip().to_bits().put(out);
        self.port().put(out);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        Ok(SocketAddrV4::new(Ipv4Addr::from_bits(u32::take(from)?), u16::take(from)?))
    }
}

impl Plain<'_> for SocketAddrV6 {
    fn put(&self, out: &mut Vec<u8>) {
        self.ip().to_bits().put(out);
        self.port().put(out);
        self.flowinfo().put(out);
        self.scope_id().put(out);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Damage> {
        let ip = Ipv6Addr::from_bits(u128::take(from)?);
        let (port, flowinfo, scope) = (u16::take(from)?, u32::take(from)?, u32::take(from)?);
        Ok(SocketAddrV6::new(ip, port, flowinfo, scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub;
    use crate::random::Random;

    fn bytes<'a>(chance: &mut Random, pool: &'a [u8]) -> &'a [u8] {
        let length = chance.below(pool.len() as u64 + 1) as usize;
        &pool[..length]
    }

    fn policy(chance: &mut Random) -> Policy {
        let mut millis = |top: u64| Span::from_millis(1 + chance.below(top));
        let (idle, interval, keepalive) = (millis(1 << 30), millis(1 << 20), millis(1 << 35));
        let policy = match chance.below(4) {
            0 => Policy::never(),
            _ => Policy::new(idle, interval, 1 + chance.below(100) as u8).unwrap(),
        };
        let policy =
            if chance.below(2) == 0 { policy } else { policy.with_keepalive(keepalive).unwrap() };
        policy.with_spread(chance.below(2) == 0).with_enforce(chance.below(2) == 0)
    }

    fn examination(chance: &mut Random) -> Examination {
        let tcp = TcpSnapshot {
            unacked: chance.next_u32(),
            notsent: (chance.below(2) == 0).then(|| chance.next_u32()),
            last_ack: Span::from_nanos(chance.next_u64()),
            ..TcpSnapshot::default()
        };
        Examination {
            tcp: (chance.below(3) != 0).then_some(tcp),
            error: (chance.below(2) == 0).then_some(SocketError::TimedOut),
            ended: chance.below(2) == 0,
            local_down: (chance.below(2) == 0).then_some(true),
            queued: chance.below(2) == 0,
        }
    }

    fn link_world<'a>(chance: &mut Random, pool: &'a [u8]) -> LinkWorld<'a> {
        let span = Span::from_nanos(chance.next_u64());
        LinkWorld::Command(match chance.below(11) {
            0 => return LinkWorld::Received(bytes(chance, pool)),
            1 => return LinkWorld::Ended,
            2 => return LinkWorld::Failed(SocketError::HostUnreachable),
            3 => return LinkWorld::Overflowed,
            4 => return LinkWorld::Warned(SocketError::NetworkUnreachable),
            5 => LinkCommand::Send {
                bytes: bytes(chance, pool),
                more: chance.below(2) == 0,
                kind: DataKind::TwentyOne,
            },
            6 => LinkCommand::HeartbeatData(bytes(chance, pool)),
            7 => LinkCommand::Retune(policy(chance)),
            8 => LinkCommand::Hold(span),
            9 => LinkCommand::Release,
            _ => {
                // `Other` of a byte that has a name must stay `Other`.
                let reason = CloseReason::Other(chance.below(12) as u8);
                LinkCommand::Close(Goodbye { reason, stay_away: true, return_after: span })
            }
        })
    }

    fn input<'a>(chance: &mut Random, pool: &'a [u8]) -> hub::Input<'a> {
        let (link, listener) = (chance.next_u32(), chance.next_u32() as u16);
        let address = if chance.below(2) == 0 {
            SocketAddr::from(([10, 1, 2, chance.below(256) as u8], listener))
        } else {
            let ip = Ipv6Addr::from_bits(u128::from(chance.next_u64()) << 17);
            SocketAddrV6::new(ip, 9, chance.next_u32(), chance.next_u32()).into()
        };
        let world = match chance.below(13) {
            0 => return HubAnswer::Deadline(HubPart::Common).into(),
            1 => return HubAnswer::Deadline(HubPart::Link(link)).into(),
            2 => return HubAnswer::Owned { session: chance.next_u64(), epoch: 9 }.into(),
            3 => return HubAnswer::Examined { link, examination: examination(chance) }.into(),
            4 => HubWorld::Opened { link, listener, address },
            5 => HubWorld::Command(HubCommand::Retune { listener, policy: policy(chance) }),
            6 => HubWorld::Command(HubCommand::Drain {
                limit: Span::from_secs(30),
                reconnect_within: Span::from_millis(7),
            }),
            7 => HubWorld::Command(HubCommand::ReportHeartbeats(chance.below(2) == 0)),
            8 => HubWorld::Identified { link, admission: chance.next_u32() },
            9 => {
                let goodbye = CloseReason::Unauthorized.into();
                HubWorld::Refused { link, admission: chance.next_u32(), goodbye }
            }
            _ => HubWorld::Link { link, input: link_world(chance, pool) },
        };
        world.into()
    }

    #[test]
    fn settings_survive_the_round_trip_and_no_truncated_ones_decode() {
        let mut chance = Random::new(11);
        for _ in 0..200 {
            let listeners = (0..chance.below(4)).map(|_| LinkSettings {
                role: if chance.below(2) == 0 { Role::Probe } else { Role::Watch },
                patience: Patience::new(Some(Span::from_secs(9)), SendState::Closed),
                handshake_timeout: Span::from_millis(chance.next_u32().into()),
                boot_id: BootId([chance.next_u32() as u8; 16]),
                instance_id: InstanceId([chance.next_u32() as u8; 16]),
                wall_origin_ms: chance.next_u64(),
                examines: chance.below(2) == 0,
                hung: Hung::Keep(Span::from_millis(chance.next_u32().into())),
                ..LinkSettings::new(Codec::Message1028, Side::Accepting, policy(&mut chance))
            });
            let listeners = listeners.collect();
            let settings = HubSettings { shard: 7, listeners, seed: 3, frame_memory: 1 << 40 };
            let mut form = Vec::new();
            settings.put(&mut form);
            let mut rest = form.as_slice();
            let again = HubSettings::take(&mut rest).unwrap();
            assert_eq!(alloc::format!("{again:?}"), alloc::format!("{settings:?}"));
            assert!(rest.is_empty());
            let mut part = &form[..chance.below(form.len() as u64) as usize];
            assert_eq!(HubSettings::take(&mut part).err(), Some(Damage::Truncated));
        }
    }

    #[test]
    fn every_input_survives_the_round_trip_and_no_truncated_one_decodes() {
        let pool: Vec<u8> = (0..40).collect();
        let mut chance = Random::new(7);
        for _ in 0..20_000 {
            let input = input(&mut chance, &pool);
            let mut form = Vec::new();
            input.put(&mut form);
            let mut rest = form.as_slice();
            assert_eq!(hub::Input::take(&mut rest), Ok(input));
            assert!(rest.is_empty(), "{input:?}");
            let mut part = &form[..chance.below(form.len() as u64) as usize];
            assert_eq!(hub::Input::take(&mut part), Err(Damage::Truncated), "{input:?}");
        }
    }

    #[test]
    fn unknown_tags_and_illegal_values_are_refused() {
        let take = |bytes: &[u8]| hub::Input::take(&mut { bytes }).map(|_| ());
        assert_eq!(take(&[0, 7]), Err(Damage::UnknownTag));
        assert_eq!(take(&[0, 2, 2, 2]), Err(Damage::UnknownTag), "a bool is 0 or 1");
        let mut zero_idle = Vec::from([0, 2, 0, 0, 0, 1]);
        zero_idle.extend_from_slice(&[0; 17]);
        assert_eq!(take(&zero_idle), Err(Damage::Policy));
    }
}
