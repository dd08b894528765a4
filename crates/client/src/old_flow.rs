//! The connection of a lost link, kept until the next one stands. Whether it still passes nothing
//! then shows whether the path has healed or the connection was forgotten on the way.

use std::time::Duration;

use socket2::{SockRef, Socket};
use systole_core::Span;
use systole_core::kernel::{Patience, SendState};
use systole_core::witness::{OLD_FLOW_LIMIT, is_old_flow_blocked};
use systole_net::examine::tcp_snapshot;
use systole_net::{Clock, socket_options};
use tokio::net::TcpStream;

/// The time between two looks at the old connection; short against the time of a retransmission.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How much longer than the bound the kernel must not give up: the delay before the first attempt
/// to reconnect, the attempt, and the looks.
const PATIENCE: Span = Span::from_secs(15);

/// The connection of a lost link, and the time of its verdict.
#[derive(Debug)]
pub(crate) struct OldFlow {
    socket: Socket,
    lost: Clock,
}

impl OldFlow {
    /// Keeps the connection of a link whose bound has just passed; `None` if that fails.
    pub(crate) fn keep(stream: &TcpStream, bound: Span) -> Option<OldFlow> {
        let socket = SockRef::from(stream).try_clone().ok()?;
        let patience = Patience::new(Some(bound + PATIENCE), SendState::Sending);
        socket_options::follow(&patience, &socket).ok()?;
        Some(OldFlow { socket, lost: Clock::start() })
    }

    /// Returns whether this connection still passes nothing although a `new` one to the same server
    /// was just established. Waits until the kernel has retransmitted on it, at most
    /// [`OLD_FLOW_LIMIT`].
    pub(crate) async fn is_blocked(&self, new: &TcpStream) -> bool {
        let passed = Clock::start();
        let rtt = tcp_snapshot(new).map_or(Span::ZERO, |tcp| tcp.rtt);
        loop {
            let (passed, lost) = (passed.monotonic(), self.lost.monotonic());
            let Some(tcp) = tcp_snapshot(&self.socket) else { return false };
            if let Some(blocked) = is_old_flow_blocked(&tcp, rtt, passed, lost) {
                return blocked;
            }
            if passed >= OLD_FLOW_LIMIT {
                return false;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}
