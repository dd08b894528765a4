//! A load worker: a process that holds some thousand links in one epoll loop, and executes the
//! bench's commands from its standard input.

use std::io::{self, Write};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use super::control::{Event, WorkerCommand};
use super::links::Links;

/// Maximum of events per `epoll_wait`.
const EVENTS: usize = 512;
/// Maximum of connects in progress: well below any listener's backlog.
const CONNECTING: usize = 128;
/// Maximum of heartbeats sent before the sockets are polled again.
const SENDS_PER_TURN: usize = 256;
/// Number of links that come up between two progress events.
const PROGRESS: usize = 500;
/// Longest command line in bytes.
const MAX_COMMAND: usize = 64 * 1024;
/// Event data of standard input; the event data of a link is its index.
const STDIN: u64 = u64::MAX;

/// Executes commands until its standard input ends.
pub(crate) fn run() -> io::Result<()> {
    super::die_with_parent();
    systole_net::limits::raise_descriptor_limit()?;
    Worker::new()?.run()
}

struct Worker {
    links: Links,
    events: Vec<epoll::Event>,
    input: Vec<u8>,
    /// Whether a `Connect` is in progress.
    connecting: bool,
    reported: usize,
}

impl Worker {
    fn new() -> io::Result<Worker> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, io::stdin(), EventData::new_u64(STDIN), EventFlags::IN)?;
        Ok(Worker {
            links: Links::new(epoll)?,
            events: Vec::with_capacity(EVENTS),
            input: Vec::new(),
            connecting: false,
            reported: 0,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            if self.connecting {
                self.connect()?;
            }
            let waits = [self.links.send_due(SENDS_PER_TURN), self.links.talk_due()];
            let wait = waits.into_iter().flatten().min();
            if !self.turn(wait)? {
                return Ok(());
            }
        }
    }

    /// Waits for events and handles them; returns false once standard input has ended.
    fn turn(&mut self, wait: Option<Duration>) -> io::Result<bool> {
        let timeout = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(self.links.epoll(), spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.links.mark_turn();
        let mut commands = false;
        for event in &self.events {
            match event.data.u64() {
                STDIN => commands = true,
                index => self.links.ready(index as usize, event.flags),
            }
        }
        if commands { self.read_commands() } else { Ok(true) }
    }

    fn connect(&mut self) -> io::Result<()> {
        self.links.open_more(CONNECTING);
        let (connected, failed, done) = self.links.connected();
        if done {
            self.connecting = false;
            let error = self.links.take_error();
            send(&Event::Connected { connected, failed, error })?;
        } else if connected >= self.reported + PROGRESS {
            self.reported = connected;
            send(&Event::Progress { connected })?;
        }
        Ok(())
    }

    fn read_commands(&mut self) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let length = rustix::io::read(io::stdin(), &mut piece)?;
        if length == 0 || self.input.len() + length > MAX_COMMAND {
            return Ok(false);
        }
        self.input.extend_from_slice(&piece[..length]);
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.execute(serde_json::from_slice(&line)?)?;
        }
        Ok(true)
    }

    fn execute(&mut self, command: WorkerCommand) -> io::Result<()> {
        match command {
            WorkerCommand::Connect(how) => {
                self.links.begin(how)?;
                self.connecting = true;
            }
            WorkerCommand::Pace { period_ns } => self.links.pace(period_ns),
            WorkerCommand::Loop { active } => self.links.closed_loop(active),
            WorkerCommand::Data { links } => self.links.send_data(links),
            WorkerCommand::Idle => self.links.idle(),
            WorkerCommand::Talk { pause_ns } => self.links.talk(pause_ns),
            WorkerCommand::Silence { count, burst } => self.links.silence(count, burst),
            WorkerCommand::Report => send(&Event::Report(self.links.report()))?,
        }
        Ok(())
    }
}

fn send(event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
