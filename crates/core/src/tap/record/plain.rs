//! The plain form of inputs in a record: encoder and decoder from one description.
//!
//! Each enum is listed once, and both directions are generated from the list. A missing variant
//! does not compile.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Damage;
use crate::hub::{HubCommand, Input as HubInput};
use crate::kernel::{Examination, SocketError, TcpSnapshot};
use crate::link::{Command as LinkCommand, Goodbye, Input as LinkInput, SessionKey};
use crate::policy::{Detection, Policy};
use crate::time::{Span, Time};
use crate::wire::{CloseReason, DataKind};

/// A type that has a plain form: bytes in a record.
pub(super) trait Plain<'a>: Sized {
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

plain_enum! { HubInput<'a> {
    0 => Opened { link: link, listener: listener, address: address }
    1 => Link { link: link, input: input }
    2 => Deadline { horizon: horizon }
    3 => Command { 0: command }
    4 => Identified { link: link, admission: admission }
    5 => Refused { link: link, admission: admission, goodbye: goodbye }
    6 => Owned { session: session, epoch: epoch }
} }

plain_enum! { HubCommand<'a> {
    0 => Retune { listener: listener, policy: policy }
    1 => Drain { limit: limit, reconnect_within: reconnect_within }
    2 => ReportHeartbeats { 0: report }
    3 => Send { listener: listener, bytes: bytes, kind: kind }
} }

plain_enum! { LinkInput<'a> {
    0 => Received { 0: bytes }
    1 => Ended {}
    2 => Failed { 0: failure }
    3 => Overflowed {}
    4 => Deadline {}
    5 => Command { 0: command }
    6 => Examined { 0: examination }
    7 => Warned { 0: error }
    8 => Polled {}
    9 => Admitted { 0: key }
    10 => Refused { 0: goodbye }
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

plain_enum! { SocketAddr {
    4 => V4 { 0: address }
    6 => V6 { 0: address }
} }

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

    fn link_input<'a>(chance: &mut Random, pool: &'a [u8]) -> LinkInput<'a> {
        let span = Span::from_nanos(chance.next_u64());
        LinkInput::Command(match chance.below(16) {
            0 => return LinkInput::Received(bytes(chance, pool)),
            1 => return LinkInput::Ended,
            2 => return LinkInput::Failed(SocketError::HostUnreachable),
            3 => return LinkInput::Overflowed,
            4 => return LinkInput::Deadline,
            5 => LinkCommand::Send {
                bytes: bytes(chance, pool),
                more: chance.below(2) == 0,
                kind: DataKind::TwentyOne,
            },
            6 => LinkCommand::HeartbeatData(bytes(chance, pool)),
            7 => LinkCommand::Retune(policy(chance)),
            8 => LinkCommand::Hold(span),
            9 => LinkCommand::Release,
            10 => return LinkInput::Warned(SocketError::NetworkUnreachable),
            11 => return LinkInput::Examined(examination(chance)),
            12 => return LinkInput::Polled,
            13 => {
                let (session, epoch) = (chance.next_u64(), chance.next_u64());
                return LinkInput::Admitted(SessionKey { session, epoch });
            }
            14 => return LinkInput::Refused(CloseReason::Full.into()),
            _ => {
                // `Other` of a byte that has a name must stay `Other`.
                let reason = CloseReason::Other(chance.below(12) as u8);
                LinkCommand::Close(Goodbye { reason, stay_away: true, return_after: span })
            }
        })
    }

    fn input<'a>(chance: &mut Random, pool: &'a [u8]) -> HubInput<'a> {
        let (link, listener) = (chance.next_u32(), chance.next_u32() as u16);
        let address = if chance.below(2) == 0 {
            SocketAddr::from(([10, 1, 2, chance.below(256) as u8], listener))
        } else {
            let ip = Ipv6Addr::from_bits(u128::from(chance.next_u64()) << 17);
            SocketAddrV6::new(ip, 9, chance.next_u32(), chance.next_u32()).into()
        };
        match chance.below(11) {
            0 => HubInput::Opened { link, listener, address },
            1 => HubInput::Deadline { horizon: Time::from_nanos(chance.next_u64()) },
            2 => HubInput::Command(HubCommand::Retune { listener, policy: policy(chance) }),
            3 => HubInput::Command(HubCommand::Drain {
                limit: Span::from_secs(30),
                reconnect_within: Span::from_millis(7),
            }),
            4 => HubInput::Command(HubCommand::ReportHeartbeats(chance.below(2) == 0)),
            5 => HubInput::Identified { link, admission: chance.next_u32() },
            6 => {
                let goodbye = CloseReason::Unauthorized.into();
                HubInput::Refused { link, admission: chance.next_u32(), goodbye }
            }
            7 => HubInput::Owned { session: chance.next_u64(), epoch: chance.next_u64() },
            _ => HubInput::Link { link, input: link_input(chance, pool) },
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
            assert_eq!(HubInput::take(&mut rest), Ok(input));
            assert!(rest.is_empty(), "{input:?}");
            let mut part = &form[..chance.below(form.len() as u64) as usize];
            assert_eq!(HubInput::take(&mut part), Err(Damage::Truncated), "{input:?}");
        }
    }

    #[test]
    fn unknown_tags_and_illegal_values_are_refused() {
        let take = |bytes: &[u8]| HubInput::take(&mut { bytes }).map(|_| ());
        assert_eq!(take(&[7]), Err(Damage::UnknownTag));
        assert_eq!(take(&[3, 2, 2]), Err(Damage::UnknownTag), "a bool is 0 or 1");
        let mut zero_idle = Vec::from([3, 0, 0, 0, 1]);
        zero_idle.extend_from_slice(&[0; 17]);
        assert_eq!(take(&zero_idle), Err(Damage::Policy));
    }
}
