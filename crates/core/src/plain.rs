//! The plain form of values: encoder and decoder from one description.
//!
//! A record holds inputs in this form, and a saved state holds parts of machines. Each type lists
//! its fields once, beside its definition, and both directions are generated from the list: a
//! missing variant or field does not compile.
//!
//! In a state, times are relative to the time at which it is saved, so that it can be loaded on
//! another clock. See [`Sink::state`] and [`Source::state`].

mod damage;
mod values;

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

pub use damage::Damage;

use crate::time::{Span, Time};

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
    ($type:ident $(<$life:lifetime>)? { $($field:ident),* } $(if $check:path)?) => {
        $crate::plain::plain_struct! {
            $type $(<$life>)? { $($field: $field),* } $(if $check)?
        }
    };
    ($type:ident $(<$life:lifetime>)? { $($field:tt: $name:ident),* } $(if $check:path)?) => {
        impl<'a> $crate::plain::Plain<'a> for $type $(<$life>)? {
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

plain_enum! { IpAddr {
    4 => V4 { 0: address }
    6 => V6 { 0: address }
} }

plain_enum! { SocketAddr {
    4 => V4 { 0: address }
    6 => V6 { 0: address }
} }

#[cfg(test)]
mod tests;
