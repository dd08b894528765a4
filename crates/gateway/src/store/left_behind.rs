//! Sessions that a killed gateway left behind, as its next start finds them.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rusqlite::Transaction;
use systole_core::cause::{Cause, Verdict};
use systole_core::diagnosis::Grounds;
use systole_core::{Span, Time, session};

use super::Subscription;
use super::changes::insert;
use super::database::get;
use super::origins::Origins;
use super::rows::{Noted, text_of};
use crate::events::{Body, End, Session};
use crate::report::{Fact, Parting, Subject, session_text};

/// A session that a killed gateway left behind.
#[derive(Clone, Debug)]
pub struct Lost {
    pub(super) session: u64,
    pub(super) epoch: u64,
    pub(super) identity: Box<str>,
    /// The name of the listener, which this run may not have.
    pub(crate) listener: Arc<str>,
    pub(super) address: String,
    pub(super) since_ms: u64,
}

/// All that a killed gateway left behind.
#[derive(Clone, Debug, Default)]
pub struct LeftBehind {
    /// When it was found, in milliseconds since 1970-01-01 UTC: the sessions ended before.
    pub at_ms: u64,
    /// The number of sessions.
    pub count: u64,
    /// The latest of them, in the order of their epochs.
    pub latest: Vec<Lost>,
}

impl Lost {
    /// Returns how long the session can have lasted if it was found at `now_ms`.
    fn lasted(&self, now_ms: u64) -> Span {
        Span::from_millis(now_ms.saturating_sub(self.since_ms))
    }

    /// Returns the leave for those who are told, found at `now_ms`.
    pub(super) fn leave(&self, now_ms: u64) -> Option<Noted> {
        let session = Session {
            session: session_text(self.session),
            epoch: self.epoch.to_string().into(),
            identity: self.identity.clone(),
            listener: self.listener.clone(),
            address: self.address.clone(),
            established: true,
        };
        let end = End::new(now_ms, &verdict(), self.lasted(now_ms), None);
        let body = text_of(now_ms, &Body::Leave { session, end })?;
        Some(Noted {
            kind: "leave",
            at_ms: now_ms,
            session: self.session,
            epoch: self.epoch,
            identity: self.identity.clone(),
            listener: self.listener.clone(),
            address: self.address.clone(),
            body,
        })
    }

    /// Returns the fact that it has ended, found at `now_ms`. `listener` is the index of its
    /// listener.
    pub(crate) fn fact(&self, now_ms: u64, listener: u16) -> Fact {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let subject = Subject {
            session: self.session,
            epoch: self.epoch,
            identity: self.identity.clone(),
            listener,
            address: self.address.parse().unwrap_or(nowhere),
            boot_id: Default::default(),
            instance_id: Default::default(),
            established: true,
        };
        let parting = Parting { lasted: self.lasted(now_ms), ..Parting::default() };
        Fact { parting, ..Fact::new(now_ms, subject, session::Event::Left(verdict())) }
    }
}

/// Returns the verdict on a session that was lost with its gateway. The vigilant times of that run
/// mean nothing in this one, so it has none.
fn verdict() -> Verdict {
    let never = Time::from_millis(0);
    Verdict {
        cause: Cause::GatewayLost,
        confidence: Cause::GatewayLost.confidence(),
        at: never,
        due: never,
        stretch: Span::ZERO,
        last_heard: never,
        probes: 0,
        grounds: Grounds::default(),
    }
}

/// Gives each session that a killed gateway left behind its leave, in the order of the epochs;
/// returns them, the last `remembered` with all that is known. Without a receiver they stay.
pub(super) fn give_leaves(
    tx: &Transaction<'_>,
    subscriptions: &[Subscription],
    origins: &Origins,
    now_ms: u64,
    remembered: usize,
) -> rusqlite::Result<LeftBehind> {
    if !subscriptions.iter().any(Subscription::is_owed) {
        return Ok(LeftBehind::default());
    }
    let mut latest = VecDeque::new();
    let select = "SELECT session, epoch, identity, listener, address, since_ms FROM owed
        ORDER BY epoch, session";
    let mut select = tx.prepare(select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let lost = Lost {
            session: get(0)(row)?,
            epoch: get(1)(row)?,
            identity: row.get::<_, String>(2)?.into(),
            listener: row.get::<_, String>(3)?.into(),
            address: row.get(4)?,
            since_ms: get(5)(row)?,
        };
        let Some(leave) = lost.leave(now_ms) else {
            continue;
        };
        for to in subscriptions.iter().filter(|to| to.is_owed()) {
            insert(tx, &to.name, &origins.of(&lost.address), &leave)?;
        }
        latest.push_back(lost);
        if latest.len() > remembered {
            latest.pop_front();
        }
    }
    let count = tx.execute("DELETE FROM owed", [])? as u64;
    Ok(LeftBehind { at_ms: now_ms, count, latest: latest.into() })
}

#[cfg(test)]
impl Lost {
    /// A session of the listener `line`, online since second 1.
    pub(crate) fn example(session: u64, identity: &str) -> Lost {
        Lost {
            session,
            epoch: session,
            identity: identity.into(),
            listener: "line".into(),
            address: "192.0.2.1:4711".to_owned(),
            since_ms: 1_000,
        }
    }
}
