//! Verdicts that one end could not know better, until the peer comes back and tells the rest.
//!
//! From one end a cut cable, a crashed machine and a forgotten mapping look alike. What splits them
//! arrives later: the boot id of whoever returns, its own account of the link, or what became of
//! other links of its host. The ledger keeps recent provisional verdicts and revises each at most
//! once, or never: a wrong cause is worse than a vague one.
//!
//! An account speaks of one session and is believed only from the same process, told by boot and
//! instance id, which nobody else knows. Who returns without one is matched by its identity, where
//! exactly one verdict of that identity waits.
//!
//! # When something on the way forgot
//! [`Cause::MiddleboxForgot`] is told from a healed path by who closed first. A reset is sent by
//! whoever does not know the connection. If a link ended at both ends, at the first of them by a
//! reset, then neither had closed before: the reset was sent, or provoked, by something between.
//! A path that was cut and healed brings a reset as well, but always from an end that had given up
//! before; so the client's account must say that it ended by a reset, and ours either that too, or
//! that we had not given up by then.
//!
//! Two ends that both gave up in silence prove nothing by themselves, for the path may have healed
//! since. If the peer was back at once, it must have healed just between the first goodbye, which
//! did not arrive, and the new connection, which did; more likely the old flow alone was blocked.
//! Then, unless other links of the host tell more, the mapping was forgotten.

mod rules;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::cause::{Cause, Confidence, Scope};
use crate::tap::Machine;
use crate::time::{Span, Time};
use crate::wire::{Account, BootId, InstanceId};

/// How many verdicts wait for a better cause: 4 MB at most. When full, the oldest stays as it is.
pub const VERDICTS: usize = 10_000;

/// How many accounts wait for the verdict on their link, which we have not given up yet. When full,
/// the oldest is forgotten, and its verdict stays as it falls.
pub const ACCOUNTS: usize = 4_096;

/// How long a verdict or an account waits: whoever comes back later has had time for more than one
/// fault.
pub const WAITING: Span = Span::from_secs(60 * 60);

/// One end of a session, as it introduced itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who<'a> {
    /// The session's number.
    pub session: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Who it says it is; empty where it did not say.
    pub identity: &'a str,
    /// The index of its listener.
    pub listener: u16,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Its machine; zeros where unknown.
    pub boot_id: BootId,
    /// Its process; zeros where unknown.
    pub instance_id: InstanceId,
}

/// What can change the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// A session has ended.
    Ended {
        /// Whose.
        who: Who<'a>,
        /// Why, as far as we could tell.
        cause: Cause,
        /// How long the peer had not been heard.
        silent: Span,
        /// For how long of that it was asked in vain; rather less than more.
        asked: Span,
    },
    /// A session is online.
    Joined {
        /// Whose.
        who: Who<'a>,
        /// What it says of its link before.
        account: Option<Account>,
    },
    /// Other links of the same host, or of others, tell how much of a path is lost.
    Scoped {
        /// The session whose path it was.
        session: u64,
        /// How much is lost; [`Scope::Unknown`] if they cannot tell.
        scope: Scope,
    },
}

/// A verdict has another cause than it said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revised {
    /// The session's number.
    pub session: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Who it said it was.
    pub identity: Box<str>,
    /// The index of its listener.
    pub listener: u16,
    /// Where it came from.
    pub address: SocketAddr,
    /// The cause as it was told.
    pub from: Cause,
    /// The better one.
    pub to: Cause,
    /// How sure that is.
    pub confidence: Confidence,
    /// What it rests on.
    pub note: Note,
}

/// What a revision rests on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Note {
    /// The peer came back with another boot id.
    NewBoot,
    /// The peer came back from the same machine with another instance id.
    NewInstance,
    /// A reset reached an end while neither end had closed.
    NeitherClosed {
        /// How long the link had carried nothing before somebody sent again.
        idle: Span,
    },
    /// A new connection passed at once where the old one passed nothing.
    NewFlowPassed {
        /// How long the link had carried nothing before somebody sent again.
        idle: Span,
    },
    /// The peer heard us while we asked in vain.
    PeerHeardUs,
    /// The peer, too, heard nothing.
    PeerHeardNothing,
    /// The peer's machine was suspended.
    PeerSuspended(Span),
    /// The peer's process was stopped, while its machine ran.
    PeerStopped(Span),
    /// The peer's own network was down, or changed.
    PeerNetworkDown,
    /// What became of other links.
    Siblings,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::NewBoot => f.write_str("it came back with another boot id"),
            Note::NewInstance => f.write_str("the same machine came back with another process"),
            Note::NeitherClosed { idle } => {
                write!(f, "reset although neither end had closed, after {idle} without traffic")
            }
            Note::NewFlowPassed { idle } => write!(
                f,
                "a new connection passed at once where this one passed nothing, after {idle} \
                 without traffic"
            ),
            Note::PeerHeardUs => f.write_str("it heard us while we asked in vain"),
            Note::PeerHeardNothing => f.write_str("it heard nothing of us either"),
            Note::PeerSuspended(span) => write!(f, "its machine was suspended for {span}"),
            Note::PeerStopped(span) => write!(f, "its process was stopped for {span}"),
            Note::PeerNetworkDown => f.write_str("its own network was down or changed"),
            Note::Siblings => f.write_str("by what became of other links"),
        }
    }
}

/// Verdicts that wait for a better cause.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// In the order in which they came, by which the oldest gives way.
    held: BTreeMap<u64, Held>,
    sessions: BTreeMap<u64, u64>,
    identities: BTreeSet<(Box<str>, u64)>,
    /// Accounts of links that have not ended here, likewise, and by session.
    early: BTreeMap<u64, Early>,
    early_sessions: BTreeMap<u64, u64>,
    serial: u64,
    output: Option<Revised>,
}

/// A provisional verdict.
#[derive(Clone, Debug)]
struct Held {
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
    /// A new flow passed at once; until other links have told what they know.
    passed: bool,
}

/// What a process said of its link before, and when.
#[derive(Clone, Copy, Debug)]
struct Early {
    at: Time,
    /// Where from.
    host: IpAddr,
    boot_id: BootId,
    instance_id: InstanceId,
    account: Account,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// How many verdicts wait.
    pub fn waiting(&self) -> usize {
        self.held.len()
    }

    fn ended(&mut self, mut held: Held) {
        let account = self.take_early(held.session);
        if !held.cause.is_provisional() {
            return;
        }
        if let Some(early) = account.filter(|early| is_recent(early.at, held.at)) {
            held.passed = rules::new_flow_passed(&held, &early);
            if let Some(finding) = rules::by_account(&held, &early) {
                return self.revise(held, finding);
            }
            // The peer is back and has said all it knows: if that is nothing, nothing will come.
            if !held.passed {
                return;
            }
        }
        if self.held.len() == VERDICTS
            && let Some((&oldest, _)) = self.held.first_key_value()
        {
            self.take(oldest);
        }
        let serial = self.next_serial();
        if let Some(former) = self.sessions.insert(held.session, serial) {
            self.take(former);
            self.sessions.insert(held.session, serial);
        }
        if !held.identity.is_empty() {
            self.identities.insert((held.identity.clone(), serial));
        }
        self.held.insert(serial, held);
    }

    fn told(&mut self, early: Early) {
        let Some(held) = self.sessions.get(&early.account.session).copied() else {
            return self.keep_early(early);
        };
        let recent = self.held.get_mut(&held).filter(|held| is_recent(held.at, early.at));
        let finding = recent.and_then(|held| {
            held.passed |= rules::new_flow_passed(held, &early);
            rules::by_account(held, &early)
        });
        if let Some(finding) = finding
            && let Some(held) = self.take(held)
        {
            self.revise(held, finding);
        }
    }

    fn returned(&mut self, now: Time, who: &Who<'_>) {
        let identity: Box<str> = who.identity.into();
        let from = (identity, 0);
        let mut same =
            self.identities.range(from..).take_while(|(known, _)| **known == *who.identity);
        let (Some(&(_, serial)), None) = (same.next(), same.next()) else {
            return;
        };
        let held = self.held.get(&serial).filter(|held| is_recent(held.at, now));
        if let Some(finding) = held.and_then(|held| rules::by_return(held, who))
            && let Some(held) = self.take(serial)
        {
            self.revise(held, finding);
        }
    }

    fn scoped(&mut self, now: Time, session: u64, scope: Scope) {
        let Some(serial) = self.sessions.get(&session).copied() else {
            return;
        };
        let held = self.held.get(&serial).filter(|held| is_recent(held.at, now));
        if let Some(finding) = held.and_then(|held| rules::by_siblings(held, scope))
            && let Some(held) = self.take(serial)
        {
            self.revise(held, finding);
        }
    }

    fn revise(&mut self, held: Held, finding: rules::Finding) {
        let Held { session, epoch, identity, listener, address, cause, .. } = held;
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

    fn take(&mut self, serial: u64) -> Option<Held> {
        let held = self.held.remove(&serial)?;
        self.sessions.remove(&held.session);
        self.identities.remove(&(held.identity.clone(), serial));
        Some(held)
    }

    fn keep_early(&mut self, early: Early) {
        self.take_early(early.account.session);
        if self.early.len() == ACCOUNTS
            && let Some((_, oldest)) = self.early.pop_first()
        {
            self.early_sessions.remove(&oldest.account.session);
        }
        let serial = self.next_serial();
        self.early_sessions.insert(early.account.session, serial);
        self.early.insert(serial, early);
    }

    fn take_early(&mut self, session: u64) -> Option<Early> {
        self.early.remove(&self.early_sessions.remove(&session)?)
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
    type Input<'a> = Input<'a>;
    type Output<'a> = Revised;

    /// Each input has at most one output: one that was not polled is lost. The time is that of what
    /// happened, as exactly as the shell knows it, on a clock that does not stop in suspension; it
    /// may go back a little from one input to the next.
    fn handle(&mut self, now: Time, input: Input<'_>) {
        match input {
            Input::Ended { who, cause, silent, asked } => self.ended(Held {
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
                passed: false,
            }),
            Input::Joined { who, account: Some(account) } => {
                let Who { boot_id, instance_id, address, .. } = who;
                // Who does not say which process it is may be anybody.
                if boot_id != BootId::default() && instance_id != InstanceId::default() {
                    let host = address.ip();
                    self.told(Early { at: now, host, boot_id, instance_id, account });
                }
            }
            Input::Joined { who, account: None } => self.returned(now, &who),
            Input::Scoped { session, scope } => self.scoped(now, session, scope),
        }
    }

    fn poll_output(&mut self) -> Option<Revised> {
        self.output.take()
    }
}

#[cfg(test)]
mod tests;
