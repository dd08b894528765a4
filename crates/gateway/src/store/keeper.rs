//! The thread that owns the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use systole_core::Span;
use systole_net::Clock;

use super::changes::Room;
use super::database::Database;
use super::inbox::{Batch, Question, Work};
use super::{Owned, Shared, StoreSettings, aside, reading};
use crate::bans::Unwritten;
use crate::epochs::Epochs;
use crate::throttle::Throttle;

/// The wait after a failure before the next attempt: a login that meets it is told soon.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What is free again in a full store before it is called full no longer: a hundredth.
const SLACK: u64 = 100;

/// The owner of the database.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    database: Database,
    epochs: Arc<Epochs>,
    room: Room,
    drops_oldest: bool,
    /// How long after a commit it must be on disk; `None` if the commit waits for that.
    sync: Option<Span>,
    /// Rows that a session takes at most: what is owed, and its join.
    rows_per_session: u64,
    /// Whether something was written that may not be on disk.
    is_unsynced: bool,
    has_failed: bool,
    clock: Clock,
    lines: Throttle,
    share_lines: Throttle,
    aside_lines: Throttle,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        database: Database,
        settings: &StoreSettings,
        epochs: Arc<Epochs>,
    ) -> Keeper {
        let count = |kind| shared.subscriptions.iter().filter(|to| to.wants(kind)).count() as u64;
        let rows_per_session = count("leave") + count("join");
        let StoreSettings { max_rows, drops_oldest, sync, .. } = *settings;
        let (share, share_of_address) =
            (settings.max_rows_per_identity, settings.max_rows_per_address);
        let room = Room { max_rows, share, share_of_address };
        let (is_unsynced, has_failed) = (false, false);
        let keeper = Keeper {
            shared,
            database,
            epochs,
            room,
            drops_oldest,
            sync,
            rows_per_session,
            is_unsynced,
            has_failed,
            clock: Clock::start(),
            lines: Throttle::new(1, Span::from_secs(10)),
            share_lines: Throttle::new(1, Span::from_secs(10)),
            aside_lines: Throttle::new(1, Span::from_secs(10)),
        };
        keeper.publish();
        keeper
    }

    pub(super) fn run(mut self) {
        loop {
            let limit = match (self.has_failed, self.is_unsynced, self.sync) {
                (true, ..) => Some(RETRY_AFTER),
                (false, true, Some(sync)) => Some(Duration::from(sync)),
                (false, ..) => None,
            };
            let work = self.shared.inbox.take(limit, self.has_failed);
            let Work { batch, questions, is_all, is_last } = work;
            if !batch.is_empty() {
                self.write(batch);
            } else if self.has_failed && !is_last {
                self.probe();
            }
            questions.into_iter().for_each(|question| self.answer(question, is_all));
            if self.is_unsynced && (limit.is_some() || is_last) {
                self.sync();
            }
            // Here, since the logins of a transaction that was under way when the stop began are
            // answered only now. Nothing is answered any more.
            if is_last && !self.shared.waive_untaken() {
                break;
            }
        }
        let has_failed = self.has_failed;
        // Closes the database before anybody learns that it is closed.
        let Keeper { shared, database, .. } = self;
        drop(database);
        shared.inbox.end(has_failed);
        shared.room.notify_waiters();
    }

    fn write(&mut self, mut batch: Batch) {
        let over_share = self.take_over_share(&mut batch);
        let refused = self.make_room(&mut batch);
        let written = self.database.write(&batch, self.room, self.epochs.last());
        let is_granted = written.is_ok() || !self.shared.is_required;
        let owings = std::mem::take(&mut batch.owings);
        if self.shared.may_drop() {
            let mut unknown = super::lock(&self.shared.unknown);
            for owing in &owings {
                unknown.grant(owing.session, owing.epoch, written.is_ok());
            }
        }
        match written {
            Ok(dropped) => {
                self.shared.stats.dropped.add(dropped);
                self.shared.stats.commits.add(1);
                self.has_failed = false;
                self.is_unsynced = self.sync.is_some();
                let has_notes = !batch.notes.is_empty();
                self.shared.set_health(|health| health.failing = None);
                if owings.is_empty() || refused.is_empty() {
                    self.note_room();
                }
                self.publish();
                if has_notes {
                    self.shared.room.notify_waiters();
                    super::lock(&self.shared.listeners).iter().for_each(|listener| listener());
                }
            }
            Err(error) => {
                self.shared.stats.failures.add(1);
                if is_granted {
                    self.shared.stats.undurable.add(owings.len() as u64);
                }
                self.shared.inbox.put_back(batch);
                self.database.shrink_log();
                self.has_failed = true;
                self.shared.set_health(|health| health.failing = Some(error.to_string()));
            }
        }
        let granted = owings.into_iter().map(|owing| (owing, is_granted));
        let refused = refused.into_iter().chain(over_share);
        let answers = granted.chain(refused.map(|owing| (owing, false)));
        self.shared.answer(answers.map(|(owing, is_granted)| {
            let super::Owing { shard, link, admission, session, epoch, .. } = owing;
            (shard, Owned { link, admission, session, epoch, is_granted })
        }));
    }

    /// Looks whether a disk that has failed can be written again, though nobody wants to write.
    fn probe(&mut self) {
        if let Ok(()) = self.database.probe(self.epochs.last()) {
            self.has_failed = false;
            self.shared.set_health(|health| health.failing = None);
        }
    }

    /// Takes the logins out of identities and addresses that have their share of rows, and returns
    /// them: one identity or address, whose events nobody takes, must not fill the store for all.
    /// Clients without an identity have a key for each session, and only the share of their
    /// address.
    fn take_over_share(&mut self, batch: &mut Batch) -> Vec<super::Owing> {
        let Room { share, share_of_address, .. } = self.room;
        let more = self.rows_per_session;
        let wanted = batch.owings.len() as u64 * more;
        // With fewer rows than a share in all, nobody has one.
        let all = self.database.rows().saturating_add(wanted);
        if more == 0 || all <= share.min(share_of_address) {
            return Vec::new();
        }
        let (mut rows, mut of_origins) = (HashMap::new(), HashMap::new());
        let (origins, keys) = (self.database.origins(), self.database.keys());
        let mut over_address = None;
        let (kept, over): (Vec<_>, Vec<_>) = batch.owings.drain(..).partition(|owing| {
            let origin = origins.of_ip(owing.address.ip());
            let has = || origins.rows(&origin);
            let of_origin: &mut u64 = of_origins.entry(origin.clone()).or_insert_with(has);
            if !origin.is_empty() && *of_origin + more > share_of_address {
                over_address.get_or_insert(origin);
                return false;
            }
            if !owing.identity.is_empty() {
                let has = || keys.rows(&owing.identity);
                let rows: &mut u64 = rows.entry(owing.identity.clone()).or_insert_with(has);
                if *rows + more > share {
                    return false;
                }
                *rows += more;
            }
            *of_origin += more;
            true
        });
        batch.owings = kept;
        if let Some(first) = over.first() {
            self.shared.stats.over_share.add(over.len() as u64);
            self.tell_over_share(&first.identity, over_address.as_deref());
        }
        over
    }

    /// Says which address or identity has its share of rows, seldom.
    fn tell_over_share(&mut self, identity: &str, address: Option<&str>) {
        let Some(more) = self.share_lines.admit(self.clock.monotonic()) else {
            return;
        };
        if let Some(address) = address {
            let rows = self.room.share_of_address;
            let hint = "see GET /api/v1/webhooks for who takes nothing, raise \
                        max_rows_per_address in [store], or name a network of yours in `trusted` \
                        of [addresses]";
            let what = "too many events of an address wait: its logins are refused";
            tracing::warn!(%address, rows, more, hint, "{what}");
            return;
        }
        let rows = self.room.share;
        let hint = "see GET /api/v1/webhooks for who takes nothing, or raise \
                    max_rows_per_identity in [store]";
        let what = "too many events of an identity wait: its login is refused";
        tracing::warn!(%identity, rows, more, hint, "{what}");
    }

    /// Takes the logins out for which a full store has no room, and returns them.
    fn make_room(&mut self, batch: &mut Batch) -> Vec<super::Owing> {
        let wanted = batch.owings.len() as u64 * self.rows_per_session;
        if wanted == 0 {
            return Vec::new();
        }
        let mut free = self.room.max_rows.saturating_sub(self.database.rows());
        // What is there for former webhooks goes first, and frees no row that counts.
        while free < wanted && self.drops_oldest {
            let before = self.database.counted();
            self.evict((wanted - free).max(self.room.max_rows / SLACK));
            free = self.room.max_rows.saturating_sub(self.database.rows());
            if self.database.counted() == before {
                break;
            }
        }
        let fit = usize::try_from(free / self.rows_per_session).unwrap_or(usize::MAX);
        let refused = batch.owings.split_off(fit.min(batch.owings.len()));
        if !refused.is_empty() {
            self.shared.set_health(|health| health.is_full = true);
        }
        refused
    }

    fn evict(&mut self, count: u64) {
        match self.database.evict(count) {
            Ok(evicted) => {
                let each = self.shared.stats.dead.iter().zip(&evicted);
                each.for_each(|(cell, count)| cell.add(*count));
                self.tell_evicted(&evicted);
            }
            Err(error) => tracing::error!(%error, "the store is full, and cannot make room"),
        }
    }

    /// Says whose entries have made room, seldom.
    fn tell_evicted(&mut self, evicted: &[u64]) {
        let Some(more) = self.lines.admit(self.clock.monotonic()) else {
            return;
        };
        let each = self.shared.subscriptions.iter().zip(evicted).filter(|(_, count)| **count > 0);
        for (to, events) in each {
            let (webhook, hint) = (&*to.name, "see GET /api/v1/webhooks for why it takes nothing");
            let what = "the store is full: the oldest events are dead letters";
            tracing::error!(webhook, events, more, hint, "{what}");
        }
    }

    /// Notes that a full store has room again.
    fn note_room(&self) {
        let free = self.room.max_rows.saturating_sub(self.database.rows());
        if free > self.room.max_rows / SLACK {
            self.shared.set_health(|health| health.is_full = false);
        }
    }

    fn publish(&self) {
        let (owed, entries) = self.database.counted();
        self.shared.stats.owed.set(owed);
        self.shared.stats.entries.set(entries);
        let waiting = self.shared.stats.waiting.iter().zip(self.database.waiting_each());
        waiting.for_each(|(cell, count)| cell.set(*count));
        // Nothing is known of it if the database fails, which the health tells.
        let oldest = self.database.oldest_ms().unwrap_or_default();
        let cells = self.shared.stats.oldest_ms.iter().zip(oldest);
        cells.for_each(|(cell, at_ms)| cell.set(at_ms.unwrap_or(0)));
    }

    fn sync(&mut self) {
        match self.database.sync() {
            Ok(()) => self.is_unsynced = false,
            Err(error) => self.note_failure(&error),
        }
    }

    /// Writes bans, to the disk too whenever that is due: they are few, and whoever bans somebody
    /// waits for the answer. Returns whether they are there.
    fn write_bans(&mut self, bans: &Unwritten) -> bool {
        if let Err(error) = self.database.write_bans(bans) {
            self.note_failure(&error);
            return false;
        }
        self.shared.stats.commits.add(1);
        if self.sync.is_some() {
            self.is_unsynced = true;
            self.sync();
        }
        !self.is_unsynced
    }

    fn note_failure(&mut self, error: &dyn std::error::Error) {
        self.has_failed = true;
        self.shared.stats.failures.add(1);
        self.shared.set_health(|health| health.failing = Some(error.to_string()));
    }

    /// Says seldom why nothing can be put aside or taken back; the webhook tries again.
    fn told_if_failed<T>(&mut self, result: rusqlite::Result<T>) -> Option<T> {
        if let Err(error) = &result
            && let Some(more) = self.aside_lines.admit(self.clock.monotonic())
        {
            let hint = "look at the disk, and whether there is a directory for temporary files";
            let what = "events that failed cannot be put aside: they hold up others";
            tracing::error!(%error, more, hint, "{what}");
        }
        result.ok()
    }

    /// Somebody who no longer waits for an answer gets none.
    fn answer(&mut self, question: Question, is_all: bool) {
        match question {
            Question::Waiting { receiver, after, limit, reply } => {
                let connection = self.database.connection();
                let entries = reading::waiting(connection, &receiver, after, limit);
                let _ = reply.try_send(entries.ok());
            }
            Question::Left { receiver, wanted, up_to, reply } => {
                let connection = self.database.connection();
                let entries = reading::left(connection, &receiver, &wanted, up_to);
                let _ = reply.try_send(entries.ok());
            }
            Question::Page { receiver, after, limit, reply } => {
                let page = reading::page(self.database.connection(), &receiver, after, limit);
                let _ = reply.try_send(page.ok());
            }
            Question::PutAside { receiver, keys, reply } => {
                let put = aside::put(self.database.connection(), &receiver, &keys);
                let _ = reply.try_send(self.told_if_failed(put));
            }
            Question::TakeBack { receiver, now, limit, reply } => {
                let taken = aside::take_back(self.database.connection(), &receiver, now, limit);
                let _ = reply.try_send(self.told_if_failed(taken));
            }
            Question::WriteBans { bans, reply } => {
                let _ = reply.send(self.write_bans(&bans));
            }
            Question::Written { reply } => {
                let _ = reply.try_send(is_all);
            }
        }
    }
}
