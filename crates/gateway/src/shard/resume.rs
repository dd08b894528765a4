//! Sessions that outlive their links: who may resume, and what is told of a session that is away.

use sha2::{Digest as _, Sha256};
use systole_core::resume::{Digest, Fresh, Token};
use systole_core::wire::CloseReason;
use systole_core::{hub, link, session};
use systole_net::identity::resume_token;

use super::carry::count_cause;
use super::opening::Accept;
use super::shard_loop::ShardLoop;
use super::streams::Streams;
use crate::bans::KeptOut;
use crate::identity::Refusal;
use crate::report::{Fact, Parting, Subject};
use crate::request::Order;

/// How many sessions that are away are looked for at once, where all of them end.
const AT_ONCE: usize = 512;

impl<T: Accept> ShardLoop<Streams<T>> {
    /// Gives a session its epoch, and a token if it can be resumed.
    pub(super) fn give_epoch(&mut self, session: u64, epoch: u64) {
        let is_wanted = self.hub.machine().may_outlive_its_link(session);
        let fresh = is_wanted.then(resume_token).and_then(Result::ok).map(fresh);
        let answer = hub::Answer::Owned { session, epoch, fresh };
        self.hub.handle(self.clock.now(), answer);
    }

    /// Lets a peer resume its session, unless it is banned.
    pub(super) fn resume(&mut self, link: u32, admission: u32, session: u64) {
        if let Some(kept_out) = self.banned_from(link, session) {
            return self.keep_out(link, admission, &kept_out);
        }
        match resume_token() {
            Ok(token) => {
                let (shown, fresh) = (digest(self.hub.machine().shown(link)), fresh(token));
                let answer = hub::Answer::Resumed { link, admission, shown, fresh };
                self.hub.handle(self.clock.now(), answer);
            }
            Err(_) => self.refuse(link, admission, Refusal::Full),
        }
    }

    /// Returns the ban of a peer that resumes a session: of the identity that has logged in, and of
    /// the machine and address from which it comes now.
    fn banned_from(&self, link: u32, session: u64) -> Option<KeptOut> {
        let hub = self.hub.machine();
        let known = hub.presence(link)?;
        let former = hub.find(session).and_then(|former| hub.presence(former));
        let away = hub.absence(session).map(|absence| absence.identity);
        let identity = former.map(|former| former.identity).or(away)?;
        self.traffic.bans.of_peer(identity, known.boot_id, known.address.ip())
    }

    /// Reports an event of a session that is away, and counts it.
    pub(super) fn report_absent(&mut self, session: u64, event: session::Event) {
        let Some(absence) = self.hub.machine().absence(session) else {
            return;
        };
        let mut fact = Fact::new(self.clock.wall_ms(), Subject::absent(&absence), event);
        if let session::Event::Left(verdict) = &event {
            // Its link has left the gate long ago, and its verdict was measured when it fell.
            fact.parting = Parting { was_away: true, ..Parting::default() };
            count_cause(&self.stats.verdicts, verdict);
        }
        self.reports.send(fact);
    }

    /// Gives an order to a session. One that is away can only be ended: returns false for others.
    pub(super) fn order_session(&mut self, session: u64, order: &Order) -> bool {
        let hub = self.hub.machine();
        let is_end = match order {
            Order::Kick { .. } | Order::KeepOut { .. } => true,
            Order::Hold(_) | Order::Release | Order::Retune(_) => false,
        };
        if hub.find(session).is_none() && !(is_end && hub.is_away(session)) {
            return false;
        }
        let input = hub::World::Session { session, command: order.into() };
        self.hub.handle(self.clock.now(), input);
        self.carry_out();
        true
    }

    /// Ends the sessions that are away, so that each end is a fact. For a shard that ends.
    pub(super) fn end_away(&mut self) {
        loop {
            let (away, _) = self.hub.machine().absences(0, AT_ONCE);
            let sessions: Vec<u64> = away.iter().map(|absence| absence.session).collect();
            if sessions.is_empty() {
                return;
            }
            for session in sessions {
                let command = link::Command::close(CloseReason::Drained);
                self.hub.handle(self.clock.now(), hub::World::Session { session, command });
                self.carry_out();
            }
        }
    }
}

/// Returns a token with its digest.
fn fresh(token: Token) -> Fresh {
    Fresh { token, digest: digest(&token.0) }
}

/// Returns what is kept of a token: the first half of its SHA-256. The digests of two tokens say
/// nothing about how much of them is the same, so they may be compared in any time.
fn digest(token: &[u8]) -> Digest {
    let mut half = [0; 16];
    half.iter_mut().zip(Sha256::digest(token)).for_each(|(to, byte)| *to = byte);
    Digest(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_half_of_the_sha_256() {
        // Of "abc", as FIPS 180-2 has it.
        let expected = [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea];
        assert!(digest(b"abc").0.starts_with(&expected));
        assert_ne!(digest(b""), digest(&[0]));
    }
}
