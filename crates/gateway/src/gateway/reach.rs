//! Messages from outside, and what is known of identities: requests that concern several shards.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ask::{ask, unavailable};
use super::{ANSWER_TIMEOUT, Gateway, ShardUnavailable};
use crate::request::{
    Claim, Delivered, IDENTITIES_PER_REQUEST, Request, Requests, SESSIONS_PER_PAGE, SessionsOf,
    Target,
};
use crate::verdicts::{Ended, STRANGERS, Verdicts};

/// How often an identity of which nothing is known is looked for: the fact that its session has
/// left may be on its way.
const LOOKS: usize = 2;

/// The wait between two looks, far above the time of a fact on its way.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Maximum number of sessions that an answer about identities describes: some 2 MB of JSON.
const SESSIONS_SHOWN: usize = 4_000;

/// What is known of an identity.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// Its sessions that are online or away, at least one.
    Online(SessionsOf),
    /// It has none, and this was its last one.
    Offline(Arc<Ended>),
    /// It has none, and nothing is known of an earlier one.
    Unknown,
}

impl Gateway {
    /// Sends a message to a session; `None` if it is neither online nor away.
    ///
    /// # Errors
    /// The session's shard gave no answer in time: the message was not sent.
    pub(crate) async fn send(
        &self,
        session: u64,
        message: Arc<[u8]>,
    ) -> Result<Option<Delivered>, ShardUnavailable> {
        let Some(shard) = self.shard_of(session) else {
            return Ok(None);
        };
        let delivered = deliver(shard, Target::Session(session), message).await?;
        Ok((reached(&delivered) > 0).then_some(delivered))
    }

    /// Sends a message to all sessions of an identity.
    ///
    /// # Errors
    /// No shard gave an answer in time: the message was sent to nobody.
    pub(crate) async fn send_to_identity(
        &self,
        identity: &str,
        message: &Arc<[u8]>,
    ) -> Result<Delivered, ShardUnavailable> {
        let identity: Arc<str> = identity.into();
        let (mut all, mut failed) = (Delivered::default(), None);
        for shard in &self.shards {
            match deliver(shard, Target::Identity(identity.clone()), message.clone()).await {
                Ok(delivered) => add(&mut all, delivered),
                Err(error) => {
                    (all.unreached, failed) = (all.unreached + 1, Some(error));
                }
            }
        }
        all_or_none(all, failed)
    }

    /// Sends a message to all sessions that match, in steps. One such call at a time is under way:
    /// `None` if another is.
    ///
    /// # Errors
    /// No shard gave an answer in time: the message was sent to nobody.
    pub(crate) async fn broadcast(
        &self,
        listener: Option<u16>,
        attribute: Option<Arc<(String, Value)>>,
        message: &Arc<[u8]>,
    ) -> Option<Result<Delivered, ShardUnavailable>> {
        let _turn = self.broadcasting.try_lock().ok()?;
        let (mut all, mut failed) = (Delivered::default(), None);
        for shard in &self.shards {
            let mut next = Some(0);
            while let Some(from) = next {
                let to = Target::All { from, listener, attribute: attribute.clone() };
                match deliver(shard, to, message.clone()).await {
                    Ok(delivered) => {
                        next = delivered.next;
                        add(&mut all, delivered);
                    }
                    Err(error) => {
                        (all.unreached, failed, next) = (all.unreached + 1, Some(error), None);
                    }
                }
            }
        }
        Some(all_or_none(all, failed))
    }

    /// Keeps the last `kept` verdicts on sessions.
    pub(crate) fn with_verdicts(self, kept: usize) -> Gateway {
        Gateway { verdicts: Verdicts::new(kept, STRANGERS), ..self }
    }

    /// Returns how a session ended that was online, if its verdict is kept or on its way.
    pub(crate) async fn ended(&self, session: u64) -> Option<Arc<Ended>> {
        let find = || self.verdicts.find(session).filter(|ended| ended.subject.established);
        if let Some(ended) = find() {
            return Some(ended);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        find()
    }

    /// Returns what is known of identities, in their order. At most [`SESSIONS_SHOWN`] sessions are
    /// described, as many of each identity, and one at least.
    ///
    /// # Errors
    /// A shard gave no answer in time.
    pub(crate) async fn presence(
        &self,
        identities: &[Arc<str>],
    ) -> Result<Vec<Known>, ShardUnavailable> {
        let mut all: Vec<Known> = identities.iter().map(|_| Known::Unknown).collect();
        let limit = (SESSIONS_SHOWN / identities.len().max(1)).clamp(1, SESSIONS_PER_PAGE);
        for look in 0..LOOKS {
            let unknown: Vec<usize> =
                (0..all.len()).filter(|n| matches!(all[*n], Known::Unknown)).collect();
            if unknown.is_empty() {
                break;
            }
            if look > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            // First who is online: who leaves meanwhile is among the verdicts then, or soon.
            for numbers in unknown.chunks(IDENTITIES_PER_REQUEST) {
                let wanted: Vec<_> = numbers.iter().map(|n| identities[*n].clone()).collect();
                for shard in &self.shards {
                    let identities = wanted.clone();
                    let request = |reply| Request::Identities { identities, limit, reply };
                    let found = ask(shard, request).await?;
                    for (number, sessions) in numbers.iter().zip(found) {
                        join(&mut all[*number], sessions);
                    }
                }
            }
            let left = unknown.into_iter().filter(|n| matches!(all[*n], Known::Unknown));
            let left: Vec<usize> = left.collect();
            let wanted: Vec<&str> = left.iter().map(|n| &*identities[*n]).collect();
            for (number, ended) in left.into_iter().zip(self.verdicts.last_of(&wanted)) {
                if let Some(ended) = ended {
                    all[number] = Known::Offline(ended);
                }
            }
        }
        Ok(all)
    }
}

fn join(known: &mut Known, mut sessions: SessionsOf) {
    if let Known::Online(before) = known {
        before.shown.append(&mut sessions.shown);
        before.away.append(&mut sessions.away);
        before.more += sessions.more;
    } else if !(sessions.shown.is_empty() && sessions.away.is_empty()) {
        *known = Known::Online(sessions);
    }
}

/// Has a shard send a message, or withdraws it: then it is not sent later either.
async fn deliver(
    shard: &Requests,
    to: Target,
    message: Arc<[u8]>,
) -> Result<Delivered, ShardUnavailable> {
    let (reply, mut answer) = oneshot::channel();
    let claim = Claim::default();
    let request = Request::Deliver { to, message, claim: claim.clone(), reply };
    shard.send(request).map_err(unavailable)?;
    let answered = match timeout(ANSWER_TIMEOUT, &mut answer).await {
        Ok(answered) => answered,
        Err(_) if claim.take() => return Err(ShardUnavailable::Busy),
        // The shard is about to answer.
        Err(_) => answer.await,
    };
    answered.map_err(|_| ShardUnavailable::Gone)
}

/// Returns what shards have sent; the error if they sent nothing because of it.
fn all_or_none(
    all: Delivered,
    failed: Option<ShardUnavailable>,
) -> Result<Delivered, ShardUnavailable> {
    match failed {
        Some(error) if reached(&all) == 0 => Err(error),
        _ => Ok(all),
    }
}

/// Returns for how many sessions a message was, whether they get it or not.
pub(crate) fn reached(delivered: &Delivered) -> u64 {
    let Delivered { queued, away, unfit, busy, .. } = delivered;
    queued + away + unfit + busy
}

fn add(all: &mut Delivered, more: Delivered) {
    all.queued += more.queued;
    all.away += more.away;
    all.unfit += more.unfit;
    all.busy += more.busy;
}
