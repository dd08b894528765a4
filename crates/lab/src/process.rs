//! A process of the lab, which gets signals and is killed when dropped.

use std::fs;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use systole_core::Span;
use systole_net::Clock;

use crate::trouble::Trouble;

/// Time limit for the effect of a signal, on a machine under load.
const TAKES_EFFECT_WITHIN: Span = Span::from_secs(2);
const POLL: Span = Span::from_millis(1);

/// A child process, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn new(child: Child) -> Process {
        Process { child }
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Trouble> {
        let doing = Trouble::while_doing("signalling a process");
        kill_process(self.pid()?, signal).map_err(|error| doing(error.into()))
    }

    /// Stops the process, and waits until it has stopped.
    pub(crate) fn stop(&self, clock: Clock) -> Result<(), Trouble> {
        self.signal(Signal::STOP)?;
        self.wait_for_state(clock, "Tt")
    }

    /// Continues a stopped process.
    pub(crate) fn resume(&self) -> Result<(), Trouble> {
        self.signal(Signal::CONT)
    }

    /// Kills the process, and waits until its sockets are closed.
    pub(crate) fn kill(&mut self) -> Result<(), Trouble> {
        self.signal(Signal::KILL)?;
        self.child.wait().map(drop).map_err(Trouble::while_doing("waiting for a killed process"))
    }

    fn wait_for_state(&self, clock: Clock, wanted: &str) -> Result<(), Trouble> {
        let path = format!("/proc/{}/stat", self.child.id());
        let until = clock.monotonic() + TAKES_EFFECT_WITHIN;
        loop {
            let text = fs::read_to_string(&path).map_err(Trouble::while_doing(&path))?;
            if state(&text).is_some_and(|state| wanted.contains(state)) {
                return Ok(());
            }
            if clock.monotonic() > until {
                return Err(Trouble::new("a signal had no effect"));
            }
            pause(POLL);
        }
    }

    fn pid(&self) -> Result<Pid, Trouble> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| Trouble::new("a process without a number"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sleeps: between two faults of a scenario, or between two polls.
// Faults occur at fixed times: there is no condition to wait for.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause(span: Span) {
    std::thread::sleep(span.into());
}

/// Returns the state letter in `/proc/PID/stat`, after the program's name, which may contain
/// anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_found_after_any_name() {
        assert_eq!(state("12 (systole) T 1 12"), Some('T'));
        assert_eq!(state("12 (a) S (b) R 1 12"), Some('R'));
        assert_eq!(state("12"), None);
    }
}
