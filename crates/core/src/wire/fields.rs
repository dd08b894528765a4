//! Reading and writing the fields of a frame body, in order.

use alloc::vec::Vec;

use super::{Malformed, is_text, varint};
use crate::policy::{Detection, Policy};
use crate::time::Span;

/// The encoded length of a policy in bytes.
pub(super) const POLICY: usize = 18;

/// The policy flag for an unenforced bound: the verdict is only reported.
const REPORT_ONLY: u8 = 0x01;

/// A reader of fields; holds the rest of a body.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*front)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a byte of flags, of which only those in `known` may be set.
    pub(super) fn flags(&mut self, known: u8) -> Result<u8, Malformed> {
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(Malformed::UnknownFlag) }
    }

    pub(super) fn varint(&mut self) -> Result<u32, Malformed> {
        let (value, length) = varint::read(self.0)?.ok_or(Malformed::Truncated)?;
        self.bytes(length)?;
        Ok(value)
    }

    /// Reads a varint length of at most `limit`, and that many bytes.
    pub(super) fn counted(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let length = self.varint()? as usize;
        if length > limit {
            return Err(Malformed::TooLong);
        }
        self.bytes(length)
    }

    /// Reads a field as [`Fields::counted`] does, and checks that it is UTF-8 without control
    /// characters: what prints it must not be controlled by it.
    pub(super) fn text(&mut self, limit: usize) -> Result<&'a str, Malformed> {
        let bytes = self.counted(limit)?;
        let text = core::str::from_utf8(bytes).map_err(|_| Malformed::NotText)?;
        if is_text(text) { Ok(text) } else { Err(Malformed::ControlCharacter) }
    }

    pub(super) fn policy(&mut self) -> Result<Policy, Malformed> {
        let (idle_ms, interval_ms, probes) = (self.u64()?, self.u64()?, self.u8()?);
        let flags = self.flags(REPORT_ONLY)?;
        let policy = if (idle_ms, interval_ms, probes) == (0, 0, 0) {
            Policy::never()
        } else {
            let (idle, interval) = (Span::from_millis(idle_ms), Span::from_millis(interval_ms));
            Policy::new(idle, interval, probes).map_err(|_| Malformed::Policy)?
        };
        Ok(policy.with_enforce(flags & REPORT_ONLY == 0))
    }

    /// Checks that no bytes are left.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::LeftOver) }
    }
}

/// Returns a length for the wire. All lengths are far below 2^32; see the limits of `wire`.
pub(super) fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Returns the number of bytes that [`put_counted`] appends.
pub(super) fn counted_size(bytes: &[u8]) -> usize {
    varint::size(length(bytes)) + bytes.len()
}

pub(super) fn put_counted(bytes: &[u8], out: &mut Vec<u8>) {
    varint::write(length(bytes), out);
    out.extend_from_slice(bytes);
}

pub(super) fn put_u32(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_policy(policy: &Policy, out: &mut Vec<u8>) {
    let (idle, interval, probes) = match policy.detection() {
        Detection::Never => (Span::ZERO, Span::ZERO, 0),
        Detection::Bounded { idle, interval, probes } => (idle, interval, probes),
    };
    put_u64(idle.as_millis(), out);
    put_u64(interval.as_millis(), out);
    out.push(probes);
    out.push(if policy.enforce() { 0 } else { REPORT_ONLY });
}
