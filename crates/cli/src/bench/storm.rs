//! `systole bench --storm`: cuts all links at once, lets all of them resume their sessions, and
//! measures how long the gateway takes, what that costs, and whether a message was lost.

mod wire;

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;
use systole_net::{Clock, address};

use super::args::Plan;
use super::codec::Codec;
use super::progress::Progress;
use super::report::table;
use super::target::{Kind, Target};
use super::{BenchError, proc};
use wire::{Session, Wire};

/// Logins or resumptions in a second on a usual machine, for the estimate.
const A_SECOND: f64 = 5_000.0;

/// The results of a storm.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) links: usize,
    /// Messages that waited for each client.
    pub(super) messages: u32,
    pub(super) logins: Wave,
    pub(super) resumptions: Wave,
    pub(super) resumed: usize,
    /// Messages that came neither before the cut nor after it, more than once, or out of order.
    pub(super) wrong_messages: u64,
    pub(super) ok: bool,
}

/// What it took until all clients were back.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Wave {
    pub(super) seconds: f64,
    /// CPU time of the gateway for each link, from the first connect to the last answer.
    pub(super) cpu_us_per_link: f64,
    /// CPU time of the gateway, as a number of cores.
    pub(super) cores: f64,
}

/// Logs all links in, cuts them, and lets them resume.
pub(super) fn run(plan: &Plan, messages: u32, progress: &Progress) -> Result<Report, BenchError> {
    if plan.args.codec != Codec::Native {
        return Err(BenchError::new("--storm needs --codec native: others cannot resume"));
    }
    progress.announce(Duration::from_secs_f64(2.0 * plan.links as f64 / A_SECOND));
    let clock = Clock::start();
    let target = Target::start(Kind::Gateway, plan)?;
    let address = address::parse(&target.destination.address)
        .map_err(|error| BenchError::new(format!("the gateway's address: {error}")))?;
    let wire = Wire { address, messages };
    let mut sessions: Vec<Session> = (0..plan.links).map(Session::new).collect();

    progress.begin("logging in", plan.links);
    let logins = wave(&target, clock, plan.links, || {
        wire.connect(&mut sessions)?;
        wire.welcomed(&mut sessions, progress)
    })?;
    progress.begin("messages", plan.links);
    wire.exchange(&mut sessions, progress).map_err(failed)?;
    progress.begin("resuming", plan.links);
    wire.cut(&mut sessions).map_err(failed)?;
    let mut wrong_messages = 0;
    let resumptions = wave(&target, clock, plan.links, || {
        wire.connect(&mut sessions)?;
        wire.welcomed(&mut sessions, progress)?;
        wrong_messages = wire.redelivered(&mut sessions)?;
        Ok(())
    })?;
    let resumed = sessions.iter().filter(|session| session.resumed).count();
    wire.say_goodbye(&mut sessions).map_err(failed)?;
    target.stop(clock)?;
    Ok(Report {
        links: plan.links,
        messages,
        logins,
        resumptions,
        resumed,
        wrong_messages,
        ok: resumed == plan.links && wrong_messages == 0,
    })
}

/// Measures what all links do at once.
fn wave(
    target: &Target,
    clock: Clock,
    links: usize,
    act: impl FnOnce() -> io::Result<()>,
) -> Result<Wave, BenchError> {
    let (cpu, began) = (target.cpu_ns()?, clock.monotonic());
    act().map_err(failed)?;
    let seconds = Duration::from(clock.monotonic().less(began)).as_secs_f64();
    let cpu_ns = proc::cpu_ns(target.pid).map_or(0, |now| now.saturating_sub(cpu)) as f64;
    Ok(Wave {
        seconds,
        cpu_us_per_link: cpu_ns / 1e3 / links as f64,
        cores: cpu_ns / 1e9 / seconds,
    })
}

fn failed(error: io::Error) -> BenchError {
    BenchError::io("the links", &error)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { links, messages, logins, resumptions, .. } = self;
        writeln!(f, "{links} links, {messages} messages unacknowledged in each, all cut at once")?;
        let mut rows = table(["", "logins", "resumptions"], 1);
        let two = |show: fn(&Wave) -> String| [show(logins), show(resumptions)];
        for (what, [login, resumption]) in [
            ("all online after", two(|wave| format!("{:.2} s", wave.seconds))),
            ("CPU per link", two(|wave| format!("{:.0} us", wave.cpu_us_per_link))),
            ("cores", two(|wave| format!("{:.2}", wave.cores))),
        ] {
            rows.add_row([what.to_owned(), login, resumption]);
        }
        writeln!(f, "{rows}")?;
        let verdict = if self.ok { "ok" } else { "MISSED" };
        writeln!(
            f,
            "{} of {links} sessions resumed, {} messages lost, doubled or out of order: {verdict}",
            self.resumed, self.wrong_messages
        )
    }
}
