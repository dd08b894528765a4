//! The handler that streams events as server-sent events: a snapshot, then each new event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use utoipa::IntoParams;

use super::answer::{QueryParams, Trouble, json};
use super::fields::{Fields, FromFields};
use super::places::{Full, Place};
use super::sessions::{AwayView, SessionView};
use super::state::Shared;
use crate::events::{self, Gap, Position, Subscriber};
use crate::gateway::{Cursor, Gateway, Lifecycle, ShardUnavailable, Stranger};
use crate::report::{AwayInfo, SessionInfo};
use crate::request::{Filter, SESSIONS_PER_PAGE};
use crate::stats::AdminEnded;

/// Interval of comments on a silent stream: below the minute after which proxies close it.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The number after which no event comes.
const NO_LEAVES: u64 = u64::MAX;

/// What the stream has in addition to the events of sessions.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Whether to send a `stranger` for each connection that ended before it was a session, without
    /// an id; false by default. `strangers_missed` has the number of those for which the client
    /// read too slowly.
    strangers: Option<bool>,
}

impl FromFields for Wanted {
    fn names() -> Vec<&'static str> {
        vec!["strangers"]
    }

    fn from_fields(fields: &mut Fields) -> Result<Wanted, Trouble> {
        Ok(Wanted { strangers: fields.flag("strangers")? })
    }
}

/// Streams events as server-sent events. Without `Last-Event-ID`, or after a gap, the stream starts
/// with `snapshot` (discard earlier state), one `session_away` for each session that is away, one
/// `session` for each online, then `live`.
/// After a gap since a gateway was killed, the `leave` of each session that it left behind comes
/// before the snapshot, without an id. Numbered events follow, named by their kind. Each event
/// states the new state, so a repeated event changes nothing.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    params(
        Wanted,
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event seen")
    ),
    responses(
        (status = 200, body = crate::events::Event, content_type = "text/event-stream"),
        (status = 503, body = Trouble)
    )
)]
pub(super) async fn events(
    State(shared): State<Shared>,
    Extension(place): Extension<Place>,
    QueryParams(wanted): QueryParams<Wanted>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Trouble> {
    place.subscribe().map_err(|full| {
        let error = match full {
            Full::All => "too many subscribers",
            Full::Address => "too many subscribers from this address",
        };
        let hint = "end another subscription, or raise sse_subscribers in [limits]";
        Trouble::new(StatusCode::SERVICE_UNAVAILABLE, error, hint)
    })?;
    let last_id = headers.get("last-event-id").map(|id| id.to_str().unwrap_or(""));
    let mut feed = Feed::new(shared.gateway, last_id, place);
    if wanted.strangers == Some(true) {
        feed.strangers = Some(feed.gateway.strangers());
    }
    let stream = stream::unfold(feed, |mut feed| async {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    let events = Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEPALIVE));
    // The place of a subscriber ends with its connection.
    Ok(([(header::CONNECTION, "close")], events))
}

/// The event stream of one subscriber.
struct Feed {
    gateway: Arc<Gateway>,
    subscriber: Subscriber,
    stage: Stage,
    /// What is to be sent next: at most one page of sessions or one batch of events.
    ready: VecDeque<Item>,
    phase: watch::Receiver<Lifecycle>,
    /// The strangers, if the subscriber asked for them.
    strangers: Option<broadcast::Receiver<Arc<Stranger>>>,
    _place: Place,
}

/// A part of the stream. It is written out when it is sent, because a subscriber that does not read
/// holds a batch of them.
enum Item {
    /// A mark that has no number.
    Mark(Event),
    /// A session of the snapshot.
    Session(Box<SessionInfo>),
    /// A session of the snapshot that is away.
    Away(Box<AwayInfo>),
    Happened(Arc<events::Event>),
    /// The leave of a session that a killed gateway left behind. It has no id: a client that
    /// continued after it would have no snapshot.
    LeftBehind(Arc<events::Event>),
    Stranger(Arc<Stranger>),
}

/// The part of the stream that comes next.
#[derive(Clone, Copy)]
enum Stage {
    /// Leaves of sessions that a killed gateway left behind, after this number, are still to be
    /// sent; with [`NO_LEAVES`] none.
    LeftBehind(u64),
    /// Sessions that are away, from this cursor on, are still to be sent, and then all online. One
    /// that is resumed meanwhile is sent twice; of one that is lost meanwhile an event follows.
    Absent(Cursor),
    /// Sessions from this cursor on are still to be sent.
    Snapshot(Cursor),
    Live,
    Ended,
}

/// The data of a `gap` event: events were lost.
#[derive(Serialize)]
struct GapView {
    /// Why they were lost.
    reason: &'static str,
    /// How many sessions a killed gateway had left behind. The leaves of those that are still kept
    /// follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_lost: Option<u64>,
}

/// The data of a `strangers_missed` event.
#[derive(Serialize)]
struct MissedView {
    /// How many strangers were not sent.
    count: u64,
}

/// The data of the `snapshot` and `live` events, which enclose a snapshot.
#[derive(Serialize)]
struct SnapshotMark {
    /// The number of the last event before the snapshot.
    number: u64,
}

impl Feed {
    fn new(gateway: Arc<Gateway>, last_id: Option<&str>, place: Place) -> Feed {
        let resumed = last_id.map(|id| {
            let position = id.parse::<Position>().map_err(|_| Gap::UnknownPosition)?;
            gateway.events().resume(position)
        });
        let new = || gateway.events().subscribe();
        let (subscriber, stage, gap) = match resumed {
            Some(Ok(subscriber)) => (subscriber, Stage::Live, None),
            Some(Err(Gap::UnknownPosition)) => {
                let lost = Some(gateway.events().left_behind()).filter(|lost| *lost > 0);
                (new(), Stage::LeftBehind(0), Some(gap_event(Gap::UnknownPosition, lost)))
            }
            Some(Err(gap)) => (new(), Stage::LeftBehind(NO_LEAVES), Some(gap_event(gap, None))),
            None => (new(), Stage::LeftBehind(NO_LEAVES), None),
        };
        let (phase, ready) = (gateway.phase(), gap.into_iter().collect());
        Feed { gateway, subscriber, stage, ready, phase, strangers: None, _place: place }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(self.write(item));
            }
            match self.stage {
                Stage::LeftBehind(after) => self.read_left_behind(after),
                Stage::Absent(cursor) => self.read_sessions(cursor, true).await,
                Stage::Snapshot(cursor) => self.read_sessions(cursor, false).await,
                Stage::Live => self.read_events().await,
                Stage::Ended => return None,
            }
        }
    }

    fn write(&self, item: Item) -> Event {
        match item {
            Item::Mark(event) => event,
            Item::Session(info) => event("session", &SessionView::new(&self.gateway, *info)),
            Item::Away(info) => event("session_away", &AwayView::new(&self.gateway, *info)),
            Item::Happened(happened) => {
                let stream = self.subscriber.position().stream;
                let id = Position { stream, number: happened.number };
                event(happened.body.kind(), &*happened).id(id.to_string())
            }
            Item::LeftBehind(leave) => event(leave.body.kind(), &*leave),
            Item::Stranger(stranger) => event("stranger", &*stranger),
        }
    }

    /// Reads leaves of a killed gateway; after the last of them a snapshot begins.
    fn read_left_behind(&mut self, after: u64) {
        let batch = self.gateway.events().leaves_behind(after);
        if let Some(last) = batch.last() {
            self.stage = Stage::LeftBehind(last.number);
            return self.ready.extend(batch.into_iter().map(Item::LeftBehind));
        }
        self.subscriber = self.gateway.events().subscribe();
        let mark = SnapshotMark { number: self.subscriber.position().number };
        self.ready.push_back(Item::Mark(event("snapshot", &mark)));
        self.stage = Stage::Absent(Cursor::default());
    }

    async fn read_sessions(&mut self, cursor: Cursor, away: bool) {
        let everyone = Filter { away, ..Filter::default() };
        let page = self.gateway.sessions(&everyone, cursor, SESSIONS_PER_PAGE).await;
        let (page, next) = match page {
            Ok(page) => page,
            // No id was sent yet, so the client's next request starts with a new snapshot.
            Err(ShardUnavailable::Busy | ShardUnavailable::Gone) => {
                self.stage = Stage::Ended;
                return;
            }
        };
        self.ready.extend(page.away.into_iter().map(|info| Item::Away(Box::new(info))));
        self.ready.extend(page.sessions.into_iter().map(|info| Item::Session(Box::new(info))));
        if let Some(next) = next {
            self.stage = if away { Stage::Absent(next) } else { Stage::Snapshot(next) };
            return;
        }
        if away {
            self.stage = Stage::Snapshot(Cursor::default());
            return;
        }
        // The first id: a client cannot resume from a part of a snapshot.
        let position = self.subscriber.position();
        let mark = SnapshotMark { number: position.number };
        self.ready.push_back(Item::Mark(event("live", &mark).id(position.to_string())));
        self.stage = Stage::Live;
    }

    async fn read_events(&mut self) {
        let stopped = self.phase.wait_for(|phase| *phase == Lifecycle::Stopped);
        let batch = tokio::select! {
            biased;
            batch = self.subscriber.next() => batch,
            _ = stopped => {
                self.stage = Stage::Ended;
                return;
            }
            // Last, so that a flood of strangers delays nothing.
            stranger = next_stranger(&mut self.strangers) => {
                self.ready.push_back(stranger);
                return;
            }
        };
        match batch {
            Ok(batch) => self.ready.extend(batch.into_iter().map(Item::Happened)),
            Err(gap) => {
                self.gateway.metrics().count_admin(AdminEnded::Behind);
                self.ready.push_back(gap_event(gap, None));
                self.stage = Stage::Ended;
            }
        }
    }
}

/// Waits for the next stranger; for ever, if they are not asked for.
async fn next_stranger(strangers: &mut Option<broadcast::Receiver<Arc<Stranger>>>) -> Item {
    let Some(receiver) = strangers else {
        return std::future::pending().await;
    };
    match receiver.recv().await {
        Ok(stranger) => Item::Stranger(stranger),
        Err(RecvError::Lagged(count)) => {
            Item::Mark(event("strangers_missed", &MissedView { count }))
        }
        // The gateway holds the sender, so this is its end.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

fn gap_event(gap: Gap, gateway_lost: Option<u64>) -> Item {
    Item::Mark(event("gap", &GapView { reason: gap.name(), gateway_lost }))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(json(data))
}
