//! The gateway of a lab: `systole serve` in its namespace, its events and its metrics.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use systole_net::Clock;

use crate::log::{Log, Seen};
use crate::namespace::{Namespace, Workspace};
use crate::network::GATEWAY;
use crate::process::Process;
use crate::scenario::Setting;
use crate::started::{READY_WITHIN, await_ready, samples};
use crate::trouble::Trouble;

/// Port of the native listener. The gateway is alone in its namespace, so the fixed ports are free.
pub(crate) const NATIVE_PORT: u16 = 7400;
/// Port of the line listener, for peers that give no verdicts.
pub(crate) const LINE_PORT: u16 = 7410;
/// Port of a listener without verdicts, where only kernel keepalive acts.
pub(crate) const BARE_PORT: u16 = 7420;

const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Read timeout of the event stream; the gateway sends at least a comment in this time.
const STREAM_SILENCE: Duration = Duration::from_secs(60);

/// The policy of a lab's links, as in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Beat {
    pub(crate) idle_ms: u64,
    pub(crate) interval_ms: u64,
    /// 0: no verdict on silence.
    pub(crate) probes: u8,
}

impl Beat {
    /// Returns the bound D.
    pub(crate) const fn bound_ms(self) -> u64 {
        self.idle_ms + self.interval_ms * self.probes as u64
    }
}

/// The request for the metrics; HTTP/1.0, so that the body is not chunked.
const METRICS: &[u8] = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
const REQUEST: &[u8] =
    b"GET /api/v1/events HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) process: Process,
    admin: SocketAddr,
}

impl Gateway {
    /// Starts a gateway, and waits until it is ready and its events are being read into `log`.
    pub(crate) fn start(
        program: &Path,
        place: &Workspace,
        namespace: &Namespace,
        (address, setting): (IpAddr, Setting),
        boot: &str,
        (log, clock): (&Log, Clock),
    ) -> Result<Gateway, Trouble> {
        let (config, ready) = (place.file("systole.toml"), place.file("ready.json"));
        let doing = Trouble::while_doing("the gateway's files");
        fs::write(&config, configuration(address, setting.beat, setting.keep_hung_ms))
            .map_err(&doing)?;
        let _ = fs::remove_file(&ready);
        let stderr = fs::File::create(place.file("gateway.log")).map_err(&doing)?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--log", "info"])
            .arg("--config")
            .arg(&config)
            .arg("--ready-file")
            .arg(&ready)
            .env("SYSTOLE_BOOT_ID", boot)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let mut process = Process::new(namespace.spawn(&mut command)?);
        let admin = await_ready(process.child(), &ready, clock)
            .and_then(|ready| admin_address(&ready))
            .ok_or_else(|| startup_error(&place.file("gateway.log")))?;
        let from = log.len();
        let stream = namespace.enter(|| TcpStream::connect(admin))?;
        follow(stream.map_err(Trouble::while_doing("the gateway's events"))?, log.clone(), clock)?;
        let live = |events: &[Seen]| events.iter().find_map(|it| (it.kind == "live").then_some(()));
        log.wait(clock, READY_WITHIN, from, live)
            .ok_or_else(|| Trouble::new("the gateway's events did not begin"))?;
        Ok(Gateway { process, admin })
    }

    /// Returns the sum of all samples of a metric.
    pub(crate) fn metric(&self, namespace: &Namespace, name: &str) -> Result<f64, Trouble> {
        let doing = Trouble::while_doing("the gateway's metrics");
        let stream = namespace.enter(|| TcpStream::connect(self.admin))?;
        let mut stream = stream.map_err(&doing)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).map_err(&doing)?;
        stream.write_all(METRICS).map_err(&doing)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(&doing)?;
        match &samples(&text, name)[..] {
            [] => Err(Trouble::new(format!("the gateway has no metric {name}"))),
            values => Ok(values.iter().sum()),
        }
    }
}

fn configuration(address: IpAddr, beat: Beat, keep_hung_ms: u64) -> String {
    let policy = if beat.probes == 0 {
        "never = true".to_owned()
    } else {
        let Beat { idle_ms, interval_ms, probes } = beat;
        format!("idle = \"{idle_ms}ms\"\ninterval = \"{interval_ms}ms\"\nprobes = {probes}")
    };
    // A peer that returns before the verdict on its old link must not take its place: the cause of
    // that verdict is what is measured.
    let listener = |name, address, port, codec| {
        // Nor may a session outlive its link, since its leave has the verdict.
        let resume = if codec == "native" { "resume_window = \"0s\"\n" } else { "" };
        let address = SocketAddr::new(address, port);
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\ncodec = \"{codec}\"\n\
             anonymous = true\nsessions_per_identity = 10\n{resume}"
        )
    };
    let hung = match keep_hung_ms {
        0 => String::new(),
        ms => format!("hung = \"{ms}ms\"\n"),
    };
    format!(
        "shards = 1\n{hung}[policy]\n{policy}\n{}{}{}[listener.policy]\nnever = true\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[drain]\nlimit = \"2s\"\nreconnect_within = \"1s\"\n",
        listener("native", address, NATIVE_PORT, "native"),
        listener("line", address, LINE_PORT, "line"),
        listener("bare", GATEWAY.into(), BARE_PORT, "line"),
    )
}

/// Returns the address of the admin interface from the text of a ready file.
fn admin_address(ready: &str) -> Option<SocketAddr> {
    let ready: Value = serde_json::from_str(ready).ok()?;
    ready.get("admin")?.as_str()?.parse().ok()
}

fn startup_error(log: &Path) -> Trouble {
    let text = fs::read_to_string(log).unwrap_or_default();
    let tail: Vec<&str> = text.lines().rev().take(3).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Trouble::new(format!("the gateway did not become ready: {}", tail.join(" / ")))
}

/// Reads the event stream on a thread until the gateway ends it.
fn follow(mut stream: TcpStream, log: Log, clock: Clock) -> Result<(), Trouble> {
    let doing = Trouble::while_doing("the gateway's events");
    stream.set_read_timeout(Some(STREAM_SILENCE)).map_err(&doing)?;
    stream.write_all(REQUEST).map_err(&doing)?;
    let reading = move || {
        let mut kind = String::new();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(name) = line.strip_prefix("event:") {
                name.trim().clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data:")
                && let Some(seen) = Seen::parse(data.trim(), &kind, clock.wall_ms())
            {
                log.push(seen);
            }
        }
    };
    std::thread::Builder::new().spawn(reading).map_err(&doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_idle_plus_all_intervals() {
        assert_eq!(Beat { idle_ms: 1_000, interval_ms: 500, probes: 4 }.bound_ms(), 3_000);
    }

    #[test]
    fn a_policy_without_verdicts_has_no_times() {
        let never =
            configuration(GATEWAY.into(), Beat { idle_ms: 1, interval_ms: 1, probes: 0 }, 0);
        assert!(never.contains("[policy]\nnever = true"), "{never}");
        assert!(!never.contains("idle") && !never.contains("hung"), "{never}");
    }

    #[test]
    fn keep_hung_is_written_to_the_configuration() {
        let kept =
            configuration(GATEWAY.into(), Beat { idle_ms: 1, interval_ms: 1, probes: 1 }, 5_000);
        assert!(kept.starts_with("shards = 1\nhung = \"5000ms\"\n[policy]"), "{kept}");
    }
}
