//! The process under load: a gateway or a baseline that the bench starts and ends, or a running
//! process that the bench only measures.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use systole_core::gather::LONGEST_REST;
use systole_gateway::beacon::keys;
use systole_gateway::ready::Ready;
use systole_lab::started::await_ready;
use systole_net::Clock;

use super::args::{Plan, Role};
use super::codec::Codec;
use super::control::Peer;
use super::fleet::{Destination, own_process};
use super::secure::{self, CERTIFICATE, KEY};
use super::{BenchError, proc};

/// Master secret of the bench's own gateway, which listens only on the loopback.
pub(super) const MASTER: [u8; keys::KEY] = [0x42; keys::KEY];

/// Time limit for a gateway to end; longer than the drain limit of the configuration below.
const STOP: Duration = Duration::from_secs(15);
/// Name of the listener for `--handshakes`.
const TLS: &str = "tls";
/// Time between two checks of a condition.
const POLL: Duration = Duration::from_millis(10);

/// The kind of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Gateway,
    /// The gateway with `rest = "0ms"`.
    #[serde(rename = "no_rests")]
    NoRests,
    Baseline,
    /// The baseline, which rests as long as the gateway may.
    #[serde(rename = "resting_baseline")]
    RestingBaseline,
    /// A bare loop that probes the links in batches as large as the gateway's.
    #[serde(rename = "bare_prober")]
    BareProber,
}

impl Kind {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::NoRests => "no rests",
            Kind::Baseline => "baseline",
            Kind::RestingBaseline => "resting baseline",
            Kind::BareProber => "bare prober",
        }
    }

    /// What it is for its links.
    pub(crate) fn peer(self) -> Peer {
        match self {
            Kind::Gateway | Kind::NoRests => Peer::Gateway,
            Kind::Baseline | Kind::RestingBaseline => Peer::Echo,
            Kind::BareProber => Peer::Prober,
        }
    }
}

/// A process under load.
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) pid: u32,
    pub(crate) destination: Destination,
    /// Where links of `--handshakes` connect.
    pub(crate) secure: Option<Destination>,
    /// Address of `/metrics`, if there is one.
    pub(crate) admin: Option<String>,
    /// `None` for a process that the bench did not start.
    child: Option<Child>,
}

impl Target {
    /// Starts a target, or takes the one that `--target` names.
    pub(crate) fn start(kind: Kind, plan: &Plan) -> Result<Target, BenchError> {
        match &plan.halves {
            Some(halves) => halves.start(|| Target::start_here(kind, plan)),
            None => Target::start_here(kind, plan),
        }
    }

    fn start_here(kind: Kind, plan: &Plan) -> Result<Target, BenchError> {
        match (kind, &plan.args.target, plan.args.pid) {
            (Kind::Baseline | Kind::RestingBaseline | Kind::BareProber, ..) => bare(kind, plan),
            (Kind::Gateway, Some(address), Some(pid)) => Ok(Target {
                kind,
                pid,
                destination: destination(kind, address, plan),
                secure: None,
                admin: plan.args.admin.clone(),
                child: None,
            }),
            (Kind::Gateway | Kind::NoRests, _, _) => gateway(kind, plan),
        }
    }

    /// Returns the CPU time used so far, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> Result<u64, BenchError> {
        proc::cpu_ns(self.pid).map_err(|error| self.unreadable(&error))
    }

    /// Returns the current anonymous memory, in bytes.
    pub(crate) fn memory(&self) -> Result<u64, BenchError> {
        proc::anonymous_bytes(self.pid).map_err(|error| self.unreadable(&error))
    }

    /// Sends a signal to the target.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| BenchError::new(format!("{} is no process", self.pid)))?;
        kill_process(pid, signal).map_err(|error| self.unreadable(&error.into()))
    }

    /// Ends a target that the bench started; a gateway drains first. Returns whether it ended by
    /// itself.
    pub(crate) fn stop(mut self, clock: Clock) -> Result<bool, BenchError> {
        if self.kind.peer() != Peer::Gateway || self.child.is_none() {
            return Ok(true);
        }
        self.signal(Signal::TERM)?;
        let Some(child) = &mut self.child else { return Ok(true) };
        let ended = wait_until(clock, STOP, || child.try_wait().is_ok_and(|end| end.is_some()));
        if ended {
            self.child = None;
        }
        Ok(ended)
    }

    fn unreadable(&self, error: &std::io::Error) -> BenchError {
        let what = format!("the {} (process {}) cannot be read", self.kind.name(), self.pid);
        BenchError::io(&what, error)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Kills only a process that the bench started; it may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Checks `condition` until it holds or `limit` has passed; returns whether it holds.
pub(crate) fn wait_until(
    clock: Clock,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> bool {
    let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    let end = clock.monotonic().as_nanos().saturating_add(limit_ns);
    loop {
        if condition() {
            return true;
        }
        if clock.monotonic().as_nanos() > end {
            return false;
        }
        thread::park_timeout(POLL);
    }
}

fn destination(kind: Kind, address: &str, plan: &Plan) -> Destination {
    let (codec, tls) = (plan.args.codec, plan.args.tls);
    Destination {
        address: address.to_owned(),
        codec,
        peer: kind.peer(),
        tls,
        at_once: false,
        first: 0,
    }
}

fn bare(kind: Kind, plan: &Plan) -> Result<Target, BenchError> {
    let rest = if kind == Kind::RestingBaseline { LONGEST_REST.as_micros() } else { 0 };
    let probe = if kind == Kind::BareProber { plan.period.as_millis() } else { 0 };
    let dir = certificate_directory(plan)?;
    let mut child = own_process("bench-bare")?
        .args(["--threads", &plan.threads.to_string(), "--rest-us", &rest.to_string()])
        .args(["--probe-ms", &probe.to_string(), "--codec", plan.args.codec.name()])
        .args(plan.args.tls.then_some("--tls"))
        .args(plan.args.tls.then(|| dir.path()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| BenchError::io("cannot start the baseline", &error))?;
    let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut address = String::new();
    let read = output.read_line(&mut address);
    let target = Target {
        kind,
        pid: child.id(),
        destination: destination(kind, address.trim(), plan),
        secure: None,
        admin: None,
        child: Some(child),
    };
    if read.is_err() || target.destination.address.is_empty() {
        return Err(BenchError::new("the baseline did not start; its message is above"));
    }
    Ok(target)
}

/// Makes a directory for a target, with certificate and key if it speaks TLS.
fn certificate_directory(plan: &Plan) -> Result<tempfile::TempDir, BenchError> {
    let dir = tempfile::Builder::new()
        .prefix("systole-bench-")
        .tempdir()
        .map_err(|error| BenchError::io("cannot make a temporary directory", &error))?;
    if plan.args.tls || plan.args.handshakes > 0 {
        secure::write_certificate(dir.path())
            .map_err(|error| BenchError::io("cannot make a certificate", &error))?;
    }
    Ok(dir)
}

fn gateway(kind: Kind, plan: &Plan) -> Result<Target, BenchError> {
    // Deleted as soon as the gateway is ready, which then needs none of the files.
    let dir = certificate_directory(plan)?;
    let (config, ready) = (dir.path().join("systole.toml"), dir.path().join("ready.json"));
    let log = dir.path().join("log");
    fs::write(&config, configuration(kind, plan))
        .map_err(|error| BenchError::io("cannot write the gateway's configuration", &error))?;
    if plan.args.codec == Codec::Beacon {
        let secret: String = MASTER.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(dir.path().join("secret"), secret)
            .map_err(|error| BenchError::io("cannot write the gateway's secret", &error))?;
    }
    let output = fs::File::create(&log)
        .map_err(|error| BenchError::io("cannot write the gateway's log", &error))?;
    let errors =
        output.try_clone().map_err(|error| BenchError::io("cannot write a log", &error))?;
    let mut serve = own_process("bench-gateway")?;
    // The caller's environment would override the file.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
        serve.env_remove(name);
    }
    let child = serve
        .arg("--config")
        .arg(&config)
        .arg("--ready-file")
        .arg(&ready)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| BenchError::io("cannot start the gateway", &error))?;
    let mut target = Target {
        kind,
        pid: child.id(),
        destination: destination(kind, "", plan),
        secure: None,
        admin: None,
        child: Some(child),
    };
    let started = target.child.as_mut();
    let ready: Ready = started
        .and_then(|child| await_ready(child, &ready, Clock::start()))
        .and_then(|text| serde_json::from_str(&text).ok())
        .ok_or_else(|| did_not_start(&log))?;
    let codec = plan.args.codec.name();
    let tls = ready.listeners.iter().find(|one| one.name == TLS);
    target.secure = tls.map(|one| Destination {
        address: one.address.to_string(),
        tls: true,
        at_once: true,
        first: plan.links,
        ..target.destination.clone()
    });
    let listener = ready.listeners.iter().find(|one| one.codec == codec && one.name != TLS);
    let listener =
        listener.ok_or_else(|| BenchError::new(format!("the gateway has no {codec} listener")))?;
    target.pid = ready.pid;
    target.destination.address = listener.address.to_string();
    target.admin = Some(ready.admin.to_string());
    Ok(target)
}

fn is_setting(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with("SYSTOLE_")
}

fn did_not_start(log: &Path) -> BenchError {
    let mut text = String::new();
    if let Ok(file) = fs::File::open(log) {
        // The first lines show the reason; without them the error has no details.
        let _ = file.take(4096).read_to_string(&mut text);
    }
    BenchError::new(format!("the gateway did not start; its output:\n{text}"))
}

/// Builds a configuration with only what the run needs; everything else has its default.
fn configuration(kind: Kind, plan: &Plan) -> String {
    let args = &plan.args;
    // A log line for each of a million devices would be measured too.
    let (head, of_listener, log) = match args.codec {
        Codec::Beacon => (
            format!("shards = {}\n\n", plan.threads),
            format!("master_secret_file = \"secret\"\nmax_beacons = {}\n", plan.links),
            "\n[log]\nlevel = \"warn\"\n",
        ),
        Codec::Native | Codec::Message1028 | Codec::Line => {
            let head = if kind == Kind::NoRests { "rest = \"0ms\"\n\n" } else { "" };
            let role = if plan.role == Some(Role::Watch) { "role = \"watch\"\n" } else { "" };
            (head.to_owned(), role.to_owned(), "")
        }
    };
    let files = format!("certificate = {CERTIFICATE:?}\nkey = {KEY:?}\n");
    let of_listener = if args.tls { of_listener + &files } else { of_listener };
    let second = if args.handshakes > 0 {
        let codec = args.codec.name();
        let address = "address = \"127.0.0.1:0\"";
        format!("[[listener]]\nname = {TLS:?}\n{address}\ncodec = {codec:?}\n{files}\n")
    } else {
        String::new()
    };
    format!(
        "{head}[admin]\naddress = \"127.0.0.1:0\"\n\n\
         [[listener]]\nname = \"bench\"\naddress = \"127.0.0.1:0\"\ncodec = \"{}\"\n{of_listener}\n\
         {second}[policy]\nidle = \"{}ms\"\ninterval = \"{}ms\"\nprobes = {}\nspread = true\n\n\
         [drain]\nlimit = \"5s\"\n{log}",
        args.codec.name(),
        plan.idle.as_millis(),
        args.interval.as_millis(),
        args.probes,
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use systole_gateway::Config;
    use systole_gateway::config::Overrides;

    use super::*;
    use crate::bench::Args;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_gateway_accepts_its_configuration() {
        let load = |kind, typed: &[&str]| {
            let typed = CommandLine::try_parse_from([&["bench", "--links", "10"], typed].concat());
            let args = typed.unwrap().args;
            let role = args.role.first().copied();
            let plan = Plan::new(args, role).unwrap();
            let text = configuration(kind, &plan);
            (Config::load(&text, "systole.toml", &Overrides::default()).unwrap(), plan)
        };
        let (watching, plan) = load(Kind::NoRests, &["--role", "watch"]);
        assert_eq!(watching.listeners[0].role(), systole_core::liveness::Role::Watch);
        assert_eq!(watching.rest, systole_core::Span::ZERO);
        assert!(plan.idle > plan.period, "clients that beat in time are not suspect");
        for codec in ["native", "message1028", "line"] {
            let (config, plan) = load(Kind::Gateway, &["--codec", codec]);
            assert_eq!(config.rest, systole_core::gather::LONGEST_REST);
            assert_eq!(config.listeners.len(), 1);
            assert_eq!(config.listeners[0].codec().to_string(), codec);
            let bound = config.listeners[0].policy().bound().unwrap();
            assert_eq!(u128::from(bound.as_nanos()), plan.bound().as_nanos());
        }
    }
}
