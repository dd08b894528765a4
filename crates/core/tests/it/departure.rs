//! Leave-taking in virtual time, with a model of the kernel's buffers and of the peer that reads.

use systole_core::home::Homes;
use systole_core::hub::{self, AWAY_SESSIONS, FRAME_MEMORY, Hub, HubCommand, WINDOW_MEMORY};
use systole_core::kernel::{Patience, SendState, TcpSnapshot};
use systole_core::link::Departure;
use systole_core::link::departure::{
    self, EXAMINE_INTERVAL, FIN_WAIT, Input, LEAVE_LIMIT, Output, STALL,
};
use systole_core::random::Random;
use systole_core::{Machine, Span, Time};

/// The step of the model.
const STEP: Span = Span::from_millis(10);

/// The size of each buffer on the way, in bytes.
const BUFFER: u64 = 64 * 1024;

/// The bytes that each part of a connection holds, and what the peer does.
#[derive(Clone, Debug)]
struct World {
    now: Time,
    departure: Departure,
    /// The bytes in our queue, our kernel, and the peer's kernel.
    queued: u64,
    kernel: u64,
    received: u64,
    read: u64,
    /// The bytes that the peer reads in each step on average; it reads once in `every` steps.
    rate: u64,
    every: u64,
    steps: u64,
    /// When the peer stops reading for ever.
    stops: Time,
    /// When the peer closes its side: never before the first, or once it has read everything.
    peer_closes: Option<Time>,
    closes_at_end: bool,
    /// Whether the system shows acknowledgements.
    shows: bool,
    /// The time of the last byte taken or acknowledged.
    progress: Time,
    /// When everything was acknowledged.
    complete: Option<Time>,
    peer_ended: bool,
    shutdown: bool,
    /// Whether the kernel was prepared to deliver without the process.
    orphaned: bool,
    /// Whether the close is a reset.
    reset: bool,
    closed: Option<Time>,
    examinations: u64,
}

impl World {
    fn new(queued: u64, rate: u64, limit: Span) -> World {
        let now = Time::from_millis(1_000);
        World {
            now,
            departure: Departure::new(now, limit),
            queued,
            kernel: BUFFER,
            received: BUFFER,
            read: 0,
            rate,
            every: 1,
            steps: 0,
            stops: Time::from_millis(u64::MAX >> 24),
            peer_closes: None,
            closes_at_end: true,
            shows: true,
            progress: now,
            complete: None,
            peer_ended: false,
            shutdown: false,
            orphaned: false,
            reset: false,
            closed: None,
            examinations: 0,
        }
    }

    fn input(&mut self, input: impl Into<Input>) {
        self.departure.handle(self.now, input);
        while let Some(output) = self.departure.poll_output() {
            assert_eq!(self.closed, None, "an output after Close");
            match output {
                Output::Examine => {
                    self.examinations += 1;
                    let snapshot = self.shows.then(|| self.snapshot());
                    self.departure.handle(self.now, departure::Answer::Examined(snapshot));
                }
                Output::ShutdownWrite => {
                    assert!(self.queued == 0 && !self.shutdown, "our side closes after the queue");
                    self.shutdown = true;
                }
                Output::Patience(patience) => {
                    assert_eq!(patience, Patience::new(None, SendState::Orphaned));
                    self.orphaned = true;
                }
                Output::Reset => self.reset = true,
                Output::Close => {
                    assert_eq!(self.reset, self.queued > 0, "the end of the stream is the truth");
                    let delivered = self.complete.is_some() || !self.shows;
                    let kept = self.orphaned || self.reset;
                    assert!(kept || delivered, "the kernel would give up soon");
                    assert!(delivered || !self.departure.is_acknowledged(), "a false promise");
                    self.closed = Some(self.now);
                }
            }
        }
    }

    fn snapshot(&self) -> TcpSnapshot {
        let open = self.received < BUFFER;
        TcpSnapshot {
            unacked: u32::from(open && self.kernel > 0),
            notsent: Some(self.kernel as u32),
            bytes_acked: Some(self.received + self.read),
            last_ack: self.now.since(self.progress),
            ..TcpSnapshot::default()
        }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        self.steps += 1;
        if self.now < self.stops && self.steps.is_multiple_of(self.every) {
            let reads = (self.rate * self.every).min(self.received);
            (self.received, self.read) = (self.received - reads, self.read + reads);
        }
        let acknowledged = self.kernel.min(BUFFER - self.received);
        (self.kernel, self.received) = (self.kernel - acknowledged, self.received + acknowledged);
        let taken = self.queued.min(BUFFER - self.kernel);
        (self.queued, self.kernel) = (self.queued - taken, self.kernel + taken);
        if acknowledged + taken > 0 {
            self.progress = self.now;
        }
        if self.queued > 0 && taken > 0 {
            self.input(departure::World::Taken);
        }
        if self.queued == 0 {
            self.input(departure::World::Flushed);
        }
        if self.queued + self.kernel == 0 {
            self.complete = self.complete.or(Some(self.now));
        }
        let at_end = self.closes_at_end && self.complete.is_some() && self.received == 0;
        if !self.peer_ended && (at_end || self.peer_closes.is_some_and(|at| at <= self.now)) {
            self.peer_ended = true;
            self.input(departure::World::Ended);
        }
        if self.departure.next_deadline().is_some_and(|next| next.at <= self.now) {
            self.input(departure::Answer::Deadline);
        }
    }

    /// Runs to the close, and returns how long it took.
    fn run(&mut self) -> Span {
        let from = self.now;
        while self.closed.is_none() {
            self.step();
            assert!(self.now.since(from) < Span::from_secs(600), "endless: {self:?}");
        }
        assert_eq!(self.departure.next_deadline(), None);
        self.now.since(from)
    }

    fn is_delivered(&self) -> bool {
        self.queued + self.kernel == 0
    }
}

#[test]
fn a_peer_that_reads_slowly_gets_everything() {
    // 50 kB a second.
    let mut world = World::new(1_000_000, 500, LEAVE_LIMIT);
    let took = world.run();
    assert!(world.is_delivered() && world.shutdown, "{world:?}");
    assert!(took > Span::from_secs(20), "{took}");
}

#[test]
fn a_peer_that_has_closed_its_side_gets_everything_too() {
    let mut world = World::new(1_000_000, 500, LEAVE_LIMIT);
    world.peer_closes = Some(Time::ZERO);
    world.run();
    assert!(world.is_delivered() && world.shutdown, "{world:?}");
    let complete = world.complete.unwrap();
    assert!(world.now.since(complete) <= EXAMINE_INTERVAL + STEP, "{world:?}");
}

#[test]
fn the_limit_ends_it_while_the_peer_still_takes_bytes() {
    let limit = Span::from_secs(10);
    let mut world = World::new(1_000_000, 500, limit);
    assert_eq!(world.run(), limit);
    assert!(!world.is_delivered() && !world.shutdown);
    let mut world = World::new(1_000_000, 500, Span::ZERO);
    assert!(world.run() <= STEP, "without a limit's worth of time it ends at once");
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_after_the_stall_limit() {
    let mut world = World::new(1_000_000, 500, LEAVE_LIMIT);
    world.stops = world.now + Span::from_secs(7);
    world.run();
    let stalled = world.now.since(world.progress);
    assert!(stalled >= STALL && stalled <= STALL + EXAMINE_INTERVAL, "{stalled}");
    assert!(world.examinations <= 14, "about one a second: {}", world.examinations);
}

#[test]
fn a_peer_that_stays_open_is_awaited_for_a_time_after_the_last_acknowledgement() {
    for (shows, queued) in [(true, 0), (true, 300_000), (false, 0)] {
        let mut world = World::new(queued, 5_000, LEAVE_LIMIT);
        (world.closes_at_end, world.shows) = (false, shows);
        if !shows {
            (world.kernel, world.received) = (0, 0);
        }
        world.run();
        let waited = world.now.since(world.complete.unwrap());
        let most = FIN_WAIT + EXAMINE_INTERVAL;
        assert!(waited >= FIN_WAIT && waited <= most, "{waited} {shows} {queued}");
    }
}

#[test]
fn a_failed_socket_is_closed_at_once() {
    let mut world = World::new(1_000_000, 500, LEAVE_LIMIT);
    world.step();
    world.input(departure::World::Failed);
    assert_eq!(world.closed, Some(world.now));
}

/// A reset after the last acknowledgement says that the peer did not read to the end.
#[test]
fn a_failure_takes_back_that_everything_was_acknowledged() {
    let mut world = World::new(1_000, 500, LEAVE_LIMIT);
    world.closes_at_end = false;
    while !world.departure.is_acknowledged() {
        world.step();
    }
    world.input(departure::World::Failed);
    assert!(world.closed.is_some() && !world.departure.is_acknowledged());
}

/// Whatever the peer does, the close has one of four reasons and comes in time.
#[test]
fn every_close_has_a_reason_and_no_reason_is_missed() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let limit = Span::from_millis(random.below(90_000));
        let mut world = World::new(random.below(600_000), random.below(3_000), limit);
        let from = world.now;
        if random.below(2) == 0 {
            world.stops = from + Span::from_millis(random.below(60_000));
        }
        if random.below(2) == 0 {
            world.peer_closes = Some(from + Span::from_millis(random.below(60_000)));
        }
        world.closes_at_end = random.below(2) == 0;
        // Up to 4.5 s between two reads: a slow reader, and still no stall.
        world.every = 1 + random.below(450);
        let took = world.run();
        let stalled = world.now.since(world.progress);
        let awaited = world.complete.map(|complete| world.now.since(complete));
        let done = awaited.is_some_and(|awaited| world.peer_ended || awaited >= FIN_WAIT);
        assert!(done || took >= limit || stalled >= STALL, "seed {seed}: {world:?}");
        assert!(took <= limit + STEP, "seed {seed}: {world:?}");
        let acknowledged = world.departure.is_acknowledged();
        assert!(acknowledged || !done || took >= limit, "seed {seed}: {world:?}");
        let late = EXAMINE_INTERVAL + STEP;
        // Progress is seen at an examination, and so is its absence.
        let stall = STALL + EXAMINE_INTERVAL + late;
        assert!(world.complete.is_some() || stalled <= stall, "seed {seed}: {world:?}");
        assert!(awaited.is_none_or(|awaited| awaited <= FIN_WAIT + late), "seed {seed}: {world:?}");
        let seconds = took.as_millis() / 1_000;
        assert!(world.examinations <= seconds + 10, "seed {seed}: {world:?}");
    }
}

#[test]
fn a_drain_sets_the_limit() {
    let settings = hub::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners: Vec::new(),
        seed: 1,
        frame_memory: FRAME_MEMORY,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    };
    let mut hub = Hub::new(settings);
    assert_eq!(hub.leave_limit(), LEAVE_LIMIT);
    let limit = Span::from_secs(600);
    let drain = HubCommand::Drain { limit, reconnect_within: Span::ZERO };
    hub.handle(Time::ZERO, hub::World::Command(drain));
    assert_eq!(hub.leave_limit(), limit);
}
