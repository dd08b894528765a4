//! The handle through which the control plane asks and steers the shards.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use systole_core::{Policy, Span, hub};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::correlation::{Correlation, Findings, Questions};
use crate::events::{Body, Events};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::report::{Change, Report, SessionInfo};
use crate::request::{Filter, Order, Page, Refused, Request, Requests, SESSIONS_PER_PAGE, Story};
use crate::verdicts::{VERDICTS, Verdicts};

/// How long an answer of a shard is awaited. A turn of its loop takes milliseconds: one that takes
/// longer is stalled, and whoever asked should know.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How many requests one page of sessions may cost. A filter that matches little would otherwise
/// search all links for one question; the cursor goes on where the search stopped.
pub const ASKS_PER_PAGE: usize = 32;

/// How long to wait before a busy shard is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// How long to wait before a list of who is online goes on at a shard that gave no answer: it has
/// enough to do as it is.
const LIST_AGAIN: Duration = Duration::from_secs(1);

/// How far a gateway has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifecycle {
    /// It serves.
    Running,
    /// It takes leave: no new connections.
    Draining,
    /// All is told.
    Stopped,
}

/// One listener, as the control plane knows it.
#[derive(Debug)]
pub struct ListenerState {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What clients speak there.
    pub codec: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    policy: Mutex<Policy>,
}

impl ListenerState {
    /// A listener with the policy that it starts with.
    pub fn new(
        name: Arc<str>,
        codec: &'static str,
        address: SocketAddr,
        policy: Policy,
    ) -> ListenerState {
        ListenerState { name, codec, address, policy: Mutex::new(policy) }
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace_policy(&self, policy: Policy) -> Policy {
        let mut held = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, policy)
    }
}

/// A running gateway, as its control plane sees it.
#[derive(Debug)]
pub struct Gateway {
    shards: Vec<Requests>,
    accepting: Vec<AtomicBool>,
    listeners: Vec<ListenerState>,
    events: Events,
    verdicts: Verdicts,
    metrics: Metrics,
    logs: Logs,
    correlation: Correlation,
    questions: Questions,
    phase: watch::Sender<Lifecycle>,
}

/// Why a shard gave no answer. Ours, not the caller's; the sessions are unharmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardUnavailable {
    /// It took no request, or took one and was too slow: try again.
    Busy,
    /// It has ended: the gateway is stopping.
    Gone,
}

/// Where a listing of sessions goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// The shard.
    pub shard: usize,
    /// Its first link not yet looked at.
    pub link: u32,
}

impl Gateway {
    /// A gateway of these shards and listeners, each in the order of its index.
    pub fn new(
        shards: Vec<Requests>,
        listeners: Vec<ListenerState>,
        events: Events,
        metrics: Metrics,
        logs: Logs,
    ) -> Gateway {
        let accepting = shards.iter().map(|_| AtomicBool::new(true)).collect();
        let phase = watch::Sender::new(Lifecycle::Running);
        let (correlation, questions) = Correlation::new(events.names().clone());
        let questions = Arc::new(Mutex::new(Some(questions)));
        Gateway {
            shards,
            accepting,
            listeners,
            events,
            verdicts: Verdicts::new(VERDICTS),
            metrics,
            logs,
            correlation,
            questions,
            phase,
        }
    }

    /// The listeners, by index.
    pub fn listeners(&self) -> &[ListenerState] {
        &self.listeners
    }

    /// The index of the listener of that name.
    pub fn listener(&self, name: &str) -> Option<u16> {
        let index = self.listeners.iter().position(|listener| *listener.name == *name)?;
        u16::try_from(index).ok()
    }

    /// The name of a listener; empty for an unknown index.
    pub fn listener_name(&self, index: u16) -> Arc<str> {
        self.listeners.get(usize::from(index)).map(|found| found.name.clone()).unwrap_or_default()
    }

    /// What happened.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Why those ended that ended lately.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// What was counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What is logged.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// How far the gateway has come, to look at and to wait for.
    pub fn phase(&self) -> watch::Receiver<Lifecycle> {
        self.phase.subscribe()
    }

    /// Goes on to `phase`; never back.
    pub fn advance(&self, phase: Lifecycle) {
        self.phase.send_if_modified(|now| {
            let is_later = phase as u8 > *now as u8;
            if is_later {
                *now = phase;
            }
            is_later
        });
    }

    /// Whether new connections are accepted at every listener of every shard.
    pub fn is_ready(&self) -> bool {
        let running = *self.phase.borrow() == Lifecycle::Running;
        running && self.accepting.iter().all(|accepting| accepting.load(Ordering::Relaxed))
    }

    /// Takes note of a report: logs it, remembers it, keeps it as an event. Call
    /// [`Events::wake`] after a batch.
    pub fn note(&self, shard: usize, report: Report, wall_ms: u64) {
        let accepting = match &report {
            Report::AcceptingPaused(_) => Some(false),
            Report::AcceptingResumed => Some(true),
            Report::Session { .. }
            | Report::Missed(_)
            | Report::Stalled { .. }
            | Report::Stopped => None,
        };
        if let (Some(accepting), Some(known)) = (accepting, self.accepting.get(shard)) {
            known.store(accepting, Ordering::Relaxed);
        }
        self.logs.heartbeat(&report);
        self.keep_verdict(&report);
        let findings = self.correlation.report(&report);
        if let Some(event) = self.events.publish(shard, report, wall_ms) {
            self.logs.event(&event);
        }
        self.tell(findings);
    }

    /// Asks what correlation wants to know of other sessions, tells what time alone brings to
    /// light, and lists who is online after reports were missed. Never ends; a second call asks
    /// nothing.
    pub async fn correlate(&self) {
        let taken = self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ask = async {
            let Some(mut questions) = taken else {
                return std::future::pending().await;
            };
            while let Some(question) = questions.recv().await {
                let (heard_ago, suspect) = self.look_at(&question.siblings).await;
                self.tell(self.correlation.answered(question.session, heard_ago, suspect));
                self.events.wake();
            }
        };
        let wait = async {
            loop {
                self.tell(self.correlation.due().await);
                self.events.wake();
            }
        };
        let learn = async {
            loop {
                let gap = self.correlation.gap().await;
                self.list_online(gap).await;
            }
        };
        tokio::join!(ask, wait, learn);
    }

    /// Tells correlation who is online, once reports were missed; goes on where a busy shard did
    /// not answer, and gives up for another gap, which asks again.
    async fn list_online(&self, gap: u64) {
        let (everyone, mut cursor) = (Filter::default(), Cursor::default());
        loop {
            match self.sessions(&everyone, cursor, SESSIONS_PER_PAGE).await {
                Ok((sessions, next)) => {
                    let Some(findings) = self.correlation.listed(gap, &sessions) else {
                        return;
                    };
                    self.tell(findings);
                    self.events.wake();
                    match next {
                        Some(next) => cursor = next,
                        None => return self.correlation.learned(gap),
                    }
                }
                Err(ShardUnavailable::Busy) => sleep(LIST_AGAIN).await,
                Err(ShardUnavailable::Gone) => return,
            }
        }
    }

    /// How many sessions correlation knows to be online, and whether it has been told of all.
    #[cfg(test)]
    pub(crate) fn known_online(&self) -> (u32, bool) {
        self.correlation.known_online()
    }

    /// When the one of these sessions was heard that was heard last, and whether one is suspected.
    async fn look_at(&self, sessions: &[u64]) -> (Option<Span>, bool) {
        let (mut heard_ago, mut suspect) = (None, false);
        for session in sessions.iter().filter(|session| **session != 0) {
            if let Ok(Some(info)) = self.session(*session).await {
                let ago = Span::from_millis(info.last_heard_ago_ms);
                heard_ago = Some(heard_ago.map_or(ago, |known: Span| known.min(ago)));
                suspect |= info.suspect;
            }
        }
        (heard_ago, suspect)
    }

    fn tell(&self, findings: Findings) {
        for (at_ms, body) in findings {
            self.metrics.count(&body);
            if let Body::VerdictRevised { revision, .. } = &body {
                let (session, cause, confidence, note) = *revision.kept;
                self.verdicts.revise(session, cause, confidence, note);
            }
            let event = self.events.tell(at_ms, body);
            self.logs.event(&event);
        }
    }

    /// Before the event is told: whoever hears of it may ask why at once.
    fn keep_verdict(&self, report: &Report) {
        if let Report::Session { at_ms, subject, change } = report
            && let Change::Leave { verdict, lasted, flight, .. } = change
        {
            self.verdicts.keep(*at_ms, subject.clone(), *verdict, *lasted, flight.clone());
        }
    }

    /// Sessions from `cursor` on: at most `limit`, and where to go on. A page may hold fewer, even
    /// none, and still have a successor.
    ///
    /// # Errors
    /// A shard gave no answer in time.
    pub async fn sessions(
        &self,
        filter: &Filter,
        mut cursor: Cursor,
        limit: usize,
    ) -> Result<(Vec<SessionInfo>, Option<Cursor>), ShardUnavailable> {
        let mut found = Vec::new();
        for _ in 0..ASKS_PER_PAGE {
            let Some(shard) = self.shards.get(cursor.shard) else {
                return Ok((found, None));
            };
            let limit = limit.saturating_sub(found.len()).min(SESSIONS_PER_PAGE);
            if limit == 0 {
                break;
            }
            let filter = filter.clone();
            let Page { sessions, next } =
                ask(shard, |reply| Request::Sessions { from: cursor.link, limit, filter, reply })
                    .await?;
            found.extend(sessions);
            cursor = match next {
                Some(link) => Cursor { link, ..cursor },
                None => Cursor { shard: cursor.shard + 1, link: 0 },
            };
        }
        let next = (cursor.shard < self.shards.len()).then_some(cursor);
        Ok((found, next))
    }

    /// One session; `None` if it is not online.
    ///
    /// # Errors
    /// Its shard gave no answer in time.
    pub async fn session(&self, session: u64) -> Result<Option<SessionInfo>, ShardUnavailable> {
        match self.shard_of(session) {
            Some(shard) => ask(shard, |reply| Request::Session { session, reply }).await,
            None => Ok(None),
        }
    }

    /// What happened lately to a session; `None` if it is not online.
    ///
    /// # Errors
    /// Its shard gave no answer in time.
    pub async fn story(&self, session: u64) -> Result<Option<Box<Story>>, ShardUnavailable> {
        match self.shard_of(session) {
            Some(shard) => ask(shard, |reply| Request::Story { session, reply }).await,
            None => Ok(None),
        }
    }

    /// Gives an order to one session; `false` if it is not online.
    ///
    /// # Errors
    /// Its shard gave no answer in time; the order may have been carried out all the same.
    pub async fn order(&self, session: u64, order: Order) -> Result<bool, ShardUnavailable> {
        match self.shard_of(session) {
            Some(shard) => ask(shard, |reply| Request::Order { session, order, reply }).await,
            None => Ok(false),
        }
    }

    /// Puts a policy in force for all sessions of a listener and those to come, and returns the one
    /// before. The shards carry it out in turn, after this returns.
    ///
    /// # Errors
    /// A shard took no request in time. Others may have: ask again for one policy everywhere.
    pub async fn retune(&self, listener: u16, policy: Policy) -> Result<Policy, ShardUnavailable> {
        self.command(hub::HubCommand::Retune { listener, policy }).await?;
        let state = self.listeners.get(usize::from(listener));
        Ok(state.map_or(policy, |state| state.replace_policy(policy)))
    }

    /// Has heartbeats logged, or no longer.
    ///
    /// # Errors
    /// As [`Gateway::retune`].
    pub async fn log_heartbeats(&self, on: bool) -> Result<(), ShardUnavailable> {
        self.logs.set_heartbeats(on);
        self.command(hub::HubCommand::ReportHeartbeats(on)).await
    }

    /// Gives a command to all shards.
    ///
    /// # Errors
    /// As [`Gateway::retune`].
    pub async fn command(&self, command: hub::HubCommand) -> Result<(), ShardUnavailable> {
        for shard in &self.shards {
            hand_over(shard, || Request::Command(command)).await?;
        }
        Ok(())
    }

    /// Has no more connections accepted.
    ///
    /// # Errors
    /// As [`Gateway::retune`].
    pub async fn stop_accepting(&self) -> Result<(), ShardUnavailable> {
        for shard in &self.shards {
            hand_over(shard, || Request::StopAccepting).await?;
        }
        Ok(())
    }

    /// Ends all shards; tries each, whatever the others say.
    ///
    /// # Errors
    /// A shard took no request in time.
    pub async fn stop(&self) -> Result<(), ShardUnavailable> {
        let mut result = Ok(());
        for shard in &self.shards {
            match hand_over(shard, || Request::Stop).await {
                // It has ended already, which is what is wanted.
                Ok(()) | Err(ShardUnavailable::Gone) => {}
                Err(ShardUnavailable::Busy) => result = Err(ShardUnavailable::Busy),
            }
        }
        result
    }

    /// The first byte of a session's number is its shard.
    fn shard_of(&self, session: u64) -> Option<&Requests> {
        self.shards.get(usize::try_from(session >> 56).ok()?)
    }
}

async fn ask<T>(
    shard: &Requests,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, ShardUnavailable> {
    let (reply, answer) = oneshot::channel();
    shard.send(request(reply)).map_err(unanswered)?;
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(ShardUnavailable::Gone),
        Err(_) => Err(ShardUnavailable::Busy),
    }
}

/// What concerns all shards should reach all of them: a busy one is asked again for a while.
async fn hand_over(
    shard: &Requests,
    request: impl Fn() -> Request,
) -> Result<(), ShardUnavailable> {
    let insist = async {
        loop {
            match shard.send(request()).map_err(unanswered) {
                Err(ShardUnavailable::Busy) => sleep(RETRY_AFTER).await,
                done => return done,
            }
        }
    };
    timeout(ANSWER_TIMEOUT, insist).await.unwrap_or(Err(ShardUnavailable::Busy))
}

fn unanswered(refused: Refused) -> ShardUnavailable {
    match refused {
        Refused::Busy => ShardUnavailable::Busy,
        Refused::Gone => ShardUnavailable::Gone,
    }
}
