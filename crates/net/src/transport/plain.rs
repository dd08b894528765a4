//! The transport that changes nothing: the bytes of the connection are the plaintext.

use super::{End, Held, Opened, Transport};

/// The plain transport. It owns nothing and copies nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plain;

impl Transport for Plain {
    #[inline]
    fn open(&mut self, _: &mut [u8], received: usize) -> Opened {
        Opened::Plaintext(received)
    }

    #[inline]
    fn holds_more(&self) -> bool {
        false
    }

    #[inline]
    fn has_closed(&self) -> bool {
        false
    }

    #[inline]
    fn held(&self) -> Held {
        Held::default()
    }

    fn end(&mut self) -> Option<End> {
        Some(End::Closed)
    }

    #[inline]
    fn seal<'a>(&'a mut self, plaintext: &'a [u8]) -> &'a [u8] {
        plaintext
    }

    #[inline]
    fn sent(&mut self, count: usize) -> usize {
        count
    }

    #[inline]
    fn has_unsent(&self) -> bool {
        false
    }

    #[inline]
    fn is_open(&self) -> bool {
        true
    }

    fn finish(&mut self) {}
}
