//! The data plane of beacons: each shard is one thread with one loop, one UDP socket and one
//! machine.
//!
//! The kernel distributes datagrams by the sender's address, which a device may change. Therefore
//! the device's number chooses its shard. The receiving shard verifies the tag, which is most of
//! the work, and hands the statement over to the shard of the device.

mod beacons;
pub mod keys;
mod known;
mod mesh;
mod socket;

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use mio::{Poll, Waker};
use systole_core::{Policy, Span};
use systole_net::Clock;

use crate::bans::Bans;
use crate::report::ReportChannels;
use crate::request::{REQUESTS, RequestQueue, Requests};
use crate::shard::Shard;
use crate::shard::shard_loop::WAKER;
use crate::stats::{BeaconStats, Distributions, ShardStats};
use crate::wake::wake_ups;
use beacons::Beacons;
use keys::Keys;

/// The setup shared by all shards of one beacon listener.
#[derive(Clone, Debug)]
pub struct BeaconSetup {
    /// Index of the first of these shards. A shard's index is the first byte of its sessions'
    /// numbers.
    pub first_index: u8,
    /// The index of the listener.
    pub listener: u16,
    /// The policy at the start.
    pub policy: Policy,
    /// Maximum number of devices online, per shard.
    pub max_beacons: u32,
    /// The longest rest between turns; zero for none.
    pub longest_rest: Span,
    /// Who may not be online.
    pub bans: Arc<Bans>,
    /// The keys that authenticate the devices.
    pub keys: Arc<Keys>,
    /// The clock, shared by all shards.
    pub clock: Clock,
    /// Seed of random numbers. Must differ at each start: no challenge may repeat under the same
    /// keys.
    pub seed: u64,
    /// The histograms to which the shards add.
    pub distributions: Distributions,
}

/// The setup of one beacon shard.
#[derive(Debug)]
pub struct BeaconShard {
    /// The non-blocking socket, bound to the same address as those of the other shards.
    pub socket: UdpSocket,
    /// The channels to the control plane.
    pub reports: ReportChannels,
    /// The counters that every shard has.
    pub stats: Arc<ShardStats>,
    /// The counters that only beacon shards have.
    pub beacon_stats: Arc<BeaconStats>,
}

/// Starts a thread for each of `shards`.
///
/// # Errors
/// The operating system refused a thread, a poll or the registration of a socket. Shards already
/// started end when their handles are dropped.
pub fn spawn(setup: &BeaconSetup, shards: Vec<BeaconShard>) -> io::Result<Vec<Shard>> {
    let mut polls = Vec::new();
    let mut wakers = Vec::new();
    for _ in &shards {
        let poll = Poll::new()?;
        wakers.push(Arc::new(Waker::new(poll.registry(), beacons::HANDED_OVER)?));
        polls.push(poll);
    }
    let mut meshes = mesh::connect(&wakers, setup.clock).into_iter();
    let mut spawned = Vec::new();
    for (index, (shard, poll)) in shards.into_iter().zip(polls).enumerate() {
        let Some(mesh) = meshes.next() else { break };
        let (sender, receiver) = sync_channel(REQUESTS);
        let (waker, wake_ups) = wake_ups(poll.registry(), WAKER)?;
        let waiting = (poll, wake_ups);
        let beacon_loop =
            Beacons::shard(waiting, setup, index as u8, shard, mesh, RequestQueue::new(receiver))?;
        let name = format!("beacon-{index}");
        let thread = std::thread::Builder::new().name(name).spawn(move || beacon_loop.run())?;
        spawned.push(Shard { requests: Requests::new(sender, waker), thread });
    }
    Ok(spawned)
}
