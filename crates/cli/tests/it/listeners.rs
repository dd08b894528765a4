//! Tests of listening sockets at the end of a gateway: inherited ones, which the next gateway
//! serves, and own ones, which are emptied before they are closed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use systole_core::wire::{Codec, Frame, Hello};

use crate::gateway::{Gateway, unhurried, wait};
use crate::program::SOON;
use crate::{directory, snapshot, systole};

/// Restarts of a gateway under clients that connect without a pause.
const RESTARTS: usize = 100;

/// Drains of a gateway under such clients whose listeners are its own. A client whose connect the
/// drain has met waits a second until the kernel tries again.
const DRAINS: usize = 3;

/// Clients that connect at the same time.
const CLIENTS: usize = 4;

/// Connects that are served between two restarts.
const SERVED: usize = 50;

/// Lets a command pass its standard input to the program as the one inherited socket, as a
/// supervisor does.
fn pass(command: &mut Command) {
    let program = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let directory = command.get_current_dir().expect("the test set it").to_owned();
    *command = Command::new("/bin/sh");
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(program).args(args).current_dir(directory).env_clear();
}

/// Returns the standard input of a program to which `socket` is passed.
fn stdin(socket: &TcpListener) -> Stdio {
    Stdio::from(OwnedFd::from(socket.try_clone().expect("a descriptor is free")))
}

fn start(name: &str, socket: &TcpListener) -> Gateway {
    let address = socket.local_addr().expect("it is bound");
    let config = format!(
        "shards = 2\n[[listener]]\naddress = \"{address}\"\n[admin]\naddress = \"127.0.0.1:0\"\n"
    );
    Gateway::start_with(name, &config, stdin(socket), pass)
}

/// Connects and greets.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let hello = Hello { identity: "ada", ..Hello::default() };
    let mut bytes = Vec::new();
    Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(&bytes)?;
    Ok(stream)
}

/// Waits for the first byte of the answer: a WELCOME, or a CLOSE.
fn is_answered(mut stream: TcpStream) -> io::Result<bool> {
    Ok(stream.read(&mut [0; 64])? > 0)
}

#[test]
fn no_connect_is_lost_over_restarts_of_a_gateway_whose_listener_is_inherited() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (served, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        // Ends at the first connect that is lost, so that a failure of this test is one soon.
        let client = || {
            while !over.load(Ordering::SeqCst) {
                match connect(address).and_then(is_answered) {
                    Ok(true) => drop(served.fetch_add(1, Ordering::SeqCst)),
                    other => return Some(other),
                }
            }
            None
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        for restart in 0..=RESTARTS {
            let mut gateway = start("inherited-restarts", &socket);
            let before = served.load(Ordering::SeqCst);
            wait("clients", || (served.load(Ordering::SeqCst) >= before + SERVED).then_some(()));
            // The last gateway also serves those who wait at the end.
            if restart == RESTARTS {
                over.store(true, Ordering::SeqCst);
                wait("the clients", || clients.iter().all(|it| it.is_finished()).then_some(()));
            }
            gateway.end();
        }
        let lost: Vec<_> = clients.into_iter().filter_map(|it| it.join().unwrap()).collect();
        assert!(lost.is_empty(), "after {} connects: {lost:?}", served.load(Ordering::SeqCst));
    });
}

#[test]
fn no_connect_is_reset_by_the_drain_of_a_gateway_with_listeners_of_its_own() {
    for _ in 0..DRAINS {
        let mut gateway = Gateway::start("listeners-drains", &unhurried());
        let address = gateway.address("native");
        let served = AtomicUsize::new(0);
        thread::scope(|scope| {
            let client = || loop {
                match connect(address) {
                    Ok(stream) => assert!(is_answered(stream).expect("no reset"), "no answer"),
                    Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
                }
                served.fetch_add(1, Ordering::SeqCst);
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            wait("clients", || (served.load(Ordering::SeqCst) >= SERVED).then_some(()));
            gateway.end();
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
    }
}

#[test]
fn peers_in_the_queues_of_all_shards_are_answered_by_a_drain() {
    let mut gateway = Gateway::start("listeners-queues", &unhurried());
    let address = gateway.address("native");
    gateway.program.signal("STOP");
    let clients: Vec<_> = (0..20).map(|_| connect(address).unwrap()).collect();
    gateway.program.signal("TERM");
    gateway.program.signal("CONT");
    for client in clients {
        assert!(is_answered(client).unwrap());
    }
    assert_eq!(gateway.program.end(), 0);
}

/// Runs `serve` on another port with `socket` as the one that is passed.
fn refusal(name: &str, socket: impl Into<OwnedFd>) -> String {
    let directory = directory(name);
    let args = ["serve", "--listen", "127.0.0.1:1", "--admin", "127.0.0.1:0"];
    let mut command = systole(&directory, &args);
    pass(&mut command);
    snapshot(command.stdin(Stdio::from(socket.into())))
}

#[test]
fn a_socket_that_no_listener_takes_is_refused() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let shown = refusal("inherited-unclaimed", socket);
    assert!(shown.starts_with("exit 1\n"), "{shown}");
    assert!(shown.contains(&format!("no listener takes the inherited socket at {address}")));
    assert!(shown.contains("hint: ") && shown.contains("127.0.0.1:1"), "{shown}");
}

#[test]
fn a_socket_of_another_kind_is_refused() {
    let udp = refusal("inherited-udp", UdpSocket::bind("127.0.0.1:0").unwrap());
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = TcpStream::connect(held.local_addr().unwrap()).unwrap();
    let connected = refusal("inherited-connection", connection);
    for shown in [udp, connected] {
        assert!(shown.starts_with("exit 1\n"), "{shown}");
        assert!(shown.contains("an inherited descriptor cannot be used: "), "{shown}");
        assert!(shown.contains("hint: pass sockets that listen for TCP"), "{shown}");
    }
}
