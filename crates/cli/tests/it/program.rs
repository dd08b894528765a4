//! A program that runs beside the test: its lines as they come, its exit code in the end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How long anything may take that should happen soon: far beyond what a busy machine needs.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A running program; killed when dropped.
pub(crate) struct Program {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// Everything that was read from stdout so far.
    pub(crate) seen: Vec<String>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program exists");
        let stdout = lines(child.stdout.take().expect("piped"));
        let stderr = lines(child.stderr.take().expect("piped"));
        Program { child, stdout, stderr, seen: Vec::new() }
    }

    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let line = self.stdout.recv_timeout(SOON).unwrap_or_else(|error| {
            let told: Vec<String> = self.stderr.try_iter().collect();
            panic!("no further line ({error}) after {:#?}, {told:#?}", self.seen)
        });
        self.seen.push(line.clone());
        line
    }

    /// Reads on until a line that contains `text`.
    pub(crate) fn until(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// What follows `text` in a line of stderr.
    pub(crate) fn told(&mut self, text: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(SOON).expect("a line of stderr");
            if let Some((_, rest)) = line.split_once(text) {
                return rest.to_owned();
            }
        }
    }

    /// The next line of stderr; `None` at its end.
    pub(crate) fn told_line(&mut self) -> Option<String> {
        match self.stderr.recv_timeout(SOON) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing more is told, and no end either"),
        }
    }

    /// The lines of stderr that are there already.
    pub(crate) fn told_now(&mut self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it was started").is_none()
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill exists").success());
    }

    /// The exit code, when all of stdout was read; -1 if a signal ended it.
    pub(crate) fn end(&mut self) -> i32 {
        while let Ok(line) = self.stdout.recv_timeout(SOON) {
            self.seen.push(line);
        }
        self.child.wait().expect("it was started").code().unwrap_or(-1)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    let lines = BufReader::new(from).lines().map_while(Result::ok);
    thread::spawn(move || lines.map(|line| sender.send(line)).all(|sent| sent.is_ok()));
    receiver
}
