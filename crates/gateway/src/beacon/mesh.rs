//! Hands statements over from the shard that received them to the shard of their device.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use mio::Waker;
use systole_core::Span;
use systole_core::beacon::Statement;
use systole_core::random::Random;
use systole_core::vigilance::TOLERANCE;
use systole_net::Clock;

/// Capacity of a shard's channel, in batches. A shard with a full channel loses statements, as if
/// its own socket overflowed; the loss is counted.
const BATCHES: usize = 1_024;

/// Authentic statements with the addresses of their senders.
pub(super) type Batch = Vec<(Statement, SocketAddr)>;

/// One shard's ends of the channels between all shards.
#[derive(Debug)]
pub(super) struct Mesh {
    own: usize,
    clock: Clock,
    /// The outgoing statements, by shard; this shard included.
    outgoing: Vec<Outgoing>,
    incoming: Receiver<Batch>,
    /// By shard, the monotonic time in nanoseconds up to which it has handed over all statements.
    read_up_to: Arc<[AtomicU64]>,
}

/// The channel to one shard, and the statements to be handed over.
#[derive(Debug)]
struct Outgoing {
    sender: SyncSender<Batch>,
    waker: Arc<Waker>,
    batch: Batch,
}

/// Connects shards with each other; returns one mesh per waker.
pub(super) fn connect(wakers: &[Arc<Waker>], clock: Clock) -> Vec<Mesh> {
    let now = clock.monotonic().as_nanos();
    let read_up_to: Arc<[AtomicU64]> = wakers.iter().map(|_| AtomicU64::new(now)).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        wakers.iter().map(|_| sync_channel(BATCHES)).unzip();
    let mesh = |(own, incoming)| {
        let outgoing = senders.iter().zip(wakers).map(|(sender, waker)| Outgoing {
            sender: sender.clone(),
            waker: waker.clone(),
            batch: Batch::new(),
        });
        let (outgoing, read_up_to) = (outgoing.collect(), read_up_to.clone());
        Mesh { own, clock, outgoing, incoming, read_up_to }
    };
    receivers.into_iter().enumerate().map(mesh).collect()
}

impl Mesh {
    /// Whether a device belongs to this shard.
    #[inline]
    pub(super) fn owns(&self, device: u64) -> bool {
        self.owner(device) == self.own
    }

    fn owner(&self, device: u64) -> usize {
        let shards = self.outgoing.len() as u64;
        if shards == 1 { 0 } else { Random::new(device).below(shards) as usize }
    }

    /// Queues a statement for the shard of its device.
    pub(super) fn queue(&mut self, statement: Statement, address: SocketAddr) {
        let owner = self.owner(statement.device);
        if let Some(outgoing) = self.outgoing.get_mut(owner) {
            outgoing.batch.push((statement, address));
        }
    }

    /// Hands over the queued statements. Returns how many were lost because a shard is too far
    /// behind or has ended.
    pub(super) fn hand_over(&mut self) -> usize {
        let mut lost = 0;
        for outgoing in &mut self.outgoing {
            if outgoing.batch.is_empty() {
                continue;
            }
            match outgoing.sender.try_send(std::mem::take(&mut outgoing.batch)) {
                // If the wake-up fails, the shard reads its channel within its longest wait.
                Ok(()) => drop(outgoing.waker.wake()),
                Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                    lost += batch.len();
                }
            }
        }
        lost
    }

    /// Records that this shard has handed over all statements that had arrived at its socket
    /// `behind` before now.
    pub(super) fn record_read(&self, behind: Span) {
        let until = self.clock.monotonic().less(behind).as_nanos();
        if let Some(read_up_to) = self.read_up_to.get(self.own) {
            read_up_to.fetch_max(until, Ordering::Release);
        }
    }

    /// Whether all other shards have recently handed over what they received. Until they have, a
    /// device's silence may be a shard's delay, and no verdict may fall.
    pub(super) fn others_are_current(&self, longest_wait: Span) -> bool {
        let now = self.clock.monotonic();
        let oldest = now.less(longest_wait + TOLERANCE).as_nanos();
        let mut others = self.read_up_to.iter().enumerate().filter(|(shard, _)| *shard != self.own);
        others.all(|(_, read_up_to)| read_up_to.load(Ordering::Acquire) >= oldest)
    }

    /// Returns the next batch from another shard.
    pub(super) fn next_batch(&self) -> Option<Batch> {
        self.incoming.try_recv().ok()
    }
}
