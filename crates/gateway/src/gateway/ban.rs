//! Bans: who is banned loses the sessions that are online.

use systole_core::Span;

use super::{Gateway, ShardUnavailable, ask};
use crate::bans::{Banned, TooMany};
use crate::request::{Filter, Order, Page, Request, Requests, SESSIONS_PER_PAGE};

/// What those who are banned are told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Farewell {
    /// Whether they are asked not to return, even when the ban is over.
    pub(crate) stay_away: bool,
    /// A text for their people.
    pub(crate) text: Box<str>,
}

impl Gateway {
    /// Bans somebody, and ends all sessions of whom the ban keeps out; returns how many. `session`
    /// is ended in any case.
    ///
    /// The ban is in force before the first session is looked for. So a login that this does not
    /// find is refused: its shard looks for a ban just before the session exists.
    ///
    /// # Errors
    /// There are too many bans: nothing was done. Or a shard gave no answer in time: the ban is in
    /// force, the sessions at other shards are ended, and some may be left.
    pub(crate) async fn ban(
        &self,
        who: &[Banned],
        lasts: Span,
        farewell: Farewell,
        session: Option<u64>,
    ) -> Result<Result<u64, ShardUnavailable>, TooMany> {
        self.bans.set(who, lasts)?;
        let Farewell { stay_away, text } = farewell;
        let order = Order::KeepOut { lasts, stay_away, text };
        let (mut ended, mut result) = (0, Ok(()));
        if let Some(session) = session {
            match self.order(session, order.clone()).await {
                Ok(was_online) => ended += u64::from(was_online),
                Err(error) => result = Err(error),
            }
        }
        for shard in &self.shards {
            for who in who {
                if let Err(error) = end_at(shard, who, &order, &mut ended).await {
                    result = Err(error);
                }
            }
        }
        Ok(result.map(|()| ended))
    }
}

/// Ends the sessions of a shard of whom a ban keeps out, and counts them.
async fn end_at(
    shard: &Requests,
    who: &Banned,
    order: &Order,
    ended: &mut u64,
) -> Result<(), ShardUnavailable> {
    let (mut next, limit) = (Some(0), SESSIONS_PER_PAGE);
    while let Some(from) = next {
        let filter = Filter { banned: Some(who.clone()), ..Filter::default() };
        let page = ask(shard, |reply| Request::Sessions { from, limit, filter, reply }).await?;
        let Page { sessions, .. } = page;
        next = page.next;
        for session in sessions {
            let Ok(session) = u64::from_str_radix(&session.session, 16) else {
                continue;
            };
            let order = order.clone();
            let request = |reply| Request::Order { session, order, reply };
            *ended += u64::from(ask(shard, request).await?);
        }
    }
    Ok(())
}
