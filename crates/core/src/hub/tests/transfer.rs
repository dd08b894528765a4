//! Links that move from one hub to another, and hubs that are saved and loaded.

use super::*;
use crate::session;
use crate::wire::CloseReason;

/// Two hubs of the same listeners, and the bytes that the peers of links 0 to 2 have got.
struct Pair {
    hubs: [Driver<Hub>; 2],
    home: [usize; 3],
    sent: [Vec<u8>; 3],
    lost: [Option<Cause>; 3],
    state: Option<Vec<u8>>,
}

/// The numbers of the links, far apart, so that a sweep meets them in different steps.
const LINKS: [u32; 3] = [0, 5_000, 9_000];

const MESSAGE: HubCommand<'_> =
    HubCommand::Send { listener: None, bytes: b"all", kind: DataKind::Eleven };

impl Pair {
    /// Makes two hubs; all links begin at the first.
    fn new() -> Pair {
        let policy = Policy::default();
        let hubs = [hub(policy), hub(policy)];
        let mut pair =
            Pair { hubs, home: [0; 3], sent: Default::default(), lost: [None; 3], state: None };
        for link in LINKS {
            open(&mut pair.hubs[0], link, 0);
        }
        pair.drain();
        pair.sent = Default::default();
        pair
    }

    fn command(&mut self, hub: usize, command: HubCommand<'_>) {
        self.hubs[hub].handle(Time::ZERO, World::Command(command));
        self.drain();
    }

    /// Saves and loads a hub, and performs one step of its sweeps.
    fn step(&mut self, hub: usize) {
        reload(&mut self.hubs[hub]);
        self.hubs[hub].expire(Time::ZERO, Time::ZERO);
        self.drain();
    }

    fn steps(&mut self) {
        for _ in 0..20 {
            self.step(0);
            self.step(1);
        }
    }

    /// Moves a link to the other hub.
    fn transfer(&mut self, index: usize) {
        let link = LINKS[index];
        let from = self.home[index];
        self.hubs[from].handle(Time::ZERO, World::HandOver { link });
        self.drain();
        let Some(state) = self.state.take() else { return };
        self.home[index] = 1 - from;
        self.hubs[1 - from].handle(Time::ZERO, World::TakenOver { link, state: &state });
        self.drain();
    }

    fn drain(&mut self) {
        for hub in &mut self.hubs {
            while let Some(output) = hub.poll_output() {
                let index = LINKS.iter().position(|link| Some(*link) == output.link()).unwrap();
                match output {
                    Output::HandedOver { state, .. } => self.state = Some(state.to_vec()),
                    Output::Link { output: link::Output::Transmit { bytes, .. }, .. } => {
                        self.sent[index].extend_from_slice(bytes);
                    }
                    Output::Link {
                        output: link::Output::Session(session::Event::Left(verdict)),
                        ..
                    } => self.lost[index] = Some(verdict.cause),
                    Output::Resume { .. } | Output::Session { .. } => panic!("nobody is away"),
                    Output::Link { .. }
                    | Output::Admit { .. }
                    | Output::Own { .. }
                    | Output::GoHome { .. } => {}
                }
            }
        }
    }
}

/// Saves a hub, and goes on with a new one.
fn reload(hub: &mut Driver<Hub>) {
    let line = link::Settings::new(Codec::Line, Side::Accepting, Policy::default());
    let listeners = Vec::from([line.clone(), line]);
    let settings = super::super::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners,
        seed: 42,
        frame_memory: FRAME_MEMORY,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    };
    hub.reload(Time::ZERO, Hub::new(settings)).unwrap();
}

#[test]
fn a_message_for_all_links_reaches_one_that_moves_once() {
    // The first hub gets the message before or after the second, and the link moves at any step.
    for (first, steps_before, steps_between) in [0, 1]
        .into_iter()
        .flat_map(|hub| (0..4).flat_map(move |a| (0..4).map(move |b| (hub, a, b))))
    {
        for index in 0..LINKS.len() {
            let case = (first, steps_before, steps_between, index);
            let mut pair = Pair::new();
            pair.command(first, MESSAGE);
            (0..steps_before).for_each(|_| pair.step(first));
            pair.transfer(index);
            pair.command(1 - first, MESSAGE);
            (0..steps_between).for_each(|_| pair.step(1 - first));
            pair.transfer(index);
            pair.transfer(index);
            pair.steps();
            // A hub without links is through with its sweep at once: see `catch_up`.
            let may_miss = first == 1 && steps_before > 0;
            for (of, sent) in pair.sent.iter().enumerate() {
                let missed = may_miss && of == index && sent.is_empty();
                assert!(missed || sent == b"all\n", "{case:?}: link {of} got {sent:?}");
            }
        }
    }
}

#[test]
fn a_retune_and_a_drain_reach_a_link_that_moves_between_two_hubs() {
    for first in [0, 1] {
        for steps in 0..4 {
            let mut pair = Pair::new();
            let policy = Policy::demanding();
            pair.command(first, HubCommand::Retune { listener: 0, policy });
            (0..steps).for_each(|_| pair.step(first));
            pair.transfer(1);
            pair.command(1 - first, HubCommand::Retune { listener: 0, policy });
            pair.steps();
            let hub = pair.hubs[pair.home[1]].machine();
            assert_eq!(*hub.presence(LINKS[1]).unwrap().policy, policy, "{first} {steps}");

            let (limit, reconnect_within) = (Span::from_secs(1), Span::ZERO);
            let drain = HubCommand::Drain { limit, reconnect_within };
            pair.command(first, drain);
            (0..steps).for_each(|_| pair.step(first));
            pair.transfer(1);
            pair.command(1 - first, drain);
            pair.steps();
            assert_eq!(pair.lost, [Some(Cause::Drained); 3], "{first} {steps}");
        }
    }
}

#[test]
fn a_drain_reaches_a_link_from_a_hub_with_a_command_that_the_other_never_received() {
    let (limit, reconnect_within) = (Span::from_secs(1), Span::ZERO);
    let drain = HubCommand::Drain { limit, reconnect_within };
    // The link moves before or after its new hub has begun to drain.
    for before in [true, false] {
        let mut pair = Pair::new();
        pair.command(0, HubCommand::Retune { listener: 0, policy: Policy::demanding() });
        pair.steps();
        if before {
            pair.transfer(1);
        }
        pair.command(1, drain);
        pair.steps();
        if !before {
            pair.transfer(1);
        }
        assert_eq!(pair.lost, [None, Some(Cause::Drained), None], "{before}");
    }
}

#[test]
fn a_session_is_found_where_its_link_is_and_counted_once() {
    let mut pair = Pair::new();
    let session = pair.hubs[0].machine().presence(LINKS[1]).unwrap().session;
    let epoch = pair.hubs[0].machine().presence(LINKS[1]).unwrap().epoch;
    for _ in 0..3 {
        pair.transfer(1);
        let [here, there] = [pair.home[1], 1 - pair.home[1]].map(|hub| pair.hubs[hub].machine());
        assert_eq!((here.find(session), there.find(session)), (Some(LINKS[1]), None));
        assert_eq!(here.presence(LINKS[1]).map(|known| known.epoch), Some(epoch));
        assert!(there.presence(LINKS[1]).is_none());
        let counts = [here, there].map(|hub| (hub.counters().links, hub.counters().online));
        assert_eq!(
            counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1)),
            (3, 3)
        );
        assert!(here.ahead.is_empty(), "without commands there is nothing to remember");
    }
}

#[test]
fn a_link_that_goes_is_known_until_its_last_event_is_polled() {
    let mut pair = Pair::new();
    let [hub, _] = &mut pair.hubs;
    let policy = Policy::demanding();
    hub.handle(Time::ZERO, World::Command(HubCommand::Retune { listener: 0, policy }));
    hub.handle(Time::ZERO, World::HandOver { link: LINKS[1] });
    let mut events = Vec::new();
    while let Some(output) = hub.poll_output() {
        let event = match output {
            Output::Link { output: link::Output::Session(session::Event::Retuned(_)), .. } => {
                "retuned"
            }
            Output::HandedOver { .. } => "handed over",
            Output::Resume { .. } | Output::Session { .. } => panic!("nobody is away"),
            Output::Link { .. }
            | Output::Admit { .. }
            | Output::Own { .. }
            | Output::GoHome { .. } => continue,
        };
        events.push((event, hub.machine().presence(LINKS[1]).is_some()));
    }
    assert_eq!(events, [("retuned", true), ("handed over", false)]);
    assert_eq!(hub.machine().counters().links, 2);
}

#[test]
fn the_frame_of_a_link_that_moves_counts_at_its_new_hub() {
    let mut pair = Pair::new();
    let bytes = link::World::Received(b"half a line");
    pair.hubs[0].handle(Time::ZERO, World::Link { link: LINKS[2], input: bytes });
    let memory = |pair: &Pair| [0, 1].map(|hub| pair.hubs[hub].machine().counters().frame_bytes);
    let held = memory(&pair)[0];
    assert!(held > 0);
    pair.transfer(2);
    assert_eq!(memory(&pair), [0, held]);
    let rest = link::World::Received(b" and the rest\n");
    pair.hubs[1].handle(Time::ZERO, World::Link { link: LINKS[2], input: rest });
    assert_eq!(memory(&pair), [0, 0]);
}

#[test]
fn a_frame_that_arrives_may_be_the_one_that_gives_way() {
    let mut hubs = [10_000, 100].map(|memory| with_frame_memory(Policy::default(), memory));
    open(&mut hubs[0], 1, 0);
    drain(&mut hubs[0]);
    let bytes = [b'x'; 200];
    let input = link::World::Received(&bytes);
    hubs[0].handle(Time::ZERO, World::Link { link: 1, input });
    hubs[0].handle(Time::ZERO, World::HandOver { link: 1 });
    let Some(Output::HandedOver { state, .. }) = hubs[0].poll_output() else { panic!("no state") };
    let state = state.to_vec();
    hubs[1].handle(Time::ZERO, World::TakenOver { link: 1, state: &state });
    assert_eq!(hubs[1].machine().counters().frames_dropped, 1);
    assert_eq!(drain(&mut hubs[1]).0.get("protocol"), Some(&1));
}

#[test]
fn a_state_that_cannot_be_used_closes_its_connection() {
    let mut pair = Pair::new();
    pair.hubs[0].handle(Time::ZERO, World::HandOver { link: LINKS[1] });
    pair.drain();
    let state = pair.state.take().unwrap();
    let closes = |hub: &mut Driver<Hub>, link, state: &[u8]| {
        hub.handle(Time::ZERO, World::TakenOver { link, state });
        let close = link::Output::Close(Closing::Abort);
        let output = hub.poll_output();
        assert_eq!(output, Some(Output::Link { link, output: close }));
        assert!(hub.poll_output().is_none());
    };
    closes(&mut pair.hubs[0], LINKS[0], &state);
    closes(&mut pair.hubs[0], MAX_LINKS, &state);
    for length in 0..state.len() {
        closes(&mut pair.hubs[0], LINKS[1], &state[..length]);
    }
    assert_eq!(pair.hubs[0].machine().counters().links, 2);
    // A second session of this number cannot be: the link is sent away.
    pair.hubs[0].handle(Time::ZERO, World::TakenOver { link: LINKS[1], state: &state });
    pair.drain();
    assert_eq!(pair.lost, [None; 3]);
    pair.hubs[0].handle(Time::ZERO, World::TakenOver { link: 7, state: &state });
    let (lost, _) = drain(&mut pair.hubs[0]);
    assert_eq!(lost.get("finished"), Some(&1), "{lost:?}");
    pair.hubs[0].handle(Time::ZERO, World::HandOver { link: 4_711 });
    assert!(pair.hubs[0].poll_output().is_none(), "no such link");
}

#[test]
fn a_link_that_waits_for_its_admission_asks_its_new_hub_in_the_time_that_is_left() {
    let native = link::Settings::new(Codec::Line, Side::Accepting, Policy::default());
    let mut hubs = [(); 2].map(|()| driver(Vec::from([native.clone()]), 42));
    hubs[0].handle(Time::ZERO, World::Opened { link: 1, listener: 0, address: ADDRESS });
    let first = link::World::Received(b"hello\n");
    hubs[0].handle(Time::ZERO, World::Link { link: 1, input: first });
    drain(&mut hubs[0]);
    let due = hubs[0].machine().presence(1).unwrap().next_deadline.unwrap();
    assert_eq!(due.reason, Reason::Admission);
    // The second clock is ten seconds ahead, and three seconds pass.
    let (left, arrives) = (Time::from_millis(3_000), Time::from_millis(13_000));
    hubs[0].handle(left, World::HandOver { link: 1 });
    let Some(Output::HandedOver { state, .. }) = hubs[0].poll_output() else { panic!("no state") };
    let state = state.to_vec();
    hubs[1].handle(arrives, World::TakenOver { link: 8, state: &state });
    let Some(Output::Admit { link: 8, admission }) = hubs[1].poll_output() else {
        panic!("no wish")
    };
    let now_due = hubs[1].machine().presence(8).unwrap().next_deadline.unwrap();
    assert_eq!(now_due.at.since(arrives), due.at.since(left));
    let denied = CloseReason::Unauthorized.into();
    hubs[1].handle(arrives, World::Refused { link: 8, admission, denied });
    assert_eq!(drain(&mut hubs[1]).0.get("unauthorized"), Some(&1));
}

#[test]
fn a_hub_that_is_loaded_goes_on_with_its_commands_for_all_links() {
    let mut hub = hub(Policy::default());
    LINKS.into_iter().for_each(|link| open(&mut hub, link, 0));
    drain(&mut hub);
    let policy = Policy::demanding();
    let (limit, reconnect_within) = (Span::from_secs(7), Span::ZERO);
    hub.handle(Time::ZERO, World::Command(MESSAGE));
    hub.handle(Time::ZERO, World::Command(HubCommand::Retune { listener: 0, policy }));
    hub.handle(Time::ZERO, World::Command(HubCommand::ReportHeartbeats(true)));
    let mut sent = Vec::new();
    for _ in 0..9 {
        reload(&mut hub);
        hub.expire(Time::ZERO, Time::ZERO);
        sent.extend(drain(&mut hub).1);
    }
    assert_eq!(sent, b"all\n".repeat(3));
    assert!(hub.machine().presences(0, usize::MAX).all(|known| *known.policy == policy));
    assert!(hub.machine().listeners().iter().all(|settings| settings.report_heartbeats));
    assert_eq!(hub.machine().listeners()[0].policy, policy);
    hub.handle(Time::ZERO, World::Command(HubCommand::Drain { limit, reconnect_within }));
    reload(&mut hub);
    assert_eq!(hub.machine().leave_limit(), limit);
    assert_eq!(run(&mut hub, Time::from_millis(1)).get("drained"), Some(&3));
    reload(&mut hub);
    open(&mut hub, 3, 0);
    assert_eq!(drain(&mut hub).0.get("drained"), Some(&1), "a link that opens during a drain");
}

#[test]
fn a_state_of_other_settings_is_refused_and_the_hub_goes_on() {
    let mut hub = hub(Policy::default());
    open(&mut hub, 0, 0);
    drain(&mut hub);
    let native = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
    for listeners in [Vec::new(), Vec::from([native.clone(), native])] {
        let settings = super::super::Settings {
            shard: 0,
            homes: Homes::SINGLE,
            listeners,
            seed: 42,
            frame_memory: FRAME_MEMORY,
            window_memory: WINDOW_MEMORY,
            away: AWAY_SESSIONS,
        };
        assert!(hub.reload(Time::ZERO, Hub::new(settings)).is_err());
        assert_eq!(hub.machine().counters().links, 1);
    }
}
