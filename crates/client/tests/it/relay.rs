//! A TCP relay that cuts its connections at random bytes, in both directions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use systole_core::random::Random;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One connection carries at most so many bytes each way before it is cut.
const MOST: u64 = 12_000;

/// A running relay, with one connection at a time.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// The connections that were cut.
    cuts: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Starts a relay to `server`, which cuts so many connections, and then no more.
    pub(crate) async fn start(server: SocketAddr, cuts: u64, seed: u64) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let count = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(run(listener, server, cuts, Random::new(seed), count.clone()));
        Relay { address, cuts: count, task }
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

async fn run(
    listener: TcpListener,
    server: SocketAddr,
    cuts: u64,
    mut random: Random,
    count: Arc<AtomicU64>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let server = TcpStream::connect(server).await.expect("the server listens");
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let is_last = count.load(Ordering::Relaxed) >= cuts;
        let mut budget = || {
            // A part of the cuts falls into the handshake.
            let most = if random.below(4) == 0 { 250 } else { MOST };
            if is_last { u64::MAX } else { random.below(most) }
        };
        let budgets = (budget(), budget());
        let resets = random.below(2) == 0;
        if resets {
            let none = Some(std::time::Duration::ZERO);
            let _ = socket2::SockRef::from(&client).set_linger(none);
            let _ = socket2::SockRef::from(&server).set_linger(none);
        }
        let (client_from, client_to) = client.into_split();
        let (server_from, server_to) = server.into_split();
        tokio::select! {
            () = carry(client_from, server_to, budgets.0) => {}
            () = carry(server_from, client_to, budgets.1) => {}
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Carries so many bytes, or all up to the end.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut budget: u64) {
    let mut buffer = vec![0; 4_096];
    while budget > 0 {
        let most = buffer.len().min(usize::try_from(budget).unwrap_or(usize::MAX));
        let Ok(count @ 1..) = from.read(&mut buffer[..most]).await else { return };
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        budget -= count as u64;
    }
}
