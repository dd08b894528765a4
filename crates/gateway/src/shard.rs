//! The data plane: one shard is one thread with one loop, its own listening sockets and its own
//! hub.
//!
//! A turn of the loop polls, reads the clock, feeds what arrived to the hub, expires what is due,
//! and flushes. The hub decides everything; the shard carries bytes. Shards share nothing but the
//! ports they listen on.

mod acceptor;
mod answer;
mod carry;
mod shard_loop;
mod sockets;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use mio::{Poll, Waker};
use systole_core::link::Settings;
use systole_net::Clock;
use tokio::sync::mpsc::Sender;

use crate::epochs::Epochs;
use crate::report::Report;
use crate::request::{REQUESTS, Requests};
use crate::stats::{Distributions, ShardStats};
use shard_loop::ShardLoop;

/// What a shard is made of.
#[derive(Debug)]
pub struct ShardSetup {
    /// Its number, which is the first byte of its sessions' numbers.
    pub index: u8,
    /// Where it listens, non-blocking, and how each listener behaves.
    pub listeners: Vec<(TcpListener, Settings)>,
    /// The clock, common to all shards.
    pub clock: Clock,
    /// Chance, for spreading heartbeats and reconnects.
    pub seed: u64,
    /// The most links it holds; beyond that it leaves peers waiting to be accepted.
    pub max_links: u32,
    /// The most bytes of data that wait for one peer; beyond that it is a slow consumer.
    pub outbox_limit: usize,
    /// Whether data is echoed to whoever sent it; otherwise it is dropped.
    pub echo: bool,
    /// Where its sessions' epochs come from, common to all shards.
    pub epochs: Arc<Epochs>,
    /// Where its reports go.
    pub reports: Sender<Report>,
    /// What it counts.
    pub stats: Arc<ShardStats>,
    /// The distributions it adds to.
    pub distributions: Distributions,
}

/// A running shard.
#[derive(Debug)]
pub struct Shard {
    /// Where to ask it something.
    pub requests: Requests,
    /// Ends after [`crate::request::Request::Stop`].
    pub thread: JoinHandle<()>,
}

/// Starts a shard on a thread of its own.
///
/// # Errors
/// The operating system refused a thread, a poll or a socket's registration; nothing was started.
pub fn spawn(setup: ShardSetup) -> io::Result<Shard> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), shard_loop::WAKER)?);
    let (sender, receiver) = sync_channel(REQUESTS);
    let name = format!("shard-{}", setup.index);
    let shard_loop = ShardLoop::new(poll, setup, receiver)?;
    let thread = std::thread::Builder::new().name(name).spawn(move || shard_loop.run())?;
    Ok(Shard { requests: Requests::new(sender, waker), thread })
}
