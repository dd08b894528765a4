//! Controls the load workers: starts them, sends commands, and adds up their reports.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command as Process, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use systole_net::Clock;

use super::codec::Codec;
use super::control::{Connect, Event, Peer, Report, Verdict, WorkerCommand};
use super::{BenchError, proc};

/// Time limit for a report: a worker answers within one turn of its loop, unless it hangs.
const ANSWER: Duration = Duration::from_secs(30);
/// Time limit for opening all links; a slow machine opens a thousand per second.
const CONNECT: Duration = Duration::from_secs(120);

/// All load workers of one round. Dropping the fleet ends the workers and closes their links.
pub(crate) struct Fleet {
    clock: Clock,
    workers: Vec<Worker>,
    events: Receiver<(usize, Option<Event>)>,
    lost: u64,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    links: usize,
    loud: usize,
}

/// The sum of the reports of all workers; times in nanoseconds of the bench's clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) answered: u64,
    pub(crate) messages: u64,
    pub(crate) probes: u64,
    pub(crate) overruns: u64,
    pub(crate) lost: u64,
    pub(crate) gap_ns: u64,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) rtt: Vec<(u64, u64)>,
    pub(crate) talk_ns: Vec<u64>,
    /// Heartbeats per second, each worker's over its own span.
    pub(crate) per_second: f64,
}

/// The target of the links.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) address: String,
    pub(crate) codec: Codec,
    pub(crate) peer: Peer,
    pub(crate) tls: bool,
    pub(crate) at_once: bool,
    /// Number of the first link, from which identities follow: no two links have the same.
    pub(crate) first: usize,
}

impl Fleet {
    /// Starts `workers` processes that will share `links` links.
    pub(crate) fn start(clock: Clock, workers: usize, links: usize) -> Result<Fleet, BenchError> {
        let (sender, events) = channel();
        let mut fleet = Fleet { clock, workers: Vec::new(), events, lost: 0 };
        for (index, share) in shares(links, workers).enumerate() {
            fleet.workers.push(Worker::start(index, share, &sender)?);
        }
        Ok(fleet)
    }

    /// Opens all links; `progress` gets the number of links that are up.
    pub(crate) fn connect(
        &mut self,
        to: &Destination,
        mut progress: impl FnMut(usize),
    ) -> Result<(), BenchError> {
        let mut first = to.first;
        for worker in &mut self.workers {
            let how = Connect {
                target: to.address.clone(),
                codec: to.codec,
                first,
                links: worker.links,
                peer: to.peer,
                tls: to.tls,
                at_once: to.at_once,
            };
            first += worker.links;
            worker.send(&WorkerCommand::Connect(how))?;
        }
        let deadline = self.now() + CONNECT;
        let mut up = vec![0; self.workers.len()];
        let mut open = self.workers.len();
        while open > 0 {
            match self.next(deadline.saturating_sub(self.now()))? {
                Some((worker, Event::Progress { connected })) => up[worker] = connected,
                Some((worker, Event::Connected { connected, failed, error })) => {
                    refuse_failures(failed, error)?;
                    up[worker] = connected;
                    open -= 1;
                }
                Some((_, Event::Report(_))) => {}
                None => return Err(BenchError::new("the links did not come up in two minutes")),
            }
            progress(up.iter().sum());
        }
        Ok(())
    }

    /// Sends a command to all workers.
    pub(crate) fn broadcast(&mut self, command: &WorkerCommand) -> Result<(), BenchError> {
        self.workers.iter_mut().try_for_each(|worker| worker.send(command))
    }

    /// Runs a closed loop on the first `active` links, shared evenly among the workers.
    pub(crate) fn closed_loop(&mut self, active: usize) -> Result<(), BenchError> {
        self.send_shares(active, |active| WorkerCommand::Loop { active })
    }

    /// Lets the first `links` links send messages without pause, shared evenly among the workers.
    pub(crate) fn send_data(&mut self, links: usize) -> Result<(), BenchError> {
        self.send_shares(links, |links| WorkerCommand::Data { links })
    }

    /// Sends each worker the command for its even share of `count` links.
    fn send_shares(
        &mut self,
        count: usize,
        command: impl Fn(usize) -> WorkerCommand,
    ) -> Result<(), BenchError> {
        let shares = shares(count, self.workers.len());
        self.workers
            .iter_mut()
            .zip(shares)
            .try_for_each(|(worker, share)| worker.send(&command(share)))
    }

    /// Lets the first link of each of the first `talkers` workers talk, with pauses of random
    /// length within `pause`, and no others.
    pub(crate) fn talk(&mut self, talkers: usize, pause: [Duration; 2]) -> Result<(), BenchError> {
        let [least, most] = pause.map(|pause| u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        self.workers.iter_mut().enumerate().try_for_each(|(index, worker)| {
            let pause_ns = (index < talkers).then_some((least, most));
            worker.send(&WorkerCommand::Talk { pause_ns })
        })
    }

    /// Silences `count` links, shared evenly among the workers; returns the number silenced.
    pub(crate) fn silence(&mut self, count: usize, burst: bool) -> Result<usize, BenchError> {
        let mut silenced = 0;
        for (share, worker) in shares(count, self.workers.len()).zip(&mut self.workers) {
            let count = share.min(worker.loud);
            worker.loud -= count;
            silenced += count;
            worker.send(&WorkerCommand::Silence { count, burst })?;
        }
        Ok(silenced)
    }

    /// Collects the counts since the last report.
    pub(crate) fn report(&mut self) -> Result<Sum, BenchError> {
        self.broadcast(&WorkerCommand::Report)?;
        let deadline = self.now() + ANSWER;
        let (mut sum, mut open) = (Sum::default(), self.workers.len());
        while open > 0 {
            match self.next(deadline.saturating_sub(self.now()))? {
                Some((_, Event::Report(report))) => {
                    sum.add(report, u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX));
                    open -= 1;
                }
                Some((_, Event::Progress { .. } | Event::Connected { .. })) => {}
                None => return Err(BenchError::new("a load worker does not answer")),
            }
        }
        self.lost += sum.lost;
        Ok(sum)
    }

    /// Returns the number of links closed although they were alive, in all reports so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the CPU time that the workers have used so far, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> Result<u64, BenchError> {
        let each = self.workers.iter().map(|worker| proc::cpu_ns(worker.child.id()));
        each.sum::<io::Result<u64>>()
            .map_err(|error| BenchError::io("a load worker ended early", &error))
    }

    /// Lets the load run for `time`.
    pub(crate) fn run_for(&mut self, time: Duration) -> Result<(), BenchError> {
        let end = self.now() + time;
        loop {
            let left = end.saturating_sub(self.now());
            if left.is_zero() || self.next(left)?.is_none() {
                return Ok(());
            }
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.clock.monotonic().as_nanos())
    }

    fn next(&mut self, wait: Duration) -> Result<Option<(usize, Event)>, BenchError> {
        match self.events.recv_timeout(wait) {
            Ok((worker, Some(event))) => Ok(Some((worker, event))),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Ok((_, None)) | Err(RecvTimeoutError::Disconnected) => {
                Err(BenchError::new("a load worker ended early; its message is above"))
            }
        }
    }
}

impl Sum {
    /// Adds a worker's report. `received_ns` is the time of receipt on the bench's clock: the
    /// worker's times are converted by it, to within the delay of the pipe.
    fn add(&mut self, report: Report, received_ns: u64) {
        let heartbeats = report.answered + report.probes;
        self.per_second += heartbeats as f64 * 1e9 / report.span_ns.max(1) as f64;
        self.answered += report.answered;
        self.messages += report.messages;
        self.probes += report.probes;
        self.overruns += report.overruns;
        self.lost += report.lost;
        self.gap_ns = self.gap_ns.max(report.gap_ns);
        self.rtt.extend(report.rtt);
        self.talk_ns.extend(report.talk_ns);
        let ours = |at: u64| (received_ns + at).saturating_sub(report.now_ns);
        self.verdicts.extend(report.verdicts.iter().map(|verdict| Verdict {
            last_sent_ns: ours(verdict.last_sent_ns),
            closed_ns: ours(verdict.closed_ns),
        }));
    }
}

impl Worker {
    fn start(
        index: usize,
        links: usize,
        sender: &Sender<(usize, Option<Event>)>,
    ) -> Result<Worker, BenchError> {
        let mut child = own_process("bench-worker")?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| BenchError::io("cannot start a load worker", &error))?;
        let input = child.stdin.take().expect("stdin is piped");
        let output = child.stdout.take().expect("stdout is piped");
        let sender = sender.clone();
        let read = move || {
            for line in BufReader::new(output).lines() {
                let event = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let over = event.is_none();
                if sender.send((index, event)).is_err() || over {
                    return;
                }
            }
            // Reports the end of the worker. If this fails, the fleet has been dropped.
            let _ = sender.send((index, None));
        };
        thread::Builder::new()
            .spawn(read)
            .map_err(|error| BenchError::io("no thread to read a load worker", &error))?;
        Ok(Worker { child, input, links, loud: links })
    }

    fn send(&mut self, command: &WorkerCommand) -> Result<(), BenchError> {
        let mut line = serde_json::to_vec(command).expect("commands hold nothing but numbers");
        line.push(b'\n');
        self.input
            .write_all(&line)
            .map_err(|error| BenchError::io("a load worker ended early", &error))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker holds nothing that needs an orderly shutdown.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command that runs this binary with one of its hidden subcommands.
pub(crate) fn own_process(subcommand: &str) -> Result<Process, BenchError> {
    let path = std::env::current_exe()
        .map_err(|error| BenchError::io("cannot find this program's own file", &error))?;
    let mut process = Process::new(path);
    process.arg(subcommand);
    Ok(process)
}

fn refuse_failures(failed: usize, error: Option<String>) -> Result<(), BenchError> {
    if failed == 0 {
        return Ok(());
    }
    let why = error.unwrap_or_default();
    Err(BenchError::new(format!(
        "{failed} links did not come up ({why}); try fewer --links, or raise the descriptor limit"
    )))
}

fn shares(count: usize, parts: usize) -> impl Iterator<Item = usize> {
    (0..parts).map(move |part| count / parts + usize::from(part < count % parts))
}
