//! Tests of peers that go to the home of their identity.

use std::thread;

use super::*;

/// The number of shards.
const SHARDS: usize = 3;

/// Starts shards that know one another, each with a listener of its own.
fn shards(logins: Logins) -> Vec<Running> {
    let doors: Vec<Door> = (0..SHARDS).map(|_| Door::new().unwrap()).collect();
    let siblings: Arc<[Arrivals]> = doors.iter().map(|door| door.arrivals().clone()).collect();
    let epochs = Arc::default();
    let clock = Clock::start();
    let start = |(index, door)| {
        start_behind(door, Policy::default(), |setup| {
            setup.index = index;
            setup.homes = Homes { shards: SHARDS as u16, key: 7 };
            setup.siblings = Arc::clone(&siblings);
            setup.epochs = Arc::clone(&epochs);
            setup.clock = clock;
            for listener in &mut setup.listeners {
                listener.settings.logins = logins;
            }
        })
    };
    (0..).zip(doors).map(start).collect()
}

/// Sends a HELLO in pieces, and returns the answer: the session, or the reason of CLOSE.
fn log_in(
    running: &Running,
    identity: &str,
    pieces: usize,
) -> (Native, Result<u64, Close<'static>>) {
    let mut native = running.native();
    let mut bytes = Vec::new();
    Codec::Native.encode(&Frame::Hello(Hello { identity, ..hello() }), &mut bytes);
    for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
        native.stream.write_all(piece).unwrap();
    }
    let mut answer = None;
    native.next(|frame| {
        answer = match frame {
            Frame::Welcome(welcome) => Some(Ok(welcome.session)),
            Frame::Close(close) => Some(Err(Close { text: "", ..close })),
            _ => None,
        };
        answer.is_some()
    });
    (native, answer.unwrap())
}

#[test]
fn each_identity_has_one_home_wherever_its_peers_arrive() {
    let shards = shards(Logins { limit: 3, ..Logins::NEWEST });
    let homes = Homes { shards: SHARDS as u16, key: 7 };
    thread::scope(|scope| {
        for worker in 0..4 {
            let shards = &shards;
            scope.spawn(move || {
                for index in 0..40 {
                    let identity = format!("user-{worker}-{index}");
                    let peers: Vec<_> = shards
                        .iter()
                        .map(|shard| log_in(shard, &identity, 1 + index % 5))
                        .collect();
                    for (native, session) in peers {
                        let session = session.unwrap();
                        assert_eq!(session >> 56, u64::from(homes.of(&identity)), "{identity}");
                        assert_eq!(echo(native), b"hello");
                    }
                }
            });
        }
    });
    shards.into_iter().for_each(Running::stop);
}

/// Sends a message, and returns its echo.
fn echo(mut native: Native) -> Vec<u8> {
    native.send(&Frame::data(b"hello", false, DataKind::Eleven));
    let mut echo = Vec::new();
    native.next(|frame| {
        if let Frame::Data { bytes, .. } = frame {
            echo.extend_from_slice(bytes);
        }
        !echo.is_empty()
    });
    echo
}

#[test]
fn a_newer_login_takes_the_place_of_the_older_one_at_another_shard() {
    let shards = shards(Logins::NEWEST);
    for round in 0..20 {
        let identity = format!("user-{round}");
        let (mut old, session) = log_in(&shards[round % SHARDS], &identity, 1);
        session.unwrap();
        let (new, session) = log_in(&shards[(round + 1) % SHARDS], &identity, 1);
        session.unwrap();
        assert!(old.next(|frame| {
            matches!(frame, Frame::Close(Close { reason: CloseReason::Replaced, final_: true, .. }))
        }));
        assert_eq!(echo(new), b"hello");
    }
    // An identity that is not claimed is nobody's.
    let (first, _) = log_in(&shards[0], "", 1);
    let (second, _) = log_in(&shards[1], "", 1);
    assert_eq!((echo(first), echo(second)), (b"hello".to_vec(), b"hello".to_vec()));
    shards.into_iter().for_each(Running::stop);
}

#[test]
fn a_home_that_is_full_sends_its_peers_away_for_a_moment() {
    // The home is never started, and takes no link.
    let (own, home) = (Door::new().unwrap(), Door::new().unwrap());
    let siblings = Arc::from([own.arrivals().clone(), home.arrivals().clone()]);
    let homes = Homes { shards: 2, key: 7 };
    let running = start_behind(own, Policy::default(), |setup| {
        setup.homes = homes;
        setup.siblings = siblings;
        setup.max_links = 2_000;
    });
    let identity = (0..).map(|index| format!("user-{index}")).find(|it| homes.of(it) == 1).unwrap();
    let mut bytes = Vec::new();
    Codec::Native.encode(&Frame::Hello(Hello { identity: &identity, ..hello() }), &mut bytes);
    let mut waiting = Vec::new();
    let close = loop {
        let mut native = running.native();
        native.stream.write_all(&bytes).unwrap();
        native.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut start = [0; 64];
        match native.stream.peek(&mut start) {
            // It is on its way.
            Err(_) => waiting.push(native),
            Ok(_) => {
                native.stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut close = None;
                native.next(|frame| {
                    if let Frame::Close(found) = frame {
                        close = Some((found.reason, found.final_, found.return_after_ms));
                    }
                    close.is_some()
                });
                break close.unwrap();
            }
        }
        if waiting.len() == 10 {
            // Enough of those that wait in vain: the rest is sent without a look.
            for _ in 0..systole_gateway::request::ARRIVALS - 10 {
                let mut native = running.native();
                native.stream.write_all(&bytes).unwrap();
                waiting.push(native);
            }
        }
    };
    assert_eq!(close, (CloseReason::Full, false, 1_000));
    // Others are served as always.
    let (native, session) = log_in(&running, "", 1);
    session.unwrap();
    assert_eq!(echo(native), b"hello");
    running.stop();
}
