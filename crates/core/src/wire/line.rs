//! The older protocol of text lines: `ping`, the answer `pong`, and any other line as data.

use alloc::vec::Vec;

use super::extent::Extent;
use super::{Beat, DataKind, Frame, Malformed};

/// The maximum length of a line in bytes, line feed included: the native protocol's data limit.
pub const MAX_LINE: usize = 65_536;

/// Appends `frame` to `out` as one line.
///
/// Sequence numbers and business data are not sent. Data is sent unchanged, and the caller must
/// avoid ambiguity: data with a line feed arrives as several lines, and the data `ping` arrives as
/// a PING. Data that ends in a carriage return gets another one, because the decoder ignores one
/// before the line feed; such data may have one byte less. HELLO, WELCOME, RETUNE and CLOSE do not
/// exist in this protocol and append nothing.
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) {
    match frame {
        Frame::Ping(_) => out.extend_from_slice(b"ping\n"),
        Frame::Pong(_) => out.extend_from_slice(b"pong\n"),
        Frame::Data { bytes, more: _, kind: _, rider: _ } => {
            debug_assert!(bytes.len() < MAX_LINE, "data");
            out.reserve(bytes.len() + 2);
            out.extend_from_slice(bytes);
            out.extend_from_slice(if bytes.ends_with(b"\r") { b"\r\n" } else { b"\n" });
        }
        Frame::Hello(_)
        | Frame::Welcome(_)
        | Frame::Ack { .. }
        | Frame::Retune(_)
        | Frame::Close(_) => {}
    }
}

/// Measures a line of which `held` bytes without a line feed arrived before `fresh`.
///
/// Only `fresh` is searched: otherwise a line that arrives byte by byte takes quadratic time.
pub(super) fn extent(held: usize, fresh: &[u8], limit: usize) -> Result<Extent, Malformed> {
    let room = limit.saturating_sub(held);
    match fresh.iter().take(room).position(|&byte| byte == b'\n') {
        Some(position) => Ok(Extent::Whole(held + position + 1)),
        None if fresh.len() >= room => Err(Malformed::TooLong),
        None => Ok(Extent::AtLeast(held + fresh.len() + 1)),
    }
}

/// Decodes one whole line, line feed included.
pub(super) fn parse(bytes: &[u8]) -> Frame<'_> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    match line.strip_suffix(b"\r").unwrap_or(line) {
        b"ping" => Frame::Ping(Beat::bare(0)),
        b"pong" => Frame::Pong(Beat::bare(0)),
        bytes => Frame::data(bytes, false, DataKind::Eleven),
    }
}

/// Returns whether a line is the request line of HTTP, such as `GET / HTTP/1.1` or the preface of
/// HTTP/2: a method in capital letters, a target, and a version.
pub fn is_http_request(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let is_method = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_uppercase);
    method.is_some_and(is_method)
        && target.is_some_and(|word| !word.is_empty())
        && words.next().is_none()
        && match version {
            Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]) => {
                major.is_ascii_digit() && minor.is_ascii_digit()
            }
            Some(_) | None => false,
        }
}
