//! Logins with tokens: a token is given away to be verified, and the answer comes as a request.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;

use systole_core::hub::{self, Grant, Login, Proof};
use systole_core::link::{self, Goodbye};
use systole_core::wire::CloseReason;
use systole_core::{Span, Time};

use super::ListenerTokens;
use super::opening::Accept;
use super::shard_loop::ShardLoop;
use super::streams::Streams;
use crate::bans::KeptOut;
use crate::identity::{Answer, Job, Jobs, Offenders, Refusal, Ticket, Verified, refuse_after};
use crate::store::{Owing, Owned};

/// An answer to a request of the hub.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// The peer may have a session.
    Identify { link: u32, admission: u32, heard_at: Span },
    /// The peer is sent to the home of its identity.
    GoHome { link: u32, admission: u32, shard: u8 },
    /// The peer is sent away for this reason, and may come back.
    Refuse { link: u32, admission: u32, refusal: Refusal },
    /// The peer is banned.
    KeepOut { link: u32, admission: u32, kept_out: KeptOut },
    /// The session has this epoch.
    Own { session: u64, epoch: u64 },
    /// The peer has shown the token of this session.
    Resume { link: u32, admission: u32, session: u64 },
}

/// Maximum number of refusals that wait for their time, far more than a shard finds meanwhile.
/// Beyond it the next one leaves early.
const WAITING: usize = 1 << 16;

/// The logins of a shard.
#[derive(Debug)]
pub(super) struct Logins {
    /// The number of the shard.
    shard: usize,
    /// What each listener demands of tokens; `None` where nobody looks at them.
    listeners: Vec<Option<ListenerTokens>>,
    jobs: Option<Jobs>,
    /// The tokens that wait for a webhook, by link, with their admissions: never more than the
    /// queue and its threads hold.
    waiting: HashMap<u32, (u32, Ticket)>,
    offenders: Offenders,
    /// Refusals by the time at which they leave.
    refusals: BinaryHeap<Reverse<Waiting>>,
    /// The link that is refused at present, and why.
    refusing: Option<(u32, Refusal)>,
}

/// A refusal that waits for its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Waiting {
    at: Time,
    link: u32,
    admission: u32,
    refusal: Refusal,
}

impl Logins {
    pub(super) fn new(
        shard: u8,
        listeners: Vec<Option<ListenerTokens>>,
        jobs: Option<Jobs>,
    ) -> Logins {
        let (waiting, refusals) = (HashMap::new(), BinaryHeap::new());
        let offenders = Offenders::default();
        let refusing = None;
        Logins { shard: shard.into(), listeners, jobs, waiting, offenders, refusals, refusing }
    }

    /// Returns what a listener demands of tokens.
    pub(super) fn at(&self, listener: u16) -> Option<&ListenerTokens> {
        self.listeners.get(usize::from(listener))?.as_ref()
    }

    /// Returns when the next refusal leaves.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.refusals.peek().map(|Reverse(next)| next.at)
    }

    /// Withdraws the token of a link that has ended: a service is asked only about clients that are
    /// there. Returns whether its service was not asked yet.
    pub(super) fn withdraw(&mut self, link: u32) -> bool {
        let Some((_, ticket)) = self.waiting.remove(&link) else {
            return false;
        };
        self.jobs.as_ref().is_some_and(|jobs| jobs.withdraw(ticket))
    }

    /// Notes that a login was answered.
    fn answered(&mut self, link: u32, admission: u32) {
        // An older admission may have been of another peer.
        if self.waiting.get(&link).is_some_and(|(waiting, _)| *waiting == admission) {
            self.waiting.remove(&link);
        }
    }

    /// Returns why a link is refused, while it is.
    pub(super) fn refusal_of(&self, link: u32) -> Option<Refusal> {
        self.refusing.filter(|(refused, _)| *refused == link).map(|(_, refusal)| refusal)
    }

    #[cfg(test)]
    pub(super) fn jobs(&self) -> Option<&Jobs> {
        self.jobs.as_ref()
    }

    /// Takes the next refusal if its time has come.
    fn poll(&mut self, now: Time) -> Option<Waiting> {
        if self.refusals.len() <= WAITING && self.next_deadline()? > now {
            return None;
        }
        self.refusals.pop().map(|Reverse(next)| next)
    }
}

impl<T: Accept> ShardLoop<Streams<T>> {
    /// Gives the token of a login away to be verified, or answers at once if it need not be.
    pub(super) fn check_token(
        &mut self,
        link: u32,
        admission: u32,
        heard_at: Span,
        address: IpAddr,
    ) {
        let (now, hub) = (self.clock.now(), self.hub.machine());
        let Some(known) = hub.presence(link) else {
            return;
        };
        let token = hub.token(link);
        let logins = &mut self.traffic.logins;
        let Some(ListenerTokens { verifier, anonymous }) = logins.at(known.listener).cloned()
        else {
            return;
        };
        if token.is_empty() && anonymous {
            let login = Login { heard_at, proof: Proof::Anonymous, grant: Grant::default() };
            return self.hub.handle(now, hub::World::Identified { link, admission, login });
        }
        let given = if logins.offenders.is_refused(now, address) {
            Err(Refusal::Address)
        } else if token.is_empty() {
            Err(Refusal::NoToken)
        } else {
            let (shard, asked, token) = (logins.shard, now, token.into());
            let job = Job { shard, link, admission, heard_at, address, asked, verifier, token };
            logins.jobs.as_ref().map_or(Err(Refusal::Full), |jobs| jobs.send(job))
        };
        match given {
            Ok(None) => {}
            Ok(Some(ticket)) => drop(logins.waiting.insert(link, (admission, ticket))),
            Err(refusal) => {
                let result = Err(refusal);
                self.log_in(Answer { link, admission, heard_at, address, asked: now, result });
            }
        }
    }

    /// Hands the hub the answer to a login; a refusal at its time.
    pub(super) fn log_in(&mut self, answer: Answer) {
        let Answer { link, admission, heard_at, address, asked, result } = answer;
        let now = self.clock.now();
        self.traffic.logins.answered(link, admission);
        match result {
            Ok(verified) => {
                let Verified { identity, attributes, lasts } = &verified;
                let proof = Proof::Proved(identity);
                let grant = Grant { attributes, lasts: *lasts };
                let login = Login { heard_at, proof, grant };
                self.hub.handle(now, hub::World::Identified { link, admission, login });
            }
            Err(refusal) => {
                self.stats.refused[refusal.index()].add(1);
                if refusal.is_verdict() {
                    let at = refuse_after(asked, now);
                    let logins = &mut self.traffic.logins;
                    logins.offenders.count(now, address);
                    logins.refusals.push(Reverse(Waiting { at, link, admission, refusal }));
                } else {
                    self.refuse(link, admission, refusal);
                }
            }
        }
    }

    /// Gives a session its epoch: at once, or when it is written what is owed about it.
    pub(super) fn own(&mut self, link: u32, admission: u32, session: u64) {
        let epoch = self.traffic.epochs.next();
        let banned = self.banned(link);
        let answers = &mut self.traffic.answers;
        if let Some(kept_out) = banned {
            return answers.push_back(Reply::KeepOut { link, admission, kept_out });
        }
        let Some(store) = &self.traffic.store else {
            return answers.push_back(Reply::Own { session, epoch });
        };
        let Some(known) = self.hub.machine().presence(link) else {
            return;
        };
        let owing = Owing {
            shard: self.traffic.logins.shard,
            link,
            admission,
            session,
            epoch,
            identity: known.identity.into(),
            listener: known.listener,
            address: known.address,
            at_ms: self.clock.wall_ms(),
        };
        if !store.owe(owing) {
            answers.push_back(Reply::Refuse { link, admission, refusal: Refusal::Store });
        }
    }

    /// Returns the ban of the peer of a link; `None` if there is none.
    fn banned(&self, link: u32) -> Option<KeptOut> {
        let known = self.hub.machine().presence(link)?;
        self.traffic.bans.of_peer(known.identity, known.boot_id, known.address.ip())
    }

    /// Ends a session that has moved here and is banned: whoever banned it may have looked here
    /// before it came, and there after it had left. A login on its way is looked at when its
    /// session is about to exist.
    pub(super) fn end_if_banned(&mut self, link: u32) {
        let known = self.hub.machine().presence(link);
        let is_online = known.is_some_and(|known| known.established.is_some());
        let Some(kept_out) = self.banned(link).filter(|_| is_online) else {
            return;
        };
        self.close_banned(link, &kept_out);
        self.carry_out();
    }

    /// Sends a banned peer away, unless it has gone meanwhile: its session is not online yet.
    pub(super) fn keep_out(&mut self, link: u32, admission: u32, kept_out: &KeptOut) {
        if self.hub.machine().awaits_answer(link, admission) {
            self.close_banned(link, kept_out);
        }
    }

    fn close_banned(&mut self, link: u32, kept_out: &KeptOut) {
        let KeptOut { left, text } = kept_out;
        let goodbye = Goodbye { return_after: *left, ..CloseReason::Kicked.into() };
        let input = link::World::Command(link::Command::Close { goodbye, text });
        self.hub.handle(self.clock.now(), hub::World::Link { link, input });
    }

    /// Sends a peer away. The fact of its end says why, which the hub does not know of a token.
    pub(super) fn refuse(&mut self, link: u32, admission: u32, refusal: Refusal) {
        let denied = refusal.denied();
        self.traffic.logins.refusing = Some((link, refusal));
        self.hub.handle(self.clock.now(), hub::World::Refused { link, admission, denied });
        self.carry_outputs();
        self.traffic.logins.refusing = None;
    }

    /// Hands the hub the epochs of the sessions about which it is written what is owed.
    pub(super) fn take_owned(&mut self) {
        let Some(store) = self.traffic.store.clone() else {
            return;
        };
        for owned in store.take_owned(self.traffic.logins.shard) {
            let Owned { link, admission, session, epoch, is_granted } = owned;
            let is_awaited = self.hub.machine().awaits_epoch(session);
            let banned = self.banned(link).filter(|_| is_awaited);
            if is_granted && (!is_awaited || banned.is_some()) {
                // It is never online: the peer has gone, even if its link is still known, or was
                // banned since it was written. Whoever banned it ends only those that are online.
                store.waive(session, epoch);
            }
            if !is_granted {
                self.refuse(link, admission, Refusal::Store);
            } else if let Some(kept_out) = banned {
                self.keep_out(link, admission, &kept_out);
            } else {
                self.give_epoch(session, epoch);
            }
            self.carry_out();
        }
    }

    /// Hands the hub the refusals whose time has come.
    pub(super) fn refuse_due(&mut self) {
        let now = self.clock.now();
        while let Some(Waiting { link, admission, refusal, .. }) = self.traffic.logins.poll(now) {
            self.refuse(link, admission, refusal);
            self.carry_out();
        }
    }
}
