//! Tests of beacons: the datagrams against `docs/protocol.md`, and a simulated fleet of devices on
//! a network with loss, duplicates, delay and replays.

mod fleet;

use systole_core::beacon::{
    BadDatagram, CHALLENGE_REST, DATAGRAM, Datagram, GROUP, KICK_REST, KICKED, Reply, SIGNED, Says,
    Statement, TAG,
};

use crate::document;

const DEVICE: u64 = 0x0123_4567_89ab_cdef;
const CHALLENGE: u32 = 0xc0ff_ee01;

/// Returns the title and the datagram of each legal block.
fn meanings() -> [(&'static str, Datagram); 4] {
    let said = Statement {
        device: DEVICE,
        challenge: CHALLENGE,
        counter: 7,
        status: 0x61,
        leaving: false,
    };
    let goodbye = Statement { counter: 8, leaving: true, ..said };
    let answer = |challenge, says| Datagram::Reply(Reply { device: DEVICE, challenge, says });
    let statement = "statement of 0123456789abcdef, challenge c0ffee01, counter 7, status 0061";
    let heard = Says::Heard { counter: 7, bound_tenths: 300 };
    let again = Says::Again { above: 41, echo: 7 };
    [
        (statement, Datagram::Statement(said)),
        ("goodbye, counter 8", Datagram::Statement(goodbye)),
        ("heard, counter 7, bound 30 s", answer(CHALLENGE, heard)),
        ("again, under challenge c0ffee02, counters above 41", answer(CHALLENGE + 1, again)),
    ]
}

const FAULTS: [(&str, BadDatagram); 5] = [
    ("shorter than 32 bytes", BadDatagram::Length),
    ("longer than 32 bytes", BadDatagram::Length),
    ("unknown kind", BadDatagram::Kind),
    ("unknown flag on a statement", BadDatagram::Flag),
    ("unknown flag on an answer", BadDatagram::Flag),
];

#[test]
fn each_beacon_block_is_one_datagram_and_encodes_to_the_same_bytes() {
    let blocks = document::blocks_marked("beacon", "beacon-illegal");
    let (illegal, legal): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|block| block.illegal);
    assert_eq!(legal.len(), meanings().len());
    for (block, (title, meaning)) in legal.iter().zip(meanings()) {
        assert_eq!(block.title, title);
        let (datagram, tag) = Datagram::decode(&block.bytes).unwrap();
        assert_eq!(datagram, meaning, "{title}");
        assert_eq!([&datagram.encode()[..], &tag].concat(), block.bytes, "{title}");
    }
    assert_eq!(illegal.len(), FAULTS.len());
    for (block, (title, fault)) in illegal.iter().zip(FAULTS) {
        assert_eq!(block.title, title);
        assert_eq!(Datagram::decode(&block.bytes), Err(fault), "{title}");
    }
}

#[test]
fn the_beacon_constants_match_the_document() {
    let text = document::text().split_whitespace().collect::<Vec<_>>().join(" ");
    for sentence in [
        format!("Each datagram is {DATAGRAM} bytes long"),
        format!("the first {TAG} bytes of HMAC-SHA256"),
        format!("over the {SIGNED} bytes before it"),
        format!("a group for each {GROUP} devices that may be online"),
        format!("at most once in {} s", CHALLENGE_REST.as_millis() / 1_000),
        format!("of that device for {} s without", KICK_REST.as_millis() / 1_000),
        format!("the last {},{:03} such devices", KICKED / 1_000, KICKED % 1_000),
    ] {
        assert!(text.contains(&sentence), "{sentence}");
    }
}
