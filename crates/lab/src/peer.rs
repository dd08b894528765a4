//! A peer: a process in a host's namespace that reads orders from its standard input, and writes
//! events to its standard output.

mod answering;
mod client;
mod deaf;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use systole_core::Span;
use systole_net::Clock;

use crate::log::{Log, Seen};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::trouble::Trouble;

/// The hidden subcommand of the binary that calls [`run`].
pub const SUBCOMMAND: &str = "lab-peer";

/// Time limit from the start of the process until all its links are up.
const UP_WITHIN: Span = Span::from_secs(20);

/// What the order `message` sends: some packets of full length, all of which a kernel sends at
/// once, and soon after them a short one.
static MESSAGES: [&[u8]; 2] = [&[b'x'; 8_000], b"and a short one"];
/// Time between the two, so that they are not echoed as one.
const APART: Span = Span::from_millis(20);

/// The specification of a peer process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) gateway: SocketAddr,
    /// Prefix of the identities of the links; a dash and the number of the link follow.
    pub(crate) identity: String,
    pub(crate) links: u32,
    /// Address for a control connection, which carries nothing.
    pub(crate) control: Option<SocketAddr>,
    /// Time for which a hung gateway is kept; 0: not at all.
    pub(crate) keep_hung_ms: u64,
    /// Whether a client sends a message each 20 ms.
    pub(crate) busy: bool,
}

/// The behaviour of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Uses the client library, which gives verdicts on the gateway, and reconnects.
    Client,
    /// Completes the handshake, and on `fill` sends much data and never reads the echo.
    Deaf,
    /// Answers pings of the line codec, and gives no verdicts.
    Answering,
    /// Answers pings of the native codec, and gives no verdicts.
    Passive,
}

/// Runs a peer process until its standard input ends. For the subcommand [`SUBCOMMAND`].
///
/// # Errors
/// The specification is invalid, or the gateway could not be reached.
pub fn run(spec: &str) -> Result<(), Trouble> {
    let spec: Spec =
        serde_json::from_str(spec).map_err(|error| Trouble::new(format!("{error}")))?;
    let doing = Trouble::while_doing("the control connection");
    let control = spec.control.map(TcpStream::connect).transpose().map_err(&doing)?;
    match spec.kind {
        Kind::Client => client::run(&spec)?,
        Kind::Deaf => deaf::run(&spec)?,
        Kind::Answering | Kind::Passive => answering::run(&spec)?,
    }
    drop(control);
    Ok(())
}

/// Prints one event as a line of JSON, with its time.
fn print_event(clock: Clock, kind: &str, identity: &str, more: Value) {
    let mut body = json!({"kind": kind, "identity": identity, "at_ms": clock.wall_ms()});
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    let mut out = std::io::stdout().lock();
    // If nothing reads the output, the lab has ended; then standard input ends as well.
    let _ = writeln!(out, "{body}").and_then(|()| out.flush());
}

/// The lab's handle of a peer process.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) process: Process,
}

impl Peer {
    /// Starts a peer process, and waits until all its links are up.
    pub(crate) fn start(
        program: &Path,
        namespace: &Namespace,
        spec: &Spec,
        boot: &str,
        (log, clock): (&Log, Clock),
    ) -> Result<Peer, Trouble> {
        let text = serde_json::to_string(spec).expect("plain data has string keys");
        let mut command = Command::new(program);
        command
            .args([SUBCOMMAND, &text])
            .env("SYSTOLE_BOOT_ID", boot)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut process = Process::new(namespace.spawn(&mut command)?);
        let from = log.len();
        let stdout = process.child().stdout.take();
        let stdout = stdout.ok_or_else(|| Trouble::new("a peer without output"))?;
        let (writer, read) = (log.clone(), BufReader::new(stdout));
        let reading = move || {
            for line in read.lines().map_while(Result::ok) {
                if let Some(seen) = Seen::parse(&line, "", clock.wall_ms()) {
                    writer.push(seen);
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(reading);
        thread.map_err(Trouble::while_doing("reading a peer's output"))?;
        let wanted = spec.links as usize;
        let up = |events: &[Seen]| {
            let joined = events.iter().filter(|it| it.kind == "join").count();
            (joined >= wanted).then_some(())
        };
        log.wait(clock, UP_WITHIN, from, up)
            .ok_or_else(|| Trouble::new(format!("{} did not come up", spec.identity)))?;
        Ok(Peer { process })
    }

    /// Sends an order that this kind of peer knows.
    pub(crate) fn order(&mut self, order: &str) -> Result<(), Trouble> {
        let stdin = self.process.child().stdin.as_mut();
        let stdin = stdin.ok_or_else(|| Trouble::new("a peer without input"))?;
        writeln!(stdin, "{order}").map_err(Trouble::while_doing("an order to a peer"))
    }
}
