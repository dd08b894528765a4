//! The thread that verifies tokens, beside the shards.

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use systole_core::{Span, Time};
use systole_net::Clock;

use super::refusal::Refusal;
use super::rules::{Tokens, Verified};
use crate::request::{Request, Requests};

/// Maximum number of tokens that wait to be verified: those of some tenths of a second, and a
/// mebibyte. A login that finds no room is refused, and its peer asked to come back.
const JOBS: usize = 1_024;

/// A token to be verified. Not printable: whoever has a token has the identity.
pub struct Job {
    /// The shard that asks.
    pub shard: usize,
    /// Its link.
    pub link: u32,
    /// The number of the admission.
    pub admission: u32,
    /// When the peer's part of the handshake was complete; see [`systole_core::hub::Login`].
    pub heard_at: Span,
    /// The peer's address.
    pub address: IpAddr,
    /// When the peer asked, on the shard's clock.
    pub asked: Time,
    /// The rules of the listener.
    pub tokens: Tokens,
    /// The token.
    pub token: Box<[u8]>,
}

/// What became of a token.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The link of the shard that asked.
    pub link: u32,
    /// The number of the admission.
    pub admission: u32,
    /// When the peer's part of the handshake was complete; see [`systole_core::hub::Login`].
    pub heard_at: Span,
    /// The peer's address.
    pub address: IpAddr,
    /// When the peer asked, on the shard's clock.
    pub asked: Time,
    /// What the token proves, or why it proves nothing.
    pub result: Result<Verified, Refusal>,
}

/// The sending end of the queue of tokens.
#[derive(Clone, Debug)]
pub struct Jobs(SyncSender<Job>);

/// The receiving end of the queue of tokens.
#[derive(Debug)]
pub struct Pool(Receiver<Job>);

/// Makes the queue of tokens.
pub fn jobs() -> (Jobs, Pool) {
    let (sender, receiver) = sync_channel(JOBS);
    (Jobs(sender), Pool(receiver))
}

impl Jobs {
    /// Queues a token, or refuses it if the queue is full.
    pub(crate) fn send(&self, job: Job) -> Result<(), Refusal> {
        self.0.try_send(job).map_err(|_| Refusal::Full)
    }
}

impl Pool {
    /// Verifies tokens on a thread of its own until all shards have ended. `shards` are in the
    /// order of their numbers.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub(crate) fn start(self, shards: Vec<Requests>, clock: Clock) -> io::Result<JoinHandle<()>> {
        let run = move || {
            while let Ok(job) = self.0.recv() {
                let shard = job.shard;
                let answer = job.verify(clock.wall_ms());
                if let Some(shard) = shards.get(shard) {
                    // A shard that has ended has no logins.
                    let _ = shard.send_and_wait(Request::LoggedIn(answer));
                }
            }
        };
        std::thread::Builder::new().name("identity".to_owned()).spawn(run)
    }

    /// Takes the next token, for a test that answers itself.
    #[cfg(test)]
    pub(crate) fn next(&self) -> Option<Job> {
        self.0.try_recv().ok()
    }
}

impl Job {
    /// Verifies the token at a time in milliseconds since 1970-01-01 UTC.
    pub(crate) fn verify(self, now_ms: u64) -> Answer {
        let Job { link, admission, heard_at, address, asked, tokens, token, .. } = self;
        let result = tokens.rules().verify(&token, now_ms);
        Answer { link, admission, heard_at, address, asked, result }
    }
}
