//! Hands statements from the shard that received them to the one that they belong to.

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

/// How many batches may wait for a shard. One that is so far behind loses statements as it would if
/// its own socket overflowed; the loss is counted.
const BATCHES: usize = 1_024;

/// Statements whose tag was right, and where they came from.
pub(super) type Batch = Vec<(Statement, SocketAddr)>;

/// One shard's ends of all channels.
#[derive(Debug)]
pub(super) struct Mesh {
    own: usize,
    clock: Clock,
    /// One per shard; what is to be handed over, and where.
    others: Vec<Other>,
    incoming: Receiver<Batch>,
    /// When each shard last handed over all that it had received.
    watched: Arc<[AtomicU64]>,
}

#[derive(Debug)]
struct Other {
    sender: SyncSender<Batch>,
    waker: Arc<Waker>,
    batch: Batch,
}

/// The meshes of as many shards as there are wakers.
pub(super) fn between(wakers: &[Arc<Waker>], clock: Clock) -> Vec<Mesh> {
    let now = clock.monotonic().as_nanos();
    let watched: Arc<[AtomicU64]> = wakers.iter().map(|_| AtomicU64::new(now)).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        wakers.iter().map(|_| sync_channel(BATCHES)).unzip();
    let mesh = |(own, incoming)| {
        let others = senders.iter().zip(wakers).map(|(sender, waker)| Other {
            sender: sender.clone(),
            waker: waker.clone(),
            batch: Batch::new(),
        });
        Mesh { own, clock, others: others.collect(), incoming, watched: watched.clone() }
    };
    receivers.into_iter().enumerate().map(mesh).collect()
}

impl Mesh {
    /// Whether a device belongs to this shard.
    #[inline]
    pub(super) fn is_own(&self, device: u64) -> bool {
        self.owner(device) == self.own
    }

    fn owner(&self, device: u64) -> usize {
        let shards = self.others.len() as u64;
        if shards == 1 { 0 } else { Random::new(device).below(shards) as usize }
    }

    /// Keeps a statement for the shard that it belongs to.
    pub(super) fn keep(&mut self, statement: Statement, address: SocketAddr) {
        let owner = self.owner(statement.device);
        if let Some(other) = self.others.get_mut(owner) {
            other.batch.push((statement, address));
        }
    }

    /// Hands over what was kept. Returns how many statements were lost, because a shard is too far
    /// behind or has ended.
    pub(super) fn hand_over(&mut self) -> usize {
        let mut lost = 0;
        for other in &mut self.others {
            if other.batch.is_empty() {
                continue;
            }
            match other.sender.try_send(std::mem::take(&mut other.batch)) {
                // A shard that cannot be woken looks by itself within its longest wait.
                Ok(()) => drop(other.waker.wake()),
                Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                    lost += batch.len();
                }
            }
        }
        lost
    }

    /// Says that this shard has read all that had arrived at its socket `behind` before now, and
    /// handed it over.
    pub(super) fn watch(&self, behind: Span) {
        let until = self.clock.monotonic().less(behind).as_nanos();
        if let Some(watched) = self.watched.get(self.own) {
            watched.fetch_max(until, Ordering::Release);
        }
    }

    /// Whether all other shards have handed over what they received until lately. While one has
    /// not, the silence of a device may be its silence, and nobody is judged.
    pub(super) fn is_watched(&self, longest_wait: Span) -> bool {
        let now = self.clock.monotonic();
        let lately = now.less(longest_wait + TOLERANCE).as_nanos();
        let mut others = self.watched.iter().enumerate().filter(|(shard, _)| *shard != self.own);
        others.all(|(_, watched)| watched.load(Ordering::Acquire) >= lately)
    }

    /// The next batch from another shard.
    pub(super) fn take(&self) -> Option<Batch> {
        self.incoming.try_recv().ok()
    }
}
