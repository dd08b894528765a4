//! A generator of random frames and bytes from a seed.

use systole_core::policy::MAX_PROBES;
use systole_core::resume::NotResumed;
use systole_core::window::Limits;
use systole_core::wire::{
    Account, Beat, BootId, Close, CloseReason, Codec, DataKind, Frame, Hello, InstanceId,
    MAX_CLOSE_TEXT, MAX_DATA, MAX_HEARTBEAT_DATA, MAX_IDENTITY, MAX_RESUME_TOKEN, MAX_TOKEN,
    Resume, Resumption, Rider, Saw, Welcome, line, message1028,
};
use systole_core::{Policy, Span};

/// A SplitMix64 generator: small, seedable, and good enough to choose test cases.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Returns a number in `0..=max`.
    pub(crate) fn up_to(&mut self, max: usize) -> usize {
        (self.next() % (max as u64 + 1)) as usize
    }

    pub(crate) fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Returns a number of random magnitude, so that small values are as likely as large ones.
    fn number(&mut self) -> u64 {
        let bits = self.up_to(63);
        self.next() >> bits
    }

    /// Returns a length of at max `max`: zero, short, any, or the maximum.
    fn length(&mut self, max: usize) -> usize {
        match self.up_to(9) {
            0 => 0,
            1 => self.up_to(max),
            2 if max <= 1_024 || self.up_to(20) == 0 => max,
            _ => self.up_to(max.min(40)),
        }
    }

    fn array(&mut self) -> [u8; 16] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// A pool of random bytes and text that frames borrow from.
pub(crate) struct Pool {
    bytes: Vec<u8>,
    text: String,
}

impl Pool {
    pub(crate) fn new(random: &mut Random) -> Pool {
        let bytes = (0..MAX_DATA).map(|_| random.next() as u8).collect();
        let text = "aé→🙂 z".repeat(20);
        Pool { bytes, text }
    }

    fn bytes(&self, random: &mut Random, max: usize) -> &[u8] {
        let length = random.length(max);
        let start = random.up_to(self.bytes.len() - length);
        &self.bytes[start..start + length]
    }

    fn text(&self, random: &mut Random, max: usize) -> &str {
        let mut length = random.length(max);
        while !self.text.is_char_boundary(length) {
            length -= 1;
        }
        &self.text[..length]
    }
}

/// Returns a random frame that `codec` can express without loss.
pub(crate) fn frame<'a>(codec: Codec, random: &mut Random, pool: &'a Pool) -> Frame<'a> {
    match (codec, random.up_to(9)) {
        (Codec::Native, 0) => Frame::Hello(hello(random, pool)),
        (Codec::Native, 1) => Frame::Welcome(welcome(random, pool)),
        (Codec::Native, 2) => Frame::Retune(policy(random)),
        (Codec::Native, 3) => Frame::Close(close(random, pool)),
        (Codec::Native, 4) => Frame::Ack { taken: random.number() as u32, hurried: random.flip() },
        (_, 0..=4) => Frame::Ping(beat(codec, random, pool)),
        (_, 5..=6) => Frame::Pong(beat(codec, random, pool)),
        (Codec::Native, _) => Frame::Data {
            bytes: pool.bytes(random, MAX_DATA),
            more: random.flip(),
            kind: DataKind::Eleven,
            rider: Rider {
                taken: random.flip().then(|| random.number() as u32),
                hurried: random.flip(),
            },
        },
        (Codec::Message1028, _) => {
            let kind = if random.flip() { DataKind::Eleven } else { DataKind::TwentyOne };
            let start = random.up_to(pool.bytes.len() - message1028::MAX_DATA);
            let bytes = &pool.bytes[start..start + message1028::MAX_DATA];
            Frame::data(bytes, false, kind)
        }
        (Codec::Line, _) => {
            Frame::data(one_line(pool.bytes(random, line::MAX_LINE - 2)), false, DataKind::Eleven)
        }
    }
}

fn one_line(bytes: &[u8]) -> &[u8] {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if line == b"ping" || line == b"pong" { &[] } else { line }
}

fn beat<'a>(codec: Codec, random: &mut Random, pool: &'a Pool) -> Beat<'a> {
    if codec != Codec::Native {
        return Beat::bare(0);
    }
    let sequence = random.next() as u8;
    let taken = random.flip().then(|| random.number() as u32);
    let data = random.flip().then(|| pool.bytes(random, MAX_HEARTBEAT_DATA));
    Beat { sequence, taken, data }
}

fn limits(random: &mut Random) -> Limits {
    Limits { messages: random.number() as u32 | 1, bytes: random.number() as u32 | 1 }
}

fn hello<'a>(random: &mut Random, pool: &'a Pool) -> Hello<'a> {
    let resume = random.flip().then(|| Resume {
        session: random.number(),
        epoch: random.number(),
        received: random.number(),
        token: pool.bytes(random, MAX_RESUME_TOKEN),
    });
    Hello {
        asks: random.flip().then(|| policy(random)),
        resume,
        account: random.flip().then(|| account(random)),
        capabilities: random.number() as u32,
        boot_id: BootId(random.array()),
        instance_id: InstanceId(random.array()),
        identity: pool.text(random, MAX_IDENTITY),
        token: pool.bytes(random, MAX_TOKEN),
    }
}

fn account(random: &mut Random) -> Account {
    Account {
        session: random.number(),
        saw: Saw::from_byte(random.number() as u8),
        silent_ms: random.number() as u32,
        ended_ms: random.number() as u32,
        absent_ms: random.number() as u32,
        suspended_ms: random.number() as u32,
    }
}

fn resumption(random: &mut Random) -> Resumption {
    match random.up_to(2) {
        0 => Resumption::NotAsked,
        1 => Resumption::Resumed { gap: random.number() as u32 },
        _ => Resumption::Refused(NotResumed::ALL[random.up_to(4)]),
    }
}

fn welcome<'a>(random: &mut Random, pool: &'a Pool) -> Welcome<'a> {
    Welcome {
        resumption: resumption(random),
        windows: random.flip().then(|| limits(random)),
        boot_id: BootId(random.array()),
        instance_id: InstanceId(random.array()),
        session: random.number(),
        epoch: random.number(),
        received: random.number(),
        server_time_ms: random.number(),
        resume_window_ms: random.number() as u32,
        largest_data: 1 + random.up_to(MAX_DATA - 1) as u32,
        policy: policy(random),
        resume_token: pool.bytes(random, MAX_RESUME_TOKEN),
    }
}

fn policy(random: &mut Random) -> Policy {
    let enforce = random.flip();
    let idle = Span::from_millis(1 + (random.number() >> 25));
    let interval = Span::from_millis(1 + (random.number() >> 32));
    let probes = 1 + random.up_to(usize::from(MAX_PROBES) - 1) as u8;
    let policy = if random.up_to(9) == 0 { None } else { Policy::new(idle, interval, probes).ok() };
    policy.unwrap_or(Policy::never()).with_enforce(enforce)
}

fn close<'a>(random: &mut Random, pool: &'a Pool) -> Close<'a> {
    Close {
        reason: CloseReason::from_byte(random.number() as u8),
        final_: random.flip(),
        return_after_ms: random.number() as u32,
        text: pool.text(random, MAX_CLOSE_TEXT),
    }
}
