//! A `systole serve` process for a test, and its admin interface.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use systole_core::Span;
use systole_gateway::ready::Ready;
use systole_net::Clock;

use crate::program::{Program, SOON};
use crate::{directory, systole};

/// Time between two checks of a condition.
const POLL: Duration = Duration::from_millis(10);

/// A configuration with a bound of one second and a listener of each stream codec.
pub(crate) const ONE_SECOND: &str = "\
shards = 2
[policy]
idle = \"400ms\"
interval = \"200ms\"
probes = 3
[[listener]]
address = \"127.0.0.1:0\"
shortest_bound = \"100ms\"
[[listener]]
address = \"127.0.0.1:0\"
codec = \"message1028\"
[[listener]]
address = \"127.0.0.1:0\"
codec = \"line\"
[admin]
address = \"127.0.0.1:0\"
";

/// Returns [`ONE_SECOND`] with an idle time of one hour, so that no peer is probed during a test.
pub(crate) fn unhurried() -> String {
    ONE_SECOND.replace("400ms", "1h")
}

/// A running gateway that is ready.
pub(crate) struct Gateway {
    pub(crate) program: Program,
    directory: PathBuf,
    ready: Ready,
}

impl Gateway {
    /// Starts a gateway with `config`, in a test directory called `name`.
    pub(crate) fn start(name: &str, config: &str) -> Gateway {
        Gateway::start_by(name, config, |_| {})
    }

    /// Starts a gateway as [`Gateway::start`] does, after `adjust` has changed the command.
    pub(crate) fn start_by(name: &str, config: &str, adjust: impl FnOnce(&mut Command)) -> Gateway {
        Gateway::start_with(name, config, Stdio::null(), adjust)
    }

    /// Starts a gateway as [`Gateway::start_by`] does, with this standard input.
    pub(crate) fn start_with(
        name: &str,
        config: &str,
        stdin: Stdio,
        adjust: impl FnOnce(&mut Command),
    ) -> Gateway {
        Gateway::start_program(name, config, |command| {
            adjust(command);
            Program::start_with(command, stdin)
        })
    }

    /// Starts a gateway whose stderr is a pipe that nobody reads.
    pub(crate) fn start_unread(name: &str, config: &str) -> Gateway {
        let start = |command: &mut Command| Program::start_unread(command, Stdio::null());
        Gateway::start_program(name, config, start)
    }

    fn start_program(
        name: &str,
        config: &str,
        start: impl FnOnce(&mut Command) -> Program,
    ) -> Gateway {
        let directory = directory(name);
        fs::write(directory.join("systole.toml"), config).expect("the directory is writable");
        let args = ["serve", "--config", "systole.toml", "--ready-file", "ready.json"];
        let mut program = start(&mut systole(&directory, &args));
        let ready = wait("the ready file", || {
            if !program.runs() {
                let mut stderr = String::new();
                while let Some(line) = program.stderr_line() {
                    stderr += &line;
                }
                panic!("the gateway has ended: {stderr}");
            }
            let text = fs::read_to_string(directory.join("ready.json")).ok()?;
            Some(serde_json::from_str::<Ready>(&text).expect("it is written atomically"))
        });
        Gateway { program, directory, ready }
    }

    /// Returns the path of a file in the directory of the gateway.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Replaces the configuration file.
    pub(crate) fn rewrite(&self, config: &str) {
        fs::write(self.directory.join("systole.toml"), config).expect("it was writable before");
    }

    /// Returns the address of the listener called `listener`.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let found = self.ready.listeners.iter().find(|known| known.name == listener);
        found.expect("it is configured").address
    }

    /// Returns a command that runs the program with the admin address of this gateway.
    pub(crate) fn tool(&self, args: &[&str]) -> Command {
        let mut command = systole(&self.directory, args);
        command.args(["--admin", &self.ready.admin.to_string()]);
        command
    }

    /// Returns the address of the admin interface.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.ready.admin
    }

    pub(crate) fn port(&self, listener: &str) -> String {
        self.address(listener).port().to_string()
    }

    pub(crate) fn process(&self) -> u32 {
        assert_eq!(self.ready.pid, self.program.id());
        self.ready.pid
    }

    /// Connects to a listener.
    pub(crate) fn connect(&self, listener: &str) -> TcpStream {
        connect_with_timeout(self.address(listener)).expect("it listens")
    }

    /// Sends a request; returns status and body of the answer, or an error if there is none.
    pub(crate) fn request(&self, head: &str, body: &str) -> io::Result<(u16, String)> {
        // HTTP/1.0, so that the body is not chunked.
        let mut stream = self.send(head, "1.0", body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok((status.unwrap_or(0), body.to_owned()))
    }

    fn send(&self, head: &str, version: &str, body: &str) -> io::Result<TcpStream> {
        let mut stream = connect_with_timeout(self.ready.admin)?;
        let length = body.len();
        let (start, more) = head.split_once('\n').unwrap_or((head, ""));
        let head =
            format!("{start} HTTP/{version}\r\nContent-Length: {length}\r\n{more}\r\n{body}");
        stream.write_all(head.as_bytes())?;
        Ok(stream)
    }

    pub(crate) fn status(&self, path: &str) -> u16 {
        self.request(&format!("GET {path}"), "").map_or(0, |(status, _)| status)
    }

    /// Sends a request that must succeed, and returns the answer.
    pub(crate) fn ask(&self, head: &str, body: &str) -> Value {
        let (status, answer) = self.request(head, body).expect("the admin interface answers");
        assert_eq!(status, 200, "{head}: {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::String(answer))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.ask(&format!("GET {path}"), "")
    }

    /// Returns the value of a sample, or the sum of all samples of a metric.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let scrape = self.get("/metrics");
        let lines = scrape.as_str().expect("no JSON").lines();
        let values = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let matches = name == series || name.split('{').next() == Some(series);
            value.parse::<f64>().ok().filter(|_| matches)
        });
        values.sum()
    }

    /// Waits until `query` selects `count` sessions, and returns them.
    pub(crate) fn sessions(&self, query: &str, count: usize) -> Vec<Value> {
        wait("the sessions", || {
            let page = self.get(&format!("/api/v1/sessions?limit=500{query}"));
            let sessions = page["sessions"].as_array().expect("a page").clone();
            (sessions.len() == count).then_some(sessions)
        })
    }

    /// Subscribes to the event stream, after the event with the id `last` if given.
    pub(crate) fn events(&self, last: Option<&str>) -> Events {
        self.events_of("/api/v1/events", last)
    }

    /// Subscribes to the event stream at `path`.
    pub(crate) fn events_of(&self, path: &str, last: Option<&str>) -> Events {
        let last = last.map(|id| format!("\nLast-Event-ID: {id}\r\n")).unwrap_or_default();
        // HTTP/1.1 marks the end of a stream. The lines of the chunks are no fields of events.
        let head = format!("GET {path}{last}");
        let stream = self.send(&head, "1.1", "").expect("it listens");
        let mut events = Events(BufReader::new(stream));
        assert!(events.line().contains(" 200 "));
        while !events.line().is_empty() {}
        events
    }

    /// Returns the snapshot at the beginning of the event stream, byte by byte as it is sent.
    pub(crate) fn raw_events(&self) -> String {
        let stream = self.send("GET /api/v1/events", "1.0", "").expect("it listens");
        let (mut stream, mut text) = (BufReader::new(stream), String::new());
        while !text.contains("event: live") {
            assert!(stream.read_line(&mut text).expect("a line in time") > 0, "{text}");
        }
        text
    }

    /// Reads the log up to a line that contains `text`; returns the line, which must be JSON.
    pub(crate) fn log(&mut self, text: &str) -> Value {
        loop {
            let line = self.program.stderr_line().expect("the gateway runs");
            let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if line.contains(text) {
                return value;
            }
        }
    }

    /// Drains the gateway, and waits for its end.
    pub(crate) fn end(&mut self) {
        self.program.signal("TERM");
        assert_eq!(self.program.end(), 0);
    }
}

/// A stream of server-sent events.
pub(crate) struct Events(BufReader<TcpStream>);

/// A server-sent event.
#[derive(Debug)]
pub(crate) struct ServerEvent {
    pub(crate) kind: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl Events {
    fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).expect("a line within the time limit");
        assert!(count > 0, "the stream has ended");
        line.truncate(line.trim_end().len());
        line
    }

    pub(crate) fn next(&mut self) -> ServerEvent {
        let mut event = ServerEvent { kind: String::new(), id: None, data: Value::Null };
        let clock = Clock::start();
        loop {
            let line = self.line();
            // A stream without events still sends comments, so the read never times out.
            assert!(clock.monotonic() < Span::from(SOON), "no event within {SOON:?}");
            match line.split_once(": ") {
                Some(("event", kind)) => event.kind = kind.to_owned(),
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("data", data)) => {
                    event.data = serde_json::from_str(data).expect("data is JSON");
                }
                _ if line.is_empty() && !event.kind.is_empty() => return event,
                _ => {}
            }
        }
    }

    /// Reads events up to the next one of this kind.
    pub(crate) fn until(&mut self, kind: &str) -> ServerEvent {
        loop {
            let event = self.next();
            if event.kind == kind {
                return event;
            }
        }
    }
}

impl Events {
    /// Reads up to the end of the stream, and panics if it was cut off.
    pub(crate) fn end(mut self) {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).expect("the end within the time limit");
        assert!(rest.ends_with("0\r\n\r\n"), "the stream was cut off: {rest}");
    }
}

/// Calls `find` until it returns a value; panics after a deadline.
pub(crate) fn wait<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::start();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(clock.monotonic() < Span::from(SOON), "{what}: not within {SOON:?}");
        thread::park_timeout(POLL);
    }
}

/// Connects with a read timeout.
pub(crate) fn connect_with_timeout(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
