//! The saved state of a ledger.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::early::ReceivedAccount;
use super::{ACCOUNTS, Ledger, PendingVerdict, VERDICTS};
use crate::plain::{Damage, Plain, Sink, Source, plain_struct};
use crate::time::Time;
use crate::wire::MAX_IDENTITY;

plain_struct! { PendingVerdict {
    at,
    session,
    epoch,
    identity,
    listener,
    address,
    boot_id,
    instance_id,
    cause,
    silent,
    asked,
    probing,
    arriving,
    passed,
    unscoped,
    accounted
} }

plain_struct! { ReceivedAccount { at, host, boot_id, instance_id, account } }

impl Ledger {
    /// Appends the state at `now` to `out`, with every time as an age. Poll the output before: it
    /// is not part of the state.
    pub fn save(&self, now: Time, out: &mut Vec<u8>) {
        // The other tables find the entries of these two, and are made again.
        let Ledger { pending, sessions: _, identities: _, shares: _, early, serial, output } = self;
        debug_assert!(output.is_none(), "an output that was not polled is lost");
        let mut out = Sink::state(now, out);
        pending.put(&mut out);
        early.accounts().put(&mut out);
        serial.put(&mut out);
    }

    /// Loads a ledger from the front of `state`, at `now` of the clock that drives it from here on.
    ///
    /// What happened before [`Time::ZERO`] of this clock is dropped: a verdict whose age is in
    /// doubt is not revised.
    ///
    /// # Errors
    /// The state is damaged.
    pub fn load(now: Time, state: &mut &[u8]) -> Result<Ledger, Damage> {
        let mut from = Source::state(now, state);
        let pending = take_recent::<PendingVerdict>(&mut from, VERDICTS)?;
        let early = take_recent::<ReceivedAccount>(&mut from, ACCOUNTS)?;
        let mut ledger = Ledger { serial: u64::take(&mut from)?, ..Ledger::new() };
        let last = pending.keys().chain(early.keys()).max();
        let mut is_legal = last.is_none_or(|last| *last <= ledger.serial);
        for (serial, held) in pending {
            is_legal &= held.identity.len() <= MAX_IDENTITY;
            is_legal &= ledger.hold(serial, held);
        }
        let accounts = early.len();
        for (serial, received) in early {
            ledger.early.insert(serial, received);
        }
        is_legal &= ledger.early.accounts().len() == accounts;
        *state = from.rest();
        if is_legal { Ok(ledger) } else { Err(Damage::Illegal) }
    }
}

/// Decodes at most `most` entries without those that lie before the clock's origin.
fn take_recent<'a, T: Plain<'a>>(
    from: &mut Source<'a>,
    most: usize,
) -> Result<BTreeMap<u64, T>, Damage> {
    let length = u32::take(from)?;
    if length as usize > most {
        return Err(Damage::Illegal);
    }
    let mut entries = BTreeMap::new();
    for _ in 0..length {
        from.take_cut();
        let (serial, entry) = (u64::take(from)?, T::take(from)?);
        if !from.take_cut() && entries.insert(serial, entry).is_some() {
            return Err(Damage::Illegal);
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{Cause, Confidence, Direction, Scope};
    use crate::grounds::{Ground, Grounds};
    use crate::ledger::{Revised, Who, World};
    use crate::machine::Machine;
    use crate::random::Random;
    use crate::time::Span;
    use crate::wire::{Account, BootId, CloseReason, InstanceId, Saw};

    fn load(now: Time, ledger: &Ledger, saved: Time) -> Ledger {
        let mut state = Vec::new();
        ledger.save(saved, &mut state);
        let mut rest = state.as_slice();
        let loaded = Ledger::load(now, &mut rest).unwrap();
        assert!(rest.is_empty());
        loaded
    }

    /// Hands a random input to `hand_in`: few peers, so that they meet their verdicts again.
    fn with_input(random: &mut Random, hand_in: impl FnOnce(World<'_>)) {
        let mut below = |most: u64| random.below(most);
        let names = ["", "ada", "bob", "eve"];
        let who = Who {
            session: below(12),
            epoch: below(3),
            identity: names[below(4) as usize],
            listener: below(2) as u16,
            address: ([10, 0, 0, below(3) as u8], 7).into(),
            boot_id: BootId([below(3) as u8; 16]),
            instance_id: InstanceId([below(3) as u8; 16]),
        };
        let causes = [
            Cause::PeerReset,
            Cause::Unknown,
            Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown },
            Cause::PeerClosed(CloseReason::Done),
            Cause::PeerExited,
            Cause::AppHung,
        ];
        let saws = [Saw::Reset, Saw::Silence, Saw::Unheard, Saw::NetworkDown, Saw::Blocked];
        let account = Account {
            session: below(12),
            saw: saws[below(5) as usize],
            silent_ms: below(30_000) as u32,
            ended_ms: below(20_000) as u32,
            absent_ms: below(2) as u32 * 20_000,
            suspended_ms: 0,
        };
        let scopes = [Scope::Unknown, Scope::Flow, Scope::Host, Scope::Many];
        hand_in(match below(8) {
            0..4 => World::Ended {
                who,
                cause: causes[below(6) as usize],
                grounds: if below(4) == 0 {
                    Grounds::of(&[Ground::KernelFresh])
                } else {
                    Grounds::default()
                },
                silent: Span::from_millis(30_000),
                asked: Span::from_millis(10_000 + below(10_000)),
                probing: (below(8) > 0).then_some(Span::from_millis(20_000)),
            },
            4 | 5 => World::Joined { who, account: Some(account) },
            6 => World::Joined { who, account: None },
            _ => World::Scoped {
                session: below(12),
                scope: scopes[below(4) as usize],
                confidence: Confidence::High,
            },
        });
    }

    #[test]
    fn a_ledger_that_moves_to_another_clock_at_every_input_goes_on_the_same() {
        let mut revised = 0;
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut now = Time::from_millis(20_000_000);
            let (mut ledger, mut copy) = (Ledger::new(), Ledger::new());
            let mut lead = Span::ZERO;
            for step in 0..200 {
                let ahead = Span::from_nanos(random.next_u64() >> 2);
                copy = load(now + ahead, &copy, now + lead);
                lead = ahead;
                now = now + random.up_to(Span::from_secs(120));
                with_input(&mut random, |input| {
                    ledger.handle(now, input);
                    copy.handle(now + lead, input);
                });
                let output: Option<Revised> = ledger.poll_output();
                assert_eq!(copy.poll_output(), output, "seed {seed}, step {step}");
                revised += u32::from(output.is_some());
                assert_eq!(copy.waiting(), ledger.waiting(), "seed {seed}, step {step}");
            }
        }
        assert!(revised > 1_000, "{revised}");
    }

    #[test]
    fn what_a_young_clock_cannot_hold_is_not_revised() {
        let mut random = Random::new(1);
        let mut ledger = Ledger::new();
        let mut now = Time::from_millis(20_000_000);
        let began = now;
        while ledger.waiting() < 5 {
            now = now + Span::from_secs(60);
            with_input(&mut random, |input| ledger.handle(now, input));
            while ledger.poll_output().is_some() {}
        }
        assert_eq!(load(Time::ZERO + now.since(began), &ledger, now).waiting(), 5);
        assert!(load(Time::from_millis(30_000), &ledger, now).waiting() <= 1);
    }

    #[test]
    fn a_damaged_ledger_is_refused_or_does_no_harm() {
        let mut random = Random::new(9);
        let mut ledger = Ledger::new();
        let now = Time::from_millis(20_000_000);
        for _ in 0..20 {
            with_input(&mut random, |input| ledger.handle(now, input));
            while ledger.poll_output().is_some() {}
        }
        let mut state = Vec::new();
        ledger.save(now, &mut state);
        for length in 0..state.len() {
            assert!(Ledger::load(now, &mut &state[..length]).is_err(), "{length}");
        }
        for place in 0..state.len() {
            let mut damaged = state.clone();
            damaged[place] ^= 1 + random.below(255) as u8;
            let Ok(mut loaded) = Ledger::load(now, &mut damaged.as_slice()) else { continue };
            for _ in 0..20 {
                with_input(&mut random, |input| loaded.handle(now, input));
                while loaded.poll_output().is_some() {}
            }
        }
    }
}
