//! The beacons' data plane: one thread per shard with one loop, one UDP socket and one machine.
//!
//! The kernel deals datagrams out by the sender's address, and a device may change that; so a
//! device belongs to the shard that its number chooses. Whichever shard receives a statement checks
//! its tag, which is most of the work, and hands what belongs to another over to it.

mod answer;
mod beacon_loop;
pub mod keys;
mod mesh;
mod socket;

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use mio::{Poll, Waker};
use systole_core::Policy;
use systole_net::Clock;
use tokio::sync::mpsc::Sender;

use crate::report::Report;
use crate::request::{REQUESTS, Requests};
use crate::shard::Shard;
use crate::stats::{BeaconStats, Distributions, ShardStats};
use beacon_loop::BeaconLoop;
use keys::Keys;

/// What all shards of one beacon listener have in common.
#[derive(Clone, Debug)]
pub struct BeaconSetup {
    /// The number of the first of these shards; the first byte of their sessions' numbers.
    pub first_index: u8,
    /// The index of the listener.
    pub listener: u16,
    /// The policy to begin with.
    pub policy: Policy,
    /// The most devices online, per shard.
    pub max_beacons: u32,
    /// What proves the devices.
    pub keys: Arc<Keys>,
    /// The clock, common to all shards.
    pub clock: Clock,
    /// Chance, different at each start: no challenge may come twice under the same keys.
    pub seed: u64,
    /// The distributions they add to.
    pub distributions: Distributions,
}

/// What each shard has for itself.
#[derive(Debug)]
pub struct BeaconShard {
    /// Where it listens, non-blocking, and shared with the others.
    pub socket: UdpSocket,
    /// Where its reports go.
    pub reports: Sender<Report>,
    /// What it counts, as every shard.
    pub stats: Arc<ShardStats>,
    /// What it counts besides.
    pub beacon_stats: Arc<BeaconStats>,
}

/// Starts a thread for each of `shards`.
///
/// # Errors
/// The operating system refused a thread, a poll or a socket's registration. Those that were
/// started end with their handles.
pub fn spawn(setup: &BeaconSetup, shards: Vec<BeaconShard>) -> io::Result<Vec<Shard>> {
    let mut polls = Vec::new();
    let mut wakers = Vec::new();
    for _ in &shards {
        let poll = Poll::new()?;
        wakers.push(Arc::new(Waker::new(poll.registry(), beacon_loop::WAKER)?));
        polls.push(poll);
    }
    let mut meshes = mesh::between(&wakers, setup.clock).into_iter();
    let mut spawned = Vec::new();
    for (index, ((shard, poll), waker)) in shards.into_iter().zip(polls).zip(wakers).enumerate() {
        let Some(mesh) = meshes.next() else { break };
        let (sender, receiver) = sync_channel(REQUESTS);
        let beacon_loop = BeaconLoop::new(poll, setup, index as u8, shard, mesh, receiver)?;
        let name = format!("beacon-{index}");
        let thread = std::thread::Builder::new().name(name).spawn(move || beacon_loop.run())?;
        spawned.push(Shard { requests: Requests::new(sender, waker), thread });
    }
    Ok(spawned)
}
