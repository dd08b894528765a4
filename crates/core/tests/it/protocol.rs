//! Tests of the codecs against `docs/protocol.md`.

use systole_core::resume::NotResumed;
use systole_core::window::Limits;
use systole_core::wire::{
    self, Account, Beat, BootId, Close, CloseReason, Codec, DataKind, Decoder, Frame, Hello,
    InstanceId, Malformed, Rider, Saw, Welcome,
};
use systole_core::{Policy, Span};

use crate::document;

const HEARTBEAT_DATA: &str = "PING sequence 8, business data \"hp=97\"";
const HEARTBEAT_ALL: &str = "PONG sequence 8, 300 messages acknowledged, business data \"ok\"";
const HELLO: &str =
    "HELLO identity \"ada\", no token, asking for idle 10 s, interval 3 s, 3 probes";
const RETURNING: &str = "HELLO identity \"ada\", back after a reset";
const WELCOME: &str =
    "WELCOME session 0x0100000500000003, epoch 9, idle 15 s, interval 5 s, 3 probes";
const WINDOWS: &str = "WELCOME to a session with windows of 1,024 messages and 262,144 bytes";
const BACK: &str = "WELCOME back to a session with windows: 300 messages received, none dropped";
const KICKED: &str = "CLOSE kicked, do not come back, \"maintenance\"";

/// Returns the title and the frame of each legal block. A title missing here or in the document
/// fails a test.
fn meanings() -> Vec<(&'static str, Frame<'static>)> {
    let data = |bytes, more| Frame::data(bytes, more, DataKind::Eleven);
    let limits = Limits { messages: 1_024, bytes: 262_144 };
    let rider = Rider { taken: Some(300), hurried: true };
    let hurried = Frame::Data { bytes: b"hello", more: false, kind: DataKind::Eleven, rider };
    let close = |reason, final_, return_after_ms, text| {
        Frame::Close(Close { reason, final_, return_after_ms, text })
    };
    vec![
        ("PING sequence 7", Frame::Ping(Beat::bare(7))),
        ("PONG sequence 7", Frame::Pong(Beat::bare(7))),
        (HEARTBEAT_DATA, Frame::Ping(Beat { data: Some(b"hp=97"), ..Beat::bare(8) })),
        (HEARTBEAT_ALL, Frame::Pong(Beat { sequence: 8, taken: Some(300), data: Some(b"ok") })),
        (HELLO, Frame::Hello(hello())),
        (RETURNING, Frame::Hello(returning())),
        (WELCOME, Frame::Welcome(welcome())),
        ("DATA \"hello\"", data(b"hello", false)),
        ("DATA first piece \"hel\"", data(b"hel", true)),
        ("DATA last piece \"lo\"", data(b"lo", false)),
        (WINDOWS, Frame::Welcome(Welcome { windows: Some(limits), ..welcome() })),
        (BACK, Frame::Welcome(back(limits))),
        ("DATA \"hello\", 300 messages acknowledged, to be acknowledged at once", hurried),
        ("ACK of 300 messages", Frame::Ack { taken: 300, hurried: false }),
        ("ACK of 5 messages, to be answered at once", Frame::Ack { taken: 5, hurried: true }),
        ("RETUNE idle 2 s, interval 1 s, 3 probes", Frame::Retune(policy(2, 1, 3))),
        ("RETUNE never", Frame::Retune(Policy::never())),
        ("CLOSE drained, come back after 2,500 ms", close(CloseReason::Drained, false, 2_500, "")),
        (KICKED, close(CloseReason::Kicked, true, 0, "maintenance")),
    ]
}

/// The title and the expected error of each illegal block.
const FAULTS: [(&str, Malformed); 16] = [
    ("unknown kind", Malformed::UnknownKind),
    ("unknown type", Malformed::UnknownKind),
    ("unknown flag on PING", Malformed::UnknownFlag),
    ("unknown flag on CLOSE's kind", Malformed::UnknownFlag),
    ("varint longer than necessary", Malformed::Varint),
    ("DATA longer than 65,536", Malformed::TooLong),
    ("business data longer than 1,024", Malformed::TooLong),
    ("RETUNE with interval zero", Malformed::Policy),
    ("RETUNE that is too short", Malformed::Truncated),
    ("CLOSE with bytes left over", Malformed::LeftOver),
    ("CLOSE whose text is not UTF-8", Malformed::NotText),
    ("CLOSE whose text has an escape", Malformed::ControlCharacter),
    ("HELLO whose identity has a line feed", Malformed::ControlCharacter),
    ("HELLO whose identity has a DEL", Malformed::ControlCharacter),
    ("HELLO whose identity has a control character beyond ASCII", Malformed::ControlCharacter),
    ("HELLO with another magic", Malformed::Magic),
];

fn policy(idle_s: u64, interval_s: u64, probes: u8) -> Policy {
    Policy::new(Span::from_secs(idle_s), Span::from_secs(interval_s), probes).unwrap()
}

fn hello() -> Hello<'static> {
    Hello {
        asks: Some(policy(10, 3, 3)),
        resume: None,
        account: None,
        capabilities: 0,
        boot_id: BootId(std::array::from_fn(|index| 0xb0 + index as u8)),
        instance_id: InstanceId(std::array::from_fn(|index| 0xa0 + index as u8)),
        identity: "ada",
        token: b"",
    }
}

fn returning() -> Hello<'static> {
    let account = Account {
        session: 0x0100_0005_0000_0003,
        saw: Saw::Reset,
        silent_ms: 1_250,
        ended_ms: 420,
        absent_ms: 300,
        suspended_ms: 100,
    };
    Hello { asks: None, account: Some(account), ..hello() }
}

fn welcome() -> Welcome<'static> {
    Welcome {
        resumption: wire::Resumption::NotAsked,
        windows: None,
        boot_id: BootId(std::array::from_fn(|index| 0xc0 + index as u8)),
        instance_id: InstanceId(std::array::from_fn(|index| 0xd0 + index as u8)),
        session: 0x0100_0005_0000_0003,
        epoch: 9,
        received: 0,
        server_time_ms: 1_700_000_000_000,
        resume_window_ms: 0,
        largest_data: 65_536,
        policy: policy(15, 5, 3),
        resume_token: b"",
    }
}

fn back(limits: Limits) -> Welcome<'static> {
    Welcome {
        resumption: wire::Resumption::Resumed { gap: 0 },
        windows: Some(limits),
        received: 300,
        resume_window_ms: 30_000,
        resume_token: &[
            0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xeb, 0xec, 0xed,
            0xee, 0xef,
        ],
        ..welcome()
    }
}

/// Feeds the pieces; returns whether exactly the frame `expected` was decoded, at the last byte.
fn decodes_to(pieces: &[&[u8]], expected: &Frame<'_>) -> bool {
    let mut decoder = Decoder::new(Codec::Native, wire::MAX_DATA as u32);
    let mut seen = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let mut input = *piece;
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            assert_eq!(index + 1, pieces.len(), "a frame before its last byte");
            assert_eq!(&frame, expected);
            seen += 1;
        }
        assert!(input.is_empty(), "None means that all input is consumed");
    }
    seen == 1 && decoder.held() == 0
}

/// Feeds the pieces and returns the first error.
fn first_error(pieces: &[&[u8]]) -> Option<Malformed> {
    let mut decoder = Decoder::new(Codec::Native, wire::MAX_DATA as u32);
    pieces.iter().find_map(|piece| decode_all(&mut decoder, piece).err())
}

fn decode_all(decoder: &mut Decoder, mut input: &[u8]) -> Result<(), Malformed> {
    while decoder.next(&mut input)?.is_some() {}
    Ok(())
}

#[test]
fn each_legal_block_is_one_frame_and_encodes_to_the_same_bytes() {
    let meanings = meanings();
    let blocks: Vec<_> = document::blocks().into_iter().filter(|it| !it.illegal).collect();
    assert_eq!(blocks.len(), meanings.len(), "blocks in the document and in this test");
    for block in blocks {
        let title = &block.title;
        let (_, expected) = meanings
            .iter()
            .find(|(known, _)| known == title)
            .unwrap_or_else(|| panic!("no meaning is given for the block {title:?}"));
        assert!(decodes_to(&[&block.bytes], expected), "{title}");
        let mut encoded = Vec::new();
        Codec::Native.encode(expected, &mut encoded);
        assert_eq!(encoded, block.bytes, "{title}");
        for position in 0..=block.bytes.len() {
            let (front, back) = block.bytes.split_at(position);
            let last = if back.is_empty() { vec![front] } else { vec![front, back] };
            assert!(decodes_to(&last, expected), "{title} cut at {position}");
        }
        let bytes: Vec<&[u8]> = block.bytes.chunks(1).collect();
        assert!(decodes_to(&bytes, expected), "{title} byte by byte");
    }
}

#[test]
fn each_illegal_block_is_refused_for_its_reason() {
    let blocks: Vec<_> = document::blocks().into_iter().filter(|it| it.illegal).collect();
    assert_eq!(blocks.len(), FAULTS.len(), "blocks in the document and in this test");
    for block in blocks {
        let title = &block.title;
        let (_, expected) = FAULTS
            .iter()
            .find(|(known, _)| known == title)
            .unwrap_or_else(|| panic!("no fault is given for the block {title:?}"));
        assert_eq!(first_error(&[&block.bytes]), Some(*expected), "{title}");
        let bytes: Vec<&[u8]> = block.bytes.chunks(1).collect();
        assert_eq!(first_error(&bytes), Some(*expected), "{title} byte by byte");
    }
}

#[test]
fn the_limits_match_the_document() {
    let limit = |number: &str, unit| format!("{number} bytes{unit}");
    let expected = [
        ("body of HELLO, WELCOME", limit(&grouped(wire::MAX_HANDSHAKE), "")),
        ("body of RETUNE, CLOSE", limit(&grouped(wire::MAX_CONTROL), "")),
        ("body of DATA", limit(&grouped(wire::MAX_DATA), ", or less if WELCOME says so")),
        ("business data in PING, PONG", limit(&grouped(wire::MAX_HEARTBEAT_DATA), "")),
    ];
    let rows = document::table("| bound |");
    assert_eq!(rows, expected.map(|(name, value)| (name.to_owned(), value)));
    let text = document::text().replace('\n', " ");
    for sentence in [
        format!("| from WELCOME, at most {} bytes;", wire::MAX_RESUME_TOKEN),
        format!("text, at most {} bytes; may be empty", wire::MAX_IDENTITY),
        format!("opaque, at most {} bytes;", grouped(wire::MAX_TOKEN)),
        format!("for people, at most {} bytes;", wire::MAX_CLOSE_TEXT),
        format!("A line is at most {} bytes long", grouped(wire::line::MAX_LINE)),
        format!("Messages of exactly {} bytes", grouped(wire::message1028::MESSAGE)),
    ] {
        assert!(text.contains(&sentence), "{sentence}");
    }
}

/// Formats a number as the document does: 65,536.
fn grouped(number: usize) -> String {
    if number < 1_000 {
        return number.to_string();
    }
    format!("{},{:03}", number / 1_000, number % 1_000)
}

#[test]
fn the_close_reasons_match_the_document() {
    let rows = document::table("| reason | name |");
    assert_eq!(rows.len(), 10);
    for (byte, name) in rows {
        let reason = CloseReason::from_byte(byte.parse().unwrap());
        assert_eq!(reason.name(), name);
        assert_eq!(reason.to_byte().to_string(), byte);
    }
}

#[test]
fn the_outcomes_of_a_resumption_match_the_document() {
    let rows = document::table("| outcome | name |");
    assert_eq!(rows.len(), NotResumed::ALL.len());
    for (code, name) in rows {
        let why = NotResumed::from_code(code.parse().unwrap());
        assert_eq!((why.name(), why.code().to_string()), (&*name, code));
    }
}

#[test]
fn the_saw_values_of_an_account_match_the_document() {
    let rows = document::table("| saw | name |");
    assert_eq!(rows.len(), 11);
    for (byte, name) in rows {
        let saw = Saw::from_byte(byte.parse().unwrap());
        assert_eq!(saw.name(), name);
        assert_eq!(saw.to_byte().to_string(), byte);
    }
}

#[test]
fn unused_fields_of_hello_must_be_empty() {
    let mut bytes = Vec::new();
    Codec::Native.encode(&Frame::Hello(Hello { asks: None, ..hello() }), &mut bytes);
    assert_eq!(first_error(&[&bytes]), None);
    let body = 2;
    let (session, policy, account) = (body + 42, body + 66, body + 84);
    let fields = [session, session + 8, session + 16, policy, policy + 17, account, account + 24];
    for position in fields {
        let mut spoilt = bytes.clone();
        spoilt[position] = 1;
        assert_eq!(first_error(&[&spoilt]), Some(Malformed::LeftOver), "byte {position}");
    }
    let mut spoilt = bytes.clone();
    spoilt[body + 109] = 1;
    assert_eq!(first_error(&[&spoilt]), Some(Malformed::LeftOver), "resume token");
}

#[test]
fn another_version_is_distinguished_from_another_protocol() {
    for (frame, version) in [(Frame::Hello(hello()), 2 + 4), (Frame::Welcome(welcome()), 2)] {
        let mut bytes = Vec::new();
        Codec::Native.encode(&frame, &mut bytes);
        bytes[version] = 2;
        assert_eq!(first_error(&[&bytes]), Some(Malformed::Version));
    }
    assert_eq!(
        first_error(&[b"\x30\x05SYS1\x02"]),
        Some(Malformed::Version),
        "with another length"
    );
}

#[test]
fn the_data_limit_in_welcome_must_be_in_range() {
    let mut bytes = Vec::new();
    Codec::Native.encode(&Frame::Welcome(welcome()), &mut bytes);
    let largest = 2 + 1 + 1 + 4 + 32 + 32 + 4;
    for (value, expected) in [
        (0_u32, Some(Malformed::TooLong)),
        (1, None),
        (65_536, None),
        (65_537, Some(Malformed::TooLong)),
    ] {
        bytes[largest..largest + 4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(first_error(&[&bytes]), expected, "largest data {value}");
    }
}
