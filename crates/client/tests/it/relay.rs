//! A TCP relay that cuts its connections at random bytes, in both directions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use systole_client::{Client, Event};
use systole_core::random::Random;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The number of cuts, unless SYSTOLE_CUTS gives another: 200 take some seconds, and 10,000 about a
/// minute.
const CUTS: u64 = 200;

/// The longest time for the ordinary number of cuts, far beyond what a busy machine needs.
const LIMIT: Duration = Duration::from_secs(120);

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

    fn has_cut(&self, cuts: u64) -> bool {
        self.cuts.load(Ordering::Relaxed) >= cuts
    }

    /// Sends numbered messages of many lengths through this relay to a server that sends them back,
    /// until it has cut so many connections, and checks that each comes back once and in order.
    /// Returns how often the session was resumed.
    pub(crate) async fn cross(&self, client: &Client, cuts: u64, seed: u64) -> u64 {
        println!("SYSTOLE_CUTS={cuts} SYSTOLE_SEED={seed}");
        let limit = LIMIT * u32::try_from(cuts.div_ceil(CUTS)).expect("a number of cuts");
        let crossing = self.carry_numbers(client, cuts, seed);
        tokio::time::timeout(limit, crossing).await.expect("in time")
    }

    #[allow(clippy::wildcard_enum_match_arm)] // Other events do not matter here.
    async fn carry_numbers(&self, client: &Client, cuts: u64, seed: u64) -> u64 {
        let (mut sent, mut back, mut resumed) = (0, 0, 0);
        while !self.has_cut(cuts) || back < sent {
            let next = numbered(sent);
            // So far ahead that both windows fill up now and then.
            let may_send = !self.has_cut(cuts) && sent < back + 40;
            tokio::select! {
                accepted = client.send(&next), if may_send => {
                    accepted.expect("a session");
                    sent += 1;
                }
                event = client.next_event() => match event.expect("the client goes on") {
                    Event::Message(bytes) => {
                        assert!(bytes == numbered(back), "seed {seed}: not message {back}");
                        back += 1;
                    }
                    Event::Resumed { gap, .. } => {
                        assert_eq!(gap, 0, "seed {seed}");
                        resumed += 1;
                    }
                    event @ (Event::NotResumed { .. } | Event::Lost { .. } | Event::Closed(_)) => {
                        panic!("seed {seed}: {event:?} after {back} of {sent}")
                    }
                    _ => {}
                }
            }
        }
        client.flush().await.expect("all was acknowledged");
        resumed
    }
}

/// Returns the number of cuts that the environment asks for.
pub(crate) fn cuts() -> u64 {
    std::env::var("SYSTOLE_CUTS").map_or(CUTS, |cuts| cuts.parse().expect("a number"))
}

/// Returns the seed that the environment asks for.
pub(crate) fn seed() -> u64 {
    std::env::var("SYSTOLE_SEED").map_or(1, |seed| seed.parse().expect("a number"))
}

fn numbered(number: usize) -> Vec<u8> {
    let length = if number.is_multiple_of(50) { 20_000 } else { 8 + number % 50 * 13 };
    let mut message = (number as u64).to_le_bytes().to_vec();
    message.resize(length, number as u8);
    message
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
            let none = Some(Duration::ZERO);
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
