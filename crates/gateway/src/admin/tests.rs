//! Tests of the admin API with simulated shards: threads without sockets or clocks.

mod away;
mod bans;
mod document;
mod left_behind;
mod reach;
mod secure;
mod strangers;
mod why;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request as HttpRequest, header};
use axum::response::Response;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use mio::{Poll, Token as MioToken};
use serde_json::{Value, json};
use systole_core::flight::Flight;
use systole_core::{Policy, Span, Time, hub, session};
use systole_net::Clock;
use tower::ServiceExt;

use super::document::document;
use super::*;
use crate::bans::Banned;
use crate::config::Log;
use crate::events::{Events, Names, PolicyInfo};
use crate::gateway::{Lifecycle, ListenerState, ShardUnavailable};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::report::{AwayInfo, Fact, PauseReason, SessionInfo, Shown, Subject, session_text};
use crate::request::{
    Delivered, Filter, Order, Page, REQUESTS, Request, Requests, SessionsOf, Story, Target,
};
use crate::stats::Distributions;
use crate::stats::ShardStats;
use crate::wake::{WakeUps, wake_ups};

/// Number of sessions of each simulated shard; they use the links 0, 1 and so on.
const SESSIONS: u32 = 7;

/// The link of a session that is a device of the listener `beacon`.
const BEACON_LINK: u32 = 6;

/// A record of the orders and commands that the simulated shards received.
type Received = Arc<Mutex<Vec<String>>>;

/// A gateway with two simulated shards.
struct Fixture {
    gateway: Arc<Gateway>,
    stats: Vec<Arc<ShardStats>>,
    received: Received,
    api: Api,
    _polls: Vec<(Poll, WakeUps)>,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(None, 2)
    }

    fn with(token: Option<Token>, subscribers: usize) -> Fixture {
        Fixture::adjusted(token, subscribers, |gateway| gateway)
    }

    fn adjusted(
        token: Option<Token>,
        subscribers: usize,
        adjust: impl FnOnce(Gateway) -> Gateway,
    ) -> Fixture {
        let received = Received::default();
        let mut polls = Vec::new();
        let mut start = |shard: u64| {
            let (requests, receiver) = connect(&mut polls);
            let received = received.clone();
            std::thread::spawn(move || simulate_shard(shard, &receiver, &received));
            requests
        };
        let shards = vec![start(0), start(1)];
        let stats = vec![Arc::default(), Arc::default()];
        let gateway = Arc::new(adjust(gateway(shards, stats.clone())));
        let api = Api::new(gateway.clone(), token, subscribers);
        Fixture { gateway, stats, received, api, _polls: polls }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let body = body.map_or(String::new(), |body| body.to_string());
        let request = HttpRequest::builder().method(method).uri(path).body(Body::from(body));
        self.request(request.unwrap()).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, None).await
    }

    async fn respond(&self, request: HttpRequest<Body>) -> Response {
        respond(&self.api, request).await
    }

    async fn request(&self, request: HttpRequest<Body>) -> (StatusCode, Value) {
        let response = self.respond(request).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Returns what the shards received since the last call.
    fn take_received(&self) -> Vec<String> {
        std::mem::take(&mut *self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn events(&self, last: Option<&str>) -> Frames {
        self.events_of("/api/v1/events", last).await
    }

    async fn events_of(&self, path: &str, last: Option<&str>) -> Frames {
        let mut request = HttpRequest::builder().uri(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.respond(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Frames { stream: response.into_body().into_data_stream(), text: String::new() }
    }

    fn join(&self, session: u64) {
        let subject = Subject {
            session,
            epoch: 1,
            identity: "anna".into(),
            listener: 0,
            address: address(),
            boot_id: Default::default(),
            instance_id: Default::default(),
            established: true,
        };
        let event = session::Event::Joined { policy: Policy::default(), account: None };
        self.gateway.note(Fact::new(5, subject, event));
        self.gateway.events().wake();
    }
}

/// Answers a request as the server does: on a connection that holds a place.
async fn respond(api: &Api, mut request: HttpRequest<Body>) -> Response {
    let (place, _) = api.places.open(address().ip());
    request.extensions_mut().insert(place);
    api.router.clone().oneshot(request).await.unwrap()
}

fn connect(polls: &mut Vec<(Poll, WakeUps)>) -> (Requests, Receiver<Request>) {
    let poll = Poll::new().unwrap();
    let (waker, wake_ups) = wake_ups(poll.registry(), MioToken(0)).unwrap();
    polls.push((poll, wake_ups));
    let (sender, receiver) = sync_channel(REQUESTS);
    (Requests::new(sender, waker), receiver)
}

/// Connects a shard whose queue of requests is full.
fn connect_busy(polls: &mut Vec<(Poll, WakeUps)>) -> (Requests, Receiver<Request>) {
    let (busy, blocked) = connect(polls);
    for _ in 0..REQUESTS {
        busy.send(Request::StopAccepting).unwrap();
    }
    (busy, blocked)
}

fn gateway(shards: Vec<Requests>, stats: Vec<Arc<ShardStats>>) -> Gateway {
    let listeners = ["native", "line", "beacon"]
        .map(|name| ListenerState::new(name.into(), name_of(name), address(), Policy::default()));
    let names = Names {
        listeners: listeners.iter().map(|listener| listener.name.clone()).collect(),
        descriptors: Some(1_024),
        max_links: 10,
        links_by_descriptors: false,
    };
    let logs = Logs::detached(&Log::default());
    let (clock, none) = (Clock::start(), Vec::new());
    let metrics = Metrics::new(stats.clone(), none, &Distributions::default(), clock, logs.clone());
    let events = Events::new(16, 0xa, names);
    Gateway::new(shards, stats, listeners.into(), events, metrics, logs)
}

fn name_of(name: &str) -> &'static str {
    match name {
        "line" => "line",
        "beacon" => crate::config::BEACON,
        _ => "native",
    }
}

fn address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 4_711))
}

fn id(shard: u64, link: u32) -> String {
    session_text(shard << 56 | u64::from(link))
}

fn sessions_of(shard: u64, identity: &str, limit: usize) -> SessionsOf {
    let all = (0..SESSIONS).map(|link| info(shard, link));
    let mut found = all.filter(|info| info.identity == *identity);
    let shown: Vec<_> = found.by_ref().take(limit).collect();
    let away = AWAY_LINKS.map(|link| away_info(shard, link));
    let away = away.filter(|info| info.identity == *identity).collect();
    SessionsOf { shown, away, more: found.count() as u64 }
}

/// The places of the sessions of each simulated shard that are away.
const AWAY_LINKS: std::ops::Range<u32> = 100..102;

fn away_of(session: u64) -> Option<u32> {
    Some(u32::try_from(session & 0xff_ffff).unwrap()).filter(|link| AWAY_LINKS.contains(link))
}

fn away_info(shard: u64, link: u32) -> AwayInfo {
    AwayInfo {
        session: id(shard, link),
        epoch: "9".to_owned(),
        // The first of a shard has an identity of its own.
        identity: if link == AWAY_LINKS.start { format!("gone-{shard}") } else { "away".into() },
        listener: 0,
        address: away_address(),
        since_ms: 60_000,
        ends_in_ms: 25_000,
        cause: "peer_exited",
        waiting: 3,
        attributes: Default::default(),
    }
}

fn away_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, 9), 4_711))
}

fn away_story(shard: u64, link: u32) -> Story {
    let session::Event::Left(verdict) = crate::report::tests::left(1).event else {
        panic!("no leave")
    };
    let away = Some((verdict, away_info(shard, link)));
    let story = story(shard, link);
    let subject = Subject { address: away_address(), ..story.subject };
    Story { away, subject, flight: None, ..story }
}

fn shown_away(shard: u64, session: u64) -> Option<Shown> {
    away_of(session).map(|link| Shown::Away(away_info(shard, link).into()))
}

/// A page with one session that is away.
fn away_page(shard: u64, from: u32, filter: &Filter) -> Page {
    let link = from.max(AWAY_LINKS.start);
    let info = AWAY_LINKS.contains(&link).then(|| away_info(shard, link));
    let away = info.into_iter().filter(|info| {
        filter.banned.as_ref().is_none_or(|banned| match banned {
            Banned::Identity(identity) => **identity == *info.identity,
            Banned::Device(_) => false,
            Banned::Address(origin) => *origin == info.address.ip().into(),
        })
    });
    let next = Some(link + 1).filter(|link| AWAY_LINKS.contains(link));
    Page { sessions: Vec::new(), away: away.collect(), next }
}

/// Returns the sessions of a shard that match.
fn page(shard: u64, from: u32, limit: usize, filter: &Filter) -> Page {
    if filter.away {
        return away_page(shard, from, filter);
    }
    // Examines at most four links per request.
    let all = (from..SESSIONS).take(4).map(|link| info(shard, link));
    let found = all.filter(|info| {
        filter.identity.as_ref().is_none_or(|wanted| *wanted == info.identity)
            && filter.listener.is_none_or(|wanted| wanted == info.listener)
            && filter.suspect.is_none_or(|wanted| wanted == info.suspect)
            && filter.banned.as_ref().is_none_or(|banned| match banned {
                Banned::Identity(identity) => **identity == *info.identity,
                Banned::Device(_) => false,
                Banned::Address(origin) => *origin == info.address.ip().into(),
            })
    });
    let sessions: Vec<_> = found.take(limit).collect();
    let searched = if sessions.len() == limit {
        let last = u64::from_str_radix(&sessions[limit - 1].session, 16).unwrap();
        u32::try_from(last & 0xff_ffff).unwrap() + 1
    } else {
        from + 4
    };
    let next = (searched < SESSIONS).then_some(searched);
    Page { sessions, away: Vec::new(), next }
}

/// Answers requests as a shard does. The session of link n is number n of the shard.
fn simulate_shard(shard: u64, requests: &Receiver<Request>, received: &Received) {
    let note = |what: String| received.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    let link_of = |session: u64| {
        let link = u32::try_from(session & 0xff_ffff).unwrap();
        (link < SESSIONS).then_some(link)
    };
    while let Ok(request) = requests.recv() {
        match request {
            Request::Sessions { from, limit, filter, reply } => {
                let _ = reply.send(page(shard, from, limit, &filter));
            }
            Request::Session { session, reply } => {
                let _ = reply.send(
                    link_of(session)
                        .map(|link| Shown::Online(info(shard, link).into()))
                        .or(shown_away(shard, session)),
                );
            }
            Request::Sibling { reply, .. } => {
                let _ = reply.send(None);
            }
            Request::Story { session, reply } => {
                let online = link_of(session).map(|link| Box::new(story(shard, link)));
                let away = away_of(session).map(|link| Box::new(away_story(shard, link)));
                let _ = reply.send(online.or(away));
            }
            Request::Order { session, order, reply } => {
                note(format!("{shard}: {order:?} {session:x}"));
                let _ = reply.send(link_of(session).is_some());
            }
            Request::Deliver { to, message, claim, reply } => {
                assert!(claim.take(), "its caller waits");
                note(format!("{shard}: {to:?} {}", String::from_utf8_lossy(&message)));
                // In two steps.
                let next = matches!(to, Target::All { from: 0, .. }).then_some(5);
                let queued = match to {
                    Target::Session(session) => u64::from(link_of(session).is_some()),
                    Target::Identity(identity) => (0..SESSIONS)
                        .filter(|link| info(shard, *link).identity == *identity)
                        .count() as u64,
                    Target::All { .. } => 1,
                };
                let _ = reply.send(Delivered { queued, next, ..Delivered::default() });
            }
            Request::Identities { identities, limit, reply } => {
                let find = |wanted: &Arc<str>| sessions_of(shard, wanted, limit);
                let _ = reply.send(identities.iter().map(find).collect());
            }
            Request::Move { reply, .. } => {
                let _ = reply.send(false);
            }
            Request::LoggedIn(_) => {}
            Request::Command(command) => note(format!("{shard}: {command:?}")),
            Request::StopAccepting => note(format!("{shard}: stop accepting")),
            Request::Stop => return,
        }
    }
}

fn info(shard: u64, link: u32) -> SessionInfo {
    SessionInfo {
        attributes: Default::default(),
        session: id(shard, link),
        epoch: "9".to_owned(),
        identity: format!("user-{}", link % 3),
        listener: if link == BEACON_LINK { 2 } else { u16::try_from(link % 2).unwrap() },
        address: address(),
        since_ms: 1,
        last_heard_ago_ms: 2,
        last_sent_ago_ms: 3,
        rtt_us: None,
        suspect: link == 5,
        held_for_ms: None,
        policy: PolicyInfo::new(&Policy::default()),
    }
}

fn story(shard: u64, link: u32) -> Story {
    let subject = Subject {
        boot_id: Default::default(),
        instance_id: Default::default(),
        session: shard << 56 | u64::from(link),
        epoch: 9,
        identity: format!("user-{}", link % 3).into(),
        listener: u16::try_from(link % 2).unwrap(),
        address: address(),
        established: true,
    };
    let now = Time::from_millis(3_000);
    Story {
        subject,
        suspect: link == 5,
        flight: Some(Flight::new(Time::ZERO)),
        away: None,
        now,
        wall_ms: 90_000,
    }
}

/// A reader of server-sent events.
struct Frames {
    stream: BodyDataStream,
    text: String,
}

impl Frames {
    /// Returns name, id and data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        while !self.text.contains("\n\n") {
            let more = tokio::time::timeout(Duration::from_secs(10), self.stream.next()).await;
            let more = more.expect("an event in time")?.unwrap();
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
        let (frame, rest) = self.text.split_once("\n\n").unwrap();
        let field = |name: &str| {
            let found = frame.lines().find_map(|line| line.strip_prefix(name));
            found.unwrap_or("").to_owned()
        };
        let event = (field("event: "), field("id: "), field("data: "));
        self.text = rest.to_owned();
        Some((event.0, event.1, serde_json::from_str(&event.2).unwrap()))
    }

    async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(self.next().await.unwrap().0);
        }
        names
    }
}

#[tokio::test]
async fn pages_cross_shards_and_list_each_session_once() {
    let fixture = Fixture::new();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for page in 0.. {
        assert!(page < 10, "the end is never reached");
        let (status, body) = fixture.get(&format!("/api/v1/sessions?limit=3{cursor}")).await;
        assert_eq!(status, StatusCode::OK);
        let sessions = body["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 3);
        seen.extend(sessions.iter().map(|one| one["session"].as_str().unwrap().to_owned()));
        match body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let all = (0..2).flat_map(|shard| (0..SESSIONS).map(move |link| id(shard, link)));
    assert_eq!(seen, all.collect::<Vec<_>>());
}

#[tokio::test]
async fn filters_are_forwarded_to_the_shards() {
    let fixture = Fixture::new();
    for (query, count) in [
        ("identity=user-2", 4),
        ("listener=line", 6),
        ("suspect=true", 2),
        ("suspect=false&listener=native&identity=user-0", 2),
        ("identity=nobody", 0),
    ] {
        let (_, body) = fixture.get(&format!("/api/v1/sessions?{query}")).await;
        assert_eq!(body["sessions"].as_array().unwrap().len(), count, "{query}");
        assert_eq!(body.get("next"), None, "{query}");
    }
}

#[tokio::test]
async fn bad_requests_get_an_error_with_a_hint() {
    let fixture = Fixture::new();
    let policy = "/api/v1/listeners/native/policy";
    for (method, path, body, expected) in [
        (Method::GET, "/api/v1/sessions?limit=0", None, 400),
        (Method::GET, "/api/v1/sessions?limit=501", None, 400),
        (Method::GET, "/api/v1/sessions?limit=x", None, 400),
        (Method::GET, "/api/v1/sessions?colour=red", None, 400),
        (Method::GET, "/api/v1/sessions?cursor=zz", None, 400),
        (Method::GET, "/api/v1/sessions?listener=none", None, 404),
        (Method::GET, "/api/v1/sessions/7", None, 400),
        (Method::GET, "/api/v1/sessions/zz", None, 400),
        (Method::GET, "/api/v1/sessions/%1b[2J/why", None, 400),
        (Method::DELETE, "/api/v1/sessions/zz", None, 400),
        (Method::POST, "/api/v1/sessions/zz/hold", Some(json!({"seconds": 1})), 400),
        (Method::GET, "/api/v1/sessions/ff00000000000000", None, 404),
        (Method::DELETE, "/api/v1/sessions/0000000000ffffff", None, 404),
        (Method::POST, "/api/v1/sessions/0000000000000000/hold", Some(json!({})), 400),
        (Method::POST, "/api/v1/sessions/0000000000000000/hold", Some(json!({"seconds": 0})), 400),
        (Method::PUT, policy, Some(json!({"idle": 3})), 400),
        (Method::PUT, "/api/v1/listeners/none/policy", Some(json!({"probes": 3})), 404),
        (Method::PUT, "/api/v1/log", Some(json!({"level": "loud"})), 400),
        (Method::GET, "/api/v2/sessions", None, 404),
        (Method::PUT, "/api/v1/sessions", None, 405),
        (Method::PUT, policy, Some(json!({"preset": "x".repeat(MAX_BODY)})), 413),
    ] {
        let (status, answer) = fixture.send(method.clone(), path, body).await;
        assert_eq!(status.as_u16(), expected, "{method} {path} {answer}");
        assert!(answer["error"].is_string() && answer["hint"].is_string(), "{answer}");
    }
    assert_eq!(fixture.take_received().len(), 1, "only the order to a session that is not online");
}

#[tokio::test]
async fn the_policy_of_one_device_cannot_be_set() {
    let fixture = Fixture::new();
    let path = format!("/api/v1/sessions/{}/policy", id(1, BEACON_LINK));
    let wish = json!({"preset": "demanding"});
    let (status, answer) = fixture.send(Method::POST, &path, Some(wish)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(answer["hint"].as_str().unwrap().contains("/api/v1/listeners/"), "{answer}");
    assert_eq!(fixture.take_received(), [""; 0]);
}

#[tokio::test]
async fn orders_reach_the_shard_of_the_session() {
    let fixture = Fixture::new();
    let session = id(1, 3);
    let at = |what: &str| format!("/api/v1/sessions/{session}{what}");
    for (method, what, body) in [
        (Method::DELETE, "", None),
        (Method::POST, "/kick", Some(json!({"stay_away": true}))),
        (Method::POST, "/kick", None),
        (Method::POST, "/hold", Some(json!({"seconds": 60}))),
        (Method::POST, "/release", None),
        (Method::POST, "/policy", Some(json!({"preset": "demanding"}))),
    ] {
        let (status, answer) = fixture.send(method, &at(what), body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["session"], session);
    }
    let kick = |stay_away| Order::Kick { stay_away, text: Box::default() };
    let order = |order: Order| format!("1: {order:?} 100000000000003");
    let expected = [
        kick(false),
        kick(true),
        kick(false),
        Order::Hold(Span::from_secs(60)),
        Order::Release,
        Order::Retune(Policy::demanding()),
    ];
    assert_eq!(fixture.take_received(), expected.map(order));
}

#[tokio::test]
async fn a_retune_reaches_all_shards_and_returns_both_bounds() {
    let fixture = Fixture::new();
    let path = "/api/v1/listeners/line/policy";
    let wish = json!({"idle_ms": 1_000, "interval_ms": 500, "probes": 2});
    let (status, answer) = fixture.send(Method::PUT, path, Some(wish)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&answer["old"]["bound_ms"], &answer["new"]["bound_ms"]),
        (&json!(30_000), &json!(2_000))
    );
    assert_eq!(fixture.get(path).await.1["bound_ms"], 2_000);
    let policy = Policy::new(Span::from_secs(1), Span::from_millis(500), 2).unwrap();
    let command = hub::HubCommand::Retune { listener: 1, policy };
    // Requests are handled in order: an answer proves that the command was handled.
    fixture.get(&format!("/api/v1/sessions/{}", id(0, 0))).await;
    fixture.get(&format!("/api/v1/sessions/{}", id(1, 0))).await;
    let mut received = fixture.take_received();
    received.sort();
    assert_eq!(received, [format!("0: {command:?}"), format!("1: {command:?}")]);
}

#[tokio::test]
async fn readiness_follows_accepting_and_draining() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/readyz").await.0, StatusCode::OK);
    for (reason, name) in [
        (PauseReason::DescriptorLimit, "descriptor_limit"),
        (PauseReason::ControlPlane, "control_plane"),
    ] {
        fixture.stats[1].accepting.pause(reason);
        let (status, answer) = fixture.get("/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains("shard 1") && error.contains(name), "{error}");
    }
    fixture.stats[1].accepting.resume();
    assert_eq!(fixture.get("/readyz").await.0, StatusCode::OK);
    let (status, _) = fixture.send(Method::POST, "/api/v1/drain", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(*fixture.gateway.phase().borrow(), Lifecycle::Draining);
    assert_eq!(fixture.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(fixture.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn all_routes_but_health_and_readiness_need_the_token() {
    let token = Token::new("0123456789abcdef").unwrap();
    let fixture = Fixture::with(Some(token), 1);
    for (path, _) in guarded_routes() {
        let mut refused = 0;
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
            let (status, answer) = fixture.send(method, path, None).await;
            assert!(answer["hint"].is_string());
            assert!([StatusCode::UNAUTHORIZED, StatusCode::METHOD_NOT_ALLOWED].contains(&status));
            refused += u32::from(status == StatusCode::UNAUTHORIZED);
        }
        assert!(refused > 0, "{path}");
    }
    for (path, _) in open_routes() {
        assert_eq!(fixture.get(path).await.0, StatusCode::OK, "{path}");
    }
    for (given, expected) in [
        ("Bearer 0123456789abcdef", 200),
        ("bearer 0123456789abcdef", 200),
        ("Bearer 0123456789abcdeX", 401),
        ("Basic 0123456789abcdef", 401),
        ("0123456789abcdef", 401),
    ] {
        let request = HttpRequest::builder().uri("/metrics").header(header::AUTHORIZATION, given);
        let (status, _) = fixture.request(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status.as_u16(), expected, "{given}");
    }
}

#[tokio::test]
async fn requests_of_web_pages_are_refused_without_a_token() {
    let fixture = Fixture::new();
    for (method, name, value, expected) in [
        (Method::POST, header::ORIGIN, "https://example.org", 403),
        (Method::POST, header::HOST, "rebound.example.org", 403),
        (Method::POST, header::HOST, "127.0.0.1:7480", 202),
        (Method::POST, header::HOST, "localhost:7480", 202),
    ] {
        let request = HttpRequest::builder().method(method).uri("/api/v1/drain");
        let request = request.header(name, value).body(Body::empty()).unwrap();
        assert_eq!(fixture.request(request).await.0.as_u16(), expected, "{value}");
    }
    let site = header::HeaderName::from_static("sec-fetch-site");
    for (name, value, expected) in [
        (header::ORIGIN, "https://example.org", 403),
        (site.clone(), "cross-site", 403),
        (site.clone(), "same-site", 403),
        (site.clone(), "same-origin", 200),
        (site, "none", 200),
    ] {
        let request = HttpRequest::get("/api/v1/events").header(name, value);
        let response = fixture.respond(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), expected, "an event stream for {value}");
    }
}

#[tokio::test]
async fn a_subscriber_gets_a_snapshot_then_events_and_resumes() {
    let fixture = Fixture::new();
    fixture.join(1);
    let mut frames = fixture.events(None).await;
    let (name, id, mark) = frames.next().await.unwrap();
    assert_eq!((name.as_str(), id.as_str(), &mark["number"]), ("snapshot", "", &json!(1)));
    assert_eq!(frames.names(4).await, vec!["session_away"; 4]);
    let sessions = 2 * SESSIONS as usize;
    assert_eq!(frames.names(sessions).await, vec!["session"; sessions]);
    let (name, id, _) = frames.next().await.unwrap();
    assert_eq!((name.as_str(), id.as_str()), ("live", "a-1"));
    fixture.join(2);
    fixture.join(3);
    let (name, id, event) = frames.next().await.unwrap();
    assert_eq!((name.as_str(), id.as_str(), &event["number"]), ("join", "a-2", &json!(2)));
    drop(frames);
    let mut frames = fixture.events(Some(&id)).await;
    assert_eq!(frames.next().await.unwrap().1, "a-3", "no snapshot, nothing twice");
}

#[tokio::test]
async fn a_gap_is_reported_and_leads_to_a_new_snapshot() {
    let fixture = Fixture::new();
    for _ in 0..20 {
        fixture.join(1);
    }
    for (last, reason) in
        [("a-2", "too_far_behind"), ("b-19", "unknown_position"), ("nonsense", "unknown_position")]
    {
        let mut frames = fixture.events(Some(last)).await;
        let (name, _, gap) = frames.next().await.unwrap();
        assert_eq!((name.as_str(), &gap["reason"]), ("gap", &json!(reason)));
        assert_eq!(frames.next().await.unwrap().0, "snapshot");
    }
}

#[tokio::test]
async fn a_slow_subscriber_is_disconnected_and_a_fast_one_is_not() {
    let fixture = Fixture::new();
    let mut slow = fixture.events(Some("a-0")).await;
    let mut fast = fixture.events(Some("a-0")).await;
    for number in 1..=40 {
        fixture.join(1);
        assert_eq!(fast.next().await.unwrap().1, format!("a-{number}"));
    }
    let (name, _, gap) = slow.next().await.unwrap();
    assert_eq!((name.as_str(), &gap["reason"]), ("gap", &json!("too_far_behind")));
    assert_eq!(slow.next().await, None, "disconnected");
}

#[tokio::test]
async fn subscribers_are_bounded_and_end_with_the_gateway() {
    let fixture = Fixture::with(None, 1);
    let mut frames = fixture.events(Some("a-0")).await;
    assert_eq!(fixture.get("/api/v1/events").await.0, StatusCode::SERVICE_UNAVAILABLE);
    fixture.join(1);
    fixture.gateway.advance(Lifecycle::Stopped);
    assert_eq!(frames.next().await.unwrap().0, "join", "the last events are still sent");
    assert_eq!(frames.next().await, None);
    drop(frames);
    fixture.events(Some("a-1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_silent_busy_or_stopped_is_unavailable() {
    let mut polls = Vec::new();
    let (requests, receiver) = connect(&mut polls);
    let gateway = Arc::new(gateway(vec![requests.clone()], vec![Arc::default()]));
    let api = Api::new(gateway, None, 1);
    let ask = || async {
        let request = HttpRequest::get("/api/v1/sessions").body(Body::empty()).unwrap();
        respond(&api, request).await.status()
    };
    assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE, "silent");
    while requests.send(Request::StopAccepting).is_ok() {}
    assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE, "full");
    drop(receiver);
    assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE, "gone");
}

#[tokio::test]
async fn the_log_answers_with_the_settings_in_force() {
    let fixture = Fixture::new();
    let put = async |wish| fixture.send(Method::PUT, "/api/v1/log", Some(wish)).await;
    let answer = |heartbeats: bool, level: &str| {
        (StatusCode::OK, json!({"heartbeats": heartbeats, "level": level}))
    };
    assert_eq!(put(json!({})).await, answer(false, "info"));
    assert_eq!(put(json!({"level": "debug"})).await, answer(false, "debug"));
    assert_eq!(put(json!({"heartbeats": true})).await, answer(true, "debug"));
    assert_eq!(put(json!({"level": "loud"})).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(put(json!({})).await, answer(true, "debug"), "a refused request changes nothing");
}

/// Returns a request body that the operation accepts.
fn sample_body(path: &str) -> Option<Value> {
    Some(match path.rsplit('/').next()? {
        "hold" => json!({"seconds": 5}),
        "kick" => json!({"ban": {"seconds": 60, "of": ["identity"]}}),
        "policy" => json!({"preset": "relaxed"}),
        "log" => json!({"heartbeats": true}),
        "bans" => json!({"identity": "user-1", "seconds": 60}),
        "presence" => json!({"identities": ["user-1"]}),
        _ => return None,
    })
}

/// Fills in the parameters of a path.
fn with_parameters(path: &str) -> String {
    let named = path.replace("{name}", "line").replace("{identity}", "user-1");
    let audience = if path == "/api/v1/broadcast" { "?all=true" } else { "" };
    named.replace("{id}", &id(1, 5)) + audience
}

#[tokio::test]
async fn the_document_and_the_router_describe_the_same() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let routes: Vec<&str> =
        open_routes().iter().chain(&guarded_routes()).map(|(path, _)| *path).collect();
    let mut documented: Vec<&str> = paths.keys().map(String::as_str).collect();
    let mut routed = routes.clone();
    documented.sort_unstable();
    routed.sort_unstable();
    assert_eq!(documented, routed);
    for path in routes {
        let operations = paths[path].as_object().unwrap();
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let fixture = Fixture::new();
            let name = method.as_str().to_ascii_lowercase();
            let request = HttpRequest::builder().method(method).uri(with_parameters(path));
            let body = sample_body(path).map_or(String::new(), |body| body.to_string());
            let request = request.body(Body::from(body)).unwrap();
            let response = fixture.respond(request).await;
            let status = response.status();
            let Some(operation) = operations.get(&name) else {
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{name} {path} is undocumented");
                continue;
            };
            let promised = &operation["responses"][status.as_str()]["content"];
            assert!(status.is_success() && promised.is_object(), "{name} {path}: {status}");
            let Some(schema) = promised.get("application/json").map(|json| &json["schema"]) else {
                continue;
            };
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let answer = serde_json::from_slice(&bytes).unwrap();
            assert_conforms(&document, schema, &answer, &format!("{name} {path}"));
        }
    }
}

#[test]
fn events_match_the_document() {
    let document = document();
    let fixture = Fixture::new();
    let mut subscriber = fixture.gateway.events().subscribe();
    fixture.join(1);
    fixture.stats[0].accepting.pause(PauseReason::HostLimit);
    fixture.gateway.look(0, Clock::start());
    let schema = json!({"$ref": "#/components/schemas/Event"});
    for event in subscriber.ready().unwrap() {
        assert_conforms(&document, &schema, &serde_json::to_value(&*event).unwrap(), "an event");
    }
}

#[test]
fn the_manual_names_each_kind_of_event() {
    const PAGE: &str = include_str!("../../../../docs/admin-api.md");
    let (_, events) = PAGE.split_once("## Events").unwrap();
    let document = document();
    let bodies = document.pointer("/components/schemas/Body/oneOf").unwrap().as_array().unwrap();
    let kinds: BTreeSet<&str> = bodies
        .iter()
        .map(|body| {
            let all = body["allOf"].as_array().into_iter().flatten().chain([body]);
            let mut kinds = all.filter_map(|part| part["properties"]["kind"]["enum"][0].as_str());
            kinds.next().unwrap_or_else(|| panic!("{body} has no kind"))
        })
        .collect();
    assert_eq!(kinds.len(), bodies.len());
    for kind in kinds {
        assert!(events.contains(&format!("`{kind}`")), "{kind} is not in docs/admin-api.md");
    }
}

/// Panics unless `value` conforms to `schema`. Supports the parts of JSON Schema that the document
/// uses.
fn assert_conforms(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Err(why) = check(document, schema, value) {
        panic!("{place}: {why}\n{value}");
    }
}

fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(&reference[1..]).ok_or(format!("{reference} is missing"))?;
        return check(document, found, value);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(document, part, value)?;
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let tries = choices.iter().map(|choice| check(document, choice, value));
        let failures: Vec<String> = tries.filter_map(Result::err).collect();
        if failures.len() == choices.len() {
            return Err(failures.join("; "));
        }
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap();
        value.get(name).ok_or(format!("{name} is missing"))?;
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(inner) = value.get(name) {
            check(document, property, inner).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    for inner in value.as_array().into_iter().flatten() {
        check(document, &schema["items"], inner)?;
    }
    if let Some(legal) = schema["enum"].as_array().filter(|legal| !legal.contains(value)) {
        return Err(format!("not one of {legal:?}"));
    }
    let is = match value {
        Value::Null => return Err("null, which must be absent".to_owned()),
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let legal = &schema["type"];
    let among = legal.as_array().is_some_and(|legal| legal.iter().any(|legal| legal == is));
    let fits = legal.is_null() || legal == is || among;
    fits.then_some(()).ok_or_else(|| format!("{is}, not {legal}"))
}

#[tokio::test]
async fn a_command_reaches_all_shards_before_the_next_one_reaches_any() {
    let mut polls = Vec::new();
    let (free, received) = connect(&mut polls);
    let (busy, blocked) = connect_busy(&mut polls);
    let gateway = Arc::new(gateway(vec![free, busy], vec![Arc::default(), Arc::default()]));
    let retune = |policy| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.retune(0, |_| Ok::<_, ShardUnavailable>(policy)).await })
    };
    let first = retune(Policy::datacenter());
    while received.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    let second = retune(Policy::relaxed());
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
        assert!(received.try_recv().is_err(), "the first one has not reached the other shard");
    }
    assert_eq!(blocked.try_iter().count(), REQUESTS);
    assert_eq!(first.await.unwrap(), Ok((Policy::default(), Policy::datacenter())));
    assert_eq!(second.await.unwrap(), Ok((Policy::datacenter(), Policy::relaxed())));
    let last = |requests: &Receiver<Request>| match requests.try_iter().last() {
        Some(Request::Command(command)) => format!("{command:?}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(last(&received), last(&blocked));
}

#[tokio::test(start_paused = true)]
async fn a_retune_that_a_busy_shard_missed_is_not_in_force_and_may_be_repeated() {
    let mut polls = Vec::new();
    let (busy, blocked) = connect_busy(&mut polls);
    let (free, received) = connect(&mut polls);
    let gateway = gateway(vec![busy, free], vec![Arc::default(), Arc::default()]);
    let retune =
        || gateway.retune(0, |policy| Ok::<_, ShardUnavailable>(policy.with_enforce(false)));
    let (is, wanted) = (Policy::default(), Policy::default().with_enforce(false));
    assert_eq!(retune().await, Err(ShardUnavailable::Busy));
    assert!(matches!(received.try_recv(), Ok(Request::Command(_))), "the others have it");
    let listener = &gateway.listeners()[0];
    assert_eq!(listener.policy(), is);
    assert!(!listener.has_policy(is) && !listener.has_policy(wanted), "it is not known");
    assert_eq!(blocked.try_iter().count(), REQUESTS);
    assert_eq!(retune().await, Ok((is, wanted)));
    assert!(listener.has_policy(wanted));
}

#[tokio::test]
async fn of_two_changes_of_a_policy_at_once_none_is_lost() {
    let mut polls = Vec::new();
    let (shard, _received) = connect(&mut polls);
    let gateway = gateway(vec![shard], vec![Arc::default()]);
    let shared = gateway.retune(0, |policy| Ok::<_, ShardUnavailable>(policy.with_enforce(false)));
    let keepalive = Span::from_secs(3);
    let other = gateway
        .retune(0, |policy| Ok::<_, ShardUnavailable>(policy.with_keepalive(keepalive).unwrap()));
    let (first, second) = tokio::join!(shared, other);
    assert!(first.is_ok() && second.is_ok());
    let policy = gateway.listeners()[0].policy();
    assert_eq!((policy.enforce(), policy.keepalive()), (false, Some(keepalive)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_last_event_when_the_gateway_stops() {
    use std::io::{Read, Write};
    let fixture = Fixture::new();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let phase = fixture.gateway.phase();
    let serving = tokio::spawn(serve(listener, fixture.api.clone(), phase));
    let (live, is_live) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let (mut text, mut buffer) = (Vec::new(), [0; 4_096]);
        loop {
            let count = stream.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
            if String::from_utf8_lossy(&text).contains("event: live") {
                let _ = live.send(());
            }
            if count == 0 {
                return String::from_utf8_lossy(&text).into_owned();
            }
        }
    });
    tokio::task::spawn_blocking(move || is_live.recv().unwrap()).await.unwrap();
    for session in 0..8 {
        fixture.join(session);
    }
    fixture.gateway.advance(Lifecycle::Stopped);
    serving.await.unwrap();
    let text = tokio::task::spawn_blocking(move || client.join().unwrap()).await.unwrap();
    assert_eq!(text.matches("event: join").count(), 8);
    assert!(text.ends_with("0\r\n\r\n"), "the end is said, not cut off");
}

/// Sends a message over the admin interface, with a key if it is not empty.
async fn send_message(fixture: &Fixture, path: &str, key: &str, message: &str) -> (u16, Value) {
    let mut request = HttpRequest::builder().method(Method::POST).uri(path);
    if !key.is_empty() {
        request = request.header("Idempotency-Key", key);
    }
    let request = request.body(Body::from(message.to_owned())).unwrap();
    let (status, answer) = fixture.request(request).await;
    (status.as_u16(), answer)
}

#[tokio::test]
async fn messages_reach_whom_they_are_for_and_once_for_each_key() {
    let fixture = Fixture::new();
    let session = id(1, 3);
    let reach = |queued: u64, none: u64| {
        let (away, unfit, busy) = (0, 0, 0);
        json!({"queued": queued, "away": away, "none": none, "unfit": unfit, "busy": busy})
    };
    let to_session = format!("/api/v1/sessions/{session}/send");
    assert_eq!(send_message(&fixture, &to_session, "", "hi").await, (200, reach(1, 0)));
    let nobody = format!("/api/v1/sessions/{}/send", id(1, 0xff));
    assert_eq!(send_message(&fixture, &nobody, "", "hi").await, (200, reach(0, 1)));
    let to_identity = "/api/v1/identities/user%2D1/send";
    let (status, answer) = send_message(&fixture, to_identity, "k1", "hi").await;
    assert_eq!((status, &answer["none"]), (200, &json!(0)));
    assert!(answer["queued"].as_u64() > Some(1), "its sessions at all shards: {answer}");
    let first = fixture.take_received();
    assert!(first.iter().all(|line| line.ends_with(" hi")), "{first:?}");
    assert_eq!(send_message(&fixture, to_identity, "k1", "hi").await, (200, answer));
    assert_eq!(fixture.take_received(), [""; 0], "the same key sends nothing");
    assert_eq!(send_message(&fixture, to_identity, "k1", "other").await.0, 422);
    assert_eq!(send_message(&fixture, to_identity, "a b", "hi").await.0, 400);
    // Two steps at each of two shards.
    let all = "/api/v1/broadcast?listener=line&attribute=role=pilot";
    assert_eq!(send_message(&fixture, all, "", "hi").await, (200, reach(4, 0)));
    let seen = fixture.take_received();
    assert_eq!(seen.len(), 4);
    assert!(
        seen[0].contains("listener: Some(1)") && seen[0].contains("String(\"pilot\")"),
        "{seen:?}"
    );
    let (status, answer) = send_message(&fixture, "/api/v1/broadcast", "", "hi").await;
    assert_eq!(status, 400, "nobody is told by mistake: {answer}");
    assert_eq!(send_message(&fixture, &to_session, "", &"x".repeat(MAX_DATA)).await.0, 200);
    assert_eq!(send_message(&fixture, &to_session, "", &"x".repeat(MAX_DATA + 1)).await.0, 413);
}

#[tokio::test]
async fn presence_tells_who_is_online_suspect_offline_or_unknown() {
    let fixture = Fixture::new();
    fixture.join(7);
    let (status, one) = fixture.get("/api/v1/presence/user-1").await;
    assert_eq!((status, &one["state"]), (StatusCode::OK, &json!("online")));
    let sessions = one["sessions"].as_array().unwrap();
    assert!(sessions.iter().any(|it| it["session"] == id(0, 1)), "{one}");
    assert!(sessions.iter().any(|it| it["session"] == id(1, 1)), "{one}");
    let left = crate::report::tests::left(9);
    fixture.gateway.note(left);
    let asked = json!({"identities": ["nobody", "user-2", "ada", "user-2"]});
    let (status, many) = fixture.send(Method::POST, "/api/v1/presence", Some(asked)).await;
    assert_eq!(status, StatusCode::OK);
    let states: Vec<_> =
        many["presences"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["unknown", "online", "offline"], "each once");
    let last = &many["presences"][2]["last"];
    assert_eq!((&last["cause"], &last["epoch"]), (&json!("unknown"), &json!("9")));
    let too_many = json!({"identities": vec!["x"; 1_001]});
    let (status, _) = fixture.send(Method::POST, "/api/v1/presence", Some(too_many)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, answer) = fixture.send(Method::POST, "/api/v1/presence", Some(json!({}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
}
