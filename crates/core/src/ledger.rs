//! The ledger keeps provisional verdicts and revises their causes when the peer returns.
//!
//! One end cannot distinguish a cut cable, a crashed machine and a forgotten mapping. The evidence
//! that separates them arrives later: the boot id of the returning peer, its own account of the
//! link, or the fate of other links of its host. The ledger keeps recent provisional verdicts and
//! revises each at most once. In doubt it does not revise: a wrong cause is worse than a vague one.
//!
//! An account describes one session. It is accepted only from the process that had the session,
//! recognised by boot id and instance id, which no other process knows, whether it comes after the
//! verdict or, as an *early* account, before it. The number of a session is no secret: an account
//! from another process changes nothing, and takes the place of no true one. A peer that returns
//! without an account is matched by identity, with one of the verdicts of that identity.
//!
//! If an account shows no better cause, it still shows that the process had not ended: from then on
//! only other links can revise the verdict.
//!
//! # How a forgotten mapping is recognised
//! [`Cause::MiddleboxForgot`] and a healed path differ in which end closed first. A reset is sent
//! by a stack that does not know the connection. If the link ended at both ends, and at the first
//! of them by a reset, then neither end had closed before: a middlebox sent or provoked the reset.
//! After a cut that healed there is also a reset, but always from an end that had closed before.
//! So the client's account must state a reset, and this end must either have been reset too, or
//! have closed later. The same holds the other way round: if this end was reset, and the same
//! process noticed nothing until its own bound, it had not closed before. A client that gave up
//! first and whose path then healed is distinguished by the order of the two ends.
//!
//! If both ends gave up in silence, that alone proves nothing, because the path may have healed
//! since. But the client keeps the old connection until the new one stands. If the old one then
//! still passes nothing, its account says so ([`Saw::Blocked`]): the mapping was forgotten, unless
//! other links of the host show another scope.
//!
//! [`Saw::Blocked`]: crate::wire::Saw::Blocked

mod early;
mod note;
mod rules;
mod saved;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::convert::Infallible;
use core::net::SocketAddr;

use early::{EarlyAccounts, ReceivedAccount};
pub use note::Note;
pub(crate) use rules::on_the_way;

use crate::cause::{Cause, Confidence, Scope};
use crate::grounds::Grounds;
use crate::machine::{self, Deadline, Machine, kinds_of_input, saved_whole};
use crate::origin::{Origin, Shares};
use crate::time::{Span, Time};
use crate::wire::{Account, BootId, InstanceId};

/// The maximum number of waiting verdicts: 6 MB. When full, one is dropped unrevised: the oldest of
/// the [origin](crate::origin) with the most.
pub const VERDICTS: usize = 10_000;

/// The maximum number of accounts that wait for the verdict on their link, which is still open at
/// this end. When full, one is dropped: the oldest of the [origin](crate::origin) with the most.
pub const ACCOUNTS: usize = 4_096;

/// The time for which a verdict or an account waits. A peer that returns later may have had more
/// than one fault.
pub const WAITING: Span = Span::from_secs(60 * 60);

/// The maximum number of waiting verdicts of one identity that a return is compared with, newest
/// first. Bounds the work if thousands of peers share an identity.
pub const CANDIDATES: usize = 16;

/// The maximum number of verdicts, and of accounts, that one input drops because they waited too
/// long. More than one per input, so that the tables shrink; bounded, so that no input stalls.
const EXPIRED_PER_INPUT: usize = 8;

/// The peer of one session, as it introduced itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who<'a> {
    /// The session's number.
    pub session: u64,
    /// Its epoch.
    pub epoch: u64,
    /// The identity of the peer; empty if the session is anonymous.
    pub identity: &'a str,
    /// The index of its listener.
    pub listener: u16,
    /// The address of the peer.
    pub address: SocketAddr,
    /// The boot id of the peer's machine; zeros if unknown.
    pub boot_id: BootId,
    /// The instance id of the peer's process; zeros if unknown.
    pub instance_id: InstanceId,
}

/// What the world did, for the [`Ledger`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World<'a> {
    /// A session has ended.
    Ended {
        /// The peer of the session.
        who: Who<'a>,
        /// The cause of the verdict.
        cause: Cause,
        /// The findings that support it.
        grounds: Grounds,
        /// The time since the last evidence of the peer.
        silent: Span,
        /// The part of `silent` in which probes went unanswered; a lower bound.
        asked: Span,
        /// The time for which a silent peer is probed: interval × probes; `None` if silence is
        /// never judged.
        probing: Option<Span>,
    },
    /// A session is online.
    Joined {
        /// The peer of the session.
        who: Who<'a>,
        /// The peer's account of its previous link, if it sent one.
        account: Option<Account>,
    },
    /// Other links have shown the scope of a path loss.
    Scoped {
        /// The session whose path was lost.
        session: u64,
        /// The scope; [`Scope::Unknown`] if the other links gave no evidence.
        scope: Scope,
        /// How sure the scope is.
        confidence: Confidence,
    },
}

/// An input of the ledger, which makes no requests.
pub type Input<'a> = machine::Input<World<'a>, Infallible>;

kinds_of_input!(World<'a>, Infallible);

/// The revision of a verdict: the first cause, the better one, and the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revised {
    /// The session's number.
    pub session: u64,
    /// Its epoch.
    pub epoch: u64,
    /// The identity of the peer; empty if the session was anonymous.
    pub identity: Box<str>,
    /// The index of its listener.
    pub listener: u16,
    /// The address of the peer.
    pub address: SocketAddr,
    /// The cause of the verdict as published.
    pub from: Cause,
    /// The revised cause.
    pub to: Cause,
    /// How sure the revised cause is.
    pub confidence: Confidence,
    /// The finding that supports the revision.
    pub note: Note,
}

/// The table of verdicts and accounts that wait for each other.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Waiting verdicts by serial number: the first is the oldest.
    pending: BTreeMap<u64, PendingVerdict>,
    sessions: BTreeMap<u64, u64>,
    identities: BTreeSet<(Box<str>, u64)>,
    shares: Shares,
    early: EarlyAccounts,
    serial: u64,
    output: Option<Revised>,
}

/// A provisional verdict that waits for a better cause.
#[derive(Clone, Debug)]
struct PendingVerdict {
    at: Time,
    session: u64,
    epoch: u64,
    identity: Box<str>,
    listener: u16,
    address: SocketAddr,
    boot_id: BootId,
    instance_id: InstanceId,
    cause: Cause,
    silent: Span,
    asked: Span,
    probing: Option<Span>,
    /// Segments of the peer still arrived here at the verdict.
    arriving: bool,
    /// A new flow passed while the old one was blocked.
    passed: bool,
    /// Other links gave all their evidence of the scope, and it showed nothing.
    unscoped: bool,
    /// The same process has given its account, so it had not ended.
    accounted: bool,
}

impl Ledger {
    /// Creates an empty ledger.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// Returns how many verdicts wait.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    fn session_ended(&mut self, mut held: PendingVerdict) {
        let account = self.early.take(&held);
        if !held.cause.is_provisional() {
            return;
        }
        let recent = account.filter(|received| is_recent(received.at, held.at));
        let finding = recent.and_then(|received| rules::with_account(&mut held, &received));
        if let Some(finding) = finding.or_else(|| self.repetition(&held)) {
            return self.revise(held, finding);
        }
        if let Some(former) = self.sessions.get(&held.session) {
            self.take(*former);
        }
        let serial = self.next_serial();
        self.hold(serial, held);
        if self.pending.len() > VERDICTS
            && let Some(first) = self.shares.first_to_go()
        {
            self.take(first);
        }
    }

    /// Returns what earlier verdicts on the same identity show about this one.
    fn repetition(&self, held: &PendingVerdict) -> Option<rules::Finding> {
        if held.identity.is_empty() {
            return None;
        }
        let former = self.candidates(&held.identity, u64::MAX);
        let mut former = former.filter_map(|serial| self.pending.get(&serial));
        former.find_map(|former| {
            rules::by_repetition(held, former).filter(|_| is_recent(former.at, held.at))
        })
    }

    fn account_received(&mut self, received: ReceivedAccount) {
        let Some(held) = self.sessions.get(&received.account.session).copied() else {
            let serial = self.next_serial();
            return self.early.insert(serial, received);
        };
        let recent = self.pending.get_mut(&held).filter(|held| is_recent(held.at, received.at));
        if let Some(finding) = recent.and_then(|held| rules::with_account(held, &received))
            && let Some(held) = self.take(held)
        {
            self.revise(held, finding);
        }
    }

    fn peer_returned(&mut self, now: Time, who: &Who<'_>) {
        let Some(serial) = self.newest_of(who) else {
            return;
        };
        let held = self.pending.get(&serial).filter(|held| is_recent(held.at, now));
        if let Some(finding) = held.and_then(|held| rules::by_return(held, who))
            && let Some(held) = self.take(serial)
        {
            self.drop_superseded(serial, who);
            self.revise(held, finding);
        }
    }

    /// Returns the waiting verdict that a return without an account is matched with: the newest of
    /// the same boot, because the others may be of other machines; otherwise the newest.
    fn newest_of(&self, who: &Who<'_>) -> Option<u64> {
        let same_boot =
            |serial: &u64| self.pending.get(serial).is_some_and(|held| held.boot_id == who.boot_id);
        let mut newest = self.candidates(who.identity, u64::MAX);
        newest.clone().find(same_boot).or_else(|| newest.next())
    }

    /// Returns the waiting verdicts of an identity up to `last`, the newest first.
    fn candidates(&self, identity: &str, last: u64) -> impl Iterator<Item = u64> + Clone {
        let range = (identity.into(), 0)..=(identity.into(), last);
        self.identities.range(range).rev().take(CANDIDATES).map(|(_, serial)| *serial)
    }

    /// Drops the verdicts of the same identity and host that are older than `newest`, which a
    /// return has explained. Otherwise the next return would revise them too.
    fn drop_superseded(&mut self, newest: u64, who: &Who<'_>) {
        let host = who.address.ip();
        let older: Vec<u64> = self.candidates(who.identity, newest).collect();
        for serial in older {
            if self.pending.get(&serial).is_some_and(|held| held.address.ip() == host) {
                self.take(serial);
            }
        }
    }

    /// Drops verdicts and accounts that have waited for longer than [`WAITING`].
    fn expire(&mut self, now: Time) {
        for _ in 0..EXPIRED_PER_INPUT {
            let oldest = self.pending.first_key_value();
            match oldest.filter(|(_, held)| !is_recent(held.at, now)).map(|(serial, _)| *serial) {
                Some(serial) => drop(self.take(serial)),
                None => break,
            }
        }
        for _ in 0..EXPIRED_PER_INPUT {
            if !self.early.remove_oldest(|at| !is_recent(at, now)) {
                break;
            }
        }
    }

    fn scope_known(&mut self, now: Time, session: u64, scope: Scope, confidence: Confidence) {
        let Some(serial) = self.sessions.get(&session).copied() else {
            return;
        };
        let held = self.pending.get_mut(&serial).filter(|held| is_recent(held.at, now));
        let finding = held.and_then(|held| {
            held.unscoped = true;
            rules::by_siblings(held, scope, confidence)
        });
        if let Some(finding) = finding
            && let Some(held) = self.take(serial)
        {
            self.revise(held, finding);
        }
    }

    fn revise(&mut self, held: PendingVerdict, finding: rules::Finding) {
        let PendingVerdict { session, epoch, identity, listener, address, cause, .. } = held;
        let rules::Finding { to, confidence, note } = finding;
        let from = cause;
        self.output = Some(Revised {
            session,
            epoch,
            identity,
            listener,
            address,
            from,
            to,
            confidence,
            note,
        });
    }

    /// Adds a verdict to all tables. Returns false if its session has one already.
    fn hold(&mut self, serial: u64, held: PendingVerdict) -> bool {
        let is_new = self.sessions.insert(held.session, serial).is_none();
        if !held.identity.is_empty() {
            self.identities.insert((held.identity.clone(), serial));
        }
        self.shares.add(Origin::from(held.address.ip()), serial);
        self.pending.insert(serial, held);
        is_new
    }

    fn take(&mut self, serial: u64) -> Option<PendingVerdict> {
        let held = self.pending.remove(&serial)?;
        self.sessions.remove(&held.session);
        self.identities.remove(&(held.identity.clone(), serial));
        self.shares.remove(Origin::from(held.address.ip()), serial);
        Some(held)
    }

    fn next_serial(&mut self) -> u64 {
        self.serial = self.serial.saturating_add(1);
        self.serial
    }
}

fn is_recent(then: Time, now: Time) -> bool {
    now.since(then) <= WAITING
}

impl Machine for Ledger {
    type World<'a> = World<'a>;
    type Answer = Infallible;
    type Output<'a> = Revised;
    type Part = ();

    /// Each input has at most one output; an output that is not polled before the next input is
    /// lost. `now` is the time of the event, as exactly as the shell knows it, on a clock that runs
    /// during suspension. It may go back a little from one input to the next.
    fn handle<'a>(&mut self, now: Time, input: impl Into<Input<'a>>) {
        self.expire(now);
        let Input::World(world) = input.into();
        match world {
            World::Ended { who, cause, grounds, silent, asked, probing } => {
                self.session_ended(PendingVerdict {
                    at: now,
                    session: who.session,
                    epoch: who.epoch,
                    identity: who.identity.into(),
                    listener: who.listener,
                    address: who.address,
                    boot_id: who.boot_id,
                    instance_id: who.instance_id,
                    cause,
                    silent,
                    asked,
                    probing,
                    arriving: rules::is_arriving(grounds),
                    passed: false,
                    unscoped: false,
                    accounted: false,
                })
            }
            World::Joined { who, account: Some(account) } => {
                let Who { boot_id, instance_id, address, .. } = who;
                // Without both ids any process may have sent the account.
                if boot_id != BootId::default() && instance_id != InstanceId::default() {
                    let host = address.ip();
                    self.account_received(ReceivedAccount {
                        at: now,
                        host,
                        boot_id,
                        instance_id,
                        account,
                    });
                }
            }
            World::Joined { who, account: None } => self.peer_returned(now, &who),
            World::Scoped { session, scope, confidence } => {
                self.scope_known(now, session, scope, confidence);
            }
        }
    }

    fn poll_output(&mut self) -> Option<Revised> {
        self.output.take()
    }

    /// Old verdicts are forgotten at the next input.
    fn deadline_of(&self, (): ()) -> Option<Deadline> {
        None
    }

    saved_whole!(machine, now, state, Ledger::load(now, state)?);
}

#[cfg(test)]
mod tests;
