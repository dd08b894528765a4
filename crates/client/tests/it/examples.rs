//! Tests that run the examples as programs, with each other and with stopped peers.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::SOON;

/// A running example; killed when dropped.
struct Example {
    child: Child,
    lines: Receiver<String>,
}

impl Example {
    fn start(name: &str, args: &[&str]) -> Example {
        let mut child = Command::new(path(name))
            .args(args)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("examples are built with the tests");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        Example { child, lines }
    }

    /// Waits for the next line that contains `text`.
    fn until(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON);
            let line = line.unwrap_or_else(|error| panic!("no line with {text:?}: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the path of an example, in a directory next to that of the test binaries.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/profile/deps");
    profile.join("examples").join(name)
}

#[test]
fn the_blocking_server_echoes_to_both_clients_and_detects_a_hung_one() {
    let server = Example::start("blocking_server", &["127.0.0.1:0", "1"]);
    let line = server.until("listening on ");
    let addr = line.trim_start_matches("listening on ");

    let hello = Example::start("hello", &[addr]);
    hello.until("message: hello");
    let blocking = Example::start("blocking_client", &[addr, "1"]);
    blocking.until("Data { bytes: [104, 101, 108, 108, 111]");

    // One client exits, the other is stopped.
    drop(hello);
    server.until("PeerExited");
    stop(&blocking.child);
    server.until("cause: Unknown");
}

#[test]
fn the_blocking_client_detects_a_hung_server_while_it_blocks_in_read() {
    let server = Example::start("blocking_server", &["127.0.0.1:0", "1"]);
    let line = server.until("listening on ");
    let client =
        Example::start("blocking_client", &[line.trim_start_matches("listening on "), "1"]);
    client.until("Data {");
    stop(&server.child);
    client.until("cause: Unknown");
}

/// A stop and a continuation interrupt a `read` that has a timeout (signal(7)).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_blocking_server_goes_on_after_it_was_stopped() {
    use crate::{soon, until};
    use systole_client::{Client, Event, Options};

    let server = Example::start("blocking_server", &["127.0.0.1:0", "8"]);
    let line = server.until("listening on ");
    let client =
        soon(Client::connect(line.trim_start_matches("listening on "), Options::default()))
            .await
            .unwrap();
    stop(&server.child);
    let state = format!("/proc/{}/stat", server.child.id());
    // The state stands after the name of the program.
    loop {
        let stat = std::fs::read_to_string(&state).unwrap();
        assert!(!stat.contains(") Z "), "the server has ended");
        if stat.contains(") T ") {
            break;
        }
        thread::yield_now();
    }
    signal(&server.child, "-CONT");
    client.send(b"still there?").await.unwrap();
    until(&client, |event| {
        assert!(!matches!(event, Event::Lost { .. }), "{event:?}");
        matches!(event, Event::Message(_))
    })
    .await;
}

#[test]
fn hello_fails_if_it_cannot_connect() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut hello = Example::start("hello", &[&nobody]);
    assert!(!hello.child.wait().unwrap().success());
}

/// Stops a process without ending it: its kernel still acknowledges.
fn stop(child: &Child) {
    signal(child, "-STOP");
}

fn signal(child: &Child, signal: &str) {
    let id = child.id().to_string();
    let status = Command::new("kill").args([signal, &id]).status();
    assert!(status.expect("kill exists").success());
}
