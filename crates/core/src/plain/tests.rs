//! The plain form of inputs, and of times.

use crate::denial::{Denial, Denied};
use crate::home::Homes;
use crate::hub::Login;
use core::net::{Ipv6Addr, SocketAddrV6};

use super::*;
use crate::hub;
use crate::hub::{
    Answer as HubAnswer, Grant, HubCommand, Part as HubPart, Proof, Settings as HubSettings,
    World as HubWorld,
};
use crate::kernel::{Cap, Examination, NextHop, Patience, SendState, SocketError, TcpSnapshot};
use crate::link::{
    Command as LinkCommand, Goodbye, Hung, Settings as LinkSettings, Side, World as LinkWorld,
};
use crate::liveness::Role;
use crate::policy::Policy;
use crate::random::Random;
use crate::resume::{Digest, Fresh, Token};
use crate::wire::{BootId, CloseReason, Codec, DataKind, InstanceId, Malformed};

fn bytes<'a>(chance: &mut Random, pool: &'a [u8]) -> &'a [u8] {
    let length = chance.below(pool.len() as u64 + 1) as usize;
    &pool[..length]
}

fn policy(chance: &mut Random) -> Policy {
    let mut millis = |top: u64| Span::from_millis(1 + chance.below(top));
    let (idle, interval, keepalive) = (millis(1 << 30), millis(1 << 20), millis(1 << 35));
    let policy = match chance.below(4) {
        0 => Policy::never(),
        _ => Policy::new(idle, interval, 1 + chance.below(100) as u8).unwrap(),
    };
    let policy =
        if chance.below(2) == 0 { policy } else { policy.with_keepalive(keepalive).unwrap() };
    policy.with_spread(chance.below(2) == 0).with_enforce(chance.below(2) == 0)
}

fn examination(chance: &mut Random) -> Examination {
    let tcp = TcpSnapshot {
        unacked: chance.next_u32(),
        notsent: (chance.below(2) == 0).then(|| chance.next_u32()),
        last_ack: Span::from_nanos(chance.next_u64()),
        ..TcpSnapshot::default()
    };
    Examination {
        tcp: (chance.below(3) != 0).then_some(tcp),
        error: (chance.below(2) == 0).then_some(SocketError::TimedOut),
        ended: chance.below(2) == 0,
        local_down: (chance.below(2) == 0).then_some(true),
        next_hop: (chance.below(2) == 0)
            .then(|| NextHop { is_peer: chance.below(2) == 0, is_silent: chance.below(2) == 0 }),
        queued: chance.below(2) == 0,
    }
}

fn link_world<'a>(chance: &mut Random, pool: &'a [u8]) -> LinkWorld<'a> {
    let span = Span::from_nanos(chance.next_u64());
    LinkWorld::Command(match chance.below(15) {
        0 => return LinkWorld::Received(bytes(chance, pool)),
        1 => return LinkWorld::Ended,
        2 => return LinkWorld::Failed(SocketError::HostUnreachable),
        3 => return LinkWorld::Overflowed,
        4 => return LinkWorld::Warned(SocketError::NetworkUnreachable),
        5 => LinkCommand::Send {
            bytes: bytes(chance, pool),
            more: chance.below(2) == 0,
            kind: DataKind::TwentyOne,
        },
        6 => LinkCommand::HeartbeatData(bytes(chance, pool)),
        7 => LinkCommand::Retune(policy(chance)),
        8 => LinkCommand::Hold(span),
        9 => LinkCommand::Release,
        10 => return LinkWorld::Heard,
        11 => return LinkWorld::Illegal(Malformed::Record),
        12 => LinkCommand::Heartbeat,
        13 => return LinkWorld::Held { memory: chance.next_u32(), length: chance.next_u32() },
        _ => {
            // `Other` of a byte that has a name must stay `Other`.
            let reason = CloseReason::Other(chance.below(12) as u8);
            let text = ["", "come back", "na kraju \u{201e}dana\u{201c}"][chance.below(3) as usize];
            let goodbye = Goodbye { reason, stay_away: true, return_after: span };
            LinkCommand::Close { goodbye, text }
        }
    })
}

fn fresh(chance: &mut Random) -> Fresh {
    let [token, digest] = [0; 2].map(|_: u8| [chance.next_u32() as u8; 16]);
    Fresh { token: Token(token), digest: Digest(digest) }
}

fn input<'a>(chance: &mut Random, pool: &'a [u8]) -> hub::Input<'a> {
    let (link, listener) = (chance.next_u32(), chance.next_u32() as u16);
    let address = if chance.below(2) == 0 {
        SocketAddr::from(([10, 1, 2, chance.below(256) as u8], listener))
    } else {
        let ip = Ipv6Addr::from_bits(u128::from(chance.next_u64()) << 17);
        SocketAddrV6::new(ip, 9, chance.next_u32(), chance.next_u32()).into()
    };
    let world = match chance.below(14) {
        0 => return HubAnswer::Deadline(HubPart::Common).into(),
        1 => return HubAnswer::Deadline(HubPart::Link(link)).into(),
        2 if chance.below(2) == 0 => {
            let (shown, fresh) = (Digest([chance.next_u32() as u8; 16]), fresh(chance));
            return HubAnswer::Resumed { link, admission: chance.next_u32(), shown, fresh }.into();
        }
        2 => {
            let fresh = (chance.below(2) == 0).then(|| fresh(chance));
            return HubAnswer::Owned { session: chance.next_u64(), epoch: 9, fresh }.into();
        }
        3 => return HubAnswer::Examined { link, examination: examination(chance) }.into(),
        4 => HubWorld::Opened { link, listener, address },
        5 => HubWorld::Command(HubCommand::Retune { listener, policy: policy(chance) }),
        6 => HubWorld::Command(HubCommand::Drain {
            limit: Span::from_secs(30),
            reconnect_within: Span::from_millis(7),
        }),
        7 => HubWorld::Command(HubCommand::ReportHeartbeats(chance.below(2) == 0)),
        8 => {
            let proofs = [Proof::Claim, Proof::Proved(""), Proof::Proved("ada"), Proof::Anonymous];
            let proof = proofs[chance.below(4) as usize];
            let lasts = (chance.below(2) == 0).then(|| Span::from_nanos(chance.below(1 << 60)));
            let attributes = ["", "{}"][chance.below(2) as usize];
            let grant = Grant { attributes, lasts };
            let heard_at = Span::from_nanos(chance.next_u64());
            let login = Login { heard_at, proof, grant };
            HubWorld::Identified { link, admission: chance.next_u32(), login }
        }
        9 => {
            let why = Some(Denial::ALL[chance.below(11) as usize]).filter(|_| chance.below(4) > 0);
            let denied = Denied { goodbye: CloseReason::Unauthorized.into(), why };
            HubWorld::Refused { link, admission: chance.next_u32(), denied }
        }
        10 => HubWorld::Crowded { link },
        _ => HubWorld::Link { link, input: link_world(chance, pool) },
    };
    world.into()
}

#[test]
fn settings_survive_the_round_trip_and_no_truncated_ones_decode() {
    let mut chance = Random::new(11);
    for _ in 0..200 {
        let listeners = (0..chance.below(4)).map(|_| LinkSettings {
            role: if chance.below(2) == 0 { Role::Probe } else { Role::Watch },
            patience: Patience::new(Some(Span::from_secs(9)), SendState::Closed),
            handshake_timeout: Span::from_millis(chance.next_u32().into()),
            boot_id: BootId([chance.next_u32() as u8; 16]),
            instance_id: InstanceId([chance.next_u32() as u8; 16]),
            wall_origin_ms: chance.next_u64(),
            examines: chance.below(2) == 0,
            hung: Hung::Keep(Span::from_millis(chance.next_u32().into())),
            ..LinkSettings::new(Codec::Message1028, Side::Accepting, policy(&mut chance))
        });
        let listeners = listeners.collect();
        let settings = HubSettings {
            shard: 7,
            homes: Homes { shards: 9, key: u64::MAX },
            listeners,
            seed: 3,
            frame_memory: 1 << 40,
            window_memory: 1 << 41,
            away: 3,
        };
        let mut form = Vec::new();
        settings.put(&mut Sink::record(&mut form));
        let mut rest = Source::record(&form);
        let again = HubSettings::take(&mut rest).unwrap();
        assert_eq!(alloc::format!("{again:?}"), alloc::format!("{settings:?}"));
        assert!(rest.rest().is_empty());
        let mut part = Source::record(&form[..chance.below(form.len() as u64) as usize]);
        assert_eq!(HubSettings::take(&mut part).err(), Some(Damage::Truncated));
    }
}

#[test]
fn every_input_survives_the_round_trip_and_no_truncated_one_decodes() {
    let pool: Vec<u8> = (0..40).collect();
    let mut chance = Random::new(7);
    for _ in 0..20_000 {
        let input = input(&mut chance, &pool);
        let mut form = Vec::new();
        input.put(&mut Sink::record(&mut form));
        let mut rest = Source::record(&form);
        assert_eq!(hub::Input::take(&mut rest), Ok(input));
        assert!(rest.rest().is_empty(), "{input:?}");
        let mut part = Source::record(&form[..chance.below(form.len() as u64) as usize]);
        assert_eq!(hub::Input::take(&mut part), Err(Damage::Truncated), "{input:?}");
    }
}

#[test]
fn unknown_tags_and_illegal_values_are_refused() {
    let take = |bytes: &[u8]| hub::Input::take(&mut Source::record(bytes)).map(|_| ());
    assert_eq!(take(&[0, 9]), Err(Damage::UnknownTag));
    assert_eq!(take(&[0, 2, 2, 2]), Err(Damage::UnknownTag), "a bool is 0 or 1");
    let mut zero_idle = Vec::from([0, 2, 0, 0, 0, 1]);
    zero_idle.extend_from_slice(&[0; 17]);
    assert_eq!(take(&zero_idle), Err(Damage::Policy));
    // An outage of 1 ns would be rounded, and encoded again it would be another.
    let nanosecond = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Patience::take(&mut Source::record(&nanosecond)), Err(Damage::Illegal));
    let cap = |step| Patience::take(&mut Source::record(&[0, 0, step])).map(|found| found.cap());
    assert_eq!((cap(28), cap(29)), (Ok(Cap::NONE), Err(Damage::Illegal)));
}

/// Returns `time` as it is after a state was saved at `saved` and loaded at `loaded`.
fn moved(time: Time, saved: Time, loaded: Time) -> Time {
    let mut form = Vec::new();
    time.put(&mut Sink::state(saved, &mut form));
    Time::take(&mut Source::state(loaded, &form)).unwrap()
}

#[test]
fn a_time_in_a_state_keeps_its_distance_from_now() {
    let at = Time::from_nanos;
    assert_eq!(moved(at(70), at(100), at(1_000)), at(970), "an age");
    assert_eq!(moved(at(170), at(100), at(1_000)), at(1_070), "a time to come");
    assert_eq!(moved(at(0), at(100), at(99)), at(0), "an age before the clock's origin");
    let never = at(u64::MAX);
    assert_eq!(moved(never, at(100), at(7)), never, "a saturated time stays one");
    assert_eq!(moved(at(9), at(100), never), at(u64::MAX - 91));
    assert_eq!(moved(at(109), at(100), never), never);
    let half = u64::MAX / 2;
    assert_eq!(moved(at(half - 1), at(0), at(0)), at(half - 1), "292 years");
    assert_eq!(moved(at(half), at(0), at(0)), never);
    let mut chance = Random::new(3);
    for _ in 0..20_000 {
        let shift = chance.below(63);
        let [time, saved] = [(); 2].map(|()| at(chance.next_u64() >> 2 >> shift));
        assert_eq!(moved(time, saved, saved), time);
        let ahead = Span::from_nanos(chance.next_u64() >> 2);
        assert_eq!(moved(time, saved, saved + ahead), time + ahead);
    }
}

#[test]
fn a_time_in_a_record_keeps_its_value() {
    for nanos in [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
        let mut form = Vec::new();
        Time::from_nanos(nanos).put(&mut Sink::record(&mut form));
        assert_eq!(form, nanos.to_le_bytes());
        assert_eq!(Time::take(&mut Source::record(&form)), Ok(Time::from_nanos(nanos)));
    }
}
