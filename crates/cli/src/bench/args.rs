//! The arguments of `systole bench`, and the plan of a run after defaults are filled in.

use std::time::Duration;

use super::BenchError;
use super::codec::Codec;
use super::cores::Halves;
use super::report::MEMORY_JUDGED_FROM;
use crate::seconds;

const EXAMPLES: &str = "\
Examples:
  The budgets, in one run (about two minutes):
    systole bench --baseline --check

  A quick run with fewer links, as JSON:
    systole bench --links 1000 --window 2s --silent 300 --json

  What an idle fleet costs, whose heartbeats come every 10 s (about half an hour):
    systole bench --role probe,watch --check

  A running gateway (pass its policy, against which lateness is measured):
    systole bench --target 127.0.0.1:7400 --admin 127.0.0.1:7480 --pid 4711 \\
                  --idle 15s --interval 5s --probes 3

  Lateness of verdicts while 2,000 links send messages without pause:
    systole bench --links 4000 --paced --data 2000 --silent 1000

  What TLS costs, against a bare echo of rustls, and lateness in a burst of handshakes:
    systole bench --tls --links 5000 --baseline --silent 0
    systole bench --links 2000 --paced --silent 500 --handshakes 5000

  Ten minutes under full CPU load, with the gateway stopped for ten seconds in the middle:
    systole bench --soak 10m --burn --stop 10s --check

  18,000 links cut at once, which resume their sessions:
    systole bench --storm 10 --links 18000 --check

  A million beacon devices over UDP, all at one socket:
    systole bench --codec beacon --links 1000000 --idle 30s --interval 10s \\
                  --period 20s --window 60s --silent 10000

Times have units, as in the configuration file: 500ms, 10s, \"1m 30s\"; at most a week. On the
command line alone, a number without a unit is seconds: 10, 0.5.

How to read it:
  heartbeat   one ping and its answer, in either direction
  CPU         user and kernel time of the target's threads, as the kernel counts it
  memory      anonymous pages (heap, stacks) per idle link, without the kernel's socket buffers;
              judged from 15,000 links on (beacon: 10,000 devices), because fewer share the
              gateway's fixed memory
  RTT         from just before the write to just after the read, in the client
  lateness    time from a silent link's last byte to its close, minus the bound
              D = idle + interval x probes
  overruns    heartbeats left out because the last was unanswered: above 0, the load exceeds
              what this machine can serve, and paced figures are unreliable";

/// Put load on a gateway, and measure what it costs
///
/// Opens many links from several processes, sends heartbeats on them, silences some of them, and
/// prints the gateway's cost and the lateness of its verdicts. Starts a gateway of its own unless
/// --target names one.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Measure an idle fleet: the gateway probes its links (probe), or the links send heartbeats by
    /// themselves (watch); against the gateway without rests, a bare epoll echo to which the links
    /// send at the same rate, and a bare loop that saves wake-ups the same way, batches of probes
    /// or rests, and decides nothing. Takes about 15 minutes for each role, unless shortened by
    /// --rounds or --period
    #[arg(long, value_enum, value_delimiter = ',')]
    #[arg(conflicts_with_all = ["paced", "closed_loop", "baseline", "baseline_only"])]
    #[arg(conflicts_with_all = ["target", "soak", "data"])]
    pub(crate) role: Vec<Role>,
    /// Links to open [default: 15000, with --role 18000, or what the descriptor limit allows]
    #[arg(long)]
    pub(crate) links: Option<usize>,
    /// Processes that hold the links [default: one for each 7500 links]
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// Protocol that the links speak
    #[arg(long, value_enum, default_value = "native")]
    pub(crate) codec: Codec,
    /// Measure paced heartbeats only: each link sends one per period
    #[arg(long)]
    pub(crate) paced: bool,
    /// Measure the closed loop only: each answer triggers the next heartbeat
    #[arg(long)]
    pub(crate) closed_loop: bool,
    /// Time between two heartbeats of a link, when paced [default: 1s, with --role 10s]
    #[arg(long, value_parser = length)]
    pub(crate) period: Option<Duration>,
    /// Links in the closed loop; the others only answer [default: all]
    #[arg(long)]
    pub(crate) active: Option<usize>,
    /// Load before each measurement, which is not measured [default: 2s, with --role a period]
    #[arg(long, value_parser = length)]
    pub(crate) warmup: Option<Duration>,
    /// Length of each measurement [default: 5s, with --role two periods]
    #[arg(long, value_parser = length)]
    pub(crate) window: Option<Duration>,
    /// Idle time before memory is read
    #[arg(long, default_value = "2s", value_parser = length)]
    pub(crate) settle: Duration,
    /// Links that fall silent at once; 0 skips this part [default: a third]
    #[arg(long)]
    pub(crate) silent: Option<usize>,
    /// Links that send messages without pause while others fall silent: above 256 for each shard,
    /// more sockets are ready than one turn of its loop reads
    #[arg(long, default_value_t = 0, conflicts_with_all = ["soak", "baseline_only"])]
    pub(crate) data: usize,
    /// Speak TLS on all links, with a key of ECDSA P-256; the baseline then is a bare echo of
    /// rustls
    #[arg(long, conflicts_with_all = ["target", "soak", "role"])]
    pub(crate) tls: bool,
    /// Links that connect over TLS, all at once, while the verdicts on the silent ones fall; the
    /// others stay plain unless --tls is given too
    #[arg(long, value_name = "LINKS", default_value_t = 0)]
    #[arg(conflicts_with_all = ["target", "soak", "baseline_only"])]
    pub(crate) handshakes: usize,
    /// Give the target one half of the cores, and the load the other, so that neither takes time
    /// from the other
    #[arg(long, conflicts_with_all = ["target", "soak"])]
    pub(crate) pin: bool,
    /// Send one last heartbeat on each silent link, so that all deadlines fall at one instant
    #[arg(long)]
    pub(crate) burst: bool,
    /// Silence before the gateway's first probe [default: 2s; with --role probe a period, with
    /// --role watch one and a half, with --storm 1m]
    #[arg(long, value_parser = length)]
    pub(crate) idle: Option<Duration>,
    /// Time between the gateway's probes
    #[arg(long, default_value = "1s", value_parser = length)]
    pub(crate) interval: Duration,
    /// Unanswered probes before the verdict
    #[arg(long, default_value_t = 3)]
    pub(crate) probes: u8,
    /// Run the same load against a bare epoll echo as well, alternately, and print ratios
    #[arg(long)]
    pub(crate) baseline: bool,
    /// Run the load against the bare epoll echo alone
    #[arg(long, conflicts_with_all = ["baseline", "target", "soak"])]
    pub(crate) baseline_only: bool,
    /// Rounds for each target [default: 1, with --baseline or --role 3]
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// Threads of the baseline [default: one for each core, as the gateway has shards]; with
    /// --codec beacon, shards of the gateway [default: 1, so that one socket holds all]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Measure the gateway that listens here, instead of starting one
    #[arg(long, value_name = "HOST:PORT", requires = "pid")]
    pub(crate) target: Option<String>,
    /// Admin address of --target, where its own histogram of lateness is read
    #[arg(long, value_name = "HOST:PORT", requires = "target")]
    pub(crate) admin: Option<String>,
    /// Process of --target
    #[arg(long, requires = "target")]
    pub(crate) pid: Option<u32>,
    /// Run paced links for TIME, silence some of them, and check for wrong verdicts. Takes TIME and
    /// a few seconds; TIME must be four times the bound, --stop and --tolerance together, or more
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) soak: Option<Duration>,
    /// Cut all links at once while MESSAGES of each are unacknowledged, 1 to 1000, let all of them
    /// resume their sessions, and count what was lost. Measures nothing else
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[arg(conflicts_with_all = ["role", "soak", "target", "baseline", "baseline_only", "tls"])]
    #[arg(conflicts_with_all = ["data", "handshakes", "silent", "paced", "closed_loop", "active"])]
    pub(crate) storm: Option<u32>,
    /// In a soak: one busy loop per core, all the time
    #[arg(long, requires = "soak")]
    pub(crate) burn: bool,
    /// In a soak: stop the gateway (SIGSTOP) in the middle, for this time
    #[arg(long, requires = "soak", value_parser = length)]
    pub(crate) stop: Option<Duration>,
    /// In a soak: how much later than its bound a verdict may be
    #[arg(long, default_value = "1s", value_parser = length)]
    pub(crate) tolerance: Duration,
    /// Print JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Fail if a budget is missed
    #[arg(long)]
    pub(crate) check: bool,
}

/// The longest time that an option may name. Sums and multiples of such times fit in 64 bits of
/// nanoseconds, even with 255 probes.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// Most links of a run: far more than a machine holds, and few enough to count in memory.
const MAX_LINKS: usize = 100_000_000;
/// Descriptors that a gateway needs beside its links.
const SPARE_DESCRIPTORS: u64 = 512;
const DEFAULT_LINKS: usize = MEMORY_JUDGED_FROM;
/// Links of an idle fleet: with their gateway's descriptors they stay below a limit of 20,000.
const IDLE_LINKS: usize = 18_000;
/// Period of an idle fleet's heartbeats.
const IDLE_PERIOD: Duration = Duration::from_secs(10);
/// Links of one worker: few enough that its loop stays far from its limits, even on two cores.
pub(crate) const LINKS_PER_WORKER: usize = 7_500;

fn length(text: &str) -> Result<Duration, String> {
    seconds::parse_within(text, LONGEST)
}

/// The arguments with all defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) args: Args,
    /// The gateway's role, if an idle fleet is measured.
    pub(crate) role: Option<Role>,
    pub(crate) links: usize,
    pub(crate) period: Duration,
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
    pub(crate) idle: Duration,
    pub(crate) workers: usize,
    pub(crate) active: usize,
    pub(crate) silent: usize,
    pub(crate) rounds: usize,
    pub(crate) threads: usize,
    pub(crate) modes: Vec<Mode>,
    pub(crate) cores: usize,
    /// The cores of the target and of the load, if they are to be different ones.
    pub(crate) halves: Option<Halves>,
}

/// Which end of a link sends heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// The gateway probes silent links, which only answer.
    Probe,
    /// The links send heartbeats, which the gateway answers.
    Watch,
}

impl Role {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Probe => "probe",
            Role::Watch => "watch",
        }
    }
}

/// The kind of load during a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    Paced,
    ClosedLoop,
}

impl Mode {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Paced => "paced",
            Mode::ClosedLoop => "closed loop",
        }
    }
}

/// Refuses numbers of which at least one is needed.
fn refuse_zeros(args: &Args) -> Result<(), BenchError> {
    let numbers =
        [("--workers", args.workers), ("--threads", args.threads), ("--rounds", args.rounds)];
    match numbers.iter().find(|(_, number)| *number == Some(0)) {
        Some((option, _)) => {
            let why = format!("{option} must be at least 1; leave it out to have one chosen");
            Err(BenchError::new(why))
        }
        None => Ok(()),
    }
}

impl Plan {
    /// Fills in the defaults, for a run in which the gateway has this role.
    ///
    /// # Errors
    /// Values that no run can use: no links, or more than the descriptor limit allows.
    pub(crate) fn new(args: Args, role: Option<Role>) -> Result<Plan, BenchError> {
        refuse_zeros(&args)?;
        let limit = systole_net::limits::raise_descriptor_limit()
            .map_err(|error| BenchError::io("cannot raise the descriptor limit", &error))?;
        let room = limit.soft.map_or(u64::MAX, |soft| soft.saturating_sub(SPARE_DESCRIPTORS));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let default = if role.is_some() { IDLE_LINKS } else { DEFAULT_LINKS };
        let links = args.links.unwrap_or(default.min(room));
        if links == 0 {
            return Err(BenchError::new("--links 0 measures nothing"));
        }
        if links > MAX_LINKS {
            return Err(BenchError::new(format!("--links {links}: at most {MAX_LINKS}")));
        }
        // Beacons share few sockets.
        let is_stream = args.codec != Codec::Beacon;
        if is_stream && args.target.is_none() && links > room {
            return Err(BenchError::new(format!(
                "a gateway started here may hold {room} links: --links {links} needs a higher \
                 descriptor limit (ulimit -Hn)"
            )));
        }
        if role.is_some() && !is_stream {
            return Err(BenchError::new("--role is for streams: nobody probes a beacon"));
        }
        let silent = args.silent.unwrap_or(links / 3).min(links);
        if args.data > 0 && (!is_stream || args.data > links - silent) {
            return Err(BenchError::new(format!(
                "--data {} needs as many links that do not fall silent, of a stream codec",
                args.data
            )));
        }
        if !is_stream && (args.tls || args.handshakes > 0) {
            return Err(BenchError::new("--tls and --handshakes are for streams"));
        }
        let halves = args.pin.then(Halves::of_this_process).transpose()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let target_cores = halves.map_or(cores, |halves| halves.target_cores());
        let modes = match (args.paced, args.closed_loop) {
            (true, false) => vec![Mode::Paced],
            (false, true) => vec![Mode::ClosedLoop],
            (false, false) if role.is_some() => vec![Mode::Paced],
            (true, true) | (false, false) => vec![Mode::Paced, Mode::ClosedLoop],
        };
        let seconds = Duration::from_secs;
        let period = args.period.unwrap_or(if role.is_some() { IDLE_PERIOD } else { seconds(1) });
        let (warmup, window, idle) = match role {
            // The clients of a storm are silent while others have their turn.
            None if args.storm.is_some() => (seconds(2), seconds(5), seconds(60)),
            None => (seconds(2), seconds(5), seconds(2)),
            Some(Role::Probe) => (period, period * 2, period),
            Some(Role::Watch) => (period, period * 2, period * 3 / 2),
        };
        let several = args.baseline || role.is_some();
        Ok(Plan {
            role,
            links,
            period,
            warmup: args.warmup.unwrap_or(warmup),
            window: args.window.unwrap_or(window),
            idle: args.idle.unwrap_or(idle),
            workers: args.workers.unwrap_or(links.div_ceil(LINKS_PER_WORKER)).clamp(1, links),
            active: args.active.unwrap_or(links).min(links),
            silent,
            rounds: args.rounds.unwrap_or(if several { 3 } else { 1 }).max(1),
            threads: args.threads.unwrap_or(if is_stream { target_cores } else { 1 }).max(1),
            modes,
            cores,
            halves,
            args,
        })
    }

    /// The bound D: the silence after which a verdict falls.
    pub(crate) fn bound(&self) -> Duration {
        self.idle + self.args.interval * u32::from(self.args.probes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_times_the_longest_bound_stop_and_tolerance_fit_in_nanoseconds() {
        let bound = LONGEST + LONGEST * u32::from(u8::MAX);
        let needed = (bound + LONGEST + LONGEST) * 4;
        assert!(u64::try_from(needed.as_nanos()).is_ok());
        assert_eq!(length("7d"), Ok(LONGEST));
    }
}
