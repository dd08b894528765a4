//! What liveness costs: a piece of evidence, a deadline, a link's memory, and the timing wheel
//! beside the `quad_wheel` of `hierarchical_hash_wheel_timer`, all in virtual time.
//!
//! `cargo bench -p systole-core --bench liveness` prints a table, with `-- --json` an array of its
//! rows. Each figure is the least of five processes: whatever else runs on the machine only adds.
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
/// Small tables are measured again and again until this many links have passed.
const LEAST_LINKS: u32 = 1_000_000;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;
const SECONDS: u64 = 30;
/// What a loop may do in one go before it looks at its sockets again.
const BUDGET: u32 = 1_000;
/// How many links are fetched before the first is heard or judged.
const BATCH: usize = 64;

/// What one cell measures; the rest is zero.
type Figures = [f64; 5];

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

/// One line of the table.
struct Row {
    links: u32,
    what: &'static str,
    unit: &'static str,
    goal: Option<u32>,
    ours: f64,
    other: Option<f64>,
}

impl Row {
    fn markdown(&self) -> String {
        let Row { what, unit, ours, .. } = self;
        let goal = self.goal.map_or("–".into(), |goal| format!("≤ {goal} {unit}"));
        let other = self.other.map_or("–".into(), |other| format!("{other:.1} {unit}"));
        let ratio = self.ratio().map_or("–".into(), |ratio| format!("{ratio:.2}"));
        let links = thousands(self.links);
        format!("| {links} | {what} | {goal} | {ours:.1} {unit} | {other} | {ratio} |")
    }

    fn json(&self) -> String {
        let Row { links, what, unit, ours, .. } = self;
        let goal = self.goal.map_or("null".into(), |goal| goal.to_string());
        let other = self.other.map_or("null".into(), |other| format!("{other:.2}"));
        let ratio = self.ratio().map_or("null".into(), |ratio| format!("{ratio:.3}"));
        format!(
            "{{\"links\": {links}, \"what\": \"{what}\", \"unit\": \"{unit}\", \"goal\": {goal}, \
             \"systole\": {ours:.2}, \"quad_wheel\": {other}, \"ratio\": {ratio}}}"
        )
    }

    fn ratio(&self) -> Option<f64> {
        self.other.filter(|other| *other > 0.0).map(|other| self.ours / other)
    }
}

fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// All rows of one size.
fn measure(links: u32) -> Vec<Row> {
    let [in_order, at_random, batched, deadline, bytes] = least_of("link", links);
    let [_, _, _, quad_deadline, quad_bytes] = least_of("quad_link", links);
    let [floor, ..] = least_of("floor", links);
    let [noted, noted_at_random, round, recorder, _] = least_of("flight", links);
    let ours = least_of("wheel", links);
    let other = least_of("quad_wheel", links);
    let cached = links <= 10_000;
    let row = |what, unit, goal, ours, other| Row { links, what, unit, goal, ours, other };
    vec![
        row("evidence, links in order", "ns", Some(20), in_order, None),
        row("evidence, links at random in batches", "ns", Some(20), batched, None),
        row("evidence, links at random, one by one", "ns", None, at_random, None),
        row("for comparison: one store at random", "ns", None, floor, None),
        // Beyond the caches it is memory that costs, and in a gateway a read has fetched it.
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
    ]
}

/// Runs a cell in processes of its own, so that none inherits another's memory, and takes the least
/// of each of its figures.
fn least_of(cell: &str, links: u32) -> Figures {
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
        "quad_link" => link_cell(links, Quad::default),
        "wheel" => timer_cell(links, || Wheel::new(Time::ZERO)),
        "quad_wheel" => timer_cell(links, Quad::default),
        other => panic!("no cell {other}"),
    };
    println!("{}", figures.map(|figure| figure.to_string()).join(" "));
}

/// The two wheels, driven alike.
trait Timers {
    fn arm(&mut self, key: u32, now: u64, at: u64);
    /// Hands the keys due at `now` to `judge`, at most [`BATCH`] at a time, and says whether more
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

/// Its ticks are milliseconds, and must be made one by one.
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

/// `arm` ns, `expire and arm again` ns, bytes per link, and the longest step in µs when all links
/// are due in one instant.
fn timer_cell<T: Timers>(links: u32, new: impl Fn() -> T) -> Figures {
    let mut arming = Duration::ZERO;
    let mut running = Duration::ZERO;
    let (mut armed, mut fired) = (0, 0);
    let mut bytes = 0.0;
    while armed < u64::from(LEAST_LINKS.max(links)) {
        let before = resident();
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
            bytes = resident().saturating_sub(before) as f64 / f64::from(links);
        }
        armed += u64::from(links);
    }
    let longest = longest_step(links, new());
    [per(arming, armed), per(running, fired), bytes, longest.as_secs_f64() * 1e6, 0.0]
}

/// All links due in one instant: how long the loop is away from its sockets at most.
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

/// The first probe: at a random point of [7.5 s, 15 s].
fn first_deadline(key: u32) -> u64 {
    15 * SECOND / 2 + Random::new(u64::from(key)).below(15 * SECOND / 2)
}

/// The lazy pattern: the link was heard within the last five seconds, so 15 s from then.
fn lazy_deadline(key: u32, now: u64) -> u64 {
    now + 10 * SECOND + Random::new(u64::from(key) << 40 ^ now).below(5 * SECOND)
}

/// ns per evidence in order, at random one by one and in batches, ns per deadline, bytes per link.
fn link_cell<T: Timers>(links: u32, new: impl Fn() -> T) -> Figures {
    let mut in_order = Duration::ZERO;
    let mut at_random = Duration::ZERO;
    let mut batched = Duration::ZERO;
    let mut deadlines = Duration::ZERO;
    let (mut opened, mut fired) = (0, 0);
    let mut bytes = 0.0;
    while opened < u64::from(LEAST_LINKS.max(links)) {
        let before = resident();
        let mut fleet = Fleet::open(links, opened, new());
        if opened == 0 {
            bytes = resident().saturating_sub(before) as f64 / f64::from(links);
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
            // Each link is heard every five seconds in the mean; some fall silent, and are probed.
            for _ in 0..links / 5 {
                let index = fleet.random.below(u64::from(links)) as u32;
                fleet.hear(index, Time::from_nanos(second * SECOND));
            }
            deadlines += timed(|| fired += fleet.pass_second(second));
        }
        opened += u64::from(links);
    }
    let heard = [in_order, at_random, batched].map(|time| per(time, opened));
    [heard[0], heard[1], heard[2], per(deadlines, fired), bytes]
}

/// ns per store into a plain table of the same size: what memory alone costs.
fn store_at_random(links: u32) -> f64 {
    let mut table = vec![[1_u64; size_of::<Liveness>() / 8]; links as usize];
    let mut random = Random::new(0);
    let count = links.max(LEAST_LINKS);
    let time = timed(|| {
        for _ in 0..count {
            table[random.below(u64::from(links)) as usize][0] += 1;
        }
    });
    black_box(&table);
    per(time, u64::from(count))
}

/// ns per read noted in order and at random, ns per probe and pong in order, bytes per link.
fn flight_cell(links: u32) -> Figures {
    // One in three of the links: the largest table would take more memory than the wheel's does.
    let links = links / 3;
    let passes = LEAST_LINKS.div_ceil(links);
    let mut table = vec![Flight::new(Time::ZERO); links as usize];
    let mut random = Random::new(0);
    let mut millis = 0;
    let mut pass = |table: &mut [Flight], work: &mut dyn FnMut(&mut [Flight], Time)| {
        let begin = Instant::now();
        for _ in 0..passes {
            millis += 1_000;
            work(table, Time::from_millis(millis));
        }
        per(begin.elapsed(), u64::from(links * passes))
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

/// A table of introduced links and their wheel.
struct Fleet<T> {
    links: Links,
    timers: T,
    random: Random,
}

/// One link in one cache line: at random, a link that straddles two lines costs two misses.
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

    /// One turn of a loop that knows its links before it handles the first.
    fn hear_batch(&mut self, now: Time) {
        let count = u64::from(self.links.count);
        let batch: [u32; BATCH] = std::array::from_fn(|_| self.random.below(count) as u32);
        self.links.touch(&batch);
        for index in batch {
            self.hear(index, now);
        }
    }

    /// Fires the deadlines of one second in steps of a millisecond, and returns how many it were.
    fn pass_second(&mut self, second: u64) -> u64 {
        let mut fired = 0;
        for milli in 1..=1_000 {
            let now = second * SECOND + milli * MILLI;
            let links = &mut self.links;
            while self.timers.step(now, |timers, due| {
                fired += due.len() as u64;
                links.touch(due);
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

    /// Reads all of them before the first is handled, so that their cache misses overlap.
    fn touch(&self, due: &[u32]) {
        for index in due {
            let link = self.table.get(*index).and_then(|line| line.0.as_ref());
            black_box(link.map(Liveness::last_heard));
        }
    }

    /// What a fired deadline means, and when to look again.
    fn judge(&mut self, index: u32, now: Time) -> Option<Time> {
        self.handle(index, now, Input::Deadline);
        let link = self.table.get(index)?.0.as_ref()?;
        link.next_deadline(&self.policy).map(|deadline| deadline.at)
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn per(time: Duration, count: u64) -> f64 {
    time.as_nanos() as f64 / count.max(1) as f64
}

/// Anonymous memory of this process in bytes; 0 where there is no /proc.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}
