//! Bans: who is banned loses the sessions that are online, and a store has who is banned.

use std::time::Duration;

use systole_core::Span;

use tokio::time::sleep;

use super::{Gateway, ShardUnavailable, ask};
use crate::bans::{Banned, TooMany};
use crate::request::{Filter, Order, Page, Request, Requests, SESSIONS_PER_PAGE};
use crate::store::Store;

/// The wait before bans are written again that could not be.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What became of a ban.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Banning {
    /// How many sessions it has ended. If a shard gave no answer in time, the ban is in force, the
    /// sessions at other shards are ended, and some may be left.
    pub(crate) ended: Result<u64, ShardUnavailable>,
    /// Whether a restart forgets it.
    pub(crate) is_lost_at_restart: bool,
}

/// What became of the end of a ban.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lifting {
    /// Whether there was such a ban.
    pub(crate) was_banned: bool,
    /// Whether a restart brings it back.
    pub(crate) is_lost_at_restart: bool,
}

/// What those who are banned are told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Farewell {
    /// Whether they are asked not to return, even when the ban is over.
    pub(crate) stay_away: bool,
    /// A text for their people.
    pub(crate) text: Box<str>,
}

impl Gateway {
    /// Bans somebody, and ends all sessions of whom the ban keeps out. `session` is ended in any
    /// case. With a store the ban is on disk when this returns, or the result says that it is not.
    /// Must not be cancelled.
    ///
    /// The ban is in force before the first session is looked for. So a login that this does not
    /// find is refused: its shard looks for a ban just before the session exists.
    ///
    /// # Errors
    /// There are too many bans: nothing was done.
    pub(crate) async fn ban(
        &self,
        who: &[Banned],
        lasts: Span,
        farewell: Farewell,
        session: Option<u64>,
    ) -> Result<Banning, TooMany> {
        let Farewell { stay_away, text } = farewell;
        self.bans.set(who, lasts, &text)?;
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
        let is_lost_at_restart = self.write_bans(who).await;
        Ok(Banning { ended: result.map(|()| ended), is_lost_at_restart })
    }

    /// Ends a ban. Must not be cancelled.
    pub(crate) async fn lift_ban(&self, who: Banned) -> Lifting {
        let was_banned = self.bans.lift(&who);
        Lifting { was_banned, is_lost_at_restart: self.write_bans(&[who]).await }
    }

    /// Whether a restart forgets bans, or some change of them.
    pub(crate) fn loses_bans_at_restart(&self) -> bool {
        self.bans.has_failed() || self.store.as_ref().is_none_or(Store::is_volatile)
    }

    /// Writes bans that could not be written until they are. Never ends.
    pub(crate) async fn write_failed_bans(&self) {
        loop {
            self.bans.until_failed().await;
            sleep(WRITE_AGAIN_AFTER).await;
            if self.bans.has_failed() {
                self.write_bans(&[]).await;
            }
        }
    }

    /// Writes the bans of `who` as they are now; returns whether a restart forgets them.
    async fn write_bans(&self, who: &[Banned]) -> bool {
        let Some(store) = self.store.as_ref().filter(|store| !store.is_volatile()) else {
            return true;
        };
        let _turn = self.bans.write_turn().await;
        let is_written = store.write_bans(self.bans.unwritten(who)).await;
        self.bans.note_written(is_written);
        !is_written
    }
}

/// Ends the sessions of a shard of whom a ban keeps out, and counts them.
async fn end_at(
    shard: &Requests,
    who: &Banned,
    order: &Order,
    ended: &mut u64,
) -> Result<(), ShardUnavailable> {
    // Those that are away come last: nobody banned comes back, so whoever is not found among those
    // online is found there.
    for away in [false, true] {
        let (mut next, limit) = (Some(0), SESSIONS_PER_PAGE);
        while let Some(from) = next {
            let filter = Filter { banned: Some(who.clone()), away, ..Filter::default() };
            let page = ask(shard, |reply| Request::Sessions { from, limit, filter, reply }).await?;
            let Page { sessions, away, .. } = page;
            next = page.next;
            let numbers = sessions.into_iter().map(|online| online.session);
            for session in numbers.chain(away.into_iter().map(|away| away.session)) {
                let Ok(session) = u64::from_str_radix(&session, 16) else {
                    continue;
                };
                let order = order.clone();
                let request = |reply| Request::Order { session, order, reply };
                *ended += u64::from(ask(shard, request).await?);
            }
        }
    }
    Ok(())
}
