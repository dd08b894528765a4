//! Questions to shards.

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT, ShardUnavailable};
use crate::request::{Refused, Request, Requests};

/// Asks a shard, and waits for its answer.
///
/// # Errors
/// The shard gave no answer in time, or has ended. What it was asked for may still happen.
pub(super) async fn ask<T>(
    shard: &Requests,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, ShardUnavailable> {
    let (reply, answer) = oneshot::channel();
    shard.send(request(reply)).map_err(unavailable)?;
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(ShardUnavailable::Gone),
        Err(_) => Err(ShardUnavailable::Busy),
    }
}

/// Returns the error of a request that was not sent.
pub(super) fn unavailable(refused: Refused) -> ShardUnavailable {
    match refused {
        Refused::Busy => ShardUnavailable::Busy,
        Refused::Gone => ShardUnavailable::Gone,
    }
}
