//! Frames of the native protocol: all headers, and the bodies except those of the handshake.

use alloc::vec::Vec;

use super::extent::Extent;
use super::fields::{self, Fields};
use super::{
    Beat, Close, CloseReason, DataKind, Frame, Hello, MAX_CLOSE_TEXT, MAX_CONTROL, MAX_DATA,
    MAX_HANDSHAKE, MAX_HEARTBEAT_DATA, Malformed, Rider, Welcome, varint,
};

/// The kind byte of a PING with only a sequence number.
pub(super) const BARE_PING: u8 = 0x10;
/// The kind byte of a PONG with only a sequence number.
pub(super) const BARE_PONG: u8 = 0x20;
const HELLO: u8 = 0x30;
const WELCOME: u8 = 0x40;
const DATA: u8 = 0x50;
const RETUNE: u8 = 0x60;
const CLOSE: u8 = 0x70;
const ACK: u8 = 0x80;

const BEAT_TAKEN: u8 = 0x01;
const BEAT_DATA: u8 = 0x02;
const DATA_MORE: u8 = 0x01;
const DATA_TAKEN: u8 = 0x02;
const DATA_HURRIED: u8 = 0x04;
const ACK_HURRIED: u8 = 0x01;
const CLOSE_FINAL: u8 = 0x01;

/// Appends `frame` to `out`.
///
/// The caller must keep to the limits of [`wire`](super). A frame beyond them is appended unchanged
/// and refused by the peer; debug builds panic instead.
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) {
    match frame {
        Frame::Ping(beat) => put_beat(BARE_PING, beat, out),
        Frame::Pong(beat) => put_beat(BARE_PONG, beat, out),
        Frame::Hello(hello) => {
            put_header(HELLO, hello.size(), out);
            hello.write(out);
        }
        Frame::Welcome(welcome) => {
            put_header(WELCOME, welcome.size(), out);
            welcome.write(out);
        }
        Frame::Data { bytes, more, kind: _, rider } => put_data(bytes, *more, *rider, out),
        Frame::Ack { taken, hurried } => {
            out.push(ACK | if *hurried { ACK_HURRIED } else { 0 });
            varint::write(*taken, out);
        }
        Frame::Retune(policy) => {
            put_header(RETUNE, fields::POLICY, out);
            fields::put_policy(policy, out);
        }
        Frame::Close(close) => put_close(close, out),
    }
}

fn put_data(bytes: &[u8], more: bool, rider: Rider, out: &mut Vec<u8>) {
    debug_assert!(bytes.len() <= MAX_DATA, "data");
    let Rider { taken, hurried } = rider;
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags =
        flag(more, DATA_MORE) | flag(taken.is_some(), DATA_TAKEN) | flag(hurried, DATA_HURRIED);
    out.reserve(1 + 5 + 5 + bytes.len());
    out.push(DATA | flags);
    if let Some(taken) = taken {
        varint::write(taken, out);
    }
    fields::put_counted(bytes, out);
}

fn put_beat(kind: u8, beat: &Beat<'_>, out: &mut Vec<u8>) {
    let taken = if beat.taken.is_some() { BEAT_TAKEN } else { 0 };
    let data = if beat.data.is_some() { BEAT_DATA } else { 0 };
    out.extend_from_slice(&[kind | taken | data, beat.sequence]);
    if let Some(taken) = beat.taken {
        varint::write(taken, out);
    }
    if let Some(data) = beat.data {
        debug_assert!(data.len() <= MAX_HEARTBEAT_DATA, "business data");
        fields::put_counted(data, out);
    }
}

fn put_close(close: &Close<'_>, out: &mut Vec<u8>) {
    let text = close.text.as_bytes();
    debug_assert!(text.len() <= MAX_CLOSE_TEXT, "text");
    put_header(CLOSE, 1 + 1 + 4 + fields::counted_size(text), out);
    out.push(close.reason.to_byte());
    out.push(if close.final_ { CLOSE_FINAL } else { 0 });
    fields::put_u32(close.return_after_ms, out);
    fields::put_counted(text, out);
}

fn put_header(kind: u8, length: usize, out: &mut Vec<u8>) {
    out.reserve(1 + 5 + length);
    out.push(kind);
    varint::write(u32::try_from(length).unwrap_or(u32::MAX), out);
}

/// Measures the frame that starts with `bytes`, which is not empty.
///
/// Kind, flags and every length are checked here, as soon as they have arrived.
pub(super) fn extent(bytes: &[u8], max_data: usize) -> Result<Extent, Malformed> {
    let Some(&kind) = bytes.first() else {
        return Ok(Extent::AtLeast(1));
    };
    let (flags, limit) = match kind & 0xf0 {
        BARE_PING | BARE_PONG => (BEAT_TAKEN | BEAT_DATA, MAX_HEARTBEAT_DATA),
        HELLO | WELCOME => (0, MAX_HANDSHAKE),
        DATA => (DATA_MORE | DATA_TAKEN | DATA_HURRIED, max_data),
        RETUNE | CLOSE => (0, MAX_CONTROL),
        ACK => (ACK_HURRIED, 0),
        _ => return Err(Malformed::UnknownKind),
    };
    if kind & 0x0f & !flags != 0 {
        return Err(Malformed::UnknownFlag);
    }
    // Before the length: a sequence number, and the number of messages taken.
    let (mut header, taken, length) = match kind & 0xf0 {
        BARE_PING | BARE_PONG => (2, kind & BEAT_TAKEN != 0, kind & BEAT_DATA != 0),
        DATA => (1, kind & DATA_TAKEN != 0, true),
        ACK => (1, true, false),
        _ => (1, false, true),
    };
    if taken {
        match varint::read(bytes.get(header..).unwrap_or_default())? {
            Some((_, size)) => header += size,
            None => return Ok(Extent::AtLeast(bytes.len().max(header) + 1)),
        }
    }
    if !length {
        return Ok(Extent::Whole(header));
    }
    match varint::read(bytes.get(header..).unwrap_or_default())? {
        Some((length, _)) if length as usize > limit => Err(Malformed::TooLong),
        Some((length, size)) => Ok(Extent::Whole(header + size + length as usize)),
        None => Ok(Extent::AtLeast(bytes.len() + 1)),
    }
}

/// Decodes one frame of the length that [`extent`] returned.
pub(super) fn parse(bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
    let mut frame = Fields(bytes);
    let kind = frame.u8()?;
    match kind & 0xf0 {
        BARE_PING => beat(kind, frame).map(Frame::Ping),
        BARE_PONG => beat(kind, frame).map(Frame::Pong),
        HELLO => Hello::parse(frame.counted(MAX_HANDSHAKE)?).map(Frame::Hello),
        WELCOME => Welcome::parse(frame.counted(MAX_HANDSHAKE)?).map(Frame::Welcome),
        DATA => {
            let is_set = |flag: u8| kind & flag != 0;
            let taken = is_set(DATA_TAKEN).then(|| frame.varint()).transpose()?;
            let hurried = is_set(DATA_HURRIED);
            let bytes = frame.counted(MAX_DATA)?;
            let rider = Rider { taken, hurried };
            Ok(Frame::Data { bytes, more: is_set(DATA_MORE), kind: DataKind::Eleven, rider })
        }
        ACK => Ok(Frame::Ack { taken: frame.varint()?, hurried: kind & ACK_HURRIED != 0 }),
        RETUNE => {
            let mut body = Fields(frame.counted(MAX_CONTROL)?);
            let policy = body.policy()?;
            body.end()?;
            Ok(Frame::Retune(policy))
        }
        CLOSE => close(Fields(frame.counted(MAX_CONTROL)?)).map(Frame::Close),
        _ => Err(Malformed::UnknownKind),
    }
}

fn beat(kind: u8, mut frame: Fields<'_>) -> Result<Beat<'_>, Malformed> {
    let sequence = frame.u8()?;
    let taken = if kind & BEAT_TAKEN != 0 { Some(frame.varint()?) } else { None };
    let data = match kind & BEAT_DATA {
        0 => None,
        _ => Some(frame.counted(MAX_HEARTBEAT_DATA)?),
    };
    Ok(Beat { sequence, taken, data })
}

fn close(mut body: Fields<'_>) -> Result<Close<'_>, Malformed> {
    let reason = CloseReason::from_byte(body.u8()?);
    let final_ = body.flags(CLOSE_FINAL)? & CLOSE_FINAL != 0;
    let return_after_ms = body.u32()?;
    let text = body.text(MAX_CLOSE_TEXT)?;
    body.end()?;
    Ok(Close { reason, final_, return_after_ms, text })
}
