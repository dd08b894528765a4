//! How much a peer may send, by the definition in docs/abuse.md: in any span of time what the rate
//! allows in it, and ten seconds of the rate more.

use systole_core::Time;
use systole_core::link::Rates;
use systole_core::random::Random;

/// The seconds of the rate that a peer may send at once.
const AHEAD: i128 = 10;

const SECOND: i128 = 1_000_000_000;

/// What a peer has sent too much of, as its CLOSE says.
pub(super) const EXCESSES: [&str; 3] =
    ["too many messages", "too many bytes", "too many heartbeats"];

/// What a peer has sent of one kind, each time in billionths.
#[derive(Clone, Copy, Debug)]
struct Sent {
    rate: i128,
    total: i128,
    /// The least of what had been sent before each moment, less what the rate allows up to it: the
    /// span that begins at that moment is the fullest one.
    least: Option<i128>,
}

impl Sent {
    fn new(rate: u32) -> Sent {
        Sent { rate: rate.into(), total: 0, least: None }
    }

    /// Counts what was sent at `now`. Returns whether some span of time that ends now has too much.
    fn add(&mut self, now: Time, count: u64) -> bool {
        let allowed = self.rate * i128::from(now.as_nanos());
        let before = self.total - allowed;
        let least = self.least.map_or(before, |least| least.min(before));
        self.least = Some(least);
        self.total += i128::from(count) * SECOND;
        self.rate > 0 && self.total - allowed - least > AHEAD * self.rate * SECOND
    }
}

/// What one peer has sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    rates: Rates,
    sent: [Sent; 3],
    /// Whether it was told its policy since it sent too many heartbeats.
    pub(super) told: bool,
}

/// What follows from what a peer has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Excess {
    None,
    /// It is told its policy again.
    Tell,
    /// Its link ends, for each of these that is set.
    End([bool; 3]),
}

impl Sending {
    pub(super) fn new(rates: Rates) -> Sending {
        let sent = [rates.messages, rates.bytes, rates.heartbeats].map(Sent::new);
        Sending { rates, sent, told: false }
    }

    /// Counts messages, bytes and heartbeats that arrived at `now`.
    pub(super) fn add(&mut self, now: Time, counts: [u64; 3]) -> Excess {
        let mut over = [false; 3];
        for ((over, sent), count) in over.iter_mut().zip(&mut self.sent).zip(counts) {
            *over = sent.add(now, count);
        }
        match over {
            [false, false, false] => Excess::None,
            [false, false, true] if !self.told => {
                self.told = true;
                self.sent[2] = Sent::new(self.rates.heartbeats);
                Excess::Tell
            }
            _ => Excess::End(over),
        }
    }
}

/// Returns the rates of a listener: mostly none. They divide a second evenly, so that no rounding
/// decides what is too much.
pub(super) fn rates(random: &mut Random) -> Rates {
    if random.below(3) != 0 {
        return Rates::default();
    }
    let mut one_of = |rates: [u32; 4]| rates[random.below(4) as usize];
    let [messages, heartbeats] = [[0, 1, 2, 5], [0, 1, 2, 10]].map(&mut one_of);
    Rates { messages, bytes: one_of([0, 0, 50, 1_000]), heartbeats }
}
