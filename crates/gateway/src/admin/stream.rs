//! The handler that streams events as server-sent events: a snapshot, then each new event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::answer::{Trouble, json};
use super::sessions::SessionView;
use super::state::Shared;
use crate::events::{Gap, Position, Subscriber};
use crate::gateway::{Cursor, Gateway, Lifecycle, ShardUnavailable};
use crate::request::{Filter, SESSIONS_PER_PAGE};

/// Interval of comments on a silent stream: below the minute after which proxies close it.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Streams events as server-sent events. Without `Last-Event-ID`, or after a gap, the stream starts
/// with `snapshot` (discard earlier state), one `session` for each session online, then `live`.
/// Numbered events follow, named by their kind. Each event states the new state, so a repeated
/// event changes nothing.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    params(("Last-Event-ID" = Option<String>, Header, description = "Id of the last event seen")),
    responses(
        (status = 200, body = crate::events::Event, content_type = "text/event-stream"),
        (status = 503, body = Trouble)
    )
)]
pub(super) async fn events(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let permit = shared.subscribers.clone().try_acquire_owned().map_err(|_| {
        let hint = "end another subscription, or raise sse_subscribers in [limits]";
        Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "too many subscribers", hint)
    })?;
    let last_id = headers.get("last-event-id").map(|id| id.to_str().unwrap_or(""));
    let feed = Feed::new(shared.gateway, last_id, permit);
    let stream = stream::unfold(feed, |mut feed| async {
        let event = feed.next().await?;
        Some((Ok(event), feed))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEPALIVE)))
}

/// The event stream of one subscriber.
struct Feed {
    gateway: Arc<Gateway>,
    subscriber: Subscriber,
    stage: Stage,
    /// Events ready to be sent: at most one page of sessions or one batch of events.
    ready: VecDeque<Event>,
    phase: watch::Receiver<Lifecycle>,
    _permit: OwnedSemaphorePermit,
}

/// The part of the stream that comes next.
#[derive(Clone, Copy)]
enum Stage {
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
}

/// The data of the `snapshot` and `live` events, which enclose a snapshot.
#[derive(Serialize)]
struct SnapshotMark {
    /// The number of the last event before the snapshot.
    number: u64,
}

impl Feed {
    fn new(gateway: Arc<Gateway>, last_id: Option<&str>, permit: OwnedSemaphorePermit) -> Feed {
        let resumed = last_id.map(|id| {
            let position = id.parse::<Position>().map_err(|_| Gap::UnknownPosition)?;
            gateway.events().resume(position)
        });
        let (resumed, gap) = match resumed {
            Some(Ok(subscriber)) => (Some(subscriber), None),
            Some(Err(gap)) => (None, Some(gap)),
            None => (None, None),
        };
        let mut ready: VecDeque<Event> = gap.map(gap_event).into_iter().collect();
        let (subscriber, stage) = match resumed {
            Some(subscriber) => (subscriber, Stage::Live),
            None => {
                let subscriber = gateway.events().subscribe();
                let mark = SnapshotMark { number: subscriber.position().number };
                ready.push_back(event("snapshot", &mark));
                (subscriber, Stage::Snapshot(Cursor::default()))
            }
        };
        let phase = gateway.phase();
        Feed { gateway, subscriber, stage, ready, phase, _permit: permit }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.stage {
                Stage::Snapshot(cursor) => self.read_sessions(cursor).await,
                Stage::Live => self.read_events().await,
                Stage::Ended => return None,
            }
        }
    }

    async fn read_sessions(&mut self, cursor: Cursor) {
        let everyone = Filter::default();
        let page = self.gateway.sessions(&everyone, cursor, SESSIONS_PER_PAGE).await;
        let (sessions, next) = match page {
            Ok(page) => page,
            // No id was sent yet, so the client's next request starts with a new snapshot.
            Err(ShardUnavailable::Busy | ShardUnavailable::Gone) => {
                self.stage = Stage::Ended;
                return;
            }
        };
        for info in sessions {
            self.ready.push_back(event("session", &SessionView::new(&self.gateway, info)));
        }
        if let Some(next) = next {
            self.stage = Stage::Snapshot(next);
            return;
        }
        // The first id: a client cannot resume from a part of a snapshot.
        let position = self.subscriber.position();
        let mark = SnapshotMark { number: position.number };
        self.ready.push_back(event("live", &mark).id(position.to_string()));
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
        };
        match batch {
            Ok(batch) => {
                let stream = self.subscriber.position().stream;
                for happened in batch {
                    let id = Position { stream, number: happened.number };
                    let event = event(happened.body.kind(), &*happened);
                    self.ready.push_back(event.id(id.to_string()));
                }
            }
            Err(gap) => {
                self.ready.push_back(gap_event(gap));
                self.stage = Stage::Ended;
            }
        }
    }
}

fn gap_event(gap: Gap) -> Event {
    event("gap", &GapView { reason: gap.name() })
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(json(data))
}
