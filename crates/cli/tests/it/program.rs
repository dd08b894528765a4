//! A child process of a test, with its output lines and its exit code.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use systole_core::Span;
use systole_net::Clock;

/// Time limit for every expected event: far beyond what a busy machine needs.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Time between two looks whether a program has ended.
const POLL: Duration = Duration::from_millis(5);

/// A running program; killed when dropped.
pub(crate) struct Program {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// All lines that were read from stdout so far.
    pub(crate) seen: Vec<String>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        Program::start_with(command, Stdio::null())
    }

    /// Starts a program with this standard input.
    pub(crate) fn start_with(command: &mut Command, stdin: Stdio) -> Program {
        let mut program = Program::start_unread(command, stdin);
        program.read_stderr();
        program
    }

    /// Starts a program whose stderr is a pipe that nobody reads.
    pub(crate) fn start_unread(command: &mut Command, stdin: Stdio) -> Program {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program exists");
        let stdout = lines(child.stdout.take().expect("piped"));
        Program { child, stdout, stderr: channel().1, seen: Vec::new() }
    }

    /// Reads stderr from now on.
    pub(crate) fn read_stderr(&mut self) {
        self.stderr = lines(self.child.stderr.take().expect("a pipe that is not read yet"));
    }

    /// Returns the next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let line = self.stdout.recv_timeout(SOON).unwrap_or_else(|error| {
            let stderr: Vec<String> = self.stderr.try_iter().collect();
            panic!("no further line ({error}) after {:#?}, {stderr:#?}", self.seen)
        });
        self.seen.push(line.clone());
        line
    }

    /// Reads stdout up to a line that contains `text`, and returns that line.
    pub(crate) fn until(&mut self, text: &str) -> String {
        self.until_any(&[text])
    }

    /// Reads stdout up to a line that contains one of `texts`, and returns that line.
    pub(crate) fn until_any(&mut self, texts: &[&str]) -> String {
        loop {
            let line = self.line();
            if texts.iter().any(|text| line.contains(text)) {
                return line;
            }
        }
    }

    /// Reads stderr up to a line that contains `text`, and returns the rest of the line after it.
    pub(crate) fn stderr_after(&mut self, text: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(SOON).expect("a line of stderr");
            if let Some((_, rest)) = line.split_once(text) {
                return rest.to_owned();
            }
        }
    }

    /// Returns the next line of stderr; `None` at its end.
    pub(crate) fn stderr_line(&mut self) -> Option<String> {
        match self.stderr.recv_timeout(SOON) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("stderr has neither another line nor an end"),
        }
    }

    /// Returns the lines of stderr that have arrived.
    pub(crate) fn stderr_now(&mut self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it was started").is_none()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill exists").success());
    }

    /// Reads all of stdout and returns the exit code; -1 if a signal ended the program.
    pub(crate) fn end(&mut self) -> i32 {
        while let Ok(line) = self.stdout.recv_timeout(SOON) {
            self.seen.push(line);
        }
        let clock = Clock::start();
        loop {
            if let Some(status) = self.child.try_wait().expect("it was started") {
                return status.code().unwrap_or(-1);
            }
            assert!(clock.monotonic() < Span::from(SOON), "the program does not end");
            thread::park_timeout(POLL);
        }
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
