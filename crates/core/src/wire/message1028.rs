//! The older protocol of 1,028-byte messages: a big-endian type, then 1,024 bytes of data.

use alloc::vec::Vec;

use super::extent::Extent;
use super::{Beat, DataKind, Frame, Malformed};

/// The length of a message's data in bytes; shorter data is padded with zeros.
pub const MAX_DATA: usize = 1_024;
/// The length of a whole message in bytes.
pub const MESSAGE: usize = TYPE + MAX_DATA;

const TYPE: usize = 4;
const PING: u32 = 1;
const PONG: u32 = 2;
const ELEVEN: u32 = 11;
const TWENTY_ONE: u32 = 21;
/// The type of a PONG in the wrong byte order, which some implementations send: accepted, never
/// sent.
const PONG_SWAPPED: u32 = PONG.swap_bytes();

/// Appends `frame` to `out` as one message.
///
/// PING and PONG carry zeros: sequence numbers and business data are not sent. Data is padded with
/// zeros, so the peer always receives [`MAX_DATA`] bytes; `more` is not sent. The caller must avoid
/// data beyond [`MAX_DATA`], which is cut off (debug builds panic). HELLO, WELCOME, RETUNE and
/// CLOSE do not exist in this protocol and append nothing.
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) {
    let (message_type, data): (u32, &[u8]) = match frame {
        Frame::Ping(_) => (PING, &[]),
        Frame::Pong(_) => (PONG, &[]),
        Frame::Data { bytes, kind: DataKind::Eleven, .. } => (ELEVEN, bytes),
        Frame::Data { bytes, kind: DataKind::TwentyOne, .. } => (TWENTY_ONE, bytes),
        Frame::Hello(_)
        | Frame::Welcome(_)
        | Frame::Ack { .. }
        | Frame::Retune(_)
        | Frame::Close(_) => return,
    };
    debug_assert!(data.len() <= MAX_DATA, "data");
    let end = out.len() + MESSAGE;
    out.reserve(MESSAGE);
    out.extend_from_slice(&message_type.to_be_bytes());
    out.extend_from_slice(data);
    out.resize(end, 0);
}

/// Measures the message that starts with `bytes`; an unknown type is refused as soon as it arrives.
pub(super) fn extent(bytes: &[u8]) -> Result<Extent, Malformed> {
    match bytes.first_chunk() {
        None => Ok(Extent::AtLeast(TYPE)),
        Some(front) => match u32::from_be_bytes(*front) {
            PING | PONG | PONG_SWAPPED | ELEVEN | TWENTY_ONE => Ok(Extent::Whole(MESSAGE)),
            _ => Err(Malformed::UnknownKind),
        },
    }
}

/// Decodes one message of the length that [`extent`] returned.
pub(super) fn parse(bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
    let (front, data) = bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
    match u32::from_be_bytes(*front) {
        PING => Ok(Frame::Ping(Beat::bare(0))),
        PONG | PONG_SWAPPED => Ok(Frame::Pong(Beat::bare(0))),
        ELEVEN => Ok(Frame::data(data, false, DataKind::Eleven)),
        TWENTY_ONE => Ok(Frame::data(data, false, DataKind::TwentyOne)),
        _ => Err(Malformed::UnknownKind),
    }
}
