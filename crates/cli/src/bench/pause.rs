//! The pause of a soak: a process of its own stops the gateway, and continues it as soon as the
//! bench ends the pause or ends itself, in whatever way. The gateway may be the user's own, so it
//! must never stay stopped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};

use rustix::process::{Pid, Signal, kill_process, setsid};

use super::BenchError;
use super::fleet::own_process;

/// Arguments of the hidden subcommand `bench-pause`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PauseArgs {
    /// Process to stop
    #[arg(value_parser = pid)]
    pid: Pid,
}

fn pid(text: &str) -> Result<Pid, String> {
    let pid = text.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
    pid.ok_or_else(|| "expected the number of a process".to_owned())
}

/// Stops the process, reports this with a line on standard output, and continues the process when
/// standard input ends.
pub(crate) fn run(args: &PauseArgs) -> io::Result<()> {
    // Signals that a terminal sends to the bench and its children must not end this process.
    setsid()?;
    kill_process(args.pid, Signal::STOP)?;
    // From here on nothing may return before the process is continued.
    let reported = writeln!(io::stdout(), "stopped");
    let waited = reported.and_then(|()| io::stdin().lock().read_to_end(&mut Vec::new()));
    kill_process(args.pid, Signal::CONT)?;
    waited.map(drop)
}

/// A stopped process, which is continued when this is dropped.
pub(super) struct Pause {
    pid: u32,
    helper: Child,
    /// `None` once the helper was asked to continue the process.
    input: Option<ChildStdin>,
}

impl Pause {
    /// Stops the process `pid`.
    pub(super) fn start(pid: u32) -> Result<Pause, BenchError> {
        let mut helper = own_process("bench-pause")?
            .arg(pid.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| BenchError::io("cannot start the process that stops", &error))?;
        let input = helper.stdin.take();
        let output = helper.stdout.take().expect("stdout is piped");
        // From here on an error drops the pause, which continues the process.
        let pause = Pause { pid, helper, input };
        let mut line = String::new();
        match BufReader::new(output).read_line(&mut line) {
            Ok(1..) => Ok(pause),
            Ok(0) | Err(_) => {
                Err(BenchError::new(format!("cannot stop process {pid}; the reason is above")))
            }
        }
    }

    /// Continues the process.
    pub(super) fn end(mut self) -> Result<(), BenchError> {
        self.resume().map_err(|error| {
            let what = format!("cannot continue process {0}; run: kill -CONT {0}", self.pid);
            BenchError::io(&what, &error)
        })
    }

    fn resume(&mut self) -> io::Result<()> {
        // The helper waits for the end of this pipe.
        if self.input.take().is_none() || self.helper.wait()?.success() {
            return Ok(());
        }
        // The helper has failed, or was killed.
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.map_or(Ok(()), |pid| kill_process(pid, Signal::CONT)).map_err(io::Error::from)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // The process may have ended meanwhile; then nothing is left to continue.
        let _ = self.resume();
    }
}
