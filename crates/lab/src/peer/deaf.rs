//! A peer that sends and does not read: its window closes while its kernel still acknowledges. With
//! the order `backlog` it goes on sending heartbeats.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use systole_core::Span;
use systole_core::wire::{Beat, Codec, DataKind, Frame, Hello};
use systole_net::{Clock, identity};

use super::{Spec, print_event};
use crate::process::pause;
use crate::trouble::Trouble;

/// The smallest receive buffer that the kernel grants, so that little data closes the window.
const RECEIVE_BUFFER: usize = 2_048;
/// One message. The echo of all messages exceeds the window, but not the gateway's bounded queue,
/// which would make the peer a slow consumer.
const MESSAGE: [u8; 8_192] = [0; 8_192];
const MESSAGES: usize = 12;
/// Number of messages whose echo is 250 KB, just below what the gateway keeps for one link.
const BACKLOG: usize = 31;
/// Number of messages that exceed this limit, whatever the gateway's kernel takes of them.
const GROWTH: usize = 256;
/// Time between two heartbeats.
const BEATS_EVERY: Span = Span::from_secs(1);
/// Bytes read of a WELCOME: the kind and the first byte of the length.
const HEADER: usize = 2;

pub(super) fn run(spec: &Spec) -> Result<(), Trouble> {
    let doing = Trouble::while_doing("a peer that does not read");
    let mut stream = connect(spec).map_err(&doing)?;
    let name = format!("{}-0", spec.identity);
    let mut bytes = Vec::new();
    let hello = Hello {
        boot_id: identity::boot_id(),
        instance_id: identity::instance_id().map_err(&doing)?,
        identity: &name,
        ..Hello::default()
    };
    Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
    stream.write_all(&bytes).map_err(&doing)?;
    stream.read_exact(&mut [0; HEADER]).map_err(&doing)?;
    print_event(Clock::start(), "join", &name, json!({}));
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.as_str() {
            "fill" => send(&mut stream, MESSAGES).map_err(&doing)?,
            "backlog" => {
                send(&mut stream, BACKLOG).map_err(&doing)?;
                let beating = stream.try_clone().map_err(&doing)?;
                std::thread::Builder::new().spawn(move || beat(beating)).map_err(&doing)?;
            }
            // The gateway may end the link before it has taken everything.
            "grow" => drop(send(&mut stream, GROWTH)),
            other => return Err(Trouble::new(format!("no such order: {other}"))),
        }
    }
    Ok(())
}

fn connect(spec: &Spec) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(spec.gateway), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(&spec.gateway.into())?;
    Ok(socket.into())
}

/// Sends a heartbeat each second until the link ends.
fn beat(mut stream: TcpStream) {
    for sequence in (0..=u8::MAX).cycle() {
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Ping(Beat::bare(sequence)), &mut bytes);
        if stream.write_all(&bytes).is_err() {
            return;
        }
        pause(BEATS_EVERY);
    }
}

fn send(stream: &mut TcpStream, messages: usize) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let kind = DataKind::default();
    for _ in 0..messages {
        Codec::Native.encode(&Frame::data(&MESSAGE, false, kind), &mut bytes);
    }
    stream.write_all(&bytes)
}
