//! Tests of many connections that do not log in: the oldest give way.

use std::num::NonZeroU32;

use super::*;
use systole_core::denial::Denial;
use systole_gateway::bans::Banned;
use systole_gateway::gate::{Gate, GateSettings};
use systole_gateway::identity::Refusal;

const LINKS: u32 = 20;

/// A shard whose links come from addresses that have limits, which are never reached here.
fn with_few_links(setup: &mut ShardSetup) {
    let settings = GateSettings {
        trusted: Vec::new(),
        connections: None,
        half_open: NonZeroU32::MAX,
        per_second: NonZeroU32::MAX,
    };
    setup.max_links = LINKS;
    setup.gate = Some(Gate::new(&settings, 1_000, setup.clock));
}

/// Connects peers that say nothing.
fn silent(running: &Running, count: u32) -> Vec<Native> {
    (0..count).map(|_| running.native()).collect()
}

/// Whether a silent peer was sent away with CLOSE, to come back later.
fn was_sent_away(peer: &mut Native) -> bool {
    peer.next(|frame| match frame {
        Frame::Close(close) => close.reason == CloseReason::Full && close.return_after_ms == 5_000,
        _ => false,
    })
}

#[test]
fn the_oldest_that_have_not_logged_in_give_way_to_newcomers() {
    let mut running = start(Policy::default(), with_few_links);
    let online = running.hello();
    running.join();
    // More than half of the links, of which none gives way before it has had its time.
    let begun = Clock::start();
    let mut first = silent(&running, LINKS / 2);
    // Each newcomer is one too many; all of them log in, however many come.
    let mut newcomers = silent(&running, 1);
    while running.stats.refused[Refusal::Crowded.index()].get() < 5 {
        newcomers.extend(silent(&running, 1));
        let mut client = running.hello();
        client.send(&Frame::Ping(Beat::bare(9)));
        assert!(client.next(|frame| frame == Frame::Pong(Beat::bare(9))));
        assert!(begun.monotonic() < Span::from(PATIENCE), "none gives way");
    }
    assert!(begun.monotonic() >= Span::from_millis(500), "each has its time");
    for peer in &mut first[..5] {
        assert!(was_sent_away(peer) && peer.is_closed(), "the oldest");
    }
    let cause = Cause::Refused(Denial::Crowded);
    running.event(|event| matches!(event, Event::Left(verdict) if verdict.cause == cause));
    drop((online, newcomers));
    running.stop();
}

#[test]
fn silent_peers_give_way_when_sessions_hold_most_of_the_links() {
    let mut running = start(Policy::default(), with_few_links);
    let mut online: Vec<_> = (0..LINKS - 3).map(|_| running.hello()).collect();
    let mut peers = silent(&running, 3);
    // All links are taken; who comes now waits in the kernel until a silent one has had its time.
    for peer in &mut peers {
        online.push(running.hello());
        assert!(was_sent_away(peer));
    }
    assert_eq!(running.stats.refused[Refusal::Crowded.index()].get(), 3);
    running.pause();
    drop(online);
    running.join();
    running.stop();
}

/// Sends a HELLO that is refused; the peer takes the answer, and does not close its side.
fn refused(running: &Running) -> Native {
    let mut peer = running.native();
    peer.send(&Frame::Hello(Hello { identity: "eve", ..Hello::default() }));
    assert!(peer.next(|frame| match frame {
        Frame::Close(close) => close.reason == CloseReason::Kicked,
        _ => false,
    }));
    peer
}

#[test]
fn refused_peers_that_do_not_close_their_side_give_way_when_no_link_is_left() {
    let running = start(Policy::default(), |setup| {
        with_few_links(setup);
        let eve = [Banned::Identity("eve".into())];
        setup.bans.set(&eve, Span::from_secs(3_600), "").unwrap();
    });
    let begun = Clock::start();
    // Another time if the leaves were over before: nothing forces them to take as long here.
    while running.stats.cut_leaves.get() == 0 {
        assert!(begun.monotonic() < Span::from(PATIENCE), "none gives way");
        let mut peers: Vec<_> = (0..LINKS).map(|_| refused(&running)).collect();
        drop(running.hello());
        peers.iter_mut().for_each(|peer| assert!(peer.is_closed()));
    }
    assert_eq!(running.stats.refused[Refusal::Crowded.index()].get(), 0);
    running.stop();
}
