//! The plain form of values that are not listed: integers, times, texts, containers, policies and
//! addresses.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use super::{Damage, Plain, Sink, Source};
use crate::time::{Span, Time};

/// Implements `Plain` for integers: little-endian, in full width.
macro_rules! plain_integer {
    ($($type:ident)*) => {$(
        impl Plain<'_> for $type {
            fn put(&self, out: &mut Sink<'_>) {
                out.bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
                let (front, rest) = from.rest.split_first_chunk().ok_or(Damage::Truncated)?;
                from.rest = rest;
                Ok($type::from_le_bytes(*front))
            }
        }
    )*};
}

plain_integer! { u8 u16 u32 u64 u128 }

/// Four bytes of length, then the values. Memory is taken value by value, so that a damaged length
/// takes none.
impl<'a, T: Plain<'a>> Plain<'a> for Vec<T> {
    fn put(&self, out: &mut Sink<'_>) {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        length.put(out);
        self.iter().take(length as usize).for_each(|value| value.put(out));
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        let length = u32::take(from)?;
        (0..length).map(|_| T::take(from)).collect()
    }
}

impl<'a, T: Plain<'a>> Plain<'a> for VecDeque<T> {
    fn put(&self, out: &mut Sink<'_>) {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        length.put(out);
        self.iter().take(length as usize).for_each(|value| value.put(out));
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        Vec::take(from).map(VecDeque::from)
    }
}

/// Four bytes of length, then keys and values. Keys ascend, so that none is lost.
impl<'a, K: Plain<'a> + Ord, V: Plain<'a>> Plain<'a> for BTreeMap<K, V> {
    fn put(&self, out: &mut Sink<'_>) {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        length.put(out);
        for (key, value) in self.iter().take(length as usize) {
            key.put(out);
            value.put(out);
        }
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        let mut map = BTreeMap::new();
        for _ in 0..u32::take(from)? {
            let key = K::take(from)?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(Damage::Illegal);
            }
            map.insert(key, V::take(from)?);
        }
        Ok(map)
    }
}

impl<'a, T: Plain<'a> + Ord> Plain<'a> for BTreeSet<T> {
    fn put(&self, out: &mut Sink<'_>) {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        length.put(out);
        self.iter().take(length as usize).for_each(|value| value.put(out));
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        let length = u32::take(from)?;
        (0..length).map(|_| T::take(from)).collect()
    }
}

impl<'a, A: Plain<'a>, B: Plain<'a>> Plain<'a> for (A, B) {
    fn put(&self, out: &mut Sink<'_>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl Plain<'_> for Ipv4Addr {
    fn put(&self, out: &mut Sink<'_>) {
        self.to_bits().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        u32::take(from).map(Ipv4Addr::from_bits)
    }
}

impl Plain<'_> for Ipv6Addr {
    fn put(&self, out: &mut Sink<'_>) {
        self.to_bits().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        u128::take(from).map(Ipv6Addr::from_bits)
    }
}

/// A size is 64 bits wide everywhere.
impl Plain<'_> for usize {
    fn put(&self, out: &mut Sink<'_>) {
        (*self as u64).put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        usize::try_from(u64::take(from)?).map_err(|_| Damage::UnknownTag)
    }
}

impl Plain<'_> for bool {
    fn put(&self, out: &mut Sink<'_>) {
        u8::from(*self).put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damage::UnknownTag),
        }
    }
}

impl<'a, T: Plain<'a>> Plain<'a> for Option<T> {
    fn put(&self, out: &mut Sink<'_>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        Ok(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

/// A byte string: four bytes of length, then the bytes. No input exceeds 2^32 − 1 bytes.
impl<'a> Plain<'a> for &'a [u8] {
    fn put(&self, out: &mut Sink<'_>) {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        length.put(out);
        out.bytes.extend_from_slice(self.get(..length as usize).unwrap_or_default());
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        let length = u32::take(from)? as usize;
        let (front, rest) = from.rest.split_at_checked(length).ok_or(Damage::Truncated)?;
        from.rest = rest;
        Ok(front)
    }
}

impl<'a> Plain<'a> for &'a str {
    fn put(&self, out: &mut Sink<'_>) {
        self.as_bytes().put(out);
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        core::str::from_utf8(<&[u8]>::take(from)?).map_err(|_| Damage::Illegal)
    }
}

impl Plain<'_> for Box<[u8]> {
    fn put(&self, out: &mut Sink<'_>) {
        (&**self).put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        <&[u8]>::take(from).map(Box::from)
    }
}

impl Plain<'_> for Box<str> {
    fn put(&self, out: &mut Sink<'_>) {
        self.as_bytes().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        let text = core::str::from_utf8(<&[u8]>::take(from)?);
        text.map(Box::from).map_err(|_| Damage::Illegal)
    }
}

impl<'a, T: Plain<'a>> Plain<'a> for Box<T> {
    fn put(&self, out: &mut Sink<'_>) {
        (**self).put(out);
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        T::take(from).map(Box::new)
    }
}

impl<'a, T: Plain<'a> + Copy + Default, const N: usize> Plain<'a> for [T; N] {
    fn put(&self, out: &mut Sink<'_>) {
        self.iter().for_each(|item| item.put(out));
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        let mut items = [T::default(); N];
        for item in &mut items {
            *item = T::take(from)?;
        }
        Ok(items)
    }
}

impl Plain<'_> for Time {
    fn put(&self, out: &mut Sink<'_>) {
        out.time(*self);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        Ok(from.time()?.0)
    }
}

impl Plain<'_> for Span {
    fn put(&self, out: &mut Sink<'_>) {
        self.as_nanos().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        u64::take(from).map(Span::from_nanos)
    }
}

impl Plain<'_> for SocketAddrV4 {
    fn put(&self, out: &mut Sink<'_>) {
        self.ip().to_bits().put(out);
        self.port().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        Ok(SocketAddrV4::new(Ipv4Addr::from_bits(u32::take(from)?), u16::take(from)?))
    }
}

impl Plain<'_> for SocketAddrV6 {
    fn put(&self, out: &mut Sink<'_>) {
        self.ip().to_bits().put(out);
        self.port().put(out);
        self.flowinfo().put(out);
        self.scope_id().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        let ip = Ipv6Addr::from_bits(u128::take(from)?);
        let (port, flowinfo, scope) = (u16::take(from)?, u32::take(from)?, u32::take(from)?);
        Ok(SocketAddrV6::new(ip, port, flowinfo, scope))
    }
}
