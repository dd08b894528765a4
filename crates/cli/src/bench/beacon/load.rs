//! A fleet of devices on a few UDP sockets: sends due statements, and receives the answers.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use systole_core::beacon::{DATAGRAM, Datagram, Device, Heard, Reply};
use systole_gateway::beacon::keys::Keys;
use systole_net::Clock;
use systole_net::datagrams::{RECEIVE_BUFFER, grow_receive_buffer};

use super::super::progress::Progress;

/// Sockets that the devices share: enough source addresses that every shard gets some.
const SOCKETS: usize = 16;
/// Datagrams sent before the answers are read, so that neither side's queue overflows.
const BURST: usize = 128;
/// Pause before the next poll when nothing is due.
const POLL: Duration = Duration::from_micros(200);
/// Maximum of unanswered devices while the fleet comes online, and the time before a retry.
const MAX_UNANSWERED: usize = 4_096;
const RETRY_NS: u64 = 1_000_000_000;

/// Counts of the statements sent and the answers received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Statements sent.
    pub(super) stated: u64,
    /// Answers that confirm the latest statement of a device.
    pub(super) heard: u64,
    /// Answers that request another statement.
    pub(super) again: u64,
}

/// The devices, numbered from 0.
pub(super) struct Load<'a> {
    sockets: Vec<UdpSocket>,
    devices: Vec<Device>,
    /// Whether each device was ever confirmed.
    online: Vec<bool>,
    pub(super) count: usize,
    keys: Keys,
    clock: Clock,
    progress: &'a Progress,
    /// The device that sends the next statement.
    next: usize,
    pub(super) seen: Seen,
    /// Statements that were due but not sent, because this machine could not drive the load.
    pub(super) left_out: u64,
    /// The greatest lateness of a sent statement.
    pub(super) behind: Duration,
}

impl<'a> Load<'a> {
    pub(super) fn new(
        gateway: SocketAddr,
        devices: usize,
        keys: Keys,
        (clock, progress): (Clock, &'a Progress),
    ) -> io::Result<Load<'a>> {
        let any = match gateway {
            SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0; 8], 0)),
        };
        let socket = || {
            let socket = UdpSocket::bind(any)?;
            socket.connect(gateway)?;
            socket.set_nonblocking(true)?;
            grow_receive_buffer(&socket, RECEIVE_BUFFER)?;
            Ok(socket)
        };
        let sockets = (0..SOCKETS.min(devices)).map(|_| socket());
        Ok(Load {
            sockets: sockets.collect::<io::Result<_>>()?,
            devices: (0..devices as u64).map(|device| Device::new(device, device as u32)).collect(),
            online: vec![false; devices],
            count: 0,
            keys,
            clock,
            progress,
            next: 0,
            seen: Seen::default(),
            left_out: 0,
            behind: Duration::ZERO,
        })
    }

    /// Brings all devices online, as fast as answers arrive.
    pub(super) fn come_online(&mut self, limit: Duration) -> io::Result<()> {
        let began = self.now();
        let mut asked = vec![0_u64; self.devices.len()];
        let (mut next, mut answered_at) = (0, began);
        while self.count < self.devices.len() {
            let now = self.now();
            if now - began > limit.as_nanos() as u64 {
                return Err(io::Error::other(format!("only {} devices came online", self.count)));
            }
            let unanswered = next.min(self.devices.len()) - self.count.min(next);
            for _ in 0..BURST.min(MAX_UNANSWERED.saturating_sub(unanswered)) {
                if next == self.devices.len() {
                    break;
                }
                self.send_statement(next)?;
                asked[next] = now;
                next += 1;
            }
            let before = self.count;
            self.receive_answers()?;
            if self.count > before {
                answered_at = now;
                self.progress.links(self.count);
            } else if now - answered_at > RETRY_NS {
                self.retry(&mut asked, next, now)?;
                answered_at = now;
            } else {
                thread::park_timeout(POLL);
            }
        }
        Ok(())
    }

    /// Repeats the statement of each device that is unconfirmed for too long.
    fn retry(&mut self, asked: &mut [u64], next: usize, now: u64) -> io::Result<()> {
        for (device, asked) in asked.iter_mut().enumerate().take(next) {
            if !self.online[device] && now - *asked > RETRY_NS {
                self.send_statement(device)?;
                *asked = now;
            }
        }
        Ok(())
    }

    /// Sends one statement per `period` for each of the first `living` devices, evenly spread, for
    /// `length`.
    pub(super) fn live(
        &mut self,
        length: Duration,
        period: Duration,
        living: usize,
    ) -> io::Result<()> {
        let began = self.now();
        let length = length.as_nanos() as u64;
        let per_device = (period.as_nanos() as u64 / living.max(1) as u64).max(1);
        let mut stated = 0;
        loop {
            let elapsed = self.now() - began;
            if elapsed >= length {
                self.left_out += (length / per_device).saturating_sub(stated);
                return Ok(());
            }
            self.progress.tick();
            let due = elapsed / per_device;
            if living > 0 {
                let behind = Duration::from_nanos((due - stated).saturating_mul(per_device));
                self.behind = self.behind.max(behind);
            }
            let burst = (due - stated).min(BURST as u64);
            for _ in 0..if living > 0 { burst } else { 0 } {
                self.next = if self.next + 1 < living { self.next + 1 } else { 0 };
                self.send_statement(self.next)?;
            }
            stated += burst;
            self.receive_answers()?;
            if burst == 0 {
                thread::park_timeout(POLL);
            }
        }
    }

    fn now(&self) -> u64 {
        self.clock.monotonic().as_nanos()
    }

    fn send_statement(&mut self, device: usize) -> io::Result<()> {
        let statement = Datagram::Statement(self.devices[device].state(0, false));
        let key = self.keys.of(device as u64).ok_or(ErrorKind::NotFound)?;
        let socket = &self.sockets[device % self.sockets.len()];
        self.seen.stated += 1;
        match socket.send(&key.seal(&statement)) {
            Ok(_) => Ok(()),
            // A full buffer counts as loss on the network.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads all waiting answers. A device sends another statement at once if the answer requests
    /// it.
    fn receive_answers(&mut self) -> io::Result<()> {
        let mut bytes = [0; DATAGRAM + 1];
        for socket in 0..self.sockets.len() {
            loop {
                let length = match self.sockets[socket].recv(&mut bytes) {
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                let Ok((datagram, tag)) = Datagram::decode(&bytes[..length]) else { continue };
                let Datagram::Reply(answer) = datagram else { continue };
                let proven =
                    self.keys.of(answer.device).is_some_and(|key| key.proves(&datagram, &tag));
                if proven {
                    self.handle_answer(answer)?;
                }
            }
        }
        Ok(())
    }

    fn handle_answer(&mut self, answer: Reply) -> io::Result<()> {
        let index = usize::try_from(answer.device).unwrap_or(usize::MAX);
        let Some(device) = self.devices.get_mut(index) else {
            return Ok(());
        };
        match device.handle(answer) {
            Heard::Latest { .. } => {
                self.seen.heard += 1;
                self.count += usize::from(!self.online[index]);
                self.online[index] = true;
            }
            Heard::Again => {
                self.seen.again += 1;
                self.send_statement(index)?;
            }
            Heard::Nothing => {}
        }
        Ok(())
    }
}
