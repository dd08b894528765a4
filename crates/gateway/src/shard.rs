//! The data plane: a shard is one thread with one loop and its own hub. The loop carries the
//! streams of links, which are here, or the datagrams of devices ([`crate::beacon`]).
//!
//! A turn of the loop polls, reads the clock, feeds received bytes to the hub, expires due
//! deadlines, and flushes. The hub decides everything; the shard only moves bytes. Shards share
//! nothing but the ports that they listen on, or the listening sockets that the gateway has
//! inherited.

mod acceptor;
pub(crate) mod answer;
mod carry;
mod deliver;
mod departures;
mod half_open;
mod judging;
mod listening;
mod login;
mod moving;
mod opening;
mod resume;
pub(crate) mod shard_loop;
mod sockets;
mod streams;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use mio::Poll;
use systole_core::Span;
use systole_core::home::Homes;
use systole_core::link::Settings;
use systole_net::Clock;
use systole_net::tls::{ServerTls, seed_thread};
use systole_net::transport::Layer;

use crate::bans::Bans;
use crate::epochs::Epochs;
use crate::gate::Gate;
use crate::identity::{Jobs, Verifier};
use crate::logic::Logic;
use crate::report::ReportChannels;
use crate::request::{ARRIVALS, Arrivals, REQUESTS, RequestQueue, Requests};
use crate::stats::{Distributions, ShardStats};
use crate::store::Store;
use crate::wake::{LoopWaker, WakeUps, wake_ups};
use shard_loop::WAKER;
use streams::Streams;

/// Everything that [`spawn`] needs to start one shard.
#[derive(Debug)]
pub struct ShardSetup {
    /// The shard's index: the first byte of the numbers of its sessions.
    pub index: u8,
    /// The listeners, in the order of their numbers.
    pub listeners: Vec<ShardListener>,
    /// The homes of identities, by the numbers of the shards.
    pub homes: Homes,
    /// The ways into all shards of these listeners, by their numbers; see [`Door`].
    pub siblings: Arc<[Arrivals]>,
    /// The clock, shared by all shards.
    pub clock: Clock,
    /// Seed of the random numbers that spread heartbeats and reconnects.
    pub seed: u64,
    /// Maximum number of links; further peers wait in the kernel to be accepted.
    pub max_links: u32,
    /// Maximum number of unsent bytes queued for one peer; beyond it the peer is a slow consumer.
    pub outbox_limit: usize,
    /// Maximum memory of the unsent bytes of all peers together; beyond it the peer with the
    /// longest queue is a slow consumer.
    pub outbox_memory: usize,
    /// Maximum memory of the incomplete frames of all peers together; beyond it the peer with the
    /// oldest gives way.
    pub frame_memory: usize,
    /// Maximum memory of the messages that wait for acknowledgements; beyond it the peer that keeps
    /// most is a slow consumer.
    pub window_memory: usize,
    /// Maximum of the sessions that are away; beyond it the oldest ends of the address that has
    /// most.
    pub away: u32,
    /// The longest rest between turns while only heartbeats flow; zero for none.
    pub longest_rest: Span,
    /// What answers the data that arrives.
    pub logic: Logic,
    /// The queue of tokens to be verified; `None` if no listener verifies them.
    pub jobs: Option<Jobs>,
    /// The source of session epochs, shared by all shards.
    pub epochs: Arc<Epochs>,
    /// Where it is written what is owed about a session before it exists; `None` for nothing.
    pub store: Option<Store>,
    /// What limits each address; `None` for no limit.
    pub gate: Option<Gate>,
    /// Who may have no session.
    pub bans: Arc<Bans>,
    /// The channels to the control plane.
    pub reports: ReportChannels,
    /// The counters of this shard.
    pub stats: Arc<ShardStats>,
    /// The histograms to which this shard adds.
    pub distributions: Distributions,
}

/// A listener of one shard.
#[derive(Debug)]
pub struct ShardListener {
    /// The non-blocking listening socket.
    pub socket: TcpListener,
    /// Whether others accept from the same queue: shards that have a duplicate of this descriptor,
    /// the parent of this process, its next gateway.
    pub is_shared: bool,
    /// The settings of its links.
    pub settings: Settings,
    /// The TLS of its connections; `None` for plain ones.
    pub tls: Option<ListenerTls>,
    /// What it demands of tokens; `None` if nobody looks at them.
    pub tokens: Option<ListenerTokens>,
}

/// What a listener demands of tokens.
#[derive(Clone, Debug)]
pub struct ListenerTokens {
    /// Who verifies them.
    pub verifier: Verifier,
    /// Whether clients without a token get a session without an identity.
    pub anonymous: bool,
}

/// The TLS of a listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Its certificates, and who vouches for clients.
    pub server: ServerTls,
    /// Whether the subject of a client's certificate is its identity.
    pub subject_is_identity: bool,
}

/// The way into a shard that is still to be started: so that all shards know one another before the
/// first accepts.
#[derive(Debug)]
pub struct Door {
    poll: Poll,
    wake_ups: WakeUps,
    queue: RequestQueue,
    requests: Requests,
    arrivals: Arrivals,
}

impl Door {
    /// Makes the way into one shard.
    ///
    /// # Errors
    /// The operating system refused a poll.
    pub fn new() -> io::Result<Door> {
        let poll = Poll::new()?;
        let (waker, wake_ups) = wake_ups(poll.registry(), WAKER)?;
        let (sender, receiver) = sync_channel(REQUESTS);
        let (links, arriving) = sync_channel(ARRIVALS);
        let queue = RequestQueue::with_arrivals(receiver, arriving);
        let arrivals = Arrivals::new(links, waker.clone());
        Ok(Door { poll, wake_ups, queue, requests: Requests::new(sender, waker), arrivals })
    }

    /// Returns what wakes the shard.
    pub(crate) fn waker(&self) -> LoopWaker {
        self.requests.waker()
    }

    /// Returns the way for links into the shard.
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }
}

/// A running shard.
#[derive(Debug)]
pub struct Shard {
    /// Sends requests to the shard.
    pub requests: Requests,
    /// The shard's thread; ends after [`crate::request::Request::Stop`].
    pub thread: JoinHandle<()>,
}

/// Starts a shard behind its door, on a thread of its own.
///
/// # Errors
/// The operating system refused a thread or the registration of a socket. Nothing was started.
pub fn spawn(setup: ShardSetup, door: Door) -> io::Result<Shard> {
    let Door { poll, wake_ups, queue, requests, .. } = door;
    let name = format!("shard-{}", setup.index);
    let has_tls = setup.listeners.iter().any(|listener| listener.tls.is_some());
    let shard_loop = Streams::<Layer>::shard(poll, wake_ups, queue, setup)?;
    let run = move || {
        if has_tls {
            seed_thread();
        }
        shard_loop.run();
    };
    let thread = std::thread::Builder::new().name(name).spawn(run)?;
    Ok(Shard { requests, thread })
}
