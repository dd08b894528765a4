//! One UDP socket, read and written in batches of datagrams.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use systole_core::Span;
use systole_core::beacon::DATAGRAM;

/// Buffer size of one entry of a batch, in bytes: the maximum of beacons of one sender that the
/// kernel may gather. A longer datagram is no beacon, and its truncation does no harm.
const ENTRY: usize = 64 * DATAGRAM;

/// A UDP socket with its buffers.
pub(super) struct Datagrams {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
    /// The arrival of the last datagram of the last batch, since 1970-01-01 UTC.
    stamp: Option<Span>,
    /// The answers not yet sent, end to end.
    unsent: Vec<u8>,
    /// The receiver and the local address of each unsent answer, in order.
    addresses: Vec<(SocketAddr, Option<IpAddr>)>,
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// The numbers of datagrams sent and dropped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) sent: u64,
    /// Datagrams that the kernel did not accept for sending.
    pub(super) dropped: u64,
}

impl Datagrams {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Datagrams> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Datagrams {
            socket,
            state,
            buffer: vec![0; ENTRY * BATCH_SIZE].into_boxed_slice(),
            meta: [RecvMeta::default(); BATCH_SIZE],
            stamp: None,
            unsent: Vec::new(),
            addresses: Vec::new(),
        })
    }

    /// Reads one batch, and passes each datagram with its sender and the local address to `take`.
    /// Returns the number of datagrams; 0 once the socket is empty.
    ///
    /// # Errors
    /// The socket failed. A local error: the network cannot cause it.
    pub(super) fn receive(
        &mut self,
        mut take: impl FnMut(&[u8], SocketAddr, Option<IpAddr>),
    ) -> io::Result<usize> {
        let Datagrams { socket, state, buffer, meta, .. } = self;
        let read = socket.try_io(|| {
            let mut entries = buffer.chunks_mut(ENTRY).map(IoSliceMut::new);
            let mut entries: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| entries.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            state.recv((&*socket).into(), &mut entries, meta)
        });
        let read = match read {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            // The error refers to a datagram sent earlier; there may be more to read.
            Err(error) if is_about_a_peer(&error) => return Ok(1),
            Err(error) => return Err(error),
        };
        let last = read.checked_sub(1).and_then(|last| self.meta.get(last));
        self.stamp = last.and_then(|meta| meta.timestamp).map(Span::from);
        let mut datagrams = 0;
        for (meta, entry) in self.meta.iter().zip(self.buffer.chunks(ENTRY)).take(read) {
            let bytes = entry.get(..meta.len).unwrap_or(entry);
            if bytes.is_empty() {
                // `chunks` yields nothing for an empty datagram.
                datagrams += 1;
                take(bytes, meta.addr, meta.dst_ip);
            }
            for datagram in bytes.chunks(meta.stride.max(1)) {
                datagrams += 1;
                take(datagram, meta.addr, meta.dst_ip);
            }
        }
        Ok(datagrams)
    }

    /// Returns when the last received datagram arrived, by the wall clock; `None` if the kernel
    /// does not report it.
    pub(super) fn arrival_stamp(&self) -> Option<Span> {
        self.stamp
    }

    /// Queues an answer.
    pub(super) fn queue_answer(
        &mut self,
        answer: &[u8; DATAGRAM],
        address: SocketAddr,
        from: Option<IpAddr>,
    ) {
        self.unsent.extend_from_slice(answer);
        self.addresses.push((address, from));
    }

    /// Sends the queued answers. Drops answers that the kernel does not accept at once: devices
    /// repeat their statements, and a delayed answer would add nothing.
    pub(super) fn send_queued(&mut self) -> Sent {
        let mut outcome = Sent::default();
        let most = self.state.max_gso_segments().clamp(1, ENTRY / DATAGRAM);
        let (mut unsent, mut addresses) = (&self.unsent[..], &self.addresses[..]);
        while let Some(first) = addresses.first() {
            let run = addresses.iter().take(most).take_while(|address| *address == first).count();
            let (contents, rest) = unsent.split_at((run * DATAGRAM).min(unsent.len()));
            let transmit = Transmit {
                destination: first.0,
                ecn: None,
                contents,
                segment_size: (run > 1).then_some(DATAGRAM),
                src_ip: first.1,
            };
            let socket = &self.socket;
            match socket.try_io(|| self.state.try_send(socket.into(), &transmit)) {
                Ok(()) => outcome.sent += run as u64,
                Err(_) => outcome.dropped += run as u64,
            }
            (unsent, addresses) = (rest, &addresses[run..]);
        }
        self.unsent.clear();
        self.addresses.clear();
        outcome
    }
}

/// Whether an error refers to an unreachable peer instead of this socket.
fn is_about_a_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::Interrupted
    )
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use systole_net::Clock;

    use super::*;

    #[test]
    fn received_datagrams_are_stamped_by_the_kernel() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut datagrams = Datagrams::new(UdpSocket::from_std(socket)).unwrap();
        let wall = || Span::from_millis(Clock::start().wall_ms());
        let before = wall();
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
        while datagrams.receive(|_, _, _| {}).unwrap() == 0 {}
        let stamp = datagrams.arrival_stamp().unwrap();
        assert!(stamp >= before && stamp <= wall() + Span::from_millis(1), "{stamp}");
    }
}
