//! The costs of liveness: evidence, deadlines, memory per link, and the timing wheel compared with
//! `quad_wheel` of `hierarchical_hash_wheel_timer`, all in virtual time.
//!
//! `cargo bench -p systole-core --bench liveness` prints a table, with `-- --json` an array of its
//! rows. Each figure is the minimum of five processes, because other load only adds time.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use hierarchical_hash_wheel_timer::wheels::quad_wheel::QuadWheelWithOverflow;
use systole_core::flight::{Flight, Incident};
use systole_core::liveness::{Evidence, Input, Liveness, Role};
use systole_core::pages::Pages;
use systole_core::random::Random;
use systole_core::wheel::Wheel;
use systole_core::{Policy, Span, Time};

const SIZES: [u32; 3] = [10_000, 1_000_000, 10_000_000];
const REPEATS: usize = 5;
/// The minimum number of links measured; small tables are measured repeatedly.
const MIN_LINKS: u32 = 1_000_000;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;
const SECONDS: u64 = 30;
/// The maximum number of wheel steps before a loop polls its sockets again.
const BUDGET: u32 = 1_000;
#[path = "liveness/row.rs"]
mod row;
#[path = "liveness/scans.rs"]
mod scans;

use row::Row;

/// The number of links that are prefetched together.
const BATCH: usize = 64;

/// The largest table of slots that is measured: 432 MB.
const MAX_SLOTS: u32 = 1_000_000;

/// The figures of one benchmark cell; unused ones are zero.
pub(crate) type Figures = [f64; 5];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(cell) = args.iter().position(|arg| arg == "--cell") {
        let links = args[cell + 2].parse().expect("the parent passes a number");
        return run_cell(&args[cell + 1], links);
    }
    let rows: Vec<Row> = SIZES.into_iter().flat_map(measure).collect();
    if args.iter().any(|arg| arg == "--json") {
        let rows: Vec<String> = rows.iter().map(Row::json).collect();
        println!("[\n  {}\n]", rows.join(",\n  "));
        return;
    }
    println!("| links | what | goal | systole | quad_wheel | ratio |");
    println!("|---:|---|---:|---:|---:|---:|");
    for row in &rows {
        println!("{}", row.markdown());
    }
}

/// Measures all rows for one number of links.
fn measure(links: u32) -> Vec<Row> {
    let [in_order, at_random, batched, deadline, bytes] = minimum_of("link", links);
    let [_, _, _, quad_deadline, quad_bytes] = minimum_of("quad_link", links);
    let [floor, ..] = minimum_of("floor", links);
    let [noted, noted_at_random, round, recorder, _] = minimum_of("flight", links);
    let ours = minimum_of("wheel", links);
    let other = minimum_of("quad_wheel", links);
    let cached = links <= 10_000;
    let row = |what, unit, goal, ours, other| Row { links, what, unit, goal, ours, other };
    let mut rows = vec![
        row("evidence, links in order", "ns", Some(20), in_order, None),
        row("evidence, links at random in batches", "ns", Some(20), batched, None),
        row("evidence, links at random, one by one", "ns", None, at_random, None),
        row("for comparison: one store at random", "ns", None, floor, None),
        // The goal holds within the caches: in a gateway the read has fetched the memory before.
        row("flight: noting a read, in order", "ns", cached.then_some(5), noted, None),
        row("flight: noting a read, at random", "ns", None, noted_at_random, None),
        row("flight: a probe and its pong, in order", "ns", None, round, None),
        row("flight: memory per link", "B", Some(256), recorder, None),
        row("deadline: expire, judge, arm again", "ns", Some(100), deadline, Some(quad_deadline)),
        row("liveness and wheel, per link", "B", None, bytes, Some(quad_bytes)),
        row("wheel: arm", "ns", None, ours[0], Some(other[0])),
        row("wheel: expire and arm again", "ns", None, ours[1], Some(other[1])),
        row("wheel: memory per link", "B", None, ours[2], Some(other[2])),
        row("wheel: all due at once, longest step", "µs", None, ours[3], Some(other[3])),
    ];
    let [added, removed, again, ..] = minimum_of("places", links);
    rows.push(row("table: 256 places added, longest turn", "µs", Some(1_000), added, None));
    rows.push(row("table: 256 removed at random, longest turn", "µs", Some(1_000), removed, None));
    rows.push(row("table: 256 added again, longest turn", "µs", Some(1_000), again, None));
    if links <= MAX_SLOTS {
        let [step, all, ..] = minimum_of("scan", links);
        rows.push(row("table: search of empty slots, longest step", "µs", Some(200), step, None));
        rows.push(row("for comparison: all slots in one step", "µs", None, all, None));
    }
    rows
}

/// Runs a cell in separate processes, so that none inherits memory, and returns the minimum of each
/// figure.
fn minimum_of(cell: &str, links: u32) -> Figures {
    let program = std::env::current_exe().expect("the benchmark knows its own path");
    let runs: Vec<Vec<f64>> = (0..REPEATS)
        .map(|_| {
            let links = links.to_string();
            let run = Command::new(&program).args(["--cell", cell, &links]).output();
            let run = run.expect("the benchmark can start itself");
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            let text = String::from_utf8_lossy(&run.stdout).into_owned();
            text.split_whitespace().filter_map(|figure| figure.parse().ok()).collect()
        })
        .collect();
    std::array::from_fn(|figure| runs.iter().map(|run| run[figure]).fold(f64::INFINITY, f64::min))
}

fn run_cell(cell: &str, links: u32) {
    let figures = match cell {
        "link" => link_cell(links, || Wheel::new(Time::ZERO)),
        "floor" => [store_at_random(links), 0.0, 0.0, 0.0, 0.0],
        "flight" => flight_cell(links),
        "scan" => scans::scan_cell(links),
        "places" => scans::places_cell(links),
        "quad_link" => link_cell(links, Quad::default),
        "wheel" => timer_cell(links, || Wheel::new(Time::ZERO)),
        "quad_wheel" => timer_cell(links, Quad::default),
        other => panic!("no cell {other}"),
    };
    println!("{}", figures.map(|figure| figure.to_string()).join(" "));
}

/// The common interface of the two wheels.
trait Timers {
    fn arm(&mut self, key: u32, now: u64, at: u64);
    /// Passes the keys due at `now` to `judge`, at most [`BATCH`] at a time. Returns whether more
    /// are due.
    fn step(&mut self, now: u64, judge: impl FnMut(&mut Self, &[u32])) -> bool;
}

impl Timers for Wheel {
    fn arm(&mut self, key: u32, _now: u64, at: u64) {
        Wheel::arm(self, key, Time::from_nanos(at));
    }

    fn step(&mut self, now: u64, mut judge: impl FnMut(&mut Self, &[u32])) -> bool {
        let mut budget = BUDGET;
        let mut due = [0; BATCH];
        loop {
            let mut count = 0;
            while count < BATCH
                && let Some(key) = self.expire(Time::from_nanos(now), &mut budget)
            {
                due[count] = key;
                count += 1;
            }
            judge(self, &due[..count]);
            if count < BATCH {
                return budget == 0;
            }
        }
    }
}

/// The `quad_wheel`, which must be advanced one millisecond tick at a time.
#[derive(Default)]
struct Quad {
    wheel: QuadWheelWithOverflow<u32>,
    ticked: u64,
}

impl Timers for Quad {
    fn arm(&mut self, key: u32, now: u64, at: u64) {
        let delay = Duration::from_millis((at - now).div_ceil(MILLI));
        assert!(self.wheel.insert_with_delay(key, delay).is_ok());
    }

    fn step(&mut self, now: u64, mut judge: impl FnMut(&mut Self, &[u32])) -> bool {
        while self.ticked < now / MILLI {
            self.ticked += 1;
            for due in self.wheel.tick().chunks(BATCH) {
                judge(self, due);
            }
        }
        false
    }
}

/// Measures ns to arm, ns to expire and arm again, bytes per link, and the longest step in µs when
/// all links are due at the same instant.
fn timer_cell<T: Timers>(links: u32, new: impl Fn() -> T) -> Figures {
    let mut arming = Duration::ZERO;
    let mut running = Duration::ZERO;
    let (mut armed, mut fired) = (0, 0);
    let mut bytes = 0.0;
    while armed < u64::from(MIN_LINKS.max(links)) {
        let before = resident_bytes();
        let mut timers = new();
        let begin = Instant::now();
        for key in 0..links {
            timers.arm(key, 0, first_deadline(key));
        }
        arming += begin.elapsed();
        let begin = Instant::now();
        for now in (0..=SECONDS * SECOND).step_by(MILLI as usize) {
            while timers.step(now, |timers, due| {
                fired += due.len() as u64;
                for key in due {
                    timers.arm(*key, now, lazy_deadline(*key, now));
                }
            }) {}
        }
        running += begin.elapsed();
        if armed == 0 {
            bytes = resident_bytes().saturating_sub(before) as f64 / f64::from(links);
        }
        armed += u64::from(links);
    }
    let longest = longest_step(links, new());
    [nanos_per(arming, armed), nanos_per(running, fired), bytes, longest.as_secs_f64() * 1e6, 0.0]
}

/// Measures the longest step when all links are due at the same instant.
fn longest_step(links: u32, mut timers: impl Timers) -> Duration {
    let due = 15 * SECOND;
    for key in 0..links {
        timers.arm(key, 0, due);
    }
    let mut longest = Duration::ZERO;
    for now in (0..=due + MILLI).step_by(MILLI as usize) {
        loop {
            let begin = Instant::now();
            let more = timers.step(now, |_, due| _ = black_box(due));
            longest = longest.max(begin.elapsed());
            if !more {
                break;
            }
        }
    }
    longest
}

/// Returns the deadline of the first probe: a random point in [7.5 s, 15 s].
fn first_deadline(key: u32) -> u64 {
    15 * SECOND / 2 + Random::new(u64::from(key)).below(15 * SECOND / 2)
}

/// Returns the next deadline of a lazily armed link: 15 s after evidence in the last five seconds.
fn lazy_deadline(key: u32, now: u64) -> u64 {
    now + 10 * SECOND + Random::new(u64::from(key) << 40 ^ now).below(5 * SECOND)
}

/// Measures ns per evidence in order, at random and in batches, ns per deadline, bytes per link.
fn link_cell<T: Timers>(links: u32, new: impl Fn() -> T) -> Figures {
    let mut in_order = Duration::ZERO;
    let mut at_random = Duration::ZERO;
    let mut batched = Duration::ZERO;
    let mut deadlines = Duration::ZERO;
    let (mut opened, mut fired) = (0, 0);
    let mut bytes = 0.0;
    while opened < u64::from(MIN_LINKS.max(links)) {
        let before = resident_bytes();
        let mut fleet = Fleet::open(links, opened, new());
        if opened == 0 {
            bytes = resident_bytes().saturating_sub(before) as f64 / f64::from(links);
        }
        in_order += timed(|| {
            for index in 0..links {
                fleet.hear(index, Time::from_nanos(MILLI));
            }
        });
        at_random += timed(|| {
            for _ in 0..links {
                let index = fleet.random.below(u64::from(links)) as u32;
                fleet.hear(index, Time::from_nanos(2 * MILLI));
            }
        });
        batched += timed(|| {
            for _ in 0..links.div_ceil(BATCH as u32) {
                fleet.hear_batch(Time::from_nanos(3 * MILLI));
            }
        });
        for second in 0..SECONDS {
            // Evidence arrives every five seconds on average; silent links are probed.
            for _ in 0..links / 5 {
                let index = fleet.random.below(u64::from(links)) as u32;
                fleet.hear(index, Time::from_nanos(second * SECOND));
            }
            deadlines += timed(|| fired += fleet.run_second(second));
        }
        opened += u64::from(links);
    }
    let heard = [in_order, at_random, batched].map(|time| nanos_per(time, opened));
    [heard[0], heard[1], heard[2], nanos_per(deadlines, fired), bytes]
}

/// Measures ns per random store into a plain table of the same size: the cost of memory alone.
fn store_at_random(links: u32) -> f64 {
    let mut table = vec![[1_u64; size_of::<Liveness>() / 8]; links as usize];
    let mut random = Random::new(0);
    let count = links.max(MIN_LINKS);
    let time = timed(|| {
        for _ in 0..count {
            table[random.below(u64::from(links)) as usize][0] += 1;
        }
    });
    black_box(&table);
    nanos_per(time, u64::from(count))
}

/// Measures ns per recorded read in order and at random, ns per probe and pong, bytes per link.
fn flight_cell(links: u32) -> Figures {
    // A third of the links, so that the largest table takes no more memory than the wheel's.
    let links = links / 3;
    let passes = MIN_LINKS.div_ceil(links);
    let mut table = vec![Flight::new(Time::ZERO); links as usize];
    let mut random = Random::new(0);
    let mut millis = 0;
    let mut pass = |table: &mut [Flight], work: &mut dyn FnMut(&mut [Flight], Time)| {
        let begin = Instant::now();
        for _ in 0..passes {
            millis += 1_000;
            work(table, Time::from_millis(millis));
        }
        nanos_per(begin.elapsed(), u64::from(links * passes))
    };
    let noted = pass(&mut table, &mut |table, now| {
        for flight in table {
            flight.heard(now, black_box(2));
        }
    });
    let at_random = pass(&mut table, &mut |table, now| {
        for _ in 0..links {
            table[random.below(u64::from(links)) as usize].heard(now, black_box(2));
        }
    });
    let round = pass(&mut table, &mut |table, now| {
        for flight in table {
            flight.record(now, Incident::Probe { number: 1 });
            flight.record(now, Incident::Pong { rtt: Span::from_millis(3) });
        }
    });
    black_box(&table);
    [noted, at_random, round, size_of::<Flight>() as f64, 0.0]
}

/// A table of established links and their wheel.
struct Fleet<T> {
    links: Links,
    timers: T,
    random: Random,
}

/// A link in a cache line of its own: a link across two lines costs two misses.
#[repr(align(64))]
#[derive(Default)]
struct Line(Option<Liveness>);

const _: () = assert!(size_of::<Line>() == 64);

struct Links {
    table: Pages<Line>,
    count: u32,
    policy: Policy,
}

impl<T: Timers> Fleet<T> {
    fn open(count: u32, seed: u64, mut timers: T) -> Fleet<T> {
        let mut links = Links { table: Pages::new(), count, policy: Policy::standard() };
        let mut random = Random::new(seed);
        for index in 0..count {
            let mut link = Liveness::new(Time::ZERO, Role::Probe, Span::from_secs(5));
            let seed = random.next_u32();
            link.handle(Time::ZERO, Input::Introduced { seed }, &links.policy);
            if let Some(deadline) = link.next_deadline(&links.policy) {
                timers.arm(index, 0, deadline.at.as_nanos());
            }
            links.table.entry(index).0 = Some(link);
        }
        Fleet { links, timers, random }
    }

    fn hear(&mut self, index: u32, now: Time) {
        self.links.handle(index, now, Input::Heard(Evidence::Bytes));
    }

    /// Handles evidence for a batch of random links that is prefetched together.
    fn hear_batch(&mut self, now: Time) {
        let count = u64::from(self.links.count);
        let batch: [u32; BATCH] = std::array::from_fn(|_| self.random.below(count) as u32);
        self.links.prefetch(&batch);
        for index in batch {
            self.hear(index, now);
        }
    }

    /// Fires the deadlines of one second in steps of a millisecond; returns their number.
    fn run_second(&mut self, second: u64) -> u64 {
        let mut fired = 0;
        for milli in 1..=1_000 {
            let now = second * SECOND + milli * MILLI;
            let links = &mut self.links;
            while self.timers.step(now, |timers, due| {
                fired += due.len() as u64;
                links.prefetch(due);
                for index in due {
                    if let Some(at) = links.judge(*index, Time::from_nanos(now)) {
                        timers.arm(*index, now, at.as_nanos());
                    }
                }
            }) {}
        }
        fired
    }
}

impl Links {
    #[inline]
    fn handle(&mut self, index: u32, now: Time, input: Input) {
        if let Some(Line(Some(link))) = self.table.get_mut(index) {
            link.handle(now, input, &self.policy);
            while let Some(output) = link.poll_output() {
                black_box(output);
            }
        }
    }

    /// Reads all links before the first is handled, so that their cache misses overlap.
    fn prefetch(&self, due: &[u32]) {
        for index in due {
            let link = self.table.get(*index).and_then(|line| line.0.as_ref());
            black_box(link.map(Liveness::last_heard));
        }
    }

    /// Handles a fired deadline and returns the next one.
    fn judge(&mut self, index: u32, now: Time) -> Option<Time> {
        self.handle(index, now, Input::Deadline);
        let link = self.table.get(index)?.0.as_ref()?;
        link.next_deadline(&self.policy).map(|deadline| deadline.at)
    }
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn nanos_per(time: Duration, count: u64) -> f64 {
    time.as_nanos() as f64 / count.max(1) as f64
}

/// Returns the anonymous memory of this process in bytes; 0 without /proc.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}
